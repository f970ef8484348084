"""What `evaluate` says of an inspector: figures of the path that serves, counted and recounted."""

import dataclasses
import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_make_policies import NAMES

from anomaly import images
from anomaly.calibration import ThresholdName
from anomaly.datasets import Sample, read_dataset, read_mask
from anomaly.evaluation import Evaluation, evaluate, policy_map, policy_score, score
from anomaly.figures import Figures
from anomaly.inspector import Inspection, Inspector, Member
from anomaly.loading import load_inspector
from anomaly.metrics import au_pro, image_auroc, pixel_auroc
from anomaly.policy import Policy, ReviewBand, Rule, Vote, next_step

FIGURES = ["image_auroc", "pixel_auroc", "au_pro", "tp", "fp", "fn", "tn", "review", "latency_ms", "energy_mj"]
DRAWS_NOTHING = ("mahalanobis_global", "classical")  # and what begins so


@pytest.fixture(scope="module")
def inspector(trained: Path) -> Inspector:
    return load_inspector(str(trained), "v1")


@pytest.fixture(scope="module")
def samples(cables: Path) -> list[Sample]:
    return list(read_dataset(cables, "cable").test)


@pytest.fixture(scope="module")
def found(inspector: Inspector, samples: list[Sample]) -> Evaluation:
    return evaluate(inspector, samples, data="cables", split="test")


@pytest.fixture(scope="module")
def served(inspector: Inspector, samples: list[Sample]) -> dict[str, list[Inspection]]:
    """Policy -> what every picture gets when it is inspected."""
    pictures = [images.read(sample.path) for sample in samples]
    return {policy: [inspector.inspect(picture, policy) for picture in pictures] for policy in inspector.policies}


def changed(inspector: Inspector, *policies: Policy, default: str = "majority", **members: Member) -> Inspector:
    """The same inspector with further policies or other members."""
    update = {"policies": (*inspector.file.policies, *policies), "default_policy": default}
    return Inspector(
        inspector.file.model_copy(update=update),
        list((inspector.members | members).values()),
        source="memory",
        revision="main",
        commit="0" * 40,
        meter=inspector.meter,
    )


def policy(name: str, kind: str, members: tuple[str, ...], threshold: str = "far", **more: object) -> Policy:
    rule = Rule.model_validate({"kind": kind, "members": members, "threshold": threshold})
    return Policy.model_validate({"name": name, "description": {"en": name}, "rule": rule} | more)


def counted(figures: Figures) -> tuple[int, int, int, int, int]:
    return figures.tp, figures.fp, figures.fn, figures.tn, figures.review


def recounted(samples: list[Sample], decisions: list[str]) -> tuple[int, int, int, int, int]:
    """tp, fp, fn, tn, review."""
    seen = Counter((sample.is_defect, decision) for sample, decision in zip(samples, decisions, strict=True))
    reviews = seen[True, "review"] + seen[False, "review"]
    return seen[True, "defect"], seen[False, "defect"], seen[True, "ok"], seen[False, "ok"], reviews


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_has_the_keys_that_others_script_against(
    found: Evaluation, inspector: Inspector, cables: Path
) -> None:
    written = json.loads(found.model_dump_json())
    expected = {path.name: len(list(path.glob("*.png"))) for path in (cables / "cable/test").iterdir()}
    assert written["counts"] == expected
    assert written["counts"]["good"] == 6
    assert list(written["members"]) == list(inspector.members)
    assert list(written["policies"]) == ["majority", "safe", *NAMES]
    for figures in [*written["members"].values(), *written["policies"].values()]:
        assert [key for key in FIGURES if key not in figures] == []
        assert list(figures["latency_ms"]) == ["median", "p95"]
    assert Evaluation.model_validate(written) == found


def test_it_says_what_was_measured_and_on_what(found: Evaluation, inspector: Inspector, trained: Path) -> None:
    assert (found.inspector, found.revision, found.commit) == (str(trained), "v1", inspector.commit)
    assert (found.category, found.data, found.split) == ("cable", "cables", "test")
    assert found.default_policy == "majority"
    assert found.hardware
    assert set(found.versions) == {"vigie", "torch", "timm"}


# --- counts ----------------------------------------------------------------------------------------------------------


def test_the_counts_add_up(found: Evaluation) -> None:
    for figures in [*found.members.values(), *found.policies.values()]:
        assert figures.failed == 0
        assert sum(counted(figures)) == 14
    for figures in found.members.values():
        assert figures.tp + figures.fn == 8
        assert figures.review == 0
        at = figures.at[figures.threshold]
        assert (at.tp, at.fp, at.fn, at.tn) == (figures.tp, figures.fp, figures.fn, figures.tn)
        for counts in figures.at.values():
            assert (counts.tp + counts.fn, counts.fp + counts.tn) == (8, 6)


def test_a_policy_decides_in_the_evaluation_as_it_does_when_it_serves(
    found: Evaluation, served: dict[str, list[Inspection]], samples: list[Sample]
) -> None:
    for name, figures in found.policies.items():
        assert counted(figures) == recounted(samples, [inspection.report.decision for inspection in served[name]])


def test_every_member_is_counted_at_each_of_its_thresholds(
    found: Evaluation, inspector: Inspector, samples: list[Sample], served: dict[str, list[Inspection]]
) -> None:
    scores = scores_of(served["majority"])
    for name, figures in found.members.items():
        thresholds = inspector.members[name].calibration.thresholds
        assert set(figures.at) == set(thresholds) == {"far", "f1", "f2", "youden", "safe"}
        for key, threshold in thresholds.items():
            decisions = ["defect" if score >= threshold.value else "ok" for score in scores[name]]
            counts = figures.at[key]
            assert (counts.tp, counts.fp, counts.fn, counts.tn, 0) == recounted(samples, decisions)


def test_a_score_that_equals_its_threshold_is_counted_as_a_defect(
    inspector: Inspector, served: dict[str, list[Inspection]], samples: list[Sample]
) -> None:
    member = inspector.members["patch_knn"]
    known = member.calibration.thresholds
    highest = max(scores_of(served["majority"])["patch_knn"])
    thresholds = known | {"far": known["far"].model_copy(update={"value": highest})}
    exact = dataclasses.replace(member, calibration=member.calibration.model_copy(update={"thresholds": thresholds}))
    alone = policy("alone", "any", ("patch_knn",), "far")
    found = evaluate(changed(inspector, alone, patch_knn=exact), samples, data="cables", split="test")
    counts = found.members["patch_knn"].at["far"]
    assert counts.tp + counts.fp == 1
    assert found.policies["alone"].tp + found.policies["alone"].fp == 1


# --- the evaluated score is the served score -------------------------------------------------------------------------


def scores_of(inspections: list[Inspection]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for inspection in inspections:
        for vote in inspection.report.votes:
            assert vote.score is not None
            scores.setdefault(vote.member, []).append(vote.score)
    return scores


def test_what_is_evaluated_is_bit_for_bit_what_is_served_whatever_the_policy_asks_for(
    inspector: Inspector, samples: list[Sample]
) -> None:
    alone = [policy(f"only_{name}", "any", (name,)) for name in inspector.members]
    asked = changed(inspector, *alone)
    for sample in samples[:3]:
        picture = images.read(sample.path)
        ballots = asked.ballots(picture, list(asked.members))  # what `evaluate` counts
        for name in [*asked.policies]:
            inspection = asked.inspect(picture, name)
            for vote in inspection.report.votes:
                evaluated = ballots[vote.member].vote
                assert isinstance(evaluated, Vote)
                assert vote.score == evaluated.score
                assert vote.p_value == evaluated.p_value
            for member, heatmap in inspection.heatmaps.items():
                assert np.array_equal(heatmap, ballots[member].heatmap)


def test_the_figures_are_those_of_the_served_scores_and_heatmaps(
    found: Evaluation, served: dict[str, list[Inspection]], samples: list[Sample]
) -> None:
    labels = [sample.is_defect for sample in samples]
    masks = [read_mask(sample, (64, 64)) for sample in samples]
    inspections = served["majority"]
    scores = scores_of(inspections)
    for name, figures in found.members.items():
        assert figures.image_auroc == image_auroc(labels, scores[name])
        if name.startswith(DRAWS_NOTHING):
            assert (figures.pixel_auroc, figures.au_pro) == (None, None)
            continue
        heatmaps = [inspection.heatmaps[name] for inspection in inspections]
        assert figures.pixel_auroc == pixel_auroc(masks, heatmaps)
        assert figures.au_pro == au_pro(masks, heatmaps)


def test_a_policy_is_drawn_by_its_members_on_their_own_scales(
    found: Evaluation, inspector: Inspector, served: dict[str, list[Inspection]], samples: list[Sample]
) -> None:
    masks = [read_mask(sample, (64, 64)) for sample in samples]
    for name, rule in inspector.policies.items():
        drawn = [policy_map(inspector, rule, inspection.heatmaps) for inspection in served[name]]
        maps: list[NDArray[np.float32]] = [heatmap for heatmap in drawn if heatmap is not None]
        assert len(maps) in {0, len(samples)}
        assert found.policies[name].au_pro == (au_pro(masks, maps) if maps else None)


# --- the score of a policy -------------------------------------------------------------------------------------------


def random_votes(inspector: Inspector, rng: random.Random) -> dict[str, Vote]:
    """Around the thresholds, and often exactly at one or a hair below; of a third of the parts nobody thinks ill."""
    votes, calm = {}, rng.random() < 1 / 3
    for name, member in inspector.members.items():
        known = member.calibration
        cuts = {key: threshold.value for key, threshold in known.thresholds.items()}
        width = known.good_scores[-1] - known.good_scores[0]
        cut = rng.choice(list(cuts.values()))
        near = [cut, math.nextafter(cut, -math.inf), cut + rng.gauss(0, width)]
        low = [math.nextafter(min(cuts.values()), -math.inf), min(cuts.values()) - width]
        score = rng.choice(low if calm else [*near, *low, max(cuts.values()) + width])
        votes[name] = Vote(name, score, known.p_value(score), cuts)
    return votes


@pytest.mark.parametrize("kind", ["any", "majority"])
@pytest.mark.parametrize("threshold", ["far", "f1", "f2", "youden", "safe"])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_a_policys_score_is_above_zero_exactly_when_it_decides_defect(
    inspector: Inspector, kind: str, threshold: ThresholdName, count: int
) -> None:
    rng = random.Random(f"{kind} {threshold} {count}")
    verdicts = []
    for _ in range(150):
        rule = policy("p", kind, tuple(rng.sample(list(inspector.members), count)), threshold)
        votes: Mapping[str, Vote] = random_votes(inspector, rng)
        step = next_step(votes, rule)
        verdicts.append(step.verdict)  # type: ignore[union-attr]
        assert (policy_score(inspector, rule, votes) >= 0) == (verdicts[-1] == "defect")
    ties = kind == "majority" and count % 2 == 0  # half of the votes is a review
    assert set(verdicts) == ({"ok", "defect", "review"} if ties else {"ok", "defect"})


def test_a_review_band_does_not_move_a_policys_score(inspector: Inspector, samples: list[Sample]) -> None:
    names = tuple(inspector.members)
    banded = changed(
        inspector,
        policy("plain", "majority", names),
        policy("banded", "majority", names, review=ReviewBand(p_value=0.5)),
    )
    found = evaluate(banded, samples, data="cables", split="test")
    plain, unsure = found.policies["plain"], found.policies["banded"]
    assert (plain.image_auroc, plain.au_pro, plain.tp, plain.fp) == (
        unsure.image_auroc,
        unsure.au_pro,
        unsure.tp,
        unsure.fp,
    )
    assert plain.review == 0
    assert unsure.review == plain.fn + plain.tn - unsure.fn - unsure.tn > 0


# --- data without masks, or with some --------------------------------------------------------------------------------


def test_without_masks_there_are_no_figures_of_pixels(
    inspector: Inspector, found: Evaluation, cables: Path, tmp_path: Path
) -> None:
    shutil.copytree(cables / "cable/test", tmp_path / "test")
    bare = evaluate(inspector, read_dataset(tmp_path, "cable").test, data="bare", split="test")
    for name, figures in {**bare.members, **bare.policies}.items():
        assert (figures.pixel_auroc, figures.au_pro) == (None, None)
        with_masks = {**found.members, **found.policies}[name]
        assert (figures.image_auroc, counted(figures)) == (with_masks.image_auroc, counted(with_masks))


def test_where_only_some_defects_have_masks_there_are_no_figures_of_pixels_either(
    inspector: Inspector, samples: list[Sample]
) -> None:
    some = [dataclasses.replace(s, mask=None) if s.label == "combined" else s for s in samples]
    found = evaluate(inspector, some, data="cables", split="test")
    assert {figures.au_pro for figures in {**found.members, **found.policies}.values()} == {None}


def test_with_one_class_only_there_is_no_auroc(inspector: Inspector, samples: list[Sample]) -> None:
    good = [sample for sample in samples if not sample.is_defect]
    found = evaluate(inspector, good, data="cables", split="test")
    assert found.counts == {"good": 6}
    for figures in [*found.members.values(), *found.policies.values()]:
        assert figures.image_auroc is None
        assert (figures.tp, figures.fn) == (0, 0)


def test_heatmaps_are_kept_without_masks_where_they_are_asked_for(
    inspector: Inspector, cables: Path, tmp_path: Path
) -> None:
    shutil.copytree(cables / "cable/test", tmp_path / "test")
    samples = read_dataset(tmp_path, "cable").test[:2]
    pictures = [images.read(sample.path) for sample in samples]
    for keep in (False, True):
        (folder := tmp_path / str(keep)).mkdir()
        scored = score(inspector, samples, folder, keep_maps=keep)
        assert [row.sample for row in scored.rows] == list(samples)
        assert scored.masks == ()
        for name in inspector.members:
            if name.startswith(DRAWS_NOTHING):
                assert len(scored.maps[name]) == 0
                continue
            drawn = [scored.maps[name].get(row) for row in range(2)]
            if not keep:
                assert drawn == [None, None]
                continue
            served = [inspector.ballots(picture, [name])[name].heatmap for picture in pictures]
            assert all(np.array_equal(one, other) for one, other in zip(drawn, served, strict=True))


# --- odd inspectors --------------------------------------------------------------------------------------------------


def test_a_member_that_fails_is_counted_as_failed_and_its_policies_as_review(
    trained: Path, samples: list[Sample]
) -> None:
    broken = load_inspector(str(trained))
    with torch.no_grad():
        for value in broken.members["autoencoder"].detector.parameters():
            value.fill_(float("nan") if value.is_floating_point() else 0)
    everybody = tuple(broken.members)
    majority = broken.policies["majority"]
    rule = majority.rule.model_copy(update={"members": everybody})
    required = {"rule": rule, "required": everybody, "advisory": ()}
    broken.policies["majority"] = majority.model_copy(update=required)
    found = evaluate(broken, samples, data="cables", split="test")
    figures = found.members["autoencoder"]
    assert figures.failed == 14
    assert (figures.image_auroc, figures.pixel_auroc, figures.au_pro) == (None, None, None)
    assert counted(figures) == (0, 0, 0, 0, 0)
    assert found.policies["majority"].review == 14  # it requires every member
    assert found.members["patch_knn"].failed == 0
    assert found.policies["majority"].au_pro is not None  # the others still draw


def test_a_policy_may_be_called_like_a_member(inspector: Inspector, samples: list[Sample], found: Evaluation) -> None:
    same_name = changed(inspector, policy("patch_knn", "any", ("patch_knn",)))
    again = evaluate(same_name, samples, data="cables", split="test")
    assert again.members["patch_knn"].au_pro == found.members["patch_knn"].au_pro
    assert again.policies["patch_knn"].au_pro is not None


def test_a_member_outside_the_default_policy_may_lack_its_threshold(
    inspector: Inspector, samples: list[Sample]
) -> None:
    member = inspector.members["autoencoder"]
    only_far = member.calibration.model_copy(update={"thresholds": {"far": member.calibration.thresholds["far"]}})
    unlabelled = dataclasses.replace(member, calibration=only_far)
    pair = ("patch_knn", "mahalanobis")
    file = inspector.file.model_copy(
        update={"policies": (policy("pair", "any", pair, "f1"),), "default_policy": "pair"}
    )
    members = [unlabelled if name == "autoencoder" else m for name, m in inspector.members.items()]
    odd = Inspector(file, members, source="memory", revision="main", commit="0" * 40, meter=inspector.meter)
    found = evaluate(odd, samples, data="cables", split="test")
    assert found.members["autoencoder"].threshold == "far"
    assert found.members["patch_knn"].threshold == "f1"


# --- time and energy -------------------------------------------------------------------------------------------------


def test_time_and_energy_are_those_of_one_picture(found: Evaluation) -> None:
    for figures in [*found.members.values(), *found.policies.values()]:
        assert 0 < figures.latency_ms.median <= figures.latency_ms.p95
    shares = [figures.energy_mj for figures in found.members.values()]
    assert found.energy_mj_per_image is not None
    assert sum(share for share in shares if share is not None) == pytest.approx(found.energy_mj_per_image, rel=1e-6)
    assert found.policies["majority"].energy_mj == pytest.approx(found.energy_mj_per_image, rel=1e-6)
    slowest = max(figures.latency_ms.median for figures in found.members.values())
    assert found.policies["majority"].latency_ms.median > slowest
