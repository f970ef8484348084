"""An inspector on labelled pictures: every member and every policy, by the path that serves (`Inspector.ballots`)."""

import functools
import platform
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from anomaly import __version__, images
from anomaly.datasets import Sample, read_mask
from anomaly.emissions import shares
from anomaly.figures import Counts, Figures, Spread
from anomaly.inspector import Ballot, Inspector
from anomaly.metrics import au_pro, confusion, image_auroc, pixel_auroc
from anomaly.policy import Decision, Policy, Vote, next_step, votes_needed
from anomaly.render import mean_map

Maps = Mapping[str, NDArray[np.float32]]


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


@dataclass(frozen=True, slots=True)
class _Row:
    """One picture."""

    defect: bool
    ballots: dict[str, Ballot]
    energy_mj: dict[str, float | None]  # each member's share


@dataclass(slots=True)
class _Maps:
    """Heatmaps of one member or policy, on disk: all of a category's would not fit into memory."""

    path: Path
    shapes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, heatmap: NDArray[np.float32]) -> None:
        self.shapes.append((heatmap.shape[0], heatmap.shape[1]))
        with self.path.open("ab") as file:
            heatmap.tofile(file)

    def read(self) -> list[NDArray[np.float32]]:
        flat = np.memmap(self.path, dtype=np.float32, mode="r")
        ends = np.cumsum([height * width for height, width in self.shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), self.shapes, strict=True)]


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
    marked = [sample.mask is not None for sample in samples if sample.is_defect]
    with_masks = any(marked) and all(marked)  # defects for training may be labelled by class only
    names = list(inspector.members)
    rows: list[_Row] = []
    masks: list[NDArray[np.bool_]] = []
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder:
        maps = {name: _Maps(Path(folder, f"member{i}")) for i, name in enumerate(names)}
        mean_maps = {name: _Maps(Path(folder, f"policy{i}")) for i, name in enumerate(inspector.policies)}
        for sample in _bar(samples, progress):
            image = images.read(sample.path, inspector.file.limits)
            with inspector.meter.measure() as measurement:
                ballots = inspector.ballots(image, names)
            energy = measurement.emissions.energy_mj if measurement.emissions else None
            durations = {name: ballot.duration_ms for name, ballot in ballots.items()}
            drawn = {name: b.heatmap for name, b in ballots.items() if b.heatmap is not None}
            if with_masks:
                masks.append(read_mask(sample, (image.shape[0], image.shape[1])))
                for name, heatmap in drawn.items():
                    maps[name].add(heatmap)
                for name, policy in inspector.policies.items():
                    if (mean := policy_map(inspector, policy, drawn)) is not None:
                        mean_maps[name].add(mean)
            light = {n: Ballot(b.vote, b.duration_ms, class_shares=b.class_shares) for n, b in ballots.items()}
            rows.append(_Row(sample.is_defect, light, shares(energy, durations)))
        default = inspector.policy()
        members = {name: _member_figures(inspector, name, default, rows, masks, maps[name]) for name in names}
        policies = {
            name: _policy_figures(inspector, policy, rows, masks, mean_maps[name])
            for name, policy in inspector.policies.items()
        }
    whole = [sum(e for e in row.energy_mj.values() if e is not None) for row in rows]
    return Evaluation(
        inspector=inspector.source,
        revision=inspector.revision,
        commit=inspector.commit,
        category=inspector.file.category,
        data=data,
        split=split,
        counts=dict(Counter(sample.label for sample in samples)),
        members=members,
        policies=policies,
        default_policy=inspector.file.default_policy,
        energy_mj_per_image=_mean([value for value in whole if value > 0]),
        hardware=hardware(),
        country=inspector.meter.country,
        versions=versions(),
    )


def policy_map(inspector: Inspector, policy: Policy, drawn: Maps) -> NDArray[np.float32] | None:
    """The mean of the heatmaps of a policy's members, each on its calibrated scale; None without any."""
    scales = {
        name: scale
        for name in policy.rule.members
        if name in drawn and (scale := inspector.members[name].calibration.heatmap) is not None
    }
    return mean_map({name: drawn[name] for name in scales}, scales) if scales else None


def policy_score(inspector: Inspector, policy: Policy, votes: Mapping[str, Vote]) -> float:
    """How far the policy is from `defect`: >= 0 exactly when enough members reach their threshold.

    The margin of the member that tips the count, in interquartile ranges of its good scores.
    """
    margins = sorted(
        inspector.members[name].calibration.margin(votes[name].score, policy.rule.threshold)
        for name in policy.rule.members
        if name in votes
    )
    return margins[-votes_needed(policy.rule, len(margins))]


def _member_figures(
    inspector: Inspector, name: str, policy: Policy, rows: list[_Row], masks: list[NDArray[np.bool_]], maps: _Maps
) -> Figures:
    voted = [(row, vote) for row in rows if isinstance(vote := row.ballots[name].vote, Vote)]
    labels = [row.defect for row, _ in voted]
    scores = [vote.score for _, vote in voted]
    thresholds = inspector.members[name].calibration.thresholds

    def counts_at(key: str, value: float) -> Counts:
        found = confusion(labels, ["defect" if score >= value else "ok" for score in scores])
        return Counts(tp=found.tp, fp=found.fp, fn=found.fn, tn=found.tn, failed=len(rows) - len(voted))

    at = {key: counts_at(key, threshold.value) for key, threshold in thresholds.items()}
    key = policy.rule.threshold if policy.rule.threshold in at else "far"  # which every member has
    return Figures(
        image_auroc=image_auroc(labels, scores) if voted else None,
        **_pixel_figures(masks, maps, len(rows)),
        threshold=key,
        **at[key].model_dump(),
        at={str(k): v for k, v in at.items()},
        latency_ms=_spread([row.ballots[name].duration_ms for row in rows]),
        energy_mj=_mean([e for row in rows if (e := row.energy_mj[name]) is not None]),
    )


def _policy_figures(
    inspector: Inspector, policy: Policy, rows: list[_Row], masks: list[NDArray[np.bool_]], maps: _Maps
) -> Figures:
    labels, verdicts, scored = [], [], []
    durations, energies = [], []
    for row in rows:
        votes = {name: ballot.vote for name, ballot in row.ballots.items()}
        decision = next_step(votes, policy)
        assert isinstance(decision, Decision)  # every member was asked
        labels.append(row.defect)
        verdicts.append(decision.verdict)
        cast = {n: v for n in policy.rule.members if isinstance(v := votes[n], Vote)}
        if cast:
            scored.append((row.defect, policy_score(inspector, policy, cast)))
        asked = {*policy.rule.members, *policy.advisory}  # what an inspection runs
        durations.append(sum(row.ballots[name].duration_ms for name in asked))
        energies.append([e for name in asked if (e := row.energy_mj[name]) is not None])
    found = confusion(labels, verdicts)
    return Figures(
        image_auroc=image_auroc([defect for defect, _ in scored], [score for _, score in scored]) if scored else None,
        **_pixel_figures(masks, maps, len(rows)),
        threshold=policy.rule.threshold,
        tp=found.tp,
        fp=found.fp,
        fn=found.fn,
        tn=found.tn,
        review=found.review,
        failed=len(rows) - len(scored),
        latency_ms=_spread(durations),
        energy_mj=_mean([sum(parts) for parts in energies if parts]),
    )


def _pixel_figures(masks: list[NDArray[np.bool_]], maps: _Maps, count: int) -> dict[str, Any]:
    """None unless there is a mask and a heatmap for every picture: a figure over some of them would flatter."""
    if not masks or len(maps.shapes) != count:
        return {"pixel_auroc": None, "au_pro": None}
    heatmaps = maps.read()
    return {"pixel_auroc": pixel_auroc(masks, heatmaps), "au_pro": au_pro(masks, heatmaps)}


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median=float(np.median(values)), p95=float(np.percentile(values, 95)))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _bar(samples: Sequence[Sample], progress: bool) -> Iterable[Sample]:
    if not progress:
        return samples
    from tqdm import tqdm

    bar: Iterable[Sample] = tqdm(samples, desc="evaluating", unit="img", leave=False, disable=None)
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
