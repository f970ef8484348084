"""What events of the page and the API have in common: their lanes, where a picture lies, and how an error is told.

One module, so that the page and its tabs do not have to know each other (Gradio Blocks, gradio.app).
"""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.utils import get_upload_folder

from anomaly.errors import INTERNAL, NoPictureError, NotUploadedError, VigieError
from anomaly.texts import Language, say

Picture = dict[str, Any] | None  # gradio's FileData, taken raw: its own preprocessing fails without a message

MODEL_LANE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}  # one inspection at a time
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}
ASIDE: dict[str, Any] = {**PRIVATE, "queue": False}
TELLING: dict[str, Any] = {**PRIVATE, "concurrency_limit": None}  # gradio shows an error of a queued event only


class ToldError(gr.Error):  # type: ignore[misc]  # gradio has no types
    """An error as a program gets it. As text, which is all that an MCP client gets, with its code."""

    def __str__(self) -> str:
        return f"{self.title}: {self.message}"


@contextmanager
def told(language: Language, *, as_html: bool = False) -> Iterator[None]:
    """Tells an error that a person can mend in its own words; any other one stays in the log.

    Args:
        language: of the page.
        as_html: for the page, whose toasts are HTML with a title in words. A program gets the message as it is, and the
            error's code for a title.
    """
    try:
        yield
    except VigieError as error:
        text = html.escape(str(error), quote=False) if as_html else str(error)
        title = say("error", language) if as_html else error.code
        raise ToldError(text, title=title, print_exception=False) from error
    except Exception as error:
        if as_html or isinstance(error, gr.Error):
            raise
        raise ToldError("Something is wrong in the app itself; its log says what.", title=INTERNAL) from error


def path_of(picture: Picture, language: Language) -> str:
    """Where an uploaded file lies.

    Raises:
        NoPictureError: there is none.
        NotUploadedError: it was not uploaded, or is gone since: gradio itself does not look at a file without its
            `meta`, so whoever calls the API by hand could have any picture of the server inspected.
    """
    given = picture.get("path") if isinstance(picture, dict) else picture
    if not given:
        raise NoPictureError(say("no_picture", language))
    path = Path(str(given)).resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()) or not path.is_file():
        raise NotUploadedError(f"{path.name!r} is no upload of this app; upload it first (gradio_client: handle_file)")
    return str(path)


def enclosing_tab() -> gr.Tab:
    """The gr.Tab around what is being built."""
    block = Context.block
    while not isinstance(block, gr.Tab):
        assert block is not None, "call it inside a gr.Tab"
        block = block.parent
    return block
