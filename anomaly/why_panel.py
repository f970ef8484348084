"""The HTML panel that says why: what fired, who agreed, how far each vote was from its line, what would have changed
the decision, and what the counts behind those lines can promise (anomaly.explain, anomaly.guarantees)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from markupsafe import Markup

from anomaly.calibration import Calibration
from anomaly.explain import Explanation, Reading, change_words
from anomaly.guarantees import guarantee
from anomaly.panels import figure
from anomaly.policy_check import least_score
from anomaly.report import Report
from anomaly.rules import AnyRule, CascadeRule, Cut, Policy, Rule, WeightedRule
from anomaly.texts import Language, numeral, say


def why_html(report: Report, language: Language) -> str:
    """The explanation of a report; empty for a report from before there was one."""
    why = report.explanation
    if why is None:
        return ""
    facts = {
        "why_fired": Markup("{} <code>{}</code>").format(_fired(why.fired, language), why.fired),
        "why_agreed": _names(why.agreed, language),
        "why_distance": _distances(why, language),
        "why_change": change_words(why.flip)[language],
    }
    if why.discounted:
        facts["why_discounted"] = _names(why.discounted, language)
    if why.unasked:
        facts["why_unasked"] = _names(why.unasked, language)
    listed = Markup("").join(
        Markup("<dt>{}</dt><dd>{}</dd>").format(say(key, language), fact) for key, fact in facts.items() if fact
    )
    return Markup("<h3>{}</h3><dl>{}</dl>").format(say("why", language), listed)


def _fired(fired: str, language: Language) -> str:
    name, _, index = fired.partition("[")
    key = {"rule.steps": "fired_step", "exceptions": "fired_exception", "required": "fired_required"}.get(name)
    return say(key or "fired_rule", language, number=int(index.rstrip("]")) + 1 if index else 0)


def _names(names: tuple[str, ...], language: Language) -> Markup:
    return Markup(", ").join(Markup("<b>{}</b>").format(name) for name in names) or Markup(say("nobody", language))


def _distances(why: Explanation, language: Language) -> Markup:
    rows = [_distance(reading, language) for reading in why.readings if reading.counted]
    if not rows:
        return Markup("")
    return Markup('<ul>{}</ul><span class="hint">{}</span>').format(
        Markup("").join(Markup("<li>{}</li>").format(row) for row in rows), say("iqr", language)
    )


def _distance(reading: Reading, language: Language) -> Markup:
    name = Markup("<b>{}</b>").format(reading.member)
    line = numeral(reading.cut, language)
    if reading.distance is None or reading.distance_iqr is None:
        return Markup("{} {}").format(name, say("one_side", language, line=line))
    key = "above" if reading.distance >= 0 else "below"
    own, ranges = (figure(abs(value), language) for value in (reading.distance, reading.distance_iqr))
    return Markup("{} {}").format(name, say(f"distance_{key}", language, own=own, line=line, ranges=ranges))


class _Line(NamedTuple):
    """A cut that a policy asks of a member."""

    member: str
    cut: Cut


def promises_html(policy: Policy, calibrations: Mapping[str, Calibration], language: Language) -> str:
    """What every line of a policy can promise, to be unfolded.

    Args:
        policy: as it is for the category.
        calibrations: by member.
        language: to say it in.
    """
    rows = Markup("").join(
        Markup("<li><b>{}</b> <code>{}</code><br>{}<br>{}</li>").format(
            line.member, numeral(str(line.cut), language), *_promise(line.cut, calibrations[line.member], language)
        )
        for line in dict.fromkeys(_lines(policy))
    )
    return Markup(
        '<details class="promises"><summary>{}</summary><ul>{}</ul><p>{}</p><p class="hint">{}</p></details>'
    ).format(say("promises", language), rows, _of_policy(policy, language), say("promises_each", language))


def _lines(policy: Policy) -> Iterator[_Line]:
    for rule in (policy.rule, *(exception.rule for exception in policy.exceptions if exception.rule is not None)):
        yield from _lines_of(rule)


def _lines_of(rule: AnyRule) -> Iterator[_Line]:
    if isinstance(rule, CascadeRule):
        for step in rule.steps:
            for cut in (step.reject, step.accept):
                if cut is not None:
                    yield from (_Line(name, cut) for name in step.members)
    elif not isinstance(rule, WeightedRule):  # what weighs has one line for the mean, and none for a member
        yield from (_Line(name, rule.cut) for name in rule.members)


def _promise(cut: Cut, calibration: Calibration, language: Language) -> tuple[str, str]:
    if cut.threshold is not None:
        found = guarantee(calibration, cut.threshold)
        return found.misses.text[language], found.false_alarms.text[language]
    least = least_score(cut, calibration)
    reached = [least is not None and score >= least for score in calibration.good_scores]
    missed = [least is None or score < least for score in calibration.defect_scores]
    counts = {"missed": sum(missed), "defects": len(missed), "rejected": sum(reached), "good": len(reached)}
    return say("promise_counts", language, **counts), say("promise_cut", language)


def _of_policy(policy: Policy, language: Language) -> str:
    """What holds for the policy, and why; nothing is made up where members' promises do not add up to one."""
    rule = policy.rule
    if isinstance(rule, WeightedRule):
        return say("promise_weighted", language)
    if isinstance(rule, Rule) and rule.threshold == "safe" and not policy.exceptions:
        if rule.kind == "single" and policy.review is None:
            return say("promise_single", language)
        if rule.kind in ("single", "any"):
            return say("promise_any", language)
    return say("promise_no_policy", language)
