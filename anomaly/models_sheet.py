"""What a release says of itself -> HTML: members, policies, the front of energy and AUROC, ROC curves, history.

Every value is escaped (markupsafe.palletsprojects.com). Everything comes from files of the release (anomaly.releases).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from anomaly import charts, hub, releases
from anomaly.figures import Figures, InspectorMetrics, ModelMetrics
from anomaly.monitor_tab import percent
from anomaly.panels import figure, joined, linked
from anomaly.texts import Language, numeral, say
from anomaly.votes_file import VotesFile

if TYPE_CHECKING:
    from anomaly.inspector import Inspector


def models_html(chosen: "Inspector", metrics: InspectorMetrics | None, language: Language) -> str:
    """Members, policies, the front, ROC curves and confusion of one revision.

    Args:
        chosen: the inspector.
        metrics: its figures; None where the release has none.
        language: to say it in.

    Raises:
        RegistryError, ModelLoadError: a file of the release cannot be had, or is not right.
    """
    place = hub.parse_source(chosen.source)
    own = {
        name: releases.model_metrics(place.sibling(member.ref.repo), member.ref.commit)
        for name, member in chosen.members.items()
    }
    parts = [_members(chosen, metrics, own, place, language)]
    if metrics is None:
        parts.append(_sentence(say("mod_no_metrics", language)))
    else:
        parts += [_policies(chosen, metrics, language), _front(metrics, language)]
    parts.append(_curves(chosen, metrics, releases.votes(place, chosen.commit), language))
    if metrics is not None:
        parts.append(_sentence(_source(metrics, language)))
    return Markup('<div class="sheet">{}</div>').format(joined(parts))


def _source(metrics: InspectorMetrics, language: Language) -> str:
    counts = releases.counted(metrics)
    return say(
        "mod_source",
        language,
        data=metrics.data.name,
        split=metrics.data.split_hash[:12],
        pictures=sum(counts.values()),
        hardware=metrics.hardware,
    )


def _members(
    chosen: "Inspector",
    metrics: InspectorMetrics | None,
    own: dict[str, ModelMetrics | None],
    place: hub.Source,
    language: Language,
) -> Markup:
    rows = []
    for name, member in chosen.members.items():
        figures = None if metrics is None else metrics.members.get(name)
        file = own[name]
        link = commit_html(member.ref.repo, member.ref.commit, on_hub=place.folder is None)
        rows.append(
            (
                Markup("<b>{}</b>").format(name),
                member.detector.kind,
                link,
                _auroc(figures, file, chosen.file.category, language),
                "–" if figures is None or figures.au_pro is None else decimal(figures.au_pro, language),
                "–" if figures is None or figures.energy_mj is None else f"{figure(figures.energy_mj, language)} mJ",
                "–" if figures is None else f"{figure(figures.latency_ms.median, language)} ms",
            )
        )
    keys = ("detector", "mod_kind", "mod_commit", "mod_auroc", "mod_au_pro", "mod_energy", "mod_time")
    return table(say("mod_members", language), [say(key, language) for key in keys], rows)


def _auroc(figures: Figures | None, file: ModelMetrics | None, category: str, language: Language) -> str | Markup:
    """With its interval where the member's own file has one of the very same figure."""
    if figures is None or figures.image_auroc is None:
        return "–"
    said = decimal(figures.image_auroc, language)
    test = None if file is None else file.test
    if test is None and file is not None and category in file.by_category:
        test = file.by_category[category].test
    image = test.levels.image if test is not None and test.levels is not None else None
    if image is None or image.auroc.low is None or image.auroc.high is None or image.auroc.value is None:
        return said
    if abs(image.auroc.value - figures.image_auroc) > 1e-6:  # of other pictures
        return said
    low, high = decimal(image.auroc.low, language), decimal(image.auroc.high, language)
    return Markup("{} <small>{} – {}</small>").format(said, low, high)


def _policies(chosen: "Inspector", metrics: InspectorMetrics, language: Language) -> Markup:
    counts = releases.counted(metrics)
    rows = []
    for policy in chosen.file.policies:
        figures = metrics.policies.get(policy.name)
        mark = Markup("<small>{}</small>").format(say("mod_default", language))
        name = Markup("<b>{}</b>{}").format(policy.name, mark if policy.name == chosen.file.default_policy else "")
        if figures is None:
            rows.append((name, *["–"] * 5))
            continue
        found = releases.policy_shares(figures, counts)
        rows.append(
            (
                name,
                _share(found.found, language),
                _share(found.false_alarms, language),
                _share(found.review, language),
                "–" if figures.energy_mj is None else f"{figure(figures.energy_mj, language)} mJ",
                f"{figure(figures.latency_ms.median, language)} ms",
            )
        )
    keys = ("policy", "mod_found", "mod_alarms", "mod_review", "mod_energy", "mod_time")
    heads = [say(key, language) for key in keys]
    return table(say("mod_policies", language), heads, rows) + _sentence(say("mod_policies_how", language))


def _share(found: releases.Share | None, language: Language) -> str | Markup:
    if found is None:
        return "–"
    return Markup("{} <small>{} / {} · {} – {}</small>").format(
        percent(found.count / found.of, language),
        found.count,
        found.of,
        percent(found.low, language),
        percent(found.high, language),
    )


def _front(metrics: InspectorMetrics, language: Language) -> Markup:
    """Energy against AUROC; members and policies with the very same figures share a point."""
    points: dict[tuple[float, float], list[str]] = {}
    for figures in (metrics.members, metrics.policies):
        for name, one in figures.items():
            if one.energy_mj is not None and one.image_auroc is not None:
                points.setdefault((one.energy_mj, one.image_auroc), []).append(name)
    title = say("mod_front", language)
    if len(points) < 2:
        return Markup("<h3>{}</h3>{}").format(title, _sentence(say("mod_front_none", language)))
    ordered = sorted(points)
    best = charts.front(ordered)
    most = max(mj for mj, _ in ordered)
    low = min(0.5, *(auroc for _, auroc in ordered))
    dots, rows = [], []
    for number, ((mj, auroc), keeps) in enumerate(zip(ordered, best, strict=True), 1):
        names = ", ".join(points[mj, auroc])
        said = f"{names}: {figure(mj, language)} mJ, AUROC {decimal(auroc, language)}"
        x, y = 0.03 + 0.94 * mj / most, 0.03 + 0.94 * (auroc - low) / (1 - low)
        dots.append(charts.Dot(x, y, str(number), "best" if keeps else "", said))
        mark = Markup("<small>{}</small>").format(say("mod_front_best", language)) if keeps else ""
        rows.append(
            (str(number), Markup("{}{}").format(names, mark), f"{figure(mj, language)} mJ", decimal(auroc, language))
        )
    line = [(dot.x, dot.y) for dot, keeps in zip(dots, best, strict=True) if keeps]
    plot = charts.square(
        title,
        line=line,
        dots=dots,
        x=("0", say("mod_energy", language), f"{figure(most, language)} mJ"),
        y=(decimal(low, language), say("mod_auroc", language), "1"),
        label=say("mod_front_label", language, count=len(ordered)),
    )
    heads = [say(key, language) for key in ("mod_number", "mod_name", "mod_energy", "mod_auroc")]
    return Markup('<div class="pair">{}<div>{}</div></div>').format(
        plot, table("", heads, rows, label=say("mod_front", language))
    )


def _curves(
    chosen: "Inspector", metrics: InspectorMetrics | None, votes: VotesFile | None, language: Language
) -> Markup:
    head = Markup("<h3>{}</h3>").format(say("mod_roc", language))
    if votes is None or not votes.test:
        return head + _sentence(say("mod_no_votes", language))
    drawn = []
    for name, member in chosen.members.items():
        good, defects = votes.scores(name)
        if not good or not defects:
            continue
        figures = None if metrics is None else metrics.members.get(name)
        cut_name = next(iter(member.calibration.thresholds)) if figures is None else figures.threshold
        cut = next((t.value for key, t in member.calibration.thresholds.items() if key == cut_name), None)
        drawn.append(_curve(name, good, defects, (cut_name, cut), language))
    return head + Markup('<div class="charts">{}</div>').format(joined(drawn)) + _sentence(say("mod_roc_how", language))


def _curve(
    name: str, good: Sequence[float], defects: Sequence[float], cut: tuple[str, float | None], language: Language
) -> Markup:
    curve = charts.roc(good, defects)
    auroc = decimal(charts.area(curve), language)
    cut_name, value = cut
    dots, counts = [], Markup("")
    if value is not None:
        alarms, found = sum(score >= value for score in good), sum(score >= value for score in defects)
        spot = say("mod_at", language, threshold=cut_name)
        dots = [charts.Dot(alarms / len(good), found / len(defects), "", "cut", spot)]
        rows = [
            (say("mod_is_good", language), str(len(good) - alarms), str(alarms)),
            (say("mod_is_defect", language), str(len(defects) - found), str(found)),
        ]
        heads = [spot, say("mod_says_good", language), say("mod_says_defect", language)]
        counts = table("", heads, rows, label=f"{name}, {spot}")
    plot = charts.square(
        f"{name} · AUROC {auroc}",
        line=curve,
        dots=dots,
        x=("0", say("mod_false", language), "1"),
        y=("0", say("mod_true", language), "1"),
        label=say("mod_roc_label", language, name=name, auroc=auroc, good=len(good), defects=len(defects)),
        diagonal=True,
    )
    return Markup("<div>{}{}</div>").format(plot, counts)


def card_text(chosen: "Inspector", name: str, language: Language) -> str:
    """Markdown of the inspector's card, or of a member's.

    Args:
        chosen: the inspector.
        name: of a member; any other one is the inspector itself.
        language: to say in that there is none.

    Raises:
        RegistryError, ModelLoadError: it cannot be had.
    """
    place, commit = hub.parse_source(chosen.source), chosen.commit
    if name in chosen.members:
        ref = chosen.members[name].ref
        place, commit = place.sibling(ref.repo), ref.commit
    return releases.card(place, commit) or say("mod_no_card", language)


def history_html(changes: Sequence[releases.Change], place: hub.Source, language: Language) -> str:
    """One entry a commit, the latest first."""
    if not changes:
        return Markup('<div class="sheet">{}</div>').format(_sentence(say("mod_no_history", language)))
    entries = []
    for change in changes:
        said = _said(change, language)
        what = Markup("<ul>{}</ul>").format(joined(Markup("<li>{}</li>").format(text) for text in said))
        names = ", ".join(change.names) or say("mod_untagged", language)
        entries.append(
            Markup("<li><b>{}</b> {} <small>{}</small>{}</li>").format(
                names,
                commit_html(place.repo_id, change.commit, on_hub=place.folder is None),
                change.date[:10] or say("mod_no_date", language),
                what,
            )
        )
    return Markup('<div class="sheet"><ol class="history">{}</ol></div>').format(joined(entries))


def _said(change: releases.Change, language: Language) -> list[str]:
    if change.problem:
        return [change.problem]
    if change.first:
        return [say("mod_first", language)]
    if change.same:
        return [say("mod_same", language)]
    lists = {
        "mod_added": change.added,
        "mod_removed": change.removed,
        "mod_retrained": change.retrained,
        "mod_new_policies": change.new_policies,
        "mod_gone_policies": change.gone_policies,
        "mod_changed_policies": change.changed_policies,
    }
    said = [say(key, language, names=", ".join(names)) for key, names in lists.items() if names]
    if change.default is not None:
        said.append(say("mod_new_default", language, before=change.default[0], after=change.default[1]))
    return said


def commit_html(repo: str, commit: str, *, on_hub: bool) -> Markup:
    """The first digits of a commit, with a link to its page where it is on the Hub."""
    text = Markup('<code title="{}@{}">{}</code>').format(repo, commit, commit[:7])
    return linked(text, repo, commit, on_hub=on_hub)


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str | Markup]], *, label: str = "") -> Markup:
    """One that scrolls by itself where the page is narrow; it needs a title above it, or a label that is only heard."""
    head = joined(Markup('<th scope="col">{}</th>').format(text) for text in heads)
    body = joined(
        Markup("<tr>{}</tr>").format(joined(Markup("<td>{}</td>").format(cell) for cell in row)) for row in rows
    )
    return Markup(
        '{}<div class="wide" tabindex="0" role="region" aria-label="{}"><table><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(Markup("<h3>{}</h3>").format(title) if title else "", title or label, head, body)


def decimal(value: float, language: Language) -> str:
    """A share or an AUROC: 0.985."""
    return numeral(f"{value:.3f}", language)


def _sentence(text: str) -> Markup:
    return Markup('<p class="hint">{}</p>').format(text)
