"""The page: its components, its words, and what connects them (Gradio Blocks, gradio.app)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from anomaly import deep_link, panels, render, serving
from anomaly.cost_panel import CostPanel, cost_panel, decided_here, wire_costs
from anomaly.deep_link import Moved
from anomaly.drift_panel import drift_html
from anomaly.energy_panel import emissions_html
from anomaly.errors import VigieError
from anomaly.events import ASIDE, MODEL_LANE, PRIVATE, TELLING, Picture, path_of, told
from anomaly.feedback_panel import FeedbackPanel, feedback_panel, wire_feedback
from anomaly.full_vote import full_vote, released_metrics
from anomaly.gauge_panel import gauge_html
from anomaly.hub import parse_source
from anomaly.link_panel import LinkPanel, link_panel, notes_update, wire_link
from anomaly.picture_panel import PicturePanel, picture_panel, sides, wire_picture
from anomaly.policy import Text
from anomaly.settings import STARTER, Settings
from anomaly.texts import LANGUAGES, Language, language_of, say
from anomaly.what_if_panel import WhatIfPanel, what_if_panel, wire_what_if
from anomaly.why_panel import promises_html, why_html

Asked = tuple[str, str, str, str]  # path of the picture, inspector, revision, policy
Result = tuple[Asked, render.Exhibit] | None  # the last inspection of a session, and what was asked


# The whole report is in the browser already, so no file of it lies on the server for others to find.
DOWNLOAD = """(report) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(report, null, 1)], {type: "application/json"}));
  link.download = `vigie-${report.category}-${report.decision}-${report.created_at.replace(/[:.]/g, "-")}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}"""
# On a phone the verdict is below the fold.
SCROLL = '() => { if (innerWidth < 800) document.querySelector("#verdict").scrollIntoView({behavior: "smooth"}) }'


@dataclass(frozen=True, slots=True)
class Page:
    """The components that events read or change."""

    header: gr.HTML
    language: gr.Radio
    picture: gr.Image
    examples: gr.Dataset | None
    inspector: gr.Dropdown
    revision: gr.Dropdown
    policy: gr.Dropdown
    inspect: gr.Button
    verdict: gr.HTML
    results: gr.Column
    shown: PicturePanel
    why: gr.HTML
    votes: gr.HTML
    promises: gr.HTML
    emissions: gr.HTML
    members: gr.HTML
    details: gr.Accordion
    report: gr.JSON
    download: gr.Button
    moved: gr.Accordion
    drift: gr.HTML
    costs: CostPanel
    what_if: WhatIfPanel
    link: LinkPanel
    feedback: FeedbackPanel
    queue: gr.State  # parts of this visit that somebody should look at: a Queue


def words(language: Language) -> dict[str, dict[str, Any]]:
    """What components say: by their names in Page, the arguments that change with the language."""
    return {
        "header": {"value": panels.header_html(language)},
        "picture": {
            "label": say("picture", language),
            "placeholder": say("drop", language),
            "alt_text": say("picture_alt", language),
        },
        "examples": {"label": say("examples", language)},
        "inspector": {"label": say("inspector", language)},
        "revision": {"label": say("revision", language), "info": say("revision_info", language)},
        "policy": {"label": say("policy", language)},
        "inspect": {"value": say("inspect", language)},
        "details": {"label": say("report", language)},
        "download": {"value": say("download", language)},
        "moved": {"label": say("drift", language)},
    }


def top() -> tuple[gr.HTML, gr.Radio]:
    """Builds what is above all tabs, in English: the name, and the language."""
    with gr.Row(elem_id="top"):
        header = gr.HTML(padding=False, **words("en")["header"])
        language = gr.Radio(
            list(LANGUAGES.items()),
            value="en",
            label="Language, langue",
            show_label=False,
            container=False,
            elem_id="language",
        )
    return header, language


def layout(settings: Settings, header: gr.HTML, language: gr.Radio) -> Page:
    """Builds the tab that inspects, in English; what is above it is given."""
    texts = words("en")
    sources = list(deep_link.names(settings).items())
    with gr.Row():
        with gr.Column(scale=2, min_width=300, elem_id="ask"):
            picture = gr.Image(
                type="filepath", image_mode=None, height=260, buttons=[], elem_id="picture", **texts["picture"]
            )
            examples = _examples(settings, picture, texts["examples"]["label"])
            inspector = gr.Dropdown(sources, value=sources[0][1], elem_id="inspector", **texts["inspector"])
            revision = gr.Dropdown([], allow_custom_value=True, elem_id="revision", **texts["revision"])
            policy = gr.Dropdown([], elem_id="policy", **texts["policy"])
            inspect = gr.Button(
                say("loading", "en"), variant="primary", size="lg", interactive=False, elem_id="inspect"
            )
            link = link_panel()
        with gr.Column(scale=5, min_width=300, elem_id="answer"):
            verdict = gr.HTML(panels.empty_html("en"), padding=False, elem_id="verdict")
            with gr.Column(visible=False, elem_id="results") as results:
                shown = picture_panel()
                why = gr.HTML(padding=False, elem_id="why")
                votes = gr.HTML(padding=False, elem_id="votes")
                hypothetical = what_if_panel()
                promises = gr.HTML(padding=False, elem_id="promises")
                emissions = gr.HTML(padding=False, elem_id="emissions")
                members = gr.HTML(padding=False, elem_id="members")
                feedback = feedback_panel(settings)
                with gr.Accordion(open=False, elem_id="report", **texts["details"]) as details:
                    report = gr.JSON(show_label=False)
                download = gr.Button(size="sm", elem_id="download", **texts["download"])
            with gr.Accordion(open=False, elem_id="moved", **texts["moved"]) as moved:
                drift = gr.HTML(padding=False, elem_id="drift")
            costs = cost_panel()
    return Page(
        header, language, picture, examples, inspector, revision, policy, inspect, verdict, results,
        shown, why, votes, promises, emissions, members, details, report, download,
        moved, drift, costs, hypothetical, link, feedback, gr.State((), time_to_live=3600),
    )  # fmt: skip


def _examples(settings: Settings, picture: gr.Image, label: str) -> gr.Dataset | None:
    files = sorted(str(path) for path in (STARTER / "examples").glob("*.png"))
    if not files or str(STARTER) not in settings.inspectors:  # cables say nothing about another inspector
        return None
    return gr.Examples(files, picture, label=label, cache_examples=False, api_visibility="private").dataset


def wire(demo: gr.Blocks, page: Page, settings: Settings) -> None:
    """Connects what a person does to what the page shows."""
    follow, picked = wire_costs(page.costs, (page.inspector, page.revision, page.policy), page.language, settings)
    wire_choices(demo, page, settings, follow, picked)
    wire_link(page.link, (page.inspector, page.revision, page.policy), page.what_if, page.language, settings)
    show_again = wire_inspection(page, settings, picked)
    wire_picture(page.shown, page.language)
    wire_drift(page, settings)
    wire_feedback(page.feedback, page, settings)

    def translate(language: Language) -> list[Any]:
        return [gr.update(**texts) for name, texts in words(language).items() if getattr(page, name) is not None]

    said = [getattr(page, name) for name in words("en") if getattr(page, name) is not None]
    show_again(page.language.change(translate, page.language, said, **ASIDE))


def wire_choices(demo: gr.Blocks, page: Page, settings: Settings, follow: Callable[[Any], None], picked: Any) -> None:
    """Inspector, revision and policy: what each offers follows from the ones before it.

    Args:
        demo: the page.
        page: its components.
        settings: of the deployment.
        follow: what else an event that offers policies is followed by.
        picked: the event of another panel that sets the policy.
    """
    descriptions = gr.State({})  # of policies, by name
    current = gr.State([])  # inspector and revision whose policies are offered

    link = gr.State({})  # what the address of the page asks for, as `deep_link.read` gives it

    def open_page(request: gr.Request) -> tuple[str, dict[str, str]]:
        return language_of(request.headers.get("accept-language", "")), deep_link.read(request.query_params)

    def follow_link(link: dict[str, str], language: Language) -> list[Any]:
        with told(language, as_html=True):
            landed = deep_link.land(link, settings, serving.service(settings), language)
        kept = link if landed.known else {}
        asked = gr.Dropdown([kept["policy"]], value=kept["policy"]) if "policy" in kept else gr.skip()
        offered = offer_revisions(landed.inspector, language, landed.revision)
        said = notes_update(landed.notes, language, waits=bool(landed.moved))
        return [landed.inspector, offered, asked, kept, list(landed.notes), landed.moved, said]

    def miss_policy(link: dict[str, str], policy: str, notes: list[str], moved: Moved, language: Language) -> list[Any]:
        if link.get("policy", policy) == policy:
            return [gr.skip()] * 2
        notes = [*notes, say("link_policy", language, name=link["policy"], default=policy)]
        return [notes, notes_update(notes, language, waits=bool(moved))]

    def hold(inspector: str, revision: str | None, current: list[str | None], language: Language) -> Any:
        if [inspector, revision] == current:  # only passed by with the Tab key, which gradio calls an input
            return gr.skip()
        return gr.Button(say("loading", language), interactive=False)

    def offer_revisions(inspector: str, language: Language, revision: str | None = None) -> Any:
        with told(language, as_html=True):
            known = serving.service(settings).revisions(inspector)
            value = revision or serving.service(settings).default_revision(inspector)
        return gr.Dropdown([(f"{entry.name[:12]} · {entry.commit[:7]}", entry.name) for entry in known], value=value)

    def offer_policies(inspector: str, revision: str | None, policy: str | None, language: Language) -> Any:
        with told(language, as_html=True):
            file = serving.service(settings).inspector(inspector, revision).file
        names = {entry.name: entry.description for entry in file.policies}
        offered = gr.Dropdown(list(names), value=policy if policy in names else file.default_policy)
        return offered, names, [inspector, revision]

    def describe(policy: str, descriptions: dict[str, Text], language: Language) -> Any:
        return gr.Dropdown(info=descriptions.get(policy, {}).get(language))

    chosen = [page.inspector, page.revision, page.policy, page.language]
    described = {"fn": describe, "inputs": [page.policy, descriptions, page.language], "outputs": page.policy, **ASIDE}

    def load_policies(event: Any) -> Any:
        event = event.then(offer_policies, chosen, [page.policy, descriptions, current], **TELLING)
        event.then(release, page.language, page.inspect, **ASIDE).then(**described)
        follow(event)
        event.failure(release, page.language, page.inspect, **ASIDE)  # gradio runs no `then` after a failure
        return event

    def load_revisions(event: Any) -> None:
        event = event.then(offer_revisions, [page.inspector, page.language], page.revision, **TELLING)
        load_policies(event)
        event.failure(release, page.language, page.inspect, **ASIDE)

    said, moved, notes = page.link.said, page.link.moved, page.link.notes
    opened = demo.load(open_page, None, [page.language, link], **ASIDE)
    landing = [page.inspector, page.revision, page.policy, link, said, moved, notes]
    landed = opened.then(follow_link, [link, page.language], landing, **TELLING)
    landed.failure(release, page.language, page.inspect, **ASIDE)
    load_policies(landed).then(miss_policy, [link, page.policy, said, moved, page.language], [said, notes], **ASIDE)
    held = [page.inspector, page.revision, current, page.language]
    load_revisions(page.inspector.input(hold, held, page.inspect, **ASIDE))
    load_policies(page.revision.input(hold, held, page.inspect, **ASIDE))
    gr.on([page.policy.input, page.language.change], **described)
    picked.then(**described)


def wire_inspection(page: Page, settings: Settings, picked: Any) -> Callable[[Any], Any]:
    """From the button to the verdict. Returns what makes an event be followed by showing the result once more.

    Args:
        page: its components.
        settings: of the deployment.
        picked: the event of another panel that sets the policy.
    """
    result = gr.State(time_to_live=3600)  # a Result
    asked = [page.picture, page.inspector, page.revision, page.policy]
    inputs = [result, *asked, page.shown.view, page.shown.opacity, page.language]

    def clear(language: Language) -> list[Any]:
        return [panels.empty_html(language), gr.Column(visible=False)]

    def clear_other(result: Result, *values: Any) -> list[Any]:
        *selection, language = values  # a dropdown that was only clicked on reports an input as well
        return [gr.skip()] * 2 if answers(result, selection) else clear(language)

    def begin(language: Language) -> Any:
        busy = gr.Button(say("running_title", language), interactive=False)
        return panels.running_html(language), gr.Column(visible=False), gr.Radio(value=None), busy, None

    def run(picture: Picture, inspector: str, revision: str, policy: str, language: Language) -> Result:
        with told(language, as_html=True):
            exhibit = serving.inspect(settings, path_of(picture, language), inspector, revision, policy)
        return question(picture, inspector, revision, policy), exhibit

    def show(result: Result, *values: Any) -> list[Any]:
        *selection, view, opacity, language = values
        if result is None or not answers(result, selection):  # a verdict beside another picture would be a lie
            return [*clear(language), *[gr.skip()] * 8]
        exhibit = result[1]
        report = exhibit.report
        some = len(report.votes) < len(exhibit.calibrations)
        full = full_vote(report, exhibit.calibrations, released_metrics(report) if some else None)
        offered = render.views(exhibit)
        shown = view if view in offered else offered[0]
        return [
            panels.verdict_html(report, language) + gauge_html(report, language),
            gr.Column(visible=True),
            sides(exhibit, shown, opacity),
            gr.Radio([(panels.view_label(name, language), name) for name in offered], value=shown),
            why_html(report, language),
            panels.votes_html(report, exhibit.calibrations, language),
            "" if exhibit.policy is None else promises_html(exhibit.policy, exhibit.calibrations, language),
            emissions_html(report.emissions, language, full, zero=serving.on_zero_gpu()),
            panels.members_html(report, language, on_hub=parse_source(report.inspector).folder is None),
            report.model_dump(mode="json"),
        ]

    def draw(result: Result, *values: Any) -> Any:
        *selection, view, opacity, _ = values
        if result is None or not answers(result, selection):
            return gr.skip()
        return sides(result[1], view, opacity)

    def show_after(event: Any) -> Any:
        panes = [page.shown.overlay, page.shown.view, page.why, page.votes, page.promises]
        panes += [page.emissions, page.members, page.report]
        return event.then(show, inputs, [page.verdict, page.results, *panes], **ASIDE)

    def decide_here(result: Result, *values: Any) -> Any:
        *selection, hand, winner, language = values
        text = decided_here(hand if answers(result, selection) else None, winner, language)
        return gr.HTML(text, visible=bool(text))

    link = (page.link.moved, page.link.said, page.link.notes)
    taken = wire_what_if(page.what_if, result, page.report, link, page.language, settings)
    here = [result, *asked, page.what_if.held, page.costs.winner, page.language]
    deciding = {"fn": decide_here, "inputs": here, "outputs": page.costs.here, **ASIDE}
    taken.then(**deciding)
    gr.on([page.costs.winner.change, page.language.change], **deciding)
    for changed in (page.picture.change, page.inspector.input, page.revision.input, page.policy.input, picked.then):
        cleared = changed(clear_other, [result, *asked, page.language], [page.verdict, page.results], **ASIDE)
        cleared.then(**deciding)
    busy = [page.verdict, page.results, page.shown.view, page.inspect, result]
    begun = page.inspect.click(begin, page.language, busy, **ASIDE)
    begun.then(**deciding)  # nothing, as long as there is no result
    ended = begun.then(run, [*asked, page.language], result, **MODEL_LANE, **PRIVATE)
    show_after(ended).then(release, page.language, page.inspect, **ASIDE).then(None, js=SCROLL)
    failed = ended.failure(clear, page.language, [page.verdict, page.results], **ASIDE)
    failed.then(release, page.language, page.inspect, **ASIDE)
    gr.on(
        [page.shown.view.input, page.shown.opacity.input],
        draw,
        inputs,
        page.shown.overlay,
        trigger_mode="always_last",
        **ASIDE,
    )
    page.download.click(None, page.report, js=DOWNLOAD)
    return show_after


def wire_drift(page: Page, settings: Settings) -> None:
    """Whether production has moved, as far as the revision that is chosen has seen it: told when that is looked at."""

    def tell(inspector: str, revision: str | None, language: Language) -> str:
        service = serving.service(settings)
        try:
            chosen = service.last(inspector, revision)
        except VigieError as error:  # which the choice of that revision has told already
            return panels.warning_html(str(error), language)
        name, commit, category = revision or chosen.revision, chosen.commit, chosen.file.category
        seen = service.drift.seen(chosen.source, commit, category)
        return drift_html(seen, service.drift.settings, language, category=category, revision=name, commit=commit)

    changed = [page.moved.expand, page.report.change, page.language.change, page.revision.change]
    gr.on(changed, tell, [page.inspector, page.revision, page.language], page.drift, **TELLING)


def release(language: Language) -> Any:
    """The Inspect button, ready to be pressed."""
    return gr.Button(say("inspect", language), interactive=True)


def question(picture: Picture, inspector: str | None, revision: str | None, policy: str | None) -> Asked:
    """What is asked, in a form that can be compared."""
    return (picture or {}).get("path", ""), inspector or "", revision or "", policy or ""


def answers(result: Result, selection: Sequence[Any]) -> bool:
    """Whether a result belongs to what is selected now: picture, inspector, revision and policy."""
    return result is not None and result[0] == question(*selection)
