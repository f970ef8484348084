"""Two reports on one picture: what is different. Pure; `/compare` gives it, and the Compare tab draws it."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from anomaly.report import MemberVote, Report

Field = Literal["verdict", "score", "threshold", "p_value", "counted", "commit"]
FIELDS: tuple[Field, ...] = ("verdict", "score", "threshold", "p_value", "counted", "commit")
_SAME = 1e-6  # relative: the same weights on another batch or thread differ by rounding alone


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MemberDifference(_Frozen):
    """One detector in the two reports."""

    member: str
    only: Literal["first", "second"] | None  # the one report that has its vote
    changed: tuple[Field, ...]  # of its row; empty where only one report has it


class Differences(_Frozen):
    """What differs from the first report to the second."""

    format: Literal[1] = 1
    decision: bool  # whether the decisions differ
    commit: bool  # of the inspector
    policy: bool  # by name
    votes: tuple[MemberDifference, ...]  # every member of either, in the order of the first report, then of the second
    energy_mj: float | None  # second - first, of two estimates; None where one is not known
    duration_ms: float  # second - first


def differences(first: Report, second: Report) -> Differences:
    """Compares two reports on the same picture.

    Args:
        first: report.
        second: report.
    """
    sides = [{vote.member: vote for vote in report.votes} for report in (first, second)]
    energies = first.emissions.energy_mj, second.emissions.energy_mj
    return Differences(
        decision=first.decision != second.decision,
        commit=first.commit != second.commit,
        policy=first.policy != second.policy,
        votes=tuple(_member(name, sides[0].get(name), sides[1].get(name)) for name in {**sides[0], **sides[1]}),
        energy_mj=None if energies[0] is None or energies[1] is None else energies[1] - energies[0],
        duration_ms=second.duration_ms - first.duration_ms,
    )


def _member(name: str, first: MemberVote | None, second: MemberVote | None) -> MemberDifference:
    if first is None or second is None:
        return MemberDifference(member=name, only="second" if first is None else "first", changed=())
    changed = tuple(field for field in FIELDS if not _alike(getattr(first, field), getattr(second, field)))
    return MemberDifference(member=name, only=None, changed=changed)


def _alike(first: object, second: object) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=_SAME)
    return first == second
