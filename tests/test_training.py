"""From a folder of pictures to a released inspector: what the training scripts write, refuse, push and do not redo."""

import dataclasses
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from loopback_hub import LoopbackHub
from released import use_hub
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.covariance import ledoit_wolf_shrinkage
from tiny import tiny_trunk

from anomaly import hub as registry
from anomaly.backbones import read_weights, timm_model
from anomaly.calibration import read_calibration
from anomaly.detectors import DetectorConfig, MahalanobisConfig
from anomaly.errors import DataError, HubUnreachableError, ModelLoadError, RegistryError, RevisionNotFoundError
from anomaly.figures import InspectorMetrics, ModelMetrics
from anomaly.inspector import InspectorFile, load_inspector
from anomaly.model_repo import MODEL_FILES, load_detector
from training import (
    fit_mahalanobis,
    fit_patch_knn,
    release,
    train_all,
    train_autoencoder,
    train_classifier,
)
from training.arguments import run
from training.finish import pretrained
from training.loop import CHECKPOINT
from training.pictures import Pictures, load
from training.splits import Manifest

UNLABELLED = ("mahalanobis", "mahalanobis_global", "patch_knn", "autoencoder")
MEMBERS = (*UNLABELLED, "baseline_cnn", "classifier")
SCRIPTS: dict[str, Any] = {
    "fit_mahalanobis": fit_mahalanobis,
    "fit_patch_knn": fit_patch_knn,
    "train_autoencoder": train_autoencoder,
    "train_classifier": train_classifier,
    "train_all": train_all,
    "release": release,
}
INSPECTOR = "alice/cable"


def manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "manifest.json").read_bytes())


def metrics(folder: Path) -> ModelMetrics:
    return ModelMetrics.model_validate_json((folder / "metrics.json").read_bytes())


def local(folder: Path, repo: str = "local/inspector") -> registry.Source:
    return registry.Source(repo, repo, folder)


def released_file(source: registry.Source, revision: str | None = None) -> InspectorFile:
    folder = registry.download(source, registry.resolve(source, revision), ["inspector.json"])
    return InspectorFile.model_validate_json((folder / "inspector.json").read_bytes())


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """The runs of `train_all`, to spoil."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def good_only(cables: Path, tmp_path: Path) -> Path:
    """The same cables, of which nobody has labelled a defect for training."""
    shutil.copytree(cables, tmp_path / "good_only")
    for folder in (tmp_path / "good_only/cable/train").iterdir():
        if folder.name != "good":
            shutil.rmtree(folder)
    return tmp_path / "good_only"


# --- train_all -------------------------------------------------------------------------------------------------------


def test_with_labelled_defects_there_are_six_members(trained: Path) -> None:
    inspector = load_inspector(str(trained), "v1")
    assert tuple(inspector.members) == MEMBERS
    assert list(inspector.policies) == ["majority", "safe"]
    assert inspector.file.category == "cable"
    assert inspector.file.labels[0] == "good"
    assert len(inspector.file.labels) == 9
    picture = (load(next((trained / "runs").parent.glob("runs"))) if False else np.zeros((64, 64, 3), np.uint8))
    assert {vote.member for vote in inspector.inspect(picture, "majority").report.votes} == set(MEMBERS)
