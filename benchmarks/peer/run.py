"""The peer, anomalib 2.7 (github.com/open-edge-platform/anomalib): the counterpart of benchmarks/ours.py, with the same
commands and the same output. Runs in benchmarks/peer/.venv and imports nothing of this project.

Its trunk gets the weights we are given; what would only cost it time is off: normalisation of scores, evaluator,
visualiser. Fitted through its Engine, exported, and run by its TorchInferencer.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SIDE = 256
LAYERS = [2, 3]  # of mobilenetv2_100: strides 8 and 16
METHODS = {"patch_knn_1": 0.01, "patch_knn_10": 0.1, "mahalanobis": None}  # and the share of patches that is kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="fit on good pictures, write a model, print what it took")
    fitting.add_argument("--method", choices=METHODS, required=True)
    fitting.add_argument("--weights", type=Path, required=True)
    fitting.add_argument("--out", type=Path, required=True)
    scoring = commands.add_parser("score", help="load a model, print the first score at once and the rest at the end")
    scoring.add_argument("--model", type=Path, required=True)
    for command in (fitting, scoring):
        command.add_argument("--pictures", type=Path, required=True, help="JSON list of files")
        command.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    pictures = [Path(name) for name in json.loads(args.pictures.read_text())]
    if args.command == "fit":
        print(json.dumps(fit(args.method, args.weights, pictures, args.out)))
    else:
        score(args.model, pictures)


def fit(method: str, weights: Path, pictures: list[Path], out: Path) -> dict[str, float]:
    from anomalib.data import Folder
    from anomalib.deploy import ExportType
    from anomalib.engine import Engine

    with TemporaryDirectory() as name:
        root = Path(name)
        (root / "good").mkdir()
        for picture in pictures:
            (root / "good" / picture.name).symlink_to(picture.resolve())
        started = time.perf_counter()
        model = make(method, weights)
        data = Folder(
            "peer", normal_dir="good", root=root, num_workers=0, test_split_mode="none", val_split_mode="none"
        )
        engine = Engine(
            accelerator="cpu",
            devices=1,
            logger=False,
            default_root_dir=root,
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        engine.fit(model, datamodule=data)
        fit_s = time.perf_counter() - started
        held = memory_mb()
        engine.export(model, ExportType.TORCH, export_root=out)
    return {"fit_s": fit_s, **held}


def make(method: str, weights: Path) -> Any:
    """The model with the trunk that was given: its own has other padding and no weights without the Hub."""
    import timm
    from anomalib.models import Padim, Patchcore
    from anomalib.pre_processing import PreProcessor
    from safetensors.torch import load_file
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    half = [0.5, 0.5, 0.5]  # what these weights were trained with
    options: dict[str, Any] = {
        "backbone": "mobilenetv2_100",
        "layers": LAYERS,
        "pre_trained": False,
        "pre_processor": PreProcessor(Compose([Resize((SIDE, SIDE), antialias=True), Normalize(half, half)])),
        "post_processor": False,
        "evaluator": False,
        "visualizer": False,
    }
    share = METHODS[method]
    if share is None:  # all channels of the two maps, as ours
        options["n_features"] = 128
    else:
        options["coreset_sampling_ratio"] = share
    model: Any = (Padim if share is None else Patchcore)(**options)
    trunk = timm.create_model(
        "mobilenetv2_100", pad_type="same", features_only=True, exportable=True, out_indices=LAYERS
    )
    state = load_file(weights)
    trunk.load_state_dict({name: state[name] for name in trunk.state_dict()})
    model.model.feature_extractor.feature_extractor = trunk
    return model


def score(path: Path, pictures: list[Path]) -> None:
    import torch
    from anomalib.deploy import TorchInferencer

    os.environ["TRUST_REMOTE_CODE"] = "1"  # its own export, which is a pickle
    inferencer = TorchInferencer(path, device="cpu")
    scores, times = [], []
    with torch.inference_mode():
        for picture in pictures:
            started = time.perf_counter()
            scores.append(float(inferencer.predict(picture).pred_score))
            times.append((time.perf_counter() - started) * 1e3)
            if len(scores) == 1:
                print(json.dumps(scores[0]), flush=True)
    print(json.dumps({"scores": scores, "ms": times, **memory_mb()}))


def memory_mb() -> dict[str, float]:
    """Resident now, and the peak of this process."""
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"resident_mb": int(resident.split()[1]) / 1024, "peak_mb": peak / 1024}


if __name__ == "__main__":
    main()
