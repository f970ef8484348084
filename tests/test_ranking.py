"""The composite score, its scenarios, and who wins when the weights move."""

import pytest

from training.ranking import MEANING, TERMS, WEIGHTS, best, composite, rank

FULL = {"auroc": 0.9, "f1": 0.8, "recall": 0.7, "precision": 0.6, "au_pro": 0.5, "type_auroc": 0.4}


def without(*terms: str, **changes: float) -> dict[str, float | None]:
    return {**FULL, **changes} | dict.fromkeys(terms)


def test_the_composite_is_the_weighted_mean_of_the_issue() -> None:
    assert WEIGHTS["composite"] == {"auroc": 0.30, "f1": 0.20, "recall": 0.15, "au_pro": 0.25, "type_auroc": 0.10}
    expected = 0.30 * 0.9 + 0.20 * 0.8 + 0.15 * 0.7 + 0.25 * 0.5 + 0.10 * 0.4
    score = composite(FULL, WEIGHTS["composite"])
    assert score.value == pytest.approx(expected)
    assert score.missing == ()


def test_every_scenario_is_a_mean_and_puts_most_on_what_it_is_about() -> None:
    assert WEIGHTS.keys() == MEANING.keys()
    for weights in WEIGHTS.values():
        assert sum(weights.values()) == pytest.approx(1)
        assert weights.keys() <= TERMS.keys()
    about = {"safety": "recall", "false alarms": "precision", "localisation": "au_pro"}
    for scenario, term in about.items():
        assert WEIGHTS[scenario][term] == 0.40 == max(WEIGHTS[scenario].values())


def test_a_missing_term_is_weighed_over_the_others_and_named() -> None:
    score = composite(without("au_pro", "type_auroc"), WEIGHTS["composite"])
    assert score.value == pytest.approx((0.30 * 0.9 + 0.20 * 0.8 + 0.15 * 0.7) / 0.65)
    assert score.missing == ("au_pro", "type_auroc")


def test_without_any_term_there_is_no_score() -> None:
    nothing = dict.fromkeys(TERMS)
    assert composite(nothing, WEIGHTS["composite"]).value is None
    assert best({"a": nothing}, WEIGHTS["composite"]) is None
    assert rank({"a": nothing}, draws=10).wins == {"a": 0.0}


def test_the_best_comes_first_in_every_scenario() -> None:
    members = {"blind": without(recall=0.1), "eager": without(precision=0.0, recall=1.0), "plain": FULL}
    ranking = rank(members, draws=100)
    assert list(ranking.scores["safety"]) == ["eager", "plain", "blind"]
    assert list(ranking.scores["false alarms"])[-1] == "eager"


def test_a_sweep_names_the_winner_of_every_weight_and_where_it_changes() -> None:
    flat = dict.fromkeys(TERMS, 0.5)
    members = {"finds": flat | {"recall": 1.0, "auroc": 0.0}, "ranks": flat | {"recall": 0.0, "auroc": 1.0}}
    sweep = next(s for s in rank(members, draws=10).sweeps if s.term == "recall")
    (low, turn, first), (again, high, last) = sweep.spans
    assert (low, first, last, high) == (0.0, "ranks", "finds", 1.0)
    # "finds" leads where w > (1 - w) * .30 / .85, that is from w = .2609 on
    assert turn == 0.26
    assert again == 0.27


def test_the_share_of_wins_adds_up_and_one_that_is_best_in_all_wins_all() -> None:
    worse = {term: value - 0.1 for term, value in FULL.items()}
    assert rank({"a": FULL, "b": worse}, draws=500).wins == {"a": 1.0, "b": 0.0}
    wins = rank({"a": without(auroc=1.0), "b": without(au_pro=0.6)}, draws=2000).wins
    # both have one advantage of .1, and by symmetry each is the larger half of the time
    assert sum(wins.values()) == pytest.approx(1)
    assert wins["a"] == pytest.approx(0.5, abs=0.05)
