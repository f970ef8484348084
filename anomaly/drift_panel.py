"""The HTML panel that says whether production has moved (anomaly.drift_watch): one sentence a detector first."""

from markupsafe import Markup

from anomaly.drift import LEAST_REFERENCE, DriftSettings, Finding
from anomaly.drift_watch import PARTS, Seen, Watched
from anomaly.panels import figure, joined
from anomaly.texts import Language, numeral, say


def drift_html(
    seen: Seen, settings: DriftSettings, language: Language, *, category: str, revision: str, commit: str
) -> str:
    """What is known of one commit of an inspector.

    Args:
        seen: by this process.
        settings: of the monitors.
        language: to say it in.
        category: of the inspector.
        revision: as it was asked for.
        commit: 40 hex digits.
    """
    intro = say(
        "drift_intro",
        language,
        category=category,
        revision=revision,
        commit=commit[:7],
        pictures=whole(seen.pictures, language),
        repeats=whole(seen.repeats, language),
    )
    levels = {"level": _share(settings.level, language), "prevalence": _share(settings.prevalence, language)}
    said = [
        say("drift_settings", language, window=settings.window, **levels),
        say("drift_promise", language, most=whole(PARTS, language), **levels),
        say("drift_forgets", language),
    ]
    act = any(row.finding is not None and row.finding.drift for row in seen.members)
    return Markup('<div class="drift"><p class="hint">{}</p><ul>{}</ul>{}{}{}</div>').format(
        intro,
        joined(_sentence(row, language) for row in seen.members) or Markup("<li>{}</li>").format(_none(language)),
        Markup('<p class="warning">{}</p>').format(say("drift_act", language)) if act else "",
        _table(seen, settings, language),
        joined(Markup('<p class="hint">{}</p>').format(text) for text in said),
    )


def _none(language: Language) -> str:
    return say("drift_none", language)


def _sentence(row: Watched, language: Language) -> Markup:
    found = row.finding
    if found is None:
        said = [say("drift_few", language, good=row.good, least=LEAST_REFERENCE)]
    elif found.parts:
        said = [found.text[language]]
    else:
        said = [] if row.chosen or row.failed else [_none(language)]
    if row.earlier:
        said.append(say("drift_earlier", language, earlier=whole(row.earlier, language)))
    if row.failed:
        said.append(say("drift_failed", language, failed=whole(row.failed, language)))
    if row.chosen:
        said.append(say("drift_chosen", language, chosen=whole(row.chosen, language)))
    drift = found is not None and found.drift
    return Markup('<li class="{}"><b>{}</b> {}</li>').format("moved" if drift else "", row.member, " ".join(said))


def _table(seen: Seen, settings: DriftSettings, language: Language) -> Markup:
    """Of the detectors that saw a part."""
    watched = [(row, found) for row in seen.members if (found := row.finding) is not None and found.parts]
    if not watched:
        return Markup("")
    keys = ("detector", "drift_parts", "drift_above", "drift_martingale", "drift_alarm", "drift_ks")
    heads = [say(key, language, window=settings.window) for key in keys]
    rows = []
    for row, found in watched:
        cut = "–" if row.cut is None else figure(row.cut, language)
        cells = (
            Markup("<b>{}</b>").format(row.member),
            whole(found.parts, language),
            say("drift_above_of", language, above=whole(found.above, language), cut=cut),
            f"{money(found.martingale, language)} · {money(found.maximum, language)}",
            money(found.alarm_at, language),
            _ks(found, settings, language),
        )
        labelled = zip(heads, cells, strict=True)
        rows.append(joined(Markup('<td data-label="{}">{}</td>').format(head, cell) for head, cell in labelled))
    return Markup('<table class="drifts"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>').format(
        joined(Markup('<th scope="col">{}</th>').format(head) for head in heads),
        joined(Markup("<tr>{}</tr>").format(row) for row in rows),
    )


def _ks(found: Finding, settings: DriftSettings, language: Language) -> str:
    if found.ks_p is not None:
        return money(found.ks_p, language)
    return say("drift_later" if found.parts < settings.window else "drift_most_above", language)


def money(value: float, language: Language) -> str:
    """A martingale or a p-value: what is far from 1 is a power of ten."""
    if 1e-4 <= value < 1e6:
        return figure(value, language)
    mantissa, _, power = f"{value:.0e}".partition("e")
    return "0" if value == 0 else f"{mantissa}\u00a0×\u00a010^{int(power)}"


def whole(count: int, language: Language) -> str:
    """A count: 20,000."""
    return f"{count:,}".replace(",", "," if language == "en" else "\u202f")


def _share(share: float, language: Language) -> str:
    return numeral(f"{100 * share:g} %", language)
