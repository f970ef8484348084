"""The app: the page of anomaly/page.py, the public endpoints, and the launch (Gradio Blocks, gradio.app).

Nothing heavy is imported before the page is served; models are loaded in the background right after.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it calls home as soon as it is imported

from anomaly.imports import importing

with importing("gradio"):
    import gradio as gr
    from markupsafe import Markup

    from anomaly import batch, render, serving
    from anomaly.batch_tab import BATCH_LANE, Pictures, batch_tab, uploaded
    from anomaly.compare_pair import SIDES, as_json, compare_pair, read_ask
    from anomaly.compare_tab import compare_tab
    from anomaly.events import ASIDE, MODEL_LANE, Picture, path_of, told
    from anomaly.feedback_tab import feedback_tab
    from anomaly.keyboard import mend
    from anomaly.mcp_tools import speak_json
    from anomaly.models_tab import models_tab
    from anomaly.monitor_tab import monitor_tab
    from anomaly.page import Page, layout, top, wire
    from anomaly.settings import Settings
    from anomaly.texts import Language, say

CSS = Path(__file__).with_name("app.css")
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]  # none to fetch
QUEUE = 16
TABS: dict[str, Callable[[Page, Settings], object]] = {
    "tab_batch": batch_tab,
    "tab_compare": compare_tab,
    "tab_feedback": feedback_tab,
    "tab_models": models_tab,
    "tab_monitor": monitor_tab,
}


def build_app(settings: Settings | None = None) -> gr.Blocks:
    """The page and its endpoints. Launch it with `serve`, which also warms it up."""
    chosen = settings or Settings()
    with gr.Blocks(title="Vigie", delete_cache=(3600, 3600)) as demo:
        page, tabs = tabbed(chosen)
        wire(demo, page, chosen)
        page.language.change(name_tabs, page.language, tabs, **ASIDE)
        mend(demo, page.language)
        publish(demo, page, chosen)
    demo.queue(max_size=QUEUE)
    return demo


def tabbed(settings: Settings) -> tuple[Page, list[gr.Tab | gr.HTML]]:
    """Builds the tabs, in the order of TABS after the one that inspects, and then their headings."""
    above = top()
    with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
        with gr.Tab(say("tab_inspect", "en"), id="tab_inspect", elem_id="tab-inspect") as first:
            headings = [gr.HTML(heading("tab_inspect", "en"), elem_classes="heard")]
            page = layout(settings, *above)
        tabs = [first]
        for key, build in TABS.items():
            with gr.Tab(say(key, "en"), id=key, elem_id=key.replace("_", "-")) as tab:
                headings.append(gr.HTML(heading(key, "en"), elem_classes="heard"))
                build(page, settings)
            tabs.append(tab)
    return page, [*tabs, *headings]


def heading(tab: str, language: Language) -> str:
    """Of a tab, for who hears the page: between its name and the headings within the tab."""
    return Markup("<h2>{}</h2>").format(say(tab, language))


def name_tabs(language: Language) -> list[Any]:
    """The labels of the tabs, and their headings."""
    keys = ("tab_inspect", *TABS)
    return [*(gr.Tab(label=say(key, language)) for key in keys), *(heading(key, language) for key in keys)]


def publish(demo: gr.Blocks, page: Page, settings: Settings) -> None:
    """The public endpoints, as docs/API.md has them. Each is a tool of the MCP server as well, told by its docstring.

    An empty inspector, revision or policy stands for the default one.
    """

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
            exhibit = serving.inspect(settings, path_of(image, "en"), inspector, revision, policy)
            drawn = render.draw(exhibit, render.views(exhibit)[0], render.OPACITY)
            return exhibit.report.model_dump(mode="json"), render.stamped(drawn, exhibit.report)

    def inspect_batch(files: Pictures, inspector: str, revision: str, policy: str) -> list[dict[str, Any]]:
        """Decides on many pictures, one after the other. One that is no good does not stop the others.

        Args:
            files: picture files, and ZIP archives of picture files; the limits are those of /health.
            inspector: one of those that /health lists; the first one if empty.
            revision: tag, branch or commit of the inspector; its latest tag if empty.
            policy: one of those that /policies lists; the inspector's default if empty.

        Returns:
            For each picture, in order: file (its name) and report; or file, error and code, where there is none.
        """
        with told("en"):
            waiting = batch.entries(uploaded(files), batch.limits_of(settings))
            rows = batch.inspect_all(settings, waiting, inspector, revision, policy, draw=False)
            return [batch.as_json(row) for row in rows]

    def compare(image: Picture, inspector: str, first: dict[str, str], second: dict[str, str]) -> dict[str, Any]:
        """Inspects one picture twice, with two revisions or two policies, and says what differs.

        Args:
            image: a picture file, as for /inspect.
            inspector: one of those that /health lists; the first one if empty.
            first: {"revision": ..., "policy": ...}; what is left out is the default one.
            second: the same for the other side.

        Returns:
            first and second (a report each), differences (whether the decision, the commit and the policy differ, what
            differs in each member's vote, energy_mj and duration_ms of the second less the first), and errors. A side
            that cannot be inspected is null and has its code and message in errors; differences is null then. If
            neither side can, the call fails.
        """
        with told("en"):
            sides = read_ask(first, "first"), read_ask(second, "second")
            return as_json(compare_pair(settings, path_of(image, "en"), inspector, *sides))

    def feedback(image: Picture, report: dict[str, Any], label: str, region: list[list[float]]) -> dict[str, Any]:
        """Says what the part in a picture really is, for detectors to learn from. The app stores picture and report.

        Args:
            image: the picture file that was inspected.
            report: what /inspect answered on it.
            label: good, or a type of defect (letters, digits, - and _).
            region: boxes around the defect, [[x, y, width, height], ...] in pixels from the upper left corner; empty
                where it is not known.

        Returns:
            outcome (stored; known: it had this label; moved: it had another one), label, and pictures (labelled so
            far). The call fails where the app collects no labels.
        """
        with told("en"):
            stored = serving.give_feedback(settings, path_of(image, "en"), report, label, region)
            return {"outcome": stored.outcome, "label": stored.label, "pictures": stored.pictures}

    def revisions(inspector: str = "") -> list[dict[str, str]]:
        """Lists the revisions of an inspector: tags (latest first), branches, recent commits.

        Args:
            inspector: one of those that /health lists; the first one if empty.

        Returns:
            For each: name, kind (tag, branch or commit), commit, title and date (empty where unknown).
        """
        with told("en"):
            return [asdict(revision) for revision in serving.service(settings).revisions(inspector)]

    def policies(inspector: str = "", revision: str = "") -> list[dict[str, Any]]:
        """Lists the policies of an inspector.

        Args:
            inspector: one of those that /health lists; the first one if empty.
            revision: tag, branch or commit; the latest tag if empty.

        Returns:
            For each: name, description (in en and fr), and whether it is the default.
        """
        with told("en"):
            file = serving.service(settings).inspector(inspector, revision).file
        return [
            {"name": entry.name, "description": entry.description, "default": entry.name == file.default_policy}
            for entry in file.policies
        ]

    def health() -> dict[str, Any]:
        """Says whether the app is warm.

        Returns:
            status (starting, ready or failed), problem (why it failed), version, inspectors, the loaded ones with
            their revisions and commits, limits (bytes of a picture; batch_files and batch_bytes, unpacked, of
            /inspect_batch), and mcp (whether the MCP server is on).
        """
        return {**serving.health(settings), "mcp": demo.mcp_server}

    with gr.Row(visible=False):
        names = [gr.Textbox("", label=name) for name in ("inspector", "revision", "policy")]
        answer = [gr.JSON(label="report"), gr.Image(format="png", label="overlay")]
        gr.Button().click(inspect, [page.picture, *names], answer, api_name="inspect", preprocess=False, **MODEL_LANE)
        sides = [gr.JSON(label=name, value={}) for name in SIDES]
        compared = [page.picture, names[0], *sides], gr.JSON(label="comparison")
        gr.Button().click(compare, *compared, api_name="compare", preprocess=False, **MODEL_LANE)
        many, rows = gr.File(file_count="multiple", label="files"), gr.JSON(label="results")
        gr.Button().click(inspect_batch, [many, *names], rows, api_name="inspect_batch", preprocess=False, **BATCH_LANE)
        said = [page.picture, gr.JSON(label="report"), gr.Textbox("", label="label"), gr.JSON([], label="region")]
        taken = gr.JSON(label="result")
        gr.Button().click(feedback, said, taken, api_name="feedback", preprocess=False, concurrency_limit=None)
    gr.api(revisions, queue=False)
    gr.api(policies, queue=False)
    gr.api(health, queue=False)


def theme() -> gr.themes.Base:
    """Gradio's plainest one, with the contrast of WCAG 2 AA (w3.org/TR/WCAG22) where it has less."""
    plain = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=["ui-monospace", "monospace"])
    return plain.set(
        body_text_color_subdued="*neutral_600",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        link_text_color_dark="*primary_400",
        link_text_color_visited="*primary_600",
        link_text_color_visited_dark="*primary_400",
    )


def serve(settings: Settings, **options: Any) -> gr.Blocks:
    """Launches the app and returns while it warms up in the background.

    Args:
        settings: of the deployment.
        options: of gr.Blocks.launch.
    """
    demo = build_app(settings)
    demo.launch(
        theme=theme(),
        css_paths=CSS,
        footer_links=["api"],
        max_file_size=max(settings.max_bytes, settings.batch_bytes),  # a ZIP; a picture's limit is told in our words
        ssr_mode=False,
        mcp_server=find_spec("mcp") is not None,
        prevent_thread_lock=True,
        **options,
    )
    if demo.mcp_server_obj is not None:
        speak_json(demo.mcp_server_obj)
    serving.start_warming(settings)
    return demo


def main() -> None:
    """Serves until interrupted; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where."""
    serve(Settings()).block_thread()


if __name__ == "__main__":
    main()
