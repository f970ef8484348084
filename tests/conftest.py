"""Fixtures that several test files share: a small released inspector, and the app running on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser_page import app, browser, open_page, pictures  # noqa: F401  fixtures
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub, hub  # noqa: F401  a fixture
from torch import Tensor

from anomaly import hub as registry
from anomaly.backbones import Pretrained, Trunk, TrunkConfig, timm_model, write_weights
from anomaly.calibration import Calibration, CalibrationFile, HeatmapScale, calibrate
from anomaly.detectors import Autoencoder, AutoencoderConfig, Detector, PatchKNN, PatchKNNConfig
from anomaly.detectors.patches import patch_features
from anomaly.inspector import INSPECTOR_FILE, InspectorFile, MemberRef
from anomaly.model_repo import MODEL_FILES, save_detector
from anomaly.policy import Policy, ReviewBand, Rule
from anomaly.settings import Settings
from training import train_all
from training.synthetic_cable import render, write_dataset

SIDE = 64  # pixels of a picture, and of what the detectors look at
MEMBERS = ("autoencoder", "patch_knn")


@pytest.fixture(scope="session")
def inspector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released inspector in the Hub's cache layout, made in a second.

    `v1` and `v2` hold the same kinds of detector at other commits, with the policies `majority` (the default) and
    `any_alarm`. Real detectors, but not trained on anything: their decisions mean nothing.
    """
    folder = tmp_path_factory.mktemp("inspector")
    torch.manual_seed(0)
    trunk = Trunk(TrunkConfig(library="timm", architecture="test_resnet", layers=(1, 2)))
    for tag, memory in (("v1", 40), ("v2", 80)):
        net = Autoencoder(AutoencoderConfig(input_size=(SIDE, SIDE), width=4, stages=2))
        config = PatchKNNConfig(input_size=(SIDE, SIDE), trunk=trunk.config, use_layers=(1, 2))
        detectors = {"autoencoder": net, "patch_knn": PatchKNN(config, trunk, _patches(config, trunk)[:memory])}
        members = tuple(_release(folder, name, detector.eval(), tag) for name, detector in detectors.items())
        _release_inspector(folder, members, tag)
    return folder


@pytest.fixture(scope="session")
def picture_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic cable with a missing conductor, as a PNG file."""
    from PIL import Image

    path = tmp_path_factory.mktemp("pictures") / "cable.png"
    Image.fromarray(render("missing_cable", seed=3, size=128)[0]).save(path)
    return path


@pytest.fixture(scope="session")
def cables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cable/`: 40 good parts and 4 of each defect to train on, 6 and 1 of each to test on, 64 px."""
    folder = tmp_path_factory.mktemp("cables")
    write_dataset(folder, train_good=40, train_per_defect=4, test_good=6, test_per_defect=1, size=SIDE)
    return folder


@pytest.fixture(scope="session")
def trunk_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for `--weights`: a small timm network, its weights random."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm_model("test_efficientnet", {}, num_classes=0).state_dict()
    half = (0.5, 0.5, 0.5)
    path = tmp_path_factory.mktemp("weights") / "trunk.safetensors"
    write_weights(path, Pretrained("timm", "test_efficientnet", {}, state, half, half, (SIDE, SIDE), "a test"))
    return path


@pytest.fixture(scope="session")
def training_args(
    tmp_path_factory: pytest.TempPathFactory, cables: Path, trunk_weights: Path
) -> Iterator[train_all.Args]:
    """For `train_all` on `cables`; as long as they are in use, `quick` is a matter of seconds."""
    small: dict[str, dict[str, Any]] = {
        "mahalanobis": {"max_channels": 8},
        "mahalanobis_global": {},
        "patch_knn": {"coreset": 0.05},
        "autoencoder": {"width": 2, "epochs": 2},
        "baseline_cnn": {"width": 0.05, "epochs": 2},
        "classifier": {"epochs": 2},
        "classical_svm": {},
        "classical_forest": {"trees": 10},
        "classical_xgboost": {"trees": 5},
        "localiser": {"crop": SIDE, "crops": 1, "channels": 32, "convolutions": 1, "epochs": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_all, "QUICK", {name: {"image_size": SIDE, **effort} for name, effort in small.items()})
        out = tmp_path_factory.mktemp("trained")
        yield train_all.Args(
            data=cables, category="cable", out=out, preset="quick", weights=trunk_weights, tag="v1", country="FRA"
        )


@pytest.fixture(scope="session")
def trained(training_args: train_all.Args) -> Path:
    """What `train_all` leaves behind: runs/<member>/ of all ten, and the inspector that was released, tagged v1."""
    train_all.main(training_args)
    return training_args.out


@dataclass(frozen=True, slots=True)
class RunningApp:
    """The app behind a port of this machine."""

    url: str
    settings: Settings


@pytest.fixture(scope="session")
def start_app() -> Iterator[Callable[[Settings], RunningApp]]:
    """Launches the app with these settings, and waits until it is warm; all are closed at the end."""
    import time

    from anomaly import serving
    from app import serve

    served = []

    def start(settings: Settings) -> RunningApp:
        demo = serve(settings, server_name="127.0.0.1", quiet=True)
        served.append(demo)
        running = RunningApp(demo.local_url, settings)
        deadline = time.monotonic() + 120
        while serving.health(settings)["status"] == "starting":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the app on {settings.inspectors} is not warm after 120 s")
            time.sleep(0.05)
        return running

    yield start
    for demo in served:
        demo.close(verbose=False)


@pytest.fixture(scope="session")
def running_app(start_app: Callable[[Settings], RunningApp], inspector_folder: Path) -> RunningApp:
    """The app on `inspector_folder`."""
    return start_app(Settings(inspectors=(str(inspector_folder),)))


def _patches(config: PatchKNNConfig, trunk: Trunk) -> Tensor:
    """(M, C): the patches of one good picture."""
    probe = PatchKNN(config, trunk, torch.zeros(1, 1))
    maps = probe.inputs(_images([0]))
    return patch_features([maps[layer] for layer in config.use_layers])[0].flatten(1).T.contiguous()


def _images(seeds: list[int], defect: str | None = None) -> Tensor:
    drawn = np.stack([render(defect, seed=seed, size=SIDE)[0] for seed in seeds])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def _calibrated(detector: Detector) -> Calibration:
    good = detector.predict(_images(list(range(1, 7))))
    defects = detector.predict(_images(list(range(1, 4)), "missing_cable"))
    assert good.heatmaps is not None
    low, high = (float(good.heatmaps.quantile(q)) for q in (0.5, 0.999))
    return calibrate(
        good.scores.tolist(),
        defects.scores.tolist(),
        split_hash="0" * 16,
        far=0.2,
        heatmap=HeatmapScale(low=low, high=high, images=6),
    )


def _release(folder: Path, name: str, detector: Detector, tag: str) -> MemberRef:
    import hashlib

    work = folder / "work" / tag / name
    save_detector(work, detector, CalibrationFile(categories={"cable": _calibrated(detector)}))
    repo = f"test/cable-{name}"
    commit = registry.store(work, folder, repo, files=MODEL_FILES, tag=tag)
    digest = hashlib.sha256((work / "model.safetensors").read_bytes()).hexdigest()
    return MemberRef(name=name, repo=repo, commit=commit, sha256=digest)


def _release_inspector(folder: Path, members: tuple[MemberRef, ...], tag: str) -> None:
    majority = Policy(
        name="majority",
        description={"en": "More than half of the detectors.", "fr": "Plus de la moitié des détecteurs."},
        rule=Rule(kind="majority", members=MEMBERS, threshold="far"),
        review=ReviewBand(p_value=0.3),
    )
    any_alarm = Policy(
        name="any_alarm",
        description={"en": "One detector is enough.", "fr": "Un seul détecteur suffit."},
        rule=Rule(kind="any", members=MEMBERS, threshold="safe"),
        required=MEMBERS,
    )
    file = InspectorFile(
        category="cable",
        labels=("good", "missing_cable"),
        members=members,
        policies=(majority, any_alarm),
        default_policy="majority",
    )
    work = folder / "work" / tag / "inspector"
    work.mkdir(parents=True)
    (work / INSPECTOR_FILE).write_text(file.model_dump_json(indent=1))
    registry.store(work, folder, "test/cable-inspector", files=[INSPECTOR_FILE], tag=tag)


@pytest.fixture
def api(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HfApi:  # noqa: F811
    """Alice with the empty data set alice/parts and an empty cache."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_loopback_alice")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    client = HfApi(endpoint=hub.url, token="hf_loopback_alice")
    client.create_repo("alice/parts", repo_type="dataset")
    return client
