"""What all members say of the same held-out pictures: what policies are generated from.

calibration.json keeps sorted scores only; which of them belong to one picture is asked of the detectors again, on the
pictures that the manifest of a run says were held out for calibration.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from tqdm import tqdm

from anomaly import hub, images
from anomaly.calibration import Calibration, calibrate
from anomaly.datasets import GOOD, Sample, read_dataset
from anomaly.errors import DataError
from anomaly.figures import Figures, ModelMetrics
from anomaly.hub_data import local_data
from anomaly.inspector import Inspector
from anomaly.policy import Failure, Policy, Verdict, Vote, replay
from training.finish import RUN, manifest_path
from training.manifest import Manifest, SplitName

LayoutChoice = Literal["auto", "folder", "mvtec", "visa"]
Votes = Mapping[str, Vote | Failure]


@dataclass(frozen=True, slots=True)
class Part:
    """One held-out picture and what every member says of it."""

    label: str
    votes: Votes
    group: str | None = None  # parts of one group are not told apart as independent

    @property
    def is_defect(self) -> bool:
        return self.label != GOOD


@dataclass(frozen=True, slots=True)
class Price:
    """What it costs to ask members, in `unit` an image.

    A trunk that several stand on runs once: the cheapest of them is taken to be nothing but the trunk.
    """

    each: Mapping[str, float]  # by member, asked alone
    trunk: Mapping[str, str]  # member -> fingerprint; none for a member without a trunk
    unit: str = "mJ"

    def of(self, asked: Collection[str]) -> float:
        """Of asking these members for one image."""
        total, passes = 0.0, dict[str, float]()
        for name in asked:
            key = self.trunk.get(name)
            if key is None:
                total += self.each[name]
                continue
            passes[key] = min(cost for other, cost in self.each.items() if self.trunk.get(other) == key)
            total += self.each[name] - passes[key]
        return total + sum(passes.values())


@dataclass(frozen=True, slots=True)
class Joint:
    """The held-out pictures, and what the members cost."""

    parts: tuple[Part, ...]
    price: Price

    @property
    def good(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if not part.is_defect)

    @property
    def defects(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.is_defect)


@dataclass(frozen=True, slots=True)
class Tally:
    """What a policy does with held-out pictures."""

    missed: int  # defects that pass as ok
    defects: int
    false_alarms: int  # good parts that are rejected
    good: int
    reviews: int  # of both
    cost: float  # mean an image, in the unit of the price

    @property
    def f1(self) -> float:
        """Of rejecting; a review is no hit."""
        hits = self.defects - self.missed
        return 2 * hits / (2 * hits + self.missed + self.false_alarms) if hits else 0.0


def tally(policy: Policy, joint: Joint) -> Tally:
    """Decides on every part by `next_step` itself."""
    verdicts: list[tuple[bool, Verdict]] = []
    cost = 0.0
    for part in joint.parts:
        decision, asked = replay(part.votes, policy)
        verdicts.append((part.is_defect, decision.verdict))
        cost += joint.price.of(asked)
    return Tally(
        missed=verdicts.count((True, "ok")),
        defects=sum(defect for defect, _ in verdicts),
        false_alarms=verdicts.count((False, "defect")),
        good=sum(not defect for defect, _ in verdicts),
        reviews=sum(verdict == "review" for _, verdict in verdicts),
        cost=cost / max(1, len(verdicts)),
    )


def left_out(joint: Joint, calibrations: Mapping[str, Calibration]) -> Joint:
    """The same, each defect at `safe` thresholds that were set without it.

    On the pictures it was set on, `safe` misses nothing by construction. Only the defect with a member's lowest score
    moves that member's threshold.
    """
    without = {
        name: calibrate(c.good_scores, c.defect_scores[1:], split_hash=c.split_hash, far=_far(c)).thresholds
        for name, c in calibrations.items()
        if len(c.defect_scores) > 1
    }

    def apart(name: str, vote: Vote | Failure) -> Vote | Failure:
        if isinstance(vote, Failure) or name not in without or vote.score > calibrations[name].defect_scores[0]:
            return vote
        return replace(vote, thresholds={**vote.thresholds, "safe": without[name]["safe"].value})

    parts = tuple(
        replace(part, votes={name: apart(name, vote) for name, vote in part.votes.items()}) if part.is_defect else part
        for part in joint.parts
    )
    return replace(joint, parts=parts)


def _far(calibration: Calibration) -> float:
    level = calibration.thresholds["far"].level
    return 0.5 if level is None else level


def ask(
    inspector: Inspector, samples: Sequence[Sample], groups: Mapping[str, str | None] | None = None
) -> tuple[Part, ...]:
    """Scores pictures with every member, as serving does; `groups` is by the pictures' relative paths."""
    parts = []
    for sample in tqdm(samples, desc="asking", unit="img", leave=False, disable=None):
        image = images.read(sample.path, inspector.file.limits)
        ballots = inspector.ballots(image, list(inspector.members))
        votes = {name: ballot.vote for name, ballot in ballots.items()}
        parts.append(Part(sample.label, votes, (groups or {}).get(sample.relative)))
    return tuple(parts)


def price(inspector: Inspector, figures: Mapping[str, Figures | None]) -> Price:
    """What asking each member costs, from its run's own figures on test.

    Args:
        inspector: whose members may share trunks.
        figures: by member. Where an energy is not known, the time of all counts instead.
    """
    trunks = {
        name: member.detector.input_key()
        for name, member in inspector.members.items()
        if member.detector.trunk is not None
    }
    known = {name: found.energy_mj for name, found in figures.items() if found is not None and found.energy_mj}
    if known.keys() == inspector.members.keys():
        return Price(known, trunks)
    times = {name: found.latency_ms.median for name, found in figures.items() if found is not None}
    if times.keys() == inspector.members.keys():
        return Price(times, trunks, "ms")
    return Price(dict.fromkeys(inspector.members, 1.0), trunks, "members")


def figures_of(metrics: Path, category: str) -> Figures | None:
    """On test, from the metrics.json of a run; None where there are none."""
    if not metrics.is_file():
        return None
    found = ModelMetrics.model_validate_json(metrics.read_bytes())
    return found.by_category[category].test if found.by_category else found.test


def split_samples(
    run: Path, category: str, split: SplitName, data: Path | str | None = None, layout: LayoutChoice = "auto"
) -> list[Sample]:
    """The pictures of a split of a finished run, by its manifest; every file is checked to be the same.

    Args:
        run: its folder.
        category: whose pictures.
        split: such as "calibrate".
        data: where the pictures are now; by default where they were.
        layout: of the data; `auto` takes the run's.

    Raises:
        DataError: there are none, or one of them is another picture now.
    """
    recorded = json.loads((run / RUN).read_text())
    root, _ = local_data(str(data or recorded["data"]))
    chosen = recorded["layout"] if layout == "auto" else layout
    manifest = Manifest.model_validate_json(manifest_path(run, category).read_bytes())
    return named_samples(manifest, split, root, category, chosen, str(run))


def groups_in(manifest: Manifest) -> dict[str, str | None]:
    """By relative path."""
    return {entry.path: entry.group for entry in manifest.entries}


def named_samples(
    manifest: Manifest, split: SplitName, root: Path, category: str, layout: LayoutChoice, run: str
) -> list[Sample]:
    """The pictures that a manifest names. Raises DataError as `split_samples`; `run` is what to call whose it is."""
    by_path = {sample.relative: sample for sample in read_dataset(root, category, layout).samples}
    kept_apart = {entry.path: entry.sha256 for entry in manifest.entries if entry.split == split}
    if not kept_apart:
        reason = "to measure the release on; train with a test part" if split == "test" else "for that"
        raise DataError(f"{run} kept no {split} pictures apart {reason}")
    for path, sha256 in kept_apart.items():
        if path not in by_path or hashlib.sha256(by_path[path].path.read_bytes()).hexdigest() != sha256:
            raise DataError(
                f"{root}: {path} is not the {split} picture that {run} kept apart; give --data with the pictures of "
                "the run, or train again on this data"
            )
    return [by_path[path] for path in kept_apart]


def manifest_of(inspector: Inspector, file: Path) -> Manifest:
    """Reads the manifest.json of a run that an inspector was made from; DataError for that of another split."""
    if not file.is_file():
        raise DataError(f"{file} is no file: give the manifest.json of a run of this inspector")
    try:
        found = Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise DataError(f"{file} is no manifest of a run: {error.errors()[0]['msg']}") from error
    for name, member in inspector.members.items():
        if member.calibration.split_hash != found.split_hash:
            raise DataError(
                f"{file} is of split {found.split_hash[:12]}, {name} was calibrated on "
                f"{member.calibration.split_hash[:12]}: give the manifest of a run of this inspector"
            )
    return found


def inspector_samples(
    inspector: Inspector, manifest: Path, split: SplitName, data: Path | str, layout: LayoutChoice = "auto"
) -> list[Sample]:
    """The pictures of a split of a released inspector, which keeps no list of them itself.

    Args:
        inspector: loaded.
        manifest: manifest.json of a run that it was made from.
        split: such as "test".
        data: where the pictures are.
        layout: of the data.

    Raises:
        DataError: the manifest is of another split, or one of the pictures is another now.
    """
    root, _ = local_data(str(data))
    known = manifest_of(inspector, manifest)
    return named_samples(known, split, root, inspector.file.category, layout, str(manifest))


def joint_of(
    inspector: Inspector,
    place: hub.Source,
    manifest: Path,
    data: Path | str | None,
    layout: LayoutChoice = "auto",
    split: SplitName = "calibrate",
) -> Joint:
    """What the members of a released inspector say of the pictures of a split.

    Args:
        inspector: loaded.
        place: where it is; its members' figures are beside it.
        manifest: manifest.json of a run of its split.
        data: where the pictures are.
        layout: of the data.
        split: whose pictures.

    Raises:
        DataError: the manifest is of another split, or the pictures are not those that it names.
    """
    if data is None:
        raise DataError("--manifest goes with --data: where the pictures that it names are")
    samples = inspector_samples(inspector, manifest, split, data, layout)
    category = inspector.file.category
    figures = {}
    for ref in inspector.file.members:
        folder = hub.download(place.sibling(ref.repo), ref.commit, ["metrics.json"])
        figures[ref.name] = figures_of(folder / "metrics.json", category)
    groups = groups_in(manifest_of(inspector, manifest))
    return Joint(ask(inspector, samples, groups), price(inspector, figures))


def figures_counted(samples: Sequence[Sample]) -> dict[str, int]:
    """Label -> pictures, as in `DataFigures.counts`: good first."""
    counts = Counter(sample.label for sample in samples)
    return dict(sorted(counts.items(), key=lambda item: (item[0] != GOOD, item[0])))
