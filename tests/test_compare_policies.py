"""Policies side by side: figures of a release, counted again by class, with intervals; a plot whose labels are free."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from scipy.stats import beta

from anomaly import hub
from anomaly.figures import DataFigures, Figures, InspectorMetrics, Spread
from training.compare_policies import PoliciesFile, main, panels, read, share, table
from training.policy_plot import Panel, Point, plot


def figures(tp: int, fp: int, fn: int, tn: int, review: int = 0, energy_mj: float | None = 100.0) -> Figures:
    return Figures(
        image_auroc=None,
        pixel_auroc=None,
        au_pro=None,
        threshold="far",
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        review=review,
        failed=0,
        latency_ms=Spread(median=1.0, p95=2.0),
        energy_mj=energy_mj,
    )


POLICIES = {
    "SAFE_0FN": figures(20, 30, 0, 20, energy_mj=300.0),
    "MAJORITY": figures(15, 1, 2, 42, review=10, energy_mj=400.0),
    "GREEN": figures(19, 20, 1, 30, energy_mj=None),
}


def released(folder: Path, policies: dict[str, Figures], counts: dict[str, int] | None = None) -> Path:
    """A folder in the Hub's cache layout with the metrics.json of an inspector."""
    test = {"good": 50, "bent": 12, "cut": 8} if counts is None else counts
    metrics = InspectorMetrics(
        category="wave",
        data=DataFigures(name="waves", layout="folder", seed=0, split_hash="f" * 64, counts={"test": test}),
        members={},
        policies=policies,
        hardware="a processor",
        country="FRA",
        versions={},
    )
    work = folder / "work"
    work.mkdir(parents=True)
    (work / "metrics.json").write_text(metrics.model_dump_json())
    (work / "inspector.json").write_text("{}")
    hub.store(work, folder / "cache", "alice/waves", files=("inspector.json", "metrics.json"), tag="v1")
    return folder / "cache"


def test_a_review_is_counted_by_class_and_is_not_a_miss(tmp_path: Path) -> None:
    rows = {row.policy: row for row in read(str(released(tmp_path, POLICIES))).policies}
    majority = rows["MAJORITY"]
    assert (majority.missed, majority.defects, majority.false_alarms.count, majority.good) == (2, 20, 1, 50)
    assert (majority.defects_in_review, majority.good_in_review) == (3, 7)  # 20 - 15 - 2 and 50 - 1 - 42
    assert (majority.recall.count, majority.recall.value) == (18, 0.9)
    assert majority.review.value == 10 / 70
    assert rows["SAFE_0FN"].recall.value == 1


@pytest.mark.parametrize(("count", "of"), [(0, 20), (1, 20), (13, 20), (20, 20)])
def test_an_interval_is_clopper_and_pearsons(count: int, of: int) -> None:
    found = share(count, of)
    low = beta.ppf(0.025, count, of - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, of - count) if count < of else 1.0
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low <= found.value <= found.high


def test_the_command_writes_table_plot_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = str(released(tmp_path, POLICIES)), tmp_path / "out"
    assert main([source, source, "--revision", "v1", "--out", str(out)]) == 0
    assert "6 policies of 2 inspectors" in capsys.readouterr().out
    found = PoliciesFile.model_validate_json((out / "policies.json").read_bytes())
    assert [row.policy for row in found.inspectors[0].policies] == list(POLICIES)
    assert (out / "policies.md").read_text() == table(found)
    assert (out / "policies.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (out / "policies.svg").read_text()
    first = (out / "policies.svg").read_bytes()
    assert main([source, source, "--revision", "v1", "--out", str(out)]) == 0
    assert (out / "policies.svg").read_bytes() == first


def test_the_table_says_what_stands_behind_a_share(tmp_path: Path) -> None:
    lines = table(PoliciesFile(inspectors=(read(str(released(tmp_path, POLICIES))),))).splitlines()
    row = next(line for line in lines if "| MAJORITY |" in line)
    assert "| 90.0% (68.3% to 98.8%) |" in row
    assert "| 14.3% (3 defects, 7 good) | 400 | 2 of 20 | 1 of 50 |" in row
    assert "| not known |" in next(line for line in lines if "| GREEN |" in line)
    assert "a defect there counts as found, not as missed" in lines[-1]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


@pytest.mark.parametrize(
    ("policies", "counts", "said"),
    [
        ({"ODD": figures(15, 1, 2, 42, review=9)}, None, "policies.ODD: .* leave 10 for review, it says 9"),
        ({"ODD": figures(21, 0, 0, 50, review=-1)}, None, "policies.ODD"),
        ({}, {"good": 5}, "measured on 5 good parts and 0 defects"),
        ({}, {}, "measured on 0 good parts and 0 defects"),
    ],
)
def test_figures_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policies: Any, counts: Any, said: str
) -> None:
    assert main([str(released(tmp_path, policies, counts)), "--out", str(tmp_path / "out")]) == 1
    assert re.search(said, error := capsys.readouterr().err)
    assert error.startswith("error: alice/waves@")
    assert error.count("\n") == 1


def test_what_is_no_inspector_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = released(tmp_path, POLICIES)
    for words in ([str(tmp_path / "nowhere")], [str(cache), "--revision", "v7"]):
        assert main([*words, "--out", str(tmp_path / "out")]) == 1
        assert re.fullmatch(r"error: [^\n]+\n", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_policies_that_do_the_same_share_a_point(tmp_path: Path) -> None:
    twice = {"safe": POLICIES["SAFE_0FN"], **POLICIES}
    found = panels(PoliciesFile(inspectors=(read(str(released(tmp_path, twice))),)))
    assert [point.name for point in found[0].points] == ["safe, SAFE_0FN", "MAJORITY", "GREEN"]


def test_labels_overlap_neither_one_another_nor_a_marker() -> None:
    rng = np.random.default_rng(0)
    crowd = [Point(f"POLICY_{i}", *rng.uniform(0, 0.04, 2), float(rng.uniform(1, 9))) for i in range(9)]
    level = [Point(f"INDUSTRIAL_{i}", alarms, 1.0, 10.0 * i) for i, alarms in enumerate((0, 0.01, 0.05, 0.6, 0.65))]
    figure = plot([Panel("crowd", crowd), Panel("level", level), Panel("alone", [Point("A", 0.5, 0.5, None)])])
    figure.draw_without_rendering()  # puts them in place
    for axes in [axes for axes in figure.axes if axes.texts]:
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines that lead to them
        within = axes.get_window_extent()
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert all(within.x0 <= box.x0 and box.x1 <= within.x1 for box in boxes)
        centres = [axes.transData.transform(text.xy) for text in axes.texts]
        assert not any(box.contains(x, y) for box in boxes for x, y in centres)
        assert max(axes.get_yticks()) <= 1


def test_policies_at_one_place_share_a_label_that_says_what_each_costs() -> None:
    figure = plot([Panel("twice", [Point("SAFE", 0.2, 1.0, 300.4), Point("GREEN", 0.2, 1.0, 99.6)])])
    (text,) = figure.axes[0].texts
    assert text.get_text() == "SAFE: 300 mJ\nGREEN: 100 mJ"
