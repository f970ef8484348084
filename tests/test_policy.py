"""Votes and a policy -> the next members to run, or the decision: a table, and what must never happen."""

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from anomaly.calibration import Calibration, calibrate
from anomaly.errors import PolicyError
from anomaly.policy import (
    Decision,
    Failure,
    Policy,
    ReviewBand,
    Rule,
    Run,
    Vote,
    check_policy,
    member_verdict,
    next_step,
)

SEVERITY = {"ok": 0, "review": 1, "defect": 2}
BAND = 0.1  # p-value below which a member is unsure

# One letter a member: what it scores, its p-value. The threshold is 1.
LETTERS = {
    "D": (2.0, 0.01),  # above its threshold
    "=": (1.0, 0.05),  # equal to it
    "-": (math.nextafter(1.0, 0), 0.2),  # just below it
    "u": (0.5, BAND),  # below it, but rarer than the review band
    ".": (0.0, 0.9),
    "f": None,  # failed
}


def policy(kind: str, members: int, *, band: bool = False, required: tuple[str, ...] = ()) -> Policy:
    return Policy(
        name="tested",
        description={"en": "tested", "fr": "testée"},
        rule=Rule(kind=kind, members=names(members), threshold="far"),  # type: ignore[arg-type]
        required=required,
        review=ReviewBand(p_value=BAND) if band else None,
    )


def names(count: int) -> tuple[str, ...]:
    return tuple(f"m{i}" for i in range(1, count + 1))


def votes(letters: str) -> dict[str, Vote | Failure]:
    made: dict[str, Vote | Failure] = {}
    for name, letter in zip(names(len(letters)), letters, strict=True):
        scored = LETTERS[letter]
        made[name] = Failure(name, "it crashed") if scored is None else Vote(name, *scored, thresholds={"far": 1.0})
    return made


def decide(votes: Mapping[str, Vote | Failure], policy: Policy) -> Decision:
    step = next_step(votes, policy)
    assert isinstance(step, Decision)
    assert set(step.reason) == {"en", "fr"}
    assert all(text.strip() and "\n" not in text for text in step.reason.values())
    assert step.reason["en"] != step.reason["fr"]
    return step


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "letters", "verdict"),
    [
        # one vote above its threshold is enough
        ("any", ".", "ok"),
        ("any", "D", "defect"),
        ("any", "....D", "defect"),
        ("any", ".....", "ok"),
        # equal to the threshold is a defect, the next float below is not
        ("any", "=", "defect"),
        ("any", "-", "ok"),
        ("majority", "==.", "defect"),
        ("majority", "=-.", "ok"),
        # more than half, of one to five; a tie is for a person to decide
        ("majority", ".", "ok"),
        ("majority", "D", "defect"),
        ("majority", "D.", "review"),
        ("majority", "DD", "defect"),
        ("majority", "D..", "ok"),
        ("majority", "DD.", "defect"),
        ("majority", "D...", "ok"),
        ("majority", "DD..", "review"),
        ("majority", "DDD.", "defect"),
        ("majority", "DD...", "ok"),
        ("majority", "D.D.D", "defect"),
        ("majority", "DDDDD", "defect"),
        # without a review band a rare score below the threshold is ok
        ("any", "u", "ok"),
        ("majority", "uu", "ok"),
        # a failure is no vote: the majority is of those that voted, and of none there is none
        ("majority", "Df", "defect"),
        ("majority", ".f", "ok"),
        ("majority", "DD.ff", "defect"),
        ("majority", "D.fff", "review"),
        ("any", "ffD", "defect"),
        ("any", "f", "review"),
        ("majority", "f", "review"),
        ("majority", "fffff", "review"),
    ],
)
def test_the_verdict(kind: str, letters: str, verdict: str) -> None:
    assert decide(votes(letters), policy(kind, len(letters))).verdict == verdict


@pytest.mark.parametrize(
    ("kind", "letters", "verdict"),
    [
        ("any", "u", "review"),
        ("any", "..u", "review"),
        ("any", "Du", "defect"),  # sure enough without the unsure
        ("any", "...", "ok"),
        ("any", "--", "ok"),  # close to the threshold, but no rarer than the band
        ("majority", "u", "review"),
        ("majority", "u.", "ok"),  # even if the unsure one saw a defect, one of two is no majority
        ("majority", "Du", "review"),
        ("majority", "Du.", "review"),
        ("majority", "uu.", "review"),
        ("majority", "D..", "ok"),
        ("majority", "DDu", "defect"),
        ("majority", "Duuff", "review"),
        ("majority", "u..ff", "ok"),
    ],
)
def test_the_verdict_with_a_review_band(kind: str, letters: str, verdict: str) -> None:
    assert decide(votes(letters), policy(kind, len(letters), band=True)).verdict == verdict


@pytest.mark.parametrize("kind", ["any", "majority"])
@pytest.mark.parametrize("others", ["..", "DD", "uu", "ff"])
def test_a_missing_required_detector_means_review_whatever_the_others_say(kind: str, others: str) -> None:
    decision = decide(votes(f"f{others}"), policy(kind, 3, required=("m1",)))
    assert decision.verdict == "review"
    assert all("m1" in text and "it crashed" in text for text in decision.reason.values())


def test_a_detector_that_is_not_required_may_fail() -> None:
    assert decide(votes("f.."), policy("any", 3, required=("m2", "m3"))).verdict == "ok"


# --- running members ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["any", "majority"])
def test_every_member_runs_before_there_is_a_decision(kind: str) -> None:
    rule = policy(kind, 3, required=("m1",))
    assert next_step({}, rule) == Run(("m1", "m2", "m3"))
    every = votes("D.D")
    assert next_step({"m2": every["m2"]}, rule) == Run(("m1", "m3"))
    assert isinstance(next_step(every, rule), Decision)


def test_a_failure_is_not_run_again() -> None:
    assert next_step({"m1": Failure("m1", "it crashed")}, policy("any", 2)) == Run(("m2",))


def test_the_votes_of_others_do_not_count() -> None:
    decision = decide(votes(".D"), policy("any", 1))
    assert (decision.verdict, dict(decision.verdicts)) == ("ok", {"m1": "ok"})


def test_a_decision_tells_the_verdict_of_each_that_voted_and_counts_them_in_both_languages() -> None:
    decision = decide(votes("D=u.f"), policy("majority", 5, band=True))
    assert dict(decision.verdicts) == {"m1": "defect", "m2": "defect", "m3": "review", "m4": "ok"}
    assert decision.reason["en"] == "Close call: with the unsure, 3 of 4 for a defect, 3 needed: m1, m2, m3."
    assert decision.reason["fr"] == "Cas limite : indécis compris, 3 sur 4 pour défaut, 3 requis : m1, m2, m3."
    decision = decide(votes("DD."), policy("majority", 3))
    assert decision.reason["en"] == "2 of 3 detectors reach their far threshold, 2 needed: m1, m2."
    assert decision.reason["fr"] == "2 détecteurs sur 3 au seuil far ou au-dessus, 2 requis : m1, m2."


# --- what must never happen -----------------------------------------------------------------------------------------


def test_raising_any_score_never_makes_a_part_better() -> None:
    rng = random.Random(0)
    changed = 0
    for _ in range(3000):
        count = rng.randint(1, 5)
        calibrations = {name: calibrated(rng.randint(4, 30), rng) for name in names(count)}
        scores = {name: rng.choice([rng.uniform(-3, 6), near(calibrations[name], rng)]) for name in names(count)}
        failed = {name for name in names(count) if rng.random() < 0.15}
        rule = Policy(
            name="drawn",
            description={"en": "drawn", "fr": "tirée"},
            rule=Rule(
                kind=rng.choice(["any", "majority"]),
                members=names(count),
                threshold=rng.choice(["far", "f1", "f2", "safe"]),
            ),
            required=tuple(name for name in names(count) if rng.random() < 0.3),
            review=rng.choice([None, ReviewBand(p_value=rng.uniform(0.01, 0.6))]),
        )
        raised = dict(scores)
        for name in rng.sample(names(count), rng.randint(1, count)):
            raised[name] += rng.choice([1e-12, 0.1, 1.0, 5.0])
        before, after = (decide(cast(s, calibrations, failed), rule).verdict for s in (scores, raised))
        assert SEVERITY[after] >= SEVERITY[before], (rule, scores, raised, failed)
        changed += after != before
    assert changed > 300  # else nothing was tested


def test_one_more_failure_never_makes_a_part_ok_that_its_policy_requires_to_be_seen() -> None:
    for letters in ("D..", "DD.", "u..", "..."):
        for i in range(3):
            fewer = letters[:i] + "f" + letters[i + 1 :]
            assert decide(votes(fewer), policy("majority", 3, band=True, required=names(3))).verdict == "review"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_cannot_become_a_vote(score: float) -> None:
    with pytest.raises(ValueError, match=r"'m1' scored (nan|inf|-inf): that is a Failure, not a Vote"):
        Vote("m1", score, 0.5, {"far": 1.0})


def test_a_threshold_that_a_vote_does_not_have_decides_nothing() -> None:
    unknown = policy("any", 1).model_copy(update={"rule": Rule(kind="any", members=("m1",), threshold="safe")})
    with pytest.raises(PolicyError, match=r"rule.threshold 'safe' is not calibrated for 'm1', which has \['far'\]"):
        next_step(votes("D"), unknown)


def test_a_score_equal_to_each_threshold_is_a_defect() -> None:
    calibration = calibrated(20, random.Random(1))
    thresholds = {name: threshold.value for name, threshold in calibration.thresholds.items()}
    for name, value in thresholds.items():
        rule = Policy(name="t", description={}, rule=Rule(kind="any", members=("m",), threshold=name))
        assert member_verdict(Vote("m", value, calibration.p_value(value), thresholds), rule) == "defect"
        below = math.nextafter(value, -math.inf)
        assert member_verdict(Vote("m", below, calibration.p_value(below), thresholds), rule) == "ok"


# --- policies that are refused --------------------------------------------------------------------------------------


def test_a_policy_that_can_reject_is_accepted() -> None:
    check_policy(policy("majority", 3, band=True, required=("m2",)), inspector(3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": {"members": ["m1", "m9"]}}, r"rule.members\[1\] names 'm9'; this inspector has \['m1', 'm2', 'm3'\]"),
        ({"required": ["m9"]}, r"required\[0\] names 'm9'; this inspector has"),
        ({"rule": {"members": ["m1", "m1"]}}, r"rule.members\[1\] names a member twice"),
        ({"rule": {"members": ["m1"]}, "required": ["m2"]}, r"required\[0\] names 'm2', whose vote does not count"),
        ({"rule": {"threshold": "safe"}}, r"rule.threshold 'safe' is not calibrated for 'm1', which has \['far'\]"),
        ({"review": {"p_value": 0.04}}, "review.p_value asks 'm1' for a level of 0.04, but with 20 good images"),
    ],
)
def test_a_policy_that_names_what_is_not_there_is_refused(changes: dict[str, Any], words: str) -> None:
    wrong = policy("any", 3).model_dump()
    for key, value in changes.items():
        wrong[key] = wrong[key] | value if key == "rule" else value
    with pytest.raises(PolicyError, match=words) as caught:
        check_policy(Policy.model_validate(wrong), inspector(3))
    assert str(caught.value).startswith("policy 'tested': ")
    assert "\n" not in str(caught.value)


def test_a_level_that_no_p_value_can_reach_is_refused_with_the_count() -> None:
    reached = calibrate([0.0] * 19, [], split_hash="0" * 16, far=0.05)
    too_low = reached.thresholds["far"].model_copy(update={"level": 0.01})
    edited = reached.model_copy(update={"thresholds": {"far": too_low}})
    check_policy(policy("any", 1), {"m1": reached})
    with pytest.raises(PolicyError, match=r"a level of 0.01, but with 19 good images .* below 0.0500: .* never fire"):
        check_policy(policy("any", 1), {"m1": edited})


@pytest.mark.parametrize("far", [0.05, 0.1, 1 - 0.9, 1 / 3, 0.3])
def test_whatever_level_was_calibrated_is_accepted_with_the_fewest_images(far: float) -> None:
    from anomaly.calibration import least_good

    check_policy(policy("any", 1), {"m1": calibrate([0.0] * least_good(far), [], split_hash="0" * 16, far=far)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": {"kind": "most"}}, "rule"),
        ({"rule": {"members": []}}, "rule.any.members"),  # pydantic names the kind as well; `read_policy` does not
        ({"rule": {"threshold": "f3"}}, "rule.any.threshold"),
        ({"rule": {"treshold": "far"}}, "rule.any.treshold"),
        ({"reviews": None}, "reviews"),
        ({"review": {"p_value": 0}}, "review.p_value"),
        ({"review": {"p_value": 1}}, "review.p_value"),
        ({"name": "a b"}, "name"),
        ({"format": 2}, "format"),
        ({"description": {"de": "geprüft"}}, "description"),
    ],
)
def test_a_misspelt_policy_is_refused_with_the_key(changes: dict[str, Any], words: str) -> None:
    wrong = policy("any", 3).model_dump()
    for key, value in changes.items():
        wrong[key] = wrong[key] | value if key == "rule" else value
    with pytest.raises(ValidationError, match=words):
        Policy.model_validate(wrong)


def test_a_policy_is_plain_json() -> None:
    for band in (False, True):
        before = policy("majority", 3, band=band, required=("m1",))
        assert Policy.model_validate_json(before.model_dump_json()) == before


# --- builders -------------------------------------------------------------------------------------------------------


def calibrated(count: int, rng: random.Random) -> Calibration:
    good = [round(rng.gauss(0, 1), 1) for _ in range(count)]
    defects = [round(rng.gauss(2, 1), 1) for _ in range(6)]
    return calibrate(good, defects, split_hash="0" * 16, far=0.2)


def inspector(count: int) -> dict[str, Calibration]:
    """20 good images each, no defects: the smallest p-value is 1/21."""
    return {name: calibrate([float(i) for i in range(20)], [], split_hash="0" * 16, far=0.05) for name in names(count)}


def near(calibration: Calibration, rng: random.Random) -> float:
    """A score where something changes: at a threshold or a held-out score, or one float beside."""
    scores = [threshold.value for threshold in calibration.thresholds.values()] + list(calibration.good_scores)
    score = rng.choice(scores)
    return rng.choice([score, math.nextafter(score, -math.inf), math.nextafter(score, math.inf)])


def cast(
    scores: Mapping[str, float], calibrations: Mapping[str, Calibration], failed: set[str]
) -> dict[str, Vote | Failure]:
    made: dict[str, Vote | Failure] = {}
    for name, score in scores.items():
        thresholds = {key: threshold.value for key, threshold in calibrations[name].thresholds.items()}
        vote = Vote(name, score, calibrations[name].p_value(score), thresholds)
        made[name] = Failure(name, "it crashed") if name in failed else vote
    return made


def test_an_advisory_member_is_asked_and_shown_and_does_not_count() -> None:
    rule = policy("any", 1).model_copy(update={"advisory": ("m2",)})
    heard = votes(".D")
    assert next_step({"m1": heard["m1"]}, rule) == Run(("m2",))
    decision = next_step(heard, rule)
    assert isinstance(decision, Decision)
    assert decision.verdict == "ok"
    assert dict(decision.verdicts) == {"m1": "ok", "m2": "defect"}
