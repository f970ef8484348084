"""What one inspection says: the same JSON in the app, the API and the command line."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from anomaly.emissions import Emissions
from anomaly.explain import Explanation
from anomaly.policy import Text, Verdict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BoxRow(_Frozen):
    """A place that a member marks, in pixels of the image: x0 <= x < x1, y0 <= y < y1."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float  # the units of the member's heatmap
    label: str  # the type of defect, or "defect" where the member does not tell types apart


class MemberVote(_Frozen):
    """One row of the votes. Without a vote `verdict` is `failed` and `error` says why."""

    member: str
    kind: str  # of detector
    repo: str
    commit: str  # 40 hex digits
    verdict: Verdict | Literal["failed"]
    counted: bool = True  # False: shown, but the policy does not count it
    score: float | None  # the detector's own units, higher = more anomalous
    threshold_name: str  # or, where a policy asks otherwise, p ≤ 0.01 or P ≥ 0.5
    threshold: float  # score >= threshold is a defect
    p_value: float | None  # share of good parts expected to score this high or higher; not a probability of defect
    probability: float | None = None  # of a defect; only where it was calibrated on labelled defects
    class_shares: dict[str, float] | None  # softmax of the type head: shares, not calibrated probabilities
    boxes: tuple[BoxRow, ...] = ()  # the highest score first; of a heatmap, or of a detector that was trained on boxes
    duration_ms: float  # its own time and an equal part of each trunk pass it shares
    energy_share_mj: float | None  # its part of the inspection's energy by time: a share, not a measurement
    error: str | None


class Report(_Frozen):
    """The machine-readable answer to "is this part good?"."""

    format: Literal[1] = 1
    decision: Verdict
    reason: Text
    explanation: Explanation | None = None  # None in reports from before there was one
    category: str
    inspector: str  # as it was asked for: a repo id or a folder
    revision: str  # as it was asked for: a tag, a branch or a commit
    commit: str  # 40 hex digits, what the revision was at that moment
    policy: str
    image_width: int  # pixels
    image_height: int
    image_sha256: str  # of the decoded RGB pixels
    votes: tuple[MemberVote, ...]
    emissions: Emissions
    duration_ms: float
    created_at: str  # ISO 8601, UTC
    version: str  # of this software
    warnings: tuple[str, ...] = ()
