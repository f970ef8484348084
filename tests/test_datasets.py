"""Which folders are understood as a data set, what comes out of them, and how the others are refused."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.datasets import Sample, read_dataset, read_mask
from anomaly.errors import DataError

SIZE = (4, 6)  # (H, W)
CSV_HEAD = "object,split,label,image,mask\n"


def add(root: Path, *names: str) -> None:
    """Write small real pictures at these paths."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (SIZE[1], SIZE[0]), len(name)).save(path)


def folder_layout(root: Path) -> Path:
    add(root, "train/good/b.png", "train/good/a.png", "test/good/0.png", "test/scratch/0.png", "test/bent/0.png")
    return root


def mvtec_layout(root: Path) -> Path:
    add(folder_layout(root), "ground_truth/scratch/0_mask.png", "ground_truth/bent/0.png")
    return root


def visa_layout(root: Path, rows: str | None = None) -> Path:
    images = "pcb4/Data/Images"
    add(root, f"{images}/Normal/0.JPG", f"{images}/Normal/1.JPG", f"{images}/Anomaly/0.JPG", "pcb4/Data/Masks/0.png")
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir()
    table.write_text(
        rows
        or CSV_HEAD
        + f"pcb4,train,normal,{images}/Normal/0.JPG,\n"
        + f"pcb4,test,normal,{images}/Normal/1.JPG,\n"
        + f"pcb4,test,anomaly,{images}/Anomaly/0.JPG,pcb4/Data/Masks/0.png\n"
        + "candle,train,normal,candle/not/here.JPG,\n"
    )
    return root


# --- What is read ---------------------------------------------------------------------------------------------------


def test_class_folders_become_sorted_samples(tmp_path: Path) -> None:
    dataset = read_dataset(folder_layout(tmp_path), "cable")
    assert (dataset.layout, dataset.category, dataset.root) == ("folder", "cable", tmp_path)
    assert [s.relative for s in dataset.samples] == [
        "test/bent/0.png",
        "test/good/0.png",
        "test/scratch/0.png",
        "train/good/a.png",
        "train/good/b.png",
    ]
    assert [s.path for s in dataset.samples] == [tmp_path / s.relative for s in dataset.samples]
    assert [(s.label, s.is_defect) for s in dataset.test] == [("bent", True), ("good", False), ("scratch", True)]
    assert [s.split for s in dataset.train] == ["train", "train"]
    assert dataset.labels == ("good", "bent", "scratch")
    assert all(sample.mask is None for sample in dataset.samples)


def test_the_category_may_be_a_subfolder_and_the_keys_stay_the_same(tmp_path: Path) -> None:
    folder_layout(tmp_path / "cable")
    from_root, from_inside = read_dataset(tmp_path, "cable"), read_dataset(tmp_path / "cable", "cable")
    assert from_root == from_inside


@pytest.mark.parametrize("name", ["good", "OK", "Normal", "GOOD", "ok"])
def test_good_has_three_names_in_any_case(tmp_path: Path, name: str) -> None:
    add(tmp_path, f"train/{name}/a.png", "test/broken/a.png")
    dataset = read_dataset(tmp_path, "cable")
    assert dataset.labels == ("good", "broken")
    assert dataset.train[0].relative == f"train/{name}/a.png"


def test_labels_other_than_good_keep_their_case_and_good_comes_first(tmp_path: Path) -> None:
    add(tmp_path, "train/ok/a.png", "train/Zap/a.png", "train/abrasion/a.png")
    assert read_dataset(tmp_path, "cable").labels == ("good", "Zap", "abrasion")


def test_every_usual_image_type_is_read_and_other_files_are_passed_over(tmp_path: Path) -> None:
    wanted = ["a.png", "b.JPG", "c.jpeg", "d.bmp", "e.tif", "f.TIFF", "g.webp"]
    add(tmp_path, *(f"train/good/{name}" for name in wanted), "train/good/._a.png", "train/.trash/x.png")
    add(tmp_path, "train/good/.thumbnails/a.png", "validation/good/a.png")
    (tmp_path / "train/good/notes.txt").write_text("no picture")
    (tmp_path / "train/good/folder.png").mkdir()
    assert [s.path.name for s in read_dataset(tmp_path, "cable").samples] == wanted


def test_pictures_may_lie_in_folders_below_their_class(tmp_path: Path) -> None:
    mvtec_layout(tmp_path)
    add(tmp_path, "test/bent/board7/0.png", "ground_truth/bent/board7/0_mask.png")
    sample = next(s for s in read_dataset(tmp_path, "cable").test if "board7" in s.relative)
    assert (sample.label, sample.mask) == ("bent", tmp_path / "ground_truth/bent/board7/0_mask.png")


@pytest.mark.parametrize("only", ["train", "test"])
def test_a_data_set_may_have_only_train_or_only_test(tmp_path: Path, only: str) -> None:
    add(tmp_path, f"{only}/good/a.png")
    dataset = read_dataset(tmp_path, "cable")
    assert (len(dataset.train), len(dataset.test)) == ((1, 0) if only == "train" else (0, 1))


def test_mvtec_masks_are_found_by_stem_with_and_without_suffix(tmp_path: Path) -> None:
    dataset = read_dataset(mvtec_layout(tmp_path), "cable")
    assert dataset.layout == "mvtec"
    assert {s.relative: s.mask for s in dataset.test} == {
        "test/bent/0.png": tmp_path / "ground_truth/bent/0.png",
        "test/good/0.png": None,
        "test/scratch/0.png": tmp_path / "ground_truth/scratch/0_mask.png",
    }


def test_the_folder_layout_leaves_ground_truth_aside_when_asked_to(tmp_path: Path) -> None:
    dataset = read_dataset(mvtec_layout(tmp_path), "cable", layout="folder")
    assert all(sample.mask is None for sample in dataset.samples)


def test_labelled_train_defects_may_have_masks_or_none(tmp_path: Path) -> None:
    add(mvtec_layout(tmp_path), "train/bent/1.png", "train/scratch/1.png", "ground_truth_train/bent/1_mask.png")
    masks = {s.relative: s.mask for s in read_dataset(tmp_path, "cable").train if s.is_defect}
    assert masks == {
        "train/bent/1.png": tmp_path / "ground_truth_train/bent/1_mask.png",
        "train/scratch/1.png": None,
    }
    add(tmp_path, "train/bent/2.png")
    assert {s.relative: s.mask for s in read_dataset(tmp_path, "cable").train if s.is_defect} == {
        **masks,
        "train/bent/2.png": None,
    }


def test_a_train_mask_that_is_nobodys_is_named(tmp_path: Path) -> None:
    add(mvtec_layout(tmp_path), "train/bent/1.png", "ground_truth_train/bent/2_mask.png")
    with pytest.raises(DataError, match=r"2_mask\.png: no picture of .*bent has this mask"):
        read_dataset(tmp_path, "cable")


def test_visa_is_read_from_its_csv_for_one_object(tmp_path: Path) -> None:
    dataset = read_dataset(visa_layout(tmp_path), "pcb4")
    assert (dataset.layout, dataset.labels) == ("visa", ("good", "anomaly"))
    assert [(s.relative, s.label, s.split, s.mask) for s in dataset.samples] == [
        ("pcb4/Data/Images/Anomaly/0.JPG", "anomaly", "test", tmp_path / "pcb4/Data/Masks/0.png"),
        ("pcb4/Data/Images/Normal/0.JPG", "good", "train", None),
        ("pcb4/Data/Images/Normal/1.JPG", "good", "test", None),
    ]


# --- Masks ----------------------------------------------------------------------------------------------------------


def masked(path: Path) -> Sample:
    return Sample(path=path, relative="test/bent/0.png", label="bent", split="test", mask=path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_any_value_above_zero_is_defect_in_every_kind_of_mask(tmp_path: Path, mode: str) -> None:
    expected = np.zeros(SIZE, dtype=bool)
    expected[1:3, 4] = True
    levels = expected.astype(np.uint8) * 3  # VisA numbers its defects 1, 2, 3 …
    image = Image.fromarray(levels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(levels)
    if mode == "1":
        image = Image.fromarray(levels * 85).convert("1")
    elif mode != "I;16":
        image = image.convert(mode)  # RGBA and LA are opaque everywhere: opacity marks nothing
    assert image.mode == mode
    image.save(tmp_path / "0_mask.png")
    mask = read_mask(masked(tmp_path / "0_mask.png"), SIZE)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, expected)


def test_a_palette_marks_by_colour_not_by_index(tmp_path: Path) -> None:
    image = Image.new("P", (SIZE[1], SIZE[0]), 1)
    image.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white, index 1 black
    image.putpixel((2, 3), 0)
    image.save(tmp_path / "0_mask.png")
    assert np.argwhere(read_mask(masked(tmp_path / "0_mask.png"), SIZE)).tolist() == [[3, 2]]


def test_a_good_part_has_an_empty_mask(tmp_path: Path) -> None:
    good = replace(masked(tmp_path / "absent.png"), label="good", mask=None)
    mask = read_mask(good, SIZE)
    assert mask.shape == SIZE
    assert not mask.any()


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    add(tmp_path, "0_mask.png")
    with pytest.raises(DataError, match=r"0_mask.png: the mask is \(4, 6\) .* \(6, 4\)"):
        read_mask(masked(tmp_path / "0_mask.png"), (6, 4))


def test_a_truncated_mask_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "0_mask.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"0_mask\.png: the mask cannot be read"):
        read_mask(masked(path), (64, 64))


def test_a_defect_without_mask_is_refused_rather_than_read_as_good(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test/bent/0.png: this data set has no mask"):
        read_mask(replace(masked(tmp_path), mask=None), SIZE)


# --- What is refused ------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_dataset(tmp_path / "nowhere", "cable")


def test_an_unknown_category_names_the_known_ones(tmp_path: Path) -> None:
    folder_layout(tmp_path / "cable")
    folder_layout(tmp_path / "pcb")
    (tmp_path / "scripts").mkdir()
    with pytest.raises(DataError, match=r"unknown category 'cabel'; .* has \['cable', 'pcb'\]"):
        read_dataset(tmp_path, "cabel")
    with pytest.raises(DataError, match=r"unknown category 'pcb3'; .* has \['candle', 'pcb4'\]"):
        read_dataset(visa_layout(tmp_path / "visa"), "pcb3")


def test_a_folder_without_train_and_test_says_what_it_has_instead(tmp_path: Path) -> None:
    add(tmp_path, "cable/training/good/a.png")
    with pytest.raises(DataError, match=r"cable: neither train nor test found; expected .* found \['training'\]"):
        read_dataset(tmp_path, "cable")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no folder at all"):
        read_dataset(tmp_path / "empty", "cable")


def test_no_good_picture_is_an_error_that_names_the_classes_found(tmp_path: Path) -> None:
    add(tmp_path, "train/fine/a.png", "test/broken/a.png")
    with pytest.raises(DataError, match=r"none of 2 pictures is good; .* found \['broken', 'fine'\]"):
        read_dataset(tmp_path, "cable")


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    folder_layout(tmp_path)
    (tmp_path / "test" / "crack").mkdir()
    (tmp_path / "test" / "crack" / "readme.md").write_text("soon")
    with pytest.raises(DataError, match="crack: no picture in this class folder"):
        read_dataset(tmp_path, "cable")


def test_pictures_outside_a_class_folder_are_not_dropped_in_silence(tmp_path: Path) -> None:
    add(folder_layout(tmp_path), "train/stray.png")
    with pytest.raises(DataError, match=r"1 pictures lie outside any class folder, such as stray.png"):
        read_dataset(tmp_path, "cable")


def test_a_split_without_any_class_folder_is_refused(tmp_path: Path) -> None:
    (folder_layout(tmp_path / "a") / "b" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="train: no class folder"):
        read_dataset(tmp_path / "a" / "b", "cable")


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    add(mvtec_layout(tmp_path), "test/scratch/7.png")
    with pytest.raises(DataError, match=r"scratch/7.png: its mask is missing; expected .*scratch/7_mask.png"):
        read_dataset(tmp_path, "cable")


def test_the_mvtec_layout_needs_masks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0_mask\.png"):
        read_dataset(folder_layout(tmp_path), "cable", layout="mvtec")


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"unknown layout 'coco'; expected one of \['auto', 'folder', 'mvtec', 'visa'\]"
    ):
        read_dataset(folder_layout(tmp_path), "cable", layout="coco")  # type: ignore[arg-type]


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    add(tmp_path, "train/good/a.png")
    try:
        os.rename(tmp_path / "train/good/a.png", os.fsencode(tmp_path) + b"/train/good/Pr\xfcfung.png")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with pytest.raises(DataError, match=r"Pr.udcfcfung.png': the name is not valid UTF-8"):
        read_dataset(tmp_path, "cable")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("object,split,label,image\npcb4,train,normal,x.png\n", r"columns \['mask'\] are missing"),
        ("", "are missing"),
        (CSV_HEAD + "pcb4,train,normal,pcb4/absent.JPG,\n", "line 2: the image .*absent.JPG is missing"),
        (CSV_HEAD + "pcb4,train\n", "line 2: split 'train', label None"),
        (CSV_HEAD + "pcb4,val,normal,a.png,\n", "split 'val'"),
        (CSV_HEAD + "pcb4,test,broken,a.png,\n", r"label 'broken'; expected .* \['normal', 'anomaly'\]"),
        (CSV_HEAD + "pcb4,train,normal,../a.png,\n", "no path below"),
        (CSV_HEAD + "pcb4,train,normal,/etc/a.png,\n", "no path below"),
        (CSV_HEAD + "pcb4,train,normal,pcb4/Data/Images/Normal/0.JPG,\n" * 2, "line 3: .* listed twice"),
        (
            CSV_HEAD
            + "pcb4,test,anomaly,pcb4/Data/Images/Anomaly/0.JPG,pcb4/Data/Masks/0.png\n"
            + "pcb4,test,anomaly,pcb4/Data/Images/Normal/0.JPG,\n",
            "line 3: mask '' is no path",
        ),
        (CSV_HEAD + 'pcb4,train,"normal\n', "cannot be read as CSV"),
    ],
)
def test_a_faulty_visa_csv_is_refused_with_the_line_at_fault(tmp_path: Path, rows: str, message: str) -> None:
    visa_layout(tmp_path, rows or "\n")
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path, "pcb4")


def test_a_csv_that_is_absent_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1cls.csv: cannot be read as CSV"):
        read_dataset(folder_layout(tmp_path / "a"), "cable", layout="visa")
    visa_layout(tmp_path / "b")
    (tmp_path / "b" / "split_csv" / "1cls.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match=r"1cls.csv: cannot be read as CSV"):
        read_dataset(tmp_path / "b", "pcb4")


def test_a_csv_saved_by_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    table = visa_layout(tmp_path) / "split_csv" / "1cls.csv"
    table.write_text(table.read_text(), encoding="utf-8-sig")
    assert len(read_dataset(tmp_path, "pcb4").samples) == 3


# --- Real data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout", "train", "test", "masks"),
    [
        ("mvtec_transistor", "mvtec", 213, 100, 40),
        ("casting", "folder", 1000, 346, 0),
        ("deeppcb", "folder", 150, 200, 0),
    ],
)
def test_the_real_sets_have_the_counts_their_readme_names(
    name: str, layout: str, train: int, test: int, masks: int
) -> None:
    root = Path(os.environ.get("VIGIE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"{root / name} is absent; set VIGIE_DATA to the folder of real images")
    dataset = read_dataset(root, name)
    assert dataset.layout == layout
    assert (len(dataset.train), len(dataset.test)) == (train, test)
    found = [s for s in dataset.samples if s.mask is not None]
    assert len(found) == masks
    for sample in found[::10]:
        with Image.open(sample.path) as image:
            mask = read_mask(sample, (image.height, image.width))
        assert 0 < mask.mean() < 0.9
