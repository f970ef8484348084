"""metrics.json: the figures of a model or of an inspector. Written by commands, read by cards; never by hand."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from anomaly.costs import Outcomes


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


class Estimate(_Frozen):
    """A figure and the 95 % interval of its bootstrap; None where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class ImageLevel(_Frozen):
    """Is a part good or not, from one score a picture."""

    good: int  # pictures; those without a vote are left out
    defects: int
    threshold: str  # the name of the calibrated threshold that F1 to accuracy are at
    resamples: int  # of the bootstrap, good and defective pictures drawn apart
    auroc: Estimate
    ap: Estimate
    f1: Estimate
    f2: Estimate
    precision: Estimate
    recall: Estimate
    accuracy: Estimate
    false_alarms_at_full_recall: Estimate  # share of good parts; the cut is chosen on these very pictures
    false_alarms_at_95_recall: Estimate


class TypeFigures(_Frozen):
    """Of one label. A figure is None where the detector gives no such answer."""

    n: int  # pictures with a vote
    rejected: float  # share at the calibrated threshold; of good parts these are the false alarms
    precision: float | None = None  # of the type head
    recall: float | None = None
    f1: float | None = None
    au_pro: float | None = None  # of this type's regions; limit 0.3, false-positive rate over all pictures
    iou: float | None = None  # at the calibrated pixel threshold, over this type's pictures
    dice: float | None = None


class TypeLevel(_Frozen):
    """Which defect it is."""

    n: int  # pictures that the head was asked about
    auroc: float | None  # one against the rest, mean over types
    macro_f1: float | None
    weighted_f1: float | None
    accuracy: float | None
    labels: tuple[str, ...]  # of the rows and columns of `confusion`
    confusion: tuple[tuple[int, ...], ...]  # true label x label given
    types: dict[str, TypeFigures]
    note: str | None = None


class PixelLevel(_Frozen):
    """Where the defect is. Every pixel of every picture counts, those of good parts too."""

    pictures: int
    regions: int  # connected components of the masks
    auroc: float
    ap: float
    au_pro: float  # exact, limit 0.3
    au_pro_05: float  # exact, limit 0.05
    threshold: float | None  # calibrated, in the detector's own units
    iou: float | None  # at it
    dice: float | None
    best_iou: float  # at the best threshold for these very pictures: an oracle, beyond reach in use
    best_dice: float
    best_threshold: float


class BoxLevel(_Frozen):
    """Boxes, as COCO counts them."""

    pictures: int
    truth: int  # boxes
    found: int
    map_50: float | None  # mean average precision at IoU 0.5
    map_50_95: float | None
    by_type: dict[str, float | None]  # at IoU 0.5
    truth_from: str  # box files or components of masks
    classes: bool  # False: found boxes carry no type, so all count as one


class Levels(_Frozen):
    """Image, type, pixels, boxes: None where the data or the detector has no such thing, `notes` says why."""

    image: ImageLevel | None
    type: TypeLevel
    pixel: PixelLevel | None
    boxes: BoxLevel | None
    notes: tuple[str, ...] = ()


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
    levels: Levels | None = None  # of a member; written by training commands


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


class CategoryFigures(_Frozen):
    """Of one category, for a detector of several."""

    data: DataFigures
    test: Figures | None


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
    test: Figures | None  # None where the data has no test folder, and for several categories
    training: TrainingFigures
    versions: dict[str, str]
    curve: tuple[tuple[float, float], ...] = ()  # (training, validation) loss of each epoch; () where none is trained
    by_category: dict[str, CategoryFigures] = {}  # for category "all"


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
    held_out: dict[str, Outcomes | None] = {}  # by policy: cross-validated on the calibration pictures; None: not yet
