"""Mean average precision of boxes (COCO: Lin et al. 2014, arXiv 1405.0312), counted by torchmetrics and pycocotools."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from anomaly.boxes import DEFECT, mask_boxes
from anomaly.datasets import read_boxes
from anomaly.evaluation import Row, Scored
from anomaly.figures import BoxLevel

Named = tuple[Tensor, Tensor, tuple[str, ...]]  # xyxy (N, 4) float32 in pixels, scores (N,), labels


def box_level(scored: Scored, member: str, notes: list[str], names: Sequence[str] = ()) -> BoxLevel | None:
    """Boxes found against boxes drawn.

    Args:
        scored: a split.
        member: its own boxes, or those that the inspector draws around its heatmap's components.
        notes: gets the reason where the result is None.
        names: of the types in box files, as `read_boxes` takes them.
    """
    truth, source = _truth(scored, names)
    if not truth:
        notes.append("no box level: the data has neither boxes nor masks")
        return None
    found = [_found(scored, member, row) for row in scored.rows]
    if any(boxes is None for boxes in found):
        notes.append("no box level: it gives no boxes, nor a heatmap with a calibrated threshold, for every picture")
        return None
    level = mean_average_precision(truth, [boxes for boxes in found if boxes is not None], source)
    told = {name for boxes in found if boxes for name in boxes[2]} - {DEFECT}
    if told and not level.classes:
        drawn = sorted({name for boxes in truth for name in boxes[2]})
        notes.append(f"boxes are matched by place alone: it calls the types {sorted(told)}, the data {drawn}")
    return level


def mean_average_precision(truth: list[Named], found: list[Named], source: str) -> BoxLevel:
    """Average precision over all pictures, good ones included, for their boxes are false.

    Args:
        truth: a picture each; its scores are not looked at.
        found: likewise.
        source: where the truth is from, in words.
    """
    from torchmetrics.detection import MeanAveragePrecision

    names = sorted({name for _, _, labels in truth for name in labels})
    told = {name for _, _, labels in found for name in labels}
    classes = bool(told & set(names)) and names != [DEFECT]
    index = {name: i for i, name in enumerate(names)} if classes else {}

    def numbered(labels: tuple[str, ...]) -> Tensor:
        return torch.tensor([index.get(name, len(index)) for name in labels], dtype=torch.int64)

    metric = MeanAveragePrecision(iou_type="bbox", class_metrics=True)
    metric.warn_on_many_detections = False
    metric.update(
        [{"boxes": xyxy, "scores": scores, "labels": numbered(labels)} for xyxy, scores, labels in found],
        [{"boxes": xyxy, "labels": numbered(labels)} for xyxy, _, labels in truth],
    )
    values = metric.compute()
    by_type: dict[str, float | None] = {}
    if classes:
        precision = _at_half(truth, found, names)
        by_type = dict(zip(names, precision, strict=True))
    return BoxLevel(
        pictures=len(truth),
        truth=sum(len(labels) for _, _, labels in truth),
        found=sum(len(labels) for _, _, labels in found),
        map_50=_known(values["map_50"]),
        map_50_95=_known(values["map"]),
        by_type=by_type,
        truth_from=source,
        classes=classes,
    )


def _at_half(truth: list[Named], found: list[Named], names: list[str]) -> list[float | None]:
    """Average precision at IoU 0.5 of each type."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_type="bbox", iou_thresholds=[0.5], class_metrics=True)
    metric.warn_on_many_detections = False

    def only(boxes: Named) -> tuple[Tensor, Tensor, Tensor]:
        xyxy, scores, labels = boxes
        kept = [i for i, name in enumerate(labels) if name in names]
        return xyxy[kept], scores[kept], torch.tensor([names.index(labels[i]) for i in kept], dtype=torch.int64)

    metric.update(
        [dict(zip(("boxes", "scores", "labels"), only(boxes), strict=True)) for boxes in found],
        [dict(zip(("boxes", "scores", "labels"), only(boxes), strict=True)) for boxes in truth],
    )
    values = metric.compute()
    by_class = dict(zip(values["classes"].reshape(-1).tolist(), values["map_per_class"].reshape(-1), strict=True))
    return [_known(by_class[i]) if i in by_class else None for i in range(len(names))]


def _known(value: Tensor) -> float | None:
    """COCO says -1 where there is no truth to find."""
    return None if float(value) < 0 else float(value)


def _truth(scored: Scored, names: Sequence[str]) -> tuple[list[Named], str]:
    """Of every picture; nothing where the data has none."""
    if any(row.sample.boxes for row in scored.rows):
        drawn = [read_boxes(row.sample, row.size, names) for row in scored.rows]
        return [_named(xyxy, types) for xyxy, types in drawn], "box files of the data"
    framed = [mask_boxes(mask) for mask in scored.masks]
    labels = [row.sample.label for row in scored.rows]
    return [
        _named(boxes, [label] * len(boxes)) for boxes, label in zip(framed, labels, strict=bool(framed))
    ], "connected components of the masks"


def _found(scored: Scored, member: str, row: Row) -> Named | None:
    boxes, prefix = row.ballots[member].boxes, f"{scored.inspector.file.category}/"
    if boxes is None:
        return None
    return boxes.xyxy.cpu(), boxes.scores.cpu(), tuple(label.removeprefix(prefix) for label in boxes.labels)


def _named(boxes: ArrayLike, labels: Sequence[str], scores: Sequence[float] | None = None) -> Named:
    xyxy = torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(-1, 4))
    return xyxy, torch.tensor(scores or [0.0] * len(xyxy), dtype=torch.float32), tuple(labels)
