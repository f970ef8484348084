"""The picture before and after: as it is, and under a heatmap; which one, how strong, and its scale (Gradio Blocks)."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL.Image import Image

from anomaly import render
from anomaly.events import ASIDE
from anomaly.panels import legend_html
from anomaly.texts import Language, say

# percent of the width that show the bare picture at first: enough for a handle to be seen, and no defect lost
SPLIT = 4
# The handle cannot be reached by keyboard, so a slider moves it as well; nothing has to be drawn again for that.
_SPLIT_AT = "(percent) => ({__type__: 'update', slider_position: percent})"


@dataclass(frozen=True, slots=True)
class PicturePanel:
    """Its components."""

    overlay: gr.ImageSlider
    split_at: gr.Slider
    view: gr.Radio
    opacity: gr.Slider
    legend: gr.HTML


def words(language: Language) -> list[dict[str, Any]]:
    """What its components say, in their order."""
    keys = ("overlay", "split_at", "view", "opacity")
    return [*({"label": say(key, language)} for key in keys), {"value": legend_html(language)}]


def picture_panel() -> PicturePanel:
    """Builds it, in English; call it where it is to stand."""
    overlaid, split, viewed, strength, scale = words("en")
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            overlay = gr.ImageSlider(
                format="png",
                interactive=False,
                buttons=["download", "fullscreen"],
                slider_position=SPLIT,
                elem_id="overlay",
                **overlaid,
            )
            split_at = gr.Slider(0, 100, SPLIT, step=1, buttons=[], elem_id="split-at", **split)
        with gr.Column(scale=2, min_width=240):
            view = gr.Radio([], elem_id="view", **viewed)
            opacity = gr.Slider(0, 1, render.OPACITY, step=0.05, elem_id="opacity", **strength)
            legend = gr.HTML(padding=False, **scale)
    return PicturePanel(overlay, split_at, view, opacity, legend)


def wire_picture(panel: PicturePanel, language: gr.Radio) -> None:
    """Connects what needs no inspection."""
    panel.split_at.input(None, panel.split_at, panel.overlay, js=_SPLIT_AT)
    said = [panel.overlay, panel.split_at, panel.view, panel.opacity, panel.legend]
    language.change(lambda spoken: [gr.update(**texts) for texts in words(spoken)], language, said, **ASIDE)


def sides(exhibit: render.Exhibit, view: str, opacity: float) -> tuple[Image, Image]:
    """The picture as it is, and under a heatmap; each says which inspection it is of."""
    drawn = render.draw(exhibit, view, opacity)
    return render.stamped(exhibit.picture, exhibit.report), render.stamped(drawn, exhibit.report)
