"""The training scripts: what `train_all` leaves behind, kills, where trunks come from, and their command lines."""

import dataclasses
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loopback_hub import LoopbackHub
from released import use_hub
from safetensors.torch import load_file
from test_make_policies import NAMES
from trained import args_for, knn_args, manifest, metrics, runs

from anomaly import hub as registry
from anomaly.backbones import read_weights
from anomaly.calibration import read_calibration
from anomaly.datasets import read_dataset
from anomaly.detectors import DetectorConfig
from anomaly.errors import DataError, HubUnreachableError, ModelLoadError, RegistryError
from anomaly.figures import InspectorMetrics
from anomaly.loading import load_inspector
from anomaly.model_repo import load_detector
from training import fit_mahalanobis, fit_patch_knn, release, train_all, train_classifier
from training.arguments import run
from training.finish import pretrained
from training.loop import CHECKPOINT
from training.pictures import Pictures, load

__all__ = ["runs"]  # a fixture

UNLABELLED = ("mahalanobis", "mahalanobis_global", "patch_knn", "autoencoder")
MEMBERS = (*UNLABELLED, "baseline_cnn", "classifier", *train_all.CLASSICAL, "localiser")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- train_all -------------------------------------------------------------------------------------------------------


def test_with_labelled_defects_there_are_ten_members(trained: Path) -> None:
    inspector = load_inspector(str(trained), "v1")
    assert tuple(inspector.members) == MEMBERS
    assert list(inspector.policies) == ["majority", "safe", *NAMES]
    assert inspector.policy().rule.threshold == "f1"
    assert inspector.file.category == "cable"
    assert inspector.file.labels[0] == "good"
    assert len(inspector.file.labels) == 9
    report = inspector.inspect(np.zeros((64, 64, 3), np.uint8)).report
    assert sorted(vote.member for vote in report.votes) == sorted(MEMBERS)
    assert all(vote.score is not None for vote in report.votes)


def test_without_labelled_defects_there_are_four_and_their_thresholds_are_false_alarm_levels(
    training_args: train_all.Args, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(training_args.data / "cable" / "train" / "good", data / "train" / "good")
    shutil.copytree(training_args.data / "cable" / "test", data / "test")
    train_all.main(dataclasses.replace(training_args, data=data, out=tmp_path / "out", tag=None))
    inspector = load_inspector(str(tmp_path / "out"))
    assert tuple(inspector.members) == UNLABELLED
    assert {policy.rule.threshold for policy in inspector.policies.values()} == {"far"}
    figures = metrics(tmp_path / "out/runs/autoencoder").test
    assert figures is not None
    assert figures.image_auroc is not None
    assert figures.au_pro is None  # this data has no masks
    assert len(inspector.file.labels) == 9  # the test pictures' labels


def test_without_test_pictures_nothing_is_trained(training_args: train_all.Args, tmp_path: Path) -> None:
    shutil.copytree(training_args.data / "cable/train/good", tmp_path / "data/train/good")
    with pytest.raises(DataError, match="no test pictures to measure the inspector on"):
        train_all.main(dataclasses.replace(training_args, data=tmp_path / "data", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_once_more_is_nothing_more(
    trained: Path, training_args: train_all.Args, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained)
    train_all.main(training_args)
    assert contents(trained) == before
    said = capsys.readouterr().out
    assert said.count("done already") == len(MEMBERS)
    assert "released already" in said


def test_other_settings_are_another_run(trained: Path, training_args: train_all.Args, runs: Path) -> None:
    out = runs / "patch_knn"
    fit_patch_knn.main(knn_args(training_args, out, coreset=0.02))
    assert metrics(out).settings["coreset"] == 0.02
    assert metrics(out).settings["memory"] < metrics(trained / "runs/patch_knn").settings["memory"]  # type: ignore[operator]
    assert release.read_runs([out], "cable") == {"patch_knn": out}


def test_all_members_share_one_split_whose_manifest_lies_beside_them(trained: Path) -> None:
    hashes = set()
    for member in MEMBERS:
        folder = trained / "runs" / member
        calibration = read_calibration(folder / "calibration.json").categories["cable"]
        figures = metrics(folder)
        hashes |= {manifest(folder).split_hash, calibration.split_hash, figures.data.split_hash}
        held_out = figures.data.counts["calibrate"]
        assert len(calibration.good_scores) == held_out["good"]
        assert len(calibration.defect_scores) == sum(held_out.values()) - held_out["good"]
    source = registry.parse_source(str(trained))
    folder = registry.download(source, registry.resolve(source), ["metrics.json"])
    hashes.add(InspectorMetrics.model_validate_json((folder / "metrics.json").read_bytes()).data.split_hash)
    assert len(hashes) == 1


def test_nothing_that_is_measured_or_calibrated_on_was_trained_on(trained: Path, cables: Path) -> None:
    entries = manifest(trained / "runs/classifier").entries
    files = {split: {e.sha256 for e in entries if e.split == split} for split in ("train", "calibrate", "test")}
    assert all(files.values())
    assert files["train"].isdisjoint(files["calibrate"] | files["test"])
    assert files["calibrate"].isdisjoint(files["test"])
    in_test = {path.relative_to(cables / "cable").as_posix() for path in (cables / "cable/test").rglob("*.png")}
    assert {entry.path for entry in entries if entry.split == "test"} == in_test


def test_thresholds_come_from_the_scores_that_are_served(trained: Path, cables: Path) -> None:
    for member in MEMBERS:
        folder = trained / "runs" / member
        loaded = load_detector(folder)
        calibration = loaded.calibrations.categories["cable"]
        held_out = [entry for entry in manifest(folder).entries if entry.split == "calibrate"]
        scores: dict[bool, list[float]] = {True: [], False: []}
        for entry in held_out:
            scores[entry.label == "good"].append(
                loaded.detector.predict(load(cables / "cable" / entry.path)).scores.item()
            )
        assert tuple(sorted(scores[True])) == calibration.good_scores
        assert tuple(sorted(scores[False])) == calibration.defect_scores


def test_pictures_that_do_not_fit_into_memory_are_read_again(cables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = read_dataset(cables, "cable").test[:6]
    config = DetectorConfig(input_size=(48, 32))
    everything = Pictures(samples, config, "test").batch(range(6))
    assert everything.shape == (6, 3, 48, 32)
    monkeypatch.setattr("training.pictures._CACHE_BYTES", 4 * 3 * 48 * 32)
    some = Pictures(samples, config, "test").batch(range(6))
    assert torch.equal(some[:4], everything[:4])
    assert not torch.equal(some[4:], everything[4:])  # not rounded to bytes
    torch.testing.assert_close(some, everything, rtol=0, atol=0.51 / 255)


def test_a_run_says_what_made_it(trained: Path, trunk_weights: Path) -> None:
    source = read_weights(trunk_weights).source
    for member in MEMBERS:
        figures = metrics(trained / "runs" / member)
        assert figures.member == member
        assert figures.backbone == (None if member == "baseline_cnn" else source)
        assert figures.model_bytes == (trained / "runs" / member / "model.safetensors").stat().st_size
        assert figures.training.duration_s > 0
        assert figures.training.country == "FRA"
        assert figures.test is not None
        assert not (trained / "runs" / member / CHECKPOINT).exists()
        assert (trained / "runs" / member / "README.md").read_text().startswith("---\n")


# --- a kill ----------------------------------------------------------------------------------------------------------


def test_a_run_that_dies_at_its_end_is_no_finished_run_of_the_settings_before(
    training_args: train_all.Args, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = runs / "patch_knn"

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.finish.measured", die)
        with pytest.raises(KeyboardInterrupt):
            fit_patch_knn.main(knn_args(training_args, out, coreset=0.02))
    with pytest.raises(DataError, match="no finished run"):
        release.read_runs([out], "cable")
    fit_patch_knn.main(knn_args(training_args, out))  # and so it is fitted, not done already
    assert metrics(out).settings["coreset"] == 0.05
    assert len(load_file(out / "model.safetensors")["memory"]) == metrics(out).settings["memory"]


# --- where trunks come from ------------------------------------------------------------------------------------------


@pytest.fixture
def trunk_repo(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """alice/trunk on the Hub, as timm itself writes a repo, twice: tag -> commit."""
    import timm
    from timm.models import save_for_hf

    use_hub(hub, tmp_path / "cache", monkeypatch)
    commits = {}
    for seed, tag in enumerate(("v1", "v2")):
        torch.manual_seed(seed)
        save_for_hf(timm.create_model("test_efficientnet"), tmp_path / tag, safe_serialization=True)
        files = ["config.json", "model.safetensors"]
        commits[tag] = registry.push(tmp_path / tag, "alice/trunk", files=files, message=tag, tag=tag)
    return commits


def test_a_trunk_from_the_hub_is_pinned_to_its_commit(
    trunk_repo: dict[str, str], training_args: train_all.Args, tmp_path: Path
) -> None:
    args = knn_args(training_args, tmp_path / "run", weights=None, backbone="alice/trunk")
    assert pretrained(args).source == f"alice/trunk@{trunk_repo['v2']}"
    first = dataclasses.replace(args, backbone="alice/trunk@v1")
    fit_patch_knn.main(first)
    assert metrics(tmp_path / "run").backbone == f"alice/trunk@{trunk_repo['v1']}"
    stored = load_file(tmp_path / "run" / "model.safetensors")
    theirs = load_file(tmp_path / "v1" / "model.safetensors")
    assert torch.equal(stored["trunk.net.model.conv_stem.weight"], theirs["conv_stem.weight"])
    assert load_detector(tmp_path / "run").detector.config.mean == pretrained(first).mean


def test_without_the_hub_the_way_out_is_named(
    hub: LoopbackHub, training_args: train_all.Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, tmp_path / "cache", monkeypatch)
    args = knn_args(training_args, tmp_path / "run", weights=None, backbone="alice/trunk")
    with pytest.raises(RegistryError, match=r"alice/trunk.*\(for training without the Hub give --weights FILE\)"):
        pretrained(args)
    hub.stop()
    with pytest.raises(HubUnreachableError, match="--weights FILE"):
        pretrained(args)


def test_every_script_that_needs_weights_has_the_same_default(
    hub: LoopbackHub, training_args: train_all.Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, tmp_path / "cache", monkeypatch)
    for script in (fit_mahalanobis, fit_patch_knn, train_classifier):
        with pytest.raises(RegistryError, match=r"timm/resnet18\..*--weights FILE"):
            script.main(args_for(script.Args, training_args, tmp_path / "run"))


def test_a_repo_that_is_no_trunk_is_refused(
    trunk_repo: dict[str, str], training_args: train_all.Args, tmp_path: Path
) -> None:
    (tmp_path / "v1/config.json").write_text("{")
    files = ["config.json", "model.safetensors"]
    registry.push(tmp_path / "v1", "alice/trunk", files=files, message="spoilt")
    with pytest.raises(ModelLoadError, match="not a timm or transformers model"):
        pretrained(knn_args(training_args, tmp_path / "run", weights=None, backbone="alice/trunk"))
    with pytest.raises(ModelLoadError, match=r"unknown backbone 'resnet1'.*--weights FILE"):
        pretrained(knn_args(training_args, tmp_path / "run", weights=None, backbone="resnet1"))


def test_a_classifier_does_not_start_from_weights_of_another_network(
    training_args: train_all.Args, tmp_path: Path
) -> None:
    args = args_for(train_classifier.Args, training_args, tmp_path, weights=training_args.weights, arch="test_resnet")
    with pytest.raises(DataError, match=r"test_efficientnet.* with --arch test_resnet: give weights of the same"):
        train_classifier.main(args)


# --- command lines ---------------------------------------------------------------------------------------------------

DETECTOR_FLAGS = "data category out layout backbone weights arch epochs seed push tag"
FLAGS = {
    **dict.fromkeys(("fit_mahalanobis", "fit_patch_knn", "train_autoencoder", "train_classifier"), DETECTOR_FLAGS),
    "train_all": "data category out preset weights seed",
    "release": "category members out push tag",
}


def call(script: str, *words: object) -> int:
    module: Any = importlib.import_module(f"training.{script}")
    return run(module.main, module.Args, [str(word) for word in words])


@pytest.mark.parametrize("script", FLAGS)
def test_every_script_has_its_flags_and_says_what_it_is(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(script, "--help")
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert [flag for flag in FLAGS[script].split() if f"--{flag} " not in said] == []
    assert " ".join(importlib.import_module(f"training.{script}").__doc__.split(".")[0].split()) in " ".join(
        said.split()
    )


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("fit_patch_knn", ["--out", "x"]),
        ("fit_patch_knn", ["--data", "x", "--category", "c", "--out", "x", "--colour", "red"]),
        ("fit_patch_knn", ["--data", "x", "--category", "c", "--out", "x", "--tag", "v1"]),
        ("train_autoencoder", ["--data", "x", "--category", "c", "--out", "x", "--epochs", "0"]),
        ("train_autoencoder", ["--data", "x", "--category", "c", "--out", "x", "--epochs", "many"]),
        ("train_classifier", ["--data", "x", "--category", "c", "--out", "x", "--batch-size", "0"]),
        ("fit_mahalanobis", ["--data", "x", "--category", "c", "--out", "x", "--pooling", "max"]),
        ("train_all", ["--data", "x", "--category", "c", "--out", "x", "--preset", "slow"]),
    ],
)
def test_wrong_usage_is_exit_code_2(script: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(script, *words)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("train_all", ["--data", "nowhere", "--tag", "v1"]),  # of the local release: no --push needed
        ("fit_patch_knn", ["--data", "DATA", "--weights", "nothing.safetensors"]),
        ("fit_patch_knn", ["--data", "DATA", "--coreset", "2"]),
        ("fit_patch_knn", ["--data", "DATA", "--far", "0.001"]),
        ("fit_mahalanobis", ["--data", "DATA", "--country", "XXX", "--weights", "WEIGHTS"]),
        ("fit_mahalanobis", ["--data", "DATA", "--image-size", "5000", "--weights", "WEIGHTS"]),
        ("fit_mahalanobis", ["--data", "DATA", "--group-regex", "(", "--weights", "WEIGHTS"]),
        ("train_autoencoder", ["--data", "DATA", "--image-size", "65"]),
        ("train_classifier", ["--data", "DATA", "--arch", "baseline_cnn", "--width", "9"]),
    ],
)
def test_wrong_input_is_exit_code_1_and_one_line(
    script: str, words: list[str], cables: Path, trunk_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"DATA": str(cables), "WEIGHTS": str(trunk_weights)}
    assert call(script, *[known.get(word, word) for word in words], "--category", "cable", "--out", tmp_path / "o") == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_good_pictures_alone_do_not_make_a_classifier(
    cables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cables / "cable/train/good", tmp_path / "data/train/good")
    words = ("--data", tmp_path / "data", "--category", "cable", "--arch", "baseline_cnn", "--out", tmp_path / "out")
    assert call("train_classifier", *words) == 1
    said = capsys.readouterr().err
    assert "put some into train/<defect>, take --protocol supervised, or use a detector that needs good" in said


def test_a_folder_that_cannot_be_written_to_is_named(
    cables: Path, trunk_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = ("--data", cables, "--category", "cable", "--weights", trunk_weights, "--image-size", 64)
    assert call("fit_patch_knn", *words, "--out", tmp_path / "file/run") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(tmp_path / "file") in said


def test_a_script_is_run_as_a_module(tmp_path: Path) -> None:
    words = ["-m", "training.fit_patch_knn", "--data", tmp_path / "nowhere", "--category", "c", "--out", tmp_path]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
