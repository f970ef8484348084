"""The policies of released inspectors side by side: defects found, false alarms, parts for a person, energy.

python -m training.compare_policies INSPECTOR [INSPECTOR ...] --out DIR [--revision R]

Reads what the releases measured on test (metrics.json), scores nothing again, and writes OUT/policies.json,
OUT/policies.md (a table), OUT/policies.svg and OUT/policies.png (a plot). A part in review does not pass: a defect
there counts as found, a good part there as no false alarm, and both are counted again in a column of their own.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from anomaly import hub
from anomaly.datasets import GOOD
from anomaly.errors import DataError, ModelLoadError
from anomaly.figures import Figures, InspectorMetrics
from anomaly.guarantees import two_sided
from anomaly.settings import STARTER
from training.arguments import command, exit_code
from training.policy_plot import Panel, Point, draw


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(_Frozen):
    """A share of pictures, with Clopper and Pearson's 95 % interval (1934)."""

    count: int
    of: int
    value: float
    low: float
    high: float


class PolicyRow(_Frozen):
    """One policy on the test pictures of its inspector."""

    policy: str
    recall: Share  # defects that do not pass: rejected or in review
    false_alarms: Share  # good parts that are rejected
    review: Share  # of all
    missed: int
    defects: int
    defects_in_review: int
    good: int
    good_in_review: int
    energy_mj: float | None  # mean an image; estimated


class InspectorRows(_Frozen):
    """One inspector."""

    inspector: str
    revision: str
    commit: str
    category: str
    data: str
    split_hash: str
    hardware: str
    policies: tuple[PolicyRow, ...]


class PoliciesFile(_Frozen):
    """policies.json."""

    format: Literal[1] = 1
    split: Literal["test"] = "test"
    interval: Literal["Clopper-Pearson, 95 %, two-sided"] = "Clopper-Pearson, 95 %, two-sided"
    review_counts_as: Literal["not passed: found if a defect, no false alarm if good"] = (
        "not passed: found if a defect, no false alarm if good"
    )
    inspectors: tuple[InspectorRows, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 done, 1 wrong input, 2 usage."""
    parser = command("compare_policies", __doc__)
    parser.add_argument(
        "inspectors",
        nargs="*",
        default=[str(STARTER)],
        metavar="INSPECTOR",
        help="Hub repo ids or local folders (default: the starter)",
    )
    parser.add_argument("--out", type=Path, default=Path("policies"), help="folder to write to (default policies)")
    parser.add_argument("--revision", help="tag, branch or commit of every inspector (default main)")
    args = parser.parse_args(argv)
    return exit_code(lambda: write(args.inspectors, args.revision, args.out))


def write(inspectors: Sequence[str], revision: str | None, out: Path) -> None:
    """Writes OUT/policies.json, .md, .svg and .png.

    Raises:
        VigieError: an inspector cannot be had, or was never measured.
    """
    found = PoliciesFile(inspectors=tuple(read(source, revision) for source in inspectors))
    out.mkdir(parents=True, exist_ok=True)
    (out / "policies.json").write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (out / "policies.md").write_text(table(found), encoding="utf-8")
    draw(panels(found), (out / "policies.svg", out / "policies.png"))
    print(f"{out}: {sum(len(i.policies) for i in found.inspectors)} policies of {len(found.inspectors)} inspectors")


def read(source: str, revision: str | None = None) -> InspectorRows:
    """The figures that a revision was released with.

    Args:
        source: a Hub repo id or a local folder in the Hub's cache layout.
        revision: tag, branch or commit; `main` by default.

    Raises:
        RegistryError: it cannot be had.
        ModelLoadError: its metrics.json is missing or wrong.
        DataError: there is nothing to compare, as it was measured on good parts alone or on defects alone.
    """
    place = hub.parse_source(source)
    commit = hub.resolve(place, revision)
    what = f"{place.repo_id}@{commit[:12]}: metrics.json"
    folder = hub.download(place, commit, ["metrics.json"])
    try:
        metrics = InspectorMetrics.model_validate_json((folder / "metrics.json").read_bytes())
    except ValidationError as error:
        at = ".".join(str(key) for key in error.errors()[0]["loc"])
        raise ModelLoadError(f"{what} is not that of an inspector: {at}: {error.errors()[0]['msg']}") from error
    counts = metrics.data.counts.get("test", {})
    good, defects = counts.get(GOOD, 0), sum(n for label, n in counts.items() if label != GOOD)
    if not good or not defects:
        raise DataError(f"{what}: measured on {good} good parts and {defects} defects; both are needed to compare")
    return InspectorRows(
        inspector=place.repo_id,
        revision=revision or "main",
        commit=commit,
        category=metrics.category,
        data=metrics.data.name,
        split_hash=metrics.data.split_hash,
        hardware=metrics.hardware,
        policies=tuple(_row(name, figures, good, defects, what) for name, figures in metrics.policies.items()),
    )


def _row(name: str, figures: Figures, good: int, defects: int, what: str) -> PolicyRow:
    """A review is not counted by class in metrics.json; it is what the class has left."""
    bad_left, good_left = defects - figures.tp - figures.fn, good - figures.fp - figures.tn
    if min(bad_left, good_left) < 0 or bad_left + good_left != figures.review:
        raise ModelLoadError(
            f"{what}: policies.{name}: {figures.tp} + {figures.fn} of {defects} defects and {figures.fp} + "
            f"{figures.tn} of {good} good parts leave {bad_left + good_left} for review, it says {figures.review}"
        )
    return PolicyRow(
        policy=name,
        recall=share(defects - figures.fn, defects),
        false_alarms=share(figures.fp, good),
        review=share(figures.review, good + defects),
        missed=figures.fn,
        defects=defects,
        defects_in_review=bad_left,
        good=good,
        good_in_review=good_left,
        energy_mj=figures.energy_mj,
    )


def share(count: int, of: int) -> Share:
    """With its interval; `of` is at least 1."""
    low, high = two_sided(count, of)
    return Share(count=count, of=of, value=count / of, low=low, high=high)


def table(found: PoliciesFile) -> str:
    """Markdown."""
    lines = [
        "| inspector | policy | defects found | false alarms | in review | mJ an image | missed | false alarms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for inspector in found.inspectors:
        for row in inspector.policies:
            review = f"{row.review.value:.1%}"
            if row.review.count:
                review += f" ({row.defects_in_review} defects, {row.good_in_review} good)"
            energy = "not known" if row.energy_mj is None else f"{row.energy_mj:.0f}"
            name = f"{inspector.inspector} ({inspector.category})"
            lines.append(
                f"| {name} | {row.policy} | {_said(row.recall)} | {_said(row.false_alarms)} | {review} | {energy} | "
                f"{row.missed} of {row.defects} | {row.false_alarms.count} of {row.good} |"
            )
    sources = "; ".join(
        f"{i.inspector}@{i.commit[:12]} on {i.data}, split {i.split_hash[:12]}, {i.hardware}" for i in found.inspectors
    )
    lines += [
        "",
        "On the test pictures of each release, with Clopper and Pearson's 95 % interval. A part in review is not "
        "passed: a defect there counts as found, not as missed, and a good part there is no false alarm. Energy is "
        f"CodeCarbon's estimate. From {sources}.",
        "",
    ]
    return "\n".join(lines)


def _said(value: Share) -> str:
    return f"{value.value:.1%} ({value.low:.1%} to {value.high:.1%})"


def panels(found: PoliciesFile) -> list[Panel]:
    """What is drawn; policies with the very same figures share a point."""
    drawn = []
    for inspector in found.inspectors:
        names: dict[tuple[float, float, float | None], list[str]] = {}
        for row in inspector.policies:
            names.setdefault((row.false_alarms.value, row.recall.value, row.energy_mj), []).append(row.policy)
        points = [Point(", ".join(same), alarms, recall, mj) for (alarms, recall, mj), same in names.items()]
        first = inspector.policies[0]
        title = f"{inspector.category}: {first.defects} defects, {first.good} good parts"
        drawn.append(Panel(title, points))
    return drawn


if __name__ == "__main__":
    sys.exit(main())
