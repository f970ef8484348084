"""A link to what is chosen, and what was not there of the one that led here: below the choices (Gradio Blocks)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from anomaly import deep_link, serving
from anomaly.at_hand import is_of, set_here
from anomaly.errors import VigieError
from anomaly.events import ASIDE
from anomaly.panels import notes_html
from anomaly.settings import Settings
from anomaly.texts import Language, say
from anomaly.what_if_panel import WhatIfPanel

# The browser knows best under which address it sees the page. Without https there is no clipboard: the box shows it.
_COPY = """(query) => {
  if (!query || !query.startsWith("?")) return query;
  const link = location.origin + location.pathname + query;
  navigator.clipboard?.writeText(link).catch(() => {});
  return link;
}"""


@dataclass(frozen=True, slots=True)
class LinkPanel:
    """Its components."""

    notes: gr.HTML
    copy: gr.Button
    link: gr.Textbox
    said: gr.State  # the notes, in sentences
    moved: gr.State  # a Moved: what the address sets in What if?, until an inspection shows it


def link_panel() -> LinkPanel:
    """Builds it, in English; call it where it is to stand."""
    notes = gr.HTML(padding=False, visible=False, elem_id="link-notes")
    copy = gr.Button(say("link_copy", "en"), size="sm", elem_id="link-copy")
    link = gr.Textbox(
        label=say("link_shown", "en"), interactive=False, visible=False, buttons=["copy"], elem_id="link-shown"
    )
    return LinkPanel(notes, copy, link, gr.State([]), gr.State(deep_link.Moved()))


def wire_link(
    panel: LinkPanel,
    chosen: tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown],
    what_if: WhatIfPanel,
    language: gr.Radio,
    settings: Settings,
) -> None:
    """Connects it.

    Args:
        panel: built.
        chosen: inspector, revision and policy.
        what_if: whose policy and lines go into the link as well.
        language: of the page.
        settings: of the deployment.
    """

    def pin(inspector: str, revision: str | None, policy: str | None, *values: Any) -> list[Any]:
        hand, name, *places, spoken = values
        try:
            commit = serving.service(settings).last(inspector, revision).commit
        except VigieError as error:
            return [gr.Textbox(value="", visible=False), notes_update([str(error)], spoken)]
        moved = set_here(hand, name, places, policy or "") if is_of(hand, inspector, commit) else deep_link.Moved()
        query = deep_link.query(settings, inspector, commit, policy or "", moved)
        return [gr.Textbox(value=query, visible=True), gr.skip()]

    def translate(spoken: Language) -> list[Any]:
        return [gr.Button(say("link_copy", spoken)), gr.Textbox(label=say("link_shown", spoken))]

    def forget() -> list[Any]:
        return [gr.Textbox(value="", visible=False), gr.HTML(visible=False), [], deep_link.Moved()]

    asked = [*chosen, what_if.held, what_if.policy, *what_if.sliders, language]
    pinned = panel.copy.click(pin, asked, [panel.link, panel.notes], **ASIDE)
    pinned.then(None, panel.link, panel.link, js=_COPY)
    changed = [component.input for component in chosen]
    gr.on(changed, forget, None, [panel.link, panel.notes, panel.said, panel.moved], **ASIDE)
    moved = [what_if.policy.input, what_if.reset.click, *(slider.input for slider in what_if.sliders)]
    gr.on(moved, lambda: gr.Textbox(value="", visible=False), None, panel.link, **ASIDE)
    language.change(translate, language, [panel.copy, panel.link], **ASIDE)


def notes_update(notes: Sequence[str], language: Language, *, waits: bool = False) -> Any:
    """What is not there, in sentences; hidden without any.

    Args:
        notes: the sentences.
        language: of the page.
        waits: whether the link sets something that the next inspection shows.
    """
    hint = Markup('<p class="hint">{}</p>').format(say("link_waits", language)) if waits else ""
    said = notes_html(notes, language) + hint
    return gr.HTML(said, visible=bool(said))
