"""Drift: when the monitor speaks up, when it keeps quiet, and what it reads from a log. The rates are simulated in
benchmarks/drift_false_alarms.py; here are the parts that must hold exactly, and streams whose answer is plain."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import make_report, make_vote
from test_cli import Vigie, one_line, vigie

from anomaly.calibration import read_calibration
from anomaly.drift import Drift, DriftSettings, Finding, Purse, begin, finding, observe
from anomaly.drift_log import FIRST, read_log
from anomaly.errors import CalibrationError, DataError
from anomaly.hub import parse_source
from anomaly.loading import load_inspector

__all__ = ["vigie"]  # a fixture

GOOD = np.random.default_rng(1).normal(size=200).tolist()


def run(drift: Drift, scores: Any) -> Finding:
    for score in scores:
        observe(drift, float(score))
    return finding(drift)


def stream(parts: int, *, before: int = 0, shift: float = 0.0, defects: float = 0.0, seed: int = 0) -> Any:
    """Normal scores that move by `shift` deviations after `before` parts; defects lie 8 above."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=parts)
    scores[before:] += shift
    scores[rng.random(parts) < defects] += 8
    return scores


# --- the monitor -----------------------------------------------------------------------------------------------------


def test_exchangeable_streams_alarm_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(0)
    level, alarms = 0.2, 0
    for _ in range(100):
        scores = rng.normal(size=220)
        alarms += run(begin(scores[:20], DriftSettings(level=level)), scores[20:]).drift
    assert alarms <= 30  # 20 are expected at the most; 31 or more of 100 have a probability below 0.01


def test_a_martingale_gains_nothing_on_average() -> None:
    """The sum over p on a fine grid of every bet's factor: what a uniform p-value brings."""
    grid = (np.arange(1000) + 0.5) / 1000
    before = Purse(shares=[0.1, 0.3, 0.2, 0.15, 0.25])
    brought = []
    for p in grid:
        after = before.model_copy(deep=True)
        after.bet([1 + slope * (p - 0.5) for slope in (-2, -1, 0, 1, 2)])
        brought.append(math.exp(after.log_money))
        assert sum(after.shares) == pytest.approx(1)
    assert np.mean(brought) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("shift", "direction"), [(1.5, "up"), (-1.5, "down"), (20.0, "up"), (-20.0, "down")])
def test_a_shift_is_noticed_with_its_direction_and_its_beginning(shift: float, direction: str) -> None:
    found = run(begin(GOOD), stream(700, before=400, shift=shift))
    assert found.drift
    assert found.direction == direction
    assert found.noticed is not None
    assert 400 < found.noticed < 500
    assert found.since is not None
    assert abs(found.since - 401) <= 15
    assert found.maximum >= found.alarm_at == 200  # 2 / 0.01
    assert f"drift {direction}" in found.text["en"]
    assert f"dérivent vers le {'haut' if direction == 'up' else 'bas'}" in found.text["fr"]


def test_a_stable_stream_is_no_drift() -> None:
    found = run(begin(GOOD), stream(1000))
    assert not found.drift
    assert (found.direction, found.since, found.noticed) == (None, None, None)
    assert found.ks_p is not None
    assert found.ks_p > 0.01
    assert found.text["en"].startswith("No drift seen in 1000 parts")


def test_the_usual_share_of_defects_is_no_drift_and_a_far_higher_one_is() -> None:
    assert not run(begin(GOOD), stream(1000, defects=0.04)).drift
    found = run(begin(GOOD), stream(1000, defects=0.4))
    assert found.drift
    assert found.direction == "up"
    assert "or many defects" in found.text["en"]
    assert not run(begin(GOOD, DriftSettings(prevalence=0.45)), stream(1000, defects=0.4)).drift


def test_a_few_calibration_scores_do_not_make_a_long_stream_look_like_drift() -> None:
    """What a martingale on the votes' own p-values gets wrong: ten scores are never quite their production."""
    assert not any(
        run(begin(np.random.default_rng(seed).normal(size=10)), stream(3000, seed=seed)).drift for seed in (5, 6)
    )


def test_equal_scores_are_no_drift() -> None:
    rng = np.random.default_rng(0)
    assert not run(begin(rng.integers(0, 3, 50)), rng.integers(0, 3, 1000)).drift
    assert not run(begin([1.0] * 50), [1.0] * 1000).drift
    assert run(begin([1.0] * 50), [2.0] * 300).direction == "up"
    assert run(begin([1.0] * 50), [0.0] * 300).drift is False  # a bag that was empty has nothing to compare with
    assert run(begin(rng.integers(0, 3, 50)), rng.integers(1, 4, 1000)).direction == "up"


def test_the_state_goes_through_json_at_any_time() -> None:
    scores = stream(300, before=100, shift=1.0)
    whole, half = begin(GOOD), begin(GOOD)
    run(whole, scores)
    run(half, scores[:150])
    resumed = Drift.model_validate_json(half.model_dump_json())
    assert run(resumed, scores[150:]) == finding(whole)
    assert resumed == whole


def test_long_drift_overflows_nowhere() -> None:
    found = run(begin(GOOD), stream(4000, shift=30.0))
    assert math.isfinite(found.maximum)
    assert json.loads(found.model_dump_json())["maximum"] > 1e100


def test_the_latest_parts_may_be_as_they_were() -> None:
    scores = np.concatenate([stream(300, seed=1), stream(100, shift=2.0, seed=2), stream(200, seed=3)])
    found = run(begin(GOOD), scores)
    assert found.drift
    assert "look like the calibration" in found.text["en"]
    assert "Most of the latest 100 parts do." in run(begin(GOOD), scores[:400]).text["en"]
    assert "still differ from the calibration" in run(begin(GOOD), stream(400, before=200, shift=1.0)).text["en"]


def test_where_a_change_began_is_said_with_its_time() -> None:
    drift = begin(GOOD)
    for number, score in enumerate(stream(200, before=100, shift=3.0), start=1):
        observe(drift, float(score), at=f"minute {number}")
    found = finding(drift)
    assert found.since_at == f"minute {found.since}"
    assert found.noticed_at == f"minute {found.noticed}"
    assert f"part {found.since} (minute {found.since})" in found.text["en"]


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(CalibrationError, match="at least 10 good parts, there are 9"):
        begin([1.0] * 9)
    with pytest.raises(CalibrationError, match="finite"):
        begin([math.nan] * 20)
    with pytest.raises(ValueError, match="failure of the detector"):
        observe(begin(GOOD), math.nan)


# --- a log -----------------------------------------------------------------------------------------------------------


def line(number: int, scores: dict[str, float | None], **changes: Any) -> str:
    votes = tuple(make_vote(name, score=score) for name, score in scores.items())
    fields = {"created_at": f"2026-01-01T{number // 60:02}:{number % 60:02}:00.000+00:00", **changes}
    report = make_report(votes=votes, **{"image_sha256": f"{number:064x}", **fields})
    return json.dumps({"image": f"{number}.png", **report.model_dump(mode="json")})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """300 parts: `camera` moves up after 150, `steady` does not."""
    moved, steady = stream(300, before=150, shift=3.0, seed=4), stream(300, seed=5)
    lines = [line(n, {"camera": float(moved[n]), "steady": float(steady[n])}) for n in range(300)]
    path = tmp_path / "LOG.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_log_is_judged_member_by_member(vigie: Vigie, log: Path) -> None:
    said = vigie("drift", log)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == f"{log}: 300 reports"
    assert lines[1].startswith(f"cable camera@{'c' * 12}: DRIFT; 250 parts against the first {FIRST} parts of the log")
    assert "martingale maximum" in lines[1]
    assert "KS p" in lines[1]
    assert "drift up, since about part" in lines[2]
    assert "(2026-01-01T02:" in lines[2]  # part 150 is at half past two
    assert lines[3].startswith(f"cable steady@{'c' * 12}: no drift; 250 parts")


def test_json_and_one_member(vigie: Vigie, log: Path) -> None:
    said = vigie("drift", log, "--member", "camera", "--json", "--window", 50, "--level", 0.05)
    found = json.loads(said.out)
    assert [row["member"] for row in found["members"]] == ["camera"]
    assert found["settings"] == {"window": 50, "level": 0.05, "prevalence": 0.05}
    assert found["members"][0]["finding"]["direction"] == "up"
    assert "has no votes of 'lidar'; it has those of ['camera', 'steady']" in one_line(
        vigie("drift", log, "--member", "lidar")
    )


def test_wrong_lines_are_named_and_the_others_count(vigie: Vigie, log: Path) -> None:
    lines = log.read_text().splitlines()
    wrong = ["{", "[]", '{"votes": []}', line(301, {"camera": 1.0}).replace('"score": 1.0', '"score": NaN'), "\xff"]
    log.write_bytes("\n".join([*wrong, "", *lines]).encode("latin-1"))
    said = vigie("drift", log)
    assert said.code == 0
    assert [row.split(": ")[0] for row in said.err.splitlines()] == [f"{log}, line {n}" for n in (1, 2, 3, 4, 5)]
    assert "300 reports, 5 lines that are none" in said.out
    assert "line 2: no report: it is not a JSON object\n" in said.err


def test_a_log_without_a_right_line_is_refused(vigie: Vigie, tmp_path: Path) -> None:
    path = tmp_path / "LOG.jsonl"
    assert "cannot be read" in one_line(vigie("drift", path))
    path.write_text("\n")
    assert "it is empty" in one_line(vigie("drift", path))
    path.write_text("no json\n")
    assert "the first, line 1, is wrong" in one_line(vigie("drift", path))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("x", "--level", "0"),
        ("x", "--level", "2"),
        ("x", "--prevalence", "0.6"),
        ("x", "--window", "5"),
        ("x", "--revision", "v1"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(vigie: Vigie, words: tuple[str, ...]) -> None:
    assert vigie("drift", *words).code == 2


def test_lines_are_taken_in_the_order_of_time(log: Path) -> None:
    straight = read_log(log)
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[200:], *lines[:200]]))
    assert read_log(log).scores == straight.scores


def test_a_picture_that_was_inspected_before_is_no_new_part(tmp_path: Path) -> None:
    path = tmp_path / "LOG.jsonl"
    same = {"image_sha256": "a" * 64}
    path.write_text("\n".join([line(1, {"camera": 1.0}, **same), line(2, {"camera": 1.0}, **same)]))
    found = read_log(path)
    assert (found.reports, found.repeats, [len(scores) for scores in found.scores.values()]) == (2, 1, [1])


def test_votes_that_a_cascade_asked_for_only_where_others_were_unsure_are_left_out(
    vigie: Vigie, tmp_path: Path
) -> None:
    path = tmp_path / "LOG.jsonl"
    scores, chosen = stream(100, seed=1), {"policy": "cascade"}
    lines = [
        line(n, {"camera": float(s), "lidar": 9.0} if s > 1 else {"camera": float(s)}, **chosen)
        for n, s in enumerate(scores)
    ]
    path.write_text("\n".join(lines))
    said = vigie("drift", path).out
    unsure = int((scores > 1).sum())
    assert "camera" in said
    assert "50 parts against the first 50 parts of the log" in said
    assert f"lidar@cccccccccccc: not known, {unsure} votes, all on parts that a cascade asked it about" in said
    path.write_text("\n".join([*lines, *(line(n, {"camera": 0.5, "lidar": 0.5}) for n in range(200, 280))]))
    assert f"{unsure} votes left out, on parts that others were unsure of" in vigie("drift", path).out
    assert "DRIFT" not in vigie("drift", path, "--member", "lidar").out


def test_failures_are_counted_and_commits_kept_apart(vigie: Vigie, tmp_path: Path) -> None:
    path = tmp_path / "LOG.jsonl"
    other = [line(n, {"camera": 1.0}).replace("c" * 40, "d" * 40) for n in range(20, 40)]
    path.write_text("\n".join([*(line(n, {"camera": None if n < 3 else 1.0}) for n in range(20)), *other]))
    found = json.loads(vigie("drift", path, "--json").out)["members"]
    assert [(row["commit"][0], row["failed"]) for row in found] == [("c", 3), ("d", 0)]
    path.write_text("\n".join(line(n, {"camera": 1.0}) for n in range(5)))
    assert "not known, too few to compare with: 5" in vigie("drift", path).out


def test_scores_are_compared_with_the_calibration_of_the_inspector(
    vigie: Vigie, inspector_folder: Path, tmp_path: Path
) -> None:
    """It has 6 good scores, which is too few; what it is compared with shows in the words."""
    inspector = load_inspector(str(inspector_folder), "v1")
    ref = inspector.members["patch_knn"].ref
    path = tmp_path / "LOG.jsonl"
    path.write_text("\n".join(line(n, {"patch_knn": 1.0}).replace("c" * 40, ref.commit) for n in range(80)))
    flags = ("--inspector", inspector_folder, "--json")
    (row,) = json.loads(vigie("drift", path, *flags, "--revision", "v1").out)["members"]
    assert row["reference"] == "6 held-out good parts"
    assert row["note"] == "too few to compare with: 6, at least 10 are needed"
    (row,) = json.loads(vigie("drift", path, *flags, "--revision", "v2").out)["members"]
    assert row["reference"] == "the first 50 parts of the log (the inspector has no such member at this commit)"
    home = parse_source(str(inspector_folder)).sibling(ref.repo)
    assert home.folder is not None
    calibration = home.folder / "models--test--cable-patch_knn" / "snapshots" / ref.commit / "calibration.json"
    assert len(read_calibration(calibration).categories["cable"].good_scores) == 6


def test_no_report_is_lost_to_an_unknown_field(tmp_path: Path) -> None:
    path = tmp_path / "LOG.jsonl"
    report = json.loads(line(1, {"camera": 1.0}))
    path.write_text(json.dumps({**report, "of_a_later_version": 1}))
    assert read_log(path).reports == 1
    path.write_text(json.dumps({**report, "votes": 3}))
    with pytest.raises(DataError, match="votes: Input should be"):
        read_log(path)
