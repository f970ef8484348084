"""Which exception would mend which errors of a policy: chosen on one half of labelled pictures, judged on the other."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from anomaly.calibration import Calibration
from anomaly.datasets import GOOD
from anomaly.errors import PolicyError
from anomaly.evaluation import Row
from anomaly.inspector import Inspector
from anomaly.policy import Cut, DefectType, Discount, Policy, PolicyException, Verdict, check_policy, replay

_QUIET = (0.5, 0.2, 0.1)  # p-value that the others must not reach for a lone vote to count less
_SHARES = (0.9, 0.7, 0.5)  # of a type head
_KEPT = 5  # trials of each kind and policy


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Effect(_Frozen):
    """What an exception changes on some pictures."""

    good: int  # pictures
    defects: int
    mended_misses: int  # defects that were decided ok and are not any more
    new_misses: int
    mended_false_alarms: int  # good parts that were rejected and are not any more
    new_false_alarms: int
    reviews: int  # more pictures for a person; negative: fewer


class Trial(_Frozen):
    """One exception."""

    policy: str
    exception: PolicyException
    words: str
    chosen_on: Effect
    judged_on: Effect  # pictures that it was not chosen on: this is what to expect


def halves(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Every label divided in two, by the hash of the names: the same pictures give the same halves."""
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.sample.label].append(row)
    ordered = [
        row
        for label in sorted(by_label)
        for row in sorted(by_label[label], key=lambda row: hashlib.sha256(row.sample.relative.encode()).hexdigest())
    ]
    return ordered[::2], ordered[1::2]


def trials(inspector: Inspector, policy: Policy, rows: Sequence[Row]) -> list[Trial]:
    """The exceptions that mend something on the first half at the least price there, with what they do on the second.

    Args:
        inspector: loaded.
        policy: one of its own, as it is for the category.
        rows: labelled pictures with every member's vote.

    Returns:
        Those against misses first, then those against false alarms; at most `_KEPT` of each.
    """
    first, second = halves(rows)
    calibrations = {name: member.calibration for name, member in inspector.members.items()}
    types = _types(inspector, rows)
    before = [_verdicts(policy, part) for part in (first, second)]
    found: list[tuple[PolicyException, Effect, Policy]] = []
    for exception in _candidates(policy, calibrations, types, inspector.file.category):
        tried = policy.model_copy(update={"exceptions": (*policy.exceptions, exception)})
        try:
            check_policy(tried, calibrations, category=inspector.file.category, types=types)
        except PolicyError:  # this policy takes no such exception
            continue
        found.append((exception, _effect(first, before[0], _verdicts(tried, first)), tried))
    against_misses = [t for t in found if t[1].mended_misses > t[1].new_misses]
    against_alarms = [t for t in found if t[1].mended_false_alarms > t[1].new_false_alarms + t[1].new_misses]
    against_misses.sort(key=lambda t: (t[1].new_false_alarms - t[1].mended_misses, t[1].reviews))
    against_alarms.sort(key=lambda t: (t[1].new_misses, -t[1].mended_false_alarms, t[1].reviews))
    kept = list(_unlike(against_misses))[:_KEPT]
    kept += [t for t in list(_unlike(against_alarms))[:_KEPT] if t not in kept]
    return [
        Trial(
            policy=policy.name,
            exception=exception,
            words=_words(exception),
            chosen_on=effect,
            judged_on=_effect(second, before[1], _verdicts(tried, second)),
        )
        for exception, effect, tried in kept
    ]


def _unlike(
    found: Sequence[tuple[PolicyException, Effect, Policy]],
) -> Iterator[tuple[PolicyException, Effect, Policy]]:
    """Without those that do the same where they were chosen as an earlier one about the same member or type."""
    seen: set[tuple[str | None, str | None, Effect]] = set()
    for one in found:
        exception, effect, _ = one
        kind = None if exception.defect_type is None else exception.defect_type.name
        member = None if exception.discount is None else exception.discount.member
        if (kind, member, effect) not in seen:
            seen.add((kind, member, effect))
            yield one


def _candidates(
    policy: Policy, calibrations: Mapping[str, Calibration], types: Mapping[str, Sequence[str]], category: str
) -> Iterator[PolicyException]:
    for member, names in types.items():
        for name in names:
            for share in _SHARES:
                if name != GOOD:
                    kind = DefectType(member=member, name=name, share=share)
                    for least in ("review", "defect"):
                        yield PolicyException(category=category, defect_type=kind, verdict=least)
    for member in policy.rule.members:
        others = tuple(other for other in calibrations if other != member)
        for quiet in _QUIET:
            for most in ("review", "ok"):
                if others:
                    discount = Discount(member=member, others=others, below=Cut(p_value=quiet), verdict=most)
                    yield PolicyException(category=category, discount=discount)


def _types(inspector: Inspector, rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """What each type head tells apart, from its own answers."""
    found: dict[str, tuple[str, ...]] = {}
    for name in inspector.members:
        shares = next((s for row in rows if (s := row.ballots[name].class_shares)), None)
        if shares:
            found[name] = tuple(shares)
    return found


def _verdicts(policy: Policy, rows: Sequence[Row]) -> list[Verdict]:
    return [replay({n: ballot.vote for n, ballot in row.ballots.items()}, policy)[0].verdict for row in rows]


def _effect(rows: Sequence[Row], before: Sequence[Verdict], after: Sequence[Verdict]) -> Effect:
    changes = [(row.sample.is_defect, a, b) for row, a, b in zip(rows, before, after, strict=True)]

    def count(defect: bool, verdict: Verdict, *, was: bool) -> int:
        return sum(d == defect and (a == verdict) == was and (b == verdict) != was for d, a, b in changes)

    return Effect(
        good=sum(not row.sample.is_defect for row in rows),
        defects=sum(row.sample.is_defect for row in rows),
        mended_misses=count(True, "ok", was=True),
        new_misses=count(True, "ok", was=False),
        mended_false_alarms=count(False, "defect", was=True),
        new_false_alarms=count(False, "defect", was=False),
        reviews=list(after).count("review") - list(before).count("review"),
    )


def _words(exception: PolicyException) -> str:
    if exception.discount is not None:
        discount = exception.discount
        return f"a vote of {discount.member} counts as {discount.verdict} while no other reaches {discount.below}"
    kind = exception.defect_type
    assert kind is not None
    return f"at least {exception.verdict} where {kind.member} names {kind.name} with a share of {kind.share:g} or more"
