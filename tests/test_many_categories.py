"""`train_all --category all`: one model for several parts where one can serve them, an inspector for each part."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trained import metrics

from anomaly import hub, images
from anomaly.calibration import read_calibration
from anomaly.datasets import read_dataset
from anomaly.errors import ModelLoadError
from anomaly.loading import load_at
from anomaly.model_repo import load_detector
from training import train_all
from training.pictures import load

TOGETHER = ("mahalanobis", "autoencoder", "classifier")
MEMBERS = (*TOGETHER, "patch_knn")


@pytest.fixture(scope="module")
def two(cables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cable`, and `dark`: the same parts in a fifth of the light."""
    root = tmp_path_factory.mktemp("two")
    shutil.copytree(cables / "cable", root / "cable")
    shutil.copytree(cables / "cable", root / "dark")
    for path in (root / "dark").rglob("*.png"):
        if "ground_truth" not in path.as_posix():
            Image.fromarray((images.read(path) // 5).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def both(two: Path, training_args: train_all.Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train_all --category all` leaves behind, of four members."""
    args = dataclasses.replace(training_args, data=two, category="all", out=tmp_path_factory.mktemp("both"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_all, "members_for", lambda split: list(MEMBERS))
        train_all.main(args)
    return args.out


def test_what_serves_all_is_trained_once_and_calibrated_for_each(both: Path) -> None:
    assert sorted(path.name for path in (both / "runs").iterdir()) == sorted(
        [*TOGETHER, "patch_knn-cable", "patch_knn-dark"]
    )
    for member in TOGETHER:
        known = read_calibration(both / "runs" / member / "calibration.json").categories
        assert list(known) == ["cable", "dark"]
        assert known["cable"].good_scores != known["dark"].good_scores
        figures = metrics(both / "runs" / member)
        assert figures.category == "all"
        assert figures.test is None
        assert set(figures.by_category) == {"cable", "dark"}
        assert all(found.test is not None for found in figures.by_category.values())


def test_statistics_of_the_wrong_category_would_call_good_parts_defects(both: Path, two: Path) -> None:
    detector = load_detector(both / "runs/mahalanobis").detector
    picture = next(s for s in read_dataset(two, "dark").test if not s.is_defect)
    right, wrong = (float(detector.select(name).predict(load(picture.path)).scores[0]) for name in ("dark", "cable"))
    assert wrong > 2 * right
    with pytest.raises(ValueError, match=r"screw.*cable.*dark"):
        detector.select("screw")


def test_each_category_has_an_inspector_of_its_own(both: Path, two: Path) -> None:
    for category in ("cable", "dark"):
        source = hub.Source(f"local/inspector-{category}", f"local/inspector-{category}", both)
        loaded = load_at(source, hub.resolve(source, "v1"), "v1")
        assert loaded.file.category == category
        assert tuple(loaded.members) == MEMBERS
        assert "/" not in "".join(loaded.file.labels)
        picture = read_dataset(two, category).test[0]
        report = loaded.inspect(images.read(picture.path)).report
        assert all(vote.score is not None for vote in report.votes)
        shares = next(vote.class_shares for vote in report.votes if vote.member == "classifier")
        assert shares is not None
        assert set(shares) == set(loaded.file.labels)  # the other part's types are no answer
        assert sum(shares.values()) == pytest.approx(1)


def test_a_member_without_statistics_of_the_category_does_not_load(both: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(both / "runs/mahalanobis", tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["config"]["categories"] = ["cable", "screw", "dark"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="does not make the mahalanobis"):
        load_detector(folder)


def test_the_card_of_a_model_of_several_has_a_row_for_each(both: Path) -> None:
    card = (both / "runs/autoencoder/README.md").read_text()
    assert "| cable |" in card
    assert "| dark |" in card
