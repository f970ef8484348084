"""What an inspection is estimated to have cost, and what this machine can tell of that: the HTML panel (markupsafe)."""

from markupsafe import Markup

from anomaly.emissions import Emissions
from anomaly.full_vote import FullVote
from anomaly.panels import figure, joined
from anomaly.texts import Language, say


def emissions_html(
    emissions: Emissions, language: Language, full: FullVote | None = None, *, zero: bool = False
) -> str:
    """What the inspection is estimated to have cost; what is not known is said in words, never shown as 0.

    Args:
        emissions: of the inspection.
        language: to say it in.
        full: what all members would have cost.
        zero: whether this is ZeroGPU.
    """

    def quantity(value: float | None, unit: str) -> str:
        return say("unknown", language) if value is None else f"{figure(value, language)} {unit}"

    parts = {"cpu": emissions.cpu_mj, "ram": emissions.ram_mj, "gpu": emissions.gpu_mj}
    known = {name: part for name, part in parts.items() if part is not None}
    bar = joined(Markup('<i class="{}" style="flex-grow:{:.3f}"></i>').format(*part) for part in known.items())
    key = joined(
        Markup('<span class="{}">{} {}</span>').format(name, name.upper(), quantity(part, "mJ"))
        for name, part in known.items()
    )
    mean = quantity(emissions.running_mean_mj, "mJ")
    facts = {
        "mean": say("mean_of", language, mean=mean, count=emissions.inspections),
        "per_1000": quantity(emissions.wh_per_1000, "Wh"),
        "backend": emissions.backend,
        "country": f"{emissions.country}, {quantity(emissions.g_per_kwh, 'g CO₂e/kWh')}",
    }
    if full is not None:
        facts = {"full": _full(emissions, full, language), **facts}
    facts["sees"] = sees(emissions, language, zero=zero)
    if emissions.note is not None:
        facts["note"] = _note(emissions.note, language)
    listed = joined(Markup("<dt>{}</dt><dd>{}</dd>").format(say(key, language), fact) for key, fact in facts.items())
    return Markup(
        '<h3>{} <span class="badge">{}</span></h3><div class="energy"><p class="big">{}</p><p class="big">{}</p></div>'
        '<div class="parts" role="img" aria-label="{}">{}</div><p class="key">{}</p><dl>{}</dl>'
    ).format(
        say("emissions", language),
        say("estimated", language),
        quantity(emissions.energy_mj, "mJ"),
        quantity(emissions.co2eq_ug, "µg CO₂e"),
        say("split", language),
        bar,
        key,
        listed,
    )


def _note(note: str, language: Language) -> str:
    kind, _, cause = note.partition(": ")
    key = {"below resolution": "note_below", "coarse": "note_coarse", "unavailable": "note_unavailable"}.get(kind)
    return note if key is None else say(key, language, cause=cause)


def _full(emissions: Emissions, full: FullVote, language: Language) -> str:
    if not full.unasked:
        return say("full_this", language)
    names = ", ".join(full.unasked)
    if full.saved is None:
        return say("full_unknown", language, names=names)
    saved = f"{100 * full.saved:.0f}"
    if emissions.energy_mj is None or full.energy_mj is None:
        return say("full_share", language, saved=saved, names=names)
    spent, whole = figure(emissions.energy_mj, language), figure(full.energy_mj, language)
    return say("full_vote", language, spent=spent, whole=whole, saved=saved, names=names)


def sees(emissions: Emissions, language: Language, *, zero: bool) -> str:
    """What can be measured where this runs: which depends on the machine, not on the inspection.

    Args:
        emissions: of an inspection.
        language: to say it in.
        zero: whether this is ZeroGPU, where the GPU is another process's.
    """
    counted = not emissions.backend.startswith(("cpu_load", "constant", "none"))
    said = [say("sees_none" if emissions.backend == "none" else "sees_counter" if counted else "sees_rated", language)]
    if zero:
        said.append(say("sees_zero", language))
    elif emissions.gpu_mj is not None:
        said.append(say("sees_gpu", language))
    return " ".join(said)
