"""A detector as a folder: config.json, model.safetensors, calibration.json, reference.safetensors. Nothing else is
read, nothing is imported or unpickled, and a folder that is not exactly right does not load."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from torch.nn import functional as F

from anomaly.calibration import CalibrationFile, read_calibration
from anomaly.detectors import DETECTORS, Detector
from anomaly.errors import ModelLoadError

MODEL_FILES = ("config.json", "model.safetensors", "calibration.json", "reference.safetensors")
CARD_FILES = ("metrics.json", "README.md")

# Another CPU or torch build adds in another order; the deepest network here moved by 2e-5 between 1 and 2 threads.
_REFERENCE_TOLERANCE = 1e-3


class _ConfigFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kind: str
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedDetector:
    """A detector in evaluation mode and what makes its scores comparable."""

    detector: Detector
    calibrations: CalibrationFile


def save_detector(folder: Path, detector: Detector, calibrations: CalibrationFile) -> None:
    """Writes the four files that `load_detector` reads."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    detector.eval()
    config = _ConfigFile(kind=detector.kind, config=detector.config.model_dump(mode="json"))
    (folder / "config.json").write_text(config.model_dump_json(indent=1) + "\n")
    (folder / "calibration.json").write_text(calibrations.model_dump_json(indent=1) + "\n")
    state = {name: value.detach().cpu().contiguous().clone() for name, value in detector.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    image = torch.randint(0, 256, (1, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    save_file({"image": image, "scores": _reference_scores(detector, image)}, folder / "reference.safetensors")


def load_detector(folder: Path, *, device: str = "cpu") -> LoadedDetector:
    """Rebuilds a detector and checks that it gives the reference scores.

    Raises:
        ModelLoadError: naming the file and the cause, for whatever is missing, corrupt, unknown or misshapen.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in MODEL_FILES:
        if not (folder / name).is_file():
            raise ModelLoadError(f"{folder}: {name} is missing; a model folder holds {', '.join(MODEL_FILES)}")
    try:
        file = _ConfigFile.model_validate_json((folder / "config.json").read_bytes())
    except ValidationError as error:
        raise ModelLoadError(f"{folder / 'config.json'}: {error}") from error
    if file.kind not in DETECTORS:
        raise ModelLoadError(f"{folder / 'config.json'}: unknown detector {file.kind!r}; known: {sorted(DETECTORS)}")
    kind = DETECTORS[file.kind]
    try:
        config = kind.config_type.model_validate_json(json.dumps(file.config))
    except ValidationError as error:
        raise ModelLoadError(f"{folder / 'config.json'}: {error}") from error
    try:
        detector = kind.from_state(config, load_file(folder / "model.safetensors")).eval().requires_grad_(False)
        reference = load_file(folder / "reference.safetensors")
        detector = detector.to(device)
        expected, found = reference["scores"], _reference_scores(detector, reference["image"].to(device)).cpu()
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise ModelLoadError(f"{folder}: model.safetensors does not make a {file.kind}: {error}") from error
    if not torch.allclose(found, expected, rtol=_REFERENCE_TOLERANCE, atol=_REFERENCE_TOLERANCE):
        raise ModelLoadError(
            f"{folder}: the reference image scores {found.tolist()}, but {expected.tolist()} was recorded when the "
            "model was saved: the weights are not the ones that were evaluated"
        )
    return LoadedDetector(detector, read_calibration(folder / "calibration.json"))


@torch.no_grad()
def _reference_scores(detector: Detector, image: Tensor) -> Tensor:
    """(1, 3, 48, 48) uint8 noise, enlarged in blocks so that every stage of a network sees something -> (1,)."""
    enlarged = F.interpolate(image.float() / 255, scale_factor=4, mode="nearest")
    return detector.predict_from(detector.inputs(enlarged), (enlarged.shape[-2], enlarged.shape[-1])).scores.cpu()
