"""What the page says: everything escaped, nothing shown as 0, both languages complete."""

import re
from string import Formatter

import pytest
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from released import PICTURE, release, served, service, stocked
from reports import make_emissions, make_report, make_vote

from anomaly import panels
from anomaly.calibration import Calibration, Threshold
from anomaly.energy_panel import emissions_html
from anomaly.hub import parse_source
from anomaly.service import Service
from anomaly.texts import LANGUAGES, TEXTS, Language, language_of

__all__ = ["release", "served", "service", "stocked"]  # fixtures

EVIL = "<script>alert('x')</script>"
BOTH: list[Language] = ["en", "fr"]


def calibrations(*names: str, typical: float = 1.0, threshold: float = 5.0) -> dict[str, Calibration]:
    cut = Threshold(value=threshold, false_alarms=0, good=3, missed=0, defects=0, level=0.25)
    one = Calibration(split_hash="0", good_scores=(typical,) * 3, thresholds={"far": cut})
    return dict.fromkeys(names, one)


@pytest.mark.parametrize("key", TEXTS)
def test_every_text_is_said_in_both_languages_with_the_same_values(key: str) -> None:
    said = TEXTS[key]
    assert set(said) == set(LANGUAGES.values())
    assert all(text.strip() for text in said.values())
    names = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in said.values()]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [("fr-CH, fr;q=0.9, en;q=0.8", "fr"), ("en-US,en;q=0.9,fr;q=0.1", "en"), ("de, FR;q=0.5", "fr"), ("", "en")],
)
def test_the_page_speaks_the_first_language_of_the_browser_that_it_knows(accepted: str, expected: str) -> None:
    assert language_of(accepted) == expected


@pytest.mark.parametrize(
    ("value", "english", "french"),
    [
        (0.000123456, "0.000123", "0,000123"),
        (0.9996, "1.00", "1,00"),
        (4.567, "4.57", "4,57"),
        (99.96, "100", "100"),
        (12345.6, "12,300", "12\u202f300"),
        (-0.53, "-0.530", "-0,530"),
    ],
)
def test_a_figure_has_three_digits_and_no_power_of_ten(value: float, english: str, french: str) -> None:
    assert panels.figure(value, "en") == english
    assert panels.figure(value, "fr") == french


@pytest.mark.parametrize("language", BOTH)
def test_what_others_wrote_is_escaped(language: Language) -> None:
    report = make_report(
        reason={"en": EVIL, "fr": EVIL},
        category=EVIL,
        revision=EVIL,
        warnings=(EVIL,),
        inspector=f"acme/{EVIL}",
        votes=(
            make_vote(EVIL, score=7.0, repo=EVIL, class_shares={EVIL: 0.9}),
            make_vote("other", score=None, error=EVIL),
        ),
        emissions=make_emissions(backend=EVIL, note=EVIL),
    )
    pages = [
        panels.verdict_html(report, language),
        panels.votes_html(report, calibrations(EVIL, "other"), language),
        emissions_html(report.emissions, language),
        panels.members_html(report, language, on_hub=True),
        panels.members_html(report, language, on_hub=False),
    ]
    for page in pages:
        assert "<script" not in page
        assert "&lt;script&gt;" in page


@pytest.mark.parametrize(("decision", "english", "french"), [("ok", "OK", "CONFORME"), ("defect", "DEFECT", "DÉFAUT")])
def test_the_verdict_is_a_word_and_its_reason(decision: str, english: str, french: str) -> None:
    report = make_report(decision=decision)
    assert f"{english}</strong><p>All is well.</p>" in panels.verdict_html(report, "en")
    assert f"{french}</strong><p>Tout va bien.</p>" in panels.verdict_html(report, "fr")


def test_the_verdict_tells_the_commit_and_the_warnings() -> None:
    html = panels.verdict_html(make_report(warnings=("The Hub does not answer.",)), "en")
    assert "revision v1 (aaaaaaa)" in html
    assert "The Hub does not answer." in html


@pytest.mark.parametrize(
    ("score", "width"), [(1.0, "0.0"), (3.0, "25.0"), (5.0, "50.0"), (9.0, "100.0"), (99.0, "100.0")]
)
def test_the_bar_reaches_its_middle_at_the_threshold(score: float, width: str) -> None:
    report = make_report(votes=(make_vote("a", score=score),))
    assert f'width:{width}%"' in panels.votes_html(report, calibrations("a"), "en")


def test_a_threshold_below_a_typical_good_part_still_shows_the_side() -> None:
    below, above = (
        panels.votes_html(make_report(votes=(make_vote("a", score=s),)), calibrations("a", typical=8.0), "en")
        for s in (4.0, 6.0)
    )
    assert 'width:25.0%"' in below
    assert 'width:100.0%"' in above


def test_a_failed_member_is_shown_as_failed_with_its_reason() -> None:
    html = panels.votes_html(make_report(votes=(make_vote("a", score=None),)), calibrations("a"), "en")
    assert "failed" in html
    assert "out of memory" in html
    assert 'class="bar' not in html


def test_a_probability_is_told_where_it_was_calibrated_and_nowhere_else() -> None:
    report = make_report(votes=(make_vote("a", score=1.0, probability=0.07), make_vote("b", score=1.0)))
    for language, said in (("en", "probability of a defect 0.0700"), ("fr", "probabilité d&#39;un défaut 0,0700")):
        html = panels.votes_html(report, calibrations("a", "b"), language)  # type: ignore[arg-type]
        assert html.count(said) == 1
        assert html.count(said.split("0")[0]) == 1


def test_an_energy_share_is_called_a_share_and_an_estimate() -> None:
    html = panels.votes_html(make_report(votes=(make_vote("a", score=1.0),)), calibrations("a"), "en")
    assert "Energy share (estimated)" in html
    assert "80.0 mJ" in html


@pytest.mark.parametrize("language", BOTH)
def test_energy_that_is_not_known_is_said_in_words(language: Language) -> None:
    nothing = dict.fromkeys(
        ("energy_mj", "cpu_mj", "ram_mj", "co2eq_ug", "running_mean_mj", "wh_per_1000", "g_per_kwh")
    )
    emissions = make_emissions(**nothing, note="below resolution", inspections=0)
    html = emissions_html(emissions, language)
    assert TEXTS["unknown"][language] in html
    assert TEXTS["note_below"][language] in html.replace("&#39;", "'")
    assert " mJ" not in html


def test_an_estimate_is_called_one_and_names_its_backend_and_country() -> None:
    html = emissions_html(make_emissions(), "en")
    for words in ("estimated", "155 mJ", "15.9 µg CO₂e", "rapl", "FRA, 44.0 g CO₂e/kWh", "160 mJ over 3", "0.0444 Wh"):
        assert words in html


def test_a_note_of_codecarbon_is_said_in_french() -> None:
    html = emissions_html(make_emissions(note="unavailable: ValueError('x')"), "fr")
    assert "Pas d&#39;estimation : ValueError" in html


def test_members_of_another_hub_are_links_to_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where HF_ENDPOINT names one, as everything of the inspector came from there."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8000/")
    html = panels.members_html(make_report(votes=(make_vote("a", score=1.0),)), "en", on_hub=True)
    assert f'href="http://127.0.0.1:8000/acme/a/tree/{"c" * 40}"' in html
    assert "huggingface.co" not in html


def test_every_commit_that_is_linked_is_on_the_hub_that_it_came_from(served: LoopbackHub, service: Service) -> None:
    report = service.inspect(PICTURE).report
    assert parse_source(report.inspector).folder is None
    links = re.findall(r'href="([^"]+)/tree/([0-9a-f]{40})"', panels.members_html(report, "en", on_hub=True))
    assert len(links) == len(report.votes) + 1
    api = HfApi(endpoint=served.url)
    for address, commit in links:
        repo = address.removeprefix(f"{served.url}/")
        assert api.model_info(repo, revision=commit).sha == commit


def test_members_of_the_hub_are_links_to_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    report = make_report(votes=(make_vote("a", score=1.0),))
    html = panels.members_html(report, "en", on_hub=True)
    assert f'href="https://huggingface.co/acme/a/tree/{"c" * 40}"' in html
    assert f'href="https://huggingface.co/acme/cable-inspector/tree/{"a" * 40}"' in html


def test_members_of_a_folder_are_text_and_the_folder_is_not_told() -> None:
    report = make_report(inspector="/srv/secret/starter", votes=(make_vote("a", score=1.0),))
    html = panels.members_html(report, "en", on_hub=False)
    assert "href" not in html
    assert "c" * 40 in html
    assert "/srv/secret" not in html


def test_the_legend_draws_the_same_colours_as_the_overlay() -> None:
    html = panels.legend_html("en")
    assert "rgba(126,3,168,0.00) 0%" in html
    assert "rgba(240,249,33,1.00) 100%" in html
