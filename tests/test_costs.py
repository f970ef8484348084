"""What decisions cost: by hand, in order, with their uncertainty."""

import random

import numpy as np
import pytest
from pydantic import ValidationError

from anomaly.costs import (
    Costs,
    Decided,
    Decisions,
    Outcomes,
    cautious_cost,
    compare,
    compare_jointly,
    expected_cost,
)
from anomaly.figures import InspectorMetrics
from anomaly.guarantees import upper_share


def outcomes(good: tuple[int, int, int], defects: tuple[int, int, int], **more: float) -> Outcomes:
    """Counts of ok, review and defect."""
    sides = [Decisions(ok=ok, review=review, defect=defect) for ok, review, defect in (good, defects)]
    return Outcomes(good=sides[0], defects=sides[1], **more)


def prices(**changes: float) -> Costs:
    return Costs(**{"miss": 50, "false_alarm": 1, "review": 5, "prevalence": 0.02} | changes)


SAFE = outcomes((60, 0, 40), (0, 0, 40), good_mj=900, defect_mj=900, g_per_kwh=400)
PRECISE = outcomes((99, 0, 1), (8, 0, 32), good_mj=500, defect_mj=500, g_per_kwh=400)
CAREFUL = outcomes((80, 20, 0), (0, 10, 30), good_mj=700, defect_mj=700, g_per_kwh=400)
FRUGAL = outcomes((61, 0, 39), (0, 0, 40), good_mj=100, defect_mj=900, g_per_kwh=400)
ALL = {"SAFE": SAFE, "PRECISE": PRECISE, "CAREFUL": CAREFUL}


def at_random(rng: random.Random) -> Outcomes:
    sides = [tuple(rng.randint(0, 30) for _ in range(3)) for _ in range(2)]
    return outcomes(*((ok, review, defect + 1) for ok, review, defect in sides), good_mj=rng.random(), defect_mj=1)


# --- the figure ------------------------------------------------------------------------------------------------------


def test_the_cost_is_the_one_that_is_worked_out_by_hand() -> None:
    found = outcomes((80, 15, 5), (2, 4, 14))  # 100 good parts, 20 defects
    # 1000 x (0.02 x (0.1 x 50 + 0.2 x 5) + 0.98 x (0.05 x 1 + 0.15 x 5)) = 1000 x (0.12 + 0.784)
    assert expected_cost(found, prices()) == pytest.approx(904)


def test_carbon_is_priced_by_the_energy_at_the_prevalence_of_production() -> None:
    found = outcomes((1, 0, 0), (0, 0, 1), good_mj=1000, defect_mj=3000, g_per_kwh=360)
    assert found.energy_mj(0.25) == pytest.approx(1500)
    # 1,000 images of 1.5 J are 1.5 kJ = 1/2400 kWh, 0.15 g of CO2e; a million a tonne is 1 a gram
    assert expected_cost(found, prices(prevalence=0.25, carbon_price=1e6)) == pytest.approx(0.15)


def test_a_price_of_carbon_without_the_energy_is_refused_alone_and_left_out_of_a_comparison() -> None:
    unknown = outcomes((9, 0, 1), (0, 0, 5))
    with pytest.raises(ValueError, match="energy of an image"):
        expected_cost(unknown, prices(carbon_price=100))
    found = compare({"a": unknown, "b": SAFE}, prices(carbon_price=1e9))
    assert not found.carbon_counted
    assert found.policies["b"].cost == pytest.approx(expected_cost(SAFE, prices()))
    assert compare({"b": SAFE}, prices(carbon_price=1e9)).carbon_counted


def test_more_defects_in_production_cost_more_exactly_where_a_defect_costs_more_than_a_good_part() -> None:
    rng = random.Random(0)
    rising = 0
    for _ in range(200):
        found, low, high = at_random(rng), *sorted(rng.uniform(0.001, 0.999) for _ in range(2))
        costs = prices(miss=rng.uniform(0, 90), false_alarm=rng.uniform(0, 9), review=rng.uniform(0, 9))
        ends = [expected_cost(found, costs.model_copy(update={"prevalence": p})) for p in (1e-9, 1 - 1e-9)]
        before, after = (expected_cost(found, costs.model_copy(update={"prevalence": p})) for p in (low, high))
        assert (after - before) * (ends[1] - ends[0]) >= 0
        assert min(ends) - 1e-4 <= before <= max(ends) + 1e-4
        rising += ends[1] > ends[0]
    assert 20 < rising < 180


def test_a_dearer_mistake_never_makes_a_policy_cheaper() -> None:
    rng = random.Random(1)
    for _ in range(200):
        found, costs = at_random(rng), prices(prevalence=rng.uniform(0.01, 0.99))
        for key in ("miss", "false_alarm", "review"):
            dearer = costs.model_copy(update={key: getattr(costs, key) + rng.uniform(0, 50)})
            assert expected_cost(found, dearer) >= expected_cost(found, costs)
            assert cautious_cost(found, dearer) >= cautious_cost(found, costs) - 1e-9


def test_the_cautious_cost_is_never_below_the_estimate() -> None:
    rng = random.Random(2)
    for _ in range(300):
        found = at_random(rng)
        costs = prices(miss=rng.uniform(0, 90), review=rng.uniform(0, 90))
        assert cautious_cost(found, costs) >= expected_cost(found, costs)


def test_no_miss_among_twenty_is_not_read_as_never() -> None:
    found = outcomes((100, 0, 0), (0, 0, 20))
    assert expected_cost(found, prices()) == 0
    assert cautious_cost(found, prices()) == pytest.approx(1000 * 0.02 * upper_share(0, 20) * 50)
    assert cautious_cost(found, prices()) > 130
    many = outcomes((100, 0, 0), (0, 0, 2000))
    assert cautious_cost(many, prices()) < cautious_cost(found, prices()) / 50


# --- the winner ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "winner"),
    [
        ({"miss": 5000}, "SAFE"),  # a dear miss: the one that misses nothing
        ({"miss": 20, "false_alarm": 30}, "PRECISE"),  # a dear false alarm: the one that hardly has any
        ({"miss": 5000, "false_alarm": 30, "review": 1}, "CAREFUL"),  # a cheap review: the one that asks
        ({"miss": 5000, "false_alarm": 30, "review": 200}, "SAFE"),  # a dear review: not the one that asks
        ({"miss": 5000, "false_alarm": 1, "prevalence": 0.0001}, "PRECISE"),  # hardly a defect: few false alarms
    ],
)
def test_the_costs_move_the_winner(changes: dict[str, float], winner: str) -> None:
    assert compare(ALL, prices(**changes)).winner == winner


def test_the_price_of_carbon_moves_the_winner_to_the_frugal_one() -> None:
    thrifty = outcomes((59, 0, 41), (0, 0, 40), good_mj=100, defect_mj=100, g_per_kwh=400)
    both = {"SAFE": SAFE, "THRIFTY": thrifty}
    assert compare(both, prices()).winner == "SAFE"
    assert compare(both, prices(carbon_price=1e9)).winner == "THRIFTY"


def test_of_equal_costs_the_one_with_less_energy_wins_and_then_the_name() -> None:
    twin = SAFE.model_copy(update={"good_mj": 10, "defect_mj": 10})
    assert compare({"A": SAFE, "B": twin}, prices()).winner == "B"
    found = compare({"B": SAFE, "A": SAFE}, prices())
    assert (found.winner, found.alike, found.runner_up) == ("A", ("B",), None)
    assert found.difference is None


def test_the_runner_up_is_the_next_that_decides_differently() -> None:
    found = compare({"B": SAFE, "A": SAFE, "PRECISE": ALL["PRECISE"]}, prices(miss=1e6))
    assert (found.winner, found.alike, found.runner_up) == ("A", ("B",), "PRECISE")


def test_the_order_is_by_cost_and_the_shares_of_wins_add_up() -> None:
    found = compare(ALL, prices())
    costs = [policy.cost for policy in found.policies.values()]
    assert costs == sorted(costs)
    assert sum(policy.cheapest for policy in found.policies.values()) == pytest.approx(1)
    assert found.bootstrap == "counts"
    for policy in found.policies.values():
        assert policy.low <= policy.cost <= policy.high
    assert compare(ALL, prices()) == found
    assert compare(ALL, prices(), seed=1).policies != found.policies


def test_the_interval_is_that_of_the_binomial_it_is_drawn_from() -> None:
    found = compare({"P": outcomes((900, 0, 100), (0, 0, 50))}, prices(prevalence=0.5, miss=0)).policies["P"]
    deviation = 1000 * 0.5 * np.sqrt(0.1 * 0.9 / 1000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


# --- the same parts --------------------------------------------------------------------------------------------------


def jointly(groups: list[int] | None = None) -> Decided:
    defect = np.array([False] * 60 + [True] * 20)
    first = np.where(defect, 2, 0).astype(np.int8)
    first[:10] = 2  # ten false alarms
    second = first.copy()
    second[10] = 2  # and one more
    energy = {"FIRST": np.full(80, 1.0), "SECOND": np.where(defect, 9.0, 1.0)}
    return Decided(
        defect, {"FIRST": first, "SECOND": second}, energy, 400.0, None if groups is None else np.array(groups)
    )


def test_both_ways_agree_on_the_costs() -> None:
    decided = jointly()
    costs = prices(carbon_price=1e7)
    apart, paired = compare(decided.outcomes(), costs), compare_jointly(decided, costs)
    assert (apart.bootstrap, paired.bootstrap) == ("counts", "parts")
    for name, found in paired.policies.items():
        assert found.cost == pytest.approx(apart.policies[name].cost)
        assert found.low == pytest.approx(apart.policies[name].low, rel=0.3)
    assert decided.outcomes()["SECOND"].energy_mj(0.5) == pytest.approx(5)


def test_on_the_same_parts_a_difference_is_far_surer_than_by_itself() -> None:
    """SECOND is FIRST with one more false alarm: on no draw of parts is it cheaper."""
    apart, paired = compare(jointly().outcomes(), prices()), compare_jointly(jointly(), prices())
    assert apart.difference is not None
    assert paired.difference is not None
    assert paired.difference.low >= 0 > apart.difference.low
    assert paired.policies["FIRST"].cheapest == 1


def test_parts_of_one_group_are_drawn_together() -> None:
    ten = [i // 10 for i in range(80)]  # all false alarms are one part, seen ten times
    alone, grouped = (compare_jointly(jointly(groups), prices()).policies["FIRST"] for groups in (None, ten))
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"miss": -1}, {"review": float("nan")}, {"prevalence": 0}, {"prevalence": 1}, {"carbon_price": -1}]
)
def test_costs_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        prices(**wrong)


def test_without_a_defect_no_cost_is_known() -> None:
    with pytest.raises(ValidationError, match="20 good parts and 0 defects"):
        outcomes((20, 0, 0), (0, 0, 0))


def test_metrics_from_before_the_counts_still_load() -> None:
    data = {"name": "x", "layout": "mvtec", "seed": 0, "split_hash": "0", "counts": {}}
    old = {"category": "x", "data": data, "members": {}, "policies": {}, "hardware": "", "country": "", "versions": {}}
    assert InspectorMetrics.model_validate(old).held_out == {}
    new = InspectorMetrics.model_validate(old | {"held_out": {"SAFE": SAFE.model_dump(), "mine": None}})
    assert InspectorMetrics.model_validate_json(new.model_dump_json()) == new
