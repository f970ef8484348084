"""What a detector costs, measured on tiny ones."""

from pathlib import Path

import pytest
import torch
from levels import detectors as tiny
from levels import write_pictures
from tiny import tiny_calibration

from anomaly.calibration import CalibrationFile
from anomaly.detectors import Detector
from anomaly.emissions import EmissionsMeter
from anomaly.errors import VigieError
from anomaly.figures import TrainingFigures
from anomaly.model_repo import save_detector
from training.cost import Cost, cost, memory, operations, timed
from training.pictures import load


@pytest.fixture(scope="module")
def detectors() -> dict[str, Detector]:
    return tiny()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [sample.path for sample in write_pictures(tmp_path_factory.mktemp("cost"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, detectors: dict[str, Detector]) -> Path:
    path = tmp_path_factory.mktemp("model")
    knn = detectors["patch_knn"]
    save_detector(path, knn, CalibrationFile(categories={"waves": tiny_calibration(knn)}))
    return path


def test_everything_is_measured(detectors: dict[str, Detector], folder: Path, pictures: list[Path]) -> None:
    training = TrainingFigures(
        grams_co2eq=1, energy_wh=2.5, duration_s=7, hardware="x", country="FRA", g_per_kwh=56, backend="rapl"
    )
    found = cost(detectors["patch_knn"], folder, pictures, meter=EmissionsMeter("FRA"), training=training, repeats=8)
    assert found.model_bytes == (folder / "model.safetensors").stat().st_size
    assert found.parameters == sum(value.numel() for value in detectors["patch_knn"].state_dict().values())
    assert 0 < found.cpu_ms.median <= found.cpu_ms.p95
    assert found.pictures_per_s > 0
    assert found.energy_mj is None or found.energy_mj > 0
    assert (found.training_wh, found.training_s, found.pictures) == (2.5, 7, 8)
    assert (found.gpu_ms is not None) == torch.cuda.is_available()
    assert found.memory is not None  # of a process of its own
    assert 50 < found.memory.peak_mb < 5_000
    assert 0 <= found.memory.added_mb < found.memory.peak_mb
    assert Cost.model_validate_json(found.model_dump_json()) == found


def test_operations_are_those_of_the_layers(pictures: list[Path]) -> None:
    class OneLayer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)

        def predict(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images)

    batch = load(pictures[0])
    assert operations(OneLayer(), batch) == 2 * 64 * 64 * 5 * 3 * 3 * 3  # type: ignore[arg-type]


def test_more_layers_take_more_operations(detectors: dict[str, Detector], pictures: list[Path]) -> None:
    batch = load(pictures[0])
    assert operations(detectors["autoencoder"], batch) != operations(detectors["baseline_cnn"], batch) > 0


def test_only_the_asked_for_predictions_are_timed(detectors: dict[str, Detector], pictures: list[Path]) -> None:
    assert len(timed(detectors["mahalanobis_global"], [load(pictures[0])], 4)) == 4


def test_a_model_that_does_not_load_is_named(tmp_path: Path, pictures: list[Path]) -> None:
    with pytest.raises(VigieError, match=r"memory of .*config.json is missing"):
        memory(tmp_path, pictures[0])
