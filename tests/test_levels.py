"""The three levels: every figure against scikit-learn, pycocotools or a count made another way."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from levels import LABELS, inspector_of, tiny_scored, write_pictures
from sklearn import metrics as sk
from tiny import SIDE

from anomaly.boxes import mask_boxes
from anomaly.calibration import PixelThreshold
from anomaly.detectors import Boxes
from anomaly.evaluation import Scored, evaluate, score
from anomaly.figures import Levels
from anomaly.inspector import Inspector
from anomaly.metrics import au_pro, pixel_scores
from training.box_metrics import box_level, mean_average_precision
from training.image_metrics import image_level
from training.metrics import levels, measured, type_level


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return tiny_scored(tmp_path_factory.mktemp("levels"), calibrated_pixels())


@pytest.fixture(scope="module")
def found(scored: Scored) -> dict[str, Levels]:
    return {name: levels(scored, name, resamples=200) for name in scored.inspector.members}


def calibrated_pixels() -> Inspector:
    """The tiny inspector with a pixel threshold: what good held-out pixels hardly reach."""
    inspector = inspector_of()
    for name, member in inspector.members.items():
        if (scale := member.calibration.heatmap) is not None:
            pixel = PixelThreshold(value=scale.high, source="good", images=20)
            calibration = member.calibration.model_copy(update={"pixel": pixel})
            inspector.members[name] = dataclasses.replace(member, calibration=calibration)
    return inspector


def cases(seed: int, n: int = 120, decimals: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels and overlapping scores, with ties."""
    rng = np.random.default_rng(seed)
    defect = rng.random(n) < 0.4
    return defect, np.round(rng.normal(size=n) + defect, decimals)


# --- image -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_image_figures_equal_scikit_learn(seed: int) -> None:
    defect, scores = cases(seed)
    given = scores >= 0.7
    level = image_level(defect, scores, 0.7, name="f1", resamples=0)
    expected = {
        "auroc": sk.roc_auc_score(defect, scores),
        "ap": sk.average_precision_score(defect, scores),
        "f1": sk.f1_score(defect, given),
        "f2": sk.fbeta_score(defect, given, beta=2),
        "precision": sk.precision_score(defect, given),
        "recall": sk.recall_score(defect, given),
        "accuracy": sk.accuracy_score(defect, given),
    }
    for name, value in expected.items():
        assert getattr(level, name).value == pytest.approx(value, abs=1e-12), name
    assert (level.good, level.defects) == ((~defect).sum(), defect.sum())


@pytest.mark.parametrize("seed", range(5))
def test_false_alarms_at_a_recall_are_the_least_that_any_threshold_allows(seed: int) -> None:
    defect, scores = cases(seed)
    level = image_level(defect, scores, 0.7, name="f1", resamples=0)
    for recall, figure in ((1.0, level.false_alarms_at_full_recall), (0.95, level.false_alarms_at_95_recall)):
        cuts = [cut for cut in scores if (scores[defect] >= cut).mean() >= recall]
        assert figure.value == min((scores[~defect] >= cut).mean() for cut in cuts)


def test_a_threshold_beyond_every_score_finds_nothing_and_has_no_precision() -> None:
    level = image_level([True, False, True], [1.0, 2.0, 3.0], 9.0, name="far", resamples=50)
    assert (level.recall.value, level.f1.value) == (0.0, 0.0)
    assert level.precision.value is None
    assert level.precision.low is None


def test_an_interval_holds_the_figure_and_equals_a_plain_bootstrap() -> None:
    defect, scores = cases(1, n=80)
    level = image_level(defect, scores, 0.7, name="f1", resamples=2000)
    rng = np.random.default_rng(5)
    good, bad = scores[~defect], scores[defect]
    truth = np.array([False] * len(good) + [True] * len(bad))
    drawn = [np.concatenate([rng.choice(good, len(good)), rng.choice(bad, len(bad))]) for _ in range(500)]
    plain = np.quantile([sk.roc_auc_score(truth, sample) for sample in drawn], [0.025, 0.975])
    assert level.auroc.low == pytest.approx(plain[0], abs=0.02)
    assert level.auroc.high == pytest.approx(plain[1], abs=0.02)
    for name in ("auroc", "ap", "f1", "recall", "accuracy"):
        figure = getattr(level, name)
        assert figure.low < figure.value < figure.high


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    defect, scores = cases(2)
    first, again = (image_level(defect, scores, 0.7, name="f1", seed=4) for _ in range(2))
    assert first == again
    assert image_level(defect, scores, 0.7, name="f1", seed=5).auroc.low != first.auroc.low


def test_a_thousand_resamples_of_three_hundred_pictures_take_less_than_two_seconds() -> None:
    defect, scores = cases(3, n=300, decimals=9)
    started = time.perf_counter()
    image_level(defect, scores, 0.7, name="f1", resamples=1000)
    assert time.perf_counter() - started < 2


def test_members_have_the_image_figures_of_their_scores(scored: Scored, found: dict[str, Levels]) -> None:
    for name, level in found.items():
        scores = [vote.score for row in scored.rows if (vote := row.vote(name))]
        assert level.image.auroc.value == pytest.approx(sk.roc_auc_score([x != "good" for x in LABELS], scores))
        assert (level.image.good, level.image.defects, level.image.threshold) == (9, 10, "far")


def test_with_one_class_only_there_is_no_image_level_and_it_is_said(tmp_path: Path) -> None:
    good = [sample for sample in write_pictures(tmp_path) if not sample.is_defect]
    inspector = inspector_of("autoencoder")
    level = levels(score(inspector, good, tmp_path), "autoencoder")
    assert (level.image, level.pixel) == (None, None)
    assert any("no image level" in note for note in level.notes)


# --- type ------------------------------------------------------------------------------------------------------------


def test_type_figures_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    classes = ("good", "bent", "cut")
    labels = list(rng.choice(classes, 90, p=[0.6, 0.3, 0.1]))
    shares = rng.dirichlet([1, 1, 1], 90) + 0.6 * np.eye(3)[[classes.index(x) for x in labels]]
    shares /= shares.sum(axis=1, keepdims=True)
    given = [classes[i] for i in shares.argmax(axis=1)]
    level = type_level(labels, classes, shares)
    order = [sorted(classes).index(name) for name in sorted(classes)]
    one_against_rest = sk.roc_auc_score(
        labels, shares[:, [classes.index(n) for n in sorted(classes)]][:, order], multi_class="ovr", average="macro"
    )
    assert level.auroc == pytest.approx(one_against_rest)
    assert level.macro_f1 == pytest.approx(sk.f1_score(labels, given, average="macro"))
    assert level.weighted_f1 == pytest.approx(sk.f1_score(labels, given, average="weighted"))
    assert level.accuracy == pytest.approx(sk.accuracy_score(labels, given))
    assert level.labels == ("good", "bent", "cut")
    assert np.array_equal(level.confusion, sk.confusion_matrix(labels, given, labels=level.labels))
    report = sk.classification_report(labels, given, output_dict=True)
    for name, figures in level.types.items():
        row = report[name]
        assert (figures.n, figures.precision, figures.recall, figures.f1) == pytest.approx(
            (row["support"], row["precision"], row["recall"], row["f1-score"])
        )


def test_a_type_that_was_never_taught_counts_as_wrong_and_is_named() -> None:
    level = type_level(["good", "cut", "new"], ("good", "cut"), np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]))
    assert level.accuracy == pytest.approx(2 / 3)
    assert level.types["new"].recall == 0
    assert level.confusion == ((1, 0, 0), (0, 1, 0), (0, 1, 0))
    assert "new" in level.note


def test_a_head_without_good_is_asked_about_defects_only() -> None:
    level = type_level(["good", "cut", "bent"], ("cut", "bent"), np.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]]))
    assert (level.n, level.accuracy) == (2, 1.0)
    assert "good" not in level.types


def test_a_detector_without_a_type_head_has_rejections_and_areas_by_type_only(
    scored: Scored, found: dict[str, Levels]
) -> None:
    level = found["patch_knn"].type
    assert (level.n, level.auroc, level.macro_f1, level.accuracy) == (0, None, None, None)
    threshold = scored.inspector.members["patch_knn"].calibration.thresholds["far"].value
    for label, figures in level.types.items():
        scores = [row.vote("patch_knn").score for row in scored.rows if row.sample.label == label]
        assert figures.n == LABELS.count(label)
        assert figures.rejected == np.mean([value >= threshold for value in scores])
        assert figures.f1 is None
    assert list(level.types) == ["good", "bent", "cut"]


def test_a_classifier_has_a_confusion_matrix_of_all_pictures(found: dict[str, Levels]) -> None:
    level = found["baseline_cnn"].type
    assert np.sum(level.confusion) == level.n == len(LABELS)
    rows = dict(zip(level.labels, np.sum(level.confusion, axis=1), strict=True))
    assert all(rows[label] == figures.n for label, figures in level.types.items())


# --- pixel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [6, 0], ids=["few ties", "many ties"])
def test_pixel_precision_equals_scikit_learn_and_the_best_overlap_beats_every_threshold(decimals: int) -> None:
    rng = np.random.default_rng(7)
    masks = [np.zeros((16, 16), bool) for _ in range(3)]
    masks[0][3:9, 4:12] = masks[1][10:15, 10:12] = True
    maps = [np.round(rng.normal(size=(16, 16)) + 1.5 * mask, decimals).astype(np.float32) for mask in masks]
    truth, values = np.concatenate(masks).ravel(), np.concatenate(maps).ravel()
    pixels = pixel_scores(masks, maps)
    assert pixels.average_precision() == pytest.approx(sk.average_precision_score(truth, values), abs=1e-12)
    iou, threshold = pixels.best_overlap()
    assert iou == pytest.approx(max(sk.jaccard_score(truth, values >= cut) for cut in np.unique(values)))
    assert sk.jaccard_score(truth, values >= threshold) == pytest.approx(iou)


@pytest.mark.parametrize("name", ["patch_knn", "autoencoder", "baseline_cnn"])
def test_pixel_figures_equal_scikit_learn_at_the_calibrated_threshold(
    scored: Scored, found: dict[str, Levels], name: str
) -> None:
    level = found[name].pixel
    truth = np.concatenate(scored.masks).ravel()
    values = np.concatenate(scored.maps[name].read()).ravel()
    cut = scored.inspector.members[name].calibration.pixel.value
    assert level.threshold == cut
    assert level.auroc == pytest.approx(sk.roc_auc_score(truth, values), abs=1e-9)
    assert level.ap == pytest.approx(sk.average_precision_score(truth, values), abs=1e-9)
    assert level.iou == pytest.approx(sk.jaccard_score(truth, values >= cut))
    assert level.dice == pytest.approx(sk.f1_score(truth, values >= cut))
    assert level.best_iou >= level.iou
    assert level.au_pro == au_pro(scored.masks, scored.maps[name].read())
    assert level.au_pro_05 == au_pro(scored.masks, scored.maps[name].read(), limit=0.05)
    assert (level.pictures, level.regions) == (19, 6 + 2 * 4)


def test_the_area_of_all_is_the_mean_of_the_types_by_their_regions(found: dict[str, Levels]) -> None:
    for name, level in found.items():
        if name != "mahalanobis_global":
            types = level.type.types
            assert level.pixel.au_pro == pytest.approx((6 * types["bent"].au_pro + 8 * types["cut"].au_pro) / 14)
            assert types["good"].au_pro is None


def test_a_types_overlap_is_that_of_its_pictures(scored: Scored, found: dict[str, Levels]) -> None:
    cut = scored.inspector.members["patch_knn"].calibration.pixel.value
    rows = [i for i, row in enumerate(scored.rows) if row.sample.label == "cut"]
    truth = np.concatenate([scored.masks[i] for i in rows]).ravel()
    given = np.concatenate([scored.maps["patch_knn"].get(i) for i in rows]).ravel() >= cut
    assert found["patch_knn"].type.types["cut"].iou == pytest.approx(sk.jaccard_score(truth, given))


def test_without_a_calibrated_pixel_threshold_there_is_only_the_oracle_and_it_is_said(
    tmp_path: Path,
) -> None:
    inspector = inspector_of("patch_knn")
    level = levels(tiny_scored(tmp_path, inspector), "patch_knn", resamples=0)
    assert (level.pixel.threshold, level.pixel.iou, level.pixel.dice) == (None, None, None)
    assert level.pixel.best_dice > 0
    assert any("calibrated threshold" in note for note in level.notes)


def test_a_detector_that_draws_nothing_has_no_pixel_level_and_it_is_said(found: dict[str, Levels]) -> None:
    assert found["mahalanobis_global"].pixel is None
    assert "no pixel level: it draws no heatmap" in found["mahalanobis_global"].notes


# --- boxes -----------------------------------------------------------------------------------------------------------

BOX = [10.0, 10.0, 30.0, 30.0]


def named(boxes: list[list[float]], labels: tuple[str, ...], scores: list[float] | None = None):  # type: ignore[no-untyped-def]
    return torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores or [0.0] * len(boxes)), labels


def test_average_precision_of_a_case_worked_by_hand() -> None:
    # Two boxes to find. Downwards by score: a hit (precision 1, recall 1/2), a false one, nothing more.
    truth = [named([BOX, [50, 50, 60, 60]], ("open", "open")), named([], ())]
    found = [named([BOX], ("open",), [0.9]), named([[0, 0, 5, 5]], ("open",), [0.5])]
    level = mean_average_precision(truth, found, "a test")
    # COCO reads precision at recall 0, .01 ... 1: 51 of the 101 places are at or below 1/2
    assert level.map_50 == pytest.approx(51 / 101)
    assert level.by_type == pytest.approx({"open": 51 / 101})
    assert (level.truth, level.found, level.classes) == (2, 2, True)


def test_a_box_that_overlaps_by_less_than_half_is_false_and_one_of_another_type_too() -> None:
    truth = [named([BOX], ("open",)), named([BOX], ("short",))]
    shifted = mean_average_precision(
        truth, [named([[20, 20, 40, 40]], ("open",), [1.0]), named([BOX], ("short",), [1.0])], "a test"
    )
    assert shifted.by_type == {"open": 0.0, "short": 1.0}
    assert shifted.map_50 == 0.5
    swapped = mean_average_precision(truth, [named([BOX], ("short",), [1.0]), named([BOX], ("open",), [1.0])], "a test")
    assert swapped.map_50 == 0.0


def test_boxes_without_a_type_are_matched_by_place_alone() -> None:
    truth = [named([BOX], ("open",)), named([BOX], ("short",))]
    level = mean_average_precision(truth, [named([BOX], ("defect",), [1.0])] * 2, "a test")
    assert (level.map_50, level.map_50_95, level.classes, level.by_type) == (1.0, 1.0, False, {})


def test_a_heatmap_becomes_boxes_that_are_held_against_the_components_of_the_masks(found: dict[str, Levels]) -> None:
    level = found["patch_knn"].boxes
    assert (level.truth, level.pictures) == (6 + 2 * 4, 19)
    assert level.truth_from == "connected components of the masks"
    assert not level.classes
    assert 0 <= level.map_50_95 <= level.map_50 <= 1
    assert found["mahalanobis_global"].boxes is None


def test_box_files_of_the_data_are_the_truth_where_there_are_some(tmp_path: Path) -> None:
    for name in ("pictures", "boxes"):
        (tmp_path / name).mkdir()
    boxed = []
    for sample in write_pictures(tmp_path / "pictures"):
        file = tmp_path / "boxes" / f"{sample.path.stem}.txt"
        quarter = SIDE // 4
        file.write_text(f"{quarter} {quarter} {2 * quarter} {2 * quarter} spot\n")
        boxed.append(dataclasses.replace(sample, mask=None, boxes=file if sample.is_defect else None))
    inspector = calibrated_pixels()
    found = measured(inspector, boxed, data="boxed", split="test", resamples=0).members["patch_knn"].levels
    assert (found.boxes.truth, found.boxes.truth_from) == (10, "box files of the data")
    assert found.pixel is None


def labelled_boxes(scored: Scored, label: str) -> Scored:
    """As if a trained localiser had found every region and called it so."""
    rows = []
    for row, mask in zip(scored.rows, scored.masks, strict=True):
        corners = torch.from_numpy(mask_boxes(mask))
        boxes = Boxes(corners, torch.ones(len(corners)), (label,) * len(corners))
        ballots = {name: dataclasses.replace(ballot, boxes=boxes) for name, ballot in row.ballots.items()}
        rows.append(dataclasses.replace(row, ballots=ballots))
    return dataclasses.replace(scored, rows=tuple(rows))


def test_types_that_are_called_otherwise_are_matched_by_place_and_it_is_said(scored: Scored) -> None:
    notes: list[str] = []
    level = box_level(labelled_boxes(scored, "open"), "patch_knn", notes)
    assert (level.map_50, level.classes) == (1.0, False)
    assert notes == ["boxes are matched by place alone: it calls the types ['open'], the data ['bent', 'cut']"]


def test_a_localiser_of_several_categories_is_asked_about_this_one(scored: Scored) -> None:
    level = box_level(labelled_boxes(scored, "waves/cut"), "patch_knn", [])
    assert level.classes
    assert level.by_type["bent"] == 0.0
    assert level.by_type["cut"] == pytest.approx(8 / 14, abs=0.01)  # 8 of the 14 boxes called so are cuts


# --- what training commands call -------------------------------------------------------------------------------------


def test_measured_is_the_evaluation_with_levels_beside_the_very_same_figures(tmp_path: Path) -> None:
    inspector = inspector_of("patch_knn")
    samples = write_pictures(tmp_path)
    plain = evaluate(inspector, samples, data="waves", split="test").members["patch_knn"]
    found = measured(inspector, samples, data="waves", split="test", resamples=10).members["patch_knn"]
    timed = {"latency_ms": plain.latency_ms, "energy_mj": plain.energy_mj}
    assert plain.levels is None
    assert found.model_copy(update={"levels": None, **timed}) == plain
    assert found.levels.image.auroc.value == pytest.approx(found.image_auroc, abs=1e-12)
    assert found.levels.pixel.au_pro == found.au_pro
    assert Levels.model_validate_json(found.levels.model_dump_json()) == found.levels
