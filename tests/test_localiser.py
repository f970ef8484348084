"""The localiser: FCOS as torchvision has it, in the picture's own pixels, trained on crops whose boxes stay true."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou
from trained import args_for, metrics

from anomaly.backbones import read_weights
from anomaly.datasets import Sample
from anomaly.detectors import Localiser
from anomaly.detectors.base import IMAGE, as_tensor
from anomaly.detectors.localiser import _confidence_logit
from anomaly.errors import DataError, ModelLoadError
from anomaly.images import read
from training import coco, train_all, train_localiser
from training.box_data import BoxedPictures, Symmetries, truth
from training.data import split_data
from training.train_localiser import Args

SIZE = (tiny.SIDE, tiny.SIDE)


@pytest.fixture(scope="module")
def localiser() -> Localiser:
    return tiny.tiny_localiser()


# --- What it computes ------------------------------------------------------------------------------------------------


def test_the_score_of_a_picture_is_that_of_its_best_box_and_of_the_best_place_of_its_heatmap(
    localiser: Localiser,
) -> None:
    output = localiser.predict(tiny.corrupted(tiny.good_images(3)))
    assert output.boxes is not None
    assert output.heatmaps is not None
    for score, boxes, heatmap in zip(output.scores, output.boxes, output.heatmaps, strict=True):
        assert len(boxes.labels) == len(boxes.scores) == len(boxes.xyxy) > 1
        assert set(boxes.labels) <= set(localiser.config.labels)
        assert torch.equal(boxes.scores, boxes.scores.sort(descending=True).values)
        torch.testing.assert_close(boxes.scores[0], score, rtol=0, atol=1e-4)
        assert score - 1.0 < heatmap.max() <= score  # bilinear: between the places of the grid it is lower


def test_a_score_is_the_logit_of_the_confidence_and_stays_finite() -> None:
    classes, centre = torch.tensor([0.3, -4.0, 2.0]), torch.tensor([1.0, -2.0, 5.0])
    confidence = (classes.double().sigmoid() * centre.double().sigmoid()).sqrt()
    torch.testing.assert_close(_confidence_logit(classes, centre).double(), confidence.logit(), rtol=1e-5, atol=1e-5)
    extreme = _confidence_logit(torch.tensor([80.0, -80.0]), torch.tensor([80.0, -80.0]))
    assert extreme.isfinite().all()
    assert extreme[0] > 10 > -10 > extreme[1]


def test_a_picture_with_no_place_good_enough_for_a_box_still_has_a_score(localiser: Localiser) -> None:
    strict = Localiser(localiser.config.model_copy(update={"least_confidence": 0.999}))
    strict.load_state_dict(localiser.state_dict())
    images = tiny.good_images(1)
    output = strict.eval().predict(images)
    assert output.boxes is not None
    assert (output.boxes[0].xyxy.shape, output.boxes[0].labels) == ((0, 4), ())
    assert torch.equal(output.scores, localiser.predict(images).scores)


def test_boxes_are_in_the_pixels_of_the_picture_passed_in(localiser: Localiser) -> None:
    inputs = localiser.inputs(tiny.corrupted(tiny.good_images(1)))
    small, large = (localiser.predict_from(inputs, size).boxes for size in (SIZE, (2 * tiny.SIDE, 3 * tiny.SIDE)))
    assert small is not None
    assert large is not None
    torch.testing.assert_close(large[0].xyxy, small[0].xyxy * torch.tensor([3.0, 2.0, 3.0, 2.0]))
    assert small[0].xyxy.min() >= 0
    assert small[0].xyxy.max() <= tiny.SIDE


def test_boxes_and_loss_are_those_of_torchvision_called_as_a_whole(localiser: Localiser) -> None:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    whole = tiny.tiny_localiser()
    none, one = [0.0] * 3, [1.0] * 3
    whole.fcos.transform = GeneralizedRCNNTransform(64, 64, none, one, _skip_resize=True)
    images = whole.inputs(tiny.corrupted(tiny.good_images(2)))[IMAGE].contiguous()  # as torchvision copies them
    expected = whole.fcos(list(images))
    found = localiser.predict_from({IMAGE: images}, SIZE).boxes
    assert found is not None
    for boxes, theirs in zip(found, expected, strict=True):
        assert torch.equal(boxes.xyxy, theirs["boxes"])
        torch.testing.assert_close(boxes.scores.sigmoid(), theirs["scores"])
        assert boxes.labels == tuple(whole.config.labels[i] for i in theirs["labels"])
    targets = [
        {"boxes": torch.tensor([[16.0, 16.0, 32.0, 32.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    whole.fcos.training = True  # batch norm stays in evaluation mode
    losses: dict[str, Tensor] = whole.fcos(list(images), targets)
    torch.testing.assert_close(localiser.detection_loss(images, targets), torch.stack(list(losses.values())).sum())


def test_torchvision_s_coco_network_is_the_same_network_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.detection import fcos_resnet50_fpn

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelLoadError, match=r"no COCO weights in torch's cache: download https://"):
        coco.coco_file()
    torch.manual_seed(0)
    theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).eval()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(theirs.state_dict(), tmp_path / "hub/checkpoints" / coco.URL.rsplit("/", 1)[1])
    ours = Localiser(coco.coco_config(tuple(map(str, range(91))), 128)).eval()
    coco.load_coco(ours, coco.coco_file())
    image = tiny.good_images(1, size=(128, 128))
    with torch.no_grad():
        expected, found = (
            net.head(list(net.backbone(ours.inputs(image)[IMAGE]).values())) for net in (theirs, ours.fcos)
        )
    for name in ("cls_logits", "bbox_regression", "bbox_ctrness"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    assert ours.fcos.anchor_generator.sizes == theirs.anchor_generator.sizes

    other = Localiser(coco.coco_config(("short", "open"), 128))
    coco.load_coco(other, coco.coco_file())
    assert torch.equal(other.fcos.head.regression_head.bbox_reg.weight, theirs.head.regression_head.bbox_reg.weight)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelLoadError, match=r"other\.pth: not torchvision's fcos_resnet50_fpn .*unknown tensor a"):
        coco.load_coco(other, tmp_path / "other.pth")


# --- What it trains on -----------------------------------------------------------------------------------------------


def marked_pictures(root: Path, count: int, good: int = 0, side: int = tiny.SIDE, start: int = 0) -> list[Sample]:
    """Dark pictures with one or two squares, bright red or blue, and their box files."""
    rng = np.random.default_rng(start)
    samples = []
    (root / "boxes/defect").mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count + good):
        label = "defect" if number < start + count else "good"
        pixels = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
        lines = []
        for colour in range(0 if label == "good" else 1 + number % 2):
            x, y = (int(v) for v in rng.integers(0, side // 2 - 14, 2) + (side // 2) * np.array([colour, 1 - colour]))
            pixels[y : y + 14, x : x + 14, 2 * colour] = 255
            lines.append(f"{x} {y} {x + 14} {y + 14} {colour + 1}\n")
        relative = f"train/{label}/{number:03}.png"
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / relative)
        boxes = root / f"boxes/defect/{number:03}.txt" if label == "defect" else None
        if boxes:
            boxes.write_text("".join(lines))
        samples.append(Sample(root / relative, relative, label, "train", None, boxes))
    return samples


def boxed(samples: list[Sample], localiser: Localiser, names: tuple[str, ...]) -> BoxedPictures:
    return BoxedPictures(samples, [truth(sample, names) for sample in samples], localiser.config, names)


def test_a_mask_becomes_boxes_with_the_label_of_its_picture_and_a_good_part_has_none(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = mask[30:32, 0:5] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask).save(tmp_path / "picture.png")
    bent = Sample(tmp_path / "picture.png", "test/bent/0.png", "bent", "test", tmp_path / "mask.png")
    found = truth(bent)
    assert found.xyxy.tolist() == [[30, 10, 50, 20], [0, 30, 5, 32]]
    assert (found.labels, found.size) == (("bent", "bent"), (40, 60))
    assert truth(dataclasses.replace(bent, label="good", mask=None)).labels == ()
    with pytest.raises(DataError, match=r"test/bent/0\.png: neither boxes nor a mask"):
        truth(dataclasses.replace(bent, mask=None))


def test_with_several_categories_a_type_is_of_its_category(tmp_path: Path) -> None:
    (sample,) = marked_pictures(tmp_path, 1)
    assert truth(dataclasses.replace(sample, label="pcb/defect"), ("red",)).labels == ("pcb/red",)


def test_boxes_follow_the_resizing_of_their_picture(tmp_path: Path, localiser: Localiser) -> None:
    pictures = boxed(marked_pictures(tmp_path, 1, side=2 * tiny.SIDE), localiser, ("red", "blue"))
    image, (target,) = pictures.whole([0])
    x1, y1, x2, y2 = target["boxes"][0].tolist()
    assert (x2 - x1, y2 - y1) == (7, 7)
    assert float(image[0, 0, round(y1 + 1) : round(y2 - 1), round(x1 + 1) : round(x2 - 1)].min()) > 0.9


@pytest.mark.parametrize("symmetries", ["none", "flips", "all"])
@pytest.mark.parametrize("side", [32, 48, 64])
def test_after_cropping_and_turning_a_box_frames_the_same_defect(
    tmp_path: Path, localiser: Localiser, symmetries: Symmetries, side: int
) -> None:
    pictures = boxed(marked_pictures(tmp_path, 4), localiser, ("red", "blue"))
    torch.manual_seed(0)
    framed = 0
    for _ in range(20):
        images, targets = pictures.crops(range(4), side, symmetries, good_share=0.0)
        assert images.shape == (4, 3, side, side)
        for image, target in zip(images, targets, strict=True):
            for (x1, y1, x2, y2), label in zip(target["boxes"].int().tolist(), target["labels"].tolist(), strict=True):
                assert 0 <= x1 < x2 <= side
                assert 0 <= y1 < y2 <= side
                assert (image[2 * label, y1:y2, x1:x2] == 1).all()
                image[2 * label, y1:y2, x1:x2] = 0
                framed += 1
            # what is left outside of boxes is at most the sliver of a square that was cut
            assert (image == 1).sum() < 14 * 14 * 0.3 * 2
    assert framed >= 60  # most crops are put where a defect is


def test_turning_shows_a_defect_from_all_eight_sides_only_where_that_is_asked_for(
    tmp_path: Path, localiser: Localiser
) -> None:
    pictures = boxed(marked_pictures(tmp_path, 1), localiser, ("red", "blue"))
    seen: dict[str, set[tuple[float, ...]]] = {}
    torch.manual_seed(0)
    for symmetries in ("none", "flips", "all"):
        draws = [pictures.crops([0], 64, symmetries, 0.0)[1][0]["boxes"][0] for _ in range(80)]  # type: ignore[arg-type]
        seen[symmetries] = {tuple(box.tolist()) for box in draws}
    assert [len(boxes) for boxes in seen.values()] == [1, 4, 8]


def test_good_pictures_come_along_as_background(tmp_path: Path, localiser: Localiser) -> None:
    pictures = boxed(marked_pictures(tmp_path, 3, good=2), localiser, ("red", "blue"))
    assert (pictures.marked, pictures.good) == ([0, 1, 2], [3, 4])
    torch.manual_seed(0)
    empty = [not len(t["labels"]) for _ in range(40) for t in pictures.crops([0, 1, 2], 64, "none", 0.5)[1]]
    assert 0.35 < sum(empty) / len(empty) < 0.65


# --- The script ------------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {"image_size": 64, "crop": 64, "channels": 32, "convolutions": 1}


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures with squares and 50 without; some of them to test on."""
    root = tmp_path_factory.mktemp("boards")
    marked_pictures(root, 40, good=50)
    (root / "boxes/labels.txt").write_text("red blue")
    return root


@pytest.fixture
def given(training_args: train_all.Args, boards: Path) -> train_all.Args:
    return dataclasses.replace(training_args, data=boards, category="boards", protocol="supervised")


def test_in_a_few_epochs_it_finds_the_squares_of_pictures_it_never_saw(given: train_all.Args, tmp_path: Path) -> None:
    names = ("red", "blue")
    learn = {"epochs": 20, "crops": 2, "learning_rate": 2e-3, "symmetries": "all", "weights": given.weights}
    args = args_for(Args, given, tmp_path, **TINY | learn)
    split = split_data(args)
    torch.manual_seed(0)
    detector, source = train_localiser.build(args, names)
    assert source == read_weights(given.weights).source  # type: ignore[arg-type]
    train, validate = ({s: truth(s, names) for s in split.samples(part)} for part in ("train", "validate"))
    train_localiser.fitted(detector, train, validate, args, split, frozen_norm=False)  # that trunk's are not a net's
    hits = 0
    for sample in marked_pictures(tmp_path / "fresh", 6, start=100):
        image = as_tensor(read(sample.path))
        with torch.no_grad():
            found = detector.predict(image).boxes
        assert found is not None
        wanted = truth(sample, names)
        overlaps = box_iou(found[0].xyxy[:1], torch.from_numpy(wanted.xyxy))[0]
        hits += bool(overlaps.max() > 0.5) and found[0].labels[0] == wanted.labels[int(overlaps.argmax())]
    assert hits >= 5  # of 6


def test_types_are_called_as_the_data_calls_them(given: train_all.Args, tmp_path: Path) -> None:
    options = TINY | {"epochs": 1, "crops": 1, "weights": given.weights, "symmetries": "all"}
    train_localiser.main(args_for(Args, given, tmp_path / "run", **options))
    told = metrics(tmp_path / "run")
    assert told.settings["classes"] == ["blue", "red"]  # of boxes/labels.txt
    assert told.test is not None
    assert told.test.image_auroc is not None


def test_data_without_marks_is_refused_with_what_to_do(training_args: train_all.Args, tmp_path: Path) -> None:
    boards = marked_pictures(tmp_path / "data", 24, good=50)
    for sample in boards:
        if sample.boxes:
            sample.boxes.unlink()
    (tmp_path / "data/boxes/defect").rmdir()
    unmarked = dataclasses.replace(training_args, data=tmp_path / "data", category="boards", protocol="supervised")
    with pytest.raises(DataError, match=r"none of the \d+ to train on has boxes or a mask: give boxes/<class>/<stem>"):
        train_localiser.main(args_for(Args, unmarked, tmp_path / "run", **TINY))


@pytest.mark.parametrize("name", ["image_size", "crop"])
def test_a_side_that_no_grid_divides_is_refused(given: train_all.Args, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"must be a multiple of 32, the coarsest stride, not 70"):
        train_localiser.main(args_for(Args, given, tmp_path, **TINY | {name: 70}))


def test_the_confidence_of_a_box_is_between_0_and_1(localiser: Localiser) -> None:
    boxes = localiser.predict(tiny.good_images(1)).boxes
    assert boxes is not None
    least = math.log(localiser.config.least_confidence / (1 - localiser.config.least_confidence))
    assert boxes[0].scores.min() >= least - 1e-5
