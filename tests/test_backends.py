"""Trunks and networks on another backend: the same scores, exports that are kept, and torch where anything fails."""

import copy
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from pydantic import ValidationError
from torch import Tensor

from anomaly import cli, exports, runners, serving
from anomaly.backends import PRECISIONS, TORCH, Backend, BackendName, Precision
from anomaly.detectors import Autoencoder, AutoencoderConfig, Detector
from anomaly.detectors.base import Network
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, VigieError
from anomaly.folding import for_inference
from anomaly.inspector import Inspector
from anomaly.loading import load_inspector
from anomaly.runners import use_backend
from anomaly.score import Counts, score
from anomaly.settings import Settings

# Of a score, relative. Measured: 2.9e-6 at most (classifier on OpenVINO).
TOLERANCE = 1e-4

NAMES = (*tiny.tiny_detectors(), "perceptual autoencoder")


@pytest.fixture(scope="module")
def ready() -> dict[str, Detector]:
    detectors = tiny.tiny_detectors() | {"perceptual autoencoder": tiny.perceptual_autoencoder()}
    return dict(zip(detectors, for_inference(list(detectors.values())), strict=True))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


Moved = Callable[[BackendName, Precision], tuple[dict[str, Detector], list[str]]]


@pytest.fixture(scope="module")
def moved(ready: dict[str, Detector], cache: Path) -> Moved:
    """All detectors on a backend, and the warnings."""
    made: dict[Backend, tuple[dict[str, Detector], list[str]]] = {}

    def move(name: BackendName, precision: Precision) -> tuple[dict[str, Detector], list[str]]:
        backend = Backend(name, precision, cache)
        if backend not in made:
            detectors, warnings = use_backend(list(ready.values()), backend, "cpu")
            made[backend] = dict(zip(ready, detectors, strict=True)), warnings
        return made[backend]

    return move


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("name", NAMES)
def test_every_detector_gives_the_same_answer(
    name: str, backend: BackendName, ready: dict[str, Detector], moved: Moved
) -> None:
    detectors, warnings = moved(backend, "fp32")
    assert warnings == []
    assert runs_elsewhere(detectors[name])
    images = pictures()
    expected, found = ready[name].predict(images), detectors[name].predict(images)
    torch.testing.assert_close(found.scores, expected.scores, rtol=TOLERANCE, atol=1e-7)
    for field in ("heatmaps", "class_logits"):
        if (value := getattr(expected, field)) is not None:
            largest = float(value.abs().max())
            torch.testing.assert_close(getattr(found, field), value, rtol=0, atol=TOLERANCE * largest)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_a_compiled_network_gives_the_same_answer(ready: dict[str, Detector]) -> None:
    (found,), warnings = use_backend([ready["autoencoder"]], Backend("compile"), "cpu")
    assert warnings == []
    assert runs_elsewhere(found)
    images = pictures()
    expected = ready["autoencoder"].predict(images).scores
    torch.testing.assert_close(found.predict(images).scores, expected, rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize(
    ("backend", "precision"),
    [(name, low) for name, known in PRECISIONS.items() for low in known[1:] if name != "compile"],
)
def test_lower_precision_moves_scores_and_says_so(
    backend: BackendName, precision: Precision, ready: dict[str, Detector], moved: Moved
) -> None:
    detectors, warnings = moved(backend, precision)
    assert any(f"run in {precision}" in warning for warning in warnings)
    images = pictures()
    for name in ("patch_knn", "classifier"):
        expected, found = ready[name].predict(images).scores, detectors[name].predict(images).scores
        assert not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)


def test_banks_and_gaussians_stay_what_they_were(ready: dict[str, Detector], moved: Moved) -> None:
    detectors, _ = moved("onnx", "int8")
    for name in ("patch_knn", "mahalanobis"):
        for key, value in ready[name].named_buffers(recurse=False):
            assert detectors[name].get_buffer(key).data_ptr() == value.data_ptr()


def test_what_was_given_still_runs_in_torch(ready: dict[str, Detector], moved: Moved) -> None:
    moved("onnx", "fp32")
    assert not any(runs_elsewhere(detector) for detector in ready.values())


def test_a_pass_stops_at_the_deepest_layer_asked_for(ready: dict[str, Detector], moved: Moved) -> None:
    detectors, _ = moved("onnx", "fp32")
    trunk = detectors["mahalanobis_global"].trunk
    assert trunk is not None
    assert trunk is detectors["patch_knn"].trunk  # one pass for both, as before
    images = pictures()[:1]
    assert set(detectors["patch_knn"].inputs(images)) == {2, 3}
    assert set(detectors["patch_knn"].inputs(images, {2, 3, 4})) == {2, 3, 4}
    torch.testing.assert_close(
        detectors["patch_knn"].inputs(images, {2, 4})[4],
        ready["mahalanobis_global"].inputs(images)[4],
        rtol=0,
        atol=1e-4,
    )


def test_openvino_is_kept_from_calling_home(moved: Moved) -> None:
    moved("openvino", "fp32")
    assert sys.modules["openvino"]
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]


# Exports


def test_a_second_start_reads_what_the_first_one_wrote(
    ready: dict[str, Detector], moved: Moved, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved("onnx", "fp32")
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    monkeypatch.setattr(exports, "export", never)
    _, warnings = use_backend(list(ready.values()), Backend("onnx", cache=cache), "cpu")
    assert warnings == []
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    assert all(name.endswith(".onnx") for name in before)  # nothing half-written is left


def test_other_weights_are_another_export(ready: dict[str, Detector]) -> None:
    networks = [copy.deepcopy(ready["autoencoder"]) for _ in range(2)]
    first = next(networks[1].parameters())
    first[(0,) * first.ndim] += 1e-6
    names = {exports.file_name(runners.fingerprint(network), (64, 64), "fp32") for network in networks}
    assert len(names) == 2


@pytest.mark.parametrize("damage", [b"", b"no ONNX"])
def test_a_damaged_export_is_made_anew(ready: dict[str, Detector], tmp_path: Path, damage: bytes) -> None:
    backend = Backend("onnx", cache=tmp_path)
    use_backend([ready["autoencoder"]], backend, "cpu")
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    (found,), warnings = use_backend([ready["autoencoder"]], backend, "cpu")
    assert warnings == []
    assert runs_elsewhere(found)
    assert len(file.read_bytes()) > 1000


def test_the_export_of_another_network_is_noticed(ready: dict[str, Detector], tmp_path: Path) -> None:
    """A file under the right name that answers otherwise."""
    backend = Backend("onnx", cache=tmp_path)
    use_backend([ready["autoencoder"]], backend, "cpu")
    (file,) = tmp_path.iterdir()
    with torch.random.fork_rng():
        torch.manual_seed(11)
        other = Autoencoder(AutoencoderConfig(input_size=(64, 64), width=4)).eval().requires_grad_(False)
    right = file.read_bytes()
    wrong = exports.export(other.network, torch.rand(1, 3, 64, 64), "fp32")
    file.write_bytes(wrong)
    (found,), warnings = use_backend([ready["autoencoder"]], backend, "cpu")
    assert warnings == []
    assert file.read_bytes() != wrong
    assert len(file.read_bytes()) == len(right)
    images = pictures()
    torch.testing.assert_close(
        found.predict(images).scores, ready["autoencoder"].predict(images).scores, rtol=1e-4, atol=0
    )


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(ready: dict[str, Detector], tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("no folder")
    (found,), warnings = use_backend([ready["autoencoder"]], Backend("onnx", cache=occupied), "cpu")
    assert warnings == []
    assert runs_elsewhere(found)


def test_exports_from_threads_that_end_do_not_crash_the_process() -> None:
    """In a process of its own, in which torch traces for the first time."""
    lines = [
        "import threading, torch",
        "from anomaly.exports import export",
        "net = torch.nn.Conv2d(3, 4, 3)",
        "def work(): print(len(export(lambda x: (net(x),), torch.rand(1, 3, 16, 16), 'fp32')) > 100)",
        "for _ in range(3):",
        "    thread = threading.Thread(target=work)",
        "    thread.start()",
        "    thread.join()",
        "work()",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split().count("True")) == (0, 4), done.stderr[-2000:]


def test_two_at_once_do_not_hinder_each_other(ready: dict[str, Detector], tmp_path: Path) -> None:
    outcomes: list[tuple[list[Detector], list[str]]] = []

    def work() -> None:
        outcomes.append(use_backend([ready["autoencoder"]], Backend("openvino", cache=tmp_path), "cpu"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [warnings for _, warnings in outcomes] == [[], [], []]
    assert len(list(tmp_path.iterdir())) == 1
    detector = outcomes[0][0][0]
    expected = detector.predict(pictures()).scores
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(detector.predict(pictures()).scores)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(scores, expected) for scores in found)


# Where it does not run


def test_a_package_that_is_missing_is_told_and_torch_runs(
    ready: dict[str, Detector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (found,), warnings = use_backend([ready["autoencoder"]], Backend("onnx", cache=tmp_path), "cpu")
    (warning,) = warnings
    assert "torch fp32 instead of onnx fp32" in warning
    assert "pip install 'vigie[onnx]'" in warning
    images = pictures()
    assert torch.equal(found.predict(images).scores, ready["autoencoder"].predict(images).scores)


def test_an_answer_that_is_off_is_told_and_torch_runs(
    ready: dict[str, Detector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(file: bytes, backend: Backend) -> object:
        return lambda images: (torch.zeros_like(images),)

    monkeypatch.setattr(exports, "start", wrong)
    (found,), warnings = use_backend([ready["autoencoder"]], Backend("onnx", "int8", tmp_path), "cpu")
    (warning,) = warnings  # and none on int8, for it is not run
    assert "off by" in warning
    assert list(tmp_path.iterdir()) == []
    images = pictures()
    assert torch.equal(found.predict(images).scores, ready["autoencoder"].predict(images).scores)


def test_what_cannot_be_exported_runs_in_torch(ready: dict[str, Detector], tmp_path: Path) -> None:
    class Hidden(Autoencoder):
        def reconstruct(self, images: Tensor) -> Tensor:
            return torch.from_numpy(super().reconstruct(images).numpy())

    hidden = Hidden(AutoencoderConfig(input_size=(64, 64), width=4)).eval().requires_grad_(False)
    (found, other), warnings = use_backend([hidden, ready["classifier"]], Backend("onnx", cache=tmp_path), "cpu")
    (warning,) = warnings
    assert warning.startswith("the network of a member (autoencoder) runs on torch")
    assert runs_elsewhere(other)
    assert torch.equal(found.predict(pictures()).scores, hidden.predict(pictures()).scores)


def test_a_report_carries_the_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    one = {"autoencoder": tiny.tiny_detectors()["autoencoder"]}
    plain: Inspector = tiny.tiny_inspector(one, EmissionsMeter(cpu_power_w=10))
    inspector = Inspector(
        plain.file,
        list(plain.members.values()),
        source="memory",
        revision="main",
        commit="0" * 40,
        meter=plain.meter,
        backend=Backend("openvino", cache=tmp_path),
    )
    report = inspector.inspect(tiny.as_picture(pictures()[0]), warnings=["another"]).report
    assert report.warnings == (*inspector.warnings, "another")
    assert "vigie[openvino]" in inspector.warnings[0]
    assert plain.warnings == []


# Where an inspector is loaded


def test_health_tells_the_backend_and_what_became_of_it(
    inspector_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    settings = Settings(inspectors=(str(inspector_folder),), backend="openvino", cache=tmp_path)
    serving.start_warming(settings)
    while (health := serving.health(settings))["status"] == "starting":
        time.sleep(0.05)
    (loaded,) = health["loaded"]
    assert loaded["backend"] == "openvino fp32"
    assert all("pip install 'vigie[openvino]'" in warning for warning in loaded["warnings"])
    assert loaded["warnings"]


def test_the_command_line_takes_a_backend(
    inspector_folder: Path,
    picture_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VIGIE_CACHE", str(tmp_path))
    runs, onnxruntime = [], exports._onnxruntime

    def counted(file: bytes) -> Network:
        network = onnxruntime(file)
        return lambda images: runs.append(images) or network(images)  # type: ignore[func-returns-value]

    monkeypatch.setattr(exports, "_onnxruntime", counted)
    words = ["anomaly", "inspect", str(picture_file), "--inspector", str(inspector_folder), "--json"]
    votes = {}
    for name in ("torch", "onnx"):
        monkeypatch.setattr(sys, "argv", [*words, "--backend", name])
        assert cli.main() == 0
        assert bool(runs) == (name == "onnx")
        report = json.loads(capsys.readouterr().out)
        assert report["warnings"] == []  # a fallback would be told here
        votes[name] = [vote["score"] for vote in report["votes"]]
    assert votes["onnx"] == pytest.approx(votes["torch"], rel=TOLERANCE)
    assert list(tmp_path.glob("*.onnx"))
    monkeypatch.setenv("VIGIE_PRECISION", "bf16")
    assert cli.main() == 1
    assert "backend onnx has no precision 'bf16'" in capsys.readouterr().err


def test_rows_of_one_output_are_of_one_backend(inspector_folder: Path, picture_file: Path, tmp_path: Path) -> None:
    def scored(backend: Backend) -> Counts:
        return score(str(picture_file.parent), str(inspector_folder), tmp_path / "out", backend=backend)

    onnx = Backend("onnx", cache=tmp_path / "cache")
    assert scored(onnx) == replace(scored(onnx), scored=1)
    with pytest.raises(DataError, match="begun with backend 'onnx fp32', now 'torch fp32'"):
        scored(TORCH)


def test_a_gpu_that_is_not_there_is_no_broken_model(inspector_folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(VigieError, match="device 'cuda': torch sees no CUDA here; VIGIE_DEVICE=auto"):
        load_inspector(str(inspector_folder), device="cuda")


# Settings


def test_settings_choose_a_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings().chosen_backend() == TORCH
    monkeypatch.setenv("VIGIE_BACKEND", "openvino")
    monkeypatch.setenv("VIGIE_PRECISION", "bf16")
    monkeypatch.setenv("VIGIE_CACHE", str(tmp_path))
    assert Settings().chosen_backend() == Backend("openvino", "bf16", tmp_path)
    monkeypatch.setenv("VIGIE_BACKEND", "onnx")
    with pytest.raises(
        ValidationError, match=r"backend onnx has no precision 'bf16'; \['torch', 'compile', 'openvino'\]"
    ):
        Settings()


def test_an_unknown_backend_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(VigieError, match=r"unknown backend 'tensorrt'; this version knows .*'openvino'"):
        Backend("tensorrt")  # type: ignore[arg-type]


def test_exports_lie_beside_the_hubs_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert Backend("onnx").folder() == tmp_path / "vigie"


# CUDA


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_on_cuda_are_those_of_the_cpu(ready: dict[str, Detector], precision: Precision) -> None:
    on_gpu = [detector.to("cuda") for detector in tiny.tiny_detectors().values()]
    detectors, _ = use_backend(for_inference(on_gpu), Backend("torch", precision), "cuda")
    images = pictures()
    for name, detector in zip(tiny.tiny_detectors(), detectors, strict=True):
        expected, found = ready[name].predict(images).scores, detector.predict(images.cuda()).scores
        assert found.is_cuda
        tolerance = 1e-3 if precision == "fp32" else 0.1
        torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_exports_are_for_the_cpu_and_say_so(ready: dict[str, Detector], backend: BackendName) -> None:
    detectors, warnings = use_backend([ready["autoencoder"]], Backend(backend), "cuda")
    assert warnings == [f"backend {backend} is for the CPU, and this is cuda: torch fp32 instead"]
    assert not runs_elsewhere(detectors[0])


def pictures() -> Tensor:
    images = tiny.good_images(2, seed=4, size=(72, 100))
    return torch.cat([images, tiny.corrupted(images)])


def runs_elsewhere(detector: Detector) -> bool:
    return (detector.runner if detector.trunk is None else detector.trunk.runner) is not None


def never(*_: object) -> object:
    raise AssertionError("it was exported once more")
