"""An inspector on labelled pictures: every member and every policy, by the path that serves (`Inspector.ballots`)."""

import dataclasses
import functools
import math
import platform
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from anomaly import __version__, images
from anomaly.calibration import ThresholdName
from anomaly.datasets import Sample, read_mask
from anomaly.emissions import shares
from anomaly.figures import Counts, Figures, Spread
from anomaly.images import RgbImage
from anomaly.inspector import Ballot, Inspector
from anomaly.metrics import confusion, image_auroc, pixel_scores
from anomaly.policy import CascadeRule, Policy, Vote, WeightedRule, replay, votes_needed
from anomaly.reading_ahead import ahead
from anomaly.render import mean_map

Maps = Mapping[str, NDArray[np.float32]]
Picture = tuple[Sample, "Future[RgbImage]"]


class Evaluation(BaseModel):
    """What `python -m anomaly evaluate --json` writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    inspector: str
    revision: str
    commit: str
    category: str
    data: str  # name of the folder
    split: str
    counts: dict[str, int]  # label -> images
    members: dict[str, Figures]
    policies: dict[str, Figures]
    default_policy: str
    energy_mj_per_image: float | None  # all members together; estimated
    hardware: str
    country: str
    versions: dict[str, str]


@dataclass(slots=True)
class HeatmapStore:
    """Heatmaps of one member or policy, on disk: all of a category's would not fit into memory."""

    path: Path
    _places: dict[int, tuple[int, tuple[int, int]]] = field(default_factory=dict)  # row -> first pixel, (H, W)
    _end: int = 0

    def add(self, row: int, heatmap: NDArray[np.float32]) -> None:
        """Appends the heatmap of one picture."""
        self._places[row] = (self._end, (heatmap.shape[0], heatmap.shape[1]))
        self._end += heatmap.size
        with self.path.open("ab") as file:
            heatmap.astype(np.float32, copy=False).tofile(file)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, row: int) -> NDArray[np.float32] | None:
        """(H, W), still on disk; None where there is none for that picture."""
        if row not in self._places:
            return None
        first, (height, width) = self._places[row]
        return np.memmap(self.path, np.float32, "r", offset=4 * first, shape=(height, width))

    def read(self) -> list[NDArray[np.float32]]:
        """All, in the order of the pictures; still on disk."""
        return [heatmap for row in sorted(self._places) if (heatmap := self.get(row)) is not None]


@dataclass(frozen=True, slots=True)
class Row:
    """One picture and what every member said of it."""

    sample: Sample
    size: tuple[int, int]  # (H, W)
    ballots: Mapping[str, Ballot]  # without heatmaps, which are in `Scored.maps`
    energy_mj: Mapping[str, float | None]  # each member's share

    def vote(self, member: str) -> Vote | None:
        """None where the member failed."""
        vote = self.ballots[member].vote
        return vote if isinstance(vote, Vote) else None


@dataclass(frozen=True, slots=True)
class Scored:
    """A split, scored once: what every figure and every plot is made of."""

    inspector: Inspector
    rows: tuple[Row, ...]
    masks: tuple[NDArray[np.bool_], ...]  # one a row; none at all unless every defect has one
    maps: Mapping[str, HeatmapStore]  # by member
    policy_maps: Mapping[str, HeatmapStore]


def evaluate(
    inspector: Inspector, samples: Sequence[Sample], *, data: str, split: str, progress: bool = False
) -> Evaluation:
    """Scores every picture with every member and decides by every policy.

    Args:
        inspector: loaded.
        samples: labelled pictures; masks where the data has them.
        data: what to call the data.
        split: what to call the samples.
        progress: shows a bar on stderr.

    Raises:
        ImageError, DataError: a picture or a mask cannot be read; nothing is left out silently.
    """
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder:
        return summarise(score(inspector, samples, Path(folder), progress=progress), data=data, split=split)


def score(
    inspector: Inspector,
    samples: Sequence[Sample],
    folder: Path,
    *,
    keep_maps: bool = False,
    progress: bool = False,
) -> Scored:
    """Scores every picture with every member, by the path that serves.

    Args:
        inspector: loaded.
        samples: labelled pictures; masks where the data has them.
        folder: for heatmaps, 4 bytes a pixel and member; to be kept as long as the result is used.
        keep_maps: also where the data has no masks to compare them with.
        progress: shows a bar on stderr.

    Raises:
        ImageError, DataError: a picture or a mask cannot be read; nothing is left out silently.
    """
    marked = [sample.mask is not None for sample in samples if sample.is_defect]
    with_masks = any(marked) and all(marked)  # defects for training may be labelled by class only
    names = list(inspector.members)
    rows: list[Row] = []
    masks: list[NDArray[np.bool_]] = []
    maps = {name: HeatmapStore(folder / f"member{i}") for i, name in enumerate(names)}
    policy_maps = {name: HeatmapStore(folder / f"policy{i}") for i, name in enumerate(inspector.policies)}

    def read(sample: Sample) -> RgbImage:
        return images.read(sample.path, inspector.file.limits)

    with ahead(read, samples) as pictures:
        for index, (sample, reading) in enumerate(_bar(pictures, len(samples), progress)):
            image = reading.result()
            size = (image.shape[0], image.shape[1])
            with inspector.meter.measure() as measurement:
                ballots = inspector.ballots(image, names)
            energy = measurement.emissions.energy_mj if measurement.emissions else None
            durations = {name: ballot.duration_ms for name, ballot in ballots.items()}
            drawn = {name: ballot.heatmap for name, ballot in ballots.items() if ballot.heatmap is not None}
            if with_masks or keep_maps:
                for name, heatmap in drawn.items():
                    maps[name].add(index, heatmap)
            if with_masks:
                masks.append(read_mask(sample, size))
                for name, policy in inspector.policies.items():
                    asked = replay({n: ballot.vote for n, ballot in ballots.items()}, policy)[1]
                    if (mean := policy_map(inspector, policy, {n: drawn[n] for n in asked if n in drawn})) is not None:
                        policy_maps[name].add(index, mean)
            light = {name: dataclasses.replace(ballot, heatmap=None) for name, ballot in ballots.items()}
            rows.append(Row(sample, size, light, shares(energy, durations)))
    return Scored(inspector, tuple(rows), tuple(masks), maps, policy_maps)


def summarise(scored: Scored, *, data: str, split: str) -> Evaluation:
    """The figures of a split that was scored.

    Args:
        scored: by `score`.
        data: what to call the data.
        split: what to call the samples.
    """
    inspector = scored.inspector
    whole = [sum(e for e in row.energy_mj.values() if e is not None) for row in scored.rows]
    return Evaluation(
        inspector=inspector.source,
        revision=inspector.revision,
        commit=inspector.commit,
        category=inspector.file.category,
        data=data,
        split=split,
        counts=dict(Counter(row.sample.label for row in scored.rows)),
        members={name: _member_figures(scored, name) for name in inspector.members},
        policies={name: policy_figures(scored, policy) for name, policy in inspector.policies.items()},
        default_policy=inspector.file.default_policy,
        energy_mj_per_image=_mean([value for value in whole if value > 0]),
        hardware=hardware(),
        country=inspector.meter.country,
        versions=versions(),
    )


def counting_threshold(inspector: Inspector, name: str) -> ThresholdName:
    """The threshold that a member's counts are at: the default policy's, or `far`, which every member has."""
    wanted = inspector.policy().rule.threshold
    return next((key for key in inspector.members[name].calibration.thresholds if key == wanted), "far")


def policy_map(inspector: Inspector, policy: Policy, drawn: Maps) -> NDArray[np.float32] | None:
    """The mean of the heatmaps of a policy's members, each on its calibrated scale; None without any."""
    scales = {
        name: scale
        for name in policy.rule.members
        if name in drawn and (scale := inspector.members[name].calibration.heatmap) is not None
    }
    return mean_map({name: drawn[name] for name in scales}, scales) if scales else None


def policy_score(inspector: Inspector, policy: Policy, votes: Mapping[str, Vote]) -> float | None:
    """How far the policy is from `defect`: >= 0 exactly when enough members reach their threshold.

    The margin of the member that tips the count, in interquartile ranges of its good scores; of a weighted rule the
    mean probability of those that voted, less the rule's. None for a cascade and for a policy with exceptions: pictures
    that were decided on different grounds have no common scale.
    """
    rule = policy.rule
    if isinstance(rule, CascadeRule) or policy.exceptions:
        return None
    if isinstance(rule, WeightedRule):
        said = {name: votes[name].probability or 0.0 for name in rule.members if name in votes}
        weights = math.fsum(rule.weights[name] for name in said)
        return math.fsum(rule.weights[name] * share for name, share in said.items()) / weights - rule.probability
    margins = sorted(
        inspector.members[name].calibration.margin(votes[name].score, rule.threshold)
        for name in rule.members
        if name in votes
    )
    return margins[-min(votes_needed(rule, len(margins)), len(margins))]


def cost_ms(ballots: Mapping[str, Ballot], asked: Iterable[str]) -> float:
    """How long these members alone would have taken: a trunk that one of them needs runs whole.

    Args:
        ballots: of all members, asked at once.
        asked: some of them.
    """
    asked = set(asked)
    passes = {ballots[name].inputs for name in asked}
    own = sum(ballots[name].duration_ms - ballots[name].shared_ms for name in asked)
    return own + sum(ballot.shared_ms for ballot in ballots.values() if ballot.inputs in passes)


def _member_figures(scored: Scored, name: str) -> Figures:
    rows = scored.rows
    voted = [(row.sample.is_defect, vote.score) for row in rows if (vote := row.vote(name)) is not None]
    labels, scores = [defect for defect, _ in voted], [score for _, score in voted]
    thresholds = scored.inspector.members[name].calibration.thresholds

    def counts_at(value: float) -> Counts:
        found = confusion(labels, ["defect" if score >= value else "ok" for score in scores])
        return Counts(tp=found.tp, fp=found.fp, fn=found.fn, tn=found.tn, failed=len(rows) - len(voted))

    at = {str(key): counts_at(threshold.value) for key, threshold in thresholds.items()}
    key = counting_threshold(scored.inspector, name)
    return Figures(
        image_auroc=image_auroc(labels, scores) if voted else None,
        **_pixel_figures(scored, scored.maps[name]),
        threshold=key,
        **at[key].model_dump(),
        at=at,
        latency_ms=_spread([row.ballots[name].duration_ms for row in rows]),
        energy_mj=_mean([e for row in rows if (e := row.energy_mj[name]) is not None]),
    )


def policy_figures(scored: Scored, policy: Policy) -> Figures:
    """Of the inspector under one policy, as it is for the category."""
    labels, verdicts, durations = [], [], []
    energies: list[float] = []
    margins: list[tuple[bool, float]] = []
    failed = 0
    for row in scored.rows:
        votes = {name: ballot.vote for name, ballot in row.ballots.items()}
        decision, asked = replay(votes, policy)
        labels.append(row.sample.is_defect)
        verdicts.append(decision.verdict)
        cast = {n: v for n in asked if n in policy.rule.members and isinstance(v := votes[n], Vote)}
        failed += not cast
        if cast and (margin := policy_score(scored.inspector, policy, cast)) is not None:
            margins.append((row.sample.is_defect, margin))
        durations.append(cost_ms(row.ballots, asked))
        if parts := [e for e in row.energy_mj.values() if e is not None]:
            whole = sum(ballot.duration_ms for ballot in row.ballots.values())
            energies.append(sum(parts) * durations[-1] / whole if whole > 0 else 0.0)
    found = confusion(labels, verdicts)
    return Figures(
        image_auroc=image_auroc([d for d, _ in margins], [margin for _, margin in margins]) if margins else None,
        **_pixel_figures(scored, scored.policy_maps.get(policy.name)),
        threshold=policy.rule.threshold,
        tp=found.tp,
        fp=found.fp,
        fn=found.fn,
        tn=found.tn,
        review=found.review,
        failed=failed,
        latency_ms=_spread(durations),
        energy_mj=_mean(energies),
    )


def _pixel_figures(scored: Scored, maps: HeatmapStore | None) -> dict[str, float | None]:
    """None unless there is a mask and a heatmap for every picture: a figure over some of them would flatter."""
    if maps is None or not scored.masks or len(maps) != len(scored.rows):
        return {"pixel_auroc": None, "au_pro": None}
    pixels = pixel_scores(scored.masks, maps.read())
    return {"pixel_auroc": pixels.area(np.ones(pixels.defect.size)), "au_pro": pixels.area(pixels.weight, limit=0.3)}


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median=float(np.median(values)), p95=float(np.percentile(values, 95)))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _bar(pictures: Iterable[Picture], count: int, progress: bool) -> Iterable[Picture]:
    if not progress:
        return pictures
    from tqdm import tqdm

    bar: Iterable[Picture] = tqdm(pictures, total=count, desc="evaluating", unit="img", leave=False, disable=None)
    return bar


@functools.cache
def hardware() -> str:
    """Processor and, where it is used, GPU. Asked once in a process: it takes 1.3 s."""
    import torch
    from cpuinfo import get_cpu_info

    name = get_cpu_info().get("brand_raw") or platform.machine()
    return f"{name}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else name


def versions() -> dict[str, str]:
    """Of what decides a score."""
    import timm
    import torch

    return {"vigie": __version__, "torch": torch.__version__, "timm": timm.__version__}
