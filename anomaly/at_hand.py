"""What an inspection leaves to decide again with, and what that says: the HTML of What if? (markupsafe)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from anomaly import serving
from anomaly.calibration import Calibration
from anomaly.deep_link import Moved
from anomaly.errors import VigieError
from anomaly.panels import figure, joined
from anomaly.policy import Failure, Policy, Vote
from anomaly.render import Exhibit
from anomaly.report import Report
from anomaly.rules import Verdict
from anomaly.settings import Settings
from anomaly.texts import Language, numeral, say
from anomaly.what_if import Line, WhatIf, lines, votes_of, what_if
from anomaly.why_panel import why_html

SLIDERS = 12  # the page is built before an inspector is loaded; there are ten kinds of detector


@dataclass(frozen=True, slots=True)
class AtHand:
    """What is decided again: of one inspection."""

    report: Report
    votes: Mapping[str, Vote | Failure]
    calibrations: Mapping[str, Calibration]
    policies: Mapping[str, Policy]  # of its inspector, as they are for the category


def at_hand(exhibit: Exhibit, settings: Settings) -> AtHand:
    """What an inspection leaves to decide again with; of its policies only its own where the others cannot be had."""
    report = exhibit.report
    try:
        policies = dict(serving.service(settings).last(report.inspector, report.commit).policies)
    except VigieError:
        policies = {} if exhibit.policy is None else {exhibit.policy.name: exhibit.policy}
    return AtHand(report, votes_of(report, exhibit.calibrations), exhibit.calibrations, policies)


@dataclass(frozen=True, slots=True)
class Told:
    """A line that there is a slider for."""

    line: Line
    info: str  # its words


def told_lines(hand: AtHand | None, name: str, language: Language) -> list[Told]:
    """The lines that there are sliders for, with their words."""
    if hand is None or name not in hand.policies:
        return []
    found = lines(hand.votes, hand.policies[name], hand.calibrations)[:SLIDERS]
    return [
        Told(
            line,
            say(
                "whatif_line",
                language,
                cut=numeral(line.cut, language),
                value=figure(line.value, language),
                score=figure(line.score, language),
            ),
        )
        for line in found
    ]


def is_of(hand: AtHand | None, inspector: str, commit: str) -> bool:
    """Whether it is an inspection of that commit."""
    return hand is not None and (hand.report.inspector, hand.report.commit) == (inspector, commit)


def set_here(hand: AtHand | None, name: str, places: Sequence[Any], chosen: str) -> Moved:
    """What a link has to say of this panel: the lines that are moved, and the policy where it is not the chosen one."""
    told = told_lines(hand, name, "en")
    moved = zip(told, places, strict=False)  # there are more sliders than lines
    lines = {each.line.member: float(place) for each, place in moved if each.line.moved_to(place)}
    return Moved(name if name and name != chosen else "", lines)


def from_link(hand: AtHand | None, moved: Moved, language: Language) -> tuple[str, list[float], list[str]]:
    """The policy and the places of the sliders that a link asks for, and what of it this inspection does not have.

    Without a link: the policy that decided, and no place.
    """
    if hand is None:
        return "", [], []
    name, notes = moved.policy or hand.report.policy, []
    if name not in hand.policies:
        notes.append(say("link_whatif", language, name=name))
        name = hand.report.policy
    known = {each.line.member: each.line for each in told_lines(hand, name, language)}
    places = {member: line.place for member, line in known.items()} if moved.lines else {}
    for member, place in moved.lines.items():
        line = known.get(member)
        if line is None:
            notes.append(say("link_line_none", language, name=member, policy=name))
        elif not line.low <= place <= line.high:
            low, high, asked = (f"{value:.6g}" for value in (line.low, line.high, place))
            notes.append(say("link_line_range", language, name=member, line=asked, low=low, high=high))
        else:
            places[member] = place
    return name, list(places.values()), notes


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
        f"{figure(line.value, language)} ({numeral(line.cut, language)})",
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
