"""The figures of a detector at three levels: good or not, which type, where. All from raw scores of one scoring pass.

`measured` is what training commands call.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.datasets import GOOD, Sample
from anomaly.evaluation import Evaluation, Scored, counting_threshold, score, summarise
from anomaly.figures import Levels, PixelLevel, TypeFigures, TypeLevel
from anomaly.inspector import Inspector
from anomaly.metrics import pixel_scores
from training.box_metrics import box_level
from training.image_metrics import RESAMPLES, image_level


def measured(
    inspector: Inspector,
    samples: Sequence[Sample],
    *,
    data: str,
    split: str,
    progress: bool = False,
    resamples: int = RESAMPLES,
    box_labels: Sequence[str] = (),
) -> Evaluation:
    """`anomaly.evaluation.evaluate`, and `levels` of every member.

    Args:
        inspector: loaded.
        samples: labelled pictures; masks and boxes where the data has them.
        data: what to call the data.
        split: what to call the samples.
        progress: shows a bar on stderr.
        resamples: of the bootstrap.
        box_labels: names of the types in box files, as `anomaly.datasets.read_boxes` takes them.

    Raises:
        ImageError, DataError: a picture, a mask or a file of boxes cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder:
        scored = score(inspector, samples, Path(folder), progress=progress)
        found = summarise(scored, data=data, split=split)
        return with_levels(scored, found, resamples=resamples, box_labels=box_labels)


def with_levels(
    scored: Scored, found: Evaluation, *, resamples: int = RESAMPLES, box_labels: Sequence[str] = ()
) -> Evaluation:
    """The evaluation with `levels` of every member."""
    members = {
        name: figures.model_copy(update={"levels": levels(scored, name, resamples=resamples, box_labels=box_labels)})
        for name, figures in found.members.items()
    }
    return found.model_copy(update={"members": members})


def levels(
    scored: Scored, member: str, *, resamples: int = RESAMPLES, seed: int = 0, box_labels: Sequence[str] = ()
) -> Levels:
    """All figures of one member.

    Args:
        scored: by `anomaly.evaluation.score`.
        member: its name.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        box_labels: names of the types in box files.
    """
    notes: list[str] = []
    voted = [(row.sample, vote.score) for row in scored.rows if (vote := row.vote(member)) is not None]
    if failed := len(scored.rows) - len(voted):
        notes.append(f"{failed} of {len(scored.rows)} pictures got no vote and are in no figure")
    key = counting_threshold(scored.inspector, member)
    threshold = scored.inspector.members[member].calibration.thresholds[key].value
    defect = np.array([sample.is_defect for sample, _ in voted], dtype=bool)
    scores = np.array([value for _, value in voted], dtype=np.float64)
    image = None
    if defect.any() and not defect.all():
        image = image_level(defect, scores, threshold, name=key, resamples=resamples, seed=seed)
    else:
        notes.append("no image level: it needs good and defective pictures with a vote")
    pixel, by_type = _pixel_level(scored, member, notes)
    return Levels(
        image=image,
        type=_type_level(scored, member, threshold, by_type),
        pixel=pixel,
        boxes=box_level(scored, member, notes, box_labels),
        notes=tuple(notes),
    )


# --- which type -------------------------------------------------------------------------------------------------------


def _type_level(scored: Scored, member: str, threshold: float, places: dict[str, dict[str, float]]) -> TypeLevel:
    voted = [(row, vote.score) for row in scored.rows if (vote := row.vote(member)) is not None]
    labels = [row.sample.label for row, _ in voted]
    types = {
        label: TypeFigures(
            n=labels.count(label),
            rejected=float(np.mean([s >= threshold for row, s in voted if row.sample.label == label])),
            **places.get(label, {}),
        )
        for label in sorted(set(labels), key=_good_first)
    }
    answers = [(row.sample.label, dict(shares)) for row, _ in voted if (shares := row.ballots[member].class_shares)]
    if not answers:
        note = "it has no type head: a type has the share of its parts that is rejected, and where"
        return _NO_HEAD.model_copy(update={"types": types, "note": note})
    classes = tuple(answers[0][1])
    table = np.array([[shares[name] for name in classes] for _, shares in answers])
    level = type_level([label for label, _ in answers], classes, table)
    heads = {label: figures for label, figures in level.types.items() if label in types}
    both = {
        label: figures.model_copy(
            update={key: getattr(heads[label], key) for key in ("precision", "recall", "f1")} if label in heads else {}
        )
        for label, figures in types.items()
    }
    return level.model_copy(update={"types": both})


def type_level(labels: Sequence[str], classes: Sequence[str], shares: NDArray[Any]) -> TypeLevel:
    """Figures of a type head.

    Args:
        labels: (N,) true labels; a defect that the head was never taught counts as wrong.
        classes: (C,) what the columns of `shares` are called. Without "good" the head is asked about defects only.
        shares: (N, C), the largest is the answer.

    Returns:
        Its types have only what the head says.
    """
    from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, roc_auc_score

    asked = [i for i, label in enumerate(labels) if label != GOOD or GOOD in classes]
    truth = [labels[i] for i in asked]
    kept = np.asarray(shares)[asked]
    given = [classes[i] for i in kept.argmax(axis=1)] if asked else []
    names = sorted({*truth, *given}, key=_good_first)
    notes = [] if GOOD in classes else ["the head knows defects only, so good parts are left out"]
    if unknown := sorted(set(truth) - set(classes)):
        notes.append(f"never taught, so always wrong: {', '.join(unknown)}")
    present = sorted(set(truth), key=_good_first)
    if not asked:
        return _NO_HEAD.model_copy(update={"note": "; ".join(notes)})
    areas = [
        roc_auc_score([label == name for label in truth], kept[:, classes.index(name)])
        for name in present
        if name in classes and len(present) > 1
    ]
    precision, recall, f1, count = precision_recall_fscore_support(truth, given, labels=present, zero_division=0)
    return TypeLevel(
        n=len(truth),
        auroc=float(np.mean(areas)) if areas else None,
        # over the labels that occur: one that is absent has no F1, and counting it as 0 would punish the test set
        macro_f1=float(f1_score(truth, given, labels=present, average="macro", zero_division=0)),
        weighted_f1=float(f1_score(truth, given, labels=present, average="weighted", zero_division=0)),
        accuracy=float(np.mean([a == b for a, b in zip(truth, given, strict=True)])),
        labels=tuple(names),
        confusion=tuple(tuple(map(int, row)) for row in confusion_matrix(truth, given, labels=names)),
        types={
            name: TypeFigures(n=int(n), rejected=0.0, precision=float(p), recall=float(r), f1=float(f))
            for name, p, r, f, n in zip(present, precision, recall, f1, count, strict=True)
        },
        note="; ".join(notes) or None,
    )


_NO_HEAD = TypeLevel(n=0, auroc=None, macro_f1=None, weighted_f1=None, accuracy=None, labels=(), confusion=(), types={})


def _good_first(label: str) -> tuple[bool, str]:
    return label != GOOD, label


# --- where ------------------------------------------------------------------------------------------------------------


def _pixel_level(
    scored: Scored, member: str, notes: list[str]
) -> tuple[PixelLevel | None, dict[str, dict[str, float]]]:
    """The level, and by type what `TypeFigures` has of it."""
    maps = scored.maps[member]
    if not scored.masks:
        notes.append("no pixel level: the data has no masks, or not for every defect")
    elif not len(maps):
        notes.append("no pixel level: it draws no heatmap")
    elif len(maps) != len(scored.rows):
        notes.append(f"no pixel level: it drew {len(maps)} heatmaps of {len(scored.rows)} pictures")
    if not scored.masks or len(maps) != len(scored.rows):
        return None, {}
    heatmaps = maps.read()
    pixels = pixel_scores(scored.masks, heatmaps)
    best = pixels.best_overlap()
    if best is None:
        notes.append("no pixel level: it needs good and defective pixels")
        return None, {}
    labels = np.array([row.sample.label for row in scored.rows])
    by_type: dict[str, dict[str, float]] = {}
    for label in sorted(set(labels.tolist()) - {GOOD}):
        area = pixels.area(np.where(labels[pixels.image] == label, pixels.weight, 0.0), limit=0.3)
        by_type[label] = {} if area is None else {"au_pro": area}
    calibrated = scored.inspector.members[member].calibration.pixel
    overlap: dict[str, float | None] = {"threshold": None, "iou": None, "dice": None}
    if calibrated is None:
        notes.append("no IoU and Dice at a calibrated threshold: this model was calibrated without one for pixels")
    else:
        value = calibrated.value
        counted = np.array([_overlap(m, h >= value) for m, h in zip(scored.masks, heatmaps, strict=True)])
        overlap = {"threshold": value, "iou": _iou(counted), "dice": _dice(counted)}
        for label, found in by_type.items():
            if found:  # it has a region
                found |= {"iou": _iou(counted[labels == label]), "dice": _dice(counted[labels == label])}
    level = PixelLevel(
        pictures=len(scored.rows),
        regions=round(float(pixels.weight.sum())),  # every region weighs 1
        auroc=_known(pixels.area(np.ones(pixels.defect.size))),
        ap=_known(pixels.average_precision()),
        au_pro=_known(pixels.area(pixels.weight, limit=0.3)),
        au_pro_05=_known(pixels.area(pixels.weight, limit=0.05)),
        best_iou=best[0],
        best_dice=2 * best[0] / (1 + best[0]),
        best_threshold=best[1],
        **overlap,
    )
    return level, by_type


def _overlap(mask: NDArray[np.bool_], found: NDArray[np.bool_]) -> tuple[int, int]:
    """Pixels in both, pixels in either."""
    return int(np.count_nonzero(mask & found)), int(np.count_nonzero(mask | found))


def _iou(counted: NDArray[np.int64]) -> float:
    """(N, 2) of `_overlap` -> over all pixels of these pictures, of which one at least is defective."""
    both, either = counted.sum(axis=0)
    return float(both / either)


def _dice(counted: NDArray[np.int64]) -> float:
    return 2 * _iou(counted) / (1 + _iou(counted))


def _known(value: float | None) -> float:
    assert value is not None  # there are good and defective pixels
    return value
