"""What the tests of training share: the arguments of scripts, and what finished runs and releases say of themselves."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from anomaly import hub as registry
from anomaly.figures import ModelMetrics
from anomaly.inspector import InspectorFile
from training import fit_patch_knn, train_all
from training.arguments import DataArgs
from training.manifest import Manifest


def args_for(kind: Any, given: train_all.Args, out: Path, **more: Any) -> Any:
    """The arguments that `train_all` would hand on to a script."""
    common = {field.name: getattr(given, field.name) for field in dataclasses.fields(DataArgs)}
    return kind(**common | {"out": out} | more)


def knn_args(given: train_all.Args, out: Path, **more: Any) -> fit_patch_knn.Args:
    """As `train_all` had them for patch_knn."""
    same = {"weights": given.weights, "image_size": 64, "coreset": 0.05}
    args: fit_patch_knn.Args = args_for(fit_patch_knn.Args, given, out, **same | more)
    return args


def metrics(run: Path) -> ModelMetrics:
    return ModelMetrics.model_validate_json((run / "metrics.json").read_bytes())


def manifest(run: Path) -> Manifest:
    return Manifest.model_validate_json((run / "manifest.json").read_bytes())


def inspector_file(source: registry.Source, revision: str | None = None) -> InspectorFile:
    folder = registry.download(source, registry.resolve(source, revision), ["inspector.json"])
    return InspectorFile.model_validate_json((folder / "inspector.json").read_bytes())


def folders(runs: Path, *members: str) -> tuple[Path, ...]:
    return tuple(runs / member for member in members)


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """The runs of `train_all`, to spoil."""
    return Path(shutil.copytree(trained / "runs", tmp_path / "runs"))
