"""Classical heads: equal to scikit-learn and xgboost at any point, loaded without them, strict about files."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC
from torch import Tensor
from trained import args_for, metrics
from xgboost import XGBClassifier

from anomaly.backbones import Pretrained, Trunk, TrunkConfig, default_layers
from anomaly.calibration import CalibrationFile
from anomaly.detectors import Classical, ClassicalConfig
from anomaly.detectors.base import prepare
from anomaly.detectors.classical import HEADS, Head, HeadName, Trees, pooled
from anomaly.errors import DataError
from anomaly.model_repo import load_detector, save_detector
from training import train_all, train_classical
from training.arguments import run
from training.classical_tensors import boosted_tensors, forest_tensors, support_vectors
from training.pictures import load

TOLERANCE = 1e-5
DIMS = 12
Floats = NDArray[np.float32]


def training_data(classes: int) -> tuple[Floats, NDArray[np.int64]]:
    """Overlapping clouds, so that there are many support vectors and deep trees."""
    rng = np.random.default_rng(0)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, 250)])
    centres = rng.normal(size=(classes, DIMS))
    return (centres[y] + rng.normal(size=(len(y), DIMS))).astype(np.float32), y


def random_points(count: int = 1000) -> Floats:
    return (2 * np.random.default_rng(1).normal(size=(count, DIMS))).astype(np.float32)


def points_at_thresholds(trees: Trees) -> Floats:
    """Half of the features of each point lie exactly at a threshold, or at the float32 next to one on either side."""
    rng = np.random.default_rng(2)
    inner = trees.left != torch.arange(len(trees.left))
    feature, threshold = trees.feature[inner].numpy(), trees.threshold[inner].numpy()
    points = random_points(3000)
    for point in points:
        chosen = rng.permutation(len(feature))[: DIMS // 2]
        point[feature[chosen]] = threshold[chosen]
    below, above = (np.nextafter(points[1::3], np.float32(sign * np.inf)) for sign in (-1, 1))
    points[1::3], points[2::3] = below, above
    return points


@pytest.mark.parametrize("cost", [1.0, 100.0])
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_decisions_are_those_of_scikit_learns_machine(classes: int, cost: float) -> None:
    x, y = training_data(classes)
    machine = SVC(C=cost, gamma="scale", class_weight="balanced", decision_function_shape="ovo").fit(x, y)
    head = support_vectors(machine)
    head.check(DIMS, classes)
    points = np.concatenate([x, random_points()])
    found = head(torch.from_numpy(points)).numpy()
    expected = machine.decision_function(points)
    expected = expected[:, None] if classes == 2 else -expected  # of a pair, its own sign speaks for the first class
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    scores, _ = head.read(torch.from_numpy(found), classes)
    against_good = [pair for pair, (first, _) in enumerate(combinations(range(classes), 2)) if first == 0]
    np.testing.assert_allclose(scores, expected[:, against_good].max(axis=1), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_shares_are_those_of_scikit_learns_forest_at_its_thresholds_too(classes: int) -> None:
    x, y = training_data(classes)
    forest = RandomForestClassifier(50, class_weight="balanced", min_samples_leaf=2, random_state=0).fit(x, y)
    head = forest_tensors(forest)
    assert head.depth == max(tree.get_depth() for tree in forest.estimators_)
    for points in (x, random_points(), points_at_thresholds(head)):
        expected = forest.predict_proba(points)
        scores, logits = head.read(head(torch.from_numpy(points)), classes)
        np.testing.assert_allclose(logits.softmax(dim=1), expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(scores, 1 - expected[:, 0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("base_score", [None, 0.8], ids=["estimated base", "given base"])
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_margins_are_those_of_xgboost_at_its_thresholds_too(classes: int, base_score: float | None) -> None:
    x, y = training_data(classes)
    model = XGBClassifier(n_estimators=40, max_depth=4, n_jobs=1, base_score=base_score).fit(x, y)
    head = boosted_tensors(model)
    for points in (x, random_points(), points_at_thresholds(head)):
        expected = model.predict(points, output_margin=True)
        scores, logits = head.read(head(torch.from_numpy(points)), classes)
        found = logits[:, 1] if classes == 2 else logits
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        probability = model.predict_proba(points)
        np.testing.assert_allclose(logits.softmax(dim=1), probability, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(torch.sigmoid(scores), 1 - probability[:, 0], rtol=0, atol=TOLERANCE)


def test_a_float64_threshold_between_two_float32_divides_them() -> None:
    steps = (1 + np.arange(4) * np.finfo(np.float32).eps).astype(np.float32)[:, None]  # neighbours
    forest = RandomForestClassifier(5, bootstrap=False, random_state=0).fit(steps[[0, 3]], [0, 1])
    middle = (float(steps[1, 0]) + float(steps[2, 0])) / 2
    assert {float(tree.tree_.threshold[0]) for tree in forest.estimators_} == {middle}
    assert forest.predict(steps).tolist() == [0, 0, 1, 1]
    assert forest_tensors(forest)(torch.from_numpy(steps)).argmax(dim=1).tolist() == [0, 0, 1, 1]


def test_two_classes_of_a_machine_have_the_probability_of_its_decision_over_the_temperature() -> None:
    head = support_vectors(SVC().fit(*training_data(2)), temperature=0.4)
    decisions = head(torch.from_numpy(random_points(50)))
    scores, logits = head.read(decisions, 2)
    assert torch.equal(scores, decisions[:, 0])
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], torch.sigmoid(decisions[:, 0] / 0.4))


def test_a_class_that_wins_all_its_pairs_is_the_likeliest() -> None:
    head = support_vectors(SVC(C=10).fit(*training_data(4)), temperature=0.1)
    decisions = head(torch.from_numpy(training_data(4)[0]))
    wins = torch.zeros(len(decisions), 4)
    for pair, (first, second) in enumerate(combinations(range(4), 2)):
        wins[:, first] += decisions[:, pair] < -0.5  # clearly
        wins[:, second] += decisions[:, pair] > 0.5
    clear = wins.amax(dim=1) == 3
    assert clear.sum() > 100
    assert torch.equal(head.read(decisions, 4)[1][clear].argmax(dim=1), wins[clear].argmax(dim=1))


# --- the detector ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detectors() -> dict[str, Classical]:
    """One of each head, on 24 pictures of three classes; of a fourth class there was none."""
    return {name: tiny.fit_classical(name, tiny.tiny_trunk(), (*tiny.CLASSES, "lost")) for name in HEADS}


@pytest.fixture(params=list(HEADS))
def detector(request: pytest.FixtureRequest, detectors: dict[str, Classical]) -> Classical:
    return detectors[request.param]


def test_pooling_stacks_every_kind_layer_by_layer() -> None:
    maps = [torch.randn(2, 3, 4, 5), torch.randn(2, 2, 1, 1)]
    found = pooled(maps, ("max", "mean", "std"))
    assert found.shape == (2, 15)
    assert torch.equal(found[:, :3], maps[0].amax(dim=(2, 3)))
    torch.testing.assert_close(found[:, 3:6], maps[0].mean(dim=(2, 3)))
    torch.testing.assert_close(found[:, 6:9], maps[0].std(dim=(2, 3), correction=0))
    assert torch.equal(found[:, 13:], torch.zeros(2, 2))  # one position has no spread
    assert torch.equal(pooled(maps, ("max",)), torch.cat([found[:, :3], found[:, 9:11]], dim=1))


def test_defects_that_it_was_shown_score_higher_and_are_named(detector: Classical) -> None:
    images, labels = tiny.labelled_images(seed=5)
    output = detector.predict(images)
    good = torch.tensor([label == "good" for label in labels])
    assert output.scores[~good].min() > output.scores[good].max()
    assert output.class_logits is not None
    named = [detector.config.classes[index] for index in output.class_logits.argmax(dim=1)]
    assert np.mean([name == label for name, label in zip(named, labels, strict=True)]) > 0.9


def test_a_class_without_a_training_picture_is_never_likely(detector: Classical) -> None:
    logits = detector.predict(tiny.labelled_images(seed=6)[0]).class_logits
    assert logits is not None
    assert logits.softmax(dim=1)[:, 3].max() < 1e-6
    torch.testing.assert_close(logits[:, :3].softmax(dim=1), logits.softmax(dim=1)[:, :3], rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_give_a_score_that_is_none(detector: Classical, number: float) -> None:
    inputs = detector.inputs(tiny.good_images(2))
    layer = min(detector.layers)
    inputs[layer][0, 0, 0, 0] = number
    scores = detector.predict_from(inputs, (64, 64)).scores
    assert scores.isnan().tolist() == [True, False]


def test_it_scores_shared_maps_as_it_scores_alone(detector: Classical) -> None:
    images = tiny.good_images(3)
    assert detector.layers < set(detector.trunk.config.layers)
    shared = detector.predict_from(detector.inputs(images, detector.trunk.config.layers), (64, 64))
    assert torch.equal(shared.scores, detector.predict(images).scores)


def test_loading_and_scoring_need_neither_library(detectors: dict[str, Classical], tmp_path: Path) -> None:
    for name, detector in detectors.items():
        save_detector(tmp_path / name, detector, CalibrationFile(categories={}))
    script = (
        "import json, sys, torch, pathlib\n"
        "from anomaly.model_repo import load_detector\n"
        "folders = [pathlib.Path(sys.argv[1], name) for name in sys.argv[2:]]\n"
        "image = torch.full((1, 3, 64, 64), 0.5)\n"
        "scores = [load_detector(folder).detector.predict(image).scores.item() for folder in folders]\n"
        "print(json.dumps([scores, [name for name in ('sklearn', 'xgboost', 'joblib') if name in sys.modules]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path, *HEADS], capture_output=True, text=True, check=True)
    image = torch.full((1, 3, 64, 64), 0.5)
    expected = [detectors[name].predict(image).scores.item() for name in HEADS]
    assert json.loads(done.stdout) == [pytest.approx(expected, rel=1e-4), []]


@pytest.mark.parametrize("architecture", ["resnet50", "vgg16", "densenet121"])
def test_the_usual_trunks_give_features_at_strides_8_16_and_32(architecture: str) -> None:
    triple = (0.5, 0.5, 0.5)
    layers = default_layers(Pretrained("timm", architecture, {}, {}, triple, triple, (64, 64), "a test"))
    trunk = Trunk(TrunkConfig(library="timm", architecture=architecture, layers=layers))
    maps = trunk(torch.rand(1, 3, 64, 64))
    assert [maps[layer].shape[-1] for layer in layers] == [8, 4, 2]
    assert pooled(list(maps.values()), ("mean", "max")).isfinite().all()


# --- what a file may not say -----------------------------------------------------------------------------------------


def put(name: str, index: Any, value: float) -> Callable[[dict[str, Tensor]], None]:
    def spoil(state: dict[str, Tensor]) -> None:
        state[name][index] = value

    return spoil


def swap(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def spoil(state: dict[str, Tensor]) -> None:
        state[name] = change(state[name]).clone()

    return spoil


def share_a_child(state: dict[str, Tensor]) -> None:
    state["head.right"][0] = state["head.left"][0]


def leave_the_tree(state: dict[str, Tensor]) -> None:
    state["head.left"][0] = state["head.roots"][1] + 1


REFUSED: dict[str, tuple[HeadName, Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": ("forest", lambda s: s.pop("head.threshold"), "lacks tensor 'head.threshold'"),
    "missing scaler": ("svm", lambda s: s.pop("scale"), "lacks tensor 'scale'"),
    "extra": ("svm", lambda s: s.update(extra=torch.zeros(1)), "unknown tensor 'extra'"),
    "ragged": ("xgboost", swap("head.left", lambda t: t[:-1]), r"left is torch.int32"),
    "no trees": ("forest", swap("head.roots", lambda t: t[:0]), "roots is"),
    "wide links": ("forest", swap("head.left", Tensor.long), r"left is torch.int64 .* expected torch.int32"),
    "double thresholds": ("forest", swap("head.threshold", Tensor.double), "threshold is torch.float64"),
    "a threshold that is no number": (
        "xgboost",
        put("head.threshold", 0, float("nan")),
        "not finite in tensor 'head.th",
    ),
    "a cycle": ("forest", put("head.left", 1, 0), "left leads to a node that is not behind its parent"),
    "a negative child": ("forest", put("head.right", 0, -1), "right leads to a node"),
    "a child beyond the end": ("forest", put("head.right", 0, 10**6), "right leads to a node"),
    "one child": ("forest", put("head.left", 0, 0), "has one child"),
    "two parents": ("forest", share_a_child, "two parents"),
    "a child in another tree": ("forest", leave_the_tree, "lies in another tree"),
    "a root in the middle": ("forest", swap("head.roots", lambda t: t[1:]), "roots must ascend from 0"),
    "roots out of order": ("xgboost", swap("head.roots", lambda t: t.flip(0)), "roots must ascend from 0"),
    "a feature too many": ("xgboost", put("head.feature", 0, 10**6), "asks for a feature outside"),
    "a negative feature": ("xgboost", put("head.feature", 0, -1), "asks for a feature outside"),
    "other classes": ("forest", swap("known", lambda t: t[:2]), "tell 3 classes apart, there are 2"),
    "a class there is not": ("svm", put("known", 2, 4), "known must be"),
    "without good": ("svm", put("known", 0, 1), "known must be"),
    "a scale of nothing": ("svm", put("scale", 0, 0.0), "scale holds a number that is not above 0"),
    "fewer features": ("svm", swap("head.support", lambda t: t[:, 1:]), "support is"),
    "fewer pairs": ("svm", swap("head.dual", lambda t: t[1:]), "dual is"),
    "no temperature": ("svm", swap("head.temperature", torch.zeros_like), "temperature 0.0 must be above 0"),
    "single precision": ("svm", swap("head.intercept", Tensor.float), "intercept is torch.float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_is_refused_with_the_tensor_that_is_wrong(detectors: dict[str, Classical], case: str) -> None:
    head, spoil, message = REFUSED[case]
    detector = detectors[head]
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    assert Classical.from_state(detector.config, dict(state)) is not None
    spoil(state)
    with pytest.raises(ValueError, match=message):
        Classical.from_state(detector.config, state)


def test_a_head_is_not_read_as_another(detectors: dict[str, Classical]) -> None:
    forest = detectors["forest"]
    other = forest.config.model_copy(update={"head": "xgboost"})
    head: Head = forest.head
    with pytest.raises(ValueError, match="head 'xgboost' is not a Forest"):
        Classical(other, forest.trunk, forest.mean, forest.scale, forest.known, head)
    with pytest.raises(ValueError, match=r"lacks tensor 'head\.support'"):
        Classical.from_state(forest.config.model_copy(update={"head": "svm"}), forest.state_dict())


# --- the script ------------------------------------------------------------------------------------------------------


def classical_args(given: train_all.Args, out: Path, head: str, **more: Any) -> train_classical.Args:
    small = {"weights": given.weights, "image_size": 64, "head": head, "trees": 20}
    args: train_classical.Args = args_for(train_classical.Args, given, out, **small | more)
    return args


@pytest.mark.parametrize("head", list(HEADS))
def test_two_runs_with_one_seed_give_the_same_bytes_and_figures(
    head: str, training_args: train_all.Args, tmp_path: Path, cables: Path
) -> None:
    runs = [tmp_path / name for name in ("first", "second")]
    for out in runs:
        train_classical.main(classical_args(training_args, out, head, seed=3))
    for name in ("model.safetensors", "config.json", "calibration.json", "manifest.json"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    first, second = (metrics(out) for out in runs)
    assert first.member == f"classical_{head}"
    assert first.settings == second.settings
    assert first.test is not None
    assert second.test is not None
    cost = {"latency_ms", "energy_mj", "peak_memory_mb", "throughput", "fps"}
    same = [{k: v for k, v in m.test.model_dump().items() if k not in cost} for m in (first, second) if m.test]
    assert same[0] == same[1]
    detector = load_detector(runs[0]).detector
    assert isinstance(detector, Classical)
    assert detector.config.classes[0] == "good"
    assert len(detector.config.classes) == 9
    picture = next(iter(sorted((cables / "cable/test/good").iterdir())))
    assert torch.equal(
        detector.predict(load(picture)).scores, load_detector(runs[1]).detector.predict(load(picture)).scores
    )


def test_defects_of_several_categories_are_told_apart_by_one(
    training_args: train_all.Args, tmp_path: Path, cables: Path
) -> None:
    for name in ("blue", "red"):
        for label in ("good", "missing_cable"):
            shutil.copytree(cables / "cable/train" / label, tmp_path / "data" / name / "train" / label)
        for index, picture in enumerate(sorted((tmp_path / "data" / name).rglob("*.png"))):
            tint = np.array(Image.open(picture))
            tint[..., 0 if name == "blue" else 2] //= 3
            tint[0, 0] = index  # no two pictures are the same file
            Image.fromarray(tint).save(picture)
    args = classical_args(training_args, tmp_path / "out", "xgboost", data=tmp_path / "data", category="all")
    train_classical.main(args)
    loaded = load_detector(tmp_path / "out")
    assert isinstance(loaded.detector, Classical)
    assert loaded.detector.config.classes == ("good", "blue/missing_cable", "red/missing_cable")
    assert set(loaded.calibrations.categories) == {"blue", "red"}


def test_another_seed_is_another_forest(training_args: train_all.Args, tmp_path: Path) -> None:
    states = []
    for seed in (0, 1):
        config = ClassicalConfig(trunk=tiny.TRUNK, use_layers=(3,), classes=("good", "bent"), head="forest")
        args = classical_args(training_args, tmp_path, "forest", seed=seed)
        vectors = torch.randn(1, 30, 6, generator=torch.Generator().manual_seed(0))
        states.append(train_classical.fit(config, tiny.tiny_trunk(), vectors, ["good", "bent"] * 15, args)[0])
    assert not torch.equal(states[0].head.get_buffer("feature"), states[1].head.get_buffer("feature"))


def test_good_pictures_alone_do_not_make_one(training_args: train_all.Args, tmp_path: Path, cables: Path) -> None:
    shutil.copytree(cables / "cable/train/good", tmp_path / "data/train/good")
    args = classical_args(training_args, tmp_path / "out", "svm")
    with pytest.raises(DataError, match="or use a detector that needs good pictures only"):
        train_classical.main(dataclasses.replace(args, data=tmp_path / "data"))
    assert not (tmp_path / "out").exists()


def test_copies_are_the_features_of_turned_pictures(training_args: train_all.Args, tmp_path: Path) -> None:
    args = classical_args(training_args, tmp_path, "svm")
    split = train_classical.split_data(args)
    trunk, config = train_classical.build(args, train_classical.pretrained(args), split.labels)
    samples = split.samples("train")[:3]
    found = train_classical.features(config, trunk, samples, "dihedral")
    assert found.shape[:2] == (8, 3)
    assert torch.equal(found[0], train_classical.features(config, trunk, samples)[0])
    assert torch.equal(found[:4], train_classical.features(config, trunk, samples, "flips"))
    mirrored = trunk(prepare(load(samples[0].path), config).flip(3), config.use_layers)
    expected = pooled([mirrored[layer] for layer in config.use_layers], config.pooling)[0]
    torch.testing.assert_close(found[1, 0], expected, rtol=1e-4, atol=1e-4)
    pairs = [found[i, 0].equal(found[j, 0]) for i, j in combinations(range(8), 2)]
    assert not any(pairs)


def test_where_a_class_has_one_picture_nothing_is_cross_validated(
    training_args: train_all.Args, tmp_path: Path
) -> None:
    x, y = training_data(2)
    few = np.flatnonzero(y == 1)[:1]
    chosen = np.concatenate([np.flatnonzero(y == 0), few])
    args = classical_args(training_args, tmp_path, "svm")
    assert train_classical.cross_validated(x[chosen], y[chosen], args) == (10.0, 1.0)
    cost, temperature = train_classical.cross_validated(x, y, args)
    assert cost in (1.0, 10.0, 100.0)
    assert temperature != 1.0
    given = dataclasses.replace(args, C=3.0)
    assert train_classical.cross_validated(x, y, given)[0] == 3.0


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--pooling", "median"], "pooling"), (["--layers", "9"], "9")],
)
def test_a_wrong_setting_is_one_line(
    words: list[str], message: str, training_args: train_all.Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", training_args.data, "--category", "cable", "--weights", training_args.weights, "--head", "svm"]
    argv = [str(word) for word in [*given, "--out", tmp_path / "out", *words]]
    assert run(train_classical.main, train_classical.Args, argv) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert message in said
