"""Our side of `make bench`: the counterpart of benchmarks/peer/run.py, with the same commands and the same output.

Fitted by the functions of the training commands on all the pictures that the peer gets. Scored by a saved inspector of
this one member, from the file to the report, its emissions measured. Its thresholds come from pictures that it was
fitted on: nothing here looks at them.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomaly.datasets import Sample
    from anomaly.detectors import Detector

METHODS = {"patch_knn_1": 0.01, "patch_knn_10": 0.1, "mahalanobis": None}  # and the share of patches that is kept
NAME = "bench/inspector"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="fit on good pictures, write an inspector, print what it took")
    fitting.add_argument("--method", choices=METHODS, required=True)
    fitting.add_argument("--weights", type=Path, required=True)
    fitting.add_argument("--out", type=Path, required=True)
    scoring = commands.add_parser("score", help="load it, print the first score at once and the rest at the end")
    scoring.add_argument("--model", type=Path, required=True)
    for command in (fitting, scoring):
        command.add_argument("--pictures", type=Path, required=True, help="JSON list of files")
        command.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # before torch comes
    pictures = [Path(name) for name in json.loads(args.pictures.read_text())]
    if args.command == "fit":
        print(json.dumps(fit(args.method, args.weights, pictures, args.out)))
    else:
        score(args.model, pictures)


def fit(method: str, weights: Path, pictures: list[Path], out: Path) -> dict[str, float]:
    import torch

    from anomaly.datasets import Sample

    good = [Sample(path, path.name, "good", "train", None) for path in pictures]
    with torch.no_grad():
        started = time.perf_counter()
        detector = fitted(method, weights, good, out)
        fit_s = time.perf_counter() - started
        held = memory_mb()
        save(detector.eval().requires_grad_(False), good, out)
    return {"fit_s": fit_s, **held}


def fitted(method: str, weights: Path, good: "list[Sample]", out: Path) -> "Detector":
    from anomaly.backbones import read_weights
    from training import fit_mahalanobis, fit_patch_knn
    from training.fitting import maps_of, trunk_with

    pretrained = read_weights(weights)
    trunk = trunk_with(pretrained, None)
    common = {"data": out, "category": "bench", "out": out, "weights": weights}
    share = METHODS[method]
    if share is None:
        args = fit_mahalanobis.Args(**common)
        config = fit_mahalanobis.trunk_config(args, pretrained, trunk, ("bench",))
        vectors = fit_mahalanobis.vectors(config, maps_of(trunk, config, config.use_layers, good))
        return fit_mahalanobis.fit(config, trunk, [vectors], args)
    # all that the share asks for: the peer has no upper bound
    knn_args = fit_patch_knn.Args(coreset=share, max_memory=10**9, **common)
    knn = fit_patch_knn.knn_config(knn_args, pretrained, trunk)
    return fit_patch_knn.fit(knn, trunk, maps_of(trunk, knn, knn.use_layers, good), knn_args)


def save(detector: "Detector", good: "list[Sample]", out: Path) -> None:
    """An inspector of this one member, in the Hub's cache layout."""
    import numpy as np

    from anomaly import hub
    from anomaly.calibration import CalibrationFile, calibrate, pixel_threshold
    from anomaly.inspector import INSPECTOR_FILE, InspectorFile, MemberRef
    from anomaly.model_repo import MODEL_FILES, file_sha256, save_detector
    from anomaly.policy import Policy, Rule
    from training.pictures import load

    outputs = [detector.predict(load(sample.path)) for sample in good[:20]]
    scores = [float(output.scores[0]) for output in outputs]
    maxima = [float(output.heatmaps[0].max()) for output in outputs if output.heatmaps is not None]
    nothing = np.empty(0, np.float32), np.empty(0, np.bool_)
    calibration = calibrate(
        scores, [], split_hash="0" * 64, far=0.05, pixel=pixel_threshold(maxima, *nothing, far=0.05, images=0)
    )
    rule = Rule(kind="any", members=("member",), threshold="far")
    policy = Policy(name="alone", description={}, rule=rule, required=("member",))
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_detector(folder, detector, CalibrationFile(categories={"bench": calibration}))
        sha256 = file_sha256(folder / "model.safetensors")
        commit = hub.store(folder, out, f"{NAME}-member", files=MODEL_FILES)
        ref = MemberRef(name="member", repo=f"{NAME}-member", commit=commit, sha256=sha256)
        file = InspectorFile(
            category="bench", labels=("good",), members=(ref,), policies=(policy,), default_policy="alone"
        )
        (folder / INSPECTOR_FILE).write_text(file.model_dump_json())
        hub.store(folder, out, NAME, files=[INSPECTOR_FILE])


def score(path: Path, pictures: list[Path]) -> None:
    from anomaly import images, load_inspector

    inspector = load_inspector(str(path / f"models--{NAME.replace('/', '--')}"))
    scores, times = [], []
    for picture in pictures:
        started = time.perf_counter()
        report = inspector.inspect(images.read(picture, inspector.file.limits)).report
        times.append((time.perf_counter() - started) * 1e3)
        scores.append(report.votes[0].score)
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
