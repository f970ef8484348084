"""Every training script, killed and started again, ends as one that was not: same weights, same figures."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from trained import args_for, metrics

from anomaly.errors import DataError
from training import (
    fit_mahalanobis,
    fit_patch_knn,
    release,
    train_all,
    train_autoencoder,
    train_classical,
    train_classifier,
    train_localiser,
)
from training.loop import CHECKPOINT

SCRIPTS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "baseline_cnn": (train_classifier, {"arch": "baseline_cnn", "width": 0.05, "batch_size": 8, "epochs": 8}),
    "classifier": (train_classifier, {"batch_size": 8, "phases": (2, 2, 3), "head": "attention"}),
    "autoencoder": (train_autoencoder, {"width": 2, "epochs": 8, "perceptual": 0.1, "batch_size": 8}),
    "localiser": (train_localiser, {"crop": 64, "crops": 1, "channels": 32, "convolutions": 1, "epochs": 4}),
    "mahalanobis": (fit_mahalanobis, {"max_channels": 8}),
    "patch_knn": (fit_patch_knn, {"coreset": 0.05}),
    "classical_svm": (train_classical, {"head": "svm"}),
    "classical_forest": (train_classical, {"head": "forest", "trees": 20}),
    "classical_xgboost": (train_classical, {"head": "xgboost", "trees": 5}),
}
LEARN_BY_EPOCHS = ("baseline_cnn", "classifier", "autoencoder", "localiser")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_killed_run_ends_as_one_that_was_not(name: str, training_args: train_all.Args, tmp_path: Path) -> None:
    script, options = SCRIPTS[name]
    options = {"image_size": 64, **options}
    if name != "baseline_cnn":
        options["weights"] = training_args.weights
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    script.main(args_for(script.Args, training_args, whole, **options))

    given = {"data": training_args.data, "category": "cable", "country": "FRA", "out": killed, **options}
    process = subprocess.Popen(
        [sys.executable, "-m", script.__name__, *flags(given)],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while not (epochs_saved(killed) >= 2 if name in LEARN_BY_EPOCHS else (killed / "model.safetensors").is_file()):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(DataError, match="no finished run"):
        release.read_runs([killed], "cable")

    script.main(args_for(script.Args, training_args, killed, **options))
    assert same_tensors(killed / "model.safetensors", whole / "model.safetensors")
    assert (killed / "calibration.json").read_bytes() == (whole / "calibration.json").read_bytes()
    assert metrics(killed).settings == metrics(whole).settings
    assert metrics(killed).curve == metrics(whole).curve
    assert figures(killed) == figures(whole)


def flags(options: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def figures(run: Path) -> dict[str, Any]:
    """On test, without what a clock or a meter says."""
    test = metrics(run).test
    assert test is not None
    return test.model_dump(exclude={"latency_ms", "energy_mj"})


def same_tensors(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def epochs_saved(folder: Path) -> int:
    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            epoch: int = json.loads(file.metadata()["notes"])["epoch"]
            return epoch
    except (OSError, SafetensorError):  # not there yet
        return 0


def test_every_script_of_train_all_is_here() -> None:
    assert {module.__name__ for module, _ in SCRIPTS.values()} == {
        module.__name__
        for module in vars(train_all).values()
        if isinstance(module, ModuleType) and "Args" in vars(module)
    } - {"training.release"}
    assert dataclasses.is_dataclass(train_all.Args)
