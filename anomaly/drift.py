"""Has production moved? A conformal test martingale over one detector's scores (Vovk et al. 2003, 2021, arXiv
2102.10439), and the two-sample Kolmogorov-Smirnov test on the latest parts.

The p-values of the votes all stand on one fixed calibration set: they are not independent of each other, and a
martingale that bets against them ends up finding that this finite set is not quite the production it was drawn from.
So each part is ranked anew, among the calibration scores AND all parts before it, ties broken at random (smoothed
online conformal p-values). As long as calibration and production can be exchanged these are independent and uniform,
for any number of calibration scores, and no betting strategy turns them into money:

    P(the martingale ever reaches 1 / level) <= level                                    (Ville's inequality)

Defects are not exchangeable with good parts, and a line makes some. So the stream is cut at an upper calibration score:

*body*  the parts below the cut, ranked among the calibration scores below it. Given the cut these are good parts that
        can be exchanged; defects above the cut are not seen here. Bets: the Simple Jumper, slopes up to 2 both ways.
*tail*  how many parts lie above the cut. The share of good parts that do is known from the calibration up to its size
        (the exact Clopper-Pearson bound takes half of the level), plus the `prevalence` of defects that is allowed.
        Bets: likelihood ratios against any higher share. This notices a move so large that no body is left.

The alarm is the mean of the two martingales reaching 2 / level. What is promised: on good parts like those held out,
with at most `prevalence` defects, all above the cut, P(ever an alarm) <= level. What is not: defects below the cut are
in the body; benchmarks/drift_false_alarms.py shows what some of them do. A defect rate above `prevalence` is an alarm,
too: from scores alone it cannot be told from production moving up.

The Kolmogorov-Smirnov test says whether the latest parts differ from the calibration. One look promises its level; many
looks do not, so it explains an alarm and never makes one.
"""

import hashlib
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from anomaly.errors import CalibrationError
from anomaly.policy import Text
from anomaly.reasons import comma

LEAST_REFERENCE = 10
_TAIL = 0.05  # share of the calibration scores above the cut
_JUMP = 0.01  # share of the money that changes its bet after each part, so that a late change is noticed, too
_SLOPES = (-2.0, -1.0, 0.0, 1.0, 2.0)  # bet 1 + slope * (p - 1/2); small p = high score
_EXCESS = (0.0, 0.2, 0.8)  # how far between the share that is allowed and 1 the share above the cut is bet to be


class DriftSettings(BaseModel):
    """What may be chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(default=100, ge=10)  # latest parts that the Kolmogorov-Smirnov test looks at
    level: float = Field(default=0.01, gt=0, lt=1)  # probability that a stream without drift ever sets off the alarm
    prevalence: float = Field(default=0.05, ge=0, lt=0.5)  # share of defects that is usual


class Purse(BaseModel):
    """A martingale: money spread over bets."""

    shares: list[float]  # of the money on each bet; sum 1
    log_money: float = 0.0  # natural logarithm; 0 at the start

    @classmethod
    def over(cls, bets: Sequence[float]) -> Self:
        """Evenly spread."""
        return cls(shares=[1 / len(bets)] * len(bets))

    def bet(self, factors: Sequence[float]) -> None:
        """Some money changes its bet, then each bet is multiplied by its factor."""
        even = _JUMP / len(factors)
        money = [((1 - _JUMP) * share + even) * factor for share, factor in zip(self.shares, factors, strict=True)]
        total = sum(money)
        self.shares = [amount / total for amount in money]
        self.log_money += math.log(total)


class Drift(BaseModel):
    """The state of a monitor of one detector at one commit on one category. JSON, to go on with at any time.

    It keeps every score below the cut: some 20 bytes a part.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    settings: DriftSettings
    cut: float  # a calibration score
    allowed: float  # share of parts above the cut that is no alarm
    reference: list[float]  # calibration scores below the cut, ascending
    bag: list[float]  # these and all parts below the cut so far, ascending
    latest: list[float] = []  # scores in the order of time, at most `window`
    body: Purse = Field(default_factory=lambda: Purse.over(_SLOPES))
    tail: Purse = Field(default_factory=lambda: Purse.over(_EXCESS))
    parts: int = 0
    above: int = 0  # parts above the cut
    above_since: int = 0  # of them, parts since `since`
    log_maximum: float = 0.0  # of the martingale
    log_minimum: float = 0.0  # until the alarm
    since: int = 1  # the part after the minimum, counted from 1: where a change most likely began
    since_at: str = ""
    noticed: int | None = None  # the part that set off the alarm
    noticed_at: str = ""
    direction: Literal["up", "down"] | None = None  # of the scores, as judged then


class Finding(BaseModel):
    """What a monitor says."""

    model_config = ConfigDict(frozen=True)

    parts: int
    above: int  # parts above the cut
    reference: int  # calibration scores below the cut
    martingale: float  # now
    maximum: float
    alarm_at: float  # the maximum that is an alarm
    drift: bool
    direction: Literal["up", "down"] | None
    since: int | None  # part, counted from 1; an estimate
    since_at: str | None
    noticed: int | None
    noticed_at: str | None
    ks_p: float | None  # of the latest parts; None before there are `window`, or where most are above the cut
    text: Text


def begin(good: Sequence[float], settings: DriftSettings | None = None) -> Drift:
    """A monitor that has seen no part yet.

    Args:
        good: scores of held-out good parts, in any order.
        settings: the default ones if None.

    Raises:
        CalibrationError: there are fewer than `LEAST_REFERENCE`, or one of them is not finite.
    """
    from scipy.special import betaincinv

    chosen = settings or DriftSettings()
    ordered = sorted(map(float, good))
    if len(ordered) < LEAST_REFERENCE or not all(map(math.isfinite, ordered)):
        raise CalibrationError(
            f"a drift monitor needs the finite scores of at least {LEAST_REFERENCE} good parts, there are "
            f"{sum(map(math.isfinite, ordered))}: calibrate with more"
        )
    beyond = max(1, int(_TAIL * len(ordered)))
    cut = ordered[-beyond]
    # the share of good parts above the k-th highest of n scores is Beta(k, n + 1 - k), less where scores are tied
    most = float(betaincinv(beyond, len(ordered) + 1 - beyond, 1 - chosen.level / 2))
    reference = ordered[: bisect_left(ordered, cut)]
    return Drift(
        settings=chosen,
        cut=cut,
        allowed=chosen.prevalence + (1 - chosen.prevalence) * most,
        reference=reference,
        bag=list(reference),
    )


def observe(drift: Drift, score: float, *, at: str = "", key: str = "") -> None:
    """Takes in one part, in the order of production.

    Args:
        drift: is changed.
        score: finite, in the detector's units.
        at: when, in words or ISO 8601, to be said where a change began.
        key: of the record; breaks ties at random, the same for the same record.

    Raises:
        ValueError: the score is not finite.
    """
    if not math.isfinite(score):
        raise ValueError(f"a score of {score} is a failure of the detector, not a part")
    log_money = _log_money(drift)
    if drift.noticed is None and log_money <= drift.log_minimum:
        drift.log_minimum, drift.since, drift.since_at = log_money, drift.parts + 1, at
        drift.above_since = 0
    drift.parts += 1
    above = score > drift.cut
    drift.above += above
    drift.above_since += above
    drift.latest = [*drift.latest[1 - drift.settings.window :], score]
    drift.tail.bet([_excess_factor(excess, drift.allowed, above) for excess in _EXCESS])
    if score < drift.cut:
        p = _smoothed_p(drift.bag, score, _uniform(f"{drift.parts}|{key}"))
        drift.body.bet([1 + slope * (p - 0.5) for slope in _SLOPES])
        insort(drift.bag, score)
    log_money = _log_money(drift)
    drift.log_maximum = max(drift.log_maximum, log_money)
    if drift.noticed is None and log_money >= math.log(_alarm_at(drift)):
        drift.noticed, drift.noticed_at = drift.parts, at
        drift.direction = "up" if drift.tail.log_money > drift.body.log_money else _direction(drift.body)


def finding(drift: Drift) -> Finding:
    """What the parts so far say."""
    alarm = drift.noticed is not None
    ks_p = latest_p(drift)
    maximum = math.exp(min(drift.log_maximum, 700))
    return Finding(
        parts=drift.parts,
        above=drift.above,
        reference=len(drift.reference),
        martingale=math.exp(min(_log_money(drift), 700)),
        maximum=maximum,
        alarm_at=_alarm_at(drift),
        drift=alarm,
        direction=drift.direction,
        since=drift.since if alarm else None,
        since_at=(drift.since_at or None) if alarm else None,
        noticed=drift.noticed,
        noticed_at=drift.noticed_at or None,
        ks_p=ks_p,
        text=_text(drift, maximum, ks_p),
    )


def latest_p(drift: Drift) -> float | None:
    """p-value of the two-sample Kolmogorov-Smirnov test, latest parts against calibration, both below the cut.

    Exact for finite samples; with ties it errs on the side of no alarm. None before there are `window` parts, where
    most of them are above the cut, or where the calibration scores are so tied that none is below it.
    """
    from scipy.stats import ks_2samp

    below = [score for score in drift.latest if score < drift.cut]
    if len(drift.latest) < drift.settings.window or 2 * len(below) < len(drift.latest) or not drift.reference:
        return None
    return float(ks_2samp(below, drift.reference, method="exact").pvalue)


def _alarm_at(drift: Drift) -> float:
    return 2 / drift.settings.level  # the other half of the level pays for not knowing the share above the cut


def _log_money(drift: Drift) -> float:
    """Of the mean of the two martingales."""
    high, low = sorted((drift.body.log_money, drift.tail.log_money), reverse=True)
    return high + math.log1p(math.exp(low - high)) - math.log(2)


def _direction(body: Purse) -> Literal["up", "down"]:
    """Where the money is: a bet of negative slope gains from small p-values, that is high scores."""
    return "up" if sum(slope * share for slope, share in zip(_SLOPES, body.shares, strict=True)) < 0 else "down"


def _smoothed_p(bag: list[float], score: float, uniform: float) -> float:
    """Rank of the next score among the earlier ones, in (0, 1): small = high. Uniform if they can be exchanged."""
    end = bisect_right(bag, score)
    equal = end - bisect_left(bag, score)
    return (len(bag) - end + uniform * (equal + 1)) / (len(bag) + 1)


def _excess_factor(excess: float, allowed: float, above: bool) -> float:
    """Likelihood ratio of a share between `allowed` (excess 0) and 1; at most 1 on average for any lower share."""
    return 1 + excess * (1 - allowed) / allowed if above else 1 - excess


def _uniform(key: str) -> float:
    """In (0, 1), from a hash: whoever goes through the same records gets the same."""
    return (int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) + 0.5) / 2**64


def _text(drift: Drift, maximum: float, ks_p: float | None) -> Text:
    reached, alarm = _short(maximum), _short(_alarm_at(drift))
    s = "" if drift.parts == 1 else "s"
    if drift.noticed is None:
        return {
            "en": f"No drift seen in {drift.parts} part{s} (martingale at most {reached}, alarm at {alarm}).",
            "fr": f"Aucune dérive vue sur {drift.parts} pièce{s} (martingale au plus {comma(reached)}, "
            f"alarme à {comma(alarm)}).",
        }
    up = drift.direction == "up"
    en = (
        f"The scores drift {drift.direction}, since about part {drift.since}{_when(drift.since_at)}; noticed at part "
        f"{drift.noticed}{_when(drift.noticed_at)} of {drift.parts} (martingale {reached}, alarm at {alarm})."
    )
    fr = (
        f"Les scores dérivent vers le {'haut' if up else 'bas'}, depuis la pièce {drift.since} environ"
        f"{_when(drift.since_at)} ; remarqué à la pièce {drift.noticed}{_when(drift.noticed_at)} sur {drift.parts} "
        f"(martingale {comma(reached)}, alarme à {comma(alarm)})."
    )
    if drift.above_since > drift.allowed * (drift.parts - drift.since + 1):
        en += " More parts than usual score above what good ones do: a change of production, or many defects."
        fr += " Plus de pièces que d'habitude dépassent les bonnes : production changée, ou beaucoup de défauts."
    window = drift.settings.window
    if 2 * sum(score > drift.cut for score in drift.latest) > window:
        en += f" Most of the latest {window} parts do."
        fr += f" C'est le cas de la plupart des {window} dernières."
    if ks_p is not None:
        differ = ks_p <= drift.settings.level
        en += f" The latest {window} parts {'still differ' if differ else 'look'} {'from' if differ else 'like'} "
        en += f"the calibration (Kolmogorov-Smirnov p = {ks_p:.2g})."
        fr += f" Les {window} dernières pièces {'diffèrent encore de' if differ else 'ressemblent à'} "
        fr += f"la calibration (Kolmogorov-Smirnov p = {comma(f'{ks_p:.2g}')})."
    return {"en": en, "fr": fr}


def _when(at: str) -> str:
    return f" ({at})" if at else ""


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1e6 else f"10^{math.log10(value):.0f}"
