"""The YOLO export: boxes survive the way there and back, and the split is the one everything else is trained on."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_localiser import marked_pictures
from trained import args_for

from anomaly.datasets import GOOD, Sample
from anomaly.errors import DataError
from training import export_yolo, train_all
from training.box_data import Truth, truth
from training.data import split_data
from training.export_yolo import FOLDERS, Args, yolo_lines, yolo_name


def read_label(path: Path, size: tuple[int, int]) -> list[tuple[int, list[float]]]:
    """What a YOLO trainer reads: (class, x1 y1 x2 y2 in pixels)."""
    rows = []
    for line in path.read_text().splitlines():
        number, *shares = line.split()
        x, y, width, height = (float(share) for share in shares)
        corners = [(x - width / 2) * size[1], (y - height / 2) * size[0], (x + width / 2) * size[1]]
        rows.append((int(number), [*corners, (y + height / 2) * size[0]]))
    return rows


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("boards")
    marked_pictures(root, 24, good=50)
    return root


@pytest.fixture
def args(training_args: train_all.Args, boards: Path, tmp_path: Path) -> Args:
    given = dataclasses.replace(training_args, data=boards, category="boards", protocol="supervised")
    made: Args = args_for(Args, given, tmp_path / "yolo", box_labels=("red", "true"))
    return made


def test_every_box_of_every_picture_survives_the_way_there_and_back(args: Args) -> None:
    export_yolo.main(args)
    split = split_data(args)
    names = ["red", "true"]
    boxes = 0
    for part, folder in FOLDERS.items():
        samples = split.samples(part)
        assert samples
        assert len(list((args.out / "images" / folder).iterdir())) == len(samples)
        for sample in samples:
            written = read_label(args.out / "labels" / folder / f"{yolo_name(sample)}.txt", (64, 64))
            expected = truth(sample, args.box_labels)
            assert [names[number] for number, _ in written] == list(expected.labels)
            assert np.allclose([box for _, box in written], expected.xyxy.reshape(-1, 4).tolist(), atol=1e-3)
            image = args.out / "images" / folder / f"{yolo_name(sample)}.png"
            assert image.read_bytes() == sample.path.read_bytes()
            assert bool(written) == (sample.label != GOOD)
            boxes += len(written)
    assert boxes >= 24


def test_the_yaml_names_the_classes_and_every_part_but_the_calibration(args: Args) -> None:
    export_yolo.main(args)
    lines = (args.out / "data.yaml").read_text().splitlines()
    assert lines == [
        'train: "images/train"',
        'val: "images/val"',
        'test: "images/test"',
        "names:",
        '  0: "red"',
        '  1: "true"',  # quoted: YAML would read a truth value
    ]
    manifest = json.loads((args.out / "manifest_boards.json").read_text())
    assert manifest == json.loads(split_data(args).manifest("boards").model_dump_json())


def test_the_boxes_of_masks_are_exported_under_the_label_of_their_folder(
    training_args: train_all.Args, tmp_path: Path
) -> None:
    args = args_for(Args, training_args, tmp_path / "yolo")  # test defects of the cables have masks
    export_yolo.main(args)
    marked = [sample for sample in split_data(args).defects("test") if sample.mask]
    assert marked
    for sample in marked:
        written = read_label(args.out / f"labels/test/{yolo_name(sample)}.txt", (64, 64))
        assert np.allclose([box for _, box in written], truth(sample).xyxy.tolist(), atol=1e-3)


def test_centre_and_sides_are_shares_of_width_and_height() -> None:
    marks = Truth(np.array([[10, 20, 30, 60]], np.float32), ("a",), (100, 200))
    assert yolo_lines(marks, ["b", "a"]) == ["1 0.100000 0.400000 0.100000 0.400000"]


def test_pictures_of_one_stem_in_two_classes_stay_apart() -> None:
    names = [yolo_name(Sample(Path("a"), f"test/{label}/000.png", label, "test", None)) for label in ("bent", "cut")]
    assert names == ["test_bent_000", "test_cut_000"]


def test_an_export_is_not_mixed_with_another(args: Args) -> None:
    args.out.mkdir()
    Image.new("L", (4, 4)).save(args.out / "old.png")
    with pytest.raises(DataError, match=r"is not empty: give another --out"):
        export_yolo.main(args)
