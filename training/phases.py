"""Fine-tuning given weights in three phases: the heads, the upper stages, everything.

The heads learn from feature maps that are computed once, of pictures as they are: a frozen trunk says the same of them
in every epoch, and sixteen augmented epochs would take as long as all that comes later. The trunk's first
gradients would otherwise come from heads that know nothing yet (Kumar et al. 2022, arXiv 2202.10054); the deeper a
stage lies below the heads, the slower it moves (Howard & Ruder 2018, arXiv 1801.06146).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from tqdm import trange

from anomaly.detectors.two_heads import TwoHeadDetector
from anomaly.errors import DataError
from training.loop import Phase
from training.pictures import Pictures

TRUNK = "net."  # what a classifier's parameters begin with that came with the weights
NAMES = ("heads", "upper stages", "everything")
# Of the learning rate, phase by phase. At half of it and with heads that had seen one epoch MobileNetV2 ended up with
# one answer to all pictures; at a fifth, and heads of fifteen epochs, its macro F1 was .85 after seven.
FACTORS = (1.0, 0.3, 0.15)
SHARES = {200: (15, 20, 20), 5_000: (6, 6, 12)}  # training pictures -> epochs of each phase
_MOST_BYTES = 2_000_000_000  # of feature maps kept
_MANY = 1_000  # from here on as for 5,000: between the two in their ratio (the geometric mean of 200 and 5,000)


def phase_lengths(count: int, given: tuple[int, ...] | None, bound: int | None) -> tuple[int, ...]:
    """Epochs of each phase, at the most.

    Args:
        count: training pictures in an epoch.
        given: the lengths asked for, else those of `SHARES`.
        bound: of all phases together; the lengths are shortened or stretched to it in proportion.

    Returns:
        Three lengths, some of them 0 where the bound is small.

    Raises:
        DataError: lengths that are not three, or that add up to nothing.
    """
    if given is not None and (len(given) != len(NAMES) or min(given) < 0 or not sum(given)):
        raise DataError(f"phases must be the epochs of {', '.join(NAMES)}, for example 15 20 20, not {given}")
    lengths = given or SHARES[5_000 if count >= _MANY else 200]
    if bound is None:
        return lengths
    ends = [round(bound * sum(lengths[: index + 1]) / sum(lengths)) for index in range(len(lengths))]
    return tuple(end - start for start, end in pairwise([0, *ends]))


def stages(net: nn.Module) -> dict[str, int]:
    """How deep each parameter of a timm network lies: 0 is the stem; what is behind the last stage counts as it."""
    from timm.models import group_parameters

    depths: dict[str, int] = group_parameters(net, net.group_matcher(coarse=True), reverse=True)  # type: ignore[operator]
    return depths


def fine_tuning(detector: TwoHeadDetector, lengths: tuple[int, ...], rate: float, decay: float) -> list[Phase]:
    """The phases of a classifier on a timm network; one of length 0 is left out.

    Args:
        detector: with the weights to start from.
        lengths: epochs of each phase.
        rate: of the heads in the first phase; `FACTORS` of it later on.
        decay: a stage's rate is `decay` times that of the one above it; the heads lie above the last stage.

    Returns:
        Phases for `fit`. Of a network with stages 0..n the upper ones are those above n / 2: 5 to 7 of EfficientNet's,
        its blocks 1 to 4 and the stem are frozen until the third phase.
    """
    depths = stages(detector.net)  # type: ignore[arg-type]
    last = max(depths.values())
    heads = last + 1
    of = {
        name: depths[name.removeprefix(TRUNK)] if name.startswith(TRUNK) else heads
        for name, _ in detector.named_parameters()
    }
    lowest = (heads, -(-last // 2) + 1, 0)
    return [
        Phase(name, epochs, _rates(of, start, rate * factor, decay))
        for name, epochs, start, factor in zip(NAMES, lengths, lowest, FACTORS, strict=True)
        if epochs > 0
    ]


def _rates(depths: Mapping[str, int], lowest: int, rate: float, decay: float) -> dict[str, float]:
    top = max(depths.values())
    return {name: rate * decay ** (top - depth) for name, depth in depths.items() if depth >= lowest}


def trunk_is_frozen(detector: TwoHeadDetector) -> bool:
    """Whether only the heads are being trained."""
    return not any(value.requires_grad for name, value in detector.named_parameters() if name.startswith(TRUNK))


class FrozenMaps:
    """Feature maps of pictures as they are, from a trunk that is frozen; computed when first asked for."""

    CHUNK = 32  # always the same pictures together: in another batch a convolution differs in its last bits

    def __init__(self, detector: TwoHeadDetector, pictures: Pictures) -> None:
        self._detector, self._pictures = detector, pictures
        self._kept: Tensor | None = None

    def batch(self, indices: Sequence[int]) -> Tensor:
        """(len(indices), C, h, w) float32, on the CPU."""
        if self._kept is None:
            starts = trange(0, len(self._pictures), self.CHUNK, desc="feature maps", leave=False, disable=None)
            self._kept = torch.cat([self._chunk(range(start, start + self.CHUNK)) for start in starts])
        return self._kept[list(indices)].float()

    def fit_into_memory(self) -> bool:
        """Whether they are small enough to be kept. Leaves the detector in evaluation mode."""
        self._detector.eval()
        return self._chunk(range(1)).nbytes * len(self._pictures) <= _MOST_BYTES

    @torch.no_grad()
    def _chunk(self, indices: range) -> Tensor:
        device = next(self._detector.parameters()).device
        images = self._pictures.batch(range(indices.start, min(indices.stop, len(self._pictures)))).to(device)
        return self._detector.feature_map(normalised(images, self._detector)).half().cpu()


def normalised(images: Tensor, detector: TwoHeadDetector) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> what the network was trained on."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (detector.config.mean, detector.config.std))
    return (images - mean) / std
