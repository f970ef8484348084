"""Two revisions of an inspector on the same pictures: where they decide differently, who is right, what each costs.

Where parts are labelled, McNemar's test (1947) in its exact form: of the pictures that just one of them gets right, are
too many on one side? It never exceeds its level; the mid-p variant is less cautious with few such pictures: not used.
"""

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from anomaly import __version__
from anomaly.datasets import IMAGE_SUFFIXES, VISA_CSV, Sample, read_dataset
from anomaly.errors import DataError, ImageError
from anomaly.evaluation import Row, cost_ms, hardware, score
from anomaly.inspector import Inspector
from anomaly.policy import Failure, Verdict, replay

Outcome = Verdict | Literal["failed"]  # failed: the picture was refused, so there is no decision
OUTCOMES: tuple[Outcome, ...] = ("ok", "defect", "review", "failed")
Layout = Literal["auto", "folder", "mvtec", "visa"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Side(_Frozen):
    """One revision."""

    revision: str
    commit: str
    policy: str
    outcomes: dict[str, int]  # every one of OUTCOMES
    right: int | None  # pictures; None without labels
    missed: int | None  # defects decided ok
    false_alarms: int | None  # good parts decided defect
    latency_ms: float | None  # median over pictures of what the policy asked; None where nothing was decided
    energy_mj: float | None  # likewise, estimated; None below the resolution


class McNemar(_Frozen):
    """Right: ok for a good part, defect for a defect. A review or a failure leaves the part to a person: not right."""

    pictures: int
    both: int  # get it right
    first_only: int
    second_only: int
    neither: int
    p_value: float  # exact, two-sided


class Picture(_Frozen):
    """One picture that the two see differently, or that one of them could not decide on."""

    path: str
    label: str | None
    first: Outcome
    second: Outcome
    right: Literal["both", "first", "second", "neither"] | None
    why: tuple[str, str]  # the reason of each


class Comparison(_Frozen):
    """What `python -m anomaly compare --json` writes."""

    format: Literal[1] = 1
    inspector: str
    category: str
    data: str  # name of the folder
    labelled: bool
    pictures: int
    first: Side
    second: Side
    table: dict[str, dict[str, int]]  # outcome of the first -> of the second -> pictures
    differ: int
    differ_at_most: float  # share of such pictures that differ, with 95 % confidence (Clopper-Pearson, one-sided)
    all: McNemar | None  # None without labels
    good: McNemar | None
    defects: McNemar | None
    shown: tuple[Picture, ...]  # all that differ, and all where either failed
    hardware: str
    version: str = __version__


@dataclasses.dataclass(frozen=True, slots=True)
class _Said:
    outcome: Outcome
    why: str
    duration_ms: float | None = None
    energy_mj: float | None = None


def compare(
    first: Inspector,
    second: Inspector,
    samples: Sequence[Sample],
    *,
    data: str,
    labelled: bool,
    policy: str | None = None,
    done: Callable[[int], None] = lambda number: None,
) -> Comparison:
    """Decides on every picture with both, in turn, so that a machine that slows down is slow for both.

    Args:
        first: a revision.
        second: another one, of the same category.
        samples: pictures.
        data: what to call them.
        labelled: whether their labels mean anything.
        policy: of both; by default the default one of each.
        done: is told how many pictures are done.

    Raises:
        DataError: the two inspect different things, or there is no picture.
        PolicyError: one of them has no such policy.
    """
    if first.file.category != second.file.category:
        raise DataError(
            f"{first.revision} inspects {first.file.category!r}, {second.revision} {second.file.category!r}: nothing "
            "to compare"
        )
    if not samples:
        raise DataError(f"{data} holds no picture")
    sides = (first, second)
    names = [inspector.policy(policy).name for inspector in sides]
    said: tuple[list[_Said], list[_Said]] = ([], [])
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder:
        for number, sample in enumerate(samples, start=1):
            for side in (0, 1) if number % 2 else (1, 0):
                said[side].append(_decide(sides[side], names[side], sample, Path(folder)))
            done(number)
    pairs = list(zip(samples, *said, strict=True))
    table = Counter((a.outcome, b.outcome) for _, a, b in pairs)
    differ = sum(count for (a, b), count in table.items() if a != b)
    good, bad = ([sample for sample in samples if sample.is_defect == defect] for defect in (False, True))
    parts = {"all": samples, "good": good, "defects": bad}
    rights = {s.path: (_right(s, a), _right(s, b)) for s, a, b in pairs}
    tests = {key: _mcnemar([rights[s.path] for s in chosen]) if labelled else None for key, chosen in parts.items()}
    return Comparison(
        inspector=first.source,
        category=first.file.category,
        data=data,
        labelled=labelled,
        pictures=len(samples),
        first=_side(first, names[0], samples, said[0], labelled),
        second=_side(second, names[1], samples, said[1], labelled),
        table={a: {b: table[a, b] for b in OUTCOMES} for a in OUTCOMES},
        differ=differ,
        differ_at_most=_at_most(differ, len(samples)),
        **tests,
        shown=tuple(
            Picture(
                path=sample.relative,
                label=sample.label if labelled else None,
                first=a.outcome,
                second=b.outcome,
                right=_WHO[rights[sample.path]] if labelled else None,
                why=(a.why, b.why),
            )
            for sample, a, b in pairs
            if a.outcome != b.outcome or "failed" in (a.outcome, b.outcome)
        ),
        hardware=hardware(),
    )


def pictures_of(data: Path, category: str, layout: Layout = "auto") -> tuple[tuple[Sample, ...], bool]:
    """The test pictures of a data set with their labels, or all pictures of a plain folder without any.

    Args:
        data: folder; one without train and test, here or in a subfolder of the category, is a plain one.
        category: what is inspected.
        layout: of a data set.

    Returns:
        The pictures, and whether they are labelled.

    Raises:
        DataError: there are none, or the data set is not right.
    """
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; give a folder of pictures")
    divided = any((folder / split).is_dir() for folder in (data, data / category) for split in ("train", "test"))
    if divided or layout != "auto" or (data / VISA_CSV).is_file():
        dataset = read_dataset(data, category, layout)
        if not dataset.test:
            raise DataError(f"{data} has no test pictures; put some into test/<class>")
        return dataset.test, True
    found = sorted(
        path
        for path in data.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(data).parts)
    )
    if not found:
        raise DataError(f"{data} holds no picture ({' '.join(IMAGE_SUFFIXES)})")
    return tuple(Sample(path, path.relative_to(data).as_posix(), "", "test", None) for path in found), False


def _decide(inspector: Inspector, policy: str, sample: Sample, folder: Path) -> _Said:
    """By the path that serves; a picture that is refused is an outcome, too."""
    try:
        scored = score(inspector, [dataclasses.replace(sample, mask=None)], folder)
    except ImageError as error:
        return _Said("failed", str(error))
    row: Row = scored.rows[0]
    votes = {name: ballot.vote for name, ballot in row.ballots.items()}
    decision, asked = replay(votes, inspector.policy(policy))
    duration_ms, whole_ms = cost_ms(row.ballots, asked), sum(ballot.duration_ms for ballot in row.ballots.values())
    energies = [energy for energy in row.energy_mj.values() if energy is not None]
    lost = [vote for name in asked if isinstance(vote := votes[name], Failure)]
    without = f" ({'; '.join(f'{vote.member}: {vote.reason}' for vote in lost)})" if lost else ""
    return _Said(
        decision.verdict,
        decision.reason["en"] + without,
        duration_ms,
        sum(energies) * duration_ms / whole_ms if energies and whole_ms > 0 else None,
    )


def _right(sample: Sample, said: _Said) -> bool:
    return said.outcome == ("defect" if sample.is_defect else "ok")


_WHO: dict[tuple[bool, bool], Literal["both", "first", "second", "neither"]] = {
    (True, True): "both",
    (True, False): "first",
    (False, True): "second",
    (False, False): "neither",
}


def _mcnemar(rights: Sequence[tuple[bool, bool]]) -> McNemar:
    from scipy.stats import binomtest

    counts = Counter(_WHO[pair] for pair in rights)
    only = counts["first"], counts["second"]
    return McNemar(
        pictures=len(rights),
        both=counts["both"],
        first_only=only[0],
        second_only=only[1],
        neither=counts["neither"],
        p_value=float(binomtest(only[0], sum(only), 0.5).pvalue) if sum(only) else 1.0,
    )


def _side(inspector: Inspector, policy: str, samples: Sequence[Sample], said: Sequence[_Said], labelled: bool) -> Side:
    outcomes = Counter(one.outcome for one in said)
    pairs = [(sample.is_defect, one.outcome) for sample, one in zip(samples, said, strict=True)]
    return Side(
        revision=inspector.revision,
        commit=inspector.commit,
        policy=policy,
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES},
        right=sum(_right(sample, one) for sample, one in zip(samples, said, strict=True)) if labelled else None,
        missed=pairs.count((True, "ok")) if labelled else None,
        false_alarms=pairs.count((False, "defect")) if labelled else None,
        latency_ms=_median([one.duration_ms for one in said]),
        energy_mj=_median([one.energy_mj for one in said]),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _at_most(count: int, of: int) -> float:
    from scipy.stats import beta

    return float(beta.ppf(0.95, count + 1, of - count)) if count < of else 1.0
