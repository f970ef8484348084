"""Two inspections of one picture -> what the Compare tab shows. Every value is escaped by `Markup.format`."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from anomaly import render
from anomaly.compare_pair import SIDES, Pair, Side, found_in
from anomaly.differences import Differences, MemberDifference
from anomaly.hub import parse_source
from anomaly.panels import figure, joined, linked, verdict_html
from anomaly.render import Exhibit
from anomaly.report import MemberVote, Report
from anomaly.texts import Language, numeral, say


def views(pair: Pair) -> list[str]:
    """What can be drawn on either side: what both have first, in the order of the first side that there is."""
    offered = [render.views(side) for side in pair if isinstance(side, Exhibit)]
    known = list(dict.fromkeys(name for names in offered for name in names))
    return sorted(known, key=lambda name: (name == render.NONE, -sum(name in names for names in offered)))


def lead_html(pair: Pair, language: Language) -> str:
    """In a sentence: whether the decision changed, and what else did."""
    found = found_in(pair)
    if found is None:
        text = say("cmp_half", language)
    else:
        votes = [vote.member for vote in found.votes if vote.only is not None or "verdict" in vote.changed]
        decided = say("cmp_differ" if found.decision else "cmp_agree", language)
        key = "cmp_votes_differ" if votes else "cmp_votes_agree"
        text = " ".join((decided, say(key, language, members=", ".join(votes)), _cost(found, language)))
    return Markup('<p class="lead" role="status">{}</p>').format(text)


def _cost(found: Differences, language: Language) -> str:
    time = _signed(found.duration_ms, language)
    if found.energy_mj is None:
        return say("cmp_time", language, ms=time)
    return say("cmp_energy", language, ms=time, mj=_signed(found.energy_mj, language))


def side_html(side: Side, name: str, language: Language) -> str:
    """The verdict of one side, or why it has none.

    Args:
        side: of the pair.
        name: one of SIDES.
        language: to say it in.
    """
    if isinstance(side, Exhibit):
        said = Markup(verdict_html(side.report, language))
    else:
        said = Markup('<div class="card" role="status"><strong>{}</strong><p class="cause">{}</p></div>').format(
            say("cmp_failed", language), str(side)
        )
    return Markup("<h3>{}</h3>{}").format(say(f"cmp_{name}", language), said)


def facts_html(pair: Pair, language: Language) -> str:
    """Energy, time and the commits of both sides; what differs between them is marked."""
    reports = [side.report if isinstance(side, Exhibit) else None for side in pair]
    commits = [_by_member(side) for side in pair]
    rows: dict[str, list[str | Markup]] = {
        say("time", language): ["–" if r is None else f"{figure(r.duration_ms, language)} ms" for r in reports],
        say("cmp_energy_of", language): [_energy(report, language) for report in reports],
        say("this_inspector", language): ["–" if r is None else _commit(r.inspector, r.commit, r) for r in reports],
    }
    for name in {**commits[0], **commits[1]}:
        rows[name] = [
            "–" if report is None or (row := known.get(name)) is None else _commit(row.repo, row.commit, report)
            for known, report in zip(commits, reports, strict=True)
        ]
    measured = (say("time", language), say("cmp_energy_of", language))  # never twice the same, which says nothing
    columns = [say(f"cmp_{side}", language) for side in SIDES]
    body = joined(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            name,
            joined(
                Markup('<td data-label="{}" class="{}">{}</td>').format(
                    column, "changed" if cells[0] != cells[1] and name not in measured else "", cell
                )
                for column, cell in zip(columns, cells, strict=True)
            ),
        )
        for name, cells in rows.items()
    )
    heads = joined(Markup('<th scope="col">{}</th>').format(column) for column in columns)
    return Markup(
        '<h3>{}</h3><table class="differences"><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(say("members", language), heads, body)


def _energy(report: Report | None, language: Language) -> str:
    if report is None:
        return "–"
    energy = report.emissions.energy_mj
    if energy is None:
        return say("unknown", language)
    return f"{figure(energy, language)} mJ ({say('estimated', language)})"


def _commit(repo: str, commit: str, report: Report) -> Markup:
    on_hub = parse_source(report.inspector).folder is None
    return linked(Markup("<code>{}</code>").format(commit), repo, commit, on_hub=on_hub)


def votes_html(pair: Pair, language: Language) -> str:
    """One row a member of either side; what differs is marked, in words as well as by weight."""
    found = found_in(pair)
    if found is None:
        return ""
    sides = [_by_member(side) for side in pair]
    columns = [say(key, language) for key in ("detector", "verdict", "cmp_score", "cmp_threshold", "cmp_changes")]
    heads = joined(Markup('<th scope="col">{}</th>').format(column) for column in columns)
    rows = joined(_row(vote, [side.get(vote.member) for side in sides], columns, language) for vote in found.votes)
    return Markup(
        '<h3>{}</h3><table class="differences"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>'
        '<p class="hint">{}</p>'
    ).format(say("cmp_votes", language), heads, rows, say("cmp_hint", language))


def _row(
    found: MemberDifference, rows: Sequence[MemberVote | None], columns: Sequence[str], language: Language
) -> Markup:
    if found.only is not None:
        changes = say("cmp_only", language, side=say(f"cmp_{found.only}", language))
    else:
        changes = ", ".join(say(f"cmp_field_{field}", language) for field in found.changed) or say("cmp_none", language)
    cells = [(Markup("<b>{}</b>").format(found.member), False)]
    for field in ("verdict", "score", "threshold"):
        first, second = (_cell(field, row, language) for row in rows)
        differs = found.only is not None or field in found.changed
        cells.append((Markup("{} → {}").format(first, second) if differs else Markup("{}").format(first), differs))
    cells.append((Markup("{}").format(changes), found.only is not None or bool(found.changed)))
    return Markup("<tr>{}</tr>").format(
        joined(
            Markup('<td data-label="{}" class="{}">{}</td>').format(column, "changed" if differs else "", cell)
            for column, (cell, differs) in zip(columns, cells, strict=True)
        )
    )


def _cell(field: str, row: MemberVote | None, language: Language) -> str:
    if row is None:
        return "–"
    if field == "verdict":
        return say(f"vote_{row.verdict}", language)
    if field == "score":
        return "–" if row.score is None else figure(row.score, language)
    name = numeral(row.threshold_name, language)
    return f"{figure(row.threshold, language)} ({name})"


def drawings(pair: Pair, view: str, opacity: float) -> list[Any]:
    """Each side on its own fixed scale; a side that does not have this heatmap shows the picture alone."""
    shown: list[Any] = []
    for side in pair:
        if not isinstance(side, Exhibit):
            shown.append(None)
            continue
        own = view if view in render.views(side) else render.NONE
        shown.append(render.stamped(render.draw(side, own, opacity), side.report))
    return shown


def _by_member(side: Side) -> Mapping[str, MemberVote]:
    return {vote.member: vote for vote in side.report.votes} if isinstance(side, Exhibit) else {}


def _signed(value: float, language: Language) -> str:
    return ("+" if value >= 0 else "−") + figure(abs(value), language)
