"""The README says what is true: its snippets run and print what it shows, its table of settings is the settings."""

import contextlib
import io
import os
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import RunningApp

from anomaly.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", README, re.S)


def run(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})  # the snippets are ours
    return printed.getvalue()


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_both_snippets_are_there() -> None:
    assert len(SNIPPETS) == 2
    assert all(len(code.strip().splitlines()) <= 7 for code, _ in SNIPPETS)


@pytest.mark.usefixtures("in_root")
def test_the_python_snippet_prints_what_the_readme_shows() -> None:
    code, shown = SNIPPETS[0]
    assert run(code) == shown


@pytest.mark.usefixtures("in_root")
def test_the_client_snippet_prints_what_the_readme_shows(start_app: Callable[..., RunningApp]) -> None:
    code, shown = SNIPPETS[1]
    printed = run(code.replace("http://127.0.0.1:7860", start_app(Settings()).url))
    assert printed.splitlines()[-1] == shown.strip()  # the client itself says first where it has loaded the API from


def test_the_table_of_settings_is_the_settings() -> None:
    rows = dict(re.findall(r"\| `(VIGIE_\w+)` \| (.*) \|\n", README))
    assert rows == {f"VIGIE_{name.upper()}": settings_row(name) for name in Settings.model_fields}


def settings_row(name: str) -> str:
    field = Settings.model_fields[name]
    default = "the starter" if name == "inspectors" else "" if field.default is None else f"`{field.default}`"
    return f"{default} | {field.description}"


def test_the_space_is_pinned_like_the_requirements() -> None:
    front = yaml.safe_load(README.split("---")[1])
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M))
    assert front["sdk_version"] == pins["gradio"]
    assert front["app_file"] == "app.py"
    assert (ROOT / "app.py").is_file()
    assert pins["torch"] == "2.11.0"
    assert front["python_version"] == "3.12.12"
    assert len(front["short_description"]) <= 60


def test_what_the_readme_points_at_exists() -> None:
    for path in re.findall(r"\]\(((?!http|#)[^)]+)\)", README) + re.findall(r"\"(starter/[^\"]+)\"", README):
        assert (ROOT / path).is_file(), path
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake (\w+)", README)) <= targets


def test_every_command_of_the_readme_has_its_flags() -> None:
    code = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.S))
    for line in textwrap.dedent(code).splitlines():
        if match := re.search(r"python -m (training\.\w+) (.*)", line):
            module = ROOT / (match[1].replace(".", os.sep) + ".py")
            assert module.is_file()
