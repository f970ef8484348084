"""The Models tab: what a release says of itself, in figures, plots, cards and history (Gradio Blocks, gradio.app).

Everything comes from files of the release (anomaly.releases); nothing is typed in by hand, no model is run.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from anomaly import hub, panels, releases, serving
from anomaly.errors import VigieError
from anomaly.events import ASIDE, enclosing_tab
from anomaly.models_sheet import card_text, history_html, models_html
from anomaly.settings import Settings
from anomaly.texts import Language, say

if TYPE_CHECKING:
    from anomaly.page import Page

INSPECTOR = ""  # among the cards, the inspector itself


def models_tab(page: "Page", settings: Settings) -> None:
    """Builds it where it is called, inside a gr.Tab, and connects it.

    Args:
        page: for the language, and the inspector and revision that are told about.
        settings: of the deployment.
    """
    sheet = gr.HTML(padding=False, elem_id="models")
    with gr.Accordion(say("mod_history", "en"), open=False, elem_id="models-history") as history:
        past = gr.HTML(padding=False)
    with gr.Accordion(say("mod_cards", "en"), open=False, elem_id="models-cards") as cards:
        which = gr.Dropdown(
            [(say("mod_card_inspector", "en"), INSPECTOR)], value=INSPECTOR, label=say("mod_card", "en"),
            elem_id="models-card-of",
        )  # fmt: skip
        card = gr.Markdown(elem_id="models-card", latex_delimiters=[], sanitize_html=True, header_links=False)

    def show(inspector: str, revision: str | None, language: Language) -> str:
        try:
            chosen = serving.service(settings).last(inspector, revision)
            return models_html(chosen, serving.service(settings).figures(inspector, revision), language)
        except VigieError as error:
            return Markup('<div class="sheet">{}</div>').format(panels.warning_html(str(error), language))

    def offer(inspector: str, revision: str | None, name: str | None, language: Language) -> Any:
        try:
            members = list(serving.service(settings).last(inspector, revision).members)
        except VigieError:  # which the sheet tells
            members = []
        choices = [(say("mod_card_inspector", language), INSPECTOR), *((member, member) for member in members)]
        return gr.Dropdown(choices, value=name if name in members else INSPECTOR, label=say("mod_card", language))

    def show_card(inspector: str, revision: str | None, name: str | None, language: Language) -> str:
        try:
            return card_text(serving.service(settings).last(inspector, revision), name or INSPECTOR, language)
        except VigieError as error:
            return releases.safe_markdown(str(error))

    def show_history(inspector: str, language: Language) -> str:
        service = serving.service(settings)
        try:
            known = service.revisions(inspector)
            place = hub.parse_source(inspector or settings.inspectors[0])
            return history_html(releases.history(place, known), place, language)
        except VigieError as error:
            return Markup('<div class="sheet">{}</div>').format(panels.warning_html(str(error), language))

    def translate(language: Language) -> list[Any]:
        return [gr.update(label=say(key, language)) for key in ("mod_history", "mod_cards")]

    chosen = [page.inspector, page.revision]
    told: dict[str, tuple[Callable[..., str], list[Any], Any]] = {
        "sheet": (show, [*chosen, page.language], sheet),
        "card": (show_card, [*chosen, which, page.language], card),
        "history": (show_history, [page.inspector, page.language], past),
    }
    # What nobody has looked at is neither fetched nor drawn; what somebody has is told anew where it may have changed.
    looked = {name: gr.State(False) for name in told}

    def look(event: Any, name: str) -> Any:
        make, inputs, output = told[name]
        return event(lambda: True, None, looked[name], **ASIDE).then(make, inputs, output, **ASIDE)

    def again(event: Any, name: str) -> Any:
        make, inputs, output = told[name]

        def made(was: bool, *values: Any) -> Any:
            return make(*values) if was else gr.skip()

        return event.then(made, [looked[name], *inputs], output, **ASIDE)

    opened = look(enclosing_tab().select, "sheet").then(offer, [*chosen, which, page.language], which, **ASIDE)
    again(again(opened, "card"), "history")
    look(cards.expand, "card")
    look(history.expand, "history")
    which.change(show_card, told["card"][1], card, **ASIDE)
    spoken = page.language.change(translate, page.language, [history, cards], **ASIDE)
    spoken = again(spoken, "sheet").then(offer, [*chosen, which, page.language], which, **ASIDE)
    again(again(spoken, "card"), "history")
