"""The Models tab: only what a release carries, from its own files; what it does not carry is said in words."""

import html
import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from released import INSPECTOR, PAIR, Release, release, served, store_locally

from anomaly import charts, hub, releases
from anomaly.figures import Counts, Figures, Spread
from anomaly.inspector import INSPECTOR_FILE
from anomaly.metrics import image_auroc
from anomaly.models_sheet import card_text, commit_html, history_html, models_html
from anomaly.models_tab import INSPECTOR as OF_INSPECTOR
from anomaly.service import Service
from anomaly.settings import STARTER, Settings

__all__ = ["release", "served"]  # fixtures

needs_starter = pytest.mark.skipif(not any(STARTER.glob("models--*")), reason="no starter: make starter")


@pytest.fixture(scope="module")
def starter() -> Service:
    return Service(Settings())


def test_the_curve_has_the_area_that_scikit_learn_gives() -> None:
    good, defects = [0.1, 0.4, 0.4, 0.8], [0.4, 0.7, 0.9]
    curve = charts.roc(good, defects)
    assert (curve[0], curve[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert charts.area(curve) == pytest.approx(image_auroc([0] * 4 + [1] * 3, good + defects))


def test_the_front_is_what_nothing_beats() -> None:
    points = [(1.0, 0.6), (2.0, 0.5), (2.0, 0.9), (3.0, 0.9), (3.0, 0.95)]
    assert charts.front(points) == [True, False, True, False, True]


def test_shares_count_a_review_as_not_passed() -> None:
    figures = Figures(
        image_auroc=None, pixel_auroc=None, au_pro=None, threshold="f1", tp=6, fp=1, fn=1, tn=8, review=4, failed=0,
        latency_ms=Spread(median=1, p95=2), energy_mj=None,
    )  # fmt: skip
    found = releases.policy_shares(figures, {"good": 10, "cut": 4, "bent": 6})
    assert found.found is not None
    assert found.false_alarms is not None
    assert found.review is not None
    assert [(s.count, s.of) for s in (found.found, found.false_alarms, found.review)] == [(9, 10), (1, 10), (4, 20)]
    assert found.false_alarms.low == pytest.approx(0.0025, abs=1e-4)  # Clopper and Pearson of 1 of 10
    assert found.false_alarms.high == pytest.approx(0.4450, abs=1e-4)
    assert releases.policy_shares(figures, {"good": 10}).found is None


@needs_starter
def test_members_policies_and_curves_are_those_of_the_release(starter: Service) -> None:
    chosen, metrics = starter.inspector(), starter.figures()
    assert metrics is not None
    text = html.unescape(models_html(chosen, metrics, "en"))
    for name, member in chosen.members.items():
        assert f"{metrics.members[name].image_auroc:.3f}" in text
        assert f"{member.ref.repo}@{member.ref.commit}" in text
    for policy in chosen.file.policies:
        assert f"<b>{policy.name}" in text
    assert "NaN" not in text
    assert text.count("<polyline") == 1 + len(chosen.members)  # the front, and one ROC a member


@needs_starter
def test_the_curves_agree_with_what_was_measured_at_the_release(starter: Service) -> None:
    chosen, metrics = starter.inspector(), starter.figures()
    votes = releases.votes(hub.parse_source(chosen.source), chosen.commit)
    assert metrics is not None
    assert votes is not None
    for name, figures in metrics.members.items():
        good, defects = votes.scores(name)
        assert charts.area(charts.roc(good, defects)) == pytest.approx(figures.image_auroc, abs=1e-9)
        cut = chosen.members[name].calibration.thresholds[figures.threshold].value  # type: ignore[index]
        caught = Counts(
            tp=sum(s >= cut for s in defects),
            fp=sum(s >= cut for s in good),
            fn=sum(s < cut for s in defects),
            tn=sum(s < cut for s in good),
        )
        assert (caught.tp, caught.fp, caught.fn, caught.tn) == (figures.tp, figures.fp, figures.fn, figures.tn)


@needs_starter
def test_every_card_is_shown_without_its_front_matter(starter: Service) -> None:
    chosen = starter.inspector()
    for name in (OF_INSPECTOR, *chosen.members):
        text = card_text(chosen, name, "en")
        assert text.startswith("# ")
        assert "model-index" not in text


def test_a_card_can_bring_no_html_and_no_picture_of_elsewhere() -> None:
    text = "---\nlicense: x\n---\n# A\n<img src=x onerror=alert(1)> ![b](https://evil.example/p.png) `<kept>`\n"
    assert releases.safe_markdown(text) == "# A\n&lt;img src=x onerror=alert(1)> b `<kept>`"


def test_a_release_without_figures_votes_and_cards_says_so(inspector_folder: Path) -> None:
    service = Service(Settings(inspectors=(str(inspector_folder),)))
    chosen = service.inspector()
    text = models_html(chosen, service.figures(), "fr")
    assert "metrics.json" in text
    assert "votes.json" in text
    assert "<polyline" not in text
    assert card_text(chosen, "patch_knn", "en") == "This release carries no card."


def test_history_of_a_hub_has_dates_and_what_changed(served: LoopbackHub, release: Release) -> None:
    place = hub.parse_source(PAIR)
    found = releases.history(place, hub.list_revisions(place))
    assert [change.names for change in found[:2]] == [("v2", "main"), ("v1",)]
    assert all(change.date for change in found)
    assert found[0].retrained == ("autoencoder", "mahalanobis")
    assert not found[0].first
    text = history_html(found, place, "en")
    assert f"{served.url}/{PAIR}/tree/{release.pair['v2']}" in text
    assert "Detectors at another commit: autoencoder, mahalanobis" in text
    served.log.clear()
    releases.history(place, hub.list_revisions(place))
    assert [path for _, path, _ in served.log if INSPECTOR_FILE in path] == []  # at a commit nothing changes


def test_history_names_members_policies_and_default(served: LoopbackHub, release: Release, tmp_path: Path) -> None:
    file = json.loads((release.folder / "v2" / "pair" / INSPECTOR_FILE).read_text())
    file["policies"] = [
        {**file["policies"][1], "name": "alarm"},
        {**file["policies"][0], "description": {"en": "x", "fr": "x"}},
    ]
    file["default_policy"] = "alarm"
    (tmp_path / INSPECTOR_FILE).write_text(json.dumps(file))
    hub.push(tmp_path, PAIR, files=[INSPECTOR_FILE], message="third", tag="v3")
    place = hub.parse_source(PAIR)
    latest = releases.history(place, hub.list_revisions(place))[0]
    assert latest.names == ("v3", "main")
    assert (latest.new_policies, latest.gone_policies) == (("alarm",), ("any",))
    assert latest.changed_policies == ("majority",)
    assert latest.default == ("majority", "alarm")


def test_a_broken_commit_is_told_and_the_others_are_shown(served: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / INSPECTOR_FILE).write_text("{}")
    HfApi(endpoint=served.url, token="hf_loopback_alice").upload_file(
        path_or_fileobj=tmp_path / INSPECTOR_FILE, path_in_repo=INSPECTOR_FILE, repo_id=PAIR
    )
    place = hub.parse_source(PAIR)
    found = releases.history(place, hub.list_revisions(place))
    assert INSPECTOR_FILE in found[0].problem
    assert found[1].retrained


def test_a_folder_has_no_dates_and_says_so(release: Release, tmp_path: Path) -> None:
    store_locally(release, tmp_path)
    place = hub.parse_source(str(tmp_path / f"models--{INSPECTOR.replace('/', '--')}"))
    found = releases.history(place, hub.list_revisions(place))
    assert [change.names[0] for change in found] == ["v2", "v1"]
    text = history_html(found, place, "en")
    assert "date not known" in text
    assert "href" not in text


def test_only_what_is_on_the_hub_has_a_link() -> None:
    assert "https://huggingface.co/a/b/tree/" in commit_html("a/b", "c" * 40, on_hub=True)
    assert "href" not in commit_html("a/b", "c" * 40, on_hub=False)


def test_a_figure_of_other_pictures_lends_no_interval(starter: Service) -> None:
    if not any(STARTER.glob("models--*")):
        pytest.skip("no starter: make starter")
    metrics = starter.figures()
    assert metrics is not None
    name, figures = next(iter(metrics.members.items()))
    other = metrics.model_copy(
        update={"members": {**metrics.members, name: figures.model_copy(update={"image_auroc": 0.123})}}
    )
    assert "<td>0.123</td>" in models_html(starter.inspector(), other, "en")
