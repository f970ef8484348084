"""Otsu's threshold (Otsu 1979, doi 10.1109/TSMC.1979.4310076) of scores, exactly: no histogram.

Shown beside the calibrated thresholds, never used for decisions: it splits whatever it is given into two groups of
small variance, says nothing of how often it is wrong, and splits good pictures alone just as readily.
"""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import JsonValue


def otsu_threshold(scores: Sequence[float]) -> float | None:
    """The cut with the largest variance between the two groups; of equally good ones the lowest.

    Args:
        scores: finite, in any order.

    Returns:
        Half-way between the two scores next to the cut, so that score >= value is the upper group; None where all
        scores are equal and there is nothing to cut.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    if len(ordered) == 0 or ordered[0] == ordered[-1]:
        return None
    centred = ordered - ordered.mean()
    below = np.arange(1, len(ordered))  # how many lie below each cut
    sums = np.cumsum(centred)[:-1]
    # n0 n1 (m1 - m0)^2 with m0 = sum / n0 and m1 = -sum / n1 is n^2 sum^2 / (n0 n1)
    between = sums**2 / (below * (len(ordered) - below))
    between[ordered[1:] == ordered[:-1]] = -math.inf  # equal scores cannot be cut apart
    cut = int(between.argmax())
    lower, upper = float(ordered[cut]), float(ordered[cut + 1])
    middle = lower + (upper - lower) / 2
    return middle if middle > lower else upper  # between neighbouring floats there is nothing


def otsu_settings(good: Sequence[float], defects: Sequence[float]) -> dict[str, JsonValue]:
    """Otsu's threshold of held-out scores and what it does on them, for a run's settings.

    Args:
        good: scores of good pictures that were not trained on.
        defects: scores of defects that were not trained on; may be empty.
    """
    value = otsu_threshold([*good, *defects])
    if value is None:
        return {"otsu": f"none: all {len(good) + len(defects)} held-out scores are equal"}
    rejected, missed = sum(score >= value for score in good), sum(score < value for score in defects)
    on_defects = f"{missed} of {len(defects)} defects missed"
    return {
        "otsu_threshold": value,
        "otsu_on_calibration": f"{rejected} of {len(good)} good rejected, "
        + (on_defects if defects else "no defects held out: it only splits the good"),
    }
