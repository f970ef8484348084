"""The Monitor tab: what was inspected, how it ended, how long it took, what it cost (Gradio Blocks, gradio.app).

Plots are made of the log (anomaly.monitor); without one, of what this process remembers.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context
from markupsafe import Markup

from anomaly import charts, panels, serving
from anomaly.drift_panel import whole
from anomaly.errors import VigieError
from anomaly.events import ASIDE, enclosing_tab
from anomaly.monitor import REMEMBERED, Entry, Summary, grouped, over_time, summarise
from anomaly.panels import figure, joined
from anomaly.settings import Settings
from anomaly.texts import Language, numeral, say

if TYPE_CHECKING:
    from anomaly.drift_watch import Seen
    from anomaly.page import Page

PERIODS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7), "all": None}
# The drift panel may be in another tab, and closed. A tab without an elem_id has no link to its panel: then it is the
# first one, of inspections.
_OPEN_DRIFT = """() => {
  const moved = document.querySelector("#moved");
  const panel = moved?.closest("[role=tabpanel]");
  const tabs = [...document.querySelectorAll("[role=tab]")].filter((tab) => tab.offsetParent);
  if (panel && !moved.offsetParent)
    ((panel.id && tabs.find((tab) => tab.getAttribute("aria-controls") === panel.id)) || tabs[0])?.click();
  setTimeout(() => {
    if (!moved?.querySelector("#drift")?.offsetParent) moved?.querySelector("button")?.click();
    moved?.scrollIntoView({behavior: "smooth"});
  }, 300);
}"""


def monitor_tab(page: "Page", settings: Settings) -> None:
    """Builds it where it is called, inside a gr.Tab, and connects it.

    Args:
        page: for the language, and the inspector and revision whose drift is told.
        settings: of the deployment.
    """
    with gr.Row(elem_id="monitor-top"):
        period = gr.Radio(
            _periods("en"), value="all", label=say("mon_period", "en"), elem_id="monitor-period", scale=4, min_width=300
        )
        refresh = gr.Button(say("mon_refresh", "en"), size="sm", elem_id="monitor-refresh", scale=1, min_width=120)
    sheet = gr.HTML(padding=False, elem_id="monitor")
    drift = gr.HTML(padding=False, elem_id="monitor-drift")
    link = gr.Button(say("mon_drift_link", "en"), size="sm", elem_id="monitor-drift-link")
    root = Context.root_block

    def show(chosen: str, inspector: str, revision: str | None, language: Language) -> tuple[str, str]:
        journal = serving.journal(settings)
        entries = journal.entries()
        waiting = len(root._queue) if root is not None and getattr(root, "_queue", None) is not None else None
        text = monitor_html(
            within(entries, chosen, datetime.now(UTC)),
            language,
            folder=journal.folder,
            problem=journal.problem,
            waiting=waiting,
            empty=not entries,
        )
        return text, _drift(settings, inspector, revision, language)

    def translate(language: Language) -> list[Any]:
        return [
            gr.update(label=say("mon_period", language), choices=_periods(language)),
            gr.update(value=say("mon_refresh", language)),
            gr.update(value=say("mon_drift_link", language)),
        ]

    def show_again(looked: bool, *values: Any) -> Any:
        return show(*values) if looked else (gr.skip(), gr.skip())

    asked = [period, page.inspector, page.revision, page.language]
    looked = gr.State(False)  # the log is read when somebody looks, not at every inspection
    opened = enclosing_tab().select(lambda: True, None, looked, **ASIDE)
    opened.then(show, asked, [sheet, drift], **ASIDE)
    gr.on([period.change, refresh.click], show, asked, [sheet, drift], **ASIDE)
    spoken = page.language.change(translate, page.language, [period, refresh, link], **ASIDE)
    spoken.then(show_again, [looked, *asked], [sheet, drift], **ASIDE)
    link.click(None, js=_OPEN_DRIFT)


def _periods(language: Language) -> list[tuple[str, str]]:
    return [(say(f"mon_{name}", language), name) for name in PERIODS]


def within(entries: Sequence[Entry], period: str, now: datetime) -> list[Entry]:
    """Those of the last hour, day or week; all for any other word."""
    length = PERIODS.get(period)
    return list(entries) if length is None else [entry for entry in entries if entry.at > now - length]


def _drift(settings: Settings, inspector: str, revision: str | None, language: Language) -> str:
    service = serving.service(settings)
    try:
        chosen = service.last(inspector, revision)
    except VigieError as error:
        return panels.warning_html(str(error), language)
    seen = service.drift.seen(chosen.source, chosen.commit, chosen.file.category)
    return drift_sentence(seen, f"{chosen.file.category} {revision or chosen.revision}", language)


def drift_sentence(seen: "Seen", name: str, language: Language) -> str:
    """Whether one revision has seen production move, in one sentence.

    Args:
        seen: by this process.
        name: of category and revision.
        language: to say it in.
    """
    watched = [row for row in seen.members if row.finding is not None and row.finding.parts]
    moved = ", ".join(row.member for row in watched if row.finding is not None and row.finding.drift)
    values = {"name": name, "parts": whole(seen.pictures, language), "members": len(watched), "moved": moved}
    key = "mon_drift_none" if not watched else "mon_drift_moved" if moved else "mon_drift_still"
    kind = "warning" if moved else "hint"
    return Markup('<div class="sheet"><h3>{}</h3><p class="{}">{}</p></div>').format(
        say("mon_drift", language), kind, say(key, language, **values)
    )


def monitor_html(
    entries: Sequence[Entry],
    language: Language,
    *,
    folder: Path | None,
    problem: str | None = None,
    waiting: int | None = None,
    empty: bool = False,
) -> str:
    """Figures, plots and a table.

    Args:
        entries: of the period that was chosen.
        language: to say it in.
        folder: of the log; None where nothing is logged.
        problem: why the log could not be written or read.
        waiting: requests that wait for their turn; None where that is not known.
        empty: there is no inspection of any period.
    """
    said = [panels.warning_html(problem, language)] if problem else []
    found = summarise(entries)
    if found is None:
        title, body = ("mon_empty", "mon_empty_1") if empty else ("mon_none", "mon_none_1")
        card = Markup('<div class="card empty" role="status"><strong>{}</strong><p>{}</p><p>{}</p></div>')
        said.append(card.format(say(title, language), say(body, language), _source(folder, language)))
        return Markup('<div class="sheet">{}</div>').format(joined(said))
    said += [_facts(found, waiting, language), _plots(entries, language), _table(entries, language)]
    said.append(Markup('<p class="hint">{}</p>').format(_source(folder, language)))
    return Markup('<div class="sheet">{}</div>').format(joined(said))


def _source(folder: Path | None, language: Language) -> str:
    if folder is None:
        return say("mon_memory", language, most=whole(REMEMBERED, language))
    return say("mon_log", language, folder=folder.name, most=whole(REMEMBERED, language))


def _facts(found: Summary, waiting: int | None, language: Language) -> Markup:
    unknown = say("unknown", language)
    per_1000 = unknown if found.wh_per_1000 is None else f"{figure(found.wh_per_1000, language)} Wh"
    energy = "" if found.sum_mj is None else say("mon_sum", language, wh=figure(found.sum_mj / 3.6e6, language))
    if found.measured < found.count:
        energy = f"{energy} {say('mon_unmeasured', language, count=whole(found.count - found.measured, language))}"
    facts = [
        ("mon_count", whole(found.count, language), ""),
        (
            "mon_rate",
            percent(found.anomaly_rate, language),
            say(
                "mon_rate_of",
                language,
                defects=whole(found.defects, language),
                reviews=whole(found.reviews, language),
            ),
        ),
        (
            "mon_latency",
            f"{figure(found.median_ms, language)} ms",
            say("mon_p95", language, ms=figure(found.p95_ms, language)),
        ),
        ("mon_energy", unknown if found.mean_mj is None else f"{figure(found.mean_mj, language)} mJ", energy.strip()),
        ("mon_per_1000", per_1000, say("estimated", language)),
    ]
    if waiting is not None:
        facts.append(("mon_queue", whole(waiting, language), ""))
    return Markup('<dl class="facts">{}</dl>').format(
        joined(
            Markup("<div><dt>{}</dt><dd><b>{}</b>{}</dd></div>").format(
                say(key, language), value, Markup("<small>{}</small>").format(more) if more else ""
            )
            for key, value, more in facts
        )
    )


def _plots(entries: Sequence[Entry], language: Language) -> Markup:
    bins = over_time(entries)
    first, last = min(entry.at for entry in entries), max(entry.at for entry in entries)
    ends = (_time(first), _time(last))

    def plot(name: str, unit: str, parts: Callable[[Summary], tuple[tuple[str, float], ...]]) -> Markup:
        def amount(value: float) -> str:
            return f"{figure(value, language)}{unit}" if unit else whole(round(value), language)

        columns = []
        for begun, found in bins:
            known = () if found is None else parts(found)
            total = sum(size for _, size in known)
            said = amount(total) if known else say("mon_nothing", language)
            columns.append(charts.Bar(known, f"{_time(begun)}: {said}"))
        highest = max((sum(size for _, size in column.parts) for column in columns), default=0.0)
        top = f"{say('mon_top', language)} {amount(highest)}"
        title = say(name, language)
        label = say("mon_plot_label", language, title=title, first=ends[0], last=ends[1], top=top)
        return charts.bars(title, columns, top=top, ends=ends, label=label)

    def decided(found: Summary) -> tuple[tuple[str, float], ...]:
        good = found.count - found.defects - found.reviews
        return ("ok", good), ("review", found.reviews), ("defect", found.defects)

    def rate(found: Summary) -> tuple[tuple[str, float], ...]:
        return ("review", 100 * found.reviews / found.count), ("defect", 100 * found.defects / found.count)

    def latency(found: Summary) -> tuple[tuple[str, float], ...]:
        return ("plain", found.median_ms), ("faint", found.p95_ms - found.median_ms)

    def energy(found: Summary) -> tuple[tuple[str, float], ...]:
        return () if found.mean_mj is None else (("plain", found.mean_mj),)

    key = joined(
        Markup('<span class="{}">{}</span>').format(word, say(f"vote_{word}", language))
        for word in ("ok", "review", "defect")
    )
    plots = [
        plot("mon_plot_count", "", decided),
        plot("mon_plot_rate", " %", rate),
        plot("mon_plot_latency", " ms", latency),
        plot("mon_plot_energy", " mJ", energy),
    ]
    return Markup('<p class="key">{}</p><div class="charts two">{}</div>').format(key, joined(plots))


def _table(entries: Sequence[Entry], language: Language) -> Markup:
    keys = ("inspector", "revision", "policy", "mon_count", "mon_rate", "mon_latency", "mon_energy")
    heads = joined(Markup('<th scope="col">{}</th>').format(say(key, language)) for key in keys)
    rows = []
    for (inspector, revision, commit, policy), found in grouped(entries).items():
        cells = (
            Markup("<b>{}</b>").format(Path(inspector).name if inspector.startswith(("/", "~")) else inspector),
            Markup("{} <code>{}</code>").format(revision, commit[:7]),
            policy,
            whole(found.count, language),
            percent(found.anomaly_rate, language),
            f"{figure(found.median_ms, language)} ms",
            say("unknown", language) if found.mean_mj is None else f"{figure(found.mean_mj, language)} mJ",
        )
        rows.append(joined(Markup("<td>{}</td>").format(cell) for cell in cells))
    return Markup(
        '<h3>{0}</h3><div class="wide" tabindex="0" role="region" aria-label="{0}"><table><thead><tr>{1}</tr></thead>'
        "<tbody>{2}</tbody></table></div>"
    ).format(say("mon_by", language), heads, joined(Markup("<tr>{}</tr>").format(row) for row in rows))


def percent(share: float, language: Language) -> str:
    """A share of parts: 12.5 %."""
    return numeral(f"{100 * share:.1f} %", language)


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
