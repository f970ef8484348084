"""The app: the page of anomaly/page.py, the public endpoints, and the launch (Gradio Blocks, gradio.app).

Nothing heavy is imported before the page is served; models are loaded in the background right after.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it calls home as soon as it is imported

import gradio as gr

from anomaly import render, serving
from anomaly.page import MODEL_LANE, Page, Picture, layout, path_of, told, wire
from anomaly.settings import Settings

CSS = Path(__file__).with_name("app.css")
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]  # none to fetch
QUEUE = 16


def build_app(settings: Settings | None = None) -> gr.Blocks:
    """The page and its endpoints. Launch it with `serve`, which also warms it up."""
    chosen = settings or Settings()
    with gr.Blocks(title="Vigie", delete_cache=(3600, 3600)) as demo:
        page = layout(chosen)
        wire(demo, page, chosen)
        publish(page, chosen)
    demo.queue(max_size=QUEUE)
    return demo


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
            exhibit = serving.inspect(settings, path_of(image, "en"), inspector, revision, policy)
        drawn = render.draw(exhibit, render.views(exhibit)[0], render.OPACITY)
        return exhibit.report.model_dump(mode="json"), render.stamped(drawn, exhibit.report)

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

    def state() -> dict[str, Any]:
        """Says whether the app is warm.

        Returns:
            status (starting, ready or failed), problem (why it failed), version, inspectors, and the loaded ones with
            their revisions and commits.
        """
        return serving.health(settings)

    with gr.Row(visible=False):
        names = [gr.Textbox("", label=name) for name in ("inspector", "revision", "policy")]
        answer = [gr.JSON(label="report"), gr.Image(format="png", label="overlay")]
        gr.Button().click(inspect, [page.picture, *names], answer, api_name="inspect", preprocess=False, **MODEL_LANE)
    gr.api(revisions, queue=False)
    gr.api(policies, queue=False)
    gr.api(state, api_name="health", queue=False)


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
    serving.start_warming(settings)
    return demo


def main() -> None:
    """Serves until interrupted; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where."""
    serve(Settings()).block_thread()


if __name__ == "__main__":
    main()
