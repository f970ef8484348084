"""How far the part is from the line: one gauge, of the vote that the decision hangs on (HTML).

Its unit is the interquartile range of a member's scores on good parts: the same for every picture and every member.
"""

from markupsafe import Markup

from anomaly.explain import Reading
from anomaly.panels import figure
from anomaly.report import Report
from anomaly.texts import Language, numeral, say

REACH = 5.0  # interquartile ranges from the line to an end of the scale


def gauge_html(report: Report, language: Language) -> str:
    """The gauge; a sentence in its place where no member that counts gave a score, and of those that gave none.

    Args:
        report: of the inspection.
        language: to say it in.
    """
    failed = [vote.member for vote in report.votes if vote.counted and vote.score is None]
    missing = say("gauge_failed", language, names=", ".join(failed)) if failed else ""
    reading = deciding(report)
    if reading is None or reading.distance_iqr is None:
        return Markup('<div class="gauge"><p>{}</p></div>').format(f"{say('gauge_none', language)} {missing}".strip())
    distance = reading.distance_iqr
    said = say(
        "gauge_beyond" if distance >= 0 else "gauge_short",
        language,
        ranges=figure(abs(distance), language),
        cut=numeral(reading.cut, language),
    )
    reached = min(max(distance, -REACH), REACH)
    end = say("gauge_end", language, ranges=f"{REACH:g}")
    return Markup(
        '<div class="gauge {}"><p><b>{}</b> {}</p>'
        '<div class="scale" role="meter" aria-label="{}" aria-valuemin="{}" aria-valuemax="{}" aria-valuenow="{:.2f}" '
        'aria-valuetext="{}"><i style="--at:{:.3f}"></i></div>'
        '<p class="ends" aria-hidden="true"><span>{}</span><span>{}</span><span>{}</span></p>{}</div>'
    ).format(
        reading.verdict,
        reading.member,
        said,
        say("gauge", language, member=reading.member),
        -REACH,
        REACH,
        reached,
        said,
        0.5 + reached / (2 * REACH),
        f"− {end}",
        say("gauge_line", language),
        f"+ {end}",
        Markup('<p class="missing">{}</p>').format(missing) if missing else Markup(""),
    )


def deciding(report: Report) -> Reading | None:
    """The vote whose change would change the decision first; where it takes several, the nearest to its line of those
    that agree with the decision. None where none that counts has a line and a score.
    """
    why = report.explanation
    if why is None:
        return None
    near = [reading for reading in why.readings if reading.counted and reading.distance_iqr is not None]
    flips = [reading for reading in near if why.flip is not None and reading.member == why.flip.member]
    return min(flips or near, key=lambda reading: (not reading.agrees, abs(reading.distance_iqr or 0.0)), default=None)
