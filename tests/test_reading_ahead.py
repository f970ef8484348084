"""Reading ahead: order, errors, bounds, and an end that leaves nothing behind."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.datasets import Sample
from anomaly.errors import ImageError
from anomaly.evaluation import score
from anomaly.loading import load_inspector
from anomaly.reading_ahead import DEPTH, ahead


def test_everything_comes_in_order_however_long_it_takes() -> None:
    def read(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    with ahead(read, range(10)) as found:
        assert [(item, reading.result()) for item, reading in found] == [(n, n * n) for n in range(10)]
    with ahead(read, []) as found:
        assert list(found) == []


def test_an_error_comes_at_its_item_and_the_others_go_on() -> None:
    def read(number: int) -> int:
        if number == 1:
            raise ImageError("1 is bad")
        return number

    outcomes: list[object] = []
    with ahead(read, range(4)) as found:
        for _, reading in found:
            try:
                outcomes.append(reading.result())
            except ImageError as error:
                outcomes.append(str(error))
    assert outcomes == [0, "1 is bad", 2, 3]


@pytest.mark.parametrize("depth", [1, DEPTH, 4])
def test_no_more_is_read_than_the_depth(depth: int) -> None:
    begun: list[int] = []
    with ahead(begun.append, range(20), depth) as found:
        for item, reading in found:
            reading.result()
            time.sleep(0.005)  # time enough to run further, if it could
            assert len(begun) <= min(20, item + 1 + depth)
    assert len(begun) == 20


def test_it_really_reads_ahead_of_the_one_that_is_looked_at() -> None:
    second = threading.Event()
    with ahead(lambda number: second.set() if number == 1 else None, range(3)) as found:
        next(found)
        assert second.wait(10)


def test_giving_up_begins_nothing_more_and_leaves_no_thread() -> None:
    begun: list[int] = []
    before = set(threading.enumerate())

    def read(number: int) -> None:
        begun.append(number)
        time.sleep(0.01)

    with ahead(read, range(100)) as found:
        for item, _ in found:
            if item == 2:
                break
    assert set(threading.enumerate()) == before
    there = len(begun)
    assert there <= 3 + DEPTH
    time.sleep(0.05)
    assert len(begun) == there


def test_an_evaluation_stops_at_the_picture_that_is_broken_and_leaves_no_thread(
    inspector_folder: Path, tmp_path: Path
) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    for name in "abcd":
        Image.fromarray(grey).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    samples = [Sample(tmp_path / f"{name}.png", f"{name}.png", "good", "test", None) for name in "abcd"]
    inspector = load_inspector(str(inspector_folder))
    with pytest.raises(ImageError, match=r"b\.png"):
        score(inspector, samples, tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading-ahead")]
    rest = [sample for sample in samples if sample.path.name != "b.png"]
    assert [row.sample for row in score(inspector, rest, tmp_path).rows] == rest
