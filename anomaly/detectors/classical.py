"""Support vectors (Cortes & Vapnik 1995), a random forest (Breiman 2001) or boosted trees (Chen & Guestrin 2016, arXiv
1603.02754) on deep features (DeCAF, Donahue et al. 2014, arXiv 1310.1531).

Trained with scikit-learn and xgboost (training/train_classical.py), kept as tensors and evaluated here, without either.
Deviations: every tree asks `x < threshold`, with the threshold moved to the next float32 where scikit-learn asks
`x <= threshold`, which is the same question; an input that is no number gives a score that is no number, where the
libraries would send it down a default branch: a broken picture is no vote.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.backbones import Trunk, TrunkConfig
from anomaly.detectors.base import Detector, DetectorConfig, DetectorOutput, fitted, load_exactly

Pooling = Literal["mean", "max", "std"]
HeadName = Literal["svm", "forest", "xgboost"]

_UNSEEN = -30.0  # logit of a class that there was no training picture of
_LEAST = 1e-7  # share of votes below which a logarithm is cut off


class ClassicalConfig(DetectorConfig):
    trunk: TrunkConfig
    use_layers: tuple[int, ...] = Field(min_length=1)  # of the trunk's
    pooling: tuple[Pooling, ...] = Field(default=("mean",), min_length=1)  # over positions, stacked for each layer
    classes: tuple[str, ...] = Field(min_length=2)  # what is told apart, "good" first
    head: HeadName


class SupportVectors(nn.Module):
    """An RBF machine for each pair of classes (scikit-learn's SVC)."""

    TENSORS: ClassVar = ("support", "dual", "intercept", "gamma", "temperature")
    support: Tensor
    dual: Tensor
    intercept: Tensor
    gamma: Tensor
    temperature: Tensor

    def __init__(self, support: Tensor, dual: Tensor, intercept: Tensor, gamma: Tensor, temperature: Tensor) -> None:
        """Takes a fitted machine. float64 where sums over hundreds of support vectors cancel.

        Args:
            support: (S, d) float32.
            dual: (P, S) float64, a row for each pair of classes (0, 1), (0, 2), ...; zero for vectors of others.
            intercept: (P,) float64.
            gamma: () float64 of the kernel exp(-gamma |x - s|^2).
            temperature: () float64 > 0, in units of the decision function.
        """
        super().__init__()
        for name, value in zip(self.TENSORS, (support, dual, intercept, gamma, temperature), strict=True):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) -> decisions (B, P) float64, positive for the second class of a pair."""
        squared = torch.cdist(x.double(), self.support.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
        decisions: Tensor = F.linear(torch.exp(-self.gamma * squared), self.dual, self.intercept)
        return decisions

    def read(self, decisions: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The score: how far the picture is on the side of a defect, in the pair (good, type) that says so most.

        Class logits are soft votes: each pair gives its two classes log sigmoid(+-decision / temperature). With two
        classes their softmax is that sigmoid.
        """
        votes = decisions.new_zeros(len(decisions), classes)
        for pair, (first, second) in enumerate(combinations(range(classes), 2)):
            votes[:, first] += F.logsigmoid(-decisions[:, pair] / self.temperature)
            votes[:, second] += F.logsigmoid(decisions[:, pair] / self.temperature)
        return decisions[:, : classes - 1].amax(dim=1), votes

    def check(self, dims: int, classes: int) -> None:
        """Raises ValueError for tensors that are not those of a machine on `dims` features."""
        pairs = classes * (classes - 1) // 2
        count = len(self.support)
        shapes = {"support": (count, dims), "dual": (pairs, count), "intercept": (pairs,), "gamma": ()}
        _check_tensors(self, shapes | {"temperature": ()}, {"support": torch.float32}, torch.float64)
        if not (self.gamma > 0 and self.temperature > 0):
            raise ValueError(f"gamma {float(self.gamma)} and temperature {float(self.temperature)} must be above 0")


class Trees(nn.Module):
    """Decision trees, one behind the other in flat arrays; a sample goes left where x[feature] < threshold."""

    TENSORS: ClassVar = ("feature", "threshold", "left", "right", "value", "roots", "base")
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    roots: Tensor
    base: Tensor

    def __init__(
        self,
        feature: Tensor,
        threshold: Tensor,
        left: Tensor,
        right: Tensor,
        value: Tensor,
        roots: Tensor,
        base: Tensor,
    ) -> None:
        """Takes fitted trees.

        Args:
            feature: (M,) int32, which feature a node asks for.
            threshold: (M,) float32.
            left: (M,) int32, the node that follows; always a later one, and a leaf is its own child.
            right: (M,) int32, likewise.
            value: (M, K) float32, what a leaf adds to each class.
            roots: (T,) int32, ascending, the first 0: where each tree begins.
            base: (K,) float32, what is there before any tree.

        Raises:
            ValueError: these arrays are no trees.
        """
        super().__init__()
        for name, tensor in zip(self.TENSORS, (feature, threshold, left, right, value, roots, base), strict=True):
            self.register_buffer(name, tensor)
        nodes, classes = len(feature), base.numel()
        arrays = dict.fromkeys(("feature", "threshold", "left", "right"), (nodes,))
        shapes: dict[str, tuple[int, ...]] = {**arrays, "value": (nodes, classes), "roots": (len(roots),)}
        floats = dict.fromkeys(("threshold", "value", "base"), torch.float32)
        _check_tensors(self, shapes | {"base": (classes,)}, floats, torch.int32)
        _check_links(left.long(), right.long(), roots.long())
        self.depth = _depth(left.long(), right.long(), roots.long())

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) float32 -> (B, K) float64: base and the leaves of all trees, added up."""
        node = self.roots.expand(len(x), -1)  # (B, T)
        for _ in range(self.depth):  # a leaf leads to itself
            goes_left = x.gather(1, self.feature[node].long()) < self.threshold[node]
            node = torch.where(goes_left, self.left[node], self.right[node])
        return self.base.double() + self.value[node].sum(dim=1, dtype=torch.float64)

    def check(self, dims: int, classes: int) -> None:
        """Raises ValueError for trees that ask for a feature there is not, or speak of other classes."""
        if len(self.base) != classes:
            raise ValueError(f"the trees tell {len(self.base)} classes apart, there are {classes}")
        if not bool(((self.feature >= 0) & (self.feature < dims)).all()):
            raise ValueError(f"a tree asks for a feature outside 0 .. {dims - 1}")


class Forest(Trees):
    """scikit-learn's RandomForestClassifier: a leaf holds its classes' shares divided by the number of trees."""

    def read(self, shares: Tensor, _: int) -> tuple[Tensor, Tensor]:
        """The score: the share of the trees' votes for any defect, in [0, 1]. Logits: logarithms of all shares."""
        return shares[:, 1:].sum(dim=1), shares.clamp(min=_LEAST).log()


class Boosted(Trees):
    """xgboost's XGBClassifier: leaves add up to margins. With two classes that of good is 0."""

    def read(self, margins: Tensor, _: int) -> tuple[Tensor, Tensor]:
        """The score: the log-odds of any defect against good. Logits: the margins."""
        return margins[:, 1:].logsumexp(dim=1) - margins[:, 0], margins


Head = SupportVectors | Forest | Boosted
HEADS: dict[HeadName, type[SupportVectors] | type[Forest] | type[Boosted]] = {
    "svm": SupportVectors,
    "forest": Forest,
    "xgboost": Boosted,
}


class Classical(Detector):
    """A frozen trunk, pooled and standardised features, and a head that was fitted on labelled pictures. No heatmap.

    The score's units are the head's: see its `read`. The softmax of the class logits is the forest's or xgboost's own
    class probability; for the SVM it is that of soft votes, at a temperature chosen by cross-validation.
    """

    kind = "classical"
    config_type = ClassicalConfig
    config: ClassicalConfig
    trunk: Trunk
    mean: Tensor
    scale: Tensor
    known: Tensor

    def __init__(
        self, config: ClassicalConfig, trunk: Trunk, mean: Tensor, scale: Tensor, known: Tensor, head: Head
    ) -> None:
        """Takes what was fitted.

        Args:
            config: settings.
            trunk: the frozen trunk the features come from.
            mean: (d,) float32 of the pooled features.
            scale: (d,) float32 > 0, their standard deviation.
            known: (K,) int64, ascending from 0: which of `config.classes` the head was trained on.
            head: on standardised features, for K classes.

        Raises:
            ValueError: these do not fit each other.
        """
        super().__init__(config)
        if mean.ndim != 1 or scale.shape != mean.shape or {mean.dtype, scale.dtype} != {torch.float32}:
            raise ValueError(f"mean {tuple(mean.shape)} and scale {tuple(scale.shape)} must be (d,) of float32")
        if not bool((scale > 0).all()):
            raise ValueError("scale holds a number that is not above 0")
        if (
            known.ndim != 1
            or known.dtype != torch.int64
            or len(known) < 2
            or int(known[0]) != 0
            or not bool((known.diff() > 0).all())
            or int(known[-1]) >= len(config.classes)
        ):
            raise ValueError(f"known must be classes 0 < ... < {len(config.classes)}, not {known.tolist()}")
        if type(head) is not HEADS[config.head]:
            raise ValueError(f"head {config.head!r} is not a {type(head).__name__}")
        head.check(len(mean), len(known))
        self.trunk = trunk
        self.head = head
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("known", known)

    @property
    def layers(self) -> frozenset[int]:
        return frozenset(self.config.use_layers)

    def predict_from(self, inputs: Mapping[int, Tensor], size: tuple[int, int]) -> DetectorOutput:
        vectors = pooled([inputs[layer] for layer in self.config.use_layers], self.config.pooling)
        scores, logits = self.head.read(self.head((vectors - self.mean) / self.scale), len(self.known))
        no_number = (vectors - vectors).sum(dim=1)  # 0, or NaN where there is NaN or infinity
        class_logits = vectors.new_full((len(vectors), len(self.config.classes)), _UNSEEN)
        class_logits[:, self.known] = logits.float()
        return DetectorOutput(scores=scores.float() + no_number, class_logits=class_logits)

    @classmethod
    def from_state(cls, config: DetectorConfig, state: dict[str, Tensor]) -> Self:
        assert isinstance(config, ClassicalConfig)
        kind = HEADS[config.head]
        head = kind(*fitted(state, *(f"head.{name}" for name in kind.TENSORS)))
        mean, scale, known = fitted(state, "mean", "scale", "known")
        detector = cls(config, Trunk(config.trunk), mean, scale, known, head)
        load_exactly(detector, state)
        return detector


def pooled(maps: Sequence[Tensor], pooling: Sequence[str]) -> Tensor:
    """(B, C, h, w) of each layer -> (B, d): every pooling of the first layer, then of the second ..."""
    vectors = []
    for flat in (m.flatten(2) for m in maps):
        found = {"mean": flat.mean(dim=2), "max": flat.amax(dim=2), "std": flat.std(dim=2, correction=0)}
        vectors += [found[name] for name in pooling]
    return torch.cat(vectors, dim=1)


def _check_tensors(
    module: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, torch.dtype],
    otherwise: torch.dtype,
) -> None:
    for name, shape in shapes.items():
        found, wanted = module.get_buffer(name), types.get(name, otherwise)
        if tuple(found.shape) != shape or found.dtype != wanted or 0 in shape:
            raise ValueError(f"{name} is {found.dtype} {tuple(found.shape)}, expected {wanted} {shape}")


def _check_links(left: Tensor, right: Tensor, roots: Tensor) -> None:
    """Each tree a contiguous block, children behind their parent, every node reached once: nothing goes in circles."""
    nodes = len(left)
    own = torch.arange(nodes)
    if int(roots[0]) != 0 or not bool((roots.diff() > 0).all()) or int(roots[-1]) >= nodes:
        raise ValueError(f"roots must ascend from 0 to below {nodes}")
    for name, child in (("left", left), ("right", right)):
        if not bool(((child >= own) & (child < nodes)).all()):
            raise ValueError(f"{name} leads to a node that is not behind its parent, or to none of the {nodes}")
    inner = left != own
    if not torch.equal(inner, right != own):
        raise ValueError("a node has one child; it must have two, or be a leaf")
    children = torch.cat([left[inner], right[inner]])
    parents = own[inner].repeat(2)
    tree = torch.searchsorted(roots, own, right=True)
    if not torch.equal(tree[children], tree[parents]):
        raise ValueError("a child lies in another tree")
    expected = torch.ones(nodes, dtype=torch.int64).index_fill_(0, roots, 0)
    if not torch.equal(torch.bincount(children, minlength=nodes), expected):
        raise ValueError("a node has two parents, or none and is no root")


def _depth(left: Tensor, right: Tensor, roots: Tensor) -> int:
    depth, level = 0, roots
    while len(level := level[left[level] != level]):
        level = torch.cat([left[level], right[level]])
        depth += 1
    return depth
