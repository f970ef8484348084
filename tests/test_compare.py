"""Two revisions on the same pictures: who is right, by hand-made inspectors whose decisions are known."""

import dataclasses
from pathlib import Path

import pytest
from levels import detectors, write_pictures
from PIL import Image
from test_cli import Vigie, one_line, vigie
from tiny import tiny_inspector

from anomaly.calibration import calibrate
from anomaly.compare import OUTCOMES, Comparison, compare, pictures_of
from anomaly.compare_text import in_words
from anomaly.datasets import Sample
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, PolicyError
from anomaly.images import ImageLimits
from anomaly.inspector import Inspector

__all__ = ["vigie"]  # a fixture
NAME = "autoencoder"


def inspector_that(
    says: str, *, revision: str, limits: ImageLimits | None = None, category: str = "waves"
) -> Inspector:
    """An autoencoder whose threshold is below, or above, whatever it scores."""
    made = tiny_inspector({NAME: detectors()[NAME]}, EmissionsMeter("FRA"))
    good = [-1e6] * 20 if says == "defect" else [1e6] * 20
    member = dataclasses.replace(made.members[NAME], calibration=calibrate(good, [], split_hash="0" * 16))
    file = made.file.model_copy(update={"limits": limits or ImageLimits(), "category": category})
    return Inspector(file, [member], source="memory", revision=revision, commit=revision[-1] * 40, meter=made.meter)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """9 good parts and 10 defects."""
    return write_pictures(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def opposite(samples: list[Sample]) -> Comparison:
    """v1 accepts all, v2 rejects all."""
    sides = inspector_that("ok", revision="v1"), inspector_that("defect", revision="v2")
    return compare(*sides, samples, data="waves", labelled=True)


def test_the_table_says_who_decides_what(opposite: Comparison) -> None:
    assert opposite.table["ok"]["defect"] == opposite.differ == opposite.pictures == 19
    assert sum(sum(row.values()) for row in opposite.table.values()) == 19
    assert opposite.first.outcomes == {"ok": 19, "defect": 0, "review": 0, "failed": 0}
    assert (opposite.first.right, opposite.first.missed, opposite.first.false_alarms) == (9, 10, 0)
    assert (opposite.second.right, opposite.second.missed, opposite.second.false_alarms) == (10, 0, 9)
    assert opposite.differ_at_most == 1


def test_mcnemar_counts_pictures_that_just_one_gets_right(opposite: Comparison) -> None:
    """Two-sided sign test: 9 against 10 is nothing, 9 to 0 has 2 / 2^9, 0 to 10 has 2 / 2^10."""
    assert opposite.all is not None
    assert opposite.good is not None
    assert opposite.defects is not None
    assert (opposite.all.first_only, opposite.all.second_only, opposite.all.p_value) == (9, 10, 1.0)
    assert opposite.good.p_value == pytest.approx(2 / 2**9)
    assert (opposite.good.first_only, opposite.good.second_only) == (9, 0)
    assert opposite.defects.p_value == pytest.approx(2 / 2**10)
    assert (opposite.defects.both, opposite.defects.neither) == (0, 0)


def test_each_picture_that_differs_is_named_with_who_is_right(opposite: Comparison, samples: list[Sample]) -> None:
    assert [picture.path for picture in opposite.shown] == [sample.relative for sample in samples]
    assert {(picture.label == "good", picture.right) for picture in opposite.shown} == {
        (True, "first"),
        (False, "second"),
    }
    text = in_words(opposite)
    assert "They differ on 19 of 19 pictures" in text
    assert "good parts: both right 0, only v1 9, only v2 0, neither 0; McNemar p 0.00391" in text
    assert f"{samples[0].relative} [good]: v1 ok, v2 defect; v1 is right" in text


def test_the_same_twice_differs_nowhere(samples: list[Sample]) -> None:
    same = inspector_that("defect", revision="v1")
    found = compare(same, same, samples[7:11], data="waves", labelled=True)
    assert (found.differ, found.shown) == (0, ())
    assert found.all is not None
    assert (found.all.both, found.all.neither, found.all.p_value) == (2, 2, 1.0)
    assert found.differ_at_most == pytest.approx(1 - 0.05**0.25)
    assert found.first.latency_ms is not None
    assert found.first.latency_ms > 0
    assert "v1 (1)" in in_words(found)


def test_a_picture_that_one_of_them_refuses_is_shown_and_not_dropped(samples: list[Sample], tmp_path: Path) -> None:
    large, broken = tmp_path / "large.png", tmp_path / "torn.png"
    Image.new("RGB", (80, 80)).save(large)
    broken.write_bytes(large.read_bytes()[:60])
    more = [Sample(path, path.name, "good", "test", None) for path in (large, broken)]
    first = inspector_that("ok", revision="v1")
    second = inspector_that("ok", revision="v2", limits=ImageLimits(max_pixels=5000))
    found = compare(first, second, [*samples[:2], *more], data="waves", labelled=True)
    assert found.table["ok"] == {"ok": 2, "defect": 0, "review": 0, "failed": 1}
    assert found.table["failed"]["failed"] == 1
    assert [picture.path for picture in found.shown] == ["large.png", "torn.png"]
    assert [picture.right for picture in found.shown] == ["first", "neither"]
    assert "large.png" in found.shown[0].why[1]
    assert "large.png [good]: v1 ok, v2 failed; v1 is right" in in_words(found)


def test_without_labels_there_is_only_disagreement(samples: list[Sample], tmp_path: Path) -> None:
    for sample in samples[7:11]:
        (tmp_path / sample.path.name).write_bytes(sample.path.read_bytes())
    (tmp_path / ".hidden.png").write_text("no picture")
    found_samples, labelled = pictures_of(tmp_path, "waves")
    assert ([sample.relative for sample in found_samples], labelled) == (
        ["07.png", "08.png", "09.png", "10.png"],
        False,
    )
    sides = inspector_that("ok", revision="v1"), inspector_that("defect", revision="v2")
    found = compare(*sides, found_samples, data="folder", labelled=labelled)
    assert found.differ == 4
    assert (found.all, found.good, found.defects, found.first.right) == (None, None, None, None)
    assert {picture.right for picture in found.shown} == {None}
    assert "McNemar" not in in_words(found)
    assert "07.png: v1 ok, v2 defect" in in_words(found)


def test_what_cannot_be_compared_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    first = inspector_that("ok", revision="v1")
    other = inspector_that("ok", revision="v2", category="bolts")
    with pytest.raises(DataError, match="v1 inspects 'waves', v2 'bolts'"):
        compare(first, other, samples, data="waves", labelled=True)
    with pytest.raises(PolicyError, match="unknown policy 'fast'"):
        compare(first, first, samples, data="waves", labelled=True, policy="fast")
    with pytest.raises(DataError, match="holds no picture"):
        pictures_of(tmp_path, "waves")
    with pytest.raises(DataError, match="no such folder"):
        pictures_of(tmp_path / "nowhere", "waves")


def test_the_command_prints_and_writes_it(vigie: Vigie, inspector_folder: Path, cables: Path, tmp_path: Path) -> None:
    flags = ("--inspector", inspector_folder, "--data", cables, "--policy", "any_alarm")
    said = vigie("compare", *flags, "--revisions", "v1", "v2", "--json", tmp_path / "new/out.json")
    assert (said.code, said.err) == (0, "")
    found = Comparison.model_validate_json((tmp_path / "new/out.json").read_bytes())
    assert said.out == in_words(found) + "\n"
    assert (found.first.revision, found.second.revision, found.first.policy) == ("v1", "v2", "any_alarm")
    assert found.labelled
    assert found.pictures == sum(sum(found.table[a][b] for a in OUTCOMES) for b in OUTCOMES) == 14
    assert found.first.commit != found.second.commit


def test_wrong_usage_and_wrong_input(vigie: Vigie, inspector_folder: Path, tmp_path: Path) -> None:
    assert vigie("compare", "--data", tmp_path).code == 2
    assert vigie("compare", "--data", tmp_path, "--revisions", "v1").code == 2
    assert vigie("compare", "--data", tmp_path, "--revisions", "v1", "v2", "--layout", "flat").code == 2
    flags = ("--inspector", inspector_folder, "--data", tmp_path)
    assert "v9" in one_line(vigie("compare", *flags, "--revisions", "v1", "v9"))
    assert "holds no picture" in one_line(vigie("compare", *flags, "--revisions", "v1", "v2"))
