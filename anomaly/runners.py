"""Detectors whose trunks and networks run on another backend.

Only what leads from a picture to tensors is run elsewhere: memory banks, Gaussians and heads stay in torch, in fp32. An
export is made from the weights that were loaded, is kept by their fingerprint, and has to answer a picture of noise as
torch does; whatever fails goes on in torch, with a warning.
"""

import copy
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anomaly import exports
from anomaly.backbones import Trunk
from anomaly.backends import Backend, Precision
from anomaly.detectors.base import Detector, Network
from anomaly.errors import VigieError

# What an output may be off by, of its largest number. Measured on MobileNetV2 and the starter: 1.3e-6 at most in fp32;
# the others are there to tell rounding from a network gone astray.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.1}

Size = tuple[int, int]  # (height, width)

_log = logging.getLogger(__name__)


def use_backend(detectors: Sequence[Detector], backend: Backend, device: str) -> tuple[list[Detector], list[str]]:
    """Detectors that are ready to vote, on a backend.

    Args:
        detectors: as `for_inference` returns them; they stay as they are.
        backend: to run them on.
        device: of torch.

    Returns:
        Others that share their tensors, and a warning for each part that goes on in torch, fp32, and for scores in a
        precision that thresholds were not calibrated in.
    """
    if (backend.name, backend.precision) == ("torch", "fp32"):
        return list(detectors), []
    if device != "cpu" and backend.exports:
        return list(detectors), [f"backend {backend.name} is for the CPU, and this is {device}: torch fp32 instead"]
    memo: dict[int, object] = {id(t): t for d in detectors for t in (*d.parameters(), *d.buffers())}
    ready: list[Detector] = copy.deepcopy(list(detectors), memo)
    problems = []
    moved = 0
    for trunk, standing in _by_trunk(ready).items():
        try:
            trunk.runner = _trunk_runner(trunk, standing, backend, device)
            moved += 1
        except Exception as error:  # whatever a compiler or an exporter trips over, torch does not need it
            problems.append(_told(f"the trunk {trunk.config.architecture}", backend, error))
    for detector in ready:
        if detector.trunk is None:
            try:
                detector.runner = _runner(
                    detector.network, detector.config.input_size, fingerprint(detector), backend, device
                )
                moved += 1
            except Exception as error:  # as above
                problems.append(_told(f"the network of a member ({detector.kind})", backend, error))
    if moved and backend.precision != "fp32":
        problems.append(
            f"trunks and networks run in {backend.precision}: scores move, and thresholds were calibrated in fp32"
        )
    return ready, list(dict.fromkeys(problems))


def _told(what: str, backend: Backend, error: Exception) -> str:
    cause = " ".join(str(error).split())[:200]
    if isinstance(error, ImportError):
        cause = f"{cause}; pip install 'vigie[{backend.name}]'"
    return f"{what} runs on torch fp32 instead of {backend}: {cause or type(error).__name__}"


def _by_trunk(detectors: Sequence[Detector]) -> dict[Trunk, list[Detector]]:
    found: dict[Trunk, list[Detector]] = defaultdict(list)
    for detector in detectors:
        if detector.trunk is not None:
            found[detector.trunk].append(detector)
    return found


def _trunk_runner(
    trunk: Trunk, standing: Sequence[Detector], backend: Backend, device: str
) -> Callable[[Tensor, Sequence[int]], dict[int, Tensor] | None]:
    """For each size of picture a network for each stage that a detector stops at: what is behind it is not run."""
    asked = sorted(set().union(*(detector.layers for detector in standing)))
    runs: dict[tuple[Size, int], Network] = {}
    for size in {detector.config.input_size for detector in standing}:
        for deepest in {max(detector.layers) for detector in standing}:
            layers = [layer for layer in asked if layer <= deepest]
            name = f"{trunk.fingerprint()} {layers}"
            runs[size, deepest] = _runner(_maps(trunk, layers), size, name, backend, device)

    def run(images: Tensor, wanted: Sequence[int]) -> dict[int, Tensor] | None:
        network = runs.get(((images.shape[-2], images.shape[-1]), max(wanted)))
        if network is None or not set(wanted) <= set(asked):
            return None
        layers = [layer for layer in asked if layer <= max(wanted)]
        maps = dict(zip(layers, network(images), strict=True))
        return {layer: maps[layer] for layer in wanted}

    return run


def _maps(trunk: Trunk, layers: Sequence[int]) -> Network:
    return lambda images: tuple(trunk.maps(images, layers).values())


def fingerprint(detector: Detector) -> str:
    """sha256 over kind, config and every tensor's bytes."""
    digest = hashlib.sha256(f"{detector.kind} {detector.config.model_dump_json()}".encode())
    for name, value in sorted([*detector.named_parameters(), *detector.named_buffers()]):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _runner(network: Network, size: Size, fingerprint: str, backend: Backend, device: str) -> Network:
    """The network on a backend, after it has answered as torch does. Raises whatever stands in the way."""
    probe = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    expected = network(probe)
    if not backend.exports:
        run = _in_torch(network, backend, device)
        _check(run(probe), expected, backend.precision)
        return run
    kept = backend.folder() / exports.file_name(fingerprint, size, backend.weights)
    for path in (kept, None):
        if path is not None and not path.exists():
            continue
        try:
            file = exports.export(network, probe, backend.weights) if path is None else path.read_bytes()
            run = _one_by_one(exports.start(file, backend))
            _check(run(probe), expected, backend.precision)
        except Exception as error:
            if path is None or isinstance(error, ImportError):
                raise
            _log.warning("%s is made anew: %s", path, error)  # it was damaged
        else:
            if path is None:
                exports.keep(kept, file)
            return run
    raise AssertionError("an export either runs or raises")


def _check(found: Sequence[Tensor], expected: Sequence[Tensor], precision: Precision) -> None:
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            raise VigieError(f"it answers {tuple(one.shape)}, not {tuple(other.shape)}")
        off = float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))
        if not off <= TOLERANCE[precision]:  # also where it is no number
            raise VigieError(f"on noise it is off by {off:.1e} of the largest number, more than {TOLERANCE[precision]}")


def _in_torch(network: Network, backend: Backend, device: str) -> Network:
    inner: Network = torch.compile(network, dynamic=False) if backend.name == "compile" else network

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=backend.precision == "bf16"):
            return tuple(output.float() for output in inner(images))

    if backend.name != "compile":
        return run
    # for a picture of another layout in memory it is compiled again, whenever that may be
    return _one_by_one(run if device != "cpu" else lambda images: exports.in_lasting_thread(run, images))


def _one_by_one(run: Network) -> Network:
    """For a network that was made for one picture."""

    def each(images: Tensor) -> tuple[Tensor, ...]:
        if len(images) == 1:
            return run(images)
        outputs = [run(image[None]) for image in images]
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    return each
