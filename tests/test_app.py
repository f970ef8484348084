"""The running app through gradio_client: the same report as elsewhere, our own words for every error."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import RunningApp
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from typer.testing import CliRunner

from anomaly import __version__, cli
from anomaly.service import Service
from anomaly.settings import Settings

ROOT = Path(__file__).parent.parent
HEAVY = (
    "torch",
    "torch._dynamo",
    "timm",
    "transformers",
    "captum",
    "codecarbon",
    "sklearn",
    "matplotlib",
    "scipy",
    "xgboost",
)


@pytest.fixture(scope="module")
def client(running_app: RunningApp) -> Iterator[Client]:
    connected = Client(running_app.url, verbose=False)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def service(running_app: RunningApp) -> Service:
    """Another Service on the same inspector."""
    return Service(running_app.settings)


def lasting(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what is different each time: times, energy, and when it was."""
    kept = {key: value for key, value in report.items() if key not in ("emissions", "duration_ms", "created_at")}
    votes = [
        {key: value for key, value in vote.items() if key not in ("duration_ms", "energy_share_mj")}
        for vote in report["votes"]
    ]
    return kept | {"votes": votes}


@pytest.mark.parametrize(("revision", "policy"), [("", ""), ("v1", "any_alarm")])
def test_the_api_gives_the_report_that_the_service_gives(
    client: Client, service: Service, picture_file: Path, revision: str, policy: str
) -> None:
    report, _ = client.predict(handle_file(picture_file), "", revision, policy, api_name="/inspect")
    expected = service.inspect(picture_file, revision=revision, policy=policy).report.model_dump(mode="json")
    assert lasting(report) == lasting(expected)
    assert report["emissions"]["label"] == "estimated"


def test_the_api_gives_the_report_that_the_command_line_gives(
    client: Client, running_app: RunningApp, picture_file: Path
) -> None:
    source = running_app.settings.inspectors[0]
    arguments = ["inspect", str(picture_file), "--inspector", source, "--revision", "v1", "--json"]
    said = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    expected = json.loads(said.stdout)
    del expected["image"]
    report, _ = client.predict(handle_file(picture_file), "", "v1", "", api_name="/inspect")
    assert lasting(report) == lasting(expected)


def test_the_picture_is_inspected_as_it_was_sent(client: Client, service: Service, tmp_path: Path) -> None:
    """By default gradio makes 8 bits of its own out of 16, and another JPEG out of a JPEG."""
    path = tmp_path / "deep.tiff"
    Image.effect_noise((64, 64), 60).convert("I;16").point(lambda value: value * 257).save(path)
    report, _ = client.predict(handle_file(path), api_name="/inspect")
    assert report["image_sha256"] == service.inspect(path).report.image_sha256


def test_the_overlay_is_a_png_that_says_which_inspection_it_is_of(client: Client, picture_file: Path) -> None:
    report, overlay = client.predict(handle_file(picture_file), api_name="/inspect")
    with Image.open(overlay) as drawn, Image.open(picture_file) as picture:
        assert drawn.format == "PNG"
        assert drawn.size == picture.size
        assert drawn.info["Creation Time"] == report["created_at"]
        assert report["commit"] in drawn.info["Source"]


def test_revisions_lists_tags_first_with_their_commits(client: Client, service: Service) -> None:
    revisions = client.predict(api_name="/revisions")
    assert [(entry["name"], entry["kind"]) for entry in revisions[:3]] == [
        ("v2", "tag"),
        ("v1", "tag"),
        ("main", "branch"),
    ]
    assert revisions[1]["commit"] == service.inspector(revision="v1").commit


def test_policies_lists_them_with_the_default(client: Client) -> None:
    policies = client.predict("", "v1", api_name="/policies")
    assert [(entry["name"], entry["default"]) for entry in policies] == [("majority", True), ("any_alarm", False)]
    assert policies[1]["description"]["fr"] == "Un seul détecteur suffit."


def test_health_tells_version_inspectors_and_what_is_loaded(client: Client, running_app: RunningApp) -> None:
    health = client.predict(api_name="/health")
    assert (health["status"], health["problem"], health["version"]) == ("ready", None, __version__)
    assert health["inspectors"] == list(running_app.settings.inspectors)
    newest = client.predict(api_name="/revisions")[0]["commit"]
    assert newest in [entry["commit"] for entry in health["loaded"]]


def test_an_app_without_its_inspector_says_so(start_app: Callable[[Settings], RunningApp], tmp_path: Path) -> None:
    broken = start_app(Settings(inspectors=(str(tmp_path),)))
    health = Client(broken.url, verbose=False).predict(api_name="/health")
    assert health["status"] == "failed"
    assert str(tmp_path) in health["problem"]


def test_a_picture_that_is_cut_short_is_refused_with_its_name(
    client: Client, picture_file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture_file.read_bytes()[:1000])
    with pytest.raises(AppError, match=r"'broken\.png' .*cannot be decoded.*accepted: JPEG, PNG"):
        client.predict(handle_file(broken), api_name="/inspect")


def test_what_is_no_picture_is_refused_in_our_words(client: Client, tmp_path: Path) -> None:
    """Gradio's own preprocessing fails on it first, without any message."""
    note = tmp_path / "note.png"
    note.write_text("not a picture")
    with pytest.raises(AppError, match=r"'note\.png' is not a picture of a known kind"):
        client.predict(handle_file(note), api_name="/inspect")


def test_no_picture_is_refused(client: Client) -> None:
    with pytest.raises(AppError, match="There is no picture yet"):
        client.predict(None, api_name="/inspect")


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_a_file_of_the_server_is_not_read(running_app: RunningApp, picture_file: Path, meta: dict[str, Any]) -> None:
    """A hand-made request may name any path; without `meta` gradio does not look at it."""
    call = f"{running_app.url}gradio_api/call/inspect"
    sent = httpx.post(call, json={"data": [{"path": str(picture_file)} | meta, "", "", ""]})
    answer = httpx.get(f"{call}/{sent.json()['event_id']}", timeout=20).text
    assert answer.startswith("event: error")
    assert "sha256" not in answer


def test_two_people_on_two_revisions_get_their_own_answers(
    running_app: RunningApp, service: Service, picture_file: Path
) -> None:
    def ask(revision: str) -> set[tuple[str, str]]:
        person = Client(running_app.url, verbose=False)
        jobs = [person.submit(handle_file(picture_file), "", revision, "", api_name="/inspect") for _ in range(4)]
        reports = [job.result(timeout=60)[0] for job in jobs]
        person.close()
        return {(report["revision"], report["commit"]) for report in reports}

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(ask, ("v1", "v2"))
    assert first == {("v1", service.inspector(revision="v1").commit)}
    assert second == {("v2", service.inspector(revision="v2").commit)}


def test_the_first_score_of_a_cnn_trunk_waits_for_nothing_that_another_member_needs(
    inspector_folder: Path, picture_file: Path
) -> None:
    code = (
        "import sys\n"
        "from anomaly.cli import main\n"
        f"sys.argv = ['anomaly', 'inspect', {str(picture_file)!r}, '--inspector', {str(inspector_folder)!r}]\n"
        "assert main() == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert told.splitlines()[-1] == str(["torch", "timm", "codecarbon"])


def test_python_app_py_serves_the_page_on_the_given_port_before_it_imports_what_is_heavy(
    inspector_folder: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    note = tmp_path / "imported.json"
    code = (
        "import json, pathlib, runpy, sys\n"
        "from anomaly import serving\n"
        f"imported = lambda: json.dumps([name for name in {HEAVY} if name in sys.modules])\n"
        f"serving.start_warming = lambda settings: pathlib.Path({str(note)!r}).write_text(imported())\n"
        "runpy.run_path('app.py', run_name='__main__')\n"
    )
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "VIGIE_INSPECTORS": str(inspector_folder),
    }
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment) as served:
        try:
            assert "Vigie" in waited_for(lambda: httpx.get(f"http://127.0.0.1:{port}/").raise_for_status().text, served)
            assert json.loads(waited_for(note.read_text, served)) == []
        finally:
            served.terminate()


def waited_for(fetch: Callable[[], str], server: subprocess.Popen[bytes]) -> str:
    """What `fetch` gives as soon as it gives something."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(httpx.TransportError, FileNotFoundError):
            if text := fetch():
                return text
        time.sleep(0.1)
    raise AssertionError(f"the app was not served (exit code {server.poll()})")
