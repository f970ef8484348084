"""What a policy costs: its decisions on labelled held-out parts, priced, per 1,000 parts of production.

Expected cost with the class shares of production in place of those of the sample (Drummond and Holte 2006, cost
curves): the share of defects is a setting, what a policy does with a defect and with a good part is counted. Costs are
in any currency, one part each.

Intervals are percentiles of a bootstrap that draws good parts and defects apart. Where it is known what every policy
said of each part, the parts themselves are drawn (`parts`), so that a difference of two policies is paired; else the
three counts of each class (`counts`, a multinomial), for every policy by itself. Neither ever draws a miss where none
was seen: `cautious` takes the misses at their Clopper-Pearson upper bound instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from anomaly.guarantees import upper_share

RESAMPLES = 2000
PARTS = 1000  # what a cost is for
VERDICTS = ("ok", "review", "defect")  # the order of every array of three
_MJ_A_KWH = 3.6e9
_GRAMS_A_TONNE = 1e6

Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Bootstrap = Literal["parts", "counts"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Costs(_Frozen):
    """Of one part each, in any one currency."""

    miss: Money  # a defect that passes as ok
    false_alarm: Money  # a good part that is rejected
    review: Money  # a part that a person looks at; the person finds out what it is
    prevalence: Annotated[float, Field(gt=0, lt=1)]  # share of defects in production
    carbon_price: Money = 0.0  # of a tonne of CO2e


class Decisions(_Frozen):
    """How many parts of one class were decided how."""

    ok: Count
    review: Count
    defect: Count

    @property
    def total(self) -> int:
        return self.ok + self.review + self.defect

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.ok, self.review, self.defect


class Outcomes(_Frozen):
    """What one policy did with labelled held-out parts."""

    good: Decisions
    defects: Decisions
    good_mj: Money | None = None  # energy of an image, mean over the good parts; an estimate
    defect_mj: Money | None = None  # the same over the defects: a cascade asks more for one class than for the other
    g_per_kwh: Money | None = None  # CO2e of the grid

    @model_validator(mode="after")
    def _both(self) -> Self:
        if not self.good.total or not self.defects.total:
            raise ValueError(
                f"{self.good.total} good parts and {self.defects.total} defects: without some of both no cost is known"
            )
        return self

    def energy_mj(self, prevalence: float) -> float | None:
        """Of an image, at this share of defects; None where it is not known."""
        if self.good_mj is None or self.defect_mj is None:
            return None
        return prevalence * self.defect_mj + (1 - prevalence) * self.good_mj


class PolicyCost(_Frozen):
    """Of one policy, per 1,000 parts."""

    cost: float
    low: float  # 95 % interval of the bootstrap
    high: float
    cautious: float  # with the misses at their Clopper-Pearson 95 % upper bound
    cheapest: float  # share of the draws in which it wins; ties go as they do for `winner`
    missed: int
    defects: int
    false_alarms: int
    good: int
    reviews: int  # of both
    energy_mj: float | None  # of an image, at the prevalence


class Difference(_Frozen):
    """Cost of the runner-up less that of the winner, per 1,000 parts."""

    cost: float
    low: float
    high: float


class Comparison(_Frozen):
    """What every policy costs; the cheapest first."""

    costs: Costs
    policies: dict[str, PolicyCost]
    winner: str
    alike: tuple[str, ...]  # decide every part as the winner does, and cost the same
    runner_up: str | None  # the first that does not
    difference: Difference | None
    bootstrap: Bootstrap
    resamples: int
    carbon_counted: bool  # False: no price was given, or the energy of a policy or the grid is not known


@dataclass(frozen=True, slots=True)
class Decided:
    """What every policy said of the same parts."""

    defect: NDArray[np.bool_]  # (N,)
    verdicts: Mapping[str, NDArray[np.int8]]  # by policy, (N,), places in VERDICTS
    energy_mj: Mapping[str, NDArray[np.float64]] | None = None  # by policy, (N,)
    g_per_kwh: float | None = None
    groups: NDArray[np.int64] | None = None  # (N,) parts of one group are drawn together

    def outcomes(self) -> dict[str, Outcomes]:
        """The counts of every policy. Raises ValueError without a good part or without a defect."""
        return {name: self._outcomes(name) for name in self.verdicts}

    def only(self, names: Sequence[str]) -> "Decided":
        """The same parts and fewer policies, in this order."""
        energy = None if self.energy_mj is None else {name: self.energy_mj[name] for name in names}
        return replace(self, verdicts={name: self.verdicts[name] for name in names}, energy_mj=energy)

    def _outcomes(self, name: str) -> Outcomes:
        said = {
            side: np.bincount(self.verdicts[name][chosen], minlength=3).tolist()
            for side, chosen in (("good", ~self.defect), ("defects", self.defect))
        }
        energy = None if self.energy_mj is None else self.energy_mj[name]
        return Outcomes(
            good=Decisions(**dict(zip(VERDICTS, said["good"], strict=True))),
            defects=Decisions(**dict(zip(VERDICTS, said["defects"], strict=True))),
            good_mj=None if energy is None or self.defect.all() else float(energy[~self.defect].mean()),
            defect_mj=None if energy is None or not self.defect.any() else float(energy[self.defect].mean()),
            g_per_kwh=self.g_per_kwh,
        )


def expected_cost(outcomes: Outcomes, costs: Costs) -> float:
    """Per 1,000 parts, from the shares that were counted.

    Raises:
        ValueError: carbon has a price, and the energy or the grid is not known.
    """
    good, defects = np.array(outcomes.good.counts), np.array(outcomes.defects.counts)
    return float(_decision_cost(good / good.sum(), defects / defects.sum(), costs)) + carbon_cost(outcomes, costs)


def cautious_cost(outcomes: Outcomes, costs: Costs) -> float:
    """The same with the misses at their Clopper-Pearson 95 % upper bound; never less than `expected_cost`.

    What is added to the misses is taken from the defects that were found, then from those that were reviewed.
    """
    good, defects = np.array(outcomes.good.counts), outcomes.defects
    missed = upper_share(defects.ok, defects.total)
    review = min(defects.review / defects.total, 1 - missed)
    shares = np.array([missed, review, 1 - missed - review])
    worse = float(_decision_cost(good / good.sum(), shares, costs)) + carbon_cost(outcomes, costs)
    return max(worse, expected_cost(outcomes, costs))


def carbon_cost(outcomes: Outcomes, costs: Costs) -> float:
    """Of the electricity of 1,000 inspections. Raises ValueError where it has a price and is not known."""
    if not costs.carbon_price:
        return 0.0
    energy = outcomes.energy_mj(costs.prevalence)
    if energy is None or outcomes.g_per_kwh is None:
        raise ValueError("carbon has a price, but the energy of an image or the grid's g/kWh is not known")
    return PARTS * energy * _price_of_mj(outcomes.g_per_kwh, costs)


def compare(outcomes: Mapping[str, Outcomes], costs: Costs, *, seed: int = 0) -> Comparison:
    """Prices every policy from its counts; each is drawn by itself.

    Args:
        outcomes: by policy; at least one.
        costs: of the decisions.
        seed: of the bootstrap.
    """
    priced, counted = _counted_carbon(outcomes, costs)
    rng = np.random.default_rng(seed)
    draws = {}
    for name, found in outcomes.items():
        good, defects = (
            rng.multinomial(side.total, np.array(side.counts) / side.total, RESAMPLES) / side.total
            for side in (found.good, found.defects)
        )
        draws[name] = _decision_cost(good, defects, priced) + carbon_cost(found, priced)
    return _compared(outcomes, costs, priced, draws, "counts", counted)


def compare_jointly(decided: Decided, costs: Costs, *, seed: int = 0) -> Comparison:
    """Prices every policy on the same parts; the parts are drawn, by group, so that differences are paired.

    Args:
        decided: what every policy said of each part.
        costs: of the decisions.
        seed: of the bootstrap.

    Raises:
        ValueError: there is no good part, or no defect.
    """
    outcomes = decided.outcomes()
    priced, counted = _counted_carbon(outcomes, costs)
    table = part_costs(decided, priced)  # (policies, N)
    rng = np.random.default_rng(seed)
    drawn = np.zeros((len(table), RESAMPLES))
    for chosen, share in ((~decided.defect, 1 - costs.prevalence), (decided.defect, costs.prevalence)):
        groups = np.arange(chosen.sum()) if decided.groups is None else decided.groups[chosen]
        _, member = np.unique(groups, return_inverse=True)
        count = int(member.max()) + 1
        times = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)[:, member]  # (RESAMPLES, parts)
        drawn += share * PARTS * (table[:, chosen] @ times.T) / times.sum(1)
    return _compared(outcomes, costs, priced, dict(zip(decided.verdicts, drawn, strict=True)), "parts", counted)


def part_costs(decided: Decided, costs: Costs) -> NDArray[np.float64]:
    """(policies, N): what each decision costs, with the carbon of that part where it has a price and is known."""
    price = np.array([[0.0, costs.review, costs.false_alarm], [costs.miss, costs.review, 0.0]])
    table = np.stack([price[decided.defect.astype(int), said] for said in decided.verdicts.values()])
    if costs.carbon_price and decided.energy_mj is not None and decided.g_per_kwh is not None:
        energy = np.stack([decided.energy_mj[name] for name in decided.verdicts])
        table += energy * _price_of_mj(decided.g_per_kwh, costs)
    return table


def _counted_carbon(outcomes: Mapping[str, Outcomes], costs: Costs) -> tuple[Costs, bool]:
    """The costs without carbon where one policy's is not known: it would seem to be free. And whether it counts."""
    known = all(o.energy_mj(costs.prevalence) is not None and o.g_per_kwh is not None for o in outcomes.values())
    return (costs, costs.carbon_price > 0) if known else (costs.model_copy(update={"carbon_price": 0.0}), False)


def _compared(
    outcomes: Mapping[str, Outcomes],
    costs: Costs,
    priced: Costs,
    draws: Mapping[str, NDArray[np.float64]],
    bootstrap: Bootstrap,
    counted: bool,
) -> Comparison:
    exact = {name: expected_cost(found, priced) for name, found in outcomes.items()}

    def rank(name: str) -> tuple[float, float, str]:
        energy = outcomes[name].energy_mj(costs.prevalence)
        return round(exact[name], 9), np.inf if energy is None else energy, name

    by_energy = sorted(outcomes, key=lambda name: rank(name)[1:])  # argmin takes the first of equals
    firsts = np.argmin(np.stack([draws[name].round(9) for name in by_energy]), axis=0)
    won = dict(zip(by_energy, np.bincount(firsts, minlength=len(by_energy)) / RESAMPLES, strict=True))
    order = sorted(outcomes, key=rank)
    policies = {}
    for name in order:
        found = outcomes[name]
        low, high = np.quantile(draws[name], (0.025, 0.975)).tolist()
        policies[name] = PolicyCost(
            cost=exact[name],
            low=low,
            high=high,
            cautious=cautious_cost(found, priced),
            cheapest=float(won[name]),
            missed=found.defects.ok,
            defects=found.defects.total,
            false_alarms=found.good.defect,
            good=found.good.total,
            reviews=found.good.review + found.defects.review,
            energy_mj=found.energy_mj(costs.prevalence),
        )
    winner, *others = order
    same = (outcomes[winner].good, outcomes[winner].defects, round(exact[winner], 9))
    alike = tuple(
        name
        for name in others
        if (outcomes[name].good, outcomes[name].defects, round(exact[name], 9)) == same
        and (bootstrap == "counts" or np.allclose(draws[name], draws[winner], rtol=1e-9))
    )
    second, difference = next((name for name in others if name not in alike), None), None
    if second is not None:
        low, high = np.quantile(draws[second] - draws[winner], (0.025, 0.975)).tolist()
        difference = Difference(cost=exact[second] - exact[winner], low=low, high=high)
    return Comparison(
        costs=costs,
        policies=policies,
        winner=winner,
        alike=alike,
        runner_up=second,
        difference=difference,
        bootstrap=bootstrap,
        resamples=RESAMPLES,
        carbon_counted=counted,
    )


def _decision_cost(good: NDArray[np.float64], defects: NDArray[np.float64], costs: Costs) -> NDArray[np.float64]:
    """(..., 3) shares ok, review, defect of each class -> (...) cost of 1,000 parts."""
    of_good = good @ np.array([0.0, costs.review, costs.false_alarm])
    of_defects = defects @ np.array([costs.miss, costs.review, 0.0])
    total: NDArray[np.float64] = PARTS * (costs.prevalence * of_defects + (1 - costs.prevalence) * of_good)
    return total


def _price_of_mj(g_per_kwh: float, costs: Costs) -> float:
    return g_per_kwh / _MJ_A_KWH * costs.carbon_price / _GRAMS_A_TONNE
