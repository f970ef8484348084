"""A link to what is chosen, and what was not there of the one that led here: below the choices (Gradio Blocks)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from anomaly import deep_link, serving
from anomaly.errors import VigieError
from anomaly.events import ASIDE
from anomaly.panels import warning_html
from anomaly.settings import Settings
from anomaly.texts import Language, say

# The browser knows best under which address it sees the page. Without https there is no clipboard: the box shows it.
_COPY = """(query) => {
  if (!query || !query.startsWith("?")) return query;
  const link = location.origin + location.pathname + query;
  navigator.clipboard?.writeText(link).catch(() => {});
  return link;
}"""


@dataclass(frozen=True, slots=True)
class LinkPanel:
    """Its components."""

    notes: gr.HTML
    copy: gr.Button
    link: gr.Textbox


def link_panel() -> LinkPanel:
    """Builds it, in English; call it where it is to stand."""
    notes = gr.HTML(padding=False, visible=False, elem_id="link-notes")
    copy = gr.Button(say("link_copy", "en"), size="sm", elem_id="link-copy")
    link = gr.Textbox(
        label=say("link_shown", "en"), interactive=False, visible=False, buttons=["copy"], elem_id="link-shown"
    )
    return LinkPanel(notes, copy, link)


def wire_link(
    panel: LinkPanel, chosen: tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown], language: gr.Radio, settings: Settings
) -> None:
    """Connects it.

    Args:
        panel: built.
        chosen: inspector, revision and policy.
        language: of the page.
        settings: of the deployment.
    """

    def pin(inspector: str, revision: str | None, policy: str | None, spoken: Language) -> list[Any]:
        try:
            commit = serving.service(settings).last(inspector, revision).commit
        except VigieError as error:
            return [gr.Textbox(value="", visible=False), notes_update([str(error)], spoken)]
        query = deep_link.query(settings, inspector, commit, policy or "")
        return [gr.Textbox(value=query, visible=True), gr.skip()]

    def translate(spoken: Language) -> list[Any]:
        return [gr.Button(say("link_copy", spoken)), gr.Textbox(label=say("link_shown", spoken))]

    pinned = panel.copy.click(pin, [*chosen, language], [panel.link, panel.notes], **ASIDE)
    pinned.then(None, panel.link, panel.link, js=_COPY)
    changed = [component.input for component in chosen]
    gr.on(
        changed,
        lambda: [gr.Textbox(value="", visible=False), gr.HTML(visible=False)],
        None,
        [panel.link, panel.notes],
        **ASIDE,
    )
    language.change(translate, language, [panel.copy, panel.link], **ASIDE)


def notes_update(notes: Sequence[str], language: Language) -> Any:
    """What is not there, in sentences; hidden without any."""
    return gr.HTML(Markup("").join(warning_html(note, language) for note in notes), visible=bool(notes))
