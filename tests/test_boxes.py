"""Boxes: from heatmaps, masks and files of the data; in the report, in the API's JSON, and drawn on the page."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RunningApp
from gradio_client import Client, handle_file
from numpy.typing import NDArray
from PIL import Image
from reports import make_report, make_vote
from scipy.ndimage import label as scipy_label
from tiny import CLASSES, SIDE, as_picture, corrupted, good_images, tiny_detectors, tiny_inspector
from torchvision.ops import box_iou

from anomaly import hub as registry
from anomaly import panels
from anomaly.boxes import DEFECT, BoxSettings, find_boxes, mask_boxes
from anomaly.calibration import Calibration, CalibrationFile, HeatmapScale, PixelThreshold, Threshold
from anomaly.datasets import Dataset, read_boxes, read_dataset
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError
from anomaly.inspector import INSPECTOR_FILE, Inspector, InspectorFile, Member, MemberRef
from anomaly.model_repo import MODEL_FILES, save_detector
from anomaly.policy import Policy, Rule
from anomaly.render import ALL, NONE, draw, exhibit, framed, overlay
from anomaly.report import BoxRow, Report
from anomaly.settings import Settings

ALL_SIZES = BoxSettings(least_share=0, most=100)


def heatmap(*areas: tuple[slice, slice, float]) -> NDArray[np.float32]:
    found = np.full((20, 30), -3.0, np.float32)
    for rows, columns, value in areas:
        found[rows, columns] = value
    return found


# --- From a heatmap --------------------------------------------------------------------------------------------------


def test_a_box_is_half_open_and_its_score_is_the_largest_pixel_in_it() -> None:
    found = heatmap((slice(2, 5), slice(10, 14), 1.0))
    found[3, 11] = 4.5
    boxes = find_boxes(found, 1.0, ALL_SIZES)  # a pixel that equals the threshold counts
    assert boxes.xyxy.tolist() == [[10, 2, 14, 5]]
    assert boxes.xyxy.dtype == boxes.scores.dtype == torch.float32
    assert boxes.scores.tolist() == [4.5]
    assert boxes.labels == (DEFECT,)


def test_areas_that_touch_at_a_corner_are_one_and_those_a_pixel_apart_are_two() -> None:
    corner = heatmap((slice(2, 4), slice(2, 4), 1.0), (slice(4, 6), slice(4, 6), 1.0))
    apart = heatmap((slice(2, 4), slice(2, 4), 1.0), (slice(5, 7), slice(4, 6), 1.0))
    assert find_boxes(corner, 0.0, ALL_SIZES).xyxy.tolist() == [[2, 2, 6, 6]]
    assert len(find_boxes(apart, 0.0, ALL_SIZES).xyxy) == 2


def test_the_highest_score_comes_first_and_the_others_are_left_out_beyond_the_number_allowed() -> None:
    found = heatmap(*((slice(4 * i, 4 * i + 2), slice(0, 5), value) for i, value in enumerate((1.0, 5.0, 3.0))))
    assert find_boxes(found, 0.0, ALL_SIZES).scores.tolist() == [5.0, 3.0, 1.0]
    best = find_boxes(found, 0.0, BoxSettings(least_share=0, most=2))
    assert best.xyxy.tolist() == [[0, 4, 5, 6], [0, 8, 5, 10]]


def test_an_area_smaller_than_the_least_share_of_the_picture_is_no_box() -> None:
    found = heatmap((slice(0, 2), slice(0, 3), 9.0), (slice(10, 12), slice(10, 15), 1.0))  # 6 and 10 of 600 pixels
    assert find_boxes(found, 0.0, BoxSettings(least_share=10 / 600)).scores.tolist() == [1.0]
    assert find_boxes(found, 0.0, BoxSettings(least_share=11 / 600)).labels == ()


def test_a_heatmap_below_the_threshold_everywhere_has_no_box() -> None:
    none = find_boxes(heatmap(), 0.0)
    assert (none.xyxy.shape, none.scores.shape, none.labels) == ((0, 4), (0,), ())


def test_every_marked_pixel_lies_in_a_box_and_every_box_is_tight() -> None:
    found = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    boxes = find_boxes(found, 1.0, BoxSettings(least_share=0, most=2000))
    areas, count = scipy_label(found >= 1.0, structure=np.ones((3, 3)))
    assert len(boxes.labels) == count > 20
    for area in range(1, count + 1):
        rows, columns = np.nonzero(areas == area)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert expected in boxes.xyxy.tolist()


def test_a_mask_becomes_the_boxes_of_its_areas() -> None:
    mask = heatmap((slice(2, 5), slice(10, 14), 1.0), (slice(0, 1), slice(0, 1), 1.0)) > 0
    assert mask_boxes(mask).tolist() == [[0, 0, 1, 1], [10, 2, 14, 5]]
    assert mask_boxes(np.zeros((4, 4), bool)).shape == (0, 4)


# --- From files of a data set ----------------------------------------------------------------------------------------


def boxed_dataset(root: Path, lines: str = "1 0 5 3 1\n\n0.5 1 2 4 scratch\n") -> Dataset:
    for name in ("train/good/a.png", "train/defect/b.png", "test/defect/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4), len(name)).save(root / name)
    (root / "boxes/defect").mkdir(parents=True, exist_ok=True)
    for stem in ("b", "c"):
        (root / f"boxes/defect/{stem}.txt").write_text(lines)
    return read_dataset(root, "pcb")


def test_box_files_are_read_for_train_and_test_defects_and_good_parts_have_none(tmp_path: Path) -> None:
    c, b, a = boxed_dataset(tmp_path).samples
    assert (a.boxes, b.boxes, c.boxes) == (None, tmp_path / "boxes/defect/b.txt", tmp_path / "boxes/defect/c.txt")
    corners, types = read_boxes(b, (4, 6))
    assert (corners.tolist(), corners.dtype, types) == ([[1, 0, 5, 3], [0.5, 1, 2, 4]], np.float32, ("1", "scratch"))
    assert read_boxes(a, (4, 6))[0].shape == (0, 4)


def test_numbers_of_types_get_the_names_given_or_those_that_lie_beside_the_boxes(tmp_path: Path) -> None:
    sample = boxed_dataset(tmp_path, "0 0 1 1 1\n0 0 1 1 2\n0 0 1 1 3\n").train[0]
    (tmp_path / "boxes/labels.txt").write_text("open\nshort\n")
    assert read_boxes(sample, (4, 6))[1] == ("open", "short", "3")
    assert read_boxes(sample, (4, 6), ("cut",))[1] == ("cut", "2", "3")


def test_a_defect_whose_box_file_is_missing_is_named(tmp_path: Path) -> None:
    boxed_dataset(tmp_path)
    (tmp_path / "boxes/defect/c.txt").unlink()
    with pytest.raises(DataError, match=r"c\.png: its boxes are missing; expected .*boxes/defect/c\.txt"):
        read_dataset(tmp_path, "pcb")


def test_a_class_without_a_folder_of_boxes_has_none(tmp_path: Path) -> None:
    boxed_dataset(tmp_path)
    (tmp_path / "boxes/defect").rename(tmp_path / "boxes/other")
    sample = read_dataset(tmp_path, "pcb").train[0]
    assert sample.boxes is None
    with pytest.raises(DataError, match=r"train/defect/b\.png: this data set has no boxes for it"):
        read_boxes(sample, (4, 6))


@pytest.mark.parametrize(
    "line", ["1 1 2 2", "1 1 2 2 a b", "1 1 1 2 a", "1 3 2 2 a", "-1 1 2 2 a", "1 1 7 2 a", "1 1 nan 2 a", "x 1 2 2 a"]
)
def test_a_line_that_is_no_box_of_the_picture_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    sample = boxed_dataset(tmp_path, f"0 0 1 1 ok\n{line}\n").train[0]
    with pytest.raises(DataError, match=r"b\.txt, line 2: .* is no box; expected x1 y1 x2 y2 type"):
        read_boxes(sample, (4, 6))


# --- In the report ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old() -> Inspector:
    """As released before there were thresholds of pixels."""
    return tiny_inspector(tiny_detectors(), EmissionsMeter("FRA", cpu_power_w=10))


@pytest.fixture(scope="module")
def inspector(old: Inspector) -> Inspector:
    """Its members as they come, but for a threshold of pixels: just above the largest of 20 good pictures."""
    members = []
    for member in old.members.values():
        heatmaps = member.detector.predict(good_images(20, seed=1)).heatmaps
        pixel = None
        if heatmaps is not None:
            highest = float(heatmaps.max())
            pixel = PixelThreshold(value=highest + 1e-3 * abs(highest), source="good", images=20)
        calibration = member.calibration.model_copy(update={"pixel": pixel})
        members.append(dataclasses.replace(member, calibration=calibration))
    return Inspector(old.file, members, source="memory", revision="main", commit="0" * 40, meter=old.meter)


def inspected(inspector: Inspector, image: torch.Tensor) -> dict[str, tuple[BoxRow, ...]]:
    report = inspector.inspect(as_picture(image[0]), "any").report
    return {vote.member: vote.boxes for vote in report.votes}


def test_the_boxes_of_a_heatmap_are_where_the_defect_is_and_good_parts_have_none(inspector: Inspector) -> None:
    good = good_images(20, seed=1)[:1]  # one of those the threshold was set on
    assert set(inspected(inspector, good).values()) == {()}
    found = inspected(inspector, corrupted(good))
    assert found["mahalanobis_global"] == ()  # it draws no heatmap
    for name in ("mahalanobis", "patch_knn"):
        box, quarter = found[name][0], (SIDE / 4, SIDE / 2)
        assert box.label == DEFECT
        assert box.score >= inspector.members[name].calibration.pixel.value  # type: ignore[union-attr]
        assert box.x0 < quarter[1]
        assert box.x1 > quarter[0]
        assert box.y0 < quarter[1]
        assert box.y1 > quarter[0]


def test_without_a_threshold_of_pixels_as_in_older_releases_there_are_no_boxes(old: Inspector) -> None:
    assert set(inspected(old, corrupted(good_images(1))).values()) == {()}


def test_an_inspector_released_before_there_were_boxes_still_loads_with_the_usual_settings(
    inspector: Inspector,
) -> None:
    fields = json.loads(inspector.file.model_dump_json())
    del fields["boxes"]
    assert InspectorFile.model_validate(fields).boxes == BoxSettings()


def test_the_inspector_decides_how_many_boxes_a_heatmap_may_have(inspector: Inspector) -> None:
    file = inspector.file.model_copy(update={"boxes": BoxSettings(most=0)})
    members = list(inspector.members.values())
    none = Inspector(file, members, source="memory", revision="main", commit="0" * 40, meter=inspector.meter)
    assert inspected(none, corrupted(good_images(1)))["mahalanobis"] == ()


def test_the_report_as_json_has_the_boxes_of_every_member(inspector: Inspector) -> None:
    """This is what the API, the command line and the download give."""
    report = inspector.inspect(as_picture(corrupted(good_images(1))[0]), "any").report
    read = {vote["member"]: vote["boxes"] for vote in json.loads(report.model_dump_json())["votes"]}
    assert read["mahalanobis_global"] == []
    assert set(read["mahalanobis"][0]) == {"x0", "y0", "x1", "y1", "score", "label"}
    assert Report.model_validate_json(report.model_dump_json()) == report


def release(folder: Path, member: Member) -> Path:
    """An inspector of this one member, in the Hub's cache layout."""
    work = folder / "work"
    calibrations = CalibrationFile(categories={"waves": member.calibration})
    save_detector(work, member.detector, calibrations)
    commit = registry.store(work, folder, "test/waves-localiser", files=MODEL_FILES, tag="v1")
    digest = hashlib.sha256((work / "model.safetensors").read_bytes()).hexdigest()
    ref = MemberRef(name="localiser", repo="test/waves-localiser", commit=commit, sha256=digest)
    rule = Rule(kind="any", members=("localiser",), threshold="far")
    policy = Policy(name="any", description={"en": "any", "fr": "any"}, rule=rule)
    file = InspectorFile(category="waves", labels=CLASSES, members=(ref,), policies=(policy,), default_policy="any")
    (work / INSPECTOR_FILE).write_text(file.model_dump_json())
    registry.store(work, folder, "test/waves-inspector", files=[INSPECTOR_FILE], tag="v1")
    return folder


def test_the_api_gives_the_boxes_of_a_trained_localiser_with_their_labels(
    tmp_path: Path, inspector: Inspector, start_app: Callable[[Settings], RunningApp]
) -> None:
    member = inspector.members["localiser"]
    image = corrupted(good_images(1))
    boxes = member.detector.predict(image).boxes
    assert boxes is not None
    middle = float(boxes[0].scores.median())
    pixel = PixelThreshold(value=middle, source="good", images=20)  # it is not trained: let half of its boxes show
    calibration = member.calibration.model_copy(update={"pixel": pixel})
    stored = dataclasses.replace(member, detector=tiny_detectors()["localiser"], calibration=calibration)
    folder = release(tmp_path / "released", stored)
    app = start_app(Settings(inspectors=(str(folder),)))
    Image.fromarray(as_picture(image[0])).save(tmp_path / "part.png")
    report, _ = Client(app.url, verbose=False).predict(handle_file(tmp_path / "part.png"), api_name="/inspect")
    (vote,) = report["votes"]
    shown = [i for i, score in enumerate(boxes[0].scores.tolist()) if score >= middle]
    assert 0 < len(shown) < len(boxes[0].labels)
    overlaps = box_iou(boxes[0].xyxy[shown], boxes[0].xyxy[shown]) > 0.5
    told: list[int] = []  # of boxes that mark one place the strongest, whatever type each says
    for place in range(len(shown)):
        if not overlaps[place, told].any():
            told.append(place)
    assert 0 < len(told) < len(shown)
    shown = [shown[place] for place in told]
    assert [row["label"] for row in vote["boxes"]] == [boxes[0].labels[i] for i in shown]
    assert [[row["x0"], row["y0"], row["x1"], row["y1"]] for row in vote["boxes"]] == boxes[0].xyxy[shown].tolist()


# --- On the page -----------------------------------------------------------------------------------------------------

BOX = BoxRow(x0=100, y0=60, x1=140, y1=90, score=4.0, label=DEFECT)
GREY = np.full((200, 300, 3), 100, np.uint8)


def one_calibration() -> Calibration:
    cut = Threshold(value=5.0, false_alarms=0, good=5, missed=0, defects=0, level=0.2)
    scale = HeatmapScale(low=0, high=1, images=5)
    return Calibration(split_hash="0", good_scores=(0.0,) * 5, thresholds={"far": cut}, heatmap=scale)


def test_a_box_is_drawn_around_its_place_and_the_place_itself_stays_to_be_seen() -> None:
    changed = (framed(GREY, [BOX]) != GREY).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert not changed[60:90, 100:140].any()
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (98, 58, 141, 91)


def test_a_type_is_written_beside_the_box_and_inside_the_picture() -> None:
    for y0, rows in ((60, slice(0, 57)), (2, slice(34, 200))):  # above, or below where there is no room
        low = BOX.model_copy(update={"y0": y0, "y1": 30 if y0 == 2 else 90, "label": "short"})
        written = (framed(GREY, [low]) != GREY).any(axis=2)
        assert written[rows].any()


def test_without_boxes_the_picture_is_left_as_it_is() -> None:
    assert framed(GREY, []) is GREY


def test_a_member_s_view_shows_its_boxes_at_the_size_shown_and_no_other_view_does() -> None:
    large = np.full((1600, 2400, 3), 100, np.uint8)
    calm = np.zeros((1600, 2400), np.float32)
    box = BOX.model_copy(update={"x0": 800.0, "y0": 480.0, "x1": 1120.0, "y1": 720.0})
    votes = (make_vote("a", score=9.0, boxes=(box,)), make_vote("b", score=1.0))
    report = make_report(votes=votes, image_width=2400, image_height=1600)
    calibrations = {name: one_calibration() for name in ("a", "b")}
    shown = exhibit(report, large, {"a": calm, "b": calm}, calibrations)
    assert shown.picture.shape == (683, 1024, 3)
    rows, columns = np.nonzero((draw(shown, "a", 0.7) != shown.picture).any(axis=2))
    assert np.allclose((columns.min(), rows.min(), columns.max(), rows.max()), (341, 205, 478, 307), atol=6)
    for view in ("b", ALL, NONE):
        assert np.array_equal(draw(shown, view, 0.7), overlay(shown.picture, shown.heatmaps["b"], _scale(), 0.7))


def _scale() -> HeatmapScale:
    scale = one_calibration().heatmap
    assert scale is not None
    return scale


def test_the_table_of_votes_counts_the_places_and_the_types() -> None:
    typed = [BOX.model_copy(update={"label": label}) for label in ("short", "open", "short")]
    votes = (make_vote("a", score=9.0, boxes=(BOX, BOX)), make_vote("b", score=9.0, boxes=tuple(typed)))
    html = panels.votes_html(make_report(votes=votes), {"a": one_calibration(), "b": one_calibration()}, "en")
    assert "places marked: 2" in html
    assert "short × 2" in html
    assert "open × 1" in html


def test_the_name_of_a_type_is_escaped() -> None:
    box = BOX.model_copy(update={"label": "<script>"})
    html = panels.votes_html(
        make_report(votes=(make_vote("a", score=9.0, boxes=(box,)),)), {"a": one_calibration()}, "en"
    )
    assert "<script" not in html
    assert "&lt;script&gt; × 1" in html
