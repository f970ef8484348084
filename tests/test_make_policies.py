"""Policies made from calibration: what each promises, what the data permits, and their way into a release."""

import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from levels import detectors, inspector_of, write_pictures
from tiny import tiny_calibration

from anomaly import hub as registry
from anomaly.calibration import Calibration, CalibrationFile, calibrate
from anomaly.errors import DataError, PolicyError
from anomaly.evaluation import evaluate
from anomaly.figures import DataFigures, InspectorMetrics, ModelMetrics, TrainingFigures
from anomaly.inspector import InspectorFile
from anomaly.loading import load_inspector
from anomaly.model_repo import save_detector
from anomaly.policy import CascadeRule, Policy, Rule, Vote, cast_vote, check_policy
from training import make_policies, release
from training.joint_votes import Joint, Part, Price, figures_counted, left_out, tally
from training.manifest import Manifest, ManifestEntry
from training.policy_recipes import default_policies, generated

NAMES = ["SAFE_0FN", "BALANCED", "PRECISION", "MAJORITY", "INDUSTRIAL_BALANCED", "INDUSTRIAL_SAFE_0FN", "GREEN"]
Scores = Mapping[str, list[float]]


def held_out(good: Scores, bad: Scores, **cost: float) -> tuple[dict[str, Calibration], Joint]:
    """Members' scores of the same good parts and of the same defects, in their order."""
    calibrations = {name: calibrate(good[name], bad[name], split_hash="0" * 16) for name in good}
    parts = [
        Part(label, {name: cast_vote(name, scores[name][i], calibrations[name]) for name in scores})
        for label, scores in (("good", good), ("cut", bad))
        for i in range(len(next(iter(scores.values()))))
    ]
    return calibrations, Joint(tuple(parts), Price({name: cost.get(name, 1.0) for name in good}, {}))


def at_random(rng: random.Random) -> tuple[dict[str, Calibration], Joint]:
    """Members of all strengths; how hard a part is, they share."""
    members = [f"m{i}" for i in range(rng.randint(1, 4))]
    good, bad = ([rng.gauss(0, 1) for _ in range(n)] for n in (30, rng.randint(2, 12)))
    power = {name: rng.uniform(0.3, 4) for name in members}
    return held_out(
        {name: [hard + rng.gauss(0, 0.7) for hard in good] for name in members},
        {name: [hard + power[name] + rng.gauss(0, 0.7) for hard in bad] for name in members},
        **{name: rng.uniform(1, 20) for name in members},
    )


# --- what each promises on the pictures it was made from ------------------------------------------------------------


def test_every_policy_is_possible_and_does_on_calibration_what_it_says() -> None:
    rng = random.Random(0)
    bought, saved = 0, 0
    for _ in range(8):
        calibrations, joint = at_random(rng)
        found = {policy.name: policy for policy in generated(calibrations, joint, "cable")}
        assert list(found) == NAMES
        for policy in found.values():
            check_policy(policy, calibrations, category="cable")
            assert set(policy.description) == {"en", "fr"}
            assert set(policy.required) >= set(policy.rule.members)
        done = {name: tally(policy.for_category("cable"), joint) for name, policy in found.items()}
        for name in ("SAFE_0FN", "INDUSTRIAL_SAFE_0FN", "GREEN"):
            assert done[name].missed == 0
            assert done[name].reviews == 0
            assert done[name].false_alarms <= done["SAFE_0FN"].false_alarms
        apart = left_out(joint, calibrations)
        safe = tally(found["SAFE_0FN"], apart).missed
        assert tally(found["GREEN"], apart).missed <= safe
        assert tally(found["INDUSTRIAL_SAFE_0FN"], apart).missed <= safe
        assert done["GREEN"].cost <= done["SAFE_0FN"].cost
        assert done["PRECISION"].false_alarms <= done["BALANCED"].false_alarms
        assert done["BALANCED"].f1 >= max(done["PRECISION"].f1, done["MAJORITY"].f1 - 1e-12)
        bought += done["INDUSTRIAL_SAFE_0FN"].false_alarms < done["SAFE_0FN"].false_alarms
        saved += done["GREEN"].cost < 0.9 * done["SAFE_0FN"].cost
    assert bought >= 2
    assert saved >= 1  # so few defects let no part pass early


GOOD = [float(score) for score in range(20)]


def test_green_lets_a_cheap_member_clear_what_is_plainly_good() -> None:
    """The cheap one overlaps, the dear one does not: half of the good parts need not be shown to it."""
    bad = {"cheap": [15.0, 16.5, *(58 * [25.0])], "dear": 15 * [31.0, 30.0, 32.0, 33.0]}
    calibrations, joint = held_out({"cheap": GOOD, "dear": GOOD}, bad, cheap=1, dear=10)
    safe, *_, green = generated(calibrations, joint, "cable")
    assert isinstance(green.rule, CascadeRule)
    assert green.rule.steps[0].members == ("cheap",)
    assert green.rule.steps[0].accept is not None
    assert tally(green, joint).missed == 0
    assert tally(green, joint).false_alarms == tally(safe, joint).false_alarms
    assert tally(green, Joint(joint.good, joint.price)).cost < 0.6 * 11
    assert green.required == green.rule.members


def test_green_is_a_single_member_only_where_it_misses_nothing_that_was_set_apart() -> None:
    """Alone, whoever scores a defect lowest misses it once its threshold is set without it."""
    good, bad = {"one": GOOD, "two": GOOD}, {"one": [15.0, 40.0, 40.0], "two": [40.0, 15.0, 40.0]}
    calibrations, joint = held_out(good, bad, one=1, two=1)
    safe, *_, green = generated(calibrations, joint, "cable")
    assert tally(safe, left_out(joint, calibrations)).missed == 0
    assert tally(green, left_out(joint, calibrations)).missed == 0
    assert len(green.rule.members) == 2


def test_an_exception_buys_back_the_false_alarms_of_a_member_that_is_alone_with_them() -> None:
    rng = random.Random(1)
    noisy = [score if score < 14 else 60.0 + score for score in GOOD]  # six false alarms that nobody else sees
    calm = GOOD[::-1]
    bad = {"noisy": [50.0, 52.0, 90.0], "calm": [30.0, 31.0, rng.uniform(30, 40)]}
    calibrations, joint = held_out({"noisy": noisy, "calm": calm}, bad)
    found = {policy.name: policy for policy in generated(calibrations, joint, "cable")}
    safe, bought = tally(found["SAFE_0FN"], joint), tally(found["INDUSTRIAL_SAFE_0FN"], joint)
    assert (safe.false_alarms, bought.false_alarms) == (6, 0)
    (exception,) = found["INDUSTRIAL_SAFE_0FN"].exceptions
    assert exception.category == "cable"
    assert exception.discount is not None
    assert (exception.discount.member, exception.discount.others) == ("noisy", ("calm",))
    assert set(found["INDUSTRIAL_SAFE_0FN"].required) == {"noisy", "calm"}


def test_strong_members_decide_alone_on_their_category_and_a_cascade_elsewhere() -> None:
    bad = {"strong": [30.0, 31.0, 32.0], "weak": [3.0, 12.0, 31.0]}
    calibrations, joint = held_out({"strong": GOOD, "weak": GOOD}, bad)
    policy = next(p for p in generated(calibrations, joint, "cable") if p.name == "INDUSTRIAL_BALANCED")
    here, elsewhere = policy.for_category("cable"), policy.for_category("screw")
    assert here.rule == Rule(kind="single", members=("strong",), threshold="f1")
    assert here.required == ("strong",)
    assert isinstance(elsewhere.rule, CascadeRule)
    assert elsewhere.rule.steps[0].members == ("strong",)
    assert len(elsewhere.rule.steps) == 3


def test_without_labelled_defects_there_is_what_good_pictures_permit() -> None:
    calibrations = {name: calibrate(GOOD, [], split_hash="0" * 16) for name in ("one", "two")}
    parts = tuple(Part("good", {n: cast_vote(n, s, c) for n, c in calibrations.items()}) for s in GOOD)
    joint = Joint(parts, Price(dict.fromkeys(calibrations, 1.0), {}))
    for known in (joint, None):
        found = generated(calibrations, known, "cable")
        assert [policy.name for policy in found] == ["MAJORITY", "PRECISION"]
        assert all("not known what it misses" in policy.description["en"] for policy in found[1:])
        for policy in found:
            check_policy(policy, calibrations)


def test_without_the_joint_votes_there_is_what_single_calibrations_permit() -> None:
    calibrations, joint = at_random(random.Random(2))
    assert [policy.name for policy in generated(calibrations, None, "c")] == [NAMES[0], NAMES[3], NAMES[4]]
    assert [policy.name for policy in default_policies(calibrations)] == ["majority", "safe"]
    assert [policy.name for policy in default_policies(calibrations, joint, "c")] == ["majority", "safe", *NAMES]


def test_a_trunk_that_is_shared_is_paid_once() -> None:
    price = Price({"a": 10, "b": 12, "c": 5}, {"a": "trunk", "b": "trunk"})
    assert [price.of(asked) for asked in (["a"], ["b"], ["a", "b"], ["a", "b", "c"], [])] == [10, 12, 12, 17, 0]


def test_a_defect_that_is_set_apart_is_judged_at_a_threshold_that_was_set_without_it() -> None:
    calibrations, joint = held_out({"m": GOOD}, {"m": [25.0, 31.0]})
    without = calibrate(GOOD, [31.0], split_hash="0" * 16).thresholds["safe"].value
    votes = [part.votes["m"] for part in left_out(joint, calibrations).defects]
    assert all(isinstance(vote, Vote) for vote in votes)
    assert [vote.thresholds["safe"] for vote in votes if isinstance(vote, Vote)] == [
        without,
        calibrations["m"].thresholds["safe"].value,
    ]


# --- from runs, and into a release ----------------------------------------------------------------------------------

MEMBERS = ("autoencoder", "patch_knn")
TESTED = ("good", "good", "good", "bent", "cut")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MVTec folder: 9 good, 6 bent and 4 cut parts."""
    folder = tmp_path_factory.mktemp("data") / "waves"
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Two finished runs: 3 good, 1 bent and 1 cut part are their test, the rest was held out for calibration."""
    out = tmp_path_factory.mktemp("runs")
    left, entries = list(TESTED), []
    for path in sorted(data.glob("test/*/*.png")):
        tested = path.parent.name in left
        if tested:
            left.remove(path.parent.name)
        entries.append(
            ManifestEntry(
                path=path.relative_to(data).as_posix(),
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                label=path.parent.name,
                split="test" if tested else "calibrate",
                group=None,
            )
        )
    manifest = Manifest(category="waves", layout="mvtec", seed=3, group_regex=None, entries=tuple(entries), dropped=())
    samples = [s for s in write_pictures(data.parent / "again") if s.relative in {e.path for e in apart(manifest)}]
    for name in MEMBERS:
        folder, detector = out / name, detectors()[name]
        calibration = tiny_calibration(detector).model_copy(update={"split_hash": manifest.split_hash})
        save_detector(folder, detector, CalibrationFile(categories={"waves": calibration}))
        (folder / "manifest.json").write_text(manifest.model_dump_json())
        run = {"identity": "x", "member": name, "data": str(data), "layout": "auto"}
        (folder / "run.json").write_text(json.dumps(run))
        figures = evaluate(inspector_of(name), samples, data="waves", split="test").members[name]
        metrics = ModelMetrics(
            kind=detector.kind,
            member=name,
            category="waves",
            data=DataFigures(
                name="waves",
                layout="mvtec",
                seed=3,
                split_hash=manifest.split_hash,
                counts={"test": figures_counted(samples)},
            ),
            backbone=None,
            parameters=1,
            model_bytes=1,
            settings={},
            test=figures,
            training=TrainingFigures(
                grams_co2eq=1, energy_wh=2.5, duration_s=7, hardware="x", country="FRA", g_per_kwh=56, backend="rapl"
            ),
            versions={},
        )
        (folder / "metrics.json").write_text(metrics.model_dump_json())
    return out


def apart(manifest: Manifest) -> list[ManifestEntry]:
    return [entry for entry in manifest.entries if entry.split == "test"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, runs: Path) -> Path:
    out = tmp_path_factory.mktemp("released")
    members = tuple(runs / name for name in MEMBERS)
    release.main(release.Args(category="waves", members=members, out=out, tag="v1", country="FRA"))
    return out


def file_of(folder: Path, revision: str) -> InspectorFile:
    source = registry.parse_source(str(folder))
    at = registry.download(source, registry.resolve(source, revision), ["inspector.json"])
    return InspectorFile.model_validate_json((at / "inspector.json").read_bytes())


def test_a_release_carries_them_and_says_what_they_did_on_test(released: Path) -> None:
    inspector = load_inspector(str(released), "v1")
    assert list(inspector.policies) == ["majority", "safe", *NAMES]
    source = registry.parse_source(str(released))
    card = (registry.download(source, inspector.commit, ["README.md"]) / "README.md").read_text()
    assert all(f"**`{name}`**" in card for name in inspector.policies)
    assert "Asked in " in card


def test_they_are_made_from_runs_and_from_an_inspector_alike(
    runs: Path, released: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(runs / name) for name in MEMBERS]
    assert make_policies.main([*folders, "--category", "waves", "--out", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    assert "promises nothing" in printed
    made = {path.name: Policy.model_validate_json(path.read_text()) for path in (tmp_path / "runs").iterdir()}
    there = {f"{policy.name}.json": policy for policy in file_of(released, "v1").policies if policy.name in NAMES}
    assert made == there
    manifest = ["--manifest", str(runs / MEMBERS[0] / "manifest.json"), "--data", str(data)]
    assert make_policies.main([str(released), "--out", str(tmp_path / "inspector"), *manifest]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "inspector").iterdir()} == {
        path.name: path.read_text() for path in (tmp_path / "runs").iterdir()
    }
    assert make_policies.main([str(released), "--out", str(tmp_path / "votes")]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "votes").iterdir()} == {
        path.name: path.read_text() for path in (tmp_path / "runs").iterdir()
    }
    older = without_votes(released, tmp_path / "older")
    assert make_policies.main([str(older), "--out", str(tmp_path / "alone")]) == 0
    assert "nothing is known of what they do together" in capsys.readouterr().out
    assert {path.stem for path in (tmp_path / "alone").iterdir()} == {NAMES[0], NAMES[3], NAMES[4]}


def without_votes(released: Path, folder: Path) -> Path:
    """The release as one was before there was votes.json."""
    shutil.copytree(released, folder, symlinks=True)
    for path in folder.rglob("votes.json"):
        path.unlink()
    return folder


def write(folder: Path, name: str, **changes: Any) -> Path:
    rule = {"kind": "all", "members": list(MEMBERS), "threshold": "far"}
    policy = {"name": name, "description": {"en": "Mine.", "fr": "La mienne."}, "rule": rule} | changes
    (folder / f"{name}.json").write_text(json.dumps(policy))
    return folder / f"{name}.json"


def test_a_policy_is_edited_without_training_or_exporting(
    released: Path, runs: Path, data: Path, tmp_path: Path
) -> None:
    manifest = Manifest.model_validate_json((runs / MEMBERS[0] / "manifest.json").read_bytes())
    before = file_of(released, "v1")
    files = (write(tmp_path, "mine"), write(tmp_path, "safe"))
    moved = tmp_path / "waves"
    for entry in apart(manifest):
        (moved / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (moved / entry.path).write_bytes((data / entry.path).read_bytes())
    args = release.Args(inspector=str(released), policy=files, data=moved, tag="v2", default="mine", layout="folder")
    release.main(args)
    after = file_of(released, "v2")
    assert after.members == before.members
    assert after.default_policy == "mine"
    changed = [p.name for p in after.policies if p not in before.policies]
    assert changed == ["safe", "mine"]
    assert file_of(released, "v1") == before
    assert load_inspector(str(released), "v2").policy().rule.kind == "all"


def test_an_edited_policy_is_measured_on_the_votes_of_the_release_as_on_the_pictures(
    released: Path, data: Path, runs: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(released, tmp_path / "again", symlinks=True)
    release.main(release.Args(inspector=str(folder), policy=(write(tmp_path, "mine"),), tag="v7", default="safe"))
    manifest = Manifest.model_validate_json((runs / MEMBERS[0] / "manifest.json").read_bytes())
    samples = [s for s in write_pictures(tmp_path / "waves") if s.relative in {e.path for e in apart(manifest)}]
    inspector = load_inspector(str(folder), "v7")
    source = registry.parse_source(str(folder))
    at = registry.download(source, inspector.commit, ["metrics.json", "votes.json"])
    written = InspectorMetrics.model_validate_json((at / "metrics.json").read_bytes())
    found = evaluate(inspector, samples, data="waves", split="test")
    assert list(written.policies) == list(inspector.policies)
    for name, figures in found.policies.items():
        counted = ("tp", "fp", "fn", "tn", "review", "failed", "threshold")
        assert [getattr(written.policies[name], key) for key in counted] == [getattr(figures, key) for key in counted]
    for name, of_member in found.members.items():
        assert written.members[name].threshold == of_member.threshold
        assert (written.members[name].tp, written.members[name].fp) == (of_member.tp, of_member.fp)
    assert written.policies["mine"].latency_ms.median > 0


def test_a_wrong_policy_is_refused_before_anything_is_released(released: Path, runs: Path, tmp_path: Path) -> None:
    unknown = write(tmp_path, "mine", rule={"kind": "any", "members": ["sonar"], "threshold": "far"})
    with pytest.raises(PolicyError, match=r"policy 'mine': rule\.members\[0\] names 'sonar'; this inspector has"):
        release.main(release.Args(inspector=str(released), policy=(unknown,), tag="v9"))
    members = tuple(runs / name for name in MEMBERS)
    with pytest.raises(PolicyError, match=r"rule\.members\[0\] names 'sonar'"):
        release.main(release.Args(category="waves", members=members, out=tmp_path / "new", policy=(unknown,)))
    assert not (tmp_path / "new").exists()
    second = tmp_path / "second.json"
    second.write_bytes(write(tmp_path, "mine").read_bytes())
    twice = (write(tmp_path, "mine"), second)
    with pytest.raises(PolicyError, match="are both called 'mine'"):
        release.main(release.Args(inspector=str(released), policy=twice))


def test_other_policies_are_measured_on_the_same_pictures_or_not_released(
    released: Path, data: Path, tmp_path: Path
) -> None:
    mine = write(tmp_path, "mine")
    older = without_votes(released, tmp_path / "older")
    with pytest.raises(DataError, match=r"have to be measured: give --data .* \{'good': 3, 'bent': 1, 'cut': 1\}"):
        release.main(release.Args(inspector=str(older), policy=(mine,), tag="v3"))
    with pytest.raises(DataError, match="the inspector was measured on"):
        release.main(release.Args(inspector=str(released), policy=(mine,), tag="v3", data=data))
    with pytest.raises(DataError, match="--inspector goes with --policy"):
        release.main(release.Args(inspector=str(released), policy=(mine,), out=tmp_path))
