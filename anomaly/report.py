"""What one inspection says: the same JSON in the app, the API and the command line; schemas/report.schema.json."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from anomaly.emissions import Emissions
from anomaly.explain import Explanation
from anomaly.policy import Text, Verdict


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,  # the schema has them
        json_schema_serialization_defaults_required=True,  # what is written has every field
    )


class BoxRow(_Frozen):
    """A place that a member marks, in pixels of the image: x0 <= x < x1, y0 <= y < y1."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    """The units of the member's heatmap."""
    label: str
    """The type of defect, or "defect" where the member does not tell types apart."""


class MemberVote(_Frozen):
    """One row of the votes. Without a vote `verdict` is `failed` and `error` says why."""

    member: str
    kind: str
    """Which kind of detector."""
    repo: str
    commit: str
    """40 hex digits."""
    verdict: Verdict | Literal["failed"]
    counted: bool = True
    """False: shown, but the policy does not count it."""
    score: float | None
    """The detector's own units, higher = more anomalous."""
    threshold_name: str
    """Its name; where a policy asks otherwise, p ≤ 0.01 or P ≥ 0.5."""
    threshold: float
    """A score at or above it is a defect."""
    p_value: float | None
    """Share of good parts expected to score this high or higher; not a probability of defect."""
    probability: float | None = None
    """Probability of a defect; only where it was calibrated on labelled defects."""
    class_shares: dict[str, float] | None
    """Softmax of the type head: shares, not calibrated probabilities."""
    boxes: tuple[BoxRow, ...] = ()
    """The highest score first; from a heatmap, or from a detector that was trained on boxes."""
    duration_ms: float
    """Its own time and an equal part of each trunk pass it shares."""
    energy_share_mj: float | None
    """Its part of the inspection's energy by time: a share, not a measurement."""
    error: str | None


class Report(_Frozen):
    """The machine-readable answer to "is this part good?"."""

    format: Literal[1] = 1
    decision: Verdict
    reason: Text
    explanation: Explanation | None = None
    """None in reports from before there was one."""
    category: str
    inspector: str
    """As it was asked for: a repo id or a folder."""
    revision: str
    """As it was asked for: a tag, a branch or a commit."""
    commit: str
    """40 hex digits, what the revision was at that moment."""
    policy: str
    image_width: int
    """Pixels."""
    image_height: int
    image_sha256: str
    """Identifies the decoded RGB pixels, whatever file they came in."""
    votes: tuple[MemberVote, ...]
    emissions: Emissions
    duration_ms: float
    created_at: str
    """ISO 8601, UTC."""
    version: str
    """The version of this software."""
    warnings: tuple[str, ...] = ()


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report as this version writes it: every field is there."""
    return Report.model_json_schema(mode="serialization")
