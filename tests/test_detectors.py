"""The contract: what whoever holds a detector may rely on, whatever its kind. Formulas: test_methods.py."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from anomaly.calibration import CalibrationFile
from anomaly.detectors import DETECTORS, Detector, Mahalanobis, PatchKNN
from anomaly.detectors.base import DetectorConfig
from anomaly.emissions import EmissionsMeter
from anomaly.inspector import Inspector
from anomaly.model_repo import load_detector, save_detector

NAMES = (
    "autoencoder",
    "baseline_cnn",
    "classifier",
    "mahalanobis",
    "mahalanobis_global",
    "patch_knn",
    "classical",
    "localiser",
)

# Convolutions of a batch add in another order than of one picture: measured 1e-5 relative at most (mahalanobis_global).
# A detector that mixed the pictures of a batch would be off by 1e-3 or more.
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def detectors() -> dict[str, Detector]:
    return tiny.tiny_detectors()


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return tiny.tiny_inspector(tiny.tiny_detectors(), EmissionsMeter(cpu_power_w=10))


@pytest.fixture(params=NAMES)
def detector(request: pytest.FixtureRequest, detectors: dict[str, Detector]) -> Detector:
    return detectors[request.param]


def test_every_kind_that_is_known_is_tested(detectors: dict[str, Detector]) -> None:
    assert tuple(detectors) == NAMES
    assert {detector.kind for detector in detectors.values()} == set(DETECTORS)
    assert all(DETECTORS[detector.kind] is type(detector) for detector in detectors.values())


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (131, 33), (5, 200), (1, 1)])
def test_scores_and_heatmaps_have_the_size_of_what_was_passed_in(detector: Detector, size: tuple[int, int]) -> None:
    output = detector.predict(tiny.good_images(2, size=size))
    assert (output.scores.shape, output.scores.dtype) == ((2,), torch.float32)
    assert output.scores.isfinite().all()
    if output.heatmaps is not None:
        assert (output.heatmaps.shape, output.heatmaps.dtype) == ((2, *size), torch.float32)
        assert output.heatmaps.isfinite().all()
    if output.class_logits is not None:
        assert (output.class_logits.shape, output.class_logits.dtype) == ((2, len(tiny.CLASSES)), torch.float32)
        assert output.class_logits.isfinite().all()


def test_a_map_comes_with_every_method_that_knows_where_and_classes_with_every_classifier(
    detectors: dict[str, Detector],
) -> None:
    outputs = {name: detector.predict(tiny.good_images(1)) for name, detector in detectors.items()}
    assert [name for name, output in outputs.items() if output.heatmaps is None] == [
        "mahalanobis_global",
        "classical",
    ]
    assert [name for name, output in outputs.items() if output.class_logits is not None] == [
        "baseline_cnn",
        "classifier",
        "classical",
    ]


def test_a_batch_gives_what_its_pictures_give_one_by_one(detector: Detector) -> None:
    good = tiny.good_images(3)
    images = torch.cat([good, tiny.corrupted(good)])
    together = detector.predict(images)
    alone = [detector.predict(image[None]) for image in images]
    close(together.scores, torch.cat([output.scores for output in alone]))
    for field in ("heatmaps", "class_logits"):
        if (value := getattr(together, field)) is not None:
            close(value, torch.cat([getattr(output, field) for output in alone]))


def test_the_same_picture_gives_the_same_bits_again_and_is_left_as_it_was(detector: Detector) -> None:
    images = tiny.good_images(2)
    before = images.clone()
    first, second = detector.predict(images), detector.predict(images)
    assert torch.equal(images, before)
    assert torch.equal(first.scores, second.scores)
    assert first.heatmaps is None or torch.equal(first.heatmaps, second.heatmaps)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, 1, 64, 64), torch.zeros(3, 64, 64)],
    ids=["bytes", "grey", "no batch"],
)
def test_what_is_no_batch_of_rgb_floats_is_refused_with_its_shape(detector: Detector, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images must be float32 \(B, 3, H, W\) in \[0, 1\], not torch"):
        detector.predict(images)


@pytest.mark.parametrize("name", tiny.FITTED)
def test_every_spoiled_picture_scores_above_every_good_one(detectors: dict[str, Detector], name: str) -> None:
    held_out = tiny.good_images(20, seed=1)
    good, spoiled = detectors[name].predict(held_out), detectors[name].predict(tiny.corrupted(held_out))
    assert spoiled.scores.min() > 2 * good.scores.max()
    if spoiled.heatmaps is not None:
        inside = spoiled.heatmaps[:, 16:32, 16:32].mean(dim=(1, 2))  # where the checkerboard is
        outside = spoiled.heatmaps[:, 44:, 44:].mean(dim=(1, 2))
        assert (inside > 2 * outside).all()


def test_saved_and_loaded_it_is_the_same_to_the_last_bit(detector: Detector, tmp_path: Path) -> None:
    save_detector(tmp_path, detector, CalibrationFile(categories={"waves": tiny.tiny_calibration(detector)}))
    loaded = load_detector(tmp_path).detector
    assert (type(loaded), loaded.config) == (type(detector), detector.config)
    before, after = detector.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    images = tiny.corrupted(tiny.good_images(2, seed=3, size=(50, 70)))
    expected, found = detector.predict(images), loaded.predict(images)
    for field in ("scores", "heatmaps", "class_logits"):
        value = getattr(expected, field)
        assert value is None or torch.equal(getattr(found, field), value)
    assert detector.input_key() == loaded.input_key()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoiled", [False, True], ids=["good", "spoiled"])
def test_the_served_score_is_the_evaluated_score(inspector: Inspector, name: str, spoiled: bool) -> None:
    image = tiny.good_images(1, seed=9, size=(72, 100))
    image = tiny.corrupted(image) if spoiled else image
    evaluated = inspector.members[name].detector.predict(image)
    inspection = inspector.inspect(tiny.as_picture(image[0]), "any")
    (vote,) = [vote for vote in inspection.report.votes if vote.member == name]
    assert vote.error is None
    assert vote.score == float(evaluated.scores[0])  # to the last bit, although trunk and layers are shared here
    if evaluated.heatmaps is not None:
        assert torch.equal(torch.from_numpy(inspection.heatmaps[name]), evaluated.heatmaps[0])


def test_two_detectors_score_shared_inputs_as_they_score_alone(detectors: dict[str, Detector]) -> None:
    images = tiny.corrupted(tiny.good_images(2))
    standing = [detectors[name] for name in tiny.FITTED]
    assert len({detector.input_key() for detector in standing}) == 1
    union = frozenset().union(*(detector.layers for detector in standing))
    assert all(detector.layers < union for detector in standing)  # each needs less than there is
    shared = standing[0].inputs(images, union)
    for detector in standing:
        alone, together = detector.predict(images), detector.predict_from(shared, (tiny.SIDE, tiny.SIDE))
        assert torch.equal(alone.scores, together.scores)
        assert alone.heatmaps is None or (
            together.heatmaps is not None and torch.equal(alone.heatmaps, together.heatmaps)
        )


def test_detectors_with_one_input_key_have_equal_inputs_and_others_have_not(detectors: dict[str, Detector]) -> None:
    mahalanobis, patch_knn = detectors["mahalanobis"], detectors["patch_knn"]
    assert isinstance(mahalanobis, Mahalanobis)
    assert isinstance(patch_knn, PatchKNN)
    twin = PatchKNN(patch_knn.config, tiny.tiny_trunk(), patch_knn.memory)
    other_weights = PatchKNN(patch_knn.config, tiny.tiny_trunk(seed=7), patch_knn.memory)
    others = [
        PatchKNN(patch_knn.config.model_copy(update=changed), mahalanobis.trunk, patch_knn.memory)
        for changed in ({"input_size": (64, 80)}, {"mean": (0.0, 0.0, 0.0)}, {"std": (1.0, 1.0, 1.0)})
    ]
    everyone = [*detectors.values(), twin, other_weights, *others]
    images = tiny.good_images(1, size=(40, 60))
    inputs = [detector.inputs(images) for detector in everyone]
    same = 0
    for one, its in zip(everyone, inputs, strict=True):
        for another, theirs in zip(everyone, inputs, strict=True):
            common = its.keys() & theirs.keys()
            equal = bool(common) and all(torch.equal(its[layer], theirs[layer]) for layer in common)
            assert equal == (one.input_key() == another.input_key())
            same += one is not another and equal
    assert same == 5 * 4 + 2 * 1  # five on byte-identical trunks, and the two classifiers, each with each
    assert twin.input_key() == mahalanobis.input_key()


def test_the_input_key_is_of_what_shapes_the_input_and_of_nothing_else(detectors: dict[str, Detector]) -> None:
    knn = detectors["patch_knn"]
    assert isinstance(knn, PatchKNN)
    changed = PatchKNN(knn.config.model_copy(update={"sigma": 1.0, "neighbours": 3}), knn.trunk, knn.memory[:9])
    assert changed.input_key() == knn.input_key()
    assert set(DetectorConfig.model_fields) == {"input_size", "mean", "std"}  # what the key is made of


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max()))
