"""Releases: which runs make one inspector, and what is pushed to the Hub, once."""

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from loopback_hub import LoopbackHub
from released import use_hub
from trained import args_for, folders, inspector_file, knn_args, manifest, runs

from anomaly import cli
from anomaly import hub as registry
from anomaly.errors import DataError, RegistryError
from anomaly.evaluation import Evaluation
from anomaly.inspector import InspectorFile
from anomaly.loading import load_inspector
from anomaly.model_repo import MODEL_FILES, load_detector
from training import fit_patch_knn, release, train_all, train_classifier

__all__ = ["runs"]  # a fixture

REPO = "alice/cable"
PUSHED = ("mahalanobis", "patch_knn", "autoencoder")

# --- releases --------------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, *members: Path, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        release.main(
            release.Args(category=more.pop("category", "cable"), members=members, out=tmp_path / "out", **more)
        )
    assert not list((tmp_path / "out").glob("models--*inspector"))
    return str(caught.value)


def test_runs_on_different_splits_are_not_released_together(
    runs: Path, training_args: train_all.Args, tmp_path: Path
) -> None:
    fit_patch_knn.main(knn_args(training_args, tmp_path / "other", seed=1))
    said = refused(tmp_path, runs / "autoencoder", tmp_path / "other")
    assert "different splits" in said
    assert manifest(runs / "autoencoder").split_hash[:12] in said
    assert manifest(tmp_path / "other").split_hash[:12] in said


def test_one_member_twice_is_refused(runs: Path, tmp_path: Path) -> None:
    assert "both called 'autoencoder'" in refused(tmp_path, runs / "autoencoder", runs / "autoencoder")


def test_what_is_not_finished_is_refused(runs: Path, tmp_path: Path) -> None:
    (runs / "patch_knn/run.json").unlink()
    assert f"{runs / 'patch_knn'} is no finished run" in refused(tmp_path, runs / "autoencoder", runs / "patch_knn")
    assert "no finished run" in refused(tmp_path, tmp_path / "nowhere")


def test_a_run_for_another_category_is_refused(runs: Path, tmp_path: Path) -> None:
    assert "calibrated for ['cable'], not for 'screw'" in refused(tmp_path, runs / "patch_knn", category="screw")


def test_a_release_is_measured_on_the_test_pictures_that_were_kept_apart(
    runs: Path, cables: Path, tmp_path: Path
) -> None:
    shutil.copytree(cables, tmp_path / "moved")
    args = release.Args(category="cable", members=folders(runs, "patch_knn"), out=tmp_path / "out")
    release.main(dataclasses.replace(args, data=tmp_path / "moved", name="local/moved"))
    (tmp_path / "moved/cable/test/good/005.png").unlink()
    said = refused(tmp_path, runs / "patch_knn", data=tmp_path / "moved")
    assert "test/good/005.png is not the test picture that" in said


def test_a_release_reads_the_data_as_the_runs_did(training_args: train_all.Args, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(training_args.data, data)
    (data / "cable/ground_truth/poke_insulation/000_mask.png").unlink()  # `auto` would miss it
    args = knn_args(training_args, tmp_path / "run", data=data, layout="folder")
    fit_patch_knn.main(args)
    release.main(release.Args(category="cable", members=(tmp_path / "run",), out=tmp_path / "out"))
    assert inspector_file(registry.parse_source(str(tmp_path / "out"))).labels[0] == "good"


def test_two_classifiers_are_told_apart_by_their_architecture(
    runs: Path, training_args: train_all.Args, tmp_path: Path
) -> None:
    second = args_for(
        train_classifier.Args, training_args, tmp_path / "second", arch="test_resnet", image_size=64, epochs=1
    )
    train_classifier.main(second)
    members = (*folders(runs, "classifier", "patch_knn"), second.out)
    release.main(release.Args(category="cable", members=members, out=tmp_path / "out"))
    inspector = load_inspector(str(tmp_path / "out"))
    assert list(inspector.members) == ["classifier_test_efficientnet", "patch_knn", "classifier_test_resnet"]


def test_a_tag_is_not_moved(runs: Path, tmp_path: Path) -> None:
    args = release.Args(category="cable", members=folders(runs, "patch_knn"), out=tmp_path / "out", tag="v1")
    release.main(args)
    first = registry.resolve(registry.parse_source(str(tmp_path / "out")), "v1")
    with pytest.raises(RegistryError, match="has a tag v1 already"):
        release.main(dataclasses.replace(args, members=folders(runs, "autoencoder")))
    assert registry.resolve(registry.parse_source(str(tmp_path / "out")), "v1") == first
    release.main(dataclasses.replace(args, tag="v2", note="Kept for its small size."))
    second = registry.resolve(registry.parse_source(str(tmp_path / "out")), "v2")
    assert inspector_file(registry.parse_source(str(tmp_path / "out")), second).members[0].name == "patch_knn"
    folder = registry.download(registry.parse_source(str(tmp_path / "out")), second, ["README.md"])
    assert "Kept for its small size." in (folder / "README.md").read_text()


# --- to the Hub ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_release(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hub/ with alice/cable, tagged v1, and its members; runs/ that know where they were pushed to."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch, LoopbackHub(folder / "hub") as hub:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        use_hub(hub, folder / "cache", patch)
        for member in PUSHED:
            shutil.copytree(trained / "runs" / member, folder / "runs" / member)
        members = folders(folder / "runs", *PUSHED)
        release.main(release.Args(category="cable", members=members, push=REPO, tag="v1"))
    return folder


@pytest.fixture
def published(hub: LoopbackHub, first_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """The same on a Hub of this test's own, with an empty cache; the runs in `tmp_path`."""
    shutil.copytree(first_release / "hub", hub.root, dirs_exist_ok=True)
    shutil.copytree(first_release / "runs", tmp_path / "runs")
    use_hub(hub, tmp_path / "cache", monkeypatch)
    return hub


@pytest.fixture
def second(published: LoopbackHub, tmp_path: Path) -> release.Args:
    return release.Args(category="cable", members=folders(tmp_path / "runs", *PUSHED), push=REPO, tag="v2", note="Why.")


def writes(hub: LoopbackHub) -> list[str]:
    return [path for method, path, _ in hub.log if method not in ("GET", "HEAD")]


def on_hub(revision: str) -> InspectorFile:
    return inspector_file(registry.parse_source(REPO), revision)


def test_a_pushed_release_names_its_members_at_their_commits(published: LoopbackHub, tmp_path: Path) -> None:
    for ref in on_hub("v1").members:
        source = registry.parse_source(ref.repo)
        assert ref.repo == f"alice/cable-{ref.name}"
        assert registry.resolve(source) == ref.commit
        folder = registry.download(source, ref.commit, [*MODEL_FILES, "README.md", "metrics.json"])
        assert all((folder / n).read_bytes() == (tmp_path / "runs" / ref.name / n).read_bytes() for n in MODEL_FILES)
        assert ref.repo in (folder / "README.md").read_text()
        entries = published.repo(ref.repo).entries(ref.commit)
        assert not {entry.path for entry in entries} & {"run.json", "manifest.json", "pushed.json"}
    assert list(load_inspector(REPO, "v1").members) == list(PUSHED)


def test_a_second_release_takes_the_members_that_are_there(published: LoopbackHub, second: release.Args) -> None:
    release.main(second)
    assert on_hub("v2").members == on_hub("v1").members
    assert {path for path in writes(published) if "/commit/" in path} == {f"/api/models/{REPO}/commit/main"}
    tags = [
        revision.name for revision in registry.list_revisions(registry.parse_source(REPO)) if revision.kind == "tag"
    ]
    assert tags == ["v2", "v1"]


def test_the_same_release_again_writes_nothing(published: LoopbackHub, second: release.Args) -> None:
    release.main(dataclasses.replace(second, tag="v1", note=None))
    assert writes(published) == []


def test_a_member_that_was_calibrated_anew_is_pushed_anew_even_if_its_weights_are_the_same(
    published: LoopbackHub, second: release.Args, training_args: train_all.Args
) -> None:
    before = {ref.name: ref for ref in on_hub("v1").members}
    run_folder = second.members[PUSHED.index("patch_knn")]
    fit_patch_knn.main(knn_args(training_args, run_folder, far=0.0505))
    release.main(second)
    after = {ref.name: ref for ref in on_hub("v2").members}
    assert after["patch_knn"].sha256 == before["patch_knn"].sha256
    assert [name for name in PUSHED if after[name] != before[name]] == ["patch_knn"]
    assert load_inspector(REPO, "v2").members["patch_knn"].calibration.thresholds["far"].level == 0.0505


def test_a_member_that_is_gone_from_the_hub_is_pushed_again(published: LoopbackHub, second: release.Args) -> None:
    shutil.rmtree(published.repo("alice/cable-autoencoder").path)
    release.main(second)
    assert list(load_inspector(REPO, "v2").members) == list(PUSHED)


def test_a_finished_run_is_pushed_and_tagged_without_fitting_it_again(
    published: LoopbackHub, training_args: train_all.Args, trained: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(trained / "runs/patch_knn", tmp_path / "run"))
    args = knn_args(training_args, out, push="alice/alone", tag="v1")
    before = (out / "model.safetensors").stat().st_mtime_ns
    fit_patch_knn.main(args)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    source = registry.parse_source("alice/alone")
    folder = registry.download(source, registry.resolve(source, "v1"), MODEL_FILES)
    assert load_detector(folder).detector.kind == "patch_knn"
    done = writes(published)
    fit_patch_knn.main(args)  # the tag exists by now, and that is no error
    assert writes(published) == done


def test_the_command_line_works_on_what_was_pushed(
    published: LoopbackHub,
    cables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def vigie(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["anomaly", *map(str, words)])
        assert cli.main() == 0, capsys.readouterr().err
        return capsys.readouterr().out

    commit = registry.resolve(registry.parse_source(REPO), "v1")
    assert f"{REPO}@{commit}: inspector of cable" in vigie("pull", REPO, "--revision", "v1")
    assert "patch_knn in " in vigie("pull", f"{REPO}-patch_knn")
    assert commit in vigie("revisions", "--inspector", REPO)
    vigie("evaluate", "--data", cables, "--inspector", REPO, "--revision", "v1", "--json", tmp_path / "out.json")
    found = Evaluation.model_validate_json((tmp_path / "out.json").read_bytes())
    assert (found.inspector, found.revision, found.commit) == (REPO, "v1", commit)
    assert list(found.members) == list(PUSHED)
