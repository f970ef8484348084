"""What an inspection would have cost had every member been asked: a cascade leaves some out, other policies too.

Nobody measured that. What is known is the energy of every member an image, as its release measured it, on another
machine maybe; so the members that were asked say how much of the whole this inspection was.
"""

from collections.abc import Collection
from dataclasses import dataclass

from anomaly.errors import VigieError
from anomaly.figures import InspectorMetrics
from anomaly.hub import parse_source
from anomaly.releases import inspector_metrics
from anomaly.report import Report


@dataclass(frozen=True, slots=True)
class FullVote:
    """Every member of the inspector, against those that were asked."""

    unasked: tuple[str, ...]
    energy_mj: float | None = None  # of all; None = not known
    saved: float | None = None  # share of it that was saved, 0 to 1


def full_vote(report: Report, members: Collection[str], metrics: InspectorMetrics | None) -> FullVote:
    """Estimates it.

    Args:
        report: of an inspection.
        members: all of the inspector.
        metrics: of the release; None where it has none.
    """
    asked = {vote.member for vote in report.votes}
    unasked = tuple(name for name in members if name not in asked)
    failed = any(vote.score is None for vote in report.votes)  # what a crash cost is not what the release measured
    measured = {} if metrics is None else {name: one.energy_mj for name, one in metrics.members.items()}
    known = {name: mj for name in members if (mj := measured.get(name))}
    if not unasked or failed or len(known) < len(members):
        return FullVote(unasked)
    share = sum(known[name] for name in asked) / sum(known.values())
    spent = report.emissions.energy_mj
    return FullVote(unasked, None if spent is None else spent / share, 1 - share)


def released_metrics(report: Report) -> InspectorMetrics | None:
    """metrics.json of the commit that decided; None where there is none, or it cannot be had."""
    try:
        return inspector_metrics(parse_source(report.inspector), report.commit)
    except VigieError:
        return None
