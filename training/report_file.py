"""metrics.json of a report: what the page shows, as numbers."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from anomaly.evaluation import Evaluation
from training.cost import Cost
from training.manifest import counts
from training.published import Published, published
from training.ranking import WEIGHTS, Ranking, best, rank, terms
from training.report_source import Subject


class Division(BaseModel):
    """How a member's pictures were divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: str
    seed: int
    split_hash: str
    counts: dict[str, dict[str, int]]  # split -> label -> pictures
    dropped: int  # pictures left out because they are in another split, too
    near_duplicates: int | None  # pairs across splits that look alike; None where nobody looked for them
    near_test: int | None  # of them those with a test picture


class ReportFile(BaseModel):
    """metrics.json of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    command: str
    created_at: str  # ISO 8601, UTC
    pictures: str  # which, in words
    evaluation: Evaluation
    divisions: dict[str, Division]  # by member; members that were divided alike under the first one's name
    costs: dict[str, Cost]
    ranking: Ranking
    best: str | None  # by the composite
    curves: dict[str, tuple[tuple[float, float], ...]]
    published: tuple[Published, ...]
    recorded: dict[str, float | None]  # member -> largest difference from the figures in its own metrics.json
    notes: tuple[str, ...]


def report_file(about: Subject, found: Evaluation, costs: dict[str, Cost], command: str) -> ReportFile:
    """Puts together what was measured.

    Args:
        about: whom it is of.
        found: figures with levels.
        costs: by member.
        command: that was given.
    """
    known = {name: figures.levels for name, figures in found.members.items() if figures.levels is not None}
    values = {name: terms(found.members[name], level) for name, level in known.items()}
    return ReportFile(
        command=command,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        pictures=about.pictures,
        evaluation=found,
        divisions=_divisions(about),
        costs=costs,
        ranking=rank(values),
        best=best(values, WEIGHTS["composite"]),
        curves={name: o.metrics.curve for name, o in about.origins.items() if o.metrics and o.metrics.curve},
        published=published(about.data, found.category),
        recorded={name: _difference(about, name, found) for name in found.members},
        notes=about.notes,
    )


def _divisions(about: Subject) -> dict[str, Division]:
    found: dict[str, Division] = {}
    for name, manifest in about.manifests.items():
        split = {entry.path: entry.split for entry in manifest.entries}
        pairs = [{split.get(pair.path), split.get(pair.other)} for pair in manifest.near_duplicates]
        looked = "near_duplicates" in manifest.model_fields_set  # not so in runs from before they were looked for
        division = Division(
            protocol=manifest.protocol,
            seed=manifest.seed,
            split_hash=manifest.split_hash,
            counts={part: dict(labels) for part, labels in counts(manifest).items()},
            dropped=len(manifest.dropped),
            near_duplicates=len(pairs) if looked else None,
            near_test=sum("test" in pair for pair in pairs) if looked else None,
        )
        if division not in found.values():
            found[name] = division
    return found


def _difference(about: Subject, name: str, found: Evaluation) -> float | None:
    """Between the areas here and those that the training command wrote; None where it wrote none for this category."""
    metrics = about.origins[name].metrics
    if metrics is None or not about.manifests:
        return None
    several = metrics.by_category.get(found.category)
    recorded = several.test if several else metrics.test
    if recorded is None:
        return None
    here = found.members[name]
    pairs = [(getattr(here, key), getattr(recorded, key)) for key in ("image_auroc", "pixel_auroc", "au_pro")]
    return max([abs(a - b) for a, b in pairs if a is not None and b is not None], default=None)
