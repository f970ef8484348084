"""The page and the public API of Vigie, in Gradio Blocks (gradio.app). Thin: what is shown is made in anomaly/.

Nothing heavy is imported before the page is served; models are loaded in the background right after.
"""

import html
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it calls home as soon as it is imported

try:
    import spaces  # there is one on a ZeroGPU Space only, where it has to come before torch
except ImportError:
    spaces = None
import gradio as gr
import numpy as np

from anomaly import __version__, images, panels, render
from anomaly.errors import VigieError
from anomaly.hub import parse_source
from anomaly.policy import Text
from anomaly.render import Exhibit
from anomaly.settings import STARTER, Settings
from anomaly.texts import LANGUAGES, Language, language_of, say

if TYPE_CHECKING:
    from anomaly.service import Service

Function = TypeVar("Function", bound=Callable[..., Any])
Picture = dict[str, Any] | None  # gradio's FileData: events here take it raw, so that the file is read as it was sent
Asked = tuple[str, str, str, str]  # path of the picture, inspector, revision, policy
Result = tuple[Asked, Exhibit] | None  # the last inspection of a session, and what was asked

MODEL_LANE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}  # one inspection at a time
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}
ASIDE: dict[str, Any] = {**PRIVATE, "queue": False}
CSS = Path(__file__).with_name("app.css")
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]  # none to fetch
QUEUE = 16

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

_SERVICE_LOCK = threading.Lock()
_WARMING: dict[Settings, threading.Thread] = {}
_WARM: dict[Settings, str | None] = {}  # when the warm-up is over: why it failed, None if it did not


def gpu(function: Function) -> Function:
    """On ZeroGPU the function runs in a process that has a GPU, elsewhere as it is."""
    decorated: Function = spaces.GPU(function) if spaces else function
    return decorated


@cache
def _service(settings: Settings) -> "Service":
    from anomaly.service import Service  # torch, 3 s

    return Service(settings)


def service(settings: Settings) -> "Service":
    """The one Service with these settings."""
    with _SERVICE_LOCK:
        return _service(settings)


@gpu
def examine(settings: Settings, path: str, inspector: str, revision: str, policy: str) -> Exhibit | VigieError:
    """Inspects a picture file. Errors are returned, for ZeroGPU would put words of its own in place of a raised one."""
    try:
        inspection = service(settings).inspect(path, inspector, revision, policy)
        report = inspection.report
        members = service(settings).inspector(report.inspector, report.commit).members
    except VigieError as error:
        return error
    size = images.ImageLimits(max_pixels=report.image_width * report.image_height, max_bytes=settings.max_bytes)
    calibrations = {name: member.calibration for name, member in members.items()}
    return render.exhibit(report, images.read(path, size), inspection.heatmaps, calibrations)


def warm_up(settings: Settings) -> None:
    """Loads the default inspector, and runs its members once for what they import late."""
    try:
        service(settings).warm_up()
        inspector = service(settings).inspector()
        inspector.ballots(np.full((64, 64, 3), 128, np.uint8), inspector.members)
        _WARM[settings] = None
    except Exception as error:  # the page is up and shows the cause; /health tells it as well
        _WARM[settings] = str(error) if isinstance(error, VigieError) else repr(error)


def health(settings: Settings) -> dict[str, Any]:
    """What /health answers."""
    warm = settings in _WARM
    problem = _WARM.get(settings)
    return {
        "status": "starting" if not warm else "failed" if problem else "ready",
        "problem": problem,
        "version": __version__,
        "inspectors": list(settings.inspectors),
        "loaded": _loaded(settings) if warm else [],
    }


def _loaded(settings: Settings) -> list[dict[str, str]]:
    held = service(settings)
    with held._lock:
        return [
            {"inspector": source, "revision": inspector.revision, "commit": commit}
            for (source, commit), inspector in held._loaded.items()
        ]


def inspected(
    settings: Settings, picture: Picture, inspector: str, revision: str, policy: str, language: Language = "en"
) -> Exhibit:
    """`examine` once warm: what it imports late must not be imported by two threads, nor a hook be set by both."""
    if settings in _WARMING:
        _WARMING[settings].join()
    if not picture:
        raise VigieError(say("no_picture", language))
    outcome = examine(settings, picture["path"], inspector, revision, policy)
    if isinstance(outcome, VigieError):
        raise outcome
    return outcome


@contextmanager
def told(language: Language, *, as_html: bool = False) -> Iterator[None]:
    """Tells an error that a person can mend in its own words; any other one stays in the log."""
    try:
        yield
    except VigieError as error:
        text = html.escape(str(error), quote=False) if as_html else str(error)
        raise gr.Error(text, title=say("error", language), print_exception=False) from error


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
    overlay: gr.Image
    view: gr.Radio
    opacity: gr.Slider
    legend: gr.HTML
    votes: gr.HTML
    emissions: gr.HTML
    members: gr.HTML
    details: gr.Accordion
    report: gr.JSON
    download: gr.Button


def words(language: Language) -> dict[str, dict[str, Any]]:
    """What components say: by their names in Page, the arguments that change with the language."""
    return {
        "header": {"value": panels.header_html(language)},
        "picture": {"label": say("picture", language), "placeholder": say("drop", language)},
        "examples": {"label": say("examples", language)},
        "inspector": {"label": say("inspector", language)},
        "revision": {"label": say("revision", language), "info": say("revision_info", language)},
        "policy": {"label": say("policy", language)},
        "overlay": {"label": say("overlay", language)},
        "view": {"label": say("view", language)},
        "opacity": {"label": say("opacity", language)},
        "legend": {"value": panels.legend_html(language)},
        "details": {"label": say("report", language)},
        "download": {"value": say("download", language)},
    }


def layout(settings: Settings) -> Page:
    """Builds the page, in English."""
    told = words("en")
    sources = [(Path(source).name, source) for source in settings.inspectors]
    with gr.Row(elem_id="top"):
        header = gr.HTML(padding=False, **told["header"])
        language = gr.Radio(list(LANGUAGES.items()), value="en", show_label=False, container=False, elem_id="language")
    with gr.Row():
        with gr.Column(scale=2, min_width=300, elem_id="ask"):
            picture = gr.Image(
                type="filepath", image_mode=None, height=260, buttons=[], elem_id="picture", **told["picture"]
            )
            examples = _examples(picture, told["examples"]["label"])
            inspector = gr.Dropdown(sources, value=sources[0][1], elem_id="inspector", **told["inspector"])
            revision = gr.Dropdown([], allow_custom_value=True, elem_id="revision", **told["revision"])
            policy = gr.Dropdown([], allow_custom_value=True, elem_id="policy", **told["policy"])
            inspect = gr.Button(
                say("loading", "en"), variant="primary", size="lg", interactive=False, elem_id="inspect"
            )
        with gr.Column(scale=5, min_width=300, elem_id="answer"):
            verdict = gr.HTML(panels.empty_html("en"), padding=False, elem_id="verdict")
            with gr.Column(visible=False, elem_id="results") as results:
                with gr.Row():
                    with gr.Column(scale=3, min_width=280):
                        overlay = gr.Image(
                            format="png",
                            interactive=False,
                            buttons=["fullscreen"],
                            elem_id="overlay",
                            **told["overlay"],
                        )
                    with gr.Column(scale=2, min_width=240):
                        view = gr.Radio([], elem_id="view", **told["view"])
                        opacity = gr.Slider(0, 1, render.OPACITY, step=0.05, elem_id="opacity", **told["opacity"])
                        legend = gr.HTML(padding=False, **told["legend"])
                votes = gr.HTML(padding=False, elem_id="votes")
                emissions = gr.HTML(padding=False, elem_id="emissions")
                members = gr.HTML(padding=False, elem_id="members")
                with gr.Accordion(open=False, elem_id="report", **told["details"]) as details:
                    report = gr.JSON(show_label=False)
                    download = gr.Button(size="sm", elem_id="download", **told["download"])
    return Page(
        header, language, picture, examples, inspector, revision, policy, inspect, verdict, results,
        overlay, view, opacity, legend, votes, emissions, members, details, report, download,
    )  # fmt: skip


def _examples(picture: gr.Image, label: str) -> gr.Dataset | None:
    files = sorted(str(path) for path in (STARTER / "examples").glob("*.png"))
    if not files:
        return None
    return gr.Examples(files, picture, label=label, cache_examples=False, api_visibility="private").dataset


def wire(demo: gr.Blocks, page: Page, settings: Settings) -> None:
    """Connects what a person does to what the page shows."""
    result = gr.State(time_to_live=3600)  # a Result
    policies = gr.State({})  # name -> description
    asked = [page.picture, page.inspector, page.revision, page.policy]
    chosen = [page.view, page.opacity, page.language]
    shown = [page.verdict, page.results, page.overlay, page.view, page.votes, page.emissions, page.members, page.report]

    def open_page(request: gr.Request) -> str:
        return language_of(request.headers.get("accept-language", ""))

    def translate(language: Language) -> list[Any]:
        return [gr.update(**told) for name, told in words(language).items() if getattr(page, name) is not None]

    def offer_revisions(inspector: str, language: Language) -> Any:
        with told(language):
            known = service(settings).revisions(inspector)
            default = service(settings).default_revision(inspector)
        return gr.Dropdown([(f"{entry.name[:12]} · {entry.commit[:7]}", entry.name) for entry in known], value=default)

    def offer_policies(inspector: str, revision: str | None, policy: str | None, language: Language) -> Any:
        with told(language):
            file = service(settings).inspector(inspector, revision).file
        names = {entry.name: entry.description for entry in file.policies}
        return gr.Dropdown(list(names), value=policy if policy in names else file.default_policy), names

    def describe(policy: str, policies: dict[str, Text], language: Language) -> Any:
        return gr.Dropdown(info=policies.get(policy, {}).get(language))

    def hold(language: Language) -> Any:
        return gr.Button(say("loading", language), interactive=False)

    def release(language: Language) -> Any:
        return gr.Button(say("inspect", language), interactive=True)

    def clear(language: Language) -> Any:
        return panels.empty_html(language), gr.Column(visible=False)

    def begin(language: Language) -> Any:
        busy = gr.Button(say("running_title", language), interactive=False)
        return panels.running_html(language), gr.Column(visible=False), gr.Radio(value=None), busy, None

    def run(picture: Picture, inspector: str, revision: str, policy: str, language: Language) -> Result:
        with told(language):
            exhibit = inspected(settings, picture, inspector, revision, policy)
        return question(picture, inspector, revision, policy), exhibit

    def show(result: Result, *values: Any) -> list[Any]:
        *selection, view, opacity, language = values
        if result is None or result[0] != question(*selection):  # a verdict beside another picture would be a lie
            return [panels.empty_html(language), gr.Column(visible=False), *[gr.skip()] * 6]
        exhibit = result[1]
        offered = render.views(exhibit)
        view = view if view in offered else offered[0]
        report = exhibit.report
        on_hub = parse_source(report.inspector).folder is None
        return [
            panels.verdict_html(report, language),
            gr.Column(visible=True),
            render.draw(exhibit, view, opacity),
            gr.Radio([(panels.view_label(name, language), name) for name in offered], value=view),
            panels.votes_html(report, exhibit.calibrations, language),
            panels.emissions_html(report.emissions, language),
            panels.members_html(report, language, on_hub=on_hub),
            report.model_dump(mode="json"),
        ]

    def draw(result: Result, *values: Any) -> Any:
        *selection, view, opacity, _ = values
        current = result is not None and result[0] == question(*selection)
        return render.draw(result[1], view, opacity) if result is not None and current else gr.skip()

    def load_policies(event: Any) -> None:
        named = event.then(offer_policies, [*asked[1:], page.language], [page.policy, policies], **ASIDE).then(
            release, page.language, page.inspect, **ASIDE
        )
        named.then(describe, [page.policy, policies, page.language], page.policy, **ASIDE)

    def load_revisions(event: Any) -> None:
        load_policies(event.then(offer_revisions, [page.inspector, page.language], page.revision, **ASIDE))

    load_revisions(demo.load(open_page, None, page.language, **ASIDE))
    load_revisions(page.inspector.input(hold, page.language, page.inspect, **ASIDE))
    load_policies(page.revision.input(hold, page.language, page.inspect, **ASIDE))
    page.policy.change(describe, [page.policy, policies, page.language], page.policy, **ASIDE)
    for changed in (page.picture.change, page.inspector.input, page.revision.input, page.policy.input):
        changed(clear, page.language, [page.verdict, page.results], **ASIDE)

    begun = page.inspect.click(
        begin, page.language, [page.verdict, page.results, page.view, page.inspect, result], **ASIDE
    )
    ended = begun.then(run, [*asked, page.language], result, **MODEL_LANE, **PRIVATE)
    ended = ended.then(show, [result, *asked, *chosen], shown, **ASIDE)
    ended = ended.then(release, page.language, page.inspect, **ASIDE)
    ended.then(None, js=SCROLL)
    gr.on(
        [page.view.input, page.opacity.input],
        draw,
        [result, *asked, *chosen],
        page.overlay,
        trigger_mode="always_last",
        **ASIDE,
    )
    page.download.click(None, page.report, js=DOWNLOAD)

    told_again = page.language.change(
        translate,
        page.language,
        [getattr(page, name) for name in words("en") if getattr(page, name) is not None],
        **ASIDE,
    )
    told_again.then(show, [result, *asked, *chosen], shown, **ASIDE)
    told_again.then(describe, [page.policy, policies, page.language], page.policy, **ASIDE)


def publish(page: Page, settings: Settings) -> None:
    """The public endpoints. An empty inspector, revision or policy stands for the default one."""

    def inspect(image: Picture, inspector: str, revision: str, policy: str) -> tuple[dict[str, Any], Any]:
        """Decides whether the part in a picture is good.

        Args:
            image: a picture file, read as it is (JPEG, PNG, WebP, TIFF, BMP, GIF).
            inspector: one of those that /health lists; the first one if empty.
            revision: tag, branch or commit of the inspector; its latest tag if empty.
            policy: one of those that /policies lists; the inspector's default if empty.

        Returns:
            The report, and the picture under the heatmap of the detector most above its threshold (PNG, at most 1024
            pixels a side).
        """
        with told("en"):
            exhibit = inspected(settings, image, inspector, revision, policy)
        return exhibit.report.model_dump(mode="json"), render.draw(exhibit, render.views(exhibit)[0], render.OPACITY)

    def revisions(inspector: str = "") -> list[dict[str, str]]:
        """Lists the revisions of an inspector: tags (latest first), branches, recent commits.

        Args:
            inspector: one of those that /health lists; the first one if empty.

        Returns:
            For each: name, kind (tag, branch or commit), commit, title and date (empty where unknown).
        """
        with told("en"):
            return [asdict(revision) for revision in service(settings).revisions(inspector)]

    def policies(inspector: str = "", revision: str = "") -> list[dict[str, Any]]:
        """Lists the policies of an inspector.

        Args:
            inspector: one of those that /health lists; the first one if empty.
            revision: tag, branch or commit; the latest tag if empty.

        Returns:
            For each: name, description (in en and fr), and whether it is the default.
        """
        with told("en"):
            file = service(settings).inspector(inspector, revision).file
        return [
            {"name": entry.name, "description": entry.description, "default": entry.name == file.default_policy}
            for entry in file.policies
        ]

    def state() -> dict[str, Any]:
        """Says whether the app is warm.

        Returns:
            status (starting, ready or failed), problem (why it failed), version, inspectors, and the loaded ones with
            their revisions and commits.
        """
        return health(settings)

    with gr.Row(visible=False):
        names = [gr.Textbox("", label=name) for name in ("inspector", "revision", "policy")]
        answer = [gr.JSON(label="report"), gr.Image(format="png", label="overlay")]
        gr.Button().click(inspect, [page.picture, *names], answer, api_name="inspect", preprocess=False, **MODEL_LANE)
    gr.api(revisions, queue=False)
    gr.api(policies, queue=False)
    gr.api(state, api_name="health", queue=False)


def question(picture: Picture, inspector: str | None, revision: str | None, policy: str | None) -> Asked:
    """What was asked, to be compared with what is asked now."""
    return (picture or {}).get("path", ""), inspector or "", revision or "", policy or ""


def build_app(settings: Settings | None = None) -> gr.Blocks:
    """The page and its endpoints. Launch it with `serve`, which also warms it up."""
    chosen = settings or Settings()
    with gr.Blocks(title="Vigie", delete_cache=(3600, 3600)) as demo:
        page = layout(chosen)
        wire(demo, page, chosen)
        publish(page, chosen)
    demo.queue(max_size=QUEUE)
    return demo


def serve(settings: Settings, **options: Any) -> gr.Blocks:
    """Launches the app and returns while it warms up in the background.

    Args:
        settings: of the deployment.
        options: of gr.Blocks.launch.
    """
    demo = build_app(settings)
    demo.launch(
        theme=gr.themes.Base(
            primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=["ui-monospace", "monospace"]
        ),
        css_paths=CSS,
        footer_links=["api"],
        max_file_size=settings.max_bytes,
        ssr_mode=False,
        prevent_thread_lock=True,
        **options,
    )
    _WARMING[settings] = threading.Thread(target=warm_up, args=(settings,), daemon=True)
    _WARMING[settings].start()
    return demo


def main() -> None:
    """Serves until interrupted; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where."""
    serve(Settings()).block_thread()


if __name__ == "__main__":
    main()
