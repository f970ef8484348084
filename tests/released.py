"""Where the tests of the Hub start: five models and two inspectors of them, each released twice on a loopback Hub."""

import functools
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from loopback_hub import LoopbackHub
from PIL import Image
from tiny import CLASSES, as_picture, good_images, tiny_calibration, tiny_detectors

from anomaly import hub as registry
from anomaly.calibration import CalibrationFile
from anomaly.detectors import Detector, PatchKNN
from anomaly.images import RgbImage
from anomaly.inspector import INSPECTOR_FILE, Inspection, InspectorFile, MemberRef
from anomaly.model_repo import MODEL_FILES, save_detector
from anomaly.policy import Policy, Rule
from anomaly.service import Service
from anomaly.settings import Settings

INSPECTOR = "alice/waves"  # all of KINDS
PAIR = "alice/pair"  # two of them, for tests that load often
KINDS = ("autoencoder", "baseline_cnn", "classifier", "mahalanobis", "patch_knn")
PAIR_KINDS = ("autoencoder", "mahalanobis")
TAGS = ("v1", "v2")


@dataclass(frozen=True, slots=True)
class Release:
    """What was pushed, and from where."""

    folder: Path  # <tag>/<member>/ with the files of each model, <tag>/inspector/
    hub_root: Path
    cache: Path  # of the Hub, with everything in it
    commits: Mapping[str, str]  # tag -> commit of INSPECTOR
    pair: Mapping[str, str]  # tag -> commit of PAIR


def file_of(release: Release, tag: str) -> InspectorFile:
    return InspectorFile.model_validate_json((release.folder / tag / "inspector" / INSPECTOR_FILE).read_bytes())


def picture(seed: int = 7) -> RgbImage:
    return as_picture(good_images(1, seed=seed)[0])


PICTURE = Image.fromarray(picture())


def scores(inspection: Inspection) -> dict[str, float | None]:
    return {vote.member: vote.score for vote in inspection.report.votes}


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.getbasetemp() / "release")


@pytest.fixture
def served(hub: LoopbackHub, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """A running Hub with the release on it; this process is alice and has nothing cached."""
    shutil.copytree(release.hub_root, hub.root, dirs_exist_ok=True)
    use_hub(hub, tmp_path / "cache", monkeypatch)
    return hub


@pytest.fixture
def stocked(served: LoopbackHub, release: Release, tmp_path: Path) -> LoopbackHub:
    """The same Hub; this process has downloaded both tags before."""
    shutil.copytree(release.cache, tmp_path / "cache", symlinks=True)
    return served


@pytest.fixture
def service(stocked: LoopbackHub) -> Service:
    """A running app that has inspected with both tags of PAIR."""
    service = new_service()
    for tag in TAGS:
        assert service.inspect(PICTURE, revision=tag).report.warnings == ()
    stocked.log.clear()
    return service


def new_service(**settings: object) -> Service:
    return Service(Settings(inspectors=(PAIR,), **settings))


def use_hub(hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person sets: the Hub, alice's token, an empty cache."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_loopback_alice")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))


@functools.cache
def make_release(folder: Path) -> Release:
    """Saves and pushes the models and the inspectors that name them, for each tag; once in a test run."""
    commits, pair, detectors = {}, {}, tiny_detectors()
    with pytest.MonkeyPatch.context() as monkeypatch, LoopbackHub(folder / "hub") as hub:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        use_hub(hub, folder / "cache", monkeypatch)
        for tag in TAGS:
            members = []
            for name in KINDS:
                ref = save_member(folder / tag / name, name, detectors[name])
                commit = _push(folder / tag / name, ref.repo, MODEL_FILES, tag)
                members.append(ref.model_copy(update={"commit": commit}))
            save_inspector(folder / tag / "inspector", members)
            commits[tag] = _push(folder / tag / "inspector", INSPECTOR, [INSPECTOR_FILE], tag)
            save_inspector(folder / tag / "pair", [members[KINDS.index(name)] for name in PAIR_KINDS])
            pair[tag] = _push(folder / tag / "pair", PAIR, [INSPECTOR_FILE], tag)
            _change(detectors)
    return Release(folder, folder / "hub", folder / "cache", commits, pair)


def _push(folder: Path, repo_id: str, files: Sequence[str], tag: str) -> str:
    """Also fills the cache."""
    commit = registry.push(folder, repo_id, files=files, message=f"{repo_id.split('/')[1]} {tag}", tag=tag)
    registry.download(registry.Source(repo_id, repo_id), commit, files)
    return commit


def save_member(folder: Path, name: str, detector: Detector) -> MemberRef:
    """Writes a model's files; the commit is filled in by whoever publishes it."""
    save_detector(folder, detector, CalibrationFile(categories={"waves": tiny_calibration(detector)}))
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return MemberRef(name=name, repo=f"alice/waves-{name}", commit="0" * 40, sha256=digest)


def save_inspector(folder: Path, members: list[MemberRef]) -> None:
    names = tuple(member.name for member in members)
    policies = tuple(
        Policy(
            name=kind,
            description={"en": kind, "fr": kind},
            rule=Rule(kind=kind, members=names, threshold="far"),
            required=names,
        )
        for kind in ("majority", "any")
    )
    file = InspectorFile(
        category="waves", labels=CLASSES, members=tuple(members), policies=policies, default_policy="majority"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INSPECTOR_FILE).write_text(file.model_dump_json(indent=1))


def store_locally(release: Release, cache: Path) -> None:
    """The same content as on the Hub, in a local folder, under the same names and tags."""
    for tag in TAGS:
        members = []
        for ref in file_of(release, tag).members:
            stored = registry.store(release.folder / tag / ref.name, cache, ref.repo, files=MODEL_FILES, tag=tag)
            members.append(ref.model_copy(update={"commit": stored}))
        save_inspector(cache / "work" / tag, members)
        registry.store(cache / "work" / tag, cache, INSPECTOR, files=[INSPECTOR_FILE], tag=tag)


@torch.no_grad()
def _change(detectors: dict[str, Detector]) -> None:
    """Other weights of every detector, so that v2 scores otherwise; the trunk stays byte-identical."""
    for detector in detectors.values():
        for name, value in detector.state_dict().items():
            if value.is_floating_point() and not name.startswith("trunk."):
                value.mul_(1.05)
    patch_knn = detectors["patch_knn"]
    assert isinstance(patch_knn, PatchKNN)
    detectors["patch_knn"] = PatchKNN(patch_knn.config, patch_knn.trunk, patch_knn.memory).eval()  # norms of the memory
