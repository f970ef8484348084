"""A detector as a folder: config.json, model.safetensors, calibration.json, reference.safetensors. Nothing else is
read, nothing is imported or unpickled, and a folder that is not exactly right does not load."""

import hashlib
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
_DIGEST = "model_sha256"  # key in the metadata of reference.safetensors


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
    weights = folder / "model.safetensors"
    save_file(state, weights, metadata={"format": "pt"})
    image = torch.randint(0, 256, (1, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    reference = {"image": image, "scores": _reference_scores(detector, image)}
    save_file(reference, folder / "reference.safetensors", metadata={_DIGEST: file_sha256(weights)})


def load_detector(folder: Path, *, device: str = "cpu", sha256: str | None = None) -> LoadedDetector:
    """Rebuilds a detector and checks that it gives the reference scores.

    Args:
        folder: with the four files.
        device: of torch.
        sha256: of model.safetensors, where the caller has taken it already.

    Raises:
        ModelLoadError: naming the file and the cause, for whatever is missing, corrupt, unknown or misshapen.
    """
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
    calibrations = read_calibration(folder / "calibration.json")
    try:
        detector = kind.from_state(config, load_file(folder / "model.safetensors")).eval().requires_grad_(False)
        detector = detector.to(device)
    except Exception as error:  # whatever a file's content sets off in torch or timm, the file is to blame
        raise ModelLoadError(
            f"{folder / 'model.safetensors'}: does not make the {file.kind} of config.json: {error}"
        ) from error
    _check_reference(detector, folder, sha256 or file_sha256(folder / "model.safetensors"))
    return LoadedDetector(detector, calibrations)


def _check_reference(detector: Detector, folder: Path, sha256: str) -> None:
    """Scores the reference image again: another torch, another preprocessing or other weights show here.

    A weight that does not weigh in this one score, such as a patch of the memory that is nobody's neighbour, does not:
    for those there is the digest of model.safetensors. Folders from before it was recorded go without.
    """
    from safetensors import safe_open

    path = folder / "reference.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            image, expected = file.get_tensor("image"), file.get_tensor("scores")
            recorded = (file.metadata() or {}).get(_DIGEST)
        found = _reference_scores(detector, image)
    except Exception as error:  # a detector whose parts do not fit each other fails here, in any way
        raise ModelLoadError(
            f"{path}: the reference image cannot be scored: {type(error).__name__}: {error}"
        ) from error
    if recorded is not None and recorded != sha256:
        raise ModelLoadError(
            f"{folder / 'model.safetensors'}: corrupt or exchanged: its sha256 is {sha256[:16]}, when it was saved it "
            f"was {recorded[:16]}"
        )
    same = found.shape == expected.shape and found.dtype == expected.dtype
    if not (same and torch.allclose(found, expected, rtol=_REFERENCE_TOLERANCE, atol=_REFERENCE_TOLERANCE)):
        raise ModelLoadError(
            f"{path}: the reference image scores {found.tolist()}, but {expected.tolist()} was recorded when the "
            "model was saved: the weights are not the ones that were evaluated"
        )


def file_sha256(path: Path) -> str:
    """64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@torch.no_grad()
def _reference_scores(detector: Detector, image: Tensor) -> Tensor:
    """(1, 3, 48, 48) uint8 noise, enlarged in blocks so that every stage of a network sees something -> (1,)."""
    device = next(iter(detector.state_dict().values())).device
    if detector.categories:
        detector = detector.select(detector.categories[0])
    enlarged = F.interpolate(image.to(device).float() / 255, scale_factor=4, mode="nearest")
    return detector.predict_from(detector.inputs(enlarged), (enlarged.shape[-2], enlarged.shape[-1])).scores.cpu()
