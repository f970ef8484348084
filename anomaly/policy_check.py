"""Policies that are refused: what is wrong with one, by the path of the key, and what is known instead."""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from anomaly.calibration import Calibration
from anomaly.errors import PolicyError
from anomaly.rules import AnyRule, CascadeRule, Cut, Discount, Policy, PolicyException, WeightedRule

_KINDS = ("any", "all", "majority", "single", "at_least", "weighted", "cascade")
Known = Mapping[str, Calibration]


def read_policy(path: Path) -> Policy:
    """Reads a policy from its JSON file.

    Raises:
        PolicyError: it cannot be read or is none, with the path of the wrong key and what is known.
    """
    try:
        return Policy.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise PolicyError(f"{path}: {problems(error)}") from error


def problems(error: ValidationError, of: type[BaseModel] = Policy) -> str:
    """What is wrong in a policy, or in what holds some, as `rule.steps[1].members[0]: …; …`; the first three."""
    found = []
    wrong = error.errors(include_url=False)
    inside = {each["loc"][:i] for each in wrong for i in range(len(each["loc"]))}
    told = [e for e in wrong if e["type"] != "too_short" or e["loc"] not in inside]  # no echo of a wrong item
    for each in told[:3]:
        where, message = key_path(each["loc"]), each["msg"].removeprefix("Value error, ")
        inner, colon, rest = message.partition(": ")
        if each["type"] == "value_error" and colon and inner.isidentifier():  # a rule that says which of its keys
            where, message = f"{where}.{inner}" if where else inner, rest
        if each["type"] == "extra_forbidden":
            message = f"unknown key; known are {_known_keys(each['loc'][:-1], of)}"
        found.append(f"{where or 'the file'}: {message}")
    return "; ".join(found)


def key_path(loc: Collection[int | str]) -> str:
    """`rule.steps[1].members[0]`: pydantic's place, without the kind of rule that it puts in between."""
    text, before = "", ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not (before == "rule" and part in _KINDS):
            text += f".{part}" if text else part
        before = str(part)
    return text


def _known_keys(loc: Collection[int | str], of: type[BaseModel]) -> list[str]:
    """The keys that the schema has at a place."""
    schema = of.model_json_schema()
    here: Any = schema
    for part in loc:
        here = _resolved(here, schema)
        if isinstance(part, int):
            here = here.get("items", {})
        elif "discriminator" in here:
            here = {"$ref": here["discriminator"]["mapping"][part]}
        else:
            here = here.get("properties", {}).get(part, {})
    return sorted(_resolved(here, schema).get("properties", {}))


def _resolved(here: Any, schema: Any) -> Any:
    """Behind a reference, or the first of several that is no null."""
    while "$ref" in here or "anyOf" in here:
        if "$ref" in here:
            here = schema["$defs"][here["$ref"].rpartition("/")[2]]
        else:
            here = next(option for option in here["anyOf"] if option.get("type") != "null")
    return here


def least_score(cut: Cut, calibration: Calibration) -> float | None:
    """The lowest score of a member that reaches a cut.

    Returns:
        -inf where every score does, None where no score does.

    Raises:
        PolicyError: the member is not calibrated for it.
    """
    if cut.threshold is not None:
        if cut.threshold not in calibration.thresholds:
            raise PolicyError(f"{cut.threshold!r} is not calibrated: there is {sorted(calibration.thresholds)}")
        return calibration.thresholds[cut.threshold].value
    if cut.score is not None:
        return cut.score
    if cut.p_value is not None:
        good, level = calibration.good_scores, cut.p_value  # p falls right above each of these
        above = [math.nextafter(score, math.inf) for score in good]
        index = bisect_left(range(len(above)), True, key=lambda i: calibration.p_value(above[i]) <= level)
        return above[index] if index < len(above) else None
    if calibration.probability is None:
        raise PolicyError("no probability of a defect is calibrated (it needs labelled defects held out)")
    known, level = calibration.probability, cut.probability or 0.0
    low, high = score_range(calibration)
    if known.of(high) < level:
        return None
    if known.of(low) >= level:
        return -math.inf
    while low < (middle := low + (high - low) / 2) < high:
        low, high = (low, middle) if known.of(middle) >= level else (middle, high)
    return high


def score_range(calibration: Calibration) -> tuple[float, float]:
    """Beyond what any part scores: a thousand times the range of the held-out scores to either side."""
    scores = [*calibration.good_scores, *calibration.defect_scores]
    width = 1e3 * (max(scores) - min(scores) or 1.0)
    return min(scores) - width, max(scores) + width


def check_policy(
    policy: Policy,
    calibrations: Known,
    *,
    category: str | None = None,
    types: Mapping[str, Collection[str]] | None = None,
) -> None:
    """Refuses a policy that names what does not exist or that could never reject a part.

    Args:
        policy: as read from JSON.
        calibrations: of each member of the inspector, by name.
        category: of the inspector; exceptions for others are not looked into. None: all exceptions are.
        types: the types of defect that each member with a type head tells apart, "good" among them. None: not known
            here, and not checked.

    Raises:
        PolicyError: with the path of the wrong key and what is known.
    """
    try:
        _check(policy, calibrations, category, types)
    except PolicyError as error:
        raise PolicyError(f"policy {policy.name!r}: {error}") from error


def _check(policy: Policy, known: Known, category: str | None, types: Mapping[str, Collection[str]] | None) -> None:
    own = [(i, e) for i, e in enumerate(policy.exceptions) if category is None or e.category == category]
    for key, names in _named(policy, own):
        for index, name in enumerate(names):
            if name not in known:
                raise PolicyError(f"{key}[{index}] names {name!r}; this inspector has {sorted(known)}")
            if name in names[:index]:
                raise PolicyError(f"{key}[{index}] names a member twice: {name!r} in {list(names)}")
    heard = (*policy.rule.members, *(name for _, e in own for name in e.members))
    if isinstance(policy.rule, CascadeRule):
        heard = policy.rule.members  # the only ones that it may have asked when it decides
    for index, name in enumerate(policy.required):
        if name not in heard:
            raise PolicyError(f"required[{index}] names {name!r}, whose vote does not count: add it to rule.members")
    _check_review(policy, known)
    _check_rule("rule", policy.rule, known)
    if not isinstance(policy.rule, WeightedRule | CascadeRule):  # their verdicts are shown at this threshold
        for name in (*policy.advisory, *(name for _, e in own for name in e.members)):
            _check_cut("rule.threshold", policy.rule.cut, name, known)
    replacing = [index for index, e in own if e.replaces]
    for index, later in enumerate(own):
        if any(e.replaces and e.category == later[1].category for _, e in own[:index]) and later[1].replaces:
            raise PolicyError(
                f"exceptions[{later[0]}].rule: {later[1].category!r} has a rule by exceptions{replacing[:1]}"
            )
    for index, exception in own:
        _check_exception(f"exceptions[{index}]", exception, policy, known, types)


def _named(policy: Policy, own: list[tuple[int, PolicyException]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every list of members, with its path."""
    yield from _members("rule", policy.rule)
    yield "required", policy.required
    yield "advisory", policy.advisory
    for index, exception in own:
        path = f"exceptions[{index}]"
        if exception.rule is not None:
            yield from _members(f"{path}.rule", exception.rule)
        if exception.discount is not None:
            yield f"{path}.discount.others", exception.discount.others


def _members(path: str, rule: AnyRule) -> Iterator[tuple[str, tuple[str, ...]]]:
    if isinstance(rule, CascadeRule):
        yield from ((f"{path}.steps[{i}].members", step.members) for i, step in enumerate(rule.steps))
    elif isinstance(rule, WeightedRule):
        yield f"{path}.weights", rule.members
    else:
        yield f"{path}.members", rule.members


def _check_rule(path: str, rule: AnyRule, known: Known) -> None:
    """That every cut is there for every member, and that every one can fire."""
    if isinstance(rule, WeightedRule):
        _check_weights(path, rule, known)
        return
    if not isinstance(rule, CascadeRule):
        for name in rule.members:
            _check_cut(f"{path}.threshold", rule.cut, name, known)
        return
    for index, step in enumerate(rule.steps):
        here = f"{path}.steps[{index}]"
        _check_unit(f"{here}.accept", step.accept, step.members)
        _check_unit(f"{here}.reject", step.reject, step.members)
        for name in step.members:
            low = _check_cut(f"{here}.accept", step.accept, name, known)
            high = _check_cut(f"{here}.reject", step.reject, name, known)
            if low == -math.inf:
                raise PolicyError(f"{here}.accept: every score of {name!r} reaches {step.accept}: it could never fire")
            if low is not None and high is not None and low > high:
                raise PolicyError(
                    f"{here}.accept: {step.accept} lies above {here}.reject ({step.reject}) for {name!r}, at scores of "
                    f"{low:.6g} and {high:.6g}: what is rejected cannot be accepted as well"
                )


def _check_weights(path: str, rule: WeightedRule, known: Known) -> None:
    most = 0.0
    for name, weight in rule.weights.items():
        if (found := known[name].probability) is None:
            raise PolicyError(f"{path}.weights.{name}: {name!r} is calibrated for no probability (it needs defects)")
        most += weight * found.of(score_range(known[name])[1])
    if (most := most / math.fsum(rule.weights.values())) < rule.probability * (1 - 1e-9):
        raise PolicyError(
            f"{path}.probability: the members' mean is never above {most:.3f}, {rule.probability:g} could never fire"
        )


def _check_unit(path: str, cut: Cut | None, members: Collection[str]) -> None:
    if cut is not None and cut.score is not None and len(members) > 1:
        raise PolicyError(
            f"{path}.score: {', '.join(members)} do not score in one unit: give each a step of its own, or a "
            "threshold, p_value or probability"
        )


def _check_cut(path: str, cut: Cut | None, name: str, known: Known) -> float | None:
    """The least score of the member that reaches it."""
    if cut is None:
        return None
    calibration = known[name]
    if cut.threshold is not None and cut.threshold not in calibration.thresholds:
        raise PolicyError(
            f"{path} {cut.threshold!r} is not calibrated for {name!r}, which has {sorted(calibration.thresholds)} "
            "(f1, f2, safe and youden need labelled defects in the calibration split)"
        )
    if cut.probability is not None and calibration.probability is None:
        raise PolicyError(f"{path} asks {name!r} for a probability, and it is calibrated for none (it needs defects)")
    level = cut.p_value
    if cut.threshold is not None:
        level = calibration.thresholds[cut.threshold].level
    if level is not None and level < calibration.smallest_p_value:
        raise PolicyError(
            f"{path} asks {name!r} for a level of {level}, but with {len(calibration.good_scores)} good images held "
            f"out no p-value is below {calibration.smallest_p_value:.4f}: it could never fire"
        )
    if cut.score is not None:
        lowest, highest = score_range(calibration)
        if not lowest <= cut.score <= highest:
            never = "every score reaches it" if cut.score < lowest else "it could never fire"
            raise PolicyError(
                f"{path}.score: {cut.score:g} is beyond all that {name!r} scores (held-out good parts "
                f"{calibration.good_scores[0]:.4g} to {calibration.good_scores[-1]:.4g}): {never}"
            )
    if (least := least_score(cut, calibration)) is None:
        raise PolicyError(f"{path}: no score of {name!r} reaches {cut}: it could never fire")
    return least


def _check_review(policy: Policy, known: Known) -> None:
    band, rule = policy.review, policy.rule
    if band is None:
        return
    if isinstance(rule, CascadeRule):
        raise PolicyError("review: a cascade has its own, between accept and reject of its steps: leave it out")
    if isinstance(rule, WeightedRule):
        if band.probability is None or band.probability >= rule.probability:
            raise PolicyError(
                f"review: a weighted rule takes a probability below its own of {rule.probability:g}, not {band}: "
                "it could never fire"
            )
        return
    key = "review." + next(name for name, value in band if value is not None)
    members = rule.members if band.probability is not None else (*rule.members, *policy.advisory)
    _check_unit("review", band, members)
    least = {name: _check_cut(key, band, name, known) for name in members}
    if band.p_value is None and not any(
        low is not None and low < known[name].thresholds[rule.threshold].value
        for name, low in least.items()
        if name in rule.members and rule.threshold in known[name].thresholds
    ):
        raise PolicyError(f"{key}: no member reaches {band} below its {rule.threshold} threshold: it could never fire")


def _check_exception(
    path: str,
    exception: PolicyException,
    policy: Policy,
    known: Known,
    types: Mapping[str, Collection[str]] | None,
) -> None:
    if (wanted := exception.defect_type) is not None:
        here = f"{path}.defect_type"
        if wanted.member not in known:
            raise PolicyError(f"{here}.member names {wanted.member!r}; this inspector has {sorted(known)}")
        if types is not None and wanted.member not in types:
            raise PolicyError(f"{here}.member: {wanted.member!r} has no type head; those with one: {sorted(types)}")
        if types is not None and wanted.name not in types[wanted.member]:
            raise PolicyError(
                f"{here}.name: {wanted.member!r} knows {sorted(types[wanted.member])}, not {wanted.name!r}"
            )
    if exception.rule is not None:
        _check_rule(f"{path}.rule", exception.rule, known)
    if exception.discount is not None:
        rule = policy.for_category(exception.category).rule
        _check_discount(f"{path}.discount", exception.discount, rule, known, banded=policy.review is not None)


def _check_discount(path: str, discount: Discount, rule: AnyRule, known: Known, *, banded: bool) -> None:
    if isinstance(rule, WeightedRule):
        raise PolicyError(f"{path}: a weighted rule has weights for that")
    if discount.member not in rule.members:
        raise PolicyError(
            f"{path}.member names {discount.member!r}, whose vote does not count: {list(rule.members)} do"
        )
    if discount.member in discount.others:
        raise PolicyError(f"{path}.others names {discount.member!r}, the member whose vote is discounted")
    _check_unit(f"{path}.below", discount.below, discount.others)
    for name in discount.others:
        if _check_cut(f"{path}.below", discount.below, name, known) == -math.inf:
            raise PolicyError(f"{path}.below: every score of {name!r} reaches {discount.below}: it could never fire")
    full = _check_cut(f"{path}.unless", discount.unless, discount.member, known)
    if full is None or banded or isinstance(rule, CascadeRule):
        return
    least = least_score(rule.cut, known[discount.member])
    if least is not None and full <= least:
        raise PolicyError(
            f"{path}.unless: every vote of {discount.member!r} that reaches {rule.threshold} reaches "
            f"{discount.unless}: it could never fire"
        )
