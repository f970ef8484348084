"""What each backend and precision costs and saves: AUROC of every member, milliseconds, megabytes, time to load.

All of them see each picture in turn within one run, so that ratios hold when the machine's speed drifts.
Usage: python benchmarks/backends.py [--inspector SOURCE | --models FOLDER...] --data DIR [--images N] [--json FILE]
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from anomaly import images
from anomaly.backends import PRECISIONS, Backend
from anomaly.datasets import Sample, read_dataset
from anomaly.emissions import EmissionsMeter
from anomaly.evaluation import hardware, versions
from anomaly.inspector import Inspector, InspectorFile, Member, MemberRef
from anomaly.loading import load_inspector
from anomaly.metrics import image_auroc
from anomaly.model_repo import load_detector
from anomaly.policy import Policy, Rule
from anomaly.settings import STARTER

WARM_UP = 3  # pictures that are not timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inspector", default=str(STARTER))
    parser.add_argument("--revision")
    parser.add_argument("--models", type=Path, nargs="+", help="folders of single models instead of an inspector")
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled pictures")
    parser.add_argument("--images", type=int, help="of the test pictures this many, evenly; by default all")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well: minutes for each network")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    plain = inspector_of(args.models) if args.models else load_inspector(args.inspector, args.revision)
    test = read_dataset(args.data, plain.file.category).test
    samples = [test[i] for i in np.linspace(0, len(test) - 1, min(len(test), args.images or len(test))).astype(int)]
    names = [name for name in PRECISIONS if args.compile or name != "compile"]
    with TemporaryDirectory() as folder:
        ways = {}
        for name in names:
            for precision in PRECISIONS[name]:
                backend = Backend(name, precision, Path(folder) / f"{name} {precision}")
                ways[str(backend)] = started(plain, backend)
        results: dict[str, Any] = {"backends": measure(ways, samples)}
    results |= {
        "pictures": len(samples),
        "defects": sum(sample.is_defect for sample in samples),
        "members": list(plain.members),
        "threads": torch.get_num_threads(),
        "hardware": hardware(),
        "versions": versions(),
    }
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def inspector_of(folders: list[Path]) -> Inspector:
    """One whose members are these models, under the names of their folders, in the one category they know."""
    members = []
    for number, folder in enumerate(folders):
        loaded = load_detector(folder)
        ((category, calibration),) = loaded.calibrations.categories.items()
        ref = MemberRef(name=f"{loaded.detector.kind} {number}", repo="a/b", commit="0" * 40, sha256="0" * 64)
        members.append(Member(ref, loaded.detector.select(category), calibration))
    names = tuple(member.ref.name for member in members)
    policy = Policy(name="any", description={}, rule=Rule(kind="any", members=names, threshold="far"))
    refs = tuple(member.ref for member in members)
    file = InspectorFile(
        category=category, labels=("good",), members=refs, policies=(policy,), default_policy=policy.name
    )
    return Inspector(file, members, source="models", revision="main", commit="0" * 40, meter=EmissionsMeter())


def started(plain: Inspector, backend: Backend) -> tuple[Inspector, dict[str, Any]]:
    """The inspector on a backend, started twice: without exports, and with those of the first time."""
    seconds, cpu_seconds = [], []
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        inspector = Inspector(
            plain.file,
            list(plain.members.values()),
            source=plain.source,
            revision=plain.revision,
            commit=plain.commit,
            meter=plain.meter,
            backend=backend,
        )
        seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    kept = list(backend.folder().iterdir()) if backend.folder().exists() else []
    size = sum(file.stat().st_size for file in kept) if backend.exports else tensor_bytes(inspector)
    return inspector, {
        "start_s": seconds,
        "start_cpu_s": cpu_seconds,
        "files": len(kept),
        "mb": size / 1e6,
        "warnings": inspector.warnings,
    }


def tensor_bytes(inspector: Inspector) -> int:
    """Of trunks and networks, each tensor once."""
    parts = [m.detector if m.detector.trunk is None else m.detector.trunk for m in inspector.members.values()]
    tensors = {id(tensor): tensor for part in parts for tensor in (*part.parameters(), *part.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def measure(ways: dict[str, tuple[Inspector, dict[str, Any]]], samples: list[Sample]) -> dict[str, Any]:
    """Every backend on every picture, in another order each time."""
    wall: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    order = np.random.default_rng(0)
    for number, sample in enumerate(samples[:WARM_UP] + samples):
        for way in order.permutation(list(ways)):
            inspector = ways[way][0]
            picture = images.read(sample.path, inspector.file.limits)
            began, began_cpu = time.perf_counter(), time.process_time()
            ballots = inspector.ballots(picture, inspector.members)
            if number >= WARM_UP:
                wall[way].append((time.perf_counter() - began) * 1e3)
                cpu[way].append((time.process_time() - began_cpu) * 1e3)
                for name, ballot in ballots.items():
                    scores[way][name].append(ballot.vote.score)  # type: ignore[union-attr]  # a failure ends the run
    labels = [sample.is_defect for sample in samples]
    base = next(iter(ways))  # torch fp32
    return {
        way: {
            **facts,
            "auroc": {name: image_auroc(labels, found) for name, found in scores[way].items()},
            "moved": {name: moved(found, scores[base][name]) for name, found in scores[way].items()},
            "ms": float(np.median(wall[way])),
            "cpu_ms": float(np.median(cpu[way])),
            "ratio": float(np.median(np.divide(wall[way], wall[base]))),
            "cpu_ratio": float(np.median(np.divide(cpu[way], cpu[base]))),
        }
        for way, (_, facts) in ways.items()
    }


def moved(found: list[float], expected: list[float]) -> float:
    """The farthest that a score has moved, as a share of the standard deviation of scores."""
    return float(np.abs(np.subtract(found, expected)).max() / np.std(expected))


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    members = results["members"]
    lines = [
        f"| | {' | '.join(members)} | moved at most | ms | ratio | CPU ms | ratio | MB | start s, first and later |",
        "|---|" + "---|" * (len(members) + 7),
    ]
    for way, row in results["backends"].items():
        aurocs = " | ".join(f"{row['auroc'][name]:.4f}" for name in members)
        lines.append(
            f"| {way} | {aurocs} | {max(row['moved'].values()):.1e} | {row['ms']:.1f} | {row['ratio']:.2f} "
            f"| {row['cpu_ms']:.1f} | {row['cpu_ratio']:.2f} | {row['mb']:.2f} "
            f"| {row['start_s'][0]:.1f}, {row['start_s'][1]:.1f} |"
        )
    lines += [
        "",
        f"AUROC of {results['pictures']} pictures, {results['defects']} of them with a defect. Moved: by how much a "
        "score differs from torch fp32, in standard deviations of that member's scores. Milliseconds of all members "
        f"together, medians; ratios picture by picture. {results['threads']} threads, {results['hardware']}.",
    ]
    lines += [f"{way}: {text}" for way, row in results["backends"].items() for text in row["warnings"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
