"""What if? An accordion of the page: another policy, or lines moved, and what that would have decided (Gradio Blocks).

It stands on the votes of the inspection that is shown. No model runs, and report and download stay what they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from anomaly import serving
from anomaly.calibration import Calibration
from anomaly.errors import VigieError
from anomaly.events import ASIDE
from anomaly.panels import figure, joined
from anomaly.policy import Failure, Policy, Vote
from anomaly.render import Exhibit
from anomaly.report import Report
from anomaly.rules import Verdict
from anomaly.settings import Settings
from anomaly.texts import Language, say
from anomaly.what_if import Line, WhatIf, lines, votes_of, what_if
from anomaly.why_panel import why_html

SLIDERS = 12  # the page is built before an inspector is loaded; there are ten kinds of detector


@dataclass(frozen=True, slots=True)
class WhatIfPanel:
    """Its components."""

    whole: gr.Accordion
    policy: gr.Dropdown
    sliders: tuple[gr.Slider, ...]
    reset: gr.Button
    answer: gr.HTML  # the verdicts, above what is moved
    detail: gr.HTML  # why, and the lines, below it


@dataclass(frozen=True, slots=True)
class AtHand:
    """What is decided again: of one inspection."""

    report: Report
    votes: Mapping[str, Vote | Failure]
    calibrations: Mapping[str, Calibration]
    policies: Mapping[str, Policy]  # of its inspector, as they are for the category


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
    return WhatIfPanel(whole, policy, sliders, reset, answer, detail)


def wire_what_if(panel: WhatIfPanel, result: gr.State, report: gr.JSON, language: gr.Radio, settings: Settings) -> None:
    """Connects it.

    Args:
        panel: built.
        result: what was asked and the Exhibit of the last inspection, or None.
        report: of the inspection that is shown; another one begins anew.
        language: of the page.
        settings: of the deployment.
    """
    held = gr.State(time_to_live=3600)  # AtHand, or None
    asked = [held, panel.policy, *panel.sliders, language]

    def take(result: tuple[Any, Exhibit] | None, spoken: Language) -> list[Any]:
        """The inspection as it was."""
        hand = None if result is None else at_hand(result[1], settings)
        name = "" if hand is None else hand.report.policy
        offered = gr.Dropdown([] if hand is None else list(hand.policies), value=name or None)
        return [hand, offered, *_sliders(hand, name, spoken), *answered(hand, name, [], spoken)]

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
        said = [gr.Slider(info=line.info) for line in _told(hand, name, spoken)]
        return [
            gr.Accordion(label=say("whatif", spoken)),
            gr.Dropdown(label=say("whatif_policy", spoken)),
            gr.Button(say("whatif_reset", spoken)),
            *said,
            *[gr.skip()] * (SLIDERS - len(said)),
            *answered(hand, name, places, spoken),
        ]

    shown = [*panel.sliders, panel.answer, panel.detail]
    report.change(take, [result, language], [held, panel.policy, *shown], **ASIDE)
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


def at_hand(exhibit: Exhibit, settings: Settings) -> AtHand:
    """What an inspection leaves to decide again with; of its policies only its own where the others cannot be had."""
    report = exhibit.report
    try:
        policies = dict(serving.service(settings).last(report.inspector, report.commit).policies)
    except VigieError:
        policies = {} if exhibit.policy is None else {exhibit.policy.name: exhibit.policy}
    return AtHand(report, votes_of(report, exhibit.calibrations), exhibit.calibrations, policies)


@dataclass(frozen=True, slots=True)
class _Told:
    line: Line
    info: str


def _told(hand: AtHand | None, name: str, language: Language) -> list[_Told]:
    """The lines that there are sliders for, with their words."""
    if hand is None or name not in hand.policies:
        return []
    found = lines(hand.votes, hand.policies[name], hand.calibrations)[:SLIDERS]
    return [
        _Told(
            line,
            say(
                "whatif_line",
                language,
                cut=_said(line.cut, language),
                value=figure(line.value, language),
                score=figure(line.score, language),
            ),
        )
        for line in found
    ]


def _sliders(hand: AtHand | None, name: str, language: Language) -> list[Any]:
    told = _told(hand, name, language)
    used = [
        gr.Slider(
            minimum=each.line.low,
            maximum=each.line.high,
            step=each.line.step,
            value=each.line.place,
            label=each.line.member,
            info=each.info,
            visible=True,
        )
        for each in told
    ]
    return [*used, *[gr.Slider(visible=False)] * (SLIDERS - len(used))]


def answered(hand: AtHand | None, name: str, places: Sequence[Any], language: Language) -> tuple[str, str]:
    """What would have been decided: the verdicts, and the detail.

    Args:
        hand: the inspection; None before there is one.
        name: of the policy.
        places: of the sliders, in the order of the lines; fewer where the rest has not been moved.
        language: to say it in.
    """
    if hand is None or name not in hand.policies:
        return Markup('<p class="hint">{}</p>').format(say("whatif_waiting", language)), ""
    policy = hand.policies[name]
    known = lines(hand.votes, policy, hand.calibrations)
    # there are more sliders than lines, and none has a place before it was moved
    moved = {line.member: line.moved_to(place) for line, place in zip(known, places, strict=False)}
    found = what_if(hand.votes, policy, hand.calibrations, moved)
    return what_if_html(hand, found, known, moved, language)


def what_if_html(
    hand: AtHand, found: WhatIf, known: Iterable[Line], moved: Mapping[str, float], language: Language
) -> tuple[str, str]:
    """The real verdict beside the hypothetical one; why, and the lines.

    Args:
        hand: the inspection.
        found: what would have been decided.
        known: the lines as calibrated.
        moved: by member, how far up its line is; the other lines are where they were.
        language: to say it in.
    """
    report, decision = hand.report, found.decision
    same = found.policy == report.policy and not any(moved.values())
    real = _side("real", say("whatif_real", language), report.decision, report.policy, language)
    hypothetical = _side(
        "hypothetical",
        say("whatif_hypothetical", language),
        None if decision is None else decision.verdict,
        found.policy,
        language,
    )
    if decision is None:
        needs = "whatif_needs_one" if len(found.needs) == 1 else "whatif_needs"
        sentence, why = say(needs, language, members=", ".join(found.needs)), ""
    else:
        changed = "whatif_same" if decision.verdict == report.decision else "whatif_other"
        sentence = decision.reason[language] if same else f"{say(changed, language)} {decision.reason[language]}"
        why = why_html(report.model_copy(update={"explanation": found.explanation}), language)
    verdicts = {} if decision is None else decision.verdicts
    rows = joined(_row(line, moved.get(line.member, 0.0), hand, verdicts, language) for line in known)
    heads = joined(Markup('<th scope="col">{}</th>').format(column) for column in _columns(language))
    table = Markup('<table class="votes what-if-lines"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>').format(
        heads, rows
    )
    answer = Markup(
        '<div class="what-if"><div class="sides">{}{}</div><p class="lead" role="status">{}</p></div>'
    ).format(real, hypothetical, say("whatif_nothing", language) if same else sentence)
    detail = Markup('<div class="what-if">{}{}<p class="hint">{}</p></div>').format(
        Markup("") if same else Markup(why), table if rows else Markup(""), say("whatif_hint", language)
    )
    return answer, detail


def _side(kind: str, title: str, verdict: Verdict | None, policy: str, language: Language) -> Markup:
    return Markup('<div class="side {} {}"><small>{}</small><strong>{}</strong><small>{}</small></div>').format(
        kind,
        verdict or "unknown",
        title,
        say("whatif_open" if verdict is None else verdict, language),
        say("whatif_by", language, policy=policy),
    )


def _columns(language: Language) -> list[str]:
    keys = ("detector", "whatif_place", "whatif_calibrated", "whatif_now", "whatif_p", "verdict")
    return [say(key, language) for key in keys]


def _row(line: Line, by: float, hand: AtHand, verdicts: Mapping[str, Verdict], language: Language) -> Markup:
    now = line.value + by
    known = hand.calibrations[line.member]
    verdict = verdicts.get(line.member)
    cells = (
        Markup("<b>{}</b>").format(line.member),
        Markup('<div class="places">{}{}{}</div><span>{}</span>').format(
            _mark("calibrated", line.value, line),
            _mark("now", now, line),
            _mark("score", line.score, line),
            say("whatif_score", language, score=figure(line.score, language)),
        ),
        f"{figure(line.value, language)} ({_said(line.cut, language)})",
        figure(now, language),
        figure(known.p_value(now), language),
        Markup('<span class="chip {}">{}</span>').format(
            verdict or "unasked", say(f"vote_{verdict or 'unasked'}", language)
        ),
    )
    labelled = zip(_columns(language), cells, strict=True)
    return Markup('<tr class="{}">{}</tr>').format(
        "changed" if by else "",
        joined(Markup('<td data-label="{}">{}</td>').format(column, cell) for column, cell in labelled),
    )


def _mark(kind: str, value: float, line: Line) -> Markup:
    share = min(max((value - line.low) / (line.high - line.low), 0.0), 1.0)
    return Markup('<i class="{}" style="left:{:.2f}%"></i>').format(kind, 100 * share)


def _said(cut: str, language: Language) -> str:
    return cut if language == "en" else cut.replace(".", ",")
