"""What an inspection cost, what all members would have, and what this machine can tell: never a made-up figure."""

import html
from pathlib import Path

import pytest
from reports import make_emissions, make_report, make_vote

from anomaly.energy_panel import emissions_html, sees
from anomaly.figures import DataFigures, Figures, InspectorMetrics, Spread
from anomaly.full_vote import FullVote, full_vote, released_metrics
from anomaly.report import Report
from anomaly.texts import TEXTS, Language

MEMBERS = ("a", "b", "c")


def metrics(**energy_mj: float | None) -> InspectorMetrics:
    known = {
        name: Figures(
            image_auroc=None, pixel_auroc=None, au_pro=None, threshold="far", tp=0, fp=0, fn=0, tn=0, review=0,
            failed=0, latency_ms=Spread(median=1, p95=1), energy_mj=mj,
        )
        for name, mj in energy_mj.items()
    }  # fmt: skip
    data = DataFigures(name="x", layout="mvtec", seed=0, split_hash="0", counts={})
    return InspectorMetrics(
        category="cable", data=data, members=known, policies={}, hardware="", country="", versions={}
    )


def asked(*names: str, energy_mj: float | None = 50.0) -> Report:
    votes = tuple(make_vote(name, score=1.0) for name in names)
    return make_report(votes=votes, emissions=make_emissions(energy_mj=energy_mj))


def test_the_full_vote_is_what_was_spent_by_the_share_of_those_asked() -> None:
    found = full_vote(asked("a"), MEMBERS, metrics(a=100.0, b=200.0, c=100.0))
    assert found == FullVote(("b", "c"), 200.0, 0.75)  # a is a quarter of the whole, on whatever machine
    text = emissions_html(make_emissions(energy_mj=50.0), "en", found)
    assert "This inspection 50.0 mJ; the full vote would be about 200 mJ; saved 75 %, by the energy" in text
    assert "Not asked: b, c." in text


def test_a_full_vote_is_called_one() -> None:
    found = full_vote(asked(*MEMBERS), MEMBERS, None)
    assert found == FullVote(())
    assert "This was the full vote." in emissions_html(make_emissions(), "en", found)


@pytest.mark.parametrize(
    ("report", "figures"),
    [
        (asked("a"), None),  # a release without figures
        (asked("a"), metrics(a=100.0, b=200.0)),  # of one member nothing is known
        (asked("a"), metrics(a=100.0, b=200.0, c=None)),
        (make_report(votes=(make_vote("a", score=None),)), metrics(a=1.0, b=1.0, c=1.0)),  # what did a crash cost?
    ],
)
@pytest.mark.parametrize("language", ["en", "fr"])
def test_what_is_not_known_is_said_so(report: Report, figures: InspectorMetrics | None, language: Language) -> None:
    found = full_vote(report, MEMBERS, figures)
    assert found == FullVote(("b", "c"))
    assert TEXTS["full_unknown"][language].format(names="b, c") in emissions_html(report.emissions, language, found)


def test_a_share_is_known_where_the_energy_of_this_inspection_is_not() -> None:
    found = full_vote(asked("a", energy_mj=None), MEMBERS, metrics(a=100.0, b=200.0, c=100.0))
    assert found == FullVote(("b", "c"), None, 0.75)
    text = emissions_html(make_emissions(energy_mj=None), "en", found)
    assert "Saved about 75 %" in text
    assert "full vote would be" not in text


def test_figures_of_a_place_that_cannot_be_had_are_none(tmp_path: Path) -> None:
    assert released_metrics(make_report(inspector=str(tmp_path))) is None


@pytest.mark.parametrize(
    ("backend", "zero", "gpu", "said"),
    [
        ("rapl", False, None, ["sees_counter"]),
        ("rapl", False, 12.0, ["sees_counter", "sees_gpu"]),
        ("cpu_load (8 W assumed, CPU not in TDP table, x load)", False, None, ["sees_rated"]),
        ("constant power (8 W given, x 0.5)", True, None, ["sees_rated", "sees_zero"]),
        ("none", True, None, ["sees_none", "sees_zero"]),
    ],
)
@pytest.mark.parametrize("language", ["en", "fr"])
def test_what_the_machine_can_measure_is_said(
    backend: str, zero: bool, gpu: float | None, said: list[str], language: Language
) -> None:
    emissions = make_emissions(backend=backend, gpu_mj=gpu)
    expected = " ".join(TEXTS[key][language] for key in said)
    assert sees(emissions, language, zero=zero) == expected
    assert expected in html.unescape(emissions_html(emissions, language, zero=zero))
