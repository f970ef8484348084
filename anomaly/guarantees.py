"""What the counts behind a threshold can promise: on average, and with 95 % confidence. Said in words.

Two figures, for k of n held-out parts on the wrong side of a cut, assuming that later parts are like those (that all
are exchangeable):

- on average over such draws of held-out parts, the share of later parts on the wrong side is no more than
  (k + 1)/(n + 1) (split conformal; Vovk et al. 2005);
- with 95 % confidence over such draws it is no more than the upper end of Clopper and Pearson's one-sided interval
  (1934), which solves P(Binomial(n, share) <= k) = 0.05; with k = 0 that is 1 - 0.05**(1/n).

They hold for a cut that was set without looking at these parts, and for one that is an order statistic of them whose
rank was fixed beforehand. Then the share has a Beta(k + 1, n - k) distribution, and its 95 % quantile (a tolerance
limit, Wilks 1941) is that very Clopper-Pearson bound. So, threshold by threshold:

- `far`, false alarms: an order statistic of the good scores; the level alone fixes its rank. Both figures hold, with
  the k that the level allows; where good scores tie, fewer than that were rejected.
- `far`, misses: it did not look at the defects. Both figures hold.
- `safe`, misses: no higher than the lowest defect, the first order statistic. Both hold, k = 0.
- `safe`, false alarms: the lowest defect did not look at the good parts, but the cut lies half-way from it down to the
  next good one. That one is counted as rejected, too: then the average holds, and the confidence, computed for n up to
  500 and every share, is at least 95 %.
- `f1`, `f2`, `youden`: chosen by these very counts. No promise.

Each holds for one threshold of one member on its own, not for all at once, nor for the best of several that were
compared.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from anomaly.calibration import Calibration, Threshold, ThresholdName
from anomaly.reasons import comma

CONFIDENCE = 0.95

Side = Literal["misses", "false_alarms"]
Text = dict[Literal["en", "fr"], str]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Promise(_Frozen):
    """What k of n held-out parts support; without a promise both figures are None and the text says why."""

    side: Side
    count: int  # held-out parts on the wrong side
    of: int  # held-out parts
    counted_as: int  # k of the figures: >= count
    mean: float | None  # share of later parts, on average
    upper: float | None  # with CONFIDENCE
    text: Text


class Guarantee(_Frozen):
    """Of one threshold of one member."""

    threshold: ThresholdName
    misses: Promise
    false_alarms: Promise


def guarantees(calibration: Calibration) -> dict[ThresholdName, Guarantee]:
    """What each threshold of a calibration promises, in the order of its thresholds."""
    return {name: guarantee(calibration, name) for name in calibration.thresholds}


def guarantee(calibration: Calibration, name: ThresholdName) -> Guarantee:
    """What one threshold promises.

    Raises:
        KeyError: the calibration has no such threshold.
    """
    threshold = calibration.thresholds[name]
    missed = sum(score < threshold.value for score in calibration.defect_scores)
    rejected = sum(score >= threshold.value for score in calibration.good_scores)
    defects, good = len(calibration.defect_scores), len(calibration.good_scores)
    misses, false_alarms = chosen("misses", missed, defects), chosen("false_alarms", rejected, good)
    if name == "far":
        misses = promise("misses", missed, defects)
        if (allowed := _allowed(threshold, good)) is not None and rejected <= allowed:
            false_alarms = promise("false_alarms", rejected, good, counted_as=allowed)
    elif name == "safe" and not missed:
        misses = promise("misses", 0, defects)
        leans = int(rejected < good)  # else there is no good part below the lowest defect to lean on
        false_alarms = promise("false_alarms", rejected, good, counted_as=rejected + leans)
    return Guarantee(threshold=name, misses=misses, false_alarms=false_alarms)


def mean_share(count: int, of: int) -> float:
    """(k + 1)/(n + 1): at least the share of later parts on the wrong side, on average. 1 without any held-out part."""
    return (count + 1) / (of + 1)


def upper_share(count: int, of: int, confidence: float = CONFIDENCE) -> float:
    """Clopper and Pearson's one-sided upper bound of a share; 1 where all, or no, parts count."""
    if count >= of:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(count + 1, of - count, confidence))


def two_sided(count: int, of: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share, both sides together; `of` is at least 1."""
    side = 1 - (1 - CONFIDENCE) / 2
    return 1 - upper_share(of - count, of, side), upper_share(count, of, side)


def promise(side: Side, count: int, of: int, counted_as: int | None = None) -> Promise:
    """For a cut that did not look at these parts, or that is an order statistic of them.

    Args:
        side: which of the two errors.
        count: held-out parts on the wrong side.
        of: held-out parts; 0 is said in words.
        counted_as: where the figures have to count more.
    """
    k = count if counted_as is None else counted_as
    if of == 0:
        return Promise(side=side, count=0, of=0, counted_as=0, mean=None, upper=None, text=_NONE[side])
    mean, upper = mean_share(k, of), upper_share(k, of)
    fraction = "1/({n}+1)" if k == 0 else "(k+1)/({n}+1)"
    letter = "m" if side == "misses" else "n"
    en, fr = _counted(side, count, of)
    if k != count:
        en, fr = f"{en} (counted as {k})", f"{fr} (compte pour {k})"
    error_en, error_fr = _ERRORS[side]
    text: Text = {
        "en": f"{en}: {_percent(mean)} {error_en} is what this supports on average "
        f"({fraction.format(n=letter)}, split conformal), at most {_percent(upper)} with 95 % confidence "
        "(Clopper-Pearson); assumes parts like those.",
        "fr": f"{fr} : {_pour_cent(mean)} {error_fr}, voilà ce que cela soutient en moyenne "
        f"({fraction.format(n=letter)}, prédiction conforme), au plus {_pour_cent(upper)} avec 95 % de confiance "
        "(Clopper-Pearson) ; suppose des pièces comme celles-là.",
    }
    return Promise(side=side, count=count, of=of, counted_as=k, mean=mean, upper=upper, text=text)


def chosen(side: Side, count: int, of: int) -> Promise:
    """For a cut that was chosen by these counts."""
    if of == 0:
        return promise(side, count, of)
    en, fr = _counted(side, count, of)
    text: Text = {
        "en": f"{en}: these counts chose the threshold, no promise.",
        "fr": f"{fr} : ces comptes ont choisi le seuil, aucune promesse.",
    }
    return Promise(side=side, count=count, of=of, counted_as=count, mean=None, upper=None, text=text)


_ERRORS: dict[Side, tuple[str, str]] = {
    "misses": ("missed", "de défauts manqués"),
    "false_alarms": ("of good parts rejected", "de bonnes pièces rejetées"),
}
_NONE: dict[Side, Text] = {
    "misses": {
        "en": "No labelled defect was held out: nothing is known of what it misses.",
        "fr": "Aucun défaut étiqueté n'a été mis de côté : on ne sait rien de ce qu'il manque.",
    },
    "false_alarms": {
        "en": "No good part was held out: nothing is known of its false alarms.",
        "fr": "Aucune bonne pièce n'a été mise de côté : on ne sait rien de ses fausses alarmes.",
    },
}


def _allowed(threshold: Threshold, good: int) -> int | None:
    """How many of the good parts the level of a `far` threshold lets it reject; None without a level."""
    if threshold.level is None:
        return None
    level = threshold.level
    return max(0, sum((1 + above) / (good + 1) <= level for above in range(good)) - 1)


def _counted(side: Side, count: int, of: int) -> tuple[str, str]:
    s, ones = "s" if count > 1 else "", "ones" if of > 1 else "one"
    if side == "misses":
        en = f"{count or 'No'} defect{s} missed among {of} held-out {ones}"
        return en, f"{count or 'Aucun'} défaut{s} manqué{s} sur {of} mis de côté"
    en = f"{count or 'No'} good part{s} rejected among {of} held-out {ones}"
    return en, f"{count or 'Aucune'} bonne{s} pièce{s} rejetée{s} sur {of} mise{'s' if of > 1 else ''} de côté"


def _percent(share: float) -> str:
    """One decimal; two digits where that would say 0."""
    percent = 100 * share
    return "100 %" if percent >= 99.95 else f"{percent:.1f} %" if percent >= 0.095 else f"{percent:.2g} %"


def _pour_cent(share: float) -> str:
    return comma(_percent(share))
