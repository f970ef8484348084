"""What `make bench` computes from its runs: ratios, floors, tables. The runs themselves are not tests."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.bench import BEGIN, END, between_markers, row, rows_of, run, spread, table
from benchmarks.start import first_line_s
from benchmarks.start import row as start_row


@pytest.mark.parametrize(
    ("ours", "theirs", "floor", "met"),
    [
        (20.0, 50.0, {"ratio": 0.45}, True),
        (23.0, 50.0, {"ratio": 0.45}, False),
        (20.0, 348.0, {"most": 20.0}, True),
        (20.1, 348.0, {"most": 20.0}, False),
        (0.99, 0.99, {"least": 0.99}, True),
        (0.98, 0.99, {"least": 0.99}, False),
        (1.0, 2.0, {}, None),
    ],
)
def test_a_floor_is_met_or_not(ours: float, theirs: float, floor: dict[str, float], met: bool | None) -> None:
    found = row("anything", ours, theirs, **floor)
    assert found["met"] is met
    assert found["ratio"] == ours / theirs


def test_a_row_without_a_peer_has_no_ratio() -> None:
    found = row("page served, s", 4.0, most=5.0)
    assert (found["peer"], found["ratio"], found["met"]) == (None, None, True)


def test_the_table_says_what_is_not_met() -> None:
    lines = table([row("slow", 2.0, 3.0, ratio=0.5), row("fast", 1.0, 4.0, ratio=0.5), row("told", 1.0)]).splitlines()
    assert lines[2:] == [
        "| slow | 3 | 2 | 0.6667 | ≤ 0.5 x | **not met** |",
        "| fast | 4 | 1 | 0.25 | ≤ 0.5 x | met |",
        "| told | - | 1 | - | - | - |",
    ]


def test_the_table_takes_the_place_of_the_last_one() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = between_markers(text, "new")
    assert once == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert between_markers(once, "new") == once


def test_a_readme_without_markers_stays_as_it_is() -> None:
    assert between_markers(f"only {BEGIN}\n", "new") == f"only {BEGIN}\n"


def test_rows_of_a_method_compare_both_sides_on_the_same_pictures() -> None:
    def side(scores: list[float], ms: float) -> dict[str, object]:
        return {
            "scores": scores,
            "ms": [ms, ms, 9 * ms],
            "first_s": [ms],
            "fit_s": ms,
            "resident_mb": 1300.0,
            "peak_mb": 1.0,
        }

    sides = {"ours": side([1, 2, 3, 4], 2.0), "peer": side([1, 3, 2, 4], 10.0)}
    rows = {found["measure"]: found for found in rows_of("patch_knn_1", sides, [False, False, True, True])}
    area, image = rows["`patch_knn` 1 %, image AUROC"], rows["`patch_knn` 1 %, one image, ms"]
    assert (area["ours"], area["peer"], area["met"]) == (1.0, 0.75, True)
    assert (image["ours"], image["peer"], image["met"]) == (2.0, 10.0, True)
    assert rows["`patch_knn` 1 %, memory after fit, MB"]["met"] is False


def test_a_glance_takes_pictures_evenly() -> None:
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread(range(3), None) == [0, 1, 2]
    assert spread(range(3), 5) == [0, 1, 2]


def test_lines_carry_the_time_since_the_process_was_started() -> None:
    code = "import time; print(1, flush=True); time.sleep(0.3); print(2)"
    (first_s, first), (second_s, second) = run([sys.executable, "-c", code])
    assert [json.loads(first), json.loads(second)] == [1, 2]
    assert 0 < first_s <= second_s - 0.29


def test_a_part_that_fails_ends_the_run() -> None:
    with pytest.raises(SystemExit, match=r"failed \(3\)"):
        run([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_median_of_fresh_processes_is_held_against_its_floor() -> None:
    found = start_row("page served", [4.0, 9.0, 5.5])
    assert (found["median_s"], found["floor_s"], found["met"]) == (5.5, 5.0, False)


def test_a_process_that_says_nothing_has_no_first_score(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="failed"):
        first_line_s([sys.executable, "-c", ""])
