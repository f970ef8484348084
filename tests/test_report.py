"""The report: one page that needs nothing else, whose every number is in metrics.json, on pictures nobody has seen."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from levels import LABELS, detectors, inspector_of, tiny_scored, write_pictures
from tiny import tiny_calibration

from anomaly.calibration import CalibrationFile
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError
from anomaly.figures import DataFigures, ModelMetrics, TrainingFigures
from anomaly.model_repo import save_detector
from training import report
from training.manifest import Manifest, ManifestEntry
from training.metrics import measured
from training.published import MVTEC, PUBLISHED, published
from training.report_file import ReportFile
from training.report_pictures import cases
from training.report_plots import front_of, roc_and_precision
from training.report_source import Origin, Subject, check_unseen, subject

CHROMIUM = Path("/usr/bin/chromium")
CURVE = ((0.9, 0.8), (0.5, 0.6), (0.4, 0.7))
MEMBERS = ("autoencoder", "patch_knn")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MVTec folder: 9 good, 6 bent and 4 cut parts to test on."""
    folder = tmp_path_factory.mktemp("report") / "waves"
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Two finished runs, as `train_all` leaves them: out/runs/<member>."""
    out = tmp_path_factory.mktemp("out")
    for name in MEMBERS:
        make_run(out / "runs" / name, name, data)
    return out


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, runs: Path, data: Path) -> Path:
    """The report of both."""
    out = tmp_path_factory.mktemp("written")
    given = [str(runs), "--data", str(data), "--out", str(out), "--country", "FRA", "--resamples", "50"]
    assert report.main(given) == 0
    return out


@pytest.fixture(scope="module")
def file(written: Path) -> ReportFile:
    return ReportFile.model_validate_json((written / "metrics.json").read_bytes())


@pytest.fixture(scope="module")
def page(written: Path) -> str:
    return (written / "report.html").read_text(encoding="utf-8")


def make_run(folder: Path, name: str, data: Path, *, left_out: int = 0) -> None:
    """A finished run of a tiny detector: all pictures of the data but the last `left_out` are its test."""
    pictures = sorted(data.glob("test/*/*.png"))
    split = ["test"] * (len(pictures) - left_out) + ["train"] * left_out
    entries = [
        ManifestEntry.model_validate(
            {
                "path": path.relative_to(data).as_posix(),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "label": path.parent.name,
                "split": part,
                "group": None,
            }
        )
        for path, part in zip(pictures, split, strict=True)
    ]
    manifest = Manifest(
        category="waves",
        layout="mvtec",
        seed=3,
        group_regex=None,
        entries=tuple(entries),
        dropped=(),
        near_duplicates=(),
    )
    detector = detectors()[name]
    calibration = tiny_calibration(detector).model_copy(update={"split_hash": manifest.split_hash})
    save_detector(folder, detector, CalibrationFile(categories={"waves": calibration}))
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    run = {"identity": "x", "member": name, "data": str(data), "layout": "auto"}
    (folder / "run.json").write_text(json.dumps(run))
    found = measured(inspector_of(name), write_pictures(folder / "again"), data="waves", split="test", resamples=0)
    metrics = ModelMetrics(
        kind=detector.kind,
        member=name,
        category="waves",
        data=DataFigures(
            name="waves", layout="mvtec", seed=3, split_hash=manifest.split_hash, counts={"test": found.counts}
        ),
        backbone=None,
        parameters=1,
        model_bytes=1,
        settings={},
        test=found.members[name],
        training=TrainingFigures(
            grams_co2eq=1, energy_wh=2.5, duration_s=7, hardware="x", country="FRA", g_per_kwh=56, backend="rapl"
        ),
        versions={},
        curve=CURVE if name == "autoencoder" else (),
    )
    (folder / "metrics.json").write_text(metrics.model_dump_json())


def about(*sources: Path, data: Path) -> Subject:
    meter = EmissionsMeter("FRA")
    return subject(list(map(str, sources)), str(data), category=None, layout="auto", revision=None, meter=meter)


def words(page: str) -> str:
    """What a person reads."""
    bare = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(page: str) -> None:
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page) == []
    assert "@import" not in page
    assert "url(http" not in page
    assert page.count("data:image/jpeg;base64,") >= 3 * 3 * len(MEMBERS)


def test_every_figure_of_the_tables_is_in_metrics_json(page: str, file: ReportFile) -> None:
    text = words(page)
    for name, figures in file.evaluation.members.items():
        level = figures.levels
        auroc = level.image.auroc
        assert f"{name} {auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]" in text
        assert f"{name} {level.pixel.au_pro:.3f} {level.pixel.au_pro_05:.3f} {level.pixel.auroc:.3f}" in text
        assert f"{file.costs[name].parameters:,}" in text
        assert f"{file.ranking.scores['composite'][name].value:.3f}" in text
    assert f"Best by the composite score: {file.best}" in text
    assert (file.evaluation.counts, file.evaluation.data) == ({"bent": 6, "cut": 4, "good": 9}, "waves")


def test_it_says_how_it_was_made(page: str, file: ReportFile, runs: Path) -> None:
    text = words(page)
    assert file.command.startswith(f"python -m training.report {runs}")
    assert file.command in text
    for part in (file.evaluation.hardware, "FRA", f"torch {file.evaluation.versions['torch']}"):
        assert part in text
    assert file.divisions["autoencoder"].split_hash in text
    assert "estimated by CodeCarbon" in text


def test_what_is_missing_is_said_and_no_blank_or_nan_stands_for_it(page: str) -> None:
    text = words(page)
    assert "None of these detectors names a type" in text
    assert "No published figure is known here for data called waves" in text
    assert "calibrated without one for pixels" in text
    assert not re.search(r"\bnan\b|\bNone\b(?! of)|Undefined", text)


def test_the_areas_are_held_against_those_of_the_training_command(file: ReportFile, page: str) -> None:
    assert all(difference < 1e-9 for difference in file.recorded.values())
    assert "autoencoder the same, patch_knn the same." in words(page)


def test_learning_curves_are_of_those_that_were_trained_in_epochs(file: ReportFile, page: str) -> None:
    assert file.curves == {"autoencoder": CURVE}
    assert "Learning curves Not drawn" not in words(page)


def test_each_type_is_shown_with_what_every_member_draws(page: str) -> None:
    for label in ("bent", "cut", "good"):
        for name in MEMBERS:
            assert len(re.findall(rf'alt="{label}, [^"]*: {name}"', page)) == 3


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}")
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_the_page_asks_for_nothing_and_does_not_run_over(written: Path, width: int) -> None:
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page(viewport={"width": width, "height": 900})
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto((written / "report.html").as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert shown.evaluate(broken) == 0
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


# --- whose pictures --------------------------------------------------------------------------------------------------


def test_only_the_pictures_that_a_run_kept_apart_are_scored(tmp_path: Path, data: Path) -> None:
    make_run(tmp_path / "run", "patch_knn", data, left_out=5)
    found = about(tmp_path / "run", data=data)
    assert len(found.samples) == len(LABELS) - 5
    trained_on = {entry.path for entry in found.manifests["patch_knn"].entries if entry.split == "train"}
    assert not trained_on & {sample.relative for sample in found.samples}


def test_runs_that_kept_different_pictures_apart_are_not_compared(tmp_path: Path, data: Path, runs: Path) -> None:
    make_run(tmp_path / "run", "patch_knn", data, left_out=5)
    with pytest.raises(DataError, match="different test pictures apart"):
        about(runs / "runs/autoencoder", tmp_path / "run", data=data)


def test_pictures_that_have_changed_since_are_refused(tmp_path: Path, data: Path, runs: Path) -> None:
    other = Path(shutil.copytree(data, tmp_path / "waves"))
    first, second = sorted(other.glob("test/good/*.png"))[:2]
    shutil.copy(first, second)
    with pytest.raises(DataError, match="is not the test picture"):
        about(runs, data=other)


def test_runs_of_one_name_are_told_apart_by_their_folder(tmp_path: Path, data: Path, runs: Path) -> None:
    copies = [Path(shutil.copytree(runs / "runs/patch_knn", tmp_path / seed / "knn")) for seed in ("seed0", "seed1")]
    assert list(about(*copies, data=data).inspector.members) == ["patch_knn (seed0/knn)", "patch_knn (seed1/knn)"]


def test_a_released_inspector_is_measured_on_the_test_folder_and_says_what_that_rests_on(
    inspector_folder: Path, cables: Path
) -> None:
    found = about(inspector_folder, data=cables)
    assert list(found.inspector.members) == ["autoencoder", "patch_knn"]
    assert {sample.split for sample in found.samples} == {"test"}
    assert "does not carry the list" in found.notes[0]


def test_an_inspector_that_was_trained_on_a_part_of_the_test_folder_is_not_measured_on_it(runs: Path) -> None:
    folder = runs / "runs/patch_knn"
    metrics = ModelMetrics.model_validate_json((folder / "metrics.json").read_bytes())
    merged = metrics.model_copy(update={"settings": {"protocol": "supervised"}})
    check_unseen({"patch_knn": Origin(folder, metrics)}, "waves")
    check_unseen({"patch_knn": Origin(folder, merged)}, "other parts")
    with pytest.raises(DataError, match="trained with --protocol supervised"):
        check_unseen({"patch_knn": Origin(folder, merged)}, "waves")


def test_a_source_that_is_nothing_is_one_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert report.main([str(tmp_path / "empty"), "--data", str(data), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


# --- parts of it -----------------------------------------------------------------------------------------------------


def test_the_cases_are_the_highest_the_median_and_the_lowest_score(tmp_path: Path) -> None:
    scored = tiny_scored(tmp_path)
    found = [case for case in cases(scored, "patch_knn") if case.label == "bent"]
    scores = {r.sample.relative: r.vote("patch_knn").score for r in scored.rows if r.sample.label == "bent"}
    ordered = sorted(scores, key=lambda name: -scores[name])
    assert [case.name for case in found] == [ordered[0], ordered[2], ordered[5]]
    assert [tile.title for tile in found[0].tiles][1:] == list(scored.inspector.members)
    assert found[0].tiles[1 + list(scored.inspector.members).index("mahalanobis_global")].source == ""


def test_a_type_with_one_picture_shows_it_once(tmp_path: Path) -> None:
    scored = tiny_scored(tmp_path)
    kept = [i for i, row in enumerate(scored.rows) if row.sample.label != "cut"][: LABELS.index("bent") + 1]
    one = replace(scored, rows=tuple(scored.rows[i] for i in kept), masks=tuple(scored.masks[i] for i in kept))
    assert [case.rank for case in cases(one, "patch_knn") if case.label == "bent"] == ["the only one"]


def test_nobody_on_the_front_is_beaten_in_both() -> None:
    points = {"cheap": (1.0, 0.7), "dear": (9.0, 0.9), "beaten": (5.0, 0.6), "twin": (9.0, 0.8), "mid": (4.0, 0.8)}
    assert front_of(points) == ["cheap", "mid", "dear"]


def test_a_plot_takes_the_colour_of_the_page_and_its_ids_are_its_own(tmp_path: Path) -> None:
    scored = tiny_scored(tmp_path)
    svg = roc_and_precision(scored, dict.fromkeys(scored.inspector.members, 0.0))
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "patch_knn</text>" in svg  # text stays text
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert ids
    assert all(name.startswith("roc-") for name in ids)
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    assert referred <= set(ids)


def test_published_figures_come_with_their_source_and_only_for_data_of_that_name() -> None:
    rows = published("mvtec_transistor", "transistor")
    assert rows == PUBLISHED["mvtec_transistor"]
    assert rows == published("data", "mvtec_transistor") == published("acme/MVTec_AD@main", "transistor")
    assert all(row.source and row.conditions and 0.5 < row.image_auroc <= 1 for row in rows)
    assert published("casting", "casting") == published("my_parts", "transistor") == ()
    assert np.all([0.5 < (row.au_pro or 0.6) <= 1 for row in rows])


def test_the_fifteen_categories_average_to_what_the_readme_says() -> None:
    for place, image_auroc, pixel_auroc in ((0, 0.980, 0.980), (1, 0.973, 0.976), (2, 0.950, 0.979), (3, 0.891, 0.968)):
        rows = [published("mvtec_ad", category)[place] for category in MVTEC]
        assert round(fmean(row.image_auroc for row in rows), 3) == image_auroc
        assert round(fmean(row.pixel_auroc for row in rows), 3) == pixel_auroc
