"""The JavaScript of docs/API.md, run by Node.js with @gradio/client against the running app."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RunningApp

from anomaly.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
CLIENT = "@gradio/client@2.7.0"

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="needs Node.js and npm (Debian: apt install nodejs npm)"
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client installed and the starter beside it."""
    folder = tmp_path_factory.mktemp("node")
    quiet = ["--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0", "--fetch-timeout=20000"]
    try:
        subprocess.run(["npm", "install", *quiet, CLIENT], cwd=folder, check=True, capture_output=True, timeout=100)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install {CLIENT}: {(error.stderr or b'no answer').decode().strip()[-300:]}")
    (folder / "starter").symlink_to(ROOT / "starter")
    return folder


def test_the_javascript_snippet_runs(workshop: Path, start_app: Callable[[Settings], RunningApp]) -> None:
    guide = (ROOT / "docs/API.md").read_text()
    (code,) = re.findall(r"```js\n(.*?)```", guide, re.S)
    app = start_app(Settings())
    (workshop / "snippet.mjs").write_text(code.replace("http://127.0.0.1:7860/", app.url))
    done = subprocess.run(
        ["node", "snippet.mjs"], cwd=workshop, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer, refusal = done.stdout.splitlines()[-2:]
    assert answer.startswith(f"defect v2 {app.url}gradio_api/file=")
    assert refusal == "unknown_revision: vigie/cable has no revision 'v9'; it has ['main', 'v1', 'v2'] and commits"
