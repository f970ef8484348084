"""How a data set is divided: nothing leaks, calibration gets what it needs, and the same input gives the same hash."""

import math
import os
import random
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from anomaly.datasets import Dataset, read_dataset
from anomaly.errors import CalibrationError, DataError
from training.manifest import Manifest, counts, verify_disjoint
from training.splits import make_manifest


def write(root: Path, folder: str, names: list[str], first: int) -> None:
    """Write one-pixel pictures, each with its own colour `first`, `first` + 1 …, so that no two files are equal."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for colour, name in enumerate(names, start=first):
        Image.new("RGB", (1, 1), (colour >> 16, colour >> 8 & 255, colour & 255)).save(root / folder / name)


def numbered(n: int) -> list[str]:
    return [f"{i:03}.png" for i in range(n)]


def data(root: Path, good: int = 100, defects: dict[str, int] | None = None, test: int = 10) -> Dataset:
    """A data set on disk: `test` good and as many bent test pictures, all files different."""
    write(root, "train/good", numbered(good), first=0)
    for i, (label, n) in enumerate((defects or {}).items(), start=1):
        write(root, f"train/{label}", numbered(n), first=10_000 * i)
    if test:
        write(root, "test/good", numbered(test), first=1_000_000)
        write(root, "test/bent", numbered(test), first=2_000_000)
    return read_dataset(root, "cable")


def boards(root: Path, seed: int) -> Dataset:
    """Boards of 1 to 9 pictures, now and then with defects on them and with a picture repeated byte by byte."""
    rng = random.Random(seed)
    for board in range(40):
        colour = 10 * board
        size = rng.randint(1, 9)
        names = [f"board{board}_{i}.png" for i in range(size)]
        folder = "test" if board % 5 == 0 else "train"
        write(root, f"{folder}/good", names, colour)
        if rng.random() < 0.3:
            write(
                root, f"{folder}/bent", [f"board{board}_x{i}.png" for i in range(rng.randint(1, 3))], colour + 500_000
            )
    for copy in range(6):  # of a train picture, in train under another name, which links two boards
        source = rng.choice(sorted((root / "train/good").iterdir()))
        (root / "train/good" / f"board{rng.choice([1, 2, 3])}_copy{copy}.png").write_bytes(source.read_bytes())
    source = rng.choice(sorted((root / "test/good").iterdir()))
    (root / "train/good" / "board4_leak.png").write_bytes(source.read_bytes())
    return read_dataset(root, "cable")


def splits_of(manifest: Manifest, label: str = "good") -> dict[str, int]:
    return {split: by_label.get(label, 0) for split, by_label in counts(manifest).items()}


# --- Shares ---------------------------------------------------------------------------------------------------------


def test_the_shares_hold_label_by_label(tmp_path: Path) -> None:
    dataset = data(tmp_path, good=100, defects={"bent": 20, "cut": 10})
    assert counts(make_manifest(dataset)) == {
        "train": {"good": 70, "bent": 14, "cut": 7},
        "validate": {"good": 10, "bent": 2, "cut": 1},
        "calibrate": {"good": 20, "bent": 4, "cut": 2},
        "test": {"good": 10, "bent": 10},
    }


def test_the_test_part_stays_the_test_part(tmp_path: Path) -> None:
    dataset = data(tmp_path)
    manifest = make_manifest(dataset)
    assert {e.path for e in manifest.entries if e.split == "test"} == {s.relative for s in dataset.test}
    assert {e.path for e in manifest.entries} == {s.relative for s in dataset.samples}


@pytest.mark.parametrize("good", [38, 39, 50, 60, 94, 95, 200])
def test_small_sets_hold_out_more_so_that_the_level_can_be_reached(tmp_path: Path, good: int) -> None:
    # far .05 needs 19: 1/20 <= .05. A fifth gives 19 only from 95 pictures on (round(.2 * 95) = 19).
    held = splits_of(make_manifest(data(tmp_path, good, test=0), far=0.05))["calibrate"]
    assert held == max(19, round(0.2 * good))
    assert held <= good / 2


@pytest.mark.parametrize(("far", "needed"), [(0.5, 1), (0.34, 2), (0.1, 9), (0.05, 19), (1 / 49, 48), (0.02, 49)])
def test_calibration_gets_the_fewest_pictures_that_reach_the_level(tmp_path: Path, far: float, needed: int) -> None:
    assert 1 / (needed + 1) <= far < 1 / needed
    dataset = data(tmp_path, good=2 * needed, test=0)
    assert splits_of(make_manifest(dataset, calibrate_share=0.0, far=far))["calibrate"] == needed


def test_too_few_good_pictures_name_the_counts_and_both_ways_out(tmp_path: Path) -> None:
    dataset = data(tmp_path, good=37)
    with pytest.raises(CalibrationError, match=r"18 of 37 good .* far=0.05 needs 19: .* 0.0527 or more, or 38 good"):
        make_manifest(dataset, far=0.05)
    assert splits_of(make_manifest(dataset, far=0.0527))["calibrate"] == 18  # the way out it names does lead out


def test_a_single_good_picture_is_too_few_for_any_level(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"0 of 1 good .* allow 2 good train pictures or more"):
        make_manifest(data(tmp_path, good=1), far=0.5)


@pytest.mark.parametrize("n", [4, 5, 6, 7, 12])
def test_from_four_labelled_defects_on_each_split_has_one(tmp_path: Path, n: int) -> None:
    dataset = data(tmp_path, defects={"bent": n})
    for seed in range(10):
        split = splits_of(make_manifest(dataset, seed), "bent")
        assert split["calibrate"] >= 1
        assert split["validate"] >= 1
        assert split["train"] >= 2
        assert split["train"] + split["validate"] + split["calibrate"] == n


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_labelled_defects_stay_mostly_in_train(tmp_path: Path, n: int) -> None:
    assert splits_of(make_manifest(data(tmp_path, defects={"bent": n})), "bent")["train"] >= math.ceil(n / 2)


def test_a_share_of_nothing_is_nothing(tmp_path: Path) -> None:
    dataset = data(tmp_path, defects={"bent": 20})
    split = counts(make_manifest(dataset, validate_share=0.0, calibrate_share=0.0, far=0.1))
    assert split["validate"] == {}
    assert split["calibrate"] == {"good": 9}  # what far asks for is not left to the share


def test_large_shares_are_kept(tmp_path: Path) -> None:
    manifest = make_manifest(data(tmp_path, good=100), calibrate_share=0.6, validate_share=0.3)
    assert splits_of(manifest) == {"train": 10, "validate": 30, "calibrate": 60, "test": 10}


def test_something_is_always_left_to_train_on(tmp_path: Path) -> None:
    manifest = make_manifest(
        data(tmp_path, good=4), calibrate_share=0.9, validate_share=0.05, far=0.5
    )  # round(.9 * 4) = 4
    assert splits_of(manifest)["train"] == 1


@pytest.mark.parametrize(("calibrate", "validate"), [(0.5, 0.5), (-0.1, 0.1), (0.2, 0.9), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path: Path, calibrate: float, validate: float) -> None:
    with pytest.raises(CalibrationError, match="sum to less than 1"):
        make_manifest(data(tmp_path, good=4), calibrate_share=calibrate, validate_share=validate)


@pytest.mark.parametrize("far", [0.0, 1.0, -1.0, float("nan")])
def test_a_level_out_of_range_is_refused(tmp_path: Path, far: float) -> None:
    with pytest.raises(CalibrationError, match="must lie between 0 and 1"):
        make_manifest(data(tmp_path, good=4), far=far)


def test_without_train_pictures_there_is_nothing_to_divide(tmp_path: Path) -> None:
    write(tmp_path, "test/good", numbered(3), first=0)
    with pytest.raises(DataError, match="no train pictures"):
        make_manifest(read_dataset(tmp_path, "cable"))


# --- Seed and hash --------------------------------------------------------------------------------------------------


def test_the_same_pictures_elsewhere_and_in_another_order_give_the_same_hash(tmp_path: Path) -> None:
    here = data(tmp_path / "a" / "cable", defects={"bent": 5})
    there = data(tmp_path / "b", defects={"bent": 5})
    shuffled = list(there.samples)
    random.Random(1).shuffle(shuffled)
    there = Dataset(root=there.root, category="cable", layout=there.layout, samples=tuple(shuffled))
    assert make_manifest(here) == make_manifest(there)
    assert make_manifest(here).split_hash == make_manifest(there).split_hash


def test_anything_that_differs_changes_the_hash(tmp_path: Path) -> None:
    dataset = data(tmp_path)
    hashes = {make_manifest(dataset, seed).split_hash for seed in range(5)}
    hashes.add(make_manifest(dataset, group_regex="train/good/(.*)").split_hash)
    hashes.add(make_manifest(dataset, calibrate_share=0.3).split_hash)
    hashes.add(make_manifest(Dataset(dataset.root, "pcb", dataset.layout, dataset.samples)).split_hash)
    write(tmp_path, "test/good", ["000.png"], first=5_000_000)  # one picture replaced under its old name
    hashes.add(make_manifest(dataset).split_hash)
    assert len(hashes) == 9


def test_a_manifest_survives_json_with_its_hash(tmp_path: Path) -> None:
    manifest = make_manifest(data(tmp_path, good=4), far=0.5)
    again = Manifest.model_validate_json(manifest.model_dump_json())
    assert again == manifest
    assert again.split_hash == manifest.split_hash
    with pytest.raises(ValidationError):
        Manifest.model_validate_json(manifest.model_dump_json().replace('"seed"', '"sede"'))


def test_the_hash_of_a_manifest_is_the_sha256_of_its_canonical_json() -> None:
    # sha256sum of {"category":"c","dropped":[],"entries":[],"format":1,"group_regex":null,"layout":"folder","seed":0}
    empty = Manifest(category="c", layout="folder", seed=0, group_regex=None, entries=(), dropped=())
    assert empty.split_hash == "367400e303dc6c4b4b1025ed8644ebf26da07d95db10bb81295dbedfc4bc8f8f"


def test_every_picture_is_held_out_under_some_seed(tmp_path: Path) -> None:
    dataset = data(tmp_path, good=40)
    held = [
        {e.path for e in make_manifest(dataset, seed, far=0.2).entries if e.split == "calibrate"} for seed in range(60)
    ]
    assert all(len(paths) == 8 for paths in held)
    assert len(set.union(*held)) == 40  # a picture is missed by all 60 draws of a fifth with probability .8**60 = 2e-6


# --- Groups and copies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_no_group_and_no_copy_is_ever_in_two_splits(tmp_path: Path, seed: int) -> None:
    dataset = boards(tmp_path, seed)
    for regex in (None, r"(board\d+)_"):
        for split_seed in range(3):
            manifest = make_manifest(dataset, split_seed, group_regex=regex, far=0.1)
            verify_disjoint(manifest)
            assert [d.path for d in manifest.dropped] == ["train/good/board4_leak.png"]
            listed = [e.path for e in manifest.entries] + [d.path for d in manifest.dropped]
            assert sorted(listed) == [s.relative for s in dataset.samples]
            good = splits_of(manifest)
            in_train = sum(good.values()) - good["test"]
            assert max(9, 0.15 * in_train) <= good["calibrate"] <= in_train / 2
            assert good["validate"] >= 1
            assert good["train"] >= in_train / 4
            if regex:
                assert all(e.group and e.group in e.path for e in manifest.entries)


def test_groups_are_linked_through_a_common_file(tmp_path: Path) -> None:
    write(tmp_path, "train/good", [f"board{b}_{i}.png" for b in range(20) for i in range(2)], first=0)
    for b in range(1, 4):  # boards 0-1, 1-2 and 2-3 share a file: all four belong together
        copied = (tmp_path / f"train/good/board{b - 1}_0.png").read_bytes()
        (tmp_path / f"train/good/board{b}_copy.png").write_bytes(copied)
    dataset = read_dataset(tmp_path, "cable")
    for seed in range(20):
        entries = make_manifest(dataset, seed, group_regex=r"(board\d+)_", far=0.1).entries
        assert len({e.split for e in entries if e.group in {"board0", "board1", "board2", "board3"}}) == 1


def test_a_train_picture_that_is_also_a_test_picture_is_dropped_and_listed(tmp_path: Path) -> None:
    data(tmp_path)
    (tmp_path / "train/good/leak.png").write_bytes((tmp_path / "test/good/003.png").read_bytes())
    manifest = make_manifest(read_dataset(tmp_path, "cable"))
    assert [(d.path, d.same_as) for d in manifest.dropped] == [("train/good/leak.png", "test/good/003.png")]
    assert "train/good/leak.png" not in {e.path for e in manifest.entries}
    assert splits_of(manifest) == {"train": 70, "validate": 10, "calibrate": 20, "test": 10}


def test_one_file_as_good_and_as_defect_is_refused_with_both_names(tmp_path: Path) -> None:
    data(tmp_path, defects={"bent": 4})
    (tmp_path / "train/bent/again.png").write_bytes((tmp_path / "train/good/003.png").read_bytes())
    with pytest.raises(DataError, match=r"train/bent/again.png \(bent\) and train/good/003.png \(good\) are the same"):
        make_manifest(read_dataset(tmp_path, "cable"))


def test_a_group_in_train_and_in_test_is_refused_with_its_name(tmp_path: Path) -> None:
    data(tmp_path)
    write(tmp_path, "train/good", ["board7_a.png"], first=3_000_000)
    write(tmp_path, "test/good", ["board7_b.png"], first=3_000_001)
    with pytest.raises(DataError, match=r"group board7 .*test \(test/good/board7_b.png\).*\(train/good/board7_a.png\)"):
        make_manifest(read_dataset(tmp_path, "cable"), group_regex=r"(board\d+)_")


def test_boards_with_good_and_bent_pictures_bring_a_defect_to_every_split(tmp_path: Path) -> None:
    write(tmp_path, "train/good", [f"board{b}_{i}.png" for b in range(20) for i in range(3)], first=0)
    write(tmp_path, "train/bent", [f"board{b}_x.png" for b in range(4)], first=1000)
    dataset = read_dataset(tmp_path, "cable")
    for seed in range(20):
        by_split = counts(make_manifest(dataset, seed, group_regex=r"(board\d+)_", far=0.1))
        assert all(by_split[split]["bent"] >= 1 for split in ("train", "validate", "calibrate"))


def test_large_groups_leave_most_to_train_on(tmp_path: Path) -> None:
    sizes = {"board0": 40, "board1": 35, "board2": 25}
    write(tmp_path, "train/good", [f"{board}_{i}.png" for board, n in sizes.items() for i in range(n)], first=0)
    dataset = read_dataset(tmp_path, "cable")
    for seed in range(20):
        good = splits_of(make_manifest(dataset, seed, group_regex=r"(board\d+)_", far=0.1))
        assert 9 <= good["calibrate"] <= 50
        assert good["validate"] <= good["train"]


def test_groups_too_large_to_hold_out_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train/good", [f"board0_{i}.png" for i in range(90)] + ["board1_0.png"], first=0)
    with pytest.raises(CalibrationError, match=r"1 of 91 good .* none of them in a group larger than 19"):
        make_manifest(read_dataset(tmp_path, "cable"), group_regex=r"(board\d+)_")


def test_a_picture_without_group_stands_alone(tmp_path: Path) -> None:
    data(tmp_path)
    write(tmp_path, "train/good", ["board7_a.png", "board7_b.png"], first=3_000_000)
    manifest = make_manifest(read_dataset(tmp_path, "cable"), group_regex=r"(board\d+)_")
    assert {e.group for e in manifest.entries} == {None, "board7"}
    assert splits_of(manifest)["calibrate"] in (20, 21)


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        ("board", "has 0 capture groups"),
        ("(a)(b)", "has 2 capture groups"),
        ("(", "is no regular expression"),
        ("(pcb)", "finds nothing in any path, such as test/bent/000.png"),
    ],
)
def test_a_group_regex_that_cannot_work_is_refused(tmp_path: Path, regex: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_manifest(data(tmp_path, good=4), group_regex=regex)


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    dataset = data(tmp_path)
    (tmp_path / "train/good/007.png").unlink()
    with pytest.raises(DataError, match=r"train/good/007.png: cannot be read"):
        make_manifest(dataset)


def tampered(manifest: Manifest, path: str, **changes: object) -> Manifest:
    entries = [e.model_copy(update=changes) if e.path == path else e for e in manifest.entries]
    assert entries != list(manifest.entries)
    return manifest.model_copy(update={"entries": tuple(entries)})


def test_a_manifest_with_a_leak_is_found_out(tmp_path: Path) -> None:
    manifest = make_manifest(data(tmp_path), group_regex=r"(train/good/00\d)")
    verify_disjoint(manifest)
    test = next(e for e in manifest.entries if e.split == "test")
    train = next(e for e in manifest.entries if e.split == "train")
    with pytest.raises(DataError, match=rf"file {test.sha256} is in test .* and in train"):
        verify_disjoint(tampered(manifest, train.path, sha256=test.sha256))
    with pytest.raises(DataError, match=r"group train/good/00\d is in test .* and in"):
        verify_disjoint(tampered(manifest, test.path, group=next(e.group for e in manifest.entries if e.group)))
    with pytest.raises(DataError, match=f"{test.path} is listed twice"):
        verify_disjoint(manifest.model_copy(update={"entries": (*manifest.entries, test)}))


# --- Real data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "defects"), [("mvtec_transistor", 213, 0), ("casting", 600, 400), ("deeppcb", 150, 0)]
)
def test_the_real_sets_can_be_divided(name: str, good: int, defects: int) -> None:
    root = Path(os.environ.get("VIGIE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"{root / name} is absent; set VIGIE_DATA to the folder of real images")
    manifest = make_manifest(read_dataset(root, name))
    verify_disjoint(manifest)
    by_split = counts(manifest)
    divided = [by_split[split] for split in ("train", "validate", "calibrate")]
    assert manifest.dropped == ()  # the copies here were cleaned of them, says their README
    assert sum(part["good"] for part in divided) == good
    assert sum(sum(part.values()) for part in divided) == good + defects
