"""What Gradio's own markup leaves out for those who use a keyboard or a screen reader (w3.org/WAI/ARIA/apg)."""

import json

import gradio as gr

from anomaly.texts import LANGUAGES, say

# Arrows move between tabs; an example is a picture without words, so its button has no name; the page says in which
# language it is read. Run when the page is opened and when the language changes.
_MEND = """(language, label) => {
  document.documentElement.lang = language;
  document.querySelectorAll("#ask .gallery-item").forEach((item, place) => {
    item.setAttribute("aria-label", `${label} ${place + 1}`);
  });
  const list = document.querySelector("#tabs [role=tablist]");
  if (!list || list.dataset.arrows) return;
  list.dataset.arrows = "yes";
  list.addEventListener("keydown", (event) => {
    const tabs = [...list.querySelectorAll("[role=tab]")].filter((tab) => tab.offsetParent);
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    const place = tabs.indexOf(document.activeElement);
    if (!step || place < 0) return;
    event.preventDefault();
    const next = tabs.at((place + step) % tabs.length);
    next.focus();
    next.click();
  });
}"""


def mend(demo: gr.Blocks, language: gr.Radio) -> None:
    """Connects it.

    Args:
        demo: the page.
        language: of the page.
    """
    labels = json.dumps({spoken: say("examples", spoken) for spoken in LANGUAGES.values()})
    script = f"(language) => ({_MEND})(language, {labels}[language])"
    gr.on([demo.load, language.change], None, language, js=script)
