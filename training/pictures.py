"""Pictures of a split as tensors, through the same door and the same resizing as at inference."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from anomaly import images
from anomaly.datasets import Dataset, Sample
from anomaly.detectors import DetectorConfig
from anomaly.detectors.base import as_tensor, prepare
from training.manifest import Manifest, SplitName

_CACHE_BYTES = 2_000_000_000
_PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def load(path: Path) -> Tensor:
    """(1, 3, H, W) float32, RGB in [0, 1]."""
    return as_tensor(images.read(path))


def samples_of(dataset: Dataset, manifest: Manifest, *splits: SplitName) -> list[Sample]:
    """The samples that the manifest puts into these splits, in its order."""
    by_path = {sample.relative: sample for sample in dataset.samples}
    return [by_path[entry.path] for entry in manifest.entries if entry.split in splits]


class Pictures:
    """Pictures at a network's input size, RGB in [0, 1]; kept in memory as bytes as long as there is room."""

    def __init__(self, samples: Sequence[Sample], config: DetectorConfig, description: str) -> None:
        """Decodes what fits into 2 GB once.

        Args:
            samples: in the order of the indices.
            config: gives input_size; normalisation is left to the one who trains, behind the augmentation.
            description: of the progress bar.
        """
        self.samples = samples
        self._config = config.model_copy(update=_PLAIN)
        height, width = config.input_size
        room = _CACHE_BYTES // (3 * height * width)
        self._kept = torch.empty((min(room, len(samples)), 3, height, width), dtype=torch.uint8)
        for index in tqdm(range(len(self._kept)), desc=description, unit="img", leave=False, disable=None):
            self._kept[index] = (self._decode(index) * 255).round().to(torch.uint8)

    def _decode(self, index: int) -> Tensor:
        return prepare(load(self.samples[index].path), self._config)[0].clamp(0, 1)

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """(len(indices), 3, *input_size) float32 in [0, 1]."""
        return torch.stack([self._kept[i].float() / 255 if i < len(self._kept) else self._decode(i) for i in indices])


def batches(samples: Sequence[Sample], config: DetectorConfig, description: str, size: int = 8) -> Iterator[Tensor]:
    """(B, 3, *input_size), resized and normalised, in the order of the samples."""
    for start in tqdm(
        range(0, len(samples), size), desc=description, unit_scale=size, unit="img", leave=False, disable=None
    ):
        yield torch.cat([prepare(load(sample.path), config) for sample in samples[start : start + size]])
