"""Fine-tuning given weights in three phases: the heads, the upper stages, everything.

The trunk's first gradients would otherwise come from heads that know nothing yet (Kumar et al. 2022, arXiv 2202.10054);
the deeper a stage lies below the heads, the slower it moves (Howard & Ruder 2018, arXiv 1801.06146).
"""

from collections.abc import Mapping

from torch import nn

from anomaly.detectors.two_heads import TwoHeadDetector
from anomaly.errors import DataError
from training.loop import Phase

TRUNK = "net."  # what a classifier's parameters begin with that came with the weights
NAMES = ("heads", "upper stages", "everything")
FACTORS = (1.0, 0.5, 0.25)  # of the learning rate, phase by phase
SHARES = {200: (10, 20, 20), 5_000: (2, 6, 12)}  # training pictures -> epochs of each phase
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
        raise DataError(f"phases must be the epochs of {', '.join(NAMES)}, for example 10 20 20, not {given}")
    lengths = given or SHARES[5_000 if count >= _MANY else 200]
    if bound is None:
        return lengths
    ends = [round(bound * sum(lengths[: index + 1]) / sum(lengths)) for index in range(len(lengths))]
    return tuple(end - start for start, end in zip([0, *ends], ends, strict=False))


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
