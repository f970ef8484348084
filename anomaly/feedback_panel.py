"""Right or wrong? An accordion under the verdict: what a person says goes to anomaly.feedback (Gradio Blocks)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from anomaly import serving
from anomaly.datasets import GOOD
from anomaly.errors import VigieError
from anomaly.events import ASIDE, path_of
from anomaly.feedback import ANY_DEFECT, Stored
from anomaly.settings import Settings
from anomaly.texts import Language, say

if TYPE_CHECKING:
    from anomaly.page import Page


@dataclass(frozen=True, slots=True)
class FeedbackPanel:
    """Its components."""

    whole: gr.Accordion
    before: gr.HTML  # what a press of a button does
    type: gr.Dropdown
    good: gr.Button
    defect: gr.Button
    said: gr.HTML  # what became of it


def feedback_panel(settings: Settings) -> FeedbackPanel:
    """Builds it, in English; call it where it is to stand, among what is shown with a verdict only."""
    on = settings.feedback is not None
    with gr.Accordion(say("fb", "en"), open=False, elem_id="feedback") as whole:
        before = gr.HTML(before_html(None, settings, "en"), padding=False)
        kind = gr.Dropdown(
            [], allow_custom_value=True, visible=on, label=say("fb_type", "en"), info=say("fb_type_info", "en"),
            elem_id="feedback-type",
        )  # fmt: skip
        with gr.Row(visible=on):
            good = gr.Button(say("fb_good", "en"), elem_id="feedback-good")
            defect = gr.Button(say("fb_defect", "en"), elem_id="feedback-defect")
        said = gr.HTML(padding=False, elem_id="feedback-said")
    return FeedbackPanel(whole, before, kind, good, defect, said)


def wire_feedback(panel: FeedbackPanel, page: "Page", settings: Settings) -> None:
    """Connects it.

    Args:
        panel: built.
        page: for the picture, its report and the language.
        settings: of the deployment.
    """

    def prepare(report: dict[str, Any] | None, language: Language) -> list[Any]:
        good, defect = labels(report, language)
        types = _types(settings, report)
        return [
            gr.update(label=say("fb", language)),
            before_html(report, settings, language),
            gr.update(
                label=say("fb_type", language),
                info=say("fb_type_info", language),
                choices=[(say("fb_any", language), ANY_DEFECT), *((name, name) for name in types)],
                value=ANY_DEFECT,
            ),
            gr.update(value=good, interactive=True),
            gr.update(value=defect, interactive=True),
            "",
        ]

    def store(picture: Any, report: dict[str, Any] | None, label: str | None, language: Language) -> str:
        try:
            stored = serving.give_feedback(settings, path_of(picture, language), report, label or ANY_DEFECT)
        except VigieError as error:
            return Markup('<p class="warning" role="alert">{}</p>').format(str(error))
        return said_html(stored, language)

    def store_good(picture: Any, report: dict[str, Any] | None, language: Language) -> str:
        return store(picture, report, GOOD, language)

    shown = [panel.whole, panel.before, panel.type, panel.good, panel.defect, panel.said]
    gr.on([page.report.change, page.language.change], prepare, [page.report, page.language], shown, **ASIDE)
    panel.good.click(store_good, [page.picture, page.report, page.language], panel.said, **ASIDE)
    panel.defect.click(store, [page.picture, page.report, panel.type, page.language], panel.said, **ASIDE)


def labels(report: dict[str, Any] | None, language: Language) -> tuple[str, str]:
    """What the two buttons say, after what was decided."""
    decision = (report or {}).get("decision")
    good, defect = say("fb_good", language), say("fb_defect", language)
    if decision == "ok":
        return say("fb_right", language, what=good), say("fb_wrong", language, what=defect)
    if decision == "defect":
        return say("fb_wrong", language, what=good), say("fb_right", language, what=defect)
    return good, defect


def before_html(report: dict[str, Any] | None, settings: Settings, language: Language) -> str:
    """What a press of a button will do; how to switch it on where it is off; that a label is worth most here.

    Args:
        report: of the verdict.
        settings: of the deployment.
        language: to say it in.
    """
    if settings.feedback is None:
        return Markup('<p class="hint">{}</p>').format(say("fb_off", language))
    said = [say("fb_before", language)]
    if settings.feedback_repo is not None:
        said.append(say("fb_repo", language, repo=settings.feedback_repo))
    hint = Markup('<p class="hint">{}</p>').format(" ".join(said))
    if not unsure(report):
        return hint
    return Markup("<p><b>{}</b></p>{}").format(say("fb_unsure", language), hint)


def unsure(report: dict[str, Any] | None) -> bool:
    """The decision is review, or members that count disagree."""
    if not report:
        return False
    verdicts = {vote["verdict"] for vote in report.get("votes", []) if vote.get("counted", True)}
    return report.get("decision") == "review" or {"ok", "defect"} <= verdicts


def said_html(stored: Stored, language: Language) -> str:
    """What became of an opinion."""
    return Markup('<p class="hint" role="status">{}</p>').format(
        say(f"fb_{stored.outcome}", language, label=stored.label, pictures=stored.pictures)
    )


def _types(settings: Settings, report: dict[str, Any] | None) -> list[str]:
    """The types of defect that the inspector of a report knows."""
    if settings.feedback is None or not report:
        return []
    try:
        chosen = serving.service(settings).last(report["inspector"], report["revision"])
    except VigieError:
        return []
    return [label for label in chosen.file.labels if label != GOOD]
