"""Does GREEN use at most half of the energy of the full vote, at a recall not below that of SAFE_0FN on test?

    python benchmarks/green_energy.py INSPECTOR... [--manifest FILE...] [--data DIR...] [--repeats N] [--json FILE]

Every test picture is scored once by every member; the policies are replayed on these votes, which gives recall, which
members GREEN asks, and which step decides. Then every picture is inspected under GREEN and under the full vote, one
right after the other and in turn, in this process: their energy (CodeCarbon's estimate), wall time and CPU time are
measured, not derived. The full vote is a released policy that asks every member, MAJORITY where there is one.

An inspector keeps no list of its test pictures: give the manifest.json of a run of its split and the folder of the
pictures, one of each for every inspector. Without a manifest the data's test folder is taken, if no member has seen it.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from anomaly import images
from anomaly.datasets import Sample
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, VigieError
from anomaly.evaluation import hardware, versions
from anomaly.inspector import Inspector
from anomaly.loading import load_inspector
from anomaly.policy import CascadeRule, Decision, Policy, replay
from training.compare_policies import Share, share
from training.green import ENOUGH
from training.joint_votes import Votes, inspector_samples
from training.report_source import subject

MOST = 0.5  # of the energy of the full vote
WARM_UP = 3  # pictures that are not counted
RESAMPLES = 2000
COSTS = ("energy_mj", "wall_ms", "cpu_ms")


@dataclass(frozen=True)
class Ratio:
    """GREEN over the full vote, and its 95 % bootstrap interval, the two paired picture by picture."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Asked:
    """One picture."""

    is_defect: bool
    green: Decision
    safe: Decision
    members: tuple[str, ...]  # that GREEN asked


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 done (whatever the verdict), 1 wrong input, 2 usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inspectors", nargs="+", metavar="INSPECTOR", help="Hub repo ids or local folders")
    parser.add_argument("--manifest", nargs="+", type=Path, default=[], help="manifest.json, one an inspector")
    parser.add_argument("--data", nargs="+", default=[], help="folders of pictures, one an inspector")
    parser.add_argument("--revision", help="of every inspector")
    parser.add_argument("--repeats", type=int, default=1, help="how often each picture is inspected each way")
    parser.add_argument("--images", type=int, help="inspect at most so many pictures, evenly taken; all are scored")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(argv)
    count = len(args.inspectors)
    if len(args.data) != count or len(args.manifest) not in (0, count) or args.repeats < 1:
        parser.error(f"{count} inspectors take {count} --data, and {count} --manifest or none; --repeats is 1 or more")
    manifests = args.manifest or [None] * count
    meter = EmissionsMeter()
    rows = []
    try:
        for source, manifest, data in zip(args.inspectors, manifests, args.data, strict=True):
            inspector, samples = _loaded(source, manifest, data, args.revision, meter)
            rows.append(measure(inspector, samples, repeats=args.repeats, most=args.images))
            print(f"{source}: {rows[-1]['verdict']}", file=sys.stderr)
    except (VigieError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    results = {"inspectors": rows, "hardware": hardware(), "country": meter.country, "versions": versions()}
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def _loaded(
    source: str, manifest: Path | None, data: str, revision: str | None, meter: EmissionsMeter
) -> tuple[Inspector, list[Sample]]:
    if manifest is None:
        found = subject([source], data, category=None, layout="auto", revision=revision, meter=meter)
        return found.inspector, list(found.samples)
    inspector = load_inspector(source, revision, meter=meter)
    return inspector, inspector_samples(inspector, manifest, "test", data)


def measure(
    inspector: Inspector, samples: Sequence[Sample], *, repeats: int = 1, most: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Everything of one inspector.

    Args:
        inspector: loaded.
        samples: its test pictures.
        repeats: how often each picture is inspected each way.
        most: inspect at most so many pictures; all are scored.
        seed: of the bootstrap.

    Raises:
        DataError: there are no good or no defective pictures, or no policy asks every member.
    """
    defects = sum(sample.is_defect for sample in samples)
    row: dict[str, Any] = {
        "inspector": inspector.source,
        "commit": inspector.commit,
        "category": inspector.file.category,
        "members": list(inspector.members),
        "good": len(samples) - defects,
        "defects": defects,
        "held_out_defects": min(len(member.calibration.defect_scores) for member in inspector.members.values()),
    }
    if not 0 < defects < len(samples):
        raise DataError(f"{inspector.source}: {len(samples) - defects} good parts, {defects} defects; both are needed")
    full = full_vote(inspector)
    row["full_vote"] = full.name
    if missing := [name for name in ("GREEN", "SAFE_0FN") if name not in inspector.policies]:
        reason = "no labelled defects were held out" if not row["held_out_defects"] else "the release has none"
        return row | {"verdict": f"does not hold: no {' and no '.join(missing)}, as {reason}"}
    green = inspector.policies["GREEN"]
    asked = [_asked(inspector, sample) for sample in samples]
    step = max(1, -(-len(samples) // (most or len(samples))))
    chosen = [sample for i, sample in enumerate(samples) if i % step == 0]
    costs = inspected(inspector, chosen, full.name, repeats)
    is_defect = np.array([sample.is_defect for sample in chosen])
    rng = np.random.default_rng(seed)
    row |= {
        "inspected": len(chosen),
        "repeats": repeats,
        "ratios": {cost: asdict(ratio(costs[cost], is_defect, rng)) for cost in COSTS},
        "ratios_good": {cost: _only(costs[cost], ~is_defect) for cost in COSTS},
        "ratios_defects": {cost: _only(costs[cost], is_defect) for cost in COSTS},
        "means": {cost: dict(zip(("GREEN", "full"), costs[cost].mean(axis=0).tolist(), strict=True)) for cost in COSTS},
        "recall": {n: _recall([getattr(a, k) for a in asked if a.is_defect]) for n, k in _POLICIES},
        "false_alarms": {n: _alarms([getattr(a, k) for a in asked if not a.is_defect]) for n, k in _POLICIES},
        "steps": _steps(green, asked),
        "members_asked": {name: sum(name in a.members for a in asked) / len(asked) for name in inspector.members},
        **_paired(asked),
    }
    return row | {"verdict": verdict(row)}


_POLICIES = (("GREEN", "green"), ("SAFE_0FN", "safe"))


def full_vote(inspector: Inspector) -> Policy:
    """The policy that asks every member of every part: MAJORITY, or another one.

    Raises:
        DataError: there is none.
    """
    wanted = sorted(inspector.policies.values(), key=lambda policy: policy.name != "MAJORITY")
    for policy in wanted:
        if {*policy.members, *policy.advisory} >= inspector.members.keys() and not isinstance(policy.rule, CascadeRule):
            return policy
    raise DataError(f"{inspector.source}: no policy asks all of {list(inspector.members)}: nothing to compare with")


def _asked(inspector: Inspector, sample: Sample) -> Asked:
    ballots = inspector.ballots(images.read(sample.path, inspector.file.limits), list(inspector.members))
    votes: Votes = {name: ballot.vote for name, ballot in ballots.items()}
    green, members = replay(votes, inspector.policies["GREEN"])
    return Asked(sample.is_defect, green, replay(votes, inspector.policies["SAFE_0FN"])[0], members)


def inspected(
    inspector: Inspector, samples: Sequence[Sample], full: str, repeats: int
) -> dict[str, NDArray[np.float64]]:
    """(N, 2) for each of COSTS: the mean of a picture under GREEN and under the full vote.

    Which of the two goes first alternates, so that neither profits from what the other has warmed up. An estimate of
    energy that is below resolution counts as 0: what it lacks is in another reading.
    """
    found = {cost: np.zeros((len(samples), 2)) for cost in COSTS}
    ways = ("GREEN", full)
    for sample in samples[:WARM_UP]:
        for way in ways:
            inspector.inspect(images.read(sample.path, inspector.file.limits), way)
    for turn in range(repeats):
        for i, sample in enumerate(samples):
            image = images.read(sample.path, inspector.file.limits)
            for place in (0, 1) if (i + turn) % 2 else (1, 0):
                started = time.process_time()
                report = inspector.inspect(image, ways[place]).report
                cpu_ms = (time.process_time() - started) * 1e3
                values = report.emissions.energy_mj or 0.0, report.emissions.duration_ms, cpu_ms
                for cost, value in zip(COSTS, values, strict=True):
                    found[cost][i, place] += value / repeats
    return found


def ratio(costs: NDArray[np.float64], is_defect: NDArray[np.bool_], rng: np.random.Generator) -> Ratio:
    """Sum over sum; good and defective pictures are drawn apart, so that their mix stays.

    Args:
        costs: (N, 2), GREEN and the full vote.
        is_defect: (N,).
        rng: of the bootstrap.
    """
    drawn = []
    parts = [np.flatnonzero(is_defect), np.flatnonzero(~is_defect)]
    for _ in range(RESAMPLES):
        rows = np.concatenate([rng.choice(part, len(part)) for part in parts])
        drawn.append(_over(costs[rows]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Ratio(_over(costs), float(low), float(high))


def _over(costs: NDArray[np.float64]) -> float:
    green, full = costs.sum(axis=0)
    return float(green / full) if full > 0 else float("nan")


def _only(costs: NDArray[np.float64], chosen: NDArray[np.bool_]) -> float:
    return _over(costs[chosen])


def _recall(decisions: Sequence[Decision]) -> dict[str, Any]:
    """Of defects: those that do not pass."""
    return share(sum(d.verdict != "ok" for d in decisions), len(decisions)).model_dump()


def _alarms(decisions: Sequence[Decision]) -> dict[str, Any]:
    return share(sum(d.verdict == "defect" for d in decisions), len(decisions)).model_dump()


def _paired(asked: Sequence[Asked]) -> dict[str, Any]:
    """Defects that only one of the two misses, with McNemar's test in its exact form."""
    defects = [a for a in asked if a.is_defect]
    lost = sum(a.green.verdict == "ok" and a.safe.verdict != "ok" for a in defects)
    won = sum(a.green.verdict != "ok" and a.safe.verdict == "ok" for a in defects)
    p_value = float(binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0
    return {"missed_by_green_only": lost, "missed_by_safe_only": won, "mcnemar_p": p_value}


def _steps(green: Policy, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """How often each step of GREEN decides, among good parts and among defects."""
    steps = green.rule.steps if isinstance(green.rule, CascadeRule) else ()
    good = Counter(a.green.fired for a in asked if not a.is_defect)
    bad = Counter(a.green.fired for a in asked if a.is_defect)
    return [
        {
            "members": list(step.members),
            "accept": None if step.accept is None else str(step.accept),
            "reject": None if step.reject is None else str(step.reject),
            "decides_good": good[f"rule.steps[{i}]"],
            "decides_defects": bad[f"rule.steps[{i}]"],
        }
        for i, step in enumerate(steps)
    ]


def verdict(row: Mapping[str, Any]) -> str:
    """In words: whether the claim holds on these pictures, and why not."""
    energy, lost, won = row["ratios"]["energy_mj"], row["missed_by_green_only"], row["missed_by_safe_only"]
    problems = []
    if energy["value"] > MOST:
        problems.append(f"energy {energy['value']:.0%} of the full vote, {_why(row)}")
    elif energy["high"] > MOST:
        problems.append(f"energy {energy['value']:.0%}, but its interval reaches {energy['high']:.0%}")
    if lost > won:
        problems.append(f"recall below SAFE_0FN's: {lost} missed by GREEN alone, {won} by SAFE_0FN alone")
    return f"does not hold: {'; '.join(problems)}" if problems else "holds"


def _why(row: Mapping[str, Any]) -> str:
    """What keeps GREEN from asking fewer."""
    if (few := row["held_out_defects"]) < ENOUGH:
        return f"as with {few} held-out defects, fewer than {ENOUGH}, nothing passes before all of SAFE_0FN are asked"
    shares = row["members_asked"].values()
    return f"as it has to ask {sum(shares):.1f} of {len(shares)} members on average to miss none that SAFE_0FN finds"


def table(results: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| inspector | energy, GREEN / full vote | wall time | CPU time | good parts, defects | recall of SAFE_0FN | "
        "recall of GREEN | missed by GREEN alone, by SAFE_0FN alone (McNemar p) | false alarms SAFE_0FN, GREEN | "
        "verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for row in results["inspectors"]:
        name = f"{row['category']} ({row['good']} good, {row['defects']} defects, {len(row['members'])} members)"
        if "ratios" not in row:
            lines.append(f"| {name} | - | - | - | - | - | - | - | - | {row['verdict']} |")
            continue
        ratios = [f"{r['value']:.2f} ({r['low']:.2f} to {r['high']:.2f})" for r in row["ratios"].values()]
        apart = f"{row['ratios_good']['energy_mj']:.2f}, {row['ratios_defects']['energy_mj']:.2f}"
        recalls = [_said(row["recall"][n]) for n in ("SAFE_0FN", "GREEN")]
        alarms = ", ".join(f"{row['false_alarms'][n]['value']:.1%}" for n in ("SAFE_0FN", "GREEN"))
        pairs = f"{row['missed_by_green_only']}, {row['missed_by_safe_only']} ({row['mcnemar_p']:.2g})"
        cells = [name, *ratios, apart, *recalls, pairs, alarms, row["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
        energy, parts = row["means"]["energy_mj"], row["good"] + row["defects"]
        notes.append(
            f"{row['category']}: {energy['GREEN']:.0f} mJ against {energy['full']:.0f} mJ an image under "
            f"{row['full_vote']} ({row['inspected']} pictures, {row['repeats']} times each way). "
            + "; ".join(_step_words(i, step, parts) for i, step in enumerate(row["steps"], 1))
            + "."
        )
    lines += ["", "Intervals are 95 %: bootstrap over pictures for ratios, Clopper-Pearson for recall.", "", *notes]
    return "\n".join([*lines, f"{results['hardware']}. Energy is CodeCarbon's estimate."])


def _said(found: Mapping[str, Any]) -> str:
    value = Share.model_validate(found)
    return f"{value.value:.1%} ({value.low:.1%} to {value.high:.1%})"


def _step_words(number: int, step: Mapping[str, Any], parts: int) -> str:
    lines = [f"{word} at {step[key]}" for word, key in (("ok below", "accept"), ("defect", "reject")) if step[key]]
    share_ = (step["decides_good"] + step["decides_defects"]) / parts
    return f"step {number} asks {', '.join(step['members'])} ({', '.join(lines)}) and decides {share_:.0%}"


if __name__ == "__main__":
    sys.exit(main())
