"""Fitted models of scikit-learn and xgboost -> the tensors that anomaly/detectors/classical.py evaluates."""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly.detectors.classical import Boosted, Forest, SupportVectors

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import SVC
    from xgboost import XGBClassifier

Floats = NDArray[np.float32]


def support_vectors(machine: "SVC", temperature: float = 1.0) -> SupportVectors:
    """The tensors of a fitted SVC. Its rows of coefficients, one for each *other* class, become one for each pair."""
    ends = np.cumsum(machine.n_support_)
    of_class = [slice(end - count, end) for end, count in zip(ends, machine.n_support_, strict=True)]
    pairs = [(i, j) for i in range(len(ends)) for j in range(i + 1, len(ends))]
    dual = np.zeros((len(pairs), ends[-1]))
    for row, (i, j) in zip(dual, pairs, strict=True):
        row[of_class[i]] = machine.dual_coef_[j - 1, of_class[i]]
        row[of_class[j]] = machine.dual_coef_[i, of_class[j]]
    sign = 1 if len(pairs) == 1 else -1  # with two classes scikit-learn has turned the sign already
    return SupportVectors(
        torch.from_numpy(machine.support_vectors_).float(),
        torch.from_numpy(sign * dual),
        torch.from_numpy(sign * machine.intercept_),
        torch.tensor(machine._gamma, dtype=torch.float64),
        torch.tensor(temperature, dtype=torch.float64),
    )


def forest_tensors(forest: "RandomForestClassifier") -> Forest:
    """The tensors of a fitted forest."""
    every = [estimator.tree_ for estimator in forest.estimators_]
    floor = [_floor(tree.threshold) for tree in every]
    shares = [tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True) / len(every) for tree in every]
    return Forest(
        *_flat(
            [tree.feature for tree in every],
            [np.nextafter(threshold, np.float32(np.inf)) for threshold in floor],  # x <= t is x < the next float32
            [tree.children_left for tree in every],
            [tree.children_right for tree in every],
            shares,
        ),
        torch.zeros(len(forest.classes_)),
    )


def _floor(values: NDArray[np.float64]) -> Floats:
    """The largest float32 that is not above."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


def boosted_tensors(model: "XGBClassifier") -> Boosted:
    """The tensors of fitted boosted trees, from xgboost's own JSON."""
    learner = json.loads(model.get_booster().save_raw("json"))["learner"]
    ensemble = learner["gradient_booster"]["model"]
    classes = max(2, int(learner["learner_model_param"]["num_class"]))
    start = json.loads(learner["learner_model_param"]["base_score"])
    base = [0.0, math.log(start[0] / (1 - start[0]))] if classes == 2 else start  # for two a probability, else margins
    thresholds = [np.array(tree["split_conditions"], np.float32) for tree in ensemble["trees"]]
    values = []
    for leaf, group in zip(thresholds, ensemble["tree_info"], strict=True):
        values.append(np.zeros((len(leaf), classes), np.float32))
        values[-1][:, 1 if classes == 2 else group] = leaf
    columns = [[np.array(tree[name]) for tree in ensemble["trees"]] for name in ("split_indices", "left_children")]
    right = [np.array(tree["right_children"]) for tree in ensemble["trees"]]
    return Boosted(*_flat(columns[0], thresholds, columns[1], right, values), torch.tensor(base, dtype=torch.float32))


def _flat(
    feature: Sequence[NDArray[Any]],
    threshold: Sequence[Floats],
    left: Sequence[NDArray[Any]],
    right: Sequence[NDArray[Any]],
    value: Sequence[NDArray[Any]],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Trees one behind the other; a leaf, -1 for both libraries, becomes its own child, and what is no leaf adds 0."""
    sizes = np.array([len(nodes) for nodes in left])
    roots = np.cumsum(sizes) - sizes
    own = np.arange(sizes.sum())
    leaf = np.concatenate(left) < 0
    offset = np.repeat(roots, sizes)
    numbers = {
        "feature": np.where(leaf, 0, np.concatenate(feature)),
        "left": np.where(leaf, own, np.concatenate(left) + offset),
        "right": np.where(leaf, own, np.concatenate(right) + offset),
    }
    links = {name: torch.from_numpy(array.astype(np.int32)) for name, array in numbers.items()}
    cuts = torch.from_numpy(np.where(leaf, np.float32(0), np.concatenate(threshold)))
    adds = torch.from_numpy(np.where(leaf[:, None], np.concatenate(value), 0).astype(np.float32))
    return links["feature"], cuts, links["left"], links["right"], adds, torch.from_numpy(roots.astype(np.int32))
