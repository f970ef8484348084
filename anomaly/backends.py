"""What may run trunks and networks, and in which precision; `exports` is how. Importing this costs nothing."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anomaly.errors import VigieError

BackendName = Literal["torch", "compile", "onnx", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]

# int8 is weights only. bf16 of ONNX Runtime has no kernels for a CPU; torch's int8 has none for convolutions.
PRECISIONS: dict[BackendName, tuple[Precision, ...]] = {
    "torch": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}


@dataclass(frozen=True, slots=True)
class Backend:
    """A choice that is possible. Raises VigieError for one that is not."""

    name: BackendName = "torch"
    precision: Precision = "fp32"
    cache: Path | None = None  # folder of exports; by default `vigie` beside the Hub's cache

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise VigieError(f"unknown backend {self.name!r}; this version knows {list(PRECISIONS)}")
        if self.precision not in PRECISIONS[self.name]:
            ways = [name for name, known in PRECISIONS.items() if self.precision in known]
            raise VigieError(f"backend {self.name} has no precision {self.precision!r}; {ways or 'none'} have it")

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"

    @property
    def exports(self) -> bool:
        """Whether it runs ONNX files."""
        return self.name in ("onnx", "openvino")

    @property
    def weights(self) -> Precision:
        """What its files hold; bf16 is made of fp32 when they are loaded."""
        return "int8" if self.precision == "int8" else "fp32"

    def folder(self) -> Path:
        """Where exports are kept."""
        if self.cache is not None:
            return self.cache
        from huggingface_hub import constants

        return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE).expanduser().parent / "vigie"


TORCH = Backend()  # what scores were calibrated with
