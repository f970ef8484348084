"""The words of the page: complete in every language, with the same values in each, and all of them used."""

import re
from pathlib import Path
from string import Formatter

from anomaly.panel_texts import PANEL_TEXTS
from anomaly.tab_texts import TAB_TEXTS
from anomaly.texts import LANGUAGES, TEXTS

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "app.py", *(path for path in (ROOT / "anomaly").glob("*.py") if "texts" not in path.name)]
CODE = "\n".join(path.read_text() for path in SOURCES).replace("'", '"')
BUILT = tuple(set(re.findall(r'f"([a-z]+_(?:[a-z_]+_)?)\{', CODE)))  # of keys put together, such as f"view_{name}"


def values(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_text_is_there_in_every_language() -> None:
    every = set(LANGUAGES.values())
    assert [key for key, text in TEXTS.items() if set(text) != every or not all(map(str.strip, text.values()))] == []


def test_every_language_says_the_same_values() -> None:
    assert [key for key, text in TEXTS.items() if values(text["en"]) != values(text["fr"])] == []


def test_every_text_is_used() -> None:
    assert [key for key in TEXTS if f'"{key}"' not in CODE and not key.startswith(BUILT)] == []


def test_every_text_that_is_asked_for_exists() -> None:
    asked = set(re.findall(r'say\(\s*"([a-z0-9_]+)"', CODE))
    assert len(asked) > 100
    assert sorted(asked - set(TEXTS)) == []


def test_no_key_is_there_twice() -> None:
    page = re.findall(r'^    "([a-z0-9_]+)": \{', (ROOT / "anomaly/texts.py").read_text(), flags=re.MULTILINE)
    assert len(page) + len(PANEL_TEXTS) + len(TAB_TEXTS) == len(TEXTS)
