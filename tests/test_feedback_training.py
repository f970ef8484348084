"""From what people say to an inspector: `train_all` starts from the folder that the app fills."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import RunningApp
from gradio_client import Client, handle_file
from PIL import Image

from anomaly.datasets import read_dataset
from anomaly.loading import load_inspector
from anomaly.settings import Settings
from training import train_all
from training.cable_part import DEFECTS
from training.synthetic_cable import image_seed, render

GOOD_PARTS, DEFECTIVE, MARKED = 26, 6, 4
TYPES = DEFECTS[:2]


@pytest.mark.slow
def test_train_all_starts_from_what_people_said(
    start_app: Callable[[Settings], RunningApp],
    inspector_folder: Path,
    training_args: train_all.Args,
    tmp_path: Path,
) -> None:
    app = start_app(Settings(inspectors=(str(inspector_folder),), feedback=tmp_path / "said"))
    client = Client(app.url, verbose=False)
    for label in ("good", *TYPES):
        for index in range(GOOD_PARTS if label == "good" else DEFECTIVE):
            defect = None if label == "good" else label
            pixels, mask = render(defect, seed=image_seed(5, "said", label, index), size=64)
            Image.fromarray(pixels).save(tmp_path / "part.png")
            given, _ = client.predict(handle_file(tmp_path / "part.png"), api_name="/inspect")
            (top, bottom), (left, right) = (
                np.flatnonzero(mask.any(axis=a))[[0, -1]].tolist() if defect else (0, 0) for a in (1, 0)
            )
            region = [[left, top, right - left + 1, bottom - top + 1]] if defect and index < MARKED else []
            client.predict(handle_file(tmp_path / "part.png"), given, label, region, api_name="/feedback")
    client.close()
    said = read_dataset(tmp_path / "said", "cable")
    assert len(said.samples) == GOOD_PARTS + DEFECTIVE * len(TYPES)
    assert sum(sample.mask is not None for sample in said.samples) == MARKED * len(TYPES)

    out = tmp_path / "out"
    train_all.main(
        dataclasses.replace(training_args, data=tmp_path / "said", out=out, protocol="supervised", far=0.1, tag=None)
    )
    inspector = load_inspector(str(out))
    assert inspector.file.category == "cable"
    assert inspector.file.labels == ("good", *sorted(TYPES))
    assert {"patch_knn", "classifier"} <= set(inspector.members)
    assert "localiser" not in inspector.members  # not every defect is marked
    assert inspector.inspect(np.zeros((64, 64, 3), np.uint8)).report.votes
