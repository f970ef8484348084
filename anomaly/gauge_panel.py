"""How far the part is from the threshold: one gauge, of the vote that decides most (HTML).

Its scale is that of the bars of votes: fixed by calibration, whatever the picture.
"""

from collections.abc import Mapping
from statistics import median

from markupsafe import Markup

from anomaly.calibration import Calibration
from anomaly.panels import calibrated_scale, figure
from anomaly.report import MemberVote, Report
from anomaly.texts import Language, say


def gauge_html(report: Report, calibrations: Mapping[str, Calibration], language: Language) -> str:
    """The gauge; a sentence in its place where no member that counts gave a score, and of those that gave none.

    Args:
        report: of the inspection.
        calibrations: by member, for where a typical good part lies.
        language: to say it in.
    """
    failed = [vote.member for vote in report.votes if vote.counted and vote.score is None]
    missing = say("gauge_failed", language, names=", ".join(failed)) if failed else ""
    vote = deciding(report, calibrations)
    if vote is None or vote.score is None:
        return Markup('<div class="gauge"><p>{}</p></div>').format(f"{say('gauge_none', language)} {missing}".strip())
    calibration = calibrations[vote.member]
    along = calibrated_scale(vote.score, vote.threshold, calibration)
    said = reading(vote, vote.score, calibration, language)
    measured = vote.threshold > typical(calibration)  # else only the side can be shown
    return Markup(
        '<div class="gauge {}"><p><b>{}</b> {}</p>'
        '<div class="scale" role="meter" aria-label="{}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{:.0f}" '
        'aria-valuetext="{}"><i style="--at:{:.3f}"></i></div>'
        '<p class="ends" aria-hidden="true"><span>{}</span><span>{}</span><span>{}</span></p>{}</div>'
    ).format(
        vote.verdict,
        vote.member,
        said,
        say("gauge", language, member=vote.member),
        100 * along,
        said,
        along,
        say("gauge_typical" if measured else "gauge_under", language),
        say("gauge_threshold", language),
        say("gauge_twice" if measured else "gauge_over", language),
        Markup('<p class="missing">{}</p>').format(missing) if missing else Markup(""),
    )


def deciding(report: Report, calibrations: Mapping[str, Calibration]) -> MemberVote | None:
    """The vote whose change would change the decision first. Where it takes several, of those that agree with the
    decision the nearest to its line, one that tells good parts apart first. None where none that counts has a score.
    """
    votes = {vote.member: vote for vote in report.votes if vote.counted and vote.score is not None}
    why = report.explanation
    if why is None or not votes:
        return next(iter(votes.values()), None)
    if why.flip is not None and why.flip.member in votes:
        return votes[why.flip.member]
    near = [
        (not one.agrees, votes[one.member].threshold <= typical(calibrations[one.member]), abs(one.distance_iqr), place)
        for place, one in enumerate(why.readings)
        if one.member in votes and one.distance_iqr is not None
    ]
    return votes[why.readings[min(near)[-1]].member] if near else next(iter(votes.values()))


def typical(calibration: Calibration) -> float:
    """The score of a good part in the middle of those that were held out."""
    return median(calibration.good_scores)


def reading(vote: MemberVote, score: float, calibration: Calibration, language: Language) -> str:
    """A score against its threshold, in words."""
    middle = typical(calibration)
    values = {"score": figure(score, language), "threshold": figure(vote.threshold, language)}
    if vote.threshold <= middle:
        key = "gauge_beyond" if score >= vote.threshold else "gauge_short"
        return say(key, language, **values)
    if score <= middle:
        return say("gauge_low", language, **values)
    return say("gauge_times", language, **values, times=figure((score - middle) / (vote.threshold - middle), language))
