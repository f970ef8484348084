"""Right or wrong? An accordion under the verdict: what a person says goes to anomaly.feedback (Gradio Blocks)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from anomaly import regions, serving
from anomaly.datasets import GOOD
from anomaly.errors import VigieError
from anomaly.events import ASIDE, Picture, path_of
from anomaly.feedback import ANY_DEFECT, Stored, checked_report
from anomaly.feedback_queue import unsure
from anomaly.settings import Settings
from anomaly.texts import Language, say

if TYPE_CHECKING:
    from anomaly.page import Page

_DRAWN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}  # and preprocessed


@dataclass(frozen=True, slots=True)
class Answers:
    """What a person says of a part: the type, where the defect is, and two buttons that store it."""

    type: gr.Dropdown
    mark: gr.Button  # opens the editor
    editor: gr.ImageEditor
    drawn: gr.State  # what is painted on it
    good: gr.Button
    defect: gr.Button


@dataclass(frozen=True, slots=True)
class FeedbackPanel:
    """Its components."""

    whole: gr.Accordion
    before: gr.HTML  # what a press of a button does
    answers: Answers
    said: gr.HTML  # what became of it


def region_editor(name: str) -> gr.ImageEditor:
    """Builds what a defect is painted on; hidden until somebody wants to, for it loads much and a finger that paints
    does not scroll. `name` begins its id."""
    return gr.ImageEditor(
        label=say("fb_region", "en"),
        visible=False,
        sources=[],
        transforms=[],
        layers=False,
        brush=brush(256),
        buttons=[],
        height=420,
        elem_id=f"{name}-region",
    )


def brush(side: int) -> gr.Brush:
    """As wide as fits a picture of that side, and one can see through what it paints."""
    return gr.Brush(default_size=max(2, side // 50), colors=[("#ff2a6d", 0.6)], color_mode="fixed")


def answers(name: str, editor: gr.ImageEditor, *, visible: bool) -> Answers:
    """Builds the rest of them, in English, where they are to stand."""
    kind = gr.Dropdown(
        [], allow_custom_value=True, visible=visible, label=say("fb_type", "en"), info=say("fb_type_info", "en"),
        elem_id=f"{name}-type",
    )  # fmt: skip
    mark = gr.Button(say("fb_mark", "en"), size="sm", visible=visible, elem_id=f"{name}-mark")
    with gr.Row(visible=visible):
        good = gr.Button(say("fb_good", "en"), elem_id=f"{name}-good")
        defect = gr.Button(say("fb_defect", "en"), elem_id=f"{name}-defect")
    return Answers(kind, mark, editor, gr.State(time_to_live=3600), good, defect)


def offered(
    on: Answers, report: dict[str, Any] | None, settings: Settings, language: Language
) -> dict[Any, dict[str, Any]]:
    """What the answers to a report are, with nothing marked yet."""
    good, defect = labels(report, language)
    types = _types(settings, report)
    on_here = settings.feedback is not None
    return {
        on.type: gr.update(
            label=say("fb_type", language),
            info=say("fb_type_info", language),
            choices=[(say("fb_any", language), ANY_DEFECT), *((name, name) for name in types)],
            value=ANY_DEFECT,
        ),
        on.mark: gr.update(value=say("fb_mark", language), visible=on_here),
        on.editor: gr.update(value=None, visible=False, label=say("fb_region", language)),
        on.good: gr.update(value=good),
        on.defect: gr.update(value=defect),
    }


def wire_answers(
    on: Answers,
    picture: Callable[..., str | Path | bytes],
    of: list[Any],
    answer: Callable[..., Any],
    inputs: list[Any],
    outputs: list[Any],
    language: gr.Radio,
) -> None:
    """Connects them.

    Args:
        on: built.
        picture: from `of` and the language, the picture to draw on. It may raise VigieError.
        of: components.
        answer: from "good" or the type, what is painted, `inputs` and the language, what `outputs` show.
        inputs: components.
        outputs: components.
        language: of the page.
    """

    def draw(*values: Any) -> list[Any]:
        try:
            shown = regions.canvas(picture(*values))
        except VigieError:  # gone since, which a press of a button tells
            return [gr.skip(), gr.skip()]
        return [gr.update(value=shown, visible=True, brush=brush(max(shown.size))), gr.update(visible=False)]

    def painted(value: dict[str, Any] | None) -> Any:
        return None if value is None else regions.drawn(value["layers"])

    def answer_good(*values: Any) -> Any:
        return answer(GOOD, *values)

    def answer_defect(kind: str | None, *values: Any) -> Any:
        return answer(kind or ANY_DEFECT, *values)

    on.mark.click(draw, [*of, language], [on.editor, on.mark], **ASIDE)
    said = on.good.click(painted, on.editor, on.drawn, **_DRAWN)
    said.then(answer_good, [on.drawn, *inputs, language], outputs, **ASIDE)
    said = on.defect.click(painted, on.editor, on.drawn, **_DRAWN)
    said.then(answer_defect, [on.type, on.drawn, *inputs, language], outputs, **ASIDE)


def feedback_panel(settings: Settings) -> FeedbackPanel:
    """Builds it, in English; call it where it is to stand, among what is shown with a verdict only."""
    with gr.Accordion(say("fb", "en"), open=False, elem_id="feedback") as whole:
        before = gr.HTML(before_html(None, settings, "en"), padding=False)
        editor = region_editor("feedback")
        on = answers("feedback", editor, visible=settings.feedback is not None)
        said = gr.HTML(padding=False, elem_id="feedback-said")
    return FeedbackPanel(whole, before, on, said)


def wire_feedback(panel: FeedbackPanel, page: "Page", settings: Settings) -> None:
    """Connects it.

    Args:
        panel: built.
        page: for the picture, its report and the language.
        settings: of the deployment.
    """
    on = panel.answers

    def prepare(report: dict[str, Any] | None, language: Language) -> dict[Any, Any]:
        return {
            panel.whole: gr.update(label=say("fb", language)),
            panel.before: before_html(report, settings, language),
            panel.said: "",
            **offered(on, report, settings, language),
        }

    def store(label: str, drawn: Any, picture: Picture, report: dict[str, Any] | None, language: Language) -> str:
        try:
            stored = serving.give_feedback(settings, path_of(picture, language), report, label, drawn)
        except VigieError as error:
            return warning_html(error)
        return said_html(stored, language)

    shown = [panel.whole, panel.before, panel.said, on.type, on.mark, on.editor, on.good, on.defect]
    gr.on([page.report.change, page.language.change], prepare, [page.report, page.language], shown, **ASIDE)
    wire_answers(on, path_of, [page.picture], store, [page.picture, page.report], [panel.said], page.language)


def warning_html(error: VigieError) -> str:
    """Why a label was not stored."""
    return Markup('<p class="warning" role="alert">{}</p>').format(str(error))


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
    if not report or not unsure(checked_report(report)):
        return hint
    return Markup("<p><b>{}</b></p>{}").format(say("fb_unsure", language), hint)


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
