"""What a detector costs: size, operations (torch.utils.flop_counter), memory, time and energy of one picture, training.

Run as a program, `python -m training.cost MODEL_FOLDER PICTURE`, it measures the memory of a process that does nothing
else; `memory` starts it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file
from torch import Tensor

from anomaly.detectors import Detector
from anomaly.emissions import EmissionsMeter
from anomaly.errors import VigieError
from anomaly.figures import Spread, TrainingFigures
from anomaly.model_repo import load_detector
from training.pictures import load

REPEATS = 50  # pictures that are timed; the 95th percentile of fewer would be the slowest one or two
_WARM_UP = 3
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Memory(_Frozen):
    """Of a process that imports this software, loads one detector and inspects one picture."""

    peak_mb: float  # resident, all of it
    added_mb: float  # beyond what the imported libraries take


class Cost(_Frozen):
    """One picture at a time, alone on the machine's threads; from decoded pixels to score and heatmap."""

    parameters: int  # numbers in model.safetensors: weights, and statistics or a memory of patches
    model_bytes: int
    gflops: float  # matrix products and convolutions of one picture, a multiply-add counted as two; nothing else
    pictures: int  # that time and energy are of
    threads: int
    cpu_ms: Spread
    gpu_ms: Spread | None  # None without a GPU
    pictures_per_s: float  # on the faster of the two
    energy_mj: float | None  # mean of a picture on the CPU; estimated by CodeCarbon; None = below resolution
    energy_backend: str
    memory: Memory | None  # on the CPU; None where the operating system does not tell
    training_wh: float | None
    training_s: float | None


def cost(
    detector: Detector,
    folder: Path | None,
    pictures: Sequence[Path],
    *,
    meter: EmissionsMeter,
    training: TrainingFigures | None = None,
    repeats: int = REPEATS,
) -> Cost:
    """Measures a detector.

    Args:
        detector: on the CPU, in evaluation mode.
        folder: with its model files, for size and memory; without it there is neither.
        pictures: of parts, at least one; they are taken in turn.
        meter: of emissions; the energy is that of all repeats, divided.
        training: from its metrics.json.
        repeats: how many predictions are timed.

    Raises:
        ImageError: a picture cannot be read.
    """
    batches = [load(path) for path in pictures[:repeats]]
    gflops = operations(detector, batches[0]) / 1e9
    with meter.measure() as measurement:
        cpu = timed(detector, batches, repeats)
    found = measurement.emissions
    gpu = None
    if torch.cuda.is_available():
        gpu = timed(detector.to("cuda"), [batch.to("cuda") for batch in batches], repeats)
        detector.to("cpu")
    weights = None if folder is None else folder / "model.safetensors"
    state = [*detector.parameters(), *detector.buffers()] if weights is None else list(load_file(weights).values())
    return Cost(
        parameters=sum(value.numel() for value in state),
        model_bytes=sum(v.nbytes for v in state) if weights is None else weights.stat().st_size,
        gflops=gflops,
        pictures=repeats,
        threads=torch.get_num_threads(),
        cpu_ms=_spread(cpu),
        gpu_ms=None if gpu is None else _spread(gpu),
        pictures_per_s=1e3 / min(float(np.mean(times)) for times in (cpu, gpu) if times is not None),
        energy_mj=found.energy_mj / (repeats + _WARM_UP) if found and found.energy_mj else None,
        energy_backend=found.backend if found else "none",
        memory=None if folder is None else memory(folder, pictures[0]),
        training_wh=training.energy_wh if training else None,
        training_s=training.duration_s if training else None,
    )


@torch.no_grad()
def operations(detector: Detector, batch: Tensor) -> int:
    """Floating-point operations of one prediction, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # it only counts for the whole; telling modules apart fails on the gradient that Grad-CAM takes
    counter.mod_tracker = _OneModule()  # type: ignore[assignment]
    with counter:
        detector.predict(batch)
    return int(counter.get_total_flops())


class _OneModule:
    """What FlopCounterMode asks about the modules it is in."""

    parents = {"Global"}

    def __enter__(self) -> None: ...

    def __exit__(self, *args: object) -> None: ...


@torch.no_grad()
def timed(detector: Detector, batches: Sequence[Tensor], repeats: int) -> list[float]:
    """Milliseconds of each prediction, after a few that are not counted."""
    times = []
    for index in range(-_WARM_UP, repeats):
        batch = batches[index % len(batches)]
        _wait(batch)
        started = time.perf_counter()
        detector.predict(batch)
        _wait(batch)
        times.append((time.perf_counter() - started) * 1e3)
    return times[_WARM_UP:]


def _wait(batch: Tensor) -> None:
    """Until the GPU has done what it was given."""
    if batch.is_cuda:
        torch.cuda.synchronize()


def _spread(times: Sequence[float]) -> Spread:
    return Spread(median=float(np.median(times)), p95=float(np.percentile(times, 95)))


def memory(folder: Path, picture: Path) -> Memory | None:
    """Measures in a process of its own; None where the operating system does not tell.

    Raises:
        VigieError: that process failed.
    """
    if not _STATUS.is_file():
        return None
    # the command is this interpreter and this module
    command = [sys.executable, "-m", "training.cost", str(folder.resolve()), str(picture.resolve())]
    root = Path(__file__).resolve().parent.parent
    ended = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["no message"]
        raise VigieError(f"the memory of {folder} could not be measured: {last[0]}")
    return Memory.model_validate_json(ended.stdout.splitlines()[-1])


def _resident_mb(key: str) -> float:
    """VmRSS: now; VmHWM: the most since the last reset."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


@torch.no_grad()
def main(folder: Path, picture: Path) -> None:
    """Prints a Memory as JSON."""
    batch = load(picture)
    before = _resident_mb("VmRSS")
    _RESET.write_text("5")
    load_detector(folder).detector.predict(batch)
    peak = _resident_mb("VmHWM")
    print(json.dumps({"peak_mb": peak, "added_mb": max(0.0, peak - before)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
