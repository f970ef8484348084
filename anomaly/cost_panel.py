"""What would each policy cost? An accordion of the page: prices in, a table of the policies out (Gradio Blocks).

It stands on the counts that a release wrote into metrics.json; no model is asked again. Names a winner, never picks it:
that is a person's press of a button.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup
from pydantic import ValidationError

from anomaly import serving
from anomaly.at_hand import AtHand
from anomaly.costs import Comparison, Costs, Outcomes, PolicyCost, compare
from anomaly.errors import VigieError
from anomaly.events import ASIDE
from anomaly.panels import figure, joined
from anomaly.settings import Settings
from anomaly.texts import Language, say
from anomaly.what_if import what_if

Held = Mapping[str, Outcomes | None] | str | None  # counts by policy; why there are none; None before anything is known

FIRST = Costs(miss=50, false_alarm=1, review=5, prevalence=0.02)  # what the inputs show before a person sets them
_INPUTS = ("cost_miss", "cost_false_alarm", "cost_review", "cost_prevalence", "cost_carbon")
_FIELDS = ("miss", "false_alarm", "review", "prevalence", "carbon_price")  # of Costs, in the same order


@dataclass(frozen=True, slots=True)
class CostPanel:
    """Its components."""

    whole: gr.Accordion
    inputs: tuple[gr.Number | gr.Slider, ...]  # in the order of _INPUTS
    here: gr.HTML  # what the winner would decide of the part that is shown
    table: gr.HTML
    use: gr.Button
    winner: gr.State  # the cheapest policy, or None


def cost_panel() -> CostPanel:
    """Builds it, in English; call it where it is to stand."""
    with gr.Accordion(say("costs", "en"), open=False, elem_id="costs") as whole:
        with gr.Row():
            money = [
                gr.Number(value, label=say(key, "en"), min_width=120, elem_id=key.replace("_", "-"))
                for key, value in zip(_INPUTS[:3], (FIRST.miss, FIRST.false_alarm, FIRST.review), strict=True)
            ]
        with gr.Row():
            prevalence = gr.Slider(
                0.1,
                50,
                100 * FIRST.prevalence,
                step=0.1,
                label=say("cost_prevalence", "en"),
                min_width=240,
                elem_id="cost-prevalence",
            )
            carbon = gr.Number(0, label=say("cost_carbon", "en"), min_width=160, elem_id="cost-carbon")
        here = gr.HTML(padding=False, visible=False, elem_id="cost-here")
        table = gr.HTML(padding=False, elem_id="cost-table")
        use = gr.Button(say("cost_use_none", "en"), size="sm", visible=False, elem_id="cost-use")
    return CostPanel(whole, (*money, prevalence, carbon), here, table, use, gr.State(None))


def wire_costs(
    panel: CostPanel,
    chosen: tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown],
    language: gr.Radio,
    settings: Settings,
) -> tuple[Callable[[Any], None], Any]:
    """Connects it.

    Args:
        panel: built.
        chosen: inspector, revision and policy.
        language: of the page.
        settings: of the deployment.

    Returns:
        What makes an event, the choice of another inspector or revision, be followed by its costs; and the event of
        choosing the winner as the policy.
    """
    inspector, revision, policy = chosen
    held = gr.State(None)  # a Held
    winner = panel.winner
    asked = [held, *panel.inputs, language]
    shown = [panel.table, panel.use, winner]

    def fetch(inspector: str, revision: str | None) -> Held:
        try:
            figures = serving.service(settings).figures(inspector, revision)
        except VigieError as error:
            return str(error)
        return {} if figures is None else dict(figures.held_out)

    def show(held: Held, *values: Any) -> tuple[str, Any, str | None]:
        *prices, spoken = values
        text, best = priced(held, prices, spoken)
        label = say("cost_use", spoken, policy=best) if best else say("cost_use_none", spoken)
        return text, gr.Button(label, visible=best is not None), best

    def translate(spoken: Language) -> list[Any]:
        return [gr.update(label=say(key, spoken)) for key in ("costs", *_INPUTS)]

    def follow(event: Any) -> None:
        event.then(fetch, [inspector, revision], held, **ASIDE).then(show, asked, shown, **ASIDE)
        event.failure(lambda: None, None, held, **ASIDE).then(show, asked, shown, **ASIDE)

    changed = [component.change for component in panel.inputs]
    gr.on(changed, show, asked, shown, trigger_mode="always_last", **ASIDE)
    language.change(translate, language, [panel.whole, *panel.inputs], **ASIDE).then(show, asked, shown, **ASIDE)
    return follow, panel.use.click(lambda name: name, winner, policy, **ASIDE)


def decided_here(hand: AtHand | None, winner: str | None, language: Language) -> str:
    """What the cheapest policy would decide of the part that is shown, from its votes; empty where that means nothing.

    Args:
        hand: the inspection that is shown; None without one.
        winner: the policy.
        language: to say it in.
    """
    if hand is None or winner is None or winner not in hand.policies:
        return ""
    found = what_if(hand.votes, hand.policies[winner], hand.calibrations)
    if found.decision is None:
        return _sentence(say("cost_here_needs", language, policy=winner, members=", ".join(found.needs)))
    report = hand.report
    said = {"decision": say(found.decision.verdict, language), "real": say(report.decision, language)}
    return _sentence(say("cost_here", language, policy=winner, by=report.policy, **said))


def priced(held: Held, prices: list[Any], language: Language) -> tuple[str, str | None]:
    """The table and the winner; a sentence and None where there is nothing to compare.

    Args:
        held: counts by policy.
        prices: in the order of the inputs; the prevalence in percent. What a person left empty is None.
        language: to say it in.
    """
    if held is None:
        return _sentence(say("cost_waiting", language)), None
    if isinstance(held, str):
        return _sentence(held), None
    known = {name: outcomes for name, outcomes in held.items() if outcomes is not None}
    if not known:
        return _sentence(say("cost_unknown", language)), None
    try:
        shares = [price / 100 if key == "prevalence" else price for key, price in zip(_FIELDS, prices, strict=True)]
        costs = Costs(**dict(zip(_FIELDS, shares, strict=True)))
    except (ValidationError, TypeError) as error:
        wrong = str(error.errors()[0]["loc"][0]) if isinstance(error, ValidationError) else "prevalence"
        name = say(_INPUTS[_FIELDS.index(wrong)], language)
        return _sentence(say("cost_wrong" if wrong != "prevalence" else "cost_wrong_share", language, name=name)), None
    found = compare(known, costs)
    uncounted = [name for name in held if name not in known]
    return costs_html(found, language, uncounted=uncounted), found.winner


def costs_html(found: Comparison, language: Language, *, uncounted: Iterable[str] = ()) -> str:
    """One sentence first, then a row a policy, the cheapest first.

    Args:
        found: what each costs.
        language: to say it in.
        uncounted: policies of which nothing is known.
    """
    keys = ("policy", "cost_1000", "cost_interval", "cost_cheapest", "cost_missed", "cost_alarms", "cost_reviews")
    columns = [*(say(key, language) for key in keys), say("cost_cautious", language)]
    heads = joined(Markup('<th scope="col">{}</th>').format(column) for column in columns)
    rows = joined(_row(name, cost, columns, name == found.winner, language) for name, cost in found.policies.items())
    hints = [say("cost_how", language, draws=found.resamples), say("cost_cautious_hint", language)]
    if found.costs.carbon_price and not found.carbon_counted:
        hints.append(say("cost_no_carbon", language))
    if missing := ", ".join(uncounted):
        hints.append(say("cost_uncounted", language, policies=missing))
    return Markup(
        '<p class="lead" role="status">{}</p><table class="costs"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}'
    ).format(_lead(found, language), heads, rows, joined(Markup('<p class="hint">{}</p>').format(h) for h in hints))


def _lead(found: Comparison, language: Language) -> str:
    best = found.policies[found.winner]
    values: dict[str, object] = {
        "policy": found.winner,
        "cost": figure(best.cost, language),
        "low": figure(best.low, language),
        "high": figure(best.high, language),
    }
    alike = f" {say('cost_alike', language, policies=', '.join(found.alike))}" if found.alike else ""
    if found.runner_up is None or found.difference is None:
        return say("cost_lead_alone", language, **values) + alike
    more = found.difference
    values |= {
        "next": found.runner_up,
        "more": figure(more.cost, language),
        "least": figure(more.low, language),
        "most": figure(more.high, language),
    }
    said = say("cost_lead", language, **values) + alike
    return said if more.low > 0 else f"{said} {say('cost_not_clear', language)}"


def _row(name: str, found: PolicyCost, columns: list[str], best: bool, language: Language) -> Markup:
    mark = Markup('<small class="mark">{}</small>').format(say("cost_least", language)) if best else Markup("")
    cells = (
        Markup("<b>{}</b>{}").format(name, mark),
        figure(found.cost, language),
        f"{figure(found.low, language)} – {figure(found.high, language)}",
        f"{100 * found.cheapest:.0f} %",
        f"{found.missed} / {found.defects}",
        f"{found.false_alarms} / {found.good}",
        f"{found.reviews} / {found.good + found.defects}",
        figure(found.cautious, language),
    )
    labelled = zip(columns, cells, strict=True)
    return Markup('<tr class="{}">{}</tr>').format(
        "best" if best else "",
        joined(Markup('<td data-label="{}">{}</td>').format(column, cell) for column, cell in labelled),
    )


def _sentence(text: str) -> Markup:
    return Markup('<p class="lead" role="status">{}</p>').format(text)
