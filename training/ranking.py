"""One number for a detector, and how much the choice of weights decides who is best.

A composite is a weighted mean of figures in [0, 1]. A detector that has no such figure (no heatmap, no type head) is
weighed over the others, which is said with the number: it is then a mean of other things and may flatter.
"""

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from anomaly.figures import Figures, Levels

TERMS = {
    "auroc": "image AUROC",
    "f1": "F1",
    "recall": "recall",
    "precision": "precision",
    "au_pro": "AU-PRO",
    "type_auroc": "type AUROC",
}
WEIGHTS: dict[str, dict[str, float]] = {
    "composite": {"auroc": 0.30, "f1": 0.20, "recall": 0.15, "au_pro": 0.25, "type_auroc": 0.10},
    "safety": {"recall": 0.40, "auroc": 0.25, "au_pro": 0.15, "f1": 0.10, "type_auroc": 0.10},
    "false alarms": {"precision": 0.40, "auroc": 0.25, "f1": 0.15, "au_pro": 0.10, "type_auroc": 0.10},
    "localisation": {"au_pro": 0.40, "auroc": 0.25, "f1": 0.15, "recall": 0.10, "type_auroc": 0.10},
}
MEANING = {
    "composite": "the whole picture",
    "safety": "a missed defect is what costs",
    "false alarms": "a rejected good part is what costs",
    "localisation": "a person has to see where",
}
DRAWS = 10_000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Frozen):
    """A weighted mean, and the terms that it had to do without."""

    value: float | None  # in [0, 1]; None without any term
    missing: tuple[str, ...] = ()


class Sweep(_Frozen):
    """Who is best while one weight goes from 0 to 1 and the others keep their proportions."""

    term: str
    spans: tuple[tuple[float, float, str], ...]  # from, to, the winner in between


class Ranking(_Frozen):
    """Of all members."""

    terms: dict[str, dict[str, float | None]]  # member -> term -> figure
    scores: dict[str, dict[str, Score]]  # scenario -> member -> score, the best first
    sweeps: tuple[Sweep, ...]  # of the composite
    wins: dict[str, float]  # member -> share of all possible weights at which it is best
    draws: int


def terms(figures: Figures, levels: Levels) -> dict[str, float | None]:
    """What is weighed, of one member; None where it has no such figure."""
    image = levels.image
    return {
        "auroc": image.auroc.value if image else None,
        "f1": image.f1.value if image else None,
        "recall": image.recall.value if image else None,
        "precision": image.precision.value if image else None,
        "au_pro": figures.au_pro,
        "type_auroc": levels.type.auroc,
    }


def composite(values: Mapping[str, float | None], weights: Mapping[str, float]) -> Score:
    """The weighted mean of the terms that are there.

    Args:
        values: by term, in [0, 1].
        weights: by term, 0 or more.
    """
    known = {term: value for term in weights if weights[term] > 0 and (value := values.get(term)) is not None}
    missing = tuple(term for term in weights if weights[term] > 0 and term not in known)
    total = sum(weights[term] for term in known)
    if not total:
        return Score(value=None, missing=missing)
    return Score(value=sum(weights[term] * value for term, value in known.items()) / total, missing=missing)


def rank(members: Mapping[str, Mapping[str, float | None]], *, draws: int = DRAWS, seed: int = 0) -> Ranking:
    """Scores, winners and how firmly they win.

    Args:
        members: name -> `terms`.
        draws: weights drawn evenly from all possible ones.
        seed: of the draws.
    """
    scores = {}
    for scenario, weights in WEIGHTS.items():
        found = {name: composite(values, weights) for name, values in members.items()}
        scores[scenario] = dict(sorted(found.items(), key=lambda item: -(item[1].value or 0)))
    return Ranking(
        terms={name: dict(values) for name, values in members.items()},
        scores=scores,
        sweeps=tuple(_sweep(members, term) for term in WEIGHTS["composite"]),
        wins=_wins(members, draws, seed),
        draws=draws,
    )


def best(members: Mapping[str, Mapping[str, float | None]], weights: Mapping[str, float]) -> str | None:
    """The member of the highest score; of equal ones the first. None if none has one."""
    found = {name: score for name, values in members.items() if (score := composite(values, weights).value) is not None}
    return max(found, key=lambda name: found[name]) if found else None


def _sweep(members: Mapping[str, Mapping[str, float | None]], term: str) -> Sweep:
    others = {name: weight for name, weight in WEIGHTS["composite"].items() if name != term}
    spans: list[tuple[float, float, str]] = []
    for weight in np.linspace(0, 1, 101).round(2).tolist():
        scaled = {name: (1 - weight) * value / sum(others.values()) for name, value in others.items()}
        winner = best(members, scaled | {term: weight})
        if winner is None:
            continue
        if spans and spans[-1][2] == winner:
            spans[-1] = (spans[-1][0], weight, winner)
        else:
            spans.append((weight, weight, winner))
    return Sweep(term=term, spans=tuple(spans))


def _wins(members: Mapping[str, Mapping[str, float | None]], draws: int, seed: int) -> dict[str, float]:
    names, used = list(members), list(WEIGHTS["composite"])
    table = np.array([[np.nan if (v := members[n].get(t)) is None else v for t in used] for n in names], dtype=float)
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(used)), draws)  # (D, T), even over the simplex
    known = ~np.isnan(table)
    total = weights @ known.T
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = (weights @ np.nan_to_num(table).T) / total
    if not known.any():
        return dict.fromkeys(names, 0.0)
    winners = np.nanargmax(np.where(total > 0, scores, -1.0), axis=1)
    return {name: float((winners == i).mean()) for i, name in enumerate(names)}
