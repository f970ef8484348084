"""New good parts make a new revision: the same weights, other calibration, and the old revision stays."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from levels import detectors, inspector_of, write_pictures
from PIL import Image
from tiny import as_picture, good_images, tiny_calibration

from anomaly import hub as registry
from anomaly.calibration import CalibrationFile, read_calibration
from anomaly.cards import write_card
from anomaly.datasets import Dataset
from anomaly.emissions import EmissionsMeter
from anomaly.errors import CalibrationError, DataError, PolicyError, RegistryError
from anomaly.figures import DataFigures, ModelMetrics, TrainingFigures
from anomaly.images import read
from anomaly.loading import load_inspector
from anomaly.local_repo import refs
from anomaly.model_repo import MODEL_FILES, load_detector, save_detector
from training import recalibrate
from training.arguments import run as run_script
from training.data import data_figures
from training.finish import Split
from training.manifest import Manifest, ManifestEntry
from training.metrics import measured
from training.new_parts import check_new, in_words, new_parts, recalibrated
from training.recalibrate import Args
from training.release import read_runs
from training.synthetic_cable import render

NAME = "mahalanobis_global"
HASH = "0" * 40


def write_good(folder: Path, count: int, seed: int = 50) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(good_images(count, seed=seed)):
        Image.fromarray(as_picture(image)).save(folder / f"{number:02d}.png")
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """25 new good parts; `far` 0.05 needs 19."""
    return write_good(tmp_path / "new", 25)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run as `training.finish` leaves it, and the pictures it was measured on."""
    folder = tmp_path_factory.mktemp("run")
    pictures, name, detector = folder / "waves", NAME, detectors()[NAME]
    samples = write_pictures(pictures)
    write_good(folder / "trained", 3, seed=0)
    entries = [
        ManifestEntry(path=s.relative, sha256=sha256(s.path), label=s.label, split="test", group=None) for s in samples
    ]
    for split, number in (("train", 0), ("validate", 1), ("calibrate", 2)):
        path = folder / "trained" / f"{number:02d}.png"
        entry = {"path": f"train/good/{path.name}", "sha256": sha256(path), "label": "good", "split": split}
        entries.append(ManifestEntry.model_validate({**entry, "group": None}))
    manifest = Manifest(category="waves", layout="mvtec", seed=3, group_regex=None, entries=tuple(entries), dropped=())
    old = tiny_calibration(detector).model_copy(update={"split_hash": manifest.split_hash})
    save_detector(folder / "old", detector, CalibrationFile(categories={"waves": old}))
    (folder / "old/manifest.json").write_text(manifest.model_dump_json())
    note = {"identity": "x", "member": name, "data": str(pictures), "layout": "auto"}
    (folder / "old/run.json").write_text(json.dumps(note))
    test = measured(inspector_of(name), samples, data="waves", split="test", resamples=0).members[name]
    metrics = ModelMetrics(
        kind=detector.kind,
        member=name,
        category="waves",
        data=DataFigures(name="waves", layout="mvtec", seed=3, split_hash=manifest.split_hash, counts={}),
        backbone=None,
        parameters=1,
        model_bytes=1,
        settings={"seed": 3},
        test=test,
        training=TrainingFigures(
            grams_co2eq=1, energy_wh=2.5, duration_s=7, hardware="x", country="FRA", g_per_kwh=56, backend="rapl"
        ),
        versions={},
    )
    stub = Split("waves", (Dataset(Path(), "waves", "mvtec", ()),), (manifest,))
    metrics = metrics.model_copy(update={"data": data_figures(stub)})
    (folder / "old/metrics.json").write_text(metrics.model_dump_json())
    write_card(folder / "old")
    return folder


@pytest.fixture
def old(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "old", tmp_path / "old"))


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_weights_and_gets_the_scores_of_the_new_parts(old: Path, good: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    recalibrate.main(Args(run=old, good=good, out=tmp_path / "out"))
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    for name in MODEL_FILES:
        same = (tmp_path / "out" / name).read_bytes() == before[name]
        assert same == (name != "calibration.json")
    loaded = load_detector(tmp_path / "out")
    found, was = loaded.calibrations.categories["waves"], read_calibration(old / "calibration.json").categories["waves"]
    expected = loaded.detector.predict(good_images(25, seed=50)).scores
    assert np.allclose(found.good_scores, sorted(expected.tolist()), rtol=1e-4)
    assert found.defect_scores == was.defect_scores
    assert found.thresholds["far"].good == 25
    assert found.thresholds["far"].level == was.thresholds["far"].level
    assert found.thresholds["safe"].value <= min(was.defect_scores)
    assert found.split_hash != was.split_hash


def test_the_new_run_is_whole_and_can_be_released(old: Path, good: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recalibrate.main(Args(run=old, good=good, out=out))
    manifest = Manifest.model_validate_json((out / "manifest.json").read_bytes())
    metrics = ModelMetrics.model_validate_json((out / "metrics.json").read_bytes())
    calibration = read_calibration(out / "calibration.json").categories["waves"]
    assert manifest.split_hash == metrics.data.split_hash == calibration.split_hash
    assert metrics.data.counts["calibrate"] == {"good": 25}
    assert metrics.settings["recalibrated"] == "with 25 new good parts of new; 4 defect scores from before"
    assert metrics.test is not None
    assert metrics.test.tp + metrics.test.fn == 10
    assert "25 new good parts" in (out / "README.md").read_text()
    assert read_runs([out], "waves") == {NAME: out}
    with pytest.raises(DataError, match="both called"):
        read_runs([out, old], "waves")
    assert json.loads((out / "run.json").read_text())["identity"] != "x"


def test_what_was_trained_on_is_refused_and_what_calibrated_may_come_again(made: Path, old: Path, good: Path) -> None:
    manifest = Manifest.model_validate_json((old / "manifest.json").read_bytes())
    shutil.copyfile(made / "trained/02.png", good / "x.png")
    check_new(new_parts(good), manifest)
    for number, split in ((0, "train"), (1, "validate")):
        shutil.copyfile(made / f"trained/{number:02d}.png", good / "x.png")
        with pytest.raises(
            DataError, match=rf"1 of 26 pictures .* x.png is train/good/{number:02d}.png, a {split} pict"
        ):
            check_new(new_parts(good), manifest)
    shutil.copyfile(made / "waves/test/good/00.png", good / "x.png")
    with pytest.raises(DataError, match="a test picture of the run"):
        check_new(new_parts(good), manifest)


def test_a_run_can_be_calibrated_again_with_more_of_the_same_parts(old: Path, good: Path, tmp_path: Path) -> None:
    recalibrate.main(Args(run=old, good=good, out=tmp_path / "out"))
    write_good(good, 30)
    recalibrate.main(Args(run=tmp_path / "out", good=good, out=tmp_path / "again"))
    assert len(read_calibration(tmp_path / "again/calibration.json").categories["waves"].good_scores) == 30


def test_too_few_parts_are_refused_before_any_is_scored(old: Path, tmp_path: Path) -> None:
    folder = write_good(tmp_path / "few", 18)
    shutil.copyfile(folder / "00.png", folder / "the same again.png")
    with pytest.raises(CalibrationError, match=r"needs 19 good parts, few has 18 different pictures: add 1"):
        recalibrate.main(Args(run=old, good=folder, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_without_the_test_pictures_the_new_run_has_no_figures(
    old: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = json.loads((old / "run.json").read_text())
    (old / "run.json").write_text(json.dumps({**note, "data": str(tmp_path / "gone")}))
    recalibrate.main(Args(run=old, good=good, out=tmp_path / "out"))
    assert "not measured on test" in capsys.readouterr().out
    assert ModelMetrics.model_validate_json((tmp_path / "out/metrics.json").read_bytes()).test is None
    with pytest.raises(DataError, match="gone"):
        recalibrate.main(Args(run=old, good=good, out=tmp_path / "more", data=tmp_path / "gone"))


def test_good_parts_that_score_otherwise_are_said(old: Path, good: Path) -> None:
    loaded = load_detector(old)
    was = loaded.calibrations.categories["waves"]
    same = recalibrated(loaded.detector, was, new_parts(good), HASH)
    assert "score otherwise now" not in "\n".join(in_words(NAME, was, same))
    lower = was.model_copy(update={"good_scores": tuple(score - 1e6 for score in was.good_scores)})
    said = in_words(NAME, lower, same)
    assert "25 new good parts in place of 20" in said[0]
    assert "score otherwise now" in said[1]


def test_wrong_folders_are_refused(old: Path, good: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished run"):
        recalibrate.main(Args(run=tmp_path, good=good, out=tmp_path / "out"))
    with pytest.raises(DataError, match="the old one stays"):
        recalibrate.main(Args(run=old, good=good, out=old))
    with pytest.raises(DataError, match="not for 'screw'"):
        recalibrate.main(Args(run=old, good=good, out=tmp_path / "out", category="screw"))
    with pytest.raises(DataError, match="no such folder"):
        new_parts(tmp_path / "nowhere")
    (tmp_path / "empty/test").mkdir(parents=True)
    with pytest.raises(DataError, match="is a data set"):
        new_parts(tmp_path / "empty")
    (tmp_path / "empty/test").rmdir()
    with pytest.raises(DataError, match="holds no picture"):
        new_parts(tmp_path / "empty")


def test_the_command_line_takes_one_of_the_two(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(recalibrate.main, Args, ["--good", str(good)]) == 1
    assert "give either --run RUN or --inspector SOURCE" in capsys.readouterr().err
    assert "recalibrate" in str(sys.modules[recalibrate.main.__module__].__doc__)


# --- an inspector ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cables_good(tmp_path: Path) -> Path:
    """Six new good cables; the inspector's level of 0.2 needs four."""
    folder = tmp_path / "line 2"
    folder.mkdir()
    for seed in range(6):
        Image.fromarray(render(None, seed=100 + seed, size=64)[0]).save(folder / f"{seed}.png")
    return folder


def test_an_inspector_gets_a_new_revision_and_the_old_ones_stay(
    inspector_folder: Path, cables_good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = Path(shutil.copytree(inspector_folder, tmp_path / "cache"))
    source = str(cache / "models--test--cable-inspector")
    tags = refs(Path(source))
    recalibrate.main(Args(inspector=source, revision="v2", good=cables_good, tag="v3"))
    after = refs(Path(source))
    assert {name: after[name] for name in ("v1", "v2")} == {name: tags[name] for name in ("v1", "v2")}
    old, new = (load_inspector(source, tag, meter=EmissionsMeter("FRA")) for tag in ("v2", "v3"))
    assert new.file.policies == old.file.policies
    image = read(next(cables_good.iterdir()))
    for name, member in new.members.items():
        assert member.ref.sha256 == old.members[name].ref.sha256
        assert member.ref.commit != old.members[name].ref.commit
        assert member.calibration.defect_scores == old.members[name].calibration.defect_scores
        scores = [side.ballots(image, [name])[name].vote.score for side in (old, new)]  # type: ignore[union-attr]
        assert scores[0] == scores[1]
        assert scores[1] in member.calibration.good_scores
        assert scores[1] not in old.members[name].calibration.good_scores
    said = capsys.readouterr().out
    assert "as v3" in said
    assert "whether the members were trained on these pictures" in said


def test_p_values_that_fewer_good_parts_cannot_give_are_raised_and_that_is_said(
    inspector_folder: Path, cables_good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(shutil.copytree(inspector_folder, tmp_path / "cache") / "models--test--cable-inspector")
    inspector = load_inspector(source, "v2")
    least = inspector.members[next(iter(inspector.members))].calibration.smallest_p_value
    for path in sorted(cables_good.iterdir())[4:]:
        path.unlink()
    assert least < 1 / 5  # of the four new parts
    name = next(iter(inspector.members))
    step = {"members": [name], "accept": {"p_value": 0.5}, "reject": {"p_value": least}}
    rule = {"kind": "cascade", "steps": [step]}
    strict = {"name": "STRICT", "description": {"en": "x", "fr": "x"}, "rule": rule}
    place = registry.parse_source(source)
    folder = registry.download(place, inspector.commit, ["inspector.json"])
    (tmp_path / "new").mkdir()
    file = json.loads((folder / "inspector.json").read_text())
    file["policies"].append(strict)
    (tmp_path / "new/inspector.json").write_text(json.dumps(file))
    registry.store(tmp_path / "new", place.folder, place.repo_id, files=["inspector.json"], tag="v5")
    recalibrate.main(Args(inspector=source, revision="v5", good=cables_good, tag="v6"))
    made = next(p for p in load_inspector(source, "v6").file.policies if p.name == "STRICT")
    assert made.rule.steps[0].reject.p_value == pytest.approx(1 / 5)
    assert "STRICT: p-values below 0.2000 become that" in capsys.readouterr().out


def test_an_inspector_can_be_released_into_another_folder(
    inspector_folder: Path, cables_good: Path, tmp_path: Path
) -> None:
    source = str(inspector_folder / "models--test--cable-inspector")
    before = refs(Path(source))
    recalibrate.main(Args(inspector=source, good=cables_good, out=tmp_path / "cache", tag="v1"))
    assert refs(Path(source)) == before
    loaded = load_inspector(str(tmp_path / "cache"), "v1")
    assert [len(member.calibration.good_scores) for member in loaded.members.values()] == [6, 6]


def test_what_an_inspector_cannot_become_leaves_it_as_it_was(
    inspector_folder: Path, cables_good: Path, tmp_path: Path, made: Path
) -> None:
    cache = Path(shutil.copytree(inspector_folder, tmp_path / "cache"))
    source = str(cache / "models--test--cable-inspector")
    files = sorted(path for path in cache.rglob("*"))
    with pytest.raises(RegistryError, match="has a tag v1 already"):
        recalibrate.main(Args(inspector=source, revision="v2", good=cables_good, tag="v1"))
    shutil.copyfile(made / "trained/00.png", cables_good / "seen.png")
    with pytest.raises(DataError, match=r"seen\.png is train/good/00.png"):
        recalibrate.main(Args(inspector=source, good=cables_good, manifests=(made / "old/manifest.json",)))
    for path in sorted(cables_good.iterdir())[1:]:
        path.unlink()
    with pytest.raises((CalibrationError, PolicyError), match="needs 4 good parts"):
        recalibrate.main(Args(inspector=source, good=cables_good))
    assert sorted(path for path in cache.rglob("*")) == files
