"""Every rule as a table, exceptions, cascades, impossible policies; what must never happen; why it was decided."""

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_policy import SEVERITY, calibrated, names, near, votes

from anomaly.calibration import Calibration, calibrate
from anomaly.errors import PolicyError
from anomaly.explain import explain
from anomaly.policy import (
    Decision,
    Failure,
    Policy,
    Run,
    Vote,
    cast_vote,
    check_policy,
    next_step,
    read_policy,
    replay,
)
from anomaly.policy_check import least_score
from anomaly.probability import Platt, ProbabilityMap
from anomaly.rules import Cut

ROOT = Path(__file__).resolve().parent.parent
TEXT = {"en": "tested", "fr": "testée"}
FAR = {"threshold": "far"}


def made(rule: dict[str, Any], **more: Any) -> Policy:
    return Policy.model_validate({"name": "tested", "description": TEXT, "rule": rule} | more)


def counting(kind: str, count: int, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "members": names(count), "threshold": "far"} | more


def cascade(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "cascade", "steps": list(steps)}


def step(members: str, accept: Any = FAR, reject: Any = FAR, **more: Any) -> dict[str, Any]:
    return {"members": members.split(), "accept": accept, "reject": reject} | more


def decide(votes: Mapping[str, Vote | Failure], policy: Policy) -> Decision:
    decision, asked = replay(votes, policy)
    whole = next_step(votes, policy)
    assert isinstance(whole, Decision)
    assert (whole.verdict, whole.fired) == (decision.verdict, decision.fired)  # an early exit changes nothing
    assert set(decision.verdicts) <= set(asked)
    assert set(asked) <= set(decision.cuts)
    assert all(text.strip() and "\n" not in text for text in decision.reason.values())
    assert set(decision.reason) == {"en", "fr"}
    return decision


def verdict(letters: str, policy: Policy) -> str:
    return decide(votes(letters), policy).verdict


# --- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "letters", "expected"),
    [
        ("all", "DDD", "defect"),
        ("all", "D=D", "defect"),  # equal to the threshold is a defect
        ("all", "D-D", "ok"),
        ("all", "...", "ok"),
        ("all", "DDf", "review"),  # it may have said either
        ("all", "D.f", "ok"),  # whatever it had said
        ("all", "fff", "review"),
        ("single", "D", "defect"),
        ("single", "=", "defect"),
        ("single", "-", "ok"),
        ("single", "f", "review"),
        ("at_least", "DD..", "defect"),
        ("at_least", "D=..", "defect"),
        ("at_least", "D-..", "ok"),
        ("at_least", "D..f", "review"),
        ("at_least", "DD.f", "defect"),
        ("at_least", "...f", "ok"),
        ("at_least", "..ff", "review"),
        ("at_least", "ffff", "review"),
    ],
)
def test_the_verdict(kind: str, letters: str, expected: str) -> None:
    more = {"k": 2} if kind == "at_least" else {}
    assert verdict(letters, made(counting(kind, len(letters), **more))) == expected


@pytest.mark.parametrize(
    ("kind", "letters", "expected"),
    [
        ("all", "DDu", "review"),
        ("all", "uuu", "review"),
        ("all", "D.u", "ok"),
        ("all", "Duf", "review"),
        ("single", "u", "review"),
        ("at_least", "Du.", "review"),
        ("at_least", "DDu", "defect"),
        ("at_least", "u..", "ok"),
        ("at_least", "uf.", "review"),
    ],
)
def test_the_verdict_with_a_review_band(kind: str, letters: str, expected: str) -> None:
    more = {"k": 2} if kind == "at_least" else {}
    assert verdict(letters, made(counting(kind, len(letters), **more), review={"p_value": 0.1})) == expected


def test_a_review_band_may_be_a_lower_threshold() -> None:
    banded = made(counting("single", 1), review={"threshold": "safe"})
    for score, expected in ((1.0, "defect"), (0.9, "review"), (0.5, "review"), (0.4, "ok")):
        assert decide({"m1": Vote("m1", score, 0.9, {"far": 1.0, "safe": 0.5})}, banded).verdict == expected


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ((0.5, 0.5), "defect"),  # equal to the cut, whatever the weights are rounded to
        ((1.0, 0.35), "defect"),
        ((1.0, 0.0), "ok"),
        ((0.0, 0.6), "review"),  # 0.45: in the band
        ((math.nextafter(0.5, 0), 0.5), "review"),
        ((0.0, 0.0), "ok"),
        ((None, 0.7), "defect"),  # 0.525 even if the other had said 0
        ((None, 0.6), "review"),
        ((None, 0.1), "ok"),  # 0.325 even if it had said 1
        ((None, None), "review"),
    ],
)
def test_a_weighted_mean(probabilities: tuple[float | None, ...], expected: str) -> None:
    rule = {"kind": "weighted", "weights": {"m1": 0.1, "m2": 0.3}, "probability": 0.5}
    cast: dict[str, Vote | Failure] = {}
    for name, share in zip(names(2), probabilities, strict=True):
        failed = Failure(name, "it crashed")
        cast[name] = failed if share is None else Vote(name, 0.0, 0.5, {"far": 1.0}, probability=share)
    assert decide(cast, made(rule, review={"probability": 0.4})).verdict == expected


def test_a_weighted_rule_needs_a_probability() -> None:
    rule = made({"kind": "weighted", "weights": {"m1": 1}, "probability": 0.5})
    with pytest.raises(PolicyError, match="needs a probability of a defect, and 'm1'"):
        next_step(votes("D"), rule)


@pytest.mark.parametrize("share", [math.nan, -0.1, 1.1])
def test_a_probability_that_is_none_cannot_become_a_vote(share: float) -> None:
    with pytest.raises(ValueError, match="that is a Failure, not a Vote"):
        Vote("m1", 0.0, 0.5, {"far": 1.0}, probability=share)


# --- cascades --------------------------------------------------------------------------------------------------------

SURE = {"accept": {"p_value": 0.5}, "reject": {"p_value": 0.01}}  # first m1: ok above a p-value of 0.5, defect at 0.01
TWO_STEPS = made(cascade(step("m1", **SURE), step("m2 m3")))


@pytest.mark.parametrize(
    ("letters", "expected", "asked"),
    [
        ("...", "ok", "m1"),
        (".DD", "ok", "m1"),
        ("D..", "defect", "m1"),
        ("u..", "ok", "m1 m2 m3"),
        ("u.=", "defect", "m1 m2 m3"),
        ("-..", "ok", "m1 m2 m3"),  # p-value 0.2: between the bands
        ("f..", "ok", "m1 m2 m3"),  # a failure decides nothing, and goes on
        ("fD.", "defect", "m1 m2 m3"),
        ("u.f", "review", "m1 m2 m3"),
        ("uDf", "defect", "m1 m2 m3"),
        ("uff", "review", "m1 m2 m3"),
        ("fff", "review", "m1 m2 m3"),
    ],
)
def test_a_cascade_asks_in_its_order_and_stops_when_a_step_is_sure(letters: str, expected: str, asked: str) -> None:
    decision, members = replay(votes(letters), TWO_STEPS)
    assert (decision.verdict, " ".join(members)) == (expected, asked)
    assert decide(votes(letters), TWO_STEPS).verdict == expected


@pytest.mark.parametrize(
    ("combine", "letters", "expected"),
    [
        ("any", "..D", "defect"),
        ("any", "...", "ok"),
        ("any", "..f", "review"),
        ("all", "DDD", "defect"),
        ("all", "DD.", "ok"),
        ("all", "DDf", "review"),
        ("all", "D.f", "ok"),
        ("majority", "DD..", "review"),  # a tie is neither
        ("majority", "DDD.", "defect"),
        ("majority", "D...", "ok"),
        ("majority", "D..f", "review"),
        ("at_least", "DD..", "defect"),
        ("at_least", "D...", "ok"),
        ("at_least", "D..f", "review"),
    ],
)
def test_how_the_members_of_a_step_combine(combine: str, letters: str, expected: str) -> None:
    more = {"k": 2} if combine == "at_least" else {}
    members = " ".join(names(len(letters)))
    assert verdict(letters, made(cascade(step(members, combine=combine, **more)))) == expected


def test_a_step_may_only_accept_or_only_reject() -> None:
    only = made(cascade(step("m1", reject=None), step("m2", accept=None)))
    assert [verdict(letters, only) for letters in (".D", "DD", "D.")] == ["ok", "defect", "review"]


def test_a_member_that_is_in_two_steps_is_asked_once_and_advisory_ones_are_asked_first() -> None:
    twice = made(cascade(step("m1", **SURE), step("m1 m2")), advisory=["m3"])
    assert next_step({}, twice) == Run(("m1", "m3"))
    said = votes("u.D")
    assert next_step({"m1": said["m1"], "m3": said["m3"]}, twice) == Run(("m2",))
    decision = decide(said, twice)
    assert (decision.verdict, decision.fired) == ("ok", "rule.steps[1]")
    assert dict(decision.verdicts) == {"m3": "defect", "m1": "ok", "m2": "ok"}


def test_a_required_member_of_a_cascade_counts_when_its_step_is_reached() -> None:
    strict = TWO_STEPS.model_copy(update={"required": ("m1", "m3")})
    assert [verdict(letters, strict) for letters in ("..f", "D.f", "uDf", "fDD")] == [
        "ok",
        "defect",
        "review",
        "review",
    ]
    decision = decide(votes("uDf"), strict)
    assert decision.fired == "required"
    assert all("m3" in text and "it crashed" in text for text in decision.reason.values())


# --- exceptions ------------------------------------------------------------------------------------------------------


def seen(letters: str, **shares: float) -> dict[str, Vote | Failure]:
    """`votes`, and the first member names types."""
    cast = votes(letters)
    first = cast["m1"]
    if isinstance(first, Vote):
        cast["m1"] = Vote(first.member, first.score, first.p_value, first.thresholds, None, shares)
    return cast


def exception(**what: Any) -> dict[str, Any]:
    return {"category": "cable"} | what


CUT = {"defect_type": {"member": "m1", "name": "cut", "share": 0.6}}
LONE = {"member": "m1", "others": ["m2", "m3"], "below": {"p_value": 0.1}, "verdict": "ok"}


def test_a_category_may_have_its_own_rule() -> None:
    both = made(counting("any", 3), exceptions=[exception(rule=counting("all", 2)), exception(discount=LONE)])
    mine, other = both.for_category("cable"), both.for_category("screw")
    assert (mine.rule.kind, len(mine.exceptions)) == ("all", 1)
    assert (other.rule.kind, other.exceptions) == ("any", ())
    assert (verdict("DD.", mine), verdict("DD.", other), verdict("D..", other)) == ("defect", "defect", "defect")
    with pytest.raises(PolicyError, match=r"take Policy\.for_category first"):
        next_step(votes("D.."), both)


def test_a_type_of_defect_makes_the_decision_stricter_and_never_milder() -> None:
    raised = made(counting("majority", 3), exceptions=[exception(**CUT, verdict="defect")])
    assert decide(seen("...", cut=0.6), raised).verdict == "defect"
    assert decide(seen("...", cut=0.6), raised).fired == "exceptions[0]"
    assert decide(seen("...", cut=0.59), raised).verdict == "ok"
    assert decide(seen("..."), raised).verdict == "ok"
    milder = made(counting("majority", 3), exceptions=[exception(**CUT, verdict="review")])
    assert [decide(seen(letters, cut=1.0), milder).verdict for letters in ("...", "DD.")] == ["review", "defect"]
    asked = made(counting("majority", 3), exceptions=[exception(**CUT, rule=counting("any", 3))])
    assert [decide(seen(letters, cut=1.0), asked).verdict for letters in ("...", "..D")] == ["ok", "defect"]
    assert decide(seen("..D", good=1.0), asked).verdict == "ok"
    alike = made(counting("any", 3), exceptions=[exception(**CUT, rule=counting("all", 3))])
    assert decide(seen("D..", cut=1.0), alike).verdict == "defect"


def test_where_the_member_that_would_name_the_type_failed_a_part_is_not_passed() -> None:
    raised = made(counting("any", 3), exceptions=[exception(**CUT, verdict="defect")])
    assert [decide(seen(letters), raised).verdict for letters in ("f..", "fD.")] == ["review", "defect"]


def test_a_cascade_asks_for_the_type_only_where_that_could_matter() -> None:
    other = {"defect_type": {"member": "m3", "name": "cut"}}
    rule = made(cascade(step("m1 m2")), exceptions=[exception(**other, verdict="review")])
    said = votes("...")
    assert next_step({name: said[name] for name in ("m1", "m2")}, rule) == Run(("m3",))
    assert replay(votes("D.."), rule)[1] == ("m1", "m2")


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("D..", "ok"),  # a lone vote is not enough
        ("D-.", "ok"),  # p-value 0.2
        ("Du.", "defect"),  # p-value 0.1: one of the others is not quiet
        ("DD.", "defect"),
        (".D.", "defect"),  # the votes of others count in full
        ("D.f", "defect"),  # a failure is not quiet
        ("...", "ok"),
    ],
)
def test_a_discount(letters: str, expected: str) -> None:
    for rule in (counting("any", 3), cascade(step("m1"), step("m2 m3"))):
        if rule["kind"] == "cascade" and letters == ".D.":
            continue  # there m1 decides alone
        decision = decide(votes(letters), made(rule, exceptions=[exception(discount=LONE)]))
        assert decision.verdict == expected, rule
        assert (decision.discounted == ("m1",)) == (letters in ("D..", "D-."))


def test_a_discount_may_leave_a_review_and_may_have_an_end() -> None:
    careful = made(counting("any", 3), exceptions=[exception(discount=LONE | {"verdict": "review"})])
    assert verdict("D..", careful) == "review"
    ends = made(counting("any", 3), exceptions=[exception(discount=LONE | {"unless": {"p_value": 0.01}})])
    assert [verdict(letters, ends) for letters in ("D..", "=..")] == ["defect", "ok"]  # p-values 0.01 and 0.05


def test_a_discount_may_ask_for_a_type() -> None:
    typed = made(counting("any", 3), exceptions=[exception(**CUT, discount=LONE)])
    assert decide(seen("D..", cut=0.7), typed).verdict == "ok"
    assert decide(seen("D..", cut=0.5), typed).verdict == "defect"


def test_a_cascade_asks_the_others_before_a_discount() -> None:
    rule = made(cascade(step("m1"), step("m2")), exceptions=[exception(discount=LONE)])
    said = votes("D..")
    assert next_step({"m1": said["m1"]}, rule) == Run(("m2", "m3"))
    assert replay(votes("..."), rule)[1] == ("m1",)


# --- what must never happen ------------------------------------------------------------------------------------------


def probable(calibration: Calibration, rng: random.Random) -> Calibration:
    curve = Platt(slope=rng.choice([0.0, 0.5, 3.0]), intercept=rng.uniform(-1, 1))
    found = ProbabilityMap(centre=1, scale=1, curve=curve, prevalence=0.3, log_loss={"platt": 0.5}, folds=2)
    return calibration.model_copy(update={"probability": found})


def a_cut(rng: random.Random) -> dict[str, Any]:
    return rng.choice(
        [
            {"threshold": rng.choice(["far", "f1", "f2", "safe"])},
            {"p_value": rng.uniform(0.05, 0.9)},
            {"probability": rng.uniform(0.1, 0.9)},
            {"score": rng.uniform(-1, 3)},
        ]
    )


KINDS = ("any", "all", "majority", "single", "at_least", "weighted", "cascade", "cascade")


def a_rule(rng: random.Random, members: tuple[str, ...], kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
    chosen = rng.sample(members, rng.randint(1, len(members)))
    threshold = rng.choice(["far", "f1", "f2", "safe"])
    kind = rng.choice(kinds)
    if kind == "weighted":
        return {"kind": kind, "weights": {m: rng.uniform(0.1, 2) for m in chosen}, "probability": rng.uniform(0.2, 0.8)}
    if kind == "cascade":
        steps = []
        for _ in range(rng.randint(1, 3)):
            combine = rng.choice(["any", "all", "majority"])
            bands = {"accept": rng.choice([None, a_cut(rng)]), "reject": a_cut(rng)}
            steps.append({"members": rng.sample(members, rng.randint(1, len(members))), "combine": combine} | bands)
        return {"kind": kind, "steps": steps}
    if kind == "single":
        chosen = chosen[:1]
    more = {"k": rng.randint(1, len(chosen))} if kind == "at_least" else {}
    return {"kind": kind, "members": chosen, "threshold": threshold} | more


def an_exception(rng: random.Random, members: tuple[str, ...]) -> dict[str, Any]:
    typed = {"defect_type": {"member": rng.choice(members), "name": rng.choice(["bent", "cut"])}}
    kind = rng.choice(["rule", "verdict", "discount", "discount"])
    if kind == "rule":
        return exception(**typed, rule=a_rule(rng, members))
    if kind == "verdict" or len(members) < 2:
        return exception(**typed, verdict=rng.choice(["review", "defect"]))
    lone, *others = rng.sample(members, rng.randint(2, len(members)))
    what = {"member": lone, "others": others, "below": a_cut(rng), "verdict": rng.choice(["ok", "review"])}
    what |= rng.choice([{}, {"unless": a_cut(rng)}])
    return exception(**rng.choice([{}, typed]), discount=what)


def a_policy(rng: random.Random, calibrations: Mapping[str, Calibration], kinds: tuple[str, ...]) -> Policy:
    """Whatever `check_policy` accepts."""
    members = tuple(calibrations)
    while True:
        rule = a_rule(rng, members, kinds)
        asked = made(rule).rule.members
        more: dict[str, Any] = {"required": [m for m in asked if rng.random() < 0.2]}
        more["exceptions"] = [an_exception(rng, members) for _ in range(rng.choice([0, 0, 1, 2]))]
        if rng.random() < 0.4:
            more["review"] = a_cut(rng)
        drawn = made(rule, **more)
        try:
            check_policy(drawn, calibrations, category="cable")
        except PolicyError:
            continue
        return drawn


def a_case(rng: random.Random, *kinds: str) -> tuple[dict[str, Calibration], Policy, dict[str, Vote | Failure]]:
    members = names(rng.randint(1, 4))
    calibrations = {name: probable(calibrated(rng.randint(19, 30), rng), rng) for name in members}
    policy = a_policy(rng, calibrations, kinds or KINDS)
    said: dict[str, Vote | Failure] = {}
    for name, calibration in calibrations.items():
        score = rng.choice([rng.uniform(-3, 6), near(calibration, rng)])
        shares = rng.choice([None, {"good": 0.2, "cut": 0.8}, {"good": 0.9, "bent": 0.05, "cut": 0.05}])
        failed = rng.random() < 0.1
        said[name] = Failure(name, "it crashed") if failed else cast_vote(name, score, calibration, shares)
    return calibrations, policy, said


def test_more_evidence_of_a_defect_never_makes_the_verdict_milder() -> None:
    rng = random.Random(1)
    changed = {"ok": 0, "review": 0}
    kinds = set()
    for _ in range(1200):
        calibrations, policy, said = a_case(rng)
        raised = dict(said)
        for name, vote in said.items():
            if isinstance(vote, Vote) and rng.random() < 0.6:
                more = vote.score + rng.choice([1e-12, 0.1, 1.0, 5.0])
                raised[name] = cast_vote(name, more, calibrations[name], vote.class_shares)
        before, after = decide(said, policy).verdict, decide(raised, policy).verdict
        assert SEVERITY[after] >= SEVERITY[before], (policy, said, raised)
        if before != after:
            changed[before] += 1
            kinds.add(policy.rule.kind)
    assert all(count > 30 for count in changed.values()), changed  # else nothing was tested
    assert kinds == {"any", "all", "majority", "single", "at_least", "weighted", "cascade"}


def test_an_early_exit_never_differs_from_running_to_the_end() -> None:
    rng = random.Random(2)
    early = 0
    for _ in range(500):
        _, policy, said = a_case(rng, "cascade")
        decision, asked = replay(said, policy)
        assert next_step(said, policy) == decision  # with the votes of all members
        early += len(asked) < len(policy.members)
    assert early > 50


def test_what_is_decided_without_a_member_it_would_have_decided_whatever_that_member_had_said() -> None:
    rng = random.Random(3)
    tried = 0
    for _ in range(300):
        calibrations, policy, said = a_case(rng, "all", "at_least", "weighted")
        if policy.exceptions:
            continue
        lost = rng.choice(policy.rule.members)
        without = decide({**said, lost: Failure(lost, "it crashed")}, policy).verdict
        for score in (-100.0, rng.uniform(-3, 6), 100.0):
            found = decide({**said, lost: cast_vote(lost, score, calibrations[lost])}, policy).verdict
            assert without in ("review", found), (policy, said)
        tried += without != "review"
    assert tried > 30


def test_what_would_have_changed_a_decision_does() -> None:
    rng = random.Random(4)
    flips = 0
    for _ in range(150):
        calibrations, policy, said = a_case(rng)
        decision, asked = replay(said, policy)
        heard = {name: said[name] for name in asked}
        why = explain(heard, policy, decision, calibrations)
        assert why.fired == decision.fired
        for language in ("en", "fr"):
            assert why.sentences[language][0] == decision.reason[language]
            assert len(why.sentences[language]) >= 2
        if (flip := why.flip) is None:
            continue
        flips += 1
        vote = heard[flip.member]
        assert isinstance(vote, Vote)
        after = []
        for score in (flip.score, math.nextafter(flip.score, vote.score)):
            changed = cast_vote(flip.member, score, calibrations[flip.member], vote.class_shares)
            then = next_step({**heard, flip.member: changed}, policy)
            after.append(then.verdict if isinstance(then, Decision) else None)
        assert after == [flip.verdict, decision.verdict]
        assert flip.verdict != decision.verdict
    assert flips > 75


# --- why -------------------------------------------------------------------------------------------------------------


def test_a_decision_says_which_rule_fired_who_agreed_how_far_and_what_would_have_changed_it() -> None:
    good = [float(score) for score in range(20)]
    calibrations = {name: calibrate(good, [30.0, 40.0], split_hash="0" * 16) for name in names(2)}
    rule = made({"kind": "at_least", "k": 2, "members": names(2), "threshold": "safe"})
    safe = calibrations["m1"].thresholds["safe"].value
    said = {"m1": cast_vote("m1", 33.5, calibrations["m1"]), "m2": cast_vote("m2", safe - 4.5, calibrations["m2"])}
    why = explain(said, rule, decide(said, rule), calibrations)
    assert (why.fired, why.agreed) == ("rule", ("m2",))
    first, second = why.readings
    assert (first.member, first.verdict, first.agrees, first.cut) == ("m1", "defect", False, "safe")
    assert first.distance == 33.5 - safe
    assert first.distance_iqr == calibrations["m1"].margin(33.5, "safe")
    assert (second.verdict, second.distance) == ("ok", -4.5)
    assert why.flip is not None
    assert (why.flip.member, why.flip.score, why.flip.distance, why.flip.verdict) == ("m2", safe, 4.5, "defect")
    assert why.sentences["en"][0] == "1 of 2 detectors reach their safe threshold, 2 needed: m1."
    assert why.sentences["en"][2] == "With a score of m2 4.5 higher (24.5, 0.45 IQR away) it would have been a defect."
    assert "m2 4,5 au-dessous de safe" in why.sentences["fr"][1]
    assert json.loads(why.model_dump_json())["flip"]["member"] == "m2"


# --- policies that are refused ---------------------------------------------------------------------------------------


def known() -> dict[str, Calibration]:
    rng = random.Random(5)
    labelled = {f"m{i}": probable(calibrated(20, rng), rng) for i in (1, 2, 3)}
    return labelled | {"plain": calibrate([float(i) for i in range(20)], [], split_hash="0" * 16)}


WEIGHTED = {"kind": "weighted", "weights": {"m1": 1, "m2": 2}, "probability": 0.5}


@pytest.mark.parametrize(
    ("rule", "more", "words"),
    [
        (cascade(step("m1"), step("m9 m1")), {}, r"rule.steps[1].members[0] names 'm9'; this inspector has ['m1', "),
        (cascade(step("m1 m1")), {}, "rule.steps[0].members[1] names a member twice"),
        (
            cascade(step("plain", reject={"threshold": "f1"})),
            {},
            "rule.steps[0].reject 'f1' is not calibrated for 'plain'",
        ),
        (cascade(step("m1", reject={"p_value": 0.01})), {}, "rule.steps[0].reject asks 'm1' for a level of 0.01"),
        (
            cascade(step("plain", reject={"probability": 0.5})),
            {},
            "rule.steps[0].reject asks 'plain' for a probability",
        ),
        (
            cascade(step("plain", accept={"p_value": 0.05}, reject={"p_value": 0.5})),
            {},
            "rule.steps[0].accept: p ≤ 0.05 lies above rule.steps[0].reject (p ≤ 0.5) for 'plain'",
        ),
        (cascade(step("m1")), {"review": {"p_value": 0.5}}, "review: a cascade has its own"),
        (cascade(step("m1")), {"required": ["m2"]}, "required[0] names 'm2', whose vote does not count"),
        (WEIGHTED | {"weights": {"m1": 1, "m9": 1}}, {}, "rule.weights[1] names 'm9'"),
        (
            WEIGHTED | {"weights": {"m1": 1, "plain": 1}},
            {},
            "rule.weights.plain: 'plain' is calibrated for no probability",
        ),
        (WEIGHTED, {"review": {"p_value": 0.5}}, "review: a weighted rule takes a probability below its own of 0.5"),
        (WEIGHTED, {"review": {"probability": 0.5}}, "could never fire"),
        (WEIGHTED, {"exceptions": [exception(discount=LONE)]}, "exceptions[0].discount: a weighted rule has weights"),
        (
            counting("any", 2),
            {"exceptions": [exception(**CUT, rule=counting("any", 9))]},
            "exceptions[0].rule.members[3]",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(defect_type={"member": "m1", "name": "rust"}, verdict="defect")]},
            "exceptions[0].defect_type.name: 'm1' knows ['bent', 'cut', 'good'], not 'rust'",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(defect_type={"member": "m2", "name": "cut"}, verdict="defect")]},
            "exceptions[0].defect_type.member: 'm2' has no type head; those with one: ['m1']",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(discount=LONE | {"others": ["m1", "m2"]})]},
            "exceptions[0].discount.others names 'm1', the member whose vote is discounted",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(discount=LONE | {"member": "m3", "others": ["m1"]})]},
            "exceptions[0].discount.member names 'm3', whose vote does not count",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(discount=LONE | {"unless": {"threshold": "far"}})]},
            "exceptions[0].discount.unless: every vote of 'm1' that reaches far reaches far: it could never fire",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(rule=counting("any", 1)), exception(rule=counting("any", 2))]},
            "exceptions[1].rule: 'cable' has a rule by exceptions[0]",
        ),
        (counting("any", 2), {"review": {"threshold": "far"}}, "review.threshold: no member reaches far below its far"),
        (cascade(step("m1 m2", reject={"score": 2})), {}, "reject.score: m1, m2 do not score in one unit"),
        (cascade(step("plain", reject={"score": 1e9})), {}, "rule.steps[0].reject.score: 1e+09 is beyond all that"),
        (counting("any", 2), {"review": {"score": 1}}, "review.score: m1, m2 do not score in one unit"),
        (counting("any", 1), {"review": {"threshold": "youden"}, "advisory": ["plain"]}, "'plain', which has ['far']"),
    ],
)
def test_an_impossible_policy_is_refused_with_the_path_and_what_is_known(
    rule: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        check_policy(made(rule, **more), known(), category="cable", types={"m1": ("good", "bent", "cut")})
    assert words in str(caught.value)
    assert str(caught.value).startswith("policy 'tested': ")


def test_exceptions_for_other_categories_are_not_looked_into() -> None:
    elsewhere = made(counting("any", 2), exceptions=[exception(category="screw", rule=counting("any", 9))])
    check_policy(elsewhere, known(), category="cable")
    with pytest.raises(PolicyError, match=r"exceptions\[0\]"):
        check_policy(elsewhere, known(), category="screw")


@pytest.mark.parametrize(
    ("rule", "more", "words"),
    [
        (counting("at_least", 2, k=3), {}, "rule.k: 3 of 2 members can never reject"),
        (counting("at_least", 2), {}, "rule.k: Field required"),
        (counting("at_least", 2, k=0), {}, "rule.k: Input should be greater than or equal to 1"),
        (counting("single", 2), {}, "rule.members: the rule single takes one member, not 2"),
        (counting("most", 2), {}, "rule: Input tag 'most' found using 'kind' does not match any of the expected tags"),
        (
            counting("any", 2, treshold="far"),
            {},
            "rule.treshold: unknown key; known are ['kind', 'members', 'threshold']",
        ),
        (cascade(), {}, "rule.steps: Tuple should have at least 1 item"),
        (cascade(step("m1", None, None)), {}, "rule.steps[0]: the step can decide nothing"),
        (cascade(step("m1"), step("m2", combine="at_least")), {}, "rule.steps[1].k: it goes with combine at_least"),
        (cascade(step("m1", acept=FAR)), {}, "rule.steps[0].acept: unknown key; known are ['accept', 'combine', 'k', "),
        (cascade(step("m1", accept={"p_value": 2})), {}, "rule.steps[0].accept.p_value: Input should be less than 1"),
        (cascade(step("m1", accept={})), {}, "rule.steps[0].accept: give exactly one of threshold, p_value, prob"),
        (WEIGHTED | {"weights": {"m1": 0}}, {}, "rule.weights.m1: Input should be greater than 0"),
        (WEIGHTED | {"weights": {}}, {}, "rule.weights: Dictionary should have at least 1 item"),
        (WEIGHTED | {"probability": 0}, {}, "rule.probability: Input should be greater than 0"),
        (WEIGHTED | {"probability": 1.5}, {}, "rule.probability: Input should be less than or equal to 1"),
        (
            counting("any", 2),
            {"exceptions": [exception()]},
            "exceptions[0]: give exactly one of rule, verdict and disc",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(verdict="defect")]},
            "exceptions[0].verdict: without a defect_type",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(**CUT, verdict="ok")]},
            "exceptions[0].verdict: Input should be",
        ),
        (
            counting("any", 2),
            {"exceptions": [exception(rule=counting("any", 1, k=1))]},
            "exceptions[0].rule.k: unknown key; known are ['kind', 'members', 'threshold']",
        ),
    ],
)
def test_a_file_that_is_no_policy_is_refused_with_the_path_and_what_is_known(
    tmp_path: Path, rule: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"name": "tested", "description": TEXT, "rule": rule} | more))
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    assert f"{path}: {words}" in str(caught.value)


def test_what_is_no_json_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"name": ')
    with pytest.raises(PolicyError, match=r"half\.json: the file: Invalid JSON"):
        read_policy(tmp_path / "half.json")
    with pytest.raises(PolicyError, match=r"none\.json: cannot be read"):
        read_policy(tmp_path / "none.json")


def test_the_least_score_that_reaches_a_cut_reaches_it_and_the_next_lower_one_does_not() -> None:
    from anomaly.policy import reaches

    rng = random.Random(6)
    found = 0
    for _ in range(200):
        calibration, cut = probable(calibrated(25, rng), rng), Cut.model_validate(a_cut(rng))
        least = least_score(cut, calibration)
        if least is None or math.isinf(least):
            continue
        assert reaches(cast_vote("m", least, calibration), cut)
        assert not reaches(cast_vote("m", math.nextafter(least, -math.inf), calibration), cut)
        found += 1
    assert found > 100


# --- files -----------------------------------------------------------------------------------------------------------


def test_every_policy_is_plain_json() -> None:
    rng = random.Random(7)
    for _ in range(50):
        _, before, _ = a_case(rng)
        text = before.model_dump_json()
        assert "null" not in text.replace('"review":null', "")
        assert Policy.model_validate_json(text) == before


def test_released_policies_are_read_and_written_as_they_were() -> None:
    files = list((ROOT / "starter").glob("models--*/snapshots/*/inspector.json"))
    assert files
    for file in files:
        for written in json.loads(file.read_text())["policies"]:
            policy = Policy.model_validate(written)
            assert policy.for_category("cable") is policy
            if policy.name in ("majority", "safe"):
                assert json.loads(policy.model_dump_json()) == written


def test_the_published_schema_is_the_one_that_is_used() -> None:
    published = json.loads((ROOT / "schemas/policy.schema.json").read_text())
    assert published == Policy.model_json_schema()
