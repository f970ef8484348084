"""metrics.json: the figures of a model or of an inspector. Written by commands, read by cards; never by hand."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(_Frozen):
    """Decisions against labels. `review` stands for itself: neither right nor wrong."""

    tp: int
    fp: int
    fn: int
    tn: int
    review: int = 0
    failed: int = 0  # images without a vote of this member


class Spread(_Frozen):
    median: float
    p95: float


class Figures(_Frozen):
    """Of one member, or of the inspector under one policy, on one split."""

    image_auroc: float | None  # None where a class is absent
    pixel_auroc: float | None  # None without masks or without a heatmap
    au_pro: float | None  # exact, limit 0.3
    threshold: str  # the name of the threshold that the counts are at
    tp: int
    fp: int
    fn: int
    tn: int
    review: int
    failed: int
    at: dict[str, Counts] = {}  # members: the counts at each of their thresholds
    latency_ms: Spread
    energy_mj: float | None  # mean an image; estimated, a member's is a share by time


class DataFigures(_Frozen):
    name: str  # of the folder or the Hub dataset
    layout: str
    seed: int
    split_hash: str
    counts: dict[str, dict[str, int]]  # split -> label -> images


class TrainingFigures(_Frozen):
    """As CodeCarbon estimated them for the whole run."""

    grams_co2eq: float | None
    energy_wh: float | None
    duration_s: float
    hardware: str
    country: str  # ISO 3166 alpha-3
    g_per_kwh: float | None
    backend: str
    note: str | None = None


class ModelMetrics(_Frozen):
    """metrics.json of one detector."""

    format: Literal[1] = 1
    kind: str
    member: str
    category: str
    data: DataFigures
    backbone: str | None  # where frozen or initial weights came from
    parameters: int
    model_bytes: int
    settings: dict[str, JsonValue]  # of the training command
    test: Figures | None  # None where the data has no test folder
    training: TrainingFigures
    versions: dict[str, str]


class InspectorMetrics(_Frozen):
    """metrics.json of an inspector."""

    format: Literal[1] = 1
    category: str
    data: DataFigures
    members: dict[str, Figures]
    policies: dict[str, Figures]
    hardware: str
    country: str
    versions: dict[str, str]
