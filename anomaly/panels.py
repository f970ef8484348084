"""Report -> the HTML panels of the page. Every value is escaped (markupsafe.palletsprojects.com): `Markup.format` does
so by itself. Colours and layout are in app.css."""

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from statistics import median

import numpy as np
from markupsafe import Markup

from anomaly import hub
from anomaly.boxes import DEFECT
from anomaly.calibration import Calibration
from anomaly.render import ALL, FULL, NONE, colours
from anomaly.report import MemberVote, Report
from anomaly.texts import Language, numeral, say

_ICONS = {
    "ok": "M4 12.5l5.5 5.5L20 6.5",
    "defect": "M6 6l12 12M18 6L6 18",
    "review": "M8 8.5a4 4 0 1 1 5.6 3.7c-1 .5-1.6 1.2-1.6 2.3v.5M12 19v.5",
    "failed": "M12 4v10M12 19v.5",
    "unasked": "M6 12h12",
}
_ICON = Markup('<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{}"/></svg>')
_LEGEND_STOPS = 24


def header_html(language: Language) -> str:
    """Name and purpose of the page."""
    return Markup("<header><h1>Vigie</h1><p>{}</p></header>").format(say("tagline", language))


def view_label(view: str, language: Language) -> str:
    """What a view of `render.views` is called."""
    return say(f"view_{view}", language) if view in (ALL, NONE) else view


def empty_html(language: Language) -> str:
    """What to do, before there is a result."""
    return _card("empty", say("empty_title", language), say("empty_1", language), say("empty_2", language))


def running_html(language: Language) -> str:
    """That the detectors are at work."""
    return _card("running", say("running_title", language), say("running", language))


def verdict_html(report: Report, language: Language) -> str:
    """The decision, to be read from three metres, its reason, and what it stands on."""
    by = say(
        "by",
        language,
        category=report.category,
        revision=report.revision,
        commit=report.commit[:7],
        policy=report.policy,
        ms=figure(report.duration_ms, language),
    )
    warnings = joined(warning_html(text, language) for text in report.warnings)
    return Markup(
        '<div class="verdict {0}" role="status" data-decision="{0}"><strong>{1}{2}</strong><p>{3}</p>'
        "<small>{4}</small></div>{5}"
    ).format(
        report.decision,
        _ICON.format(_ICONS[report.decision]),
        say(report.decision, language),
        report.reason[language],
        by,
        warnings,
    )


def warning_html(text: str, language: Language) -> Markup:
    """What somebody should know."""
    return Markup('<p class="warning"><b>{}</b> {}</p>').format(say("warning", language), text)


def notes_html(notes: Iterable[str], language: Language) -> str:
    """Several of these."""
    return joined(warning_html(note, language) for note in notes)


def legend_html(language: Language) -> str:
    """The fixed colour scale of every heatmap, drawn over a grey that stands for the picture."""
    stops = []
    for step in range(_LEGEND_STOPS + 1):
        colour, alpha = colours(np.array(FULL * step / _LEGEND_STOPS, np.float32))
        red, green, blue = (round(float(channel)) for channel in colour)
        stops.append(f"rgba({red},{green},{blue},{float(alpha):.2f}) {100 * step / _LEGEND_STOPS:.0f}%")
    return Markup(
        '<figure class="legend"><figcaption>{}</figcaption><div style="--scale:linear-gradient(90deg,{})"></div>'
        "<p><span>{}</span><span>{}</span><span>{}</span></p></figure>"
    ).format(
        say("legend", language),
        ", ".join(stops),
        say("legend_low", language),
        say("legend_high", language),
        say("legend_beyond", language),
    )


def votes_html(report: Report, calibrations: Mapping[str, Calibration], language: Language) -> str:
    """One row a member: how its score lies against its threshold, and what it cost.

    Args:
        report: of the inspection.
        calibrations: by member, for where a typical good part lies.
        language: to say it in.
    """
    columns = [say(key, language) for key in ("detector", "score", "p_value", "verdict", "time", "energy_share")]
    hints = ["", say("score_hint", language), say("p_value_hint", language), "", "", ""]
    heads = joined(
        Markup('<th scope="col" title="{}">{}</th>').format(hint, column)
        for column, hint in zip(columns, hints, strict=True)
    )
    why = report.explanation
    less, unasked = ((), ()) if why is None else (why.discounted, why.unasked)
    rows = joined(
        _vote_row(vote, calibrations[vote.member], columns, language, less=vote.member in less) for vote in report.votes
    ) + joined(_unasked_row(name, columns, language) for name in unasked)
    known = {*unasked, *(vote.member for vote in report.votes)}
    names = ", ".join(name for name in calibrations if name not in known)
    others = say("no_part", language, names=names) if names and why is not None else ""
    return Markup(
        '<h3>{}</h3><table class="votes"><thead><tr>{}</tr></thead><tbody>{}</tbody></table><p class="hint">{}</p>'
    ).format(say("votes", language), heads, rows, " ".join(filter(None, [*hints, others])))


def _unasked_row(name: str, columns: list[str], language: Language) -> Markup:
    return _row(columns, Markup("<b>{}</b>").format(name), say("unasked", language), "–", _chip("unasked", language))


def _chip(word: str, language: Language) -> Markup:
    return Markup('<span class="chip {}">{}{}</span>').format(
        word, _ICON.format(_ICONS[word]), say(f"vote_{word}", language)
    )


def _row(columns: list[str], *cells: str) -> Markup:
    """The columns that come last may have nothing in them."""
    labelled = zip(columns, (*cells, *["–"] * (len(columns) - len(cells))), strict=True)
    return Markup("<tr>{}</tr>").format(
        joined(Markup('<td data-label="{}">{}</td>').format(column, cell) for column, cell in labelled)
    )


def _vote_row(
    vote: MemberVote, calibration: Calibration, columns: list[str], language: Language, *, less: bool
) -> Markup:
    if vote.score is None or vote.p_value is None:
        reading = Markup('<span class="cause">{}</span>').format(vote.error)
        p_value = "–"
    else:
        reading = _bar(vote, vote.score, calibration, language)
        p_value = figure(vote.p_value, language)
    share = vote.energy_share_mj
    return _row(
        columns,
        Markup("<b>{}</b>{}").format(vote.member, _remarks(vote, language, less=less)),
        reading,
        p_value,
        _chip(vote.verdict, language),
        f"{figure(vote.duration_ms, language)} ms",
        say("unknown", language) if share is None else f"{figure(share, language)} mJ",
    )


def _bar(vote: MemberVote, score: float, calibration: Calibration, language: Language) -> Markup:
    line = numeral(vote.threshold_name, language)
    reading = say(
        "score_of", language, score=figure(score, language), threshold=figure(vote.threshold, language), name=line
    )
    return Markup('<div class="bar {}"><i style="width:{:.1f}%"></i></div><span>{}</span>').format(
        vote.verdict, 100 * _calibrated_scale(score, vote.threshold, calibration), reading
    )


def _calibrated_scale(score: float, threshold: float, calibration: Calibration) -> float:
    """0 = the median of the held-out good scores, 0.5 = the threshold, 1 = twice as far or more, whatever the units."""
    typical = median(calibration.good_scores)
    if threshold <= typical:  # such a threshold calls most good parts defects: only the side can be shown
        return 1.0 if score >= threshold else 0.25
    return min(max((score - typical) / (threshold - typical) / 2, 0.0), 1.0)


def _remarks(vote: MemberVote, language: Language, *, less: bool) -> Markup:
    remarks = [] if vote.counted else [say("not_counted", language)]
    if less:
        remarks.append(say("counts_less", language))
    if vote.probability is not None:
        remarks.append(say("probability", language, share=figure(vote.probability, language)))
    if vote.class_shares:
        name, share = max(vote.class_shares.items(), key=lambda item: item[1])
        remarks.append(say("looks_like", language, name=name, share=figure(share, language)))
    marked = Counter(box.label for box in vote.boxes if box.label != DEFECT)
    if unnamed := len(vote.boxes) - marked.total():
        remarks.append(say("places", language, count=unnamed))
    remarks += [f"{label} × {count}" for label, count in marked.most_common()]
    return joined(Markup("<small>{}</small>").format(remark) for remark in remarks)


def members_html(report: Report, language: Language, *, on_hub: bool) -> str:
    """The commit of the inspector and of every member, as links where they are on the Hub."""
    source = report.inspector if on_hub else Path(report.inspector).name
    entries = [(say("this_inspector", language), source, report.commit)]
    entries += [(vote.member, vote.repo, vote.commit) for vote in report.votes]
    rows = joined(
        Markup("<tr><td>{}</td><td>{}</td><td>{}</td></tr>").format(
            name, repo, linked(Markup("<code>{}</code>").format(commit), repo, commit, on_hub=on_hub)
        )
        for name, repo, commit in entries
    )
    return Markup('<h3>{}</h3><table class="members"><tbody>{}</tbody></table>').format(say("members", language), rows)


def linked(text: Markup, repo: str, commit: str, *, on_hub: bool) -> Markup:
    """What stands for a commit, as a link to its page where that is on the Hub."""
    if not on_hub:
        return text
    return Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(hub_page(repo, commit), text)


def hub_page(repo: str, commit: str) -> str:
    """The page of a commit on the Hub, where everything else comes from as well."""
    return f"{hub.endpoint()}/{repo}/tree/{commit}"


def figure(value: float, language: Language) -> str:
    """Three significant digits and no power of ten: 0.0123, 4.57, 12,300."""
    text = f"{Decimal(f'{value:.2e}'):,f}"
    return text if language == "en" else text.replace(",", "\u202f").replace(".", ",")


def _card(kind: str, title: str, *lines: str) -> Markup:
    paragraphs = joined(Markup("<p>{}</p>").format(line) for line in lines)
    return Markup('<div class="card {}" role="status"><strong>{}</strong>{}</div>').format(kind, title, paragraphs)


def joined(parts: Iterable[Markup]) -> Markup:
    """One piece of HTML."""
    return Markup("").join(parts)
