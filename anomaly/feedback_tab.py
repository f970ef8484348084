"""The Feedback tab: the parts of this visit that a person should look at, the most ambiguous first (Gradio Blocks).

Only what this visit has inspected, on Inspect or as a batch, comes here: nobody sees another visitor's pictures.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup
from PIL import Image

from anomaly import batch, images, panels, regions, serving
from anomaly.errors import NoPictureError, VigieError
from anomaly.events import ASIDE, Picture, enclosing_tab, path_of
from anomaly.feedback import checked_report
from anomaly.feedback_panel import (
    answers,
    before_html,
    offered,
    region_editor,
    said_html,
    warning_html,
    wire_answers,
)
from anomaly.feedback_queue import Queue, Waiting, nearest, queued, unsure, without
from anomaly.settings import Settings
from anomaly.texts import Language, say

if TYPE_CHECKING:
    from anomaly.page import Page


def feedback_tab(page: "Page", settings: Settings) -> None:
    """Builds it where it is called, inside a gr.Tab, and connects it.

    Args:
        page: for the language, the queue, and the picture and report of the last inspection.
        settings: of the deployment.
    """
    current = gr.State(time_to_live=3600)  # the Waiting that is shown
    state = gr.HTML(state_html(None, 0, settings, "en"), padding=False, elem_id="queue-state")
    said = gr.HTML(padding=False, elem_id="queue-said")
    with gr.Column(visible=False, elem_id="queue-part") as part:
        verdict = gr.HTML(padding=False, elem_id="queue-verdict")
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                picture = gr.Image(interactive=False, buttons=[], height=420, elem_id="queue-picture")
                editor = region_editor("queue")
            with gr.Column(scale=2, min_width=240):
                on = answers("queue", editor, visible=True)
                skip = gr.Button(say("fb_skip", "en"), size="sm", elem_id="queue-skip")
                before = gr.HTML(padding=False)

    def keep(queue: Queue, shown: Picture, report: dict[str, Any] | None, language: Language) -> Queue:
        """The last inspection goes into the queue, if it belongs there and is of the picture beside it."""
        try:
            path, told = Path(path_of(shown, language)), checked_report(report)
            if unsure(told) and images.digest(images.read(path)) != told.image_sha256:
                return queue
        except VigieError:
            return queue
        return queued(queue, [(batch.Entry((shown or {}).get("orig_name") or path.name, path), told)])

    def show(queue: Queue, language: Language, note: str = "") -> dict[Any, Any]:
        waiting, canvas = first(queue, settings)
        now = waiting[0] if waiting else None
        report = None if now is None else now.report.model_dump(mode="json")
        return {
            page.queue: waiting,
            current: now,
            state: state_html(now, len(waiting), settings, language),
            said: note,
            part: gr.update(visible=now is not None),
            verdict: "" if now is None else part_html(now, language),
            picture: gr.update(value=canvas, visible=True, label=say("picture", language)),
            before: before_html(None, settings, language),
            skip: gr.update(value=say("fb_skip", language)),
            **offered(on, report, settings, language),
        }

    def picture_of(now: Waiting | None, language: Language) -> Path | bytes:
        if now is None:
            raise NoPictureError(say("no_picture", language))
        return batch.picture_of(now.entry, batch.limits_of(settings))

    def answer(label: str, drawn: Any, queue: Queue, now: Waiting | None, language: Language) -> dict[Any, Any]:
        try:
            report = None if now is None else now.report
            stored = serving.give_feedback(settings, picture_of(now, language), report, label, drawn)
        except VigieError as error:
            return {said: warning_html(error)}
        return show(queue, language, said_html(stored, language))

    def pass_over(queue: Queue, now: Waiting | None, language: Language) -> dict[Any, Any]:
        return show(queue if now is None else without(queue, now), language)

    shown = [page.queue, current, state, said, part, verdict, picture, before, skip]
    shown += [on.type, on.mark, on.editor, on.good, on.defect]
    inspected = [page.queue, page.picture, page.report, page.language]
    page.report.change(keep, inspected, page.queue, **ASIDE)
    gr.on([enclosing_tab().select, page.language.change], show, [page.queue, page.language], shown, **ASIDE)
    skip.click(pass_over, [page.queue, current, page.language], shown, **ASIDE)
    on.mark.click(lambda: gr.update(visible=False), None, picture, **ASIDE)
    wire_answers(on, picture_of, [current], answer, [page.queue, current], shown, page.language)


def first(queue: Queue, settings: Settings) -> tuple[Queue, Image.Image | None]:
    """The queue without what was labelled meanwhile or is gone from the server, and the picture of its first part."""
    if (store := serving.feedback(settings)) is None:
        return queue[:0], None
    waiting = tuple(part for part in queue if store.label_of(part.report) is None)
    for index, part in enumerate(waiting):
        try:
            return waiting[index:], regions.canvas(batch.picture_of(part.entry, batch.limits_of(settings)))
        except VigieError:  # uploads are kept for a while only
            continue
    return (), None


def state_html(now: Waiting | None, waiting: int, settings: Settings, language: Language) -> str:
    """How many parts wait, and in which order; what comes here where none does; how to switch it on."""
    if settings.feedback is None:
        title, lines = "fb_off_title", ["fb_off", "fb_comes"]
    elif now is None:
        title, lines = "fb_none", ["fb_comes"]
    else:
        count = say("fb_waiting", language, parts=waiting)
        return Markup('<p class="lead" role="status">{}</p><p class="hint">{}</p>').format(
            count, say("fb_order", language)
        )
    body = Markup("").join(Markup("<p>{}</p>").format(say(line, language)) for line in lines)
    return Markup('<div class="card" role="status"><strong>{}</strong>{}</div>').format(say(title, language), body)


def part_html(part: Waiting, language: Language) -> str:
    """Verdict, who votes for what, and who is nearest to its line."""
    report = part.report
    votes = []
    for verdict in ("defect", "ok", "review"):
        members = [vote.member for vote in report.votes if vote.counted and vote.verdict == verdict]
        if members:
            votes.append(f"{say(verdict, language)}: {', '.join(members)}")
    if failed := [vote.member for vote in report.votes if vote.verdict == "failed"]:
        votes.append(f"{say('vote_failed', language)}: {', '.join(failed)}")
    if (near := nearest(report)) is not None:
        sign = "+" if near[1] >= 0 else "\u2212"
        far = f"{sign}{panels.figure(abs(near[1]), language)}"
        votes.append(say("fb_nearest", language, member=near[0], distance=far))
    return Markup('<div class="{0}"><h3><b>{1}</b> {2}</h3><p>{3}</p><p class="votes">{4}</p></div>').format(
        report.decision, say(report.decision, language), part.entry.name, report.reason[language], " · ".join(votes)
    )
