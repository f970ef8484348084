"""ONNX files of networks: made from loaded weights, kept by their fingerprint, run by ONNX Runtime (onnxruntime.ai) or
OpenVINO (docs.openvino.ai). They are never uploaded: what is released is safetensors.
"""

import hashlib
import json
import logging
import sys
import threading
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from anomaly import __version__
from anomaly.backends import Backend, Precision
from anomaly.detectors.base import Network

_PACKAGES = ("torch", "onnx", "onnxscript")  # their versions decide on what an export is

# Without CUDA, torch 2.11 crashes where it traces (torch.export, torch.compile) once a thread in which it traced
# before has ended: in _ensureCUDADeviceGuardSet. This one does not end.
_LASTING = ThreadPoolExecutor(1, "exports")

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


def file_name(fingerprint: str, size: tuple[int, int], precision: Precision) -> str:
    """Of the export of a network for pictures of (height, width); another one for whatever could change it."""
    made_by = [__version__, *(f"{name} {version(name)}" for name in _PACKAGES)]
    key = hashlib.sha256(json.dumps([fingerprint, size, made_by]).encode()).hexdigest()
    return f"{key}.{precision}.onnx"


def keep(path: Path, file: bytes) -> None:
    """Writes it whole or not at all; of several processes the last one counts. Without room it is made again."""
    partial = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(file)
        partial.replace(path)
    except OSError as error:
        _log.warning("%s is not kept: %s", path, error)
        with suppress(OSError):
            partial.unlink()


def start(file: bytes, backend: Backend) -> Network:
    """Runs an export: float32 (1, 3, *size) -> tensors. Raises ImportError, or what the runtime raises."""
    return _openvino(file, backend.precision) if backend.name == "openvino" else _onnxruntime(file)


def _onnxruntime(file: bytes) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # or int8 weights are widened for each picture
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        outputs = session.run(None, {"images": images.detach().contiguous().numpy()})
        return tuple(torch.from_numpy(output) for output in outputs)

    return run


def _openvino(file: bytes, precision: Precision) -> Network:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would tell Google Analytics
    import openvino

    # by itself it would take bf16 where the processor has it
    hint = "bf16" if precision == "bf16" else "f32"
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(file, b""), "CPU", settings).create_infer_request()
    busy = threading.Lock()  # a request takes one picture at a time

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with busy:
            outputs = request.infer([images.detach().contiguous().numpy()], share_inputs=True)
        return tuple(torch.from_numpy(output) for output in outputs.values())

    return run


class _Module(nn.Module):
    """What the exporter takes. Weights stay out of sight of `state_dict`, which folded networks refuse."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.network(images)


def in_lasting_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls it where torch may trace, without gradients."""
    return _LASTING.submit(torch.no_grad()(function), *args, **kwargs).result()


def export(network: Network, probe: Tensor, precision: Precision) -> bytes:
    """An ONNX file for pictures of the probe's size, float32 (1, 3, H, W)."""
    import onnxscript  # noqa: F401  torch asks for it later, in other words

    def traced() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(_Module(network).eval(), (probe,), input_names=["images"], verbose=False)

    program = in_lasting_thread(traced)
    model = program.model_proto
    if precision == "int8":
        _to_int8(model)
    return bytes(model.SerializeToString())


def _to_int8(model: Any) -> None:
    """Weights of convolutions and matrix products as whole numbers, with a scale for each output channel.

    Activations stay in fp32: with them in int8 (quantize_dynamic of ONNX Runtime) MobileNetV2's maps were off by .95 of
    their largest number, in 3.5 times the time.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    axes = {"Conv": 0, "Gemm": 0, "MatMul": -1}
    weights = {each.name: each for each in model.graph.initializer}
    uses = [
        (node, weights[node.input[1]]) for node in model.graph.node if node.op_type in axes and node.input[1] in weights
    ]
    done: dict[str, str] = {}
    for node, weight in uses:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        if weight.name not in done:
            transposed = any(each.name == "transB" and each.i for each in node.attribute)
            axis = 1 if node.op_type == "Gemm" and not transposed else axes[node.op_type] % values.ndim
            others = tuple(i for i in range(values.ndim) if i != axis)
            scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, 1e-12).astype(np.float32)
            rounded = np.rint(values / scale).astype(np.int8)
            done[weight.name] = f"{weight.name}_fp32"
            model.graph.initializer.remove(weight)
            model.graph.initializer.extend(
                [
                    numpy_helper.from_array(rounded, weight.name),
                    numpy_helper.from_array(scale.reshape(-1), f"{weight.name}_scale"),
                ]
            )
            model.graph.node.insert(
                0,
                helper.make_node(
                    "DequantizeLinear", [weight.name, f"{weight.name}_scale"], [done[weight.name]], axis=axis
                ),
            )
        node.input[1] = done[weight.name]
