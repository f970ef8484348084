"""The main path: votes of real tiny detectors, failures that are never a vote for ok, and the report."""

import copy
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny import (
    FITTED,
    TRUNK,
    as_picture,
    corrupted,
    good_images,
    tiny_detectors,
    tiny_inspector,
    tiny_trunk,
)

from anomaly import __version__
from anomaly.detectors import Autoencoder, Detector, PatchKNN
from anomaly.detectors.base import as_tensor
from anomaly.emissions import EmissionsMeter
from anomaly.errors import PolicyError
from anomaly.images import digest
from anomaly.inspector import Inspection, Inspector, Member
from anomaly.policy import Policy, Rule
from anomaly.report import MemberVote, Report

ON_ONE_TRUNK = (*FITTED, "classical")
GOOD = as_picture(good_images(1, seed=7)[0])
BAD = as_picture(corrupted(good_images(1, seed=7))[0])


@pytest.fixture(scope="session")
def meter() -> EmissionsMeter:
    return EmissionsMeter("FRA", cpu_power_w=15)


@pytest.fixture(scope="session")
def original(meter: EmissionsMeter) -> Inspector:
    """Is left as it is."""
    return tiny_inspector(tiny_detectors(), meter)


@pytest.fixture
def members(original: Inspector) -> list[Member]:
    """To spoil. Each detector has a trunk of its own, as they come out of six files."""
    return [replace(member, detector=copy.deepcopy(member.detector)) for member in original.members.values()]


@pytest.fixture
def inspector(original: Inspector, members: list[Member]) -> Inspector:
    return assemble(original, members)


def assemble(original: Inspector, members: list[Member], *policies: Policy) -> Inspector:
    """These members under the same or other policies, of which the first is the default."""
    file = original.file
    if policies:
        file = file.model_copy(update={"policies": policies, "default_policy": policies[0].name})
    return Inspector(file, members, source="memory", revision="main", commit="0" * 40, meter=original.meter)


def votes(inspection: Inspection) -> dict[str, MemberVote]:
    return {vote.member: vote for vote in inspection.report.votes}


def policy(name: str, kind: str, members: tuple[str, ...], required: tuple[str, ...] = ()) -> Policy:
    rule = Rule(kind=kind, members=members, threshold="far")
    return Policy(name=name, description={"en": name, "fr": name}, rule=rule, required=required)


# Trunks


def count_passes(trunk: torch.nn.Module) -> list[tuple[int, ...]]:
    """Grows by the shape of the input with every pass."""
    passes: list[tuple[int, ...]] = []
    trunk.register_forward_hook(lambda _module, inputs, _output: passes.append(tuple(inputs[0].shape)))
    return passes


def test_the_detectors_on_one_trunk_run_it_once_for_an_image(inspector: Inspector) -> None:
    trunks = {id(inspector.members[name].detector.trunk) for name in ON_ONE_TRUNK}
    assert len(trunks) == 1
    trunk = inspector.members[FITTED[0]].detector.trunk
    assert trunk is not None
    passes = count_passes(trunk)
    inspector.inspect(GOOD)
    assert passes == [(1, 3, 64, 64)]
    inspector.inspect(BAD, "any")
    assert len(passes) == 2


def test_a_shared_trunk_scores_as_one_of_its_own(inspector: Inspector, members: list[Member]) -> None:
    found = votes(inspector.inspect(BAD))
    image = as_tensor(BAD)
    for member in members:
        assert found[member.ref.name].score == float(member.detector.predict(image).scores[0])


def test_a_trunk_with_other_weights_is_not_shared(original: Inspector, members: list[Member]) -> None:
    (last,) = [member for member in members if isinstance(member.detector, PatchKNN)]
    others = [member for member in members if member is not last]
    assert isinstance(last.detector, PatchKNN)
    stranger = PatchKNN(last.detector.config, tiny_trunk(TRUNK, seed=5), last.detector.memory).eval()
    inspector = assemble(original, [*others, replace(last, detector=stranger)])
    trunks = {name: inspector.members[name].detector.trunk for name in FITTED}
    assert trunks["mahalanobis"] is trunks["mahalanobis_global"]
    assert trunks["mahalanobis"] is not trunks["patch_knn"]


def test_the_time_of_a_shared_trunk_is_divided_among_those_who_share_it(inspector: Inspector) -> None:
    trunk = inspector.members["patch_knn"].detector.trunk
    assert trunk is not None
    inspector.inspect(GOOD)
    trunk.register_forward_pre_hook(lambda *_: time.sleep(0.4))
    inspection = inspector.inspect(GOOD)
    durations = {name: vote.duration_ms for name, vote in votes(inspection).items()}
    assert all(durations[name] >= 100 for name in ON_ONE_TRUNK)
    assert sum(durations.values()) <= inspection.report.emissions.duration_ms


# Failures


def give_nan(detector: Detector) -> None:
    assert isinstance(detector, Autoencoder)
    next(detector.parameters()).fill_(torch.nan)


def give_crash(detector: Detector) -> None:
    assert isinstance(detector, PatchKNN)
    detector.memory = torch.zeros(5, 3)  # another number of channels than its trunk's


def give_trunk_crash(detector: Detector) -> None:
    assert detector.trunk is not None
    next(detector.trunk.parameters()).data = torch.zeros(4, 7, 3, 3)


@pytest.mark.parametrize(
    ("spoil", "failing", "word"),
    [
        (give_nan, ("autoencoder",), "not finite"),
        (give_crash, ("patch_knn",), "it crashed: RuntimeError"),
        (give_trunk_crash, ON_ONE_TRUNK, "the trunk failed: RuntimeError"),
    ],
)
def test_a_member_that_cannot_vote_is_a_failure_and_never_ok(
    inspector: Inspector, spoil: Callable[[Detector], None], failing: tuple[str, ...], word: str
) -> None:
    spoil(inspector.members[failing[-1]].detector)
    inspection = inspector.inspect(GOOD)
    assert inspection.report.decision == "review"  # this policy requires every member
    assert failing[0] in inspection.report.reason["en"]
    for name, vote in votes(inspection).items():
        if name in failing:
            assert (vote.verdict, vote.score, vote.p_value, vote.class_shares) == ("failed", None, None, None)
            assert vote.error is not None
            assert word in vote.error
            assert "\n" not in vote.error
            assert name not in inspection.heatmaps
        else:
            assert vote.verdict in ("ok", "defect")
            assert vote.error is None


def test_without_being_required_it_is_only_missing(original: Inspector, members: list[Member]) -> None:
    three = ("autoencoder", "mahalanobis", "patch_knn")
    relaxed = assemble(
        original,
        members,
        policy("relaxed", "majority", three),
        policy("alone", "any", ("autoencoder",)),
        policy("strict", "any", three, required=("autoencoder",)),
    )
    give_nan(relaxed.members["autoencoder"].detector)
    assert relaxed.inspect(GOOD).report.decision == "ok"
    assert relaxed.inspect(BAD).report.decision == "defect"
    assert relaxed.inspect(GOOD, "alone").report.decision == "review"
    assert relaxed.inspect(BAD, "strict").report.decision == "review"


# The report


def test_the_report_says_everything(inspector: Inspector) -> None:
    report = inspector.inspect(BAD).report
    assert report.decision == "defect"
    assert set(report.reason) == {"en", "fr"}
    assert (report.category, report.inspector, report.revision) == ("waves", "memory", "main")
    assert (report.commit, report.policy, report.version) == ("0" * 40, "majority", __version__)
    assert (report.image_width, report.image_height) == (64, 64)
    assert report.image_sha256 == digest(BAD)
    assert report.emissions.country == "FRA"
    assert report.emissions.label == "estimated"
    assert report.created_at.endswith("+00:00")
    assert report.duration_ms >= report.emissions.duration_ms > 0
    assert [vote.member for vote in report.votes] == list(inspector.members)
    for name, vote in votes(inspector.inspect(BAD)).items():
        member = inspector.members[name]
        assert (vote.kind, vote.repo, vote.commit) == (member.detector.kind, f"test/{name}", "0" * 40)
        assert vote.threshold_name == "far"
        assert vote.threshold == member.calibration.thresholds["far"].value
        assert vote.score is not None
        assert vote.p_value == member.calibration.p_value(vote.score)
        assert vote.verdict == ("defect" if vote.score >= vote.threshold else "ok")


def test_a_report_comes_back_from_json_as_it_was(inspector: Inspector) -> None:
    give_nan(inspector.members["autoencoder"].detector)
    report = inspector.inspect(BAD, revision="v1", warnings=["the Hub does not answer"]).report
    assert (report.revision, report.warnings) == ("v1", ("the Hub does not answer",))
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_heatmaps_have_the_size_of_the_picture(inspector: Inspector) -> None:
    picture = as_picture(good_images(1, seed=3, size=(50, 90))[0])
    inspection = inspector.inspect(picture)
    assert (inspection.report.image_width, inspection.report.image_height) == (90, 50)
    assert set(inspection.heatmaps) == set(inspector.members) - {"mahalanobis_global", "classical"}
    assert {heatmap.shape for heatmap in inspection.heatmaps.values()} == {(50, 90)}


def test_class_shares_add_up_and_come_from_those_who_have_classes(inspector: Inspector) -> None:
    found = votes(inspector.inspect(GOOD))
    for name, vote in found.items():
        if name in ("baseline_cnn", "classifier", "classical"):
            assert vote.class_shares is not None
            assert list(vote.class_shares) == ["good", "bent", "cut"]
            assert sum(vote.class_shares.values()) == pytest.approx(1)
        else:
            assert vote.class_shares is None


def test_energy_shares_add_up_to_the_energy(inspector: Inspector) -> None:
    for _ in range(5):  # a reading below resolution is None in whole
        report = inspector.inspect(GOOD).report
        parts = [vote.energy_share_mj for vote in report.votes]
        if report.emissions.energy_mj is None:
            assert parts == [None] * len(parts)
        else:
            assert sum(part for part in parts if part is not None) == pytest.approx(report.emissions.energy_mj)
            break
    else:
        pytest.skip("CodeCarbon gives no energy on this machine")


# Policies


def test_two_policies_on_the_same_votes(original: Inspector, members: list[Member]) -> None:
    one, most = policy("any", "any", ("autoencoder", "patch_knn")), policy("majority", "majority", FITTED)
    both = assemble(original, members, most, one)
    assert both.inspect(BAD).report.policy == "majority"
    for picture in (GOOD, BAD):
        found = votes(original.inspect(picture))
        for rule, needed in ((one, 1), (most, 2)):
            report = both.inspect(picture, rule.name).report
            against = [name for name in rule.rule.members if found[name].verdict == "defect"]
            assert report.decision == ("defect" if len(against) >= needed else "ok")
            assert {vote.member: vote.score for vote in report.votes} == {
                name: found[name].score for name in rule.rule.members
            }


def test_only_the_members_that_the_policy_asks_for_are_run(original: Inspector, members: list[Member]) -> None:
    alone = assemble(original, members, policy("alone", "any", ("autoencoder",)))
    trunk = alone.members["patch_knn"].detector.trunk
    assert trunk is not None
    passes = count_passes(trunk)
    assert list(votes(alone.inspect(GOOD))) == ["autoencoder"]
    assert passes == []


def test_an_unknown_policy_is_told_with_the_known_ones(inspector: Inspector) -> None:
    with pytest.raises(PolicyError, match=r"unknown policy 'strict'; this inspector has \['any', 'majority'\]"):
        inspector.inspect(GOOD, "strict")


def test_a_policy_that_names_a_missing_member_or_default_is_refused(original: Inspector, members: list[Member]) -> None:
    with pytest.raises(PolicyError, match="names 'nobody'"):
        assemble(original, members, policy("alone", "any", ("nobody",)))
    file = original.file.model_copy(update={"default_policy": "strict"})
    with pytest.raises(PolicyError, match="default_policy 'strict'"):
        Inspector(file, members, source="memory", revision="main", commit="0" * 40, meter=original.meter)


def test_the_same_picture_gets_the_same_answer(inspector: Inspector) -> None:
    first, second = (votes(inspector.inspect(GOOD)) for _ in range(2))
    assert {name: vote.score for name, vote in first.items()} == {name: vote.score for name, vote in second.items()}
