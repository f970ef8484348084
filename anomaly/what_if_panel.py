"""What if? An accordion of the page: another policy, or lines moved, and what that would have decided (Gradio Blocks).

It stands on the votes of the inspection that is shown. No model runs, and report and download stay what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from anomaly.at_hand import SLIDERS, AtHand, answered, at_hand, from_link, told_lines
from anomaly.deep_link import Moved
from anomaly.events import ASIDE
from anomaly.panels import notes_html
from anomaly.render import Exhibit
from anomaly.settings import Settings
from anomaly.texts import Language, say


@dataclass(frozen=True, slots=True)
class WhatIfPanel:
    """Its components."""

    whole: gr.Accordion
    policy: gr.Dropdown
    sliders: tuple[gr.Slider, ...]
    reset: gr.Button
    answer: gr.HTML  # the verdicts, above what is moved
    detail: gr.HTML  # why, and the lines, below it
    held: gr.State  # AtHand: the inspection that is decided again, or None


def what_if_panel() -> WhatIfPanel:
    """Builds it, in English; call it where it is to stand."""
    with gr.Accordion(say("whatif", "en"), open=False, elem_id="what-if") as whole:
        answer = gr.HTML(padding=False, elem_id="what-if-answer")
        policy = gr.Dropdown([], label=say("whatif_policy", "en"), elem_id="what-if-policy")
        with gr.Row():
            sliders = tuple(
                gr.Slider(visible=False, buttons=[], min_width=260, elem_classes="what-if-line") for _ in range(SLIDERS)
            )
        reset = gr.Button(say("whatif_reset", "en"), size="sm", elem_id="what-if-reset")
        detail = gr.HTML(padding=False, elem_id="what-if-detail")
    return WhatIfPanel(whole, policy, sliders, reset, answer, detail, gr.State(time_to_live=3600))


def wire_what_if(
    panel: WhatIfPanel,
    result: gr.State,
    report: gr.JSON,
    link: tuple[gr.State, gr.State, gr.HTML],
    language: gr.Radio,
    settings: Settings,
) -> Any:
    """Connects it. Returns the event of another inspection being at hand.

    Args:
        panel: built.
        result: what was asked and the Exhibit of the last inspection, or None.
        report: of the inspection that is shown; another one begins anew.
        link: what the address sets here (a Moved), the notes on it so far, and where they are shown.
        language: of the page.
        settings: of the deployment.
    """
    held, (set_by_link, said, notes) = panel.held, link
    asked = [held, panel.policy, *panel.sliders, language]

    def take(result: tuple[Any, Exhibit] | None, moved: Moved, told: list[str], spoken: Language) -> list[Any]:
        """The inspection as it was, but for what a link sets: that is shown once."""
        hand = None if result is None else at_hand(result[1], settings)
        name, places, wrong = from_link(hand, moved, spoken)
        offered = gr.Dropdown([] if hand is None else list(hand.policies), value=name or None)
        shown = [hand, offered, *_sliders(hand, name, spoken, places), *answered(hand, name, places, spoken)]
        if hand is None or not moved:
            return [*shown, *[gr.skip()] * 4]
        told = [*told, *wrong]
        return [*shown, gr.Accordion(open=True), Moved(), told, gr.HTML(notes_html(told, spoken), visible=bool(told))]

    def lay(hand: AtHand | None, name: str, spoken: Language) -> list[Any]:
        """The lines of a policy, none of them moved."""
        return [*_sliders(hand, name, spoken), *answered(hand, name, [], spoken)]

    def show(hand: AtHand | None, name: str, *values: Any) -> tuple[str, str]:
        *places, spoken = values
        return answered(hand, name, places, spoken)

    def back(hand: AtHand | None, spoken: Language) -> list[Any]:
        name = "" if hand is None else hand.report.policy
        return [gr.Dropdown(value=name or None), *lay(hand, name, spoken)]

    def translate(hand: AtHand | None, name: str, *values: Any) -> list[Any]:
        *places, spoken = values
        said = [gr.Slider(info=line.info) for line in told_lines(hand, name, spoken)]
        return [
            gr.Accordion(label=say("whatif", spoken)),
            gr.Dropdown(label=say("whatif_policy", spoken)),
            gr.Button(say("whatif_reset", spoken)),
            *said,
            *[gr.skip()] * (SLIDERS - len(said)),
            *answered(hand, name, places, spoken),
        ]

    shown = [*panel.sliders, panel.answer, panel.detail]
    taken = report.change(
        take,
        [result, set_by_link, said, language],
        [held, panel.policy, *shown, panel.whole, set_by_link, said, notes],
        **ASIDE,
    )
    panel.policy.input(lay, [held, panel.policy, language], shown, **ASIDE)
    gr.on(
        [s.input for s in panel.sliders],
        show,
        asked,
        [panel.answer, panel.detail],
        trigger_mode="always_last",
        **ASIDE,
    )
    panel.reset.click(back, [held, language], [panel.policy, *shown], **ASIDE)
    language.change(translate, asked, [panel.whole, panel.policy, panel.reset, *shown], **ASIDE)
    return taken


def _sliders(hand: AtHand | None, name: str, language: Language, places: Sequence[float] = ()) -> list[Any]:
    told = told_lines(hand, name, language)
    starts = places or [each.line.place for each in told]
    used = [
        gr.Slider(
            minimum=each.line.low,
            maximum=each.line.high,
            step=each.line.step,
            value=start,
            label=each.line.member,
            info=each.info,
            visible=True,
        )
        for each, start in zip(told, starts, strict=True)
    ]
    return [*used, *[gr.Slider(visible=False)] * (SLIDERS - len(used))]
