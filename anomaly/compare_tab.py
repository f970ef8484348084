"""One picture, two revisions or two policies, side by side: a tab of the page (Gradio Blocks)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context
from markupsafe import Markup

from anomaly import render, serving
from anomaly.compare_pair import SIDES, Ask, Pair, compare_pair
from anomaly.compare_panels import drawings, facts_html, lead_html, side_html, views, votes_html
from anomaly.errors import VigieError
from anomaly.events import ASIDE, MODEL_LANE, PRIVATE, TELLING, path_of, told
from anomaly.panels import legend_html, running_html, view_label
from anomaly.settings import Settings
from anomaly.texts import Language, say

if TYPE_CHECKING:
    from anomaly.page import Page

Asked = tuple[str, ...]  # path of the picture, inspector, first revision and policy, second revision and policy
Result = tuple[Asked, Pair] | None

# On a phone the answer is below the fold.
_SCROLL = '() => { if (innerWidth < 800) document.querySelector("#cmp-lead").scrollIntoView({behavior: "smooth"}) }'


@dataclass(frozen=True, slots=True)
class CompareTab:
    """Its components; of those in pairs the first side comes first."""

    picture: gr.Image
    inspector: gr.Dropdown
    revisions: tuple[gr.Dropdown, gr.Dropdown]
    policies: tuple[gr.Dropdown, gr.Dropdown]
    run: gr.Button
    lead: gr.HTML
    results: gr.Column
    verdicts: tuple[gr.HTML, gr.HTML]
    overlays: tuple[gr.Image, gr.Image]
    view: gr.Radio
    opacity: gr.Slider
    legend: gr.HTML
    votes: gr.HTML
    facts: gr.HTML

    @property
    def asked(self) -> list[Any]:
        """What a comparison is asked by, in the order of Asked."""
        choice = [part for pair in zip(self.revisions, self.policies, strict=True) for part in pair]
        return [self.picture, self.inspector, *choice]


def compare_tab(page: "Page", settings: Settings) -> CompareTab:
    """Builds and wires the tab; call it where it is to stand.

    Args:
        page: whose picture and language it follows.
        settings: of the deployment.
    """
    tab = _layout(page, settings)
    labelled = [tab.picture, tab.inspector, *tab.revisions, *tab.policies, tab.run, *tab.overlays, tab.view]
    labelled += [tab.opacity, tab.legend]
    root = Context.root_block
    assert isinstance(root, gr.Blocks)
    result = gr.State(time_to_live=3600)  # a Result
    _wire_choices(tab, page, settings, root.load(_words, page.language, labelled, **ASIDE))
    show_after = _wire_comparison(tab, page, settings, result)
    show_after(page.language.change(_words, page.language, labelled, **ASIDE))
    return tab


def _layout(page: "Page", settings: Settings) -> CompareTab:
    revisions, policies, verdicts, overlays = [], [], [], []
    with gr.Row(elem_id="compare"):
        with gr.Column(scale=2, min_width=300):
            picture = gr.Image(type="filepath", image_mode=None, height=220, buttons=[], elem_id="cmp-picture")
            inspector = gr.Dropdown(
                page.inspector.choices,
                value=settings.inspectors[0],
                visible=len(settings.inspectors) > 1,
                elem_id="cmp-inspector",
            )
            for side in SIDES:
                with gr.Group():
                    revisions.append(gr.Dropdown([], allow_custom_value=True, elem_id=f"cmp-{side}-revision"))
                    policies.append(gr.Dropdown([], allow_custom_value=True, elem_id=f"cmp-{side}-policy"))
            run = gr.Button(variant="primary", size="lg", elem_id="cmp-run")
        with gr.Column(scale=5, min_width=300):
            lead = gr.HTML(padding=False, elem_id="cmp-lead")
            with gr.Column(visible=False, elem_id="cmp-results") as results:
                with gr.Row():
                    for side in SIDES:
                        with gr.Column(min_width=280):
                            verdicts.append(gr.HTML(padding=False, elem_id=f"cmp-{side}-verdict"))
                with gr.Row():
                    for side in SIDES:
                        with gr.Column(min_width=280):
                            name = f"cmp-{side}-overlay"
                            drawn = gr.Image(format="png", interactive=False, buttons=["fullscreen"], elem_id=name)
                            overlays.append(drawn)
                view = gr.Radio([], elem_id="cmp-view")
                opacity = gr.Slider(0, 1, render.OPACITY, step=0.05, elem_id="cmp-opacity")
                legend = gr.HTML(padding=False)
                votes = gr.HTML(padding=False, elem_id="cmp-votes")
                facts = gr.HTML(padding=False, elem_id="cmp-facts")
    pairs = [(first, second) for first, second in (revisions, policies, verdicts, overlays)]
    return CompareTab(
        picture, inspector, pairs[0], pairs[1], run, lead, results, pairs[2], pairs[3],
        view, opacity, legend, votes, facts,
    )  # fmt: skip


def _words(language: Language) -> list[Any]:
    names = [say(f"cmp_{side}", language) for side in SIDES]
    pictured = [say("cmp_overlay", language, side=name) for name in names]
    return [
        gr.Image(
            label=say("picture", language),
            placeholder=say("drop", language),
            alt_text=say("picture_alt", language),
        ),
        gr.Dropdown(label=say("inspector", language)),
        *[gr.Dropdown(label=say("cmp_revision", language, side=name)) for name in names],
        *[gr.Dropdown(label=say("cmp_policy", language, side=name)) for name in names],
        gr.Button(say("cmp_run", language)),
        *[gr.Image(label=text, alt_text=text) for text in pictured],
        gr.Radio(label=say("view", language)),
        gr.Slider(label=say("opacity", language)),
        legend_html(language),
    ]


def _wire_choices(tab: CompareTab, page: "Page", settings: Settings, opened: Any) -> None:
    """What the revisions and policies offer follows from what is before them."""

    def offer(inspector: str, language: Language) -> list[Any]:
        """The two latest tags, or the same revision twice: then it is the policies that are compared."""
        with told(language, as_html=True):
            known = serving.service(settings).revisions(inspector)
            latest = serving.service(settings).default_revision(inspector)
        tags = [entry.name for entry in known if entry.kind == "tag"]
        choices = [(f"{entry.name[:12]} · {entry.commit[:7]}", entry.name) for entry in known]
        values = tags[1] if len(tags) > 1 else latest, latest
        return [gr.Dropdown(choices, value=value) for value in values]

    def offer_policies(inspector: str, revision: str | None, policy: str | None) -> Any:
        try:
            file = serving.service(settings).inspector(inspector, revision).file
        except VigieError:  # which Compare tells beside that side
            return gr.Dropdown([], value=None)
        names = [entry.name for entry in file.policies]
        return gr.Dropdown(names, value=policy if policy in names else file.default_policy)

    for event in (opened, tab.inspector.input(lambda: None, **ASIDE)):
        offered = event.then(offer, [tab.inspector, page.language], list(tab.revisions), **TELLING)
        for revision, policy in zip(tab.revisions, tab.policies, strict=True):
            offered.then(offer_policies, [tab.inspector, revision, policy], policy, **TELLING)
    for revision, policy in zip(tab.revisions, tab.policies, strict=True):
        revision.input(offer_policies, [tab.inspector, revision, policy], policy, **TELLING)
    page.picture.change(None, page.picture, tab.picture, js="(picture) => picture")  # what was inspected


def _wire_comparison(tab: CompareTab, page: "Page", settings: Settings, result: gr.State) -> Callable[[Any], Any]:
    """From the button to both answers. Returns what makes an event be followed by showing them once more."""
    asked, language = tab.asked, page.language
    shown = [tab.lead, tab.results, tab.view, *tab.verdicts, *tab.overlays, tab.votes, tab.facts]

    def begin(language: Language) -> list[Any]:
        busy = gr.Button(say("cmp_running", language), interactive=False)
        return [running_html(language), gr.Column(visible=False), busy, None]

    def run(*values: Any) -> Result:
        *selection, language = values
        picture, inspector, *rest = selection
        with told(language, as_html=True):
            asks = [Ask(revision=rest[at] or "", policy=rest[at + 1] or "") for at in (0, 2)]
            pair = compare_pair(settings, path_of(picture, language), inspector, asks[0], asks[1])
        return _question(selection), pair

    def show(result: Result, *values: Any) -> list[Any]:
        *selection, view, opacity, language = values
        if result is None or result[0] != _question(selection):
            return [_empty(language), gr.Column(visible=False), *[gr.skip()] * (len(shown) - 2)]
        pair = result[1]
        offered = views(pair)
        chosen = view if view in offered else offered[0]
        return [
            lead_html(pair, language),
            gr.Column(visible=True),
            gr.Radio([(view_label(name, language), name) for name in offered], value=chosen),
            *[side_html(side, name, language) for side, name in zip(pair, SIDES, strict=True)],
            *drawings(pair, chosen, opacity),
            votes_html(pair, language),
            facts_html(pair, language),
        ]

    def draw(result: Result, *values: Any) -> list[Any]:
        *selection, view, opacity = values
        if result is None or result[0] != _question(selection):
            return [gr.skip()] * 2
        return drawings(result[1], view, opacity)

    def clear(result: Result, *values: Any) -> list[Any]:
        *selection, language = values  # a dropdown that was only clicked on reports an input as well
        if result is not None and result[0] == _question(selection):
            return [gr.skip()] * 2
        return [_empty(language), gr.Column(visible=False)]

    def release(language: Language) -> Any:
        return gr.Button(say("cmp_run", language), interactive=True)

    def show_after(event: Any) -> Any:
        return event.then(show, [result, *asked, tab.view, tab.opacity, language], shown, **ASIDE)

    cleared = {"fn": clear, "inputs": [result, *asked, language], "outputs": [tab.lead, tab.results], **ASIDE}
    gr.on([tab.picture.change, *(component.input for component in asked[1:])], **cleared)
    begun = tab.run.click(begin, language, [tab.lead, tab.results, tab.run, result], **ASIDE)
    ended = begun.then(run, [*asked, language], result, **MODEL_LANE, **PRIVATE)
    show_after(ended).then(release, language, tab.run, **ASIDE).then(None, js=_SCROLL)
    ended.failure(**cleared).then(release, language, tab.run, **ASIDE)
    redrawn = [tab.view.input, tab.opacity.input]
    gr.on(
        redrawn, draw, [result, *asked, tab.view, tab.opacity], list(tab.overlays), trigger_mode="always_last", **ASIDE
    )
    return show_after


def _empty(language: Language) -> str:
    return Markup('<p class="hint">{}</p>').format(say("cmp_empty", language))


def _question(selection: list[Any]) -> Asked:
    """What is asked, in a form that can be compared."""
    picture, *values = selection
    return ((picture or {}).get("path", ""), *(value or "" for value in values))
