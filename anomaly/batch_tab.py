"""Many pictures at once: a tab of the page, from the upload to a sorted gallery and downloads (Gradio Blocks).

A batch has a lane of its own and asks for one picture at a time, so a single inspection waits for one picture of it.
"""

import secrets
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.utils import get_upload_folder

from anomaly import batch, batch_export
from anomaly.batch_text import VERDICTS, Batch, caption, hint_html, intro_html, status_html
from anomaly.errors import VigieError
from anomaly.events import ASIDE, PRIVATE, path_of
from anomaly.feedback_queue import Queue, queued
from anomaly.settings import Settings
from anomaly.texts import Language, say

if TYPE_CHECKING:
    from anomaly.page import Page

Pictures = list[dict[str, Any]] | None  # gradio's FileData, taken raw: its own preprocessing fails without a message

BATCH_LANE: dict[str, Any] = {"concurrency_id": "batch", "concurrency_limit": 1}  # one batch at a time
_SHOW_EVERY_S = 2.0  # while it runs, the gallery is sent anew this often

# The text is in the browser then, so no file of it lies on the server.
_SAVE = """(text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "%(type)s"}));
  link.download = `vigie-batch-${new Date().toISOString().replace(/[:.]/g, "-")}.%(kind)s`;
  link.click();
  URL.revokeObjectURL(link.href);
}"""
_FETCH = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name;
  link.click();
}"""


def batch_tab(page: "Page", settings: Settings) -> None:
    """Builds and connects it; call it where it is to stand.

    Args:
        page: whose inspector, revision, policy and language count.
        settings: of the deployment.
    """
    held = gr.State(time_to_live=3600)  # a Batch
    intro = gr.HTML(intro_html(settings, "", "", "en"), padding=False, elem_id="batch-intro")
    files = gr.File(
        file_count="multiple",
        file_types=["image", ".zip"],
        label=say("batch_files", "en"),
        height=220,
        elem_id="batch-files",
    )
    with gr.Row():
        start = gr.Button(say("batch_start", "en"), variant="primary", elem_id="batch-start")
        cancel = gr.Button(say("batch_cancel", "en"), visible=False, elem_id="batch-cancel")
    status = gr.HTML(status_html(None, "en"), padding=False, elem_id="batch-status")
    with gr.Column(visible=False, elem_id="batch-results") as results:
        verdict = gr.Radio([], label=say("batch_show", "en"), elem_id="batch-verdict")
        hint = gr.HTML(hint_html("en"), padding=False)
        gallery = gr.Gallery(
            label=say("batch_gallery", "en"),
            show_label=False,
            columns=5,
            height="min(40rem, 80vh)",  # in which an enlarged one fits
            object_fit="contain",
            interactive=False,
            buttons=["fullscreen"],
            elem_id="batch-gallery",
        )
        with gr.Row(elem_id="batch-downloads"):
            as_csv = gr.Button(say("batch_csv", "en"), size="sm", elem_id="batch-csv")
            as_jsonl = gr.Button(say("batch_jsonl", "en"), size="sm", elem_id="batch-jsonl")
            as_zip = gr.Button(say("batch_zip", "en"), size="sm", elem_id="batch-zip")

    language = page.language
    asked = [page.inspector, page.revision, page.policy]
    shown = [status, results, verdict, gallery]
    buttons = [start, cancel]

    def begin(spoken: Language) -> list[Any]:
        new = Batch()
        return [new, *_shown(new, None, spoken), gr.Button(interactive=False), gr.Button(visible=True)]

    def run(new: Batch, uploads: Pictures, *choice: Any) -> Iterator[list[Any]]:
        *chosen, spoken = choice
        sent = 0.0
        for now in running(settings, uploads, *chosen, stop=new.stop):
            late = now.state != "running" or time.monotonic() - sent >= _SHOW_EVERY_S
            sent = time.monotonic() if late else sent
            parts = _shown(now, None, spoken)
            yield [now, *(parts if late else [parts[0], gr.skip(), gr.skip(), gr.skip()])]

    def stop(now: Batch | None, spoken: Language) -> Any:
        if now is not None:
            now.stop.set()
        return gr.Button(say("batch_stopping", spoken), interactive=False)

    def fail(now: Batch | None, spoken: Language) -> list[Any]:
        failed = replace(now or Batch(), state="failed", problem=say("batch_broken", spoken))
        return [failed, *_shown(failed, None, spoken)]

    def ready(spoken: Language) -> list[Any]:
        return [gr.Button(interactive=True), gr.Button(say("batch_cancel", spoken), visible=False, interactive=True)]

    def choose(now: Batch | None, wanted: str, spoken: Language) -> Any:
        return gr.skip() if now is None else _pictures(now, wanted, spoken)

    def again(now: Batch | None, wanted: str | None, spoken: Language) -> list[Any]:
        if now is None or (now.state == "running" and not now.rows):
            return [status_html(now, spoken), *[gr.skip()] * 3]
        return _shown(now, wanted, spoken)

    def translate(revision: str | None, policy: str | None, spoken: Language) -> list[Any]:
        return [
            intro_html(settings, revision or "", policy or "", spoken),
            gr.File(label=say("batch_files", spoken)),
            gr.Button(say("batch_start", spoken)),
            gr.Button(say("batch_cancel", spoken)),
            gr.Radio(label=say("batch_show", spoken)),
            gr.Gallery(label=say("batch_gallery", spoken)),
            hint_html(spoken),
            *(gr.Button(say(key, spoken)) for key in ("batch_csv", "batch_jsonl", "batch_zip")),
        ]

    begun = start.click(begin, language, [held, *shown, *buttons], **ASIDE)
    ran = begun.then(run, [held, files, *asked, language], [held, *shown], **BATCH_LANE, **PRIVATE)
    ran.then(ready, language, buttons, **ASIDE).then(_asked, [page.queue, held], page.queue, **ASIDE)
    ran.failure(fail, [held, language], [held, *shown], **ASIDE).then(ready, language, buttons, **ASIDE)
    cancel.click(stop, [held, language], cancel, **ASIDE)
    verdict.input(choose, [held, verdict, language], gallery, **ASIDE)
    said = [intro, files, start, cancel, verdict, gallery, hint, as_csv, as_jsonl, as_zip]
    words = language.change(translate, [page.revision, page.policy, language], said, **ASIDE)
    words.then(again, [held, verdict, language], shown, **ASIDE)
    gr.on(
        [page.revision.change, page.policy.change],
        lambda revision, policy, spoken: intro_html(settings, revision or "", policy or "", spoken),
        [page.revision, page.policy, language],
        intro,
        **ASIDE,
    )
    _wire_downloads(held, as_csv, as_jsonl, as_zip)


def _asked(queue: Queue, now: Batch) -> Queue:
    """What a person should look at, with the parts of a batch."""
    return queued(queue, [(row.entry, row.report) for row in now.rows if row.entry and row.report])


def _wire_downloads(held: gr.State, as_csv: gr.Button, as_jsonl: gr.Button, as_zip: gr.Button) -> None:
    text, packed = gr.Textbox(visible=False), gr.File(visible=False)

    def rows(now: Batch | None) -> tuple[batch.Row, ...]:
        return () if now is None else now.rows

    def pack(now: Batch | None) -> Any:
        return gr.File(_served(batch_export.annotated_zip(rows(now)), "vigie-batch.zip"))

    table = as_csv.click(lambda now: batch_export.csv_text(rows(now)), held, text, **ASIDE)
    table.then(None, text, js=_SAVE % {"kind": "csv", "type": "text/csv"})
    lines = as_jsonl.click(lambda now: batch_export.jsonl(rows(now)), held, text, **ASIDE)
    lines.then(None, text, js=_SAVE % {"kind": "jsonl", "type": "application/x-ndjson"})
    as_zip.click(pack, held, packed, **ASIDE).then(None, packed, js=_FETCH)


def running(
    settings: Settings,
    uploads: Pictures,
    inspector: str | None,
    revision: str | None,
    policy: str | None,
    *,
    stop: threading.Event,
) -> Iterator[Batch]:
    """A batch after each picture. What ends it as a whole is its last state, not an exception.

    Args:
        settings: of the deployment.
        uploads: as gradio gives them.
        inspector: as in `batch.inspect_all`.
        revision: as there.
        policy: as there.
        stop: ends it after the picture under way.
    """
    rows: list[batch.Row] = []
    total = 0
    try:
        waiting = batch.entries(uploaded(uploads), batch.limits_of(settings))
        total = len(waiting)
        yield Batch(total=total, stop=stop)
        durations: list[float] = []
        before = time.monotonic()
        for row in batch.inspect_all(settings, waiting, inspector or "", revision or "", policy or "", draw=True):
            rows.append(row)
            now = time.monotonic()
            durations.append(now - before)
            before = now
            left = statistics.mean(durations[-20:]) * (total - len(rows))  # the last ones: the first also loads
            if stop.is_set() and len(rows) < total:
                yield Batch(tuple(rows), total, "stopped")
                return
            yield Batch(tuple(rows), total, "running", left_s=left, stop=stop)
    except VigieError as error:
        yield Batch(tuple(rows), total, "failed", str(error))
    else:
        yield Batch(tuple(rows), total, "done")


def uploaded(files: Pictures) -> list[tuple[str, Path]]:
    """Name and place of each upload.

    Args:
        files: FileData of gradio, as they came.

    Raises:
        VigieError: one of them was not uploaded to this app.
    """
    found = []
    for file in files or ():
        path = Path(path_of(file, "en"))
        name = PurePosixPath(str(file.get("orig_name") or path.name).replace("\\", "/")).name
        found.append((name or path.name, path))
    return found


def _shown(now: Batch, wanted: str | None, language: Language) -> list[Any]:
    """Status, results, filter, gallery."""
    seen = Counter(row.report.decision for row in now.rows if row.report is not None)
    choices = [(f"{say('batch_all', language)} ({seen.total()})", "all")]
    choices += [(f"{say(verdict, language)} ({seen[verdict]})", verdict) for verdict in VERDICTS if seen[verdict]]
    return [
        status_html(now, language),
        gr.Column(visible=bool(seen)),
        gr.Radio(choices, value=wanted or "all", interactive=now.state != "running"),
        _pictures(now, wanted or "all", language),
    ]


def _pictures(now: Batch, wanted: str, language: Language) -> Any:
    rows = [row for row in batch.by_distance(now.rows) if row.report and wanted in ("all", row.report.decision)]
    named = [(row, f"{PurePosixPath(row.file).stem[-60:]}.jpg") for row in rows]
    return gr.Gallery([(_served(row.drawn, name), caption(row, language)) for row, name in named])


def _served(data: bytes, name: str) -> str:
    """Where gradio serves it from, to whoever knows what is in it, until delete_cache takes it away. Written whole
    before it has its name: gradio's own helper writes it anew each time, and a browser may be reading it."""
    path = Path(get_upload_folder(), sha256(data).hexdigest(), name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{secrets.token_hex(8)}.part")
        part.write_bytes(data)
        part.replace(path)
    return str(path.resolve())
