"""A released ensemble: image -> votes -> decision -> report. The main path of the product."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from anomaly import __version__
from anomaly.backends import TORCH, Backend
from anomaly.boxes import BoxSettings, find_boxes
from anomaly.calibration import Calibration
from anomaly.detectors import Boxes, Detector, DetectorOutput
from anomaly.detectors.base import as_tensor, resize
from anomaly.emissions import Emissions, EmissionsMeter, shares
from anomaly.errors import InspectionError, PolicyError, UnknownPolicyError
from anomaly.explain import explain
from anomaly.folding import for_inference
from anomaly.images import ImageLimits, RgbImage, digest
from anomaly.policy import Cut, Decision, Failure, Policy, Vote, cast_vote, check_policy, next_step
from anomaly.policy_check import least_score
from anomaly.report import BoxRow, MemberVote, Report
from anomaly.runners import use_backend

INSPECTOR_FILE = "inspector.json"

_ONE_PLACE = 0.5  # IoU from which two boxes of a report mark the same place


class MemberRef(BaseModel):
    """One detector, at one commit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    repo: str
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of its model.safetensors


class InspectorFile(BaseModel):
    """inspector.json: what is released."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    category: str
    labels: tuple[str, ...]  # "good" first, then the defect types that were seen
    members: tuple[MemberRef, ...] = Field(min_length=1)
    policies: tuple[Policy, ...] = Field(min_length=1)
    default_policy: str
    limits: ImageLimits = ImageLimits()
    boxes: BoxSettings = BoxSettings()  # of what heatmaps show


@dataclass(frozen=True, slots=True)
class Member:
    """A detector that is ready to vote."""

    ref: MemberRef
    detector: Detector
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one member gave: a vote or a failure, and what it drew."""

    vote: Vote | Failure
    duration_ms: float
    heatmap: NDArray[np.float32] | None = None  # (H, W), the detector's own units
    class_shares: dict[str, float] | None = None
    boxes: Boxes | None = None  # a trained localiser's: all of them, also those below the threshold of pixels
    inputs: str = ""  # of the detector: equal for those that share a trunk pass
    shared_ms: float = 0.0  # the part of `duration_ms` that is its part of that pass


@dataclass(frozen=True, slots=True)
class Passes:
    """What was computed of one picture for several members."""

    resized: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (1, 3, H, W) in [0, 1], by (H, W)
    inputs: dict[str, dict[int, Tensor]] = field(default_factory=dict)  # what trunks gave, by `Detector.input_key`


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one image gave."""

    report: Report
    heatmaps: Mapping[str, NDArray[np.float32]]  # by member, (H, W) at the size of the image, in its own units


class Inspector:
    """Members, policies and the meter that measures them. Load one with `load_inspector`."""

    def __init__(
        self,
        file: InspectorFile,
        members: Sequence[Member],
        *,
        source: str,
        revision: str,
        commit: str,
        meter: EmissionsMeter,
        device: str = "cpu",
        backend: Backend = TORCH,
    ) -> None:
        self.file = file
        self.backend = backend  # that was asked for; where it does not run, `warnings` says so
        ready, self.warnings = use_backend(for_inference([member.detector for member in members]), backend, device)
        self.members = {m.ref.name: replace(m, detector=detector) for m, detector in zip(members, ready, strict=True)}
        self.policies = {policy.name: policy.for_category(file.category) for policy in file.policies}
        self.source, self.revision, self.commit = source, revision, commit
        self.meter = meter
        self._device = device
        calibrations = {name: member.calibration for name, member in self.members.items()}
        heads = {name: _own_types(member.detector, file.category) for name, member in self.members.items()}
        types = {name: tuple(own.values()) for name, own in heads.items() if own}
        for policy in file.policies:
            check_policy(policy, calibrations, category=file.category, types=types)
        if file.default_policy not in self.policies:
            raise PolicyError(f"default_policy {file.default_policy!r} is not among {sorted(self.policies)}")

    def policy(self, name: str | None = None) -> Policy:
        """The policy of that name, the default one without a name. Raises PolicyError for an unknown one."""
        try:
            return self.policies[name or self.file.default_policy]
        except KeyError:
            raise UnknownPolicyError(f"unknown policy {name!r}; this inspector has {sorted(self.policies)}") from None

    def inspect(
        self, image: RgbImage, policy: str | None = None, *, revision: str | None = None, warnings: Sequence[str] = ()
    ) -> Inspection:
        """Decides on one picture.

        Args:
            image: uint8 (H, W, 3) RGB, as `images.read` returns it.
            policy: name of one of the inspector's policies.
            revision: what to write into the report as the revision asked for, if another name led to this commit.
            warnings: to write into the report.

        Raises:
            PolicyError: unknown policy.
        """
        rule = self.policy(policy)
        started = time.perf_counter()
        ballots: dict[str, Ballot] = {}
        passes = Passes()
        with self.meter.measure() as measurement:
            step = next_step({}, rule)
            while not isinstance(step, Decision):
                ballots |= self.ballots(image, step.members, passes)
                votes = {name: ballot.vote for name, ballot in ballots.items()}
                step = next_step(votes, rule)
        if measurement.emissions is None:
            raise InspectionError("the emissions of this inspection were not recorded")
        duration_ms = (time.perf_counter() - started) * 1e3
        calibrations = {name: member.calibration for name, member in self.members.items()}
        report = Report(
            decision=step.verdict,
            reason=step.reason,
            explanation=explain(votes, rule, step, calibrations),
            category=self.file.category,
            inspector=self.source,
            revision=revision or self.revision,
            commit=self.commit,
            policy=rule.name,
            image_width=image.shape[1],
            image_height=image.shape[0],
            image_sha256=digest(image),
            votes=self._rows(ballots, step, rule, measurement.emissions),
            emissions=measurement.emissions,
            duration_ms=duration_ms,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            version=__version__,
            warnings=(*self.warnings, *warnings),
        )
        heatmaps = {name: ballot.heatmap for name, ballot in ballots.items() if ballot.heatmap is not None}
        return Inspection(report, heatmaps)

    @torch.no_grad()  # not inference_mode: Grad-CAM needs a gradient of what the network gave
    def ballots(self, image: RgbImage, names: Collection[str], passes: Passes | None = None) -> dict[str, Ballot]:
        """Runs these members; a trunk that several stand on runs once.

        Args:
            image: uint8 (H, W, 3) RGB.
            names: of members.
            passes: what was computed of this very image before; what is new is added.

        Returns:
            A ballot for each, whatever happens: a crash or a score that is not finite is a Failure.
        """
        passes = Passes() if passes is None else passes
        groups: dict[str, list[Member]] = {}
        for name in names:
            groups.setdefault(self.members[name].detector.input_key(), []).append(self.members[name])
        ballots: dict[str, Ballot] = {}
        for key, members in groups.items():
            started = time.perf_counter()
            layers = frozenset().union(*(member.detector.layers for member in members))
            try:
                if not layers <= passes.inputs.get(key, {}).keys():
                    resized = self._resized(image, members[0].detector.config.input_size, passes)
                    passes.inputs[key] = members[0].detector.inputs(resized, layers)
            except Exception as error:  # whatever happens in a network, it is no vote for ok
                failed = Failure(members[0].ref.name, f"the trunk failed: {_one_line(error)}")
                ballots |= {m.ref.name: Ballot(Failure(m.ref.name, failed.reason), 0.0) for m in members}
                continue
            shared_ms = (time.perf_counter() - started) * 1e3 / len(members)
            for member in members:
                ballot = self._ballot(member, passes.inputs[key], image, shared_ms)
                ballots[member.ref.name] = replace(ballot, inputs=key, shared_ms=shared_ms)
        return {name: ballots[name] for name in names}

    def _resized(self, image: RgbImage, size: tuple[int, int], passes: Passes) -> Tensor:
        whole = (image.shape[0], image.shape[1])
        if whole not in passes.resized:
            passes.resized[whole] = as_tensor(image, self._device)
        if size not in passes.resized:
            passes.resized[size] = resize(passes.resized[whole], size)
        return passes.resized[size]

    def _ballot(self, member: Member, inputs: Mapping[int, Tensor], image: RgbImage, shared_ms: float) -> Ballot:
        started = time.perf_counter()
        name = member.ref.name

        def duration_ms() -> float:
            return shared_ms + (time.perf_counter() - started) * 1e3

        try:
            output = member.detector.predict_from(inputs, (image.shape[0], image.shape[1]))
            score = float(output.scores[0])
            heatmap = None if output.heatmaps is None else output.heatmaps[0].float().cpu().numpy()
            class_shares = _class_shares(member.detector, output, self.file.category)
            boxes = self._boxes(member, output, heatmap)
        except Exception as error:  # whatever happens in a network, it is no vote for ok
            return Ballot(Failure(name, f"it crashed: {_one_line(error)}"), duration_ms())
        if not math.isfinite(score) or (heatmap is not None and not np.isfinite(heatmap).all()):
            return Ballot(Failure(name, f"its score or heatmap is not finite (score {score})"), duration_ms())
        vote = cast_vote(name, score, member.calibration, class_shares)
        return Ballot(vote, duration_ms(), heatmap, class_shares, boxes)

    def _boxes(self, member: Member, output: DetectorOutput, heatmap: NDArray[np.float32] | None) -> Boxes | None:
        """What a detector marks itself, or else where its heatmap reaches the calibrated threshold of pixels."""
        if output.boxes is not None:
            return output.boxes[0]
        pixel = member.calibration.pixel
        return None if heatmap is None or pixel is None else find_boxes(heatmap, pixel.value, self.file.boxes)

    def _rows(
        self, ballots: Mapping[str, Ballot], decision: Decision, policy: Policy, emissions: Emissions
    ) -> tuple[MemberVote, ...]:
        energy = shares(emissions.energy_mj, {name: ballot.duration_ms for name, ballot in ballots.items()})
        rows = []
        for name, ballot in ballots.items():
            ref, vote = self.members[name].ref, ballot.vote
            cast = vote if isinstance(vote, Vote) else None
            threshold_name, threshold = _line(decision.cuts[name], self.members[name].calibration)
            rows.append(
                MemberVote(
                    member=name,
                    kind=self.members[name].detector.kind,
                    repo=ref.repo,
                    commit=ref.commit,
                    verdict=decision.verdicts.get(name, "failed"),
                    counted=name in policy.members,
                    score=cast.score if cast else None,
                    threshold_name=threshold_name,
                    threshold=threshold,
                    p_value=cast.p_value if cast else None,
                    probability=cast.probability if cast else None,
                    class_shares=ballot.class_shares,
                    boxes=_box_rows(ballot.boxes, self.members[name].calibration, self.file.category),
                    duration_ms=ballot.duration_ms,
                    energy_share_mj=energy[name],
                    error=vote.reason if isinstance(vote, Failure) else None,
                )
            )
        return tuple(rows)


def _own_types(detector: Detector, category: str) -> dict[int, str]:
    """The classes of this category that a type head tells apart, by their place; none for a detector without one.

    A network for several categories names its classes "category/type"; what cannot be on this part is left out.
    """
    classes: tuple[str, ...] = getattr(detector.config, "classes", ())
    own = {i: name.removeprefix(f"{category}/") for i, name in enumerate(classes)}
    return {i: name for i, name in own.items() if "/" not in name}


def _line(cut: Cut, calibration: Calibration) -> tuple[str, float]:
    """The name and the score of a cut; of `far`, where every score or none reaches the cut."""
    least = least_score(cut, calibration)
    if least is None or math.isinf(least):
        return "far", calibration.thresholds["far"].value
    return str(cut), least


def _class_shares(detector: Detector, output: DetectorOutput, category: str) -> dict[str, float] | None:
    """Softmax over the classes of this category."""
    own = _own_types(detector, category)
    if output.class_logits is None or not own:
        return None
    shares = output.class_logits[0][list(own)].softmax(dim=0)
    return dict(zip(own.values(), shares.tolist(), strict=True))


def _box_rows(boxes: Boxes | None, calibration: Calibration, category: str) -> tuple[BoxRow, ...]:
    """Those a report has: a trained localiser also gives boxes that are weaker than places on good parts, and several
    types for one place, of which the likeliest is told."""
    if boxes is None or calibration.pixel is None:
        return ()
    rows = [
        BoxRow(x0=x0, y0=y0, x1=x1, y1=y1, score=score, label=label.removeprefix(f"{category}/"))
        for (x0, y0, x1, y1), score, label in zip(boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.labels, strict=True)
        if score >= calibration.pixel.value
    ]
    if len({row.label for row in rows}) < 2:
        return tuple(rows)
    from torchvision.ops import nms

    xyxy = torch.tensor([(row.x0, row.y0, row.x1, row.y1) for row in rows])
    kept = nms(xyxy, torch.tensor([row.score for row in rows]), _ONE_PLACE)
    return tuple(rows[i] for i in kept.tolist())


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
