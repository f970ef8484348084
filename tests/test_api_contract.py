"""What programs rely on: names and types of the endpoints, the schema of a report, the codes of errors, docs/API.md."""

import contextlib
import io
import json
import re
import shutil
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import RunningApp
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from jsonschema import Draft202012Validator
from loopback_hub import LoopbackHub
from PIL import Image
from released import use_hub
from typer.testing import CliRunner

import app
from anomaly import cli, errors, serving
from anomaly.errors import InspectionError
from anomaly.images import ImageLimits
from anomaly.report import report_schema
from anomaly.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs/API.md").read_text()
ASKED = ("", "", "")  # inspector, revision, policy: the default ones
ABSENT, SILENT, NONSENSE = "alice/absent", "alice/silent", "no/such/place"
MAX_BYTES = 200_000

# Renaming or taking away one of these breaks somebody's program; another one at the end, with a default, does not.
TEXT = ("str", True, "")  # type, whether there is a default, the default
JSON = "str | float | bool | list | dict"
WHICH = {"inspector": TEXT, "revision": TEXT, "policy": TEXT}
ENDPOINTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "/inspect": ({"image": ("filepath", False, None), **WHICH}, (JSON, "filepath")),
    "/inspect_batch": ({"files": ("list[filepath]", False, None), **WHICH}, (JSON,)),
    "/compare": (
        {
            "image": ("filepath", False, None),
            "inspector": TEXT,
            "first": (JSON, True, {}),
            "second": (JSON, True, {}),
        },
        (JSON,),
    ),
    "/feedback": (
        {
            "image": ("filepath", False, None),
            "report": (JSON, False, None),
            "label": TEXT,
            "region": (JSON, True, []),
        },
        (JSON,),
    ),
    "/revisions": ({"inspector": TEXT}, ("list[dict(str, str)]",)),
    "/policies": ({"inspector": TEXT, "revision": TEXT}, ("list[dict(str, Any)]",)),
    "/health": ({}, ("dict(str, Any)",)),
}


@pytest.fixture(scope="module")
def client(running_app: RunningApp) -> Iterator[Client]:
    connected = Client(running_app.url, verbose=False)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def endpoints(client: Client) -> dict[str, Any]:
    told: dict[str, Any] = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    return told


@pytest.fixture(scope="module")
def troubled(
    start_app: Callable[[Settings], RunningApp], inspector_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunningApp:
    """An app that serves a good inspector, one with a corrupt file, two of the Hub, and one that is nowhere."""
    broken = tmp_path_factory.mktemp("broken") / "inspector"
    shutil.copytree(inspector_folder, broken, symlinks=True)
    for weights in broken.glob("models--test--cable-autoencoder/snapshots/*/model.safetensors"):
        whole = weights.read_bytes()
        weights.unlink()
        weights.write_bytes(whole[:-8])
    places = (str(inspector_folder), str(broken), ABSENT, SILENT, NONSENSE)
    return start_app(Settings(inspectors=places, max_bytes=MAX_BYTES, batch_bytes=2 * MAX_BYTES))


def raw(url: str, endpoint: str, data: list[Any]) -> tuple[str, Any]:
    """The answer over HTTP alone: the event, and what came with it."""
    call = f"{url}gradio_api/call/{endpoint}"
    sent = httpx.post(call, json={"data": data}).raise_for_status()
    answer = httpx.get(f"{call}/{sent.json()['event_id']}", timeout=30).text
    event, told = re.findall(r"event: (\w+)\ndata: (.*)", answer)[-1]
    return event, json.loads(told)


def uploaded(url: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (stored,) = httpx.post(f"{url}gradio_api/upload", files={"files": file}).raise_for_status().json()
    return {"path": stored, "meta": {"_type": "gradio.FileData"}}


def refused(url: str, endpoint: str, data: list[Any], *, given: list[Any] | None = None) -> tuple[str, str]:
    """Code and message of an error; over HTTP (`data`) the same as through gradio_client (`given`)."""
    event, told = raw(url, endpoint, data)
    assert event == "error"
    asking = Client(url, verbose=False)
    with pytest.raises(AppError) as caught:
        asking.predict(*(data if given is None else given), api_name=f"/{endpoint}")
    asking.close()
    assert (caught.value.title, caught.value.message) == (told["title"], told["error"])
    return told["title"], told["error"]


# The endpoints


def test_the_endpoints_are_those_that_were_promised(endpoints: dict[str, Any]) -> None:
    found = {
        name: (
            {
                entry["parameter_name"]: (
                    entry["python_type"]["type"],
                    entry["parameter_has_default"],
                    entry["parameter_default"] if entry["parameter_has_default"] else None,
                )
                for entry in endpoint["parameters"]
            },
            tuple(entry["python_type"]["type"] for entry in endpoint["returns"]),
        )
        for name, endpoint in endpoints.items()
    }
    assert found == ENDPOINTS
    assert all(len(endpoint["description"]) > 20 for endpoint in endpoints.values())
    for name, (parameters, _) in found.items():
        assert list(parameters) == list(ENDPOINTS[name][0]), f"{name}: the order has changed"


def test_health_has_these_fields(client: Client) -> None:
    fields = {"status", "problem", "version", "inspectors", "loaded", "limits", "mcp"}
    assert set(client.predict(api_name="/health")) == fields


# The report


def test_the_published_schema_is_the_one_in_use() -> None:
    published = json.loads((ROOT / "schemas/report.schema.json").read_text())
    assert published == report_schema()
    assert json.loads(CliRunner().invoke(cli.app, ["report-schema"]).stdout) == published


@pytest.mark.parametrize("policy", ["majority", "any_alarm"])
@pytest.mark.parametrize("revision", ["v1", "v2"])
def test_a_report_of_the_app_is_valid(client: Client, picture_file: Path, revision: str, policy: str) -> None:
    validator = Draft202012Validator(json.loads((ROOT / "schemas/report.schema.json").read_text()))
    validator.check_schema(validator.schema)
    report, _ = client.predict(handle_file(picture_file), "", revision, policy, api_name="/inspect")
    validator.validate(report)
    for name in report:
        rest = {key: value for key, value in report.items() if key != name}
        assert not validator.is_valid(rest), f"a report without {name} passes"
    assert not validator.is_valid(report | {"probability_of_defect": 0.9})


# The errors


def test_every_kind_of_error_has_a_code_of_its_own_and_says_what_it_means() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.VigieError)]
    assert len(errors.codes()) == len(kinds)
    for kind in kinds:
        assert "code" in vars(kind), kind
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
        assert (kind.__doc__ or "").count("\n") == 0


def test_the_guide_lists_every_code_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|$", GUIDE, re.M))
    assert {code: rows.get(code) for code in errors.codes()} == errors.codes()
    assert set(rows) - set(errors.codes()) == {errors.INTERNAL, "queue_full"}


def damaged(picture: Path, path: Path) -> Path:
    path.write_bytes(picture.read_bytes()[:1000])
    return path


def huge(picture: Path, path: Path) -> Path:
    """A PNG whose header declares 100,000 x 100,000 pixels."""
    data = bytearray(picture.read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def tiny(picture: Path, path: Path) -> Path:
    Image.open(picture).resize((4, 4)).save(path)
    return path


@pytest.mark.parametrize(
    ("spoil", "code"), [(damaged, "image_unreadable"), (huge, "image_too_large"), (tiny, "image_too_small")]
)
def test_a_picture_that_cannot_be_used(
    running_app: RunningApp, picture_file: Path, tmp_path: Path, spoil: Callable[[Path, Path], Path], code: str
) -> None:
    path = spoil(picture_file, tmp_path / "part.png")
    sent = [uploaded(running_app.url, path), *ASKED]
    told, message = refused(running_app.url, "inspect", sent, given=[handle_file(path), *ASKED])
    assert told == code
    assert message.startswith("'part.png' ")


def test_a_picture_that_is_not_there(running_app: RunningApp, picture_file: Path) -> None:
    assert refused(running_app.url, "inspect", [None, *ASKED])[0] == "no_picture"
    assert refused(running_app.url, "inspect", [{"path": str(picture_file)}, *ASKED])[0] == "not_uploaded"
    gone = uploaded(running_app.url, picture_file)["path"] + ".png"
    assert refused(running_app.url, "inspect", [{"path": gone}, *ASKED])[0] == "not_uploaded"


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        (("acme/other", "", ""), "unknown_inspector", "unknown inspector 'acme/other'; this app serves"),
        (("", "v9", ""), "unknown_revision", "no revision 'v9'"),
        (("", "", "lenient"), "unknown_policy", "unknown policy 'lenient'; this inspector has"),
    ],
)
def test_a_name_that_does_not_exist(
    running_app: RunningApp, picture_file: Path, place: tuple[str, str, str], code: str, said: str
) -> None:
    sent = [uploaded(running_app.url, picture_file), *place]
    told, message = refused(running_app.url, "inspect", sent, given=[handle_file(picture_file), *place])
    assert told == code
    assert said in message


def test_endpoints_without_a_queue_tell_their_codes_as_well(running_app: RunningApp) -> None:
    assert refused(running_app.url, "policies", ["", "v9"])[0] == "unknown_revision"
    assert refused(running_app.url, "revisions", ["acme/other"])[0] == "unknown_inspector"


def test_an_inspector_that_cannot_be_had(
    troubled: RunningApp, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, tmp_path / "cache", monkeypatch)
    assert refused(troubled.url, "policies", [troubled.settings.inspectors[1], "v1"])[0] == "model_broken"
    assert refused(troubled.url, "revisions", [NONSENSE])[0] == "hub_refused"
    assert refused(troubled.url, "revisions", [ABSENT])[0] == "repo_not_found"
    hub.stop()
    assert refused(troubled.url, "revisions", [SILENT])[0] == "hub_unreachable"


def test_a_file_over_the_limit(troubled: RunningApp, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(bytes(MAX_BYTES + 1))
    sent = [uploaded(troubled.url, path), *ASKED]
    assert refused(troubled.url, "inspect", sent, given=[handle_file(path), *ASKED])[0] == "image_too_large"
    path.write_bytes(bytes(2 * MAX_BYTES + 100_000))
    with path.open("rb") as file:  # more than any upload may have
        assert httpx.post(f"{troubled.url}gradio_api/upload", files={"files": file}).status_code == 413


def test_a_mistake_of_the_app_is_told_as_one_and_keeps_its_cause_to_the_log(
    running_app: RunningApp, picture_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def mistaken(*asked: object) -> None:
        raise KeyError("a name inside")

    monkeypatch.setattr(serving, "inspect", mistaken)
    event, told = raw(running_app.url, "inspect", [uploaded(running_app.url, picture_file), *ASKED])
    assert (event, told["title"]) == ("error", errors.INTERNAL)
    assert "a name inside" not in told["error"]
    assert "a name inside" in capfd.readouterr().err


def test_a_full_queue_is_told_at_once_and_nothing_in_it_is_lost(
    running_app: RunningApp, picture_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def slow(*asked: object) -> None:
        begun.set()
        go_on.wait(30)
        raise InspectionError("slow")

    monkeypatch.setattr(serving, "inspect", slow)
    call = f"{running_app.url}gradio_api/call/inspect"
    data = {"data": [uploaded(running_app.url, picture_file), *ASKED]}
    asking = Client(running_app.url, verbose=False)
    try:
        sent = [httpx.post(call, json=data)]
        assert begun.wait(10)
        sent += [httpx.post(call, json=data) for _ in range(app.QUEUE)]
        full = httpx.post(call, json=data)
        with pytest.raises(QueueError):
            asking.predict(handle_file(picture_file), *ASKED, api_name="/inspect")
        alive = httpx.post(f"{running_app.url}gradio_api/run/health", json={"data": []})
    finally:
        go_on.set()
    assert alive.json()["data"][0]["status"] == "ready"  # not through gradio_client, which queues whatever it asks
    assert full.status_code == 503
    assert full.json()["detail"].startswith("Queue is full.")
    for answer in sent:
        assert '"title": "inspection_failed"' in httpx.get(f"{call}/{answer.json()['event_id']}", timeout=30).text
    asking.close()


# The guide


def snippet(language: str, number: int = 0) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)[number])


@pytest.fixture(scope="module")
def demo(start_app: Callable[[Settings], RunningApp]) -> RunningApp:
    """What `make demo` serves."""
    return start_app(Settings())


def test_the_guide_describes_every_endpoint_and_parameter(endpoints: dict[str, Any]) -> None:
    told = dict(re.findall(r"^### `(/\w+)`\n(.*?)(?=^##)", GUIDE, re.M | re.S))
    assert set(told) == set(endpoints)
    for name, endpoint in endpoints.items():
        parameters = re.findall(r"^\| `(\w+)` \|", told[name], re.M)
        assert parameters == [entry["parameter_name"] for entry in endpoint["parameters"]], name


def test_the_python_snippet_runs(demo: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet("python").replace("http://127.0.0.1:7860/", demo.url), "docs/API.md", "exec"), {})
    assert printed.getvalue().splitlines()[-2:] == snippet("text").splitlines()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_curl_snippet_runs(demo: RunningApp) -> None:
    code = "set -e -o pipefail\n" + snippet("bash").replace("http://127.0.0.1:7860/", demo.url)
    done = subprocess.run(["bash", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    answers = re.findall(r"event: (\w+)\ndata: (.*)", done.stdout)
    assert [event for event, _ in answers] == ["complete", "error"]
    assert json.loads(answers[0][1])[0]["decision"] == "defect"
    assert json.loads(answers[1][1])["title"] == "unknown_revision"


def test_the_limits_in_the_guide_are_the_limits(demo: RunningApp) -> None:
    assert f"**{app.QUEUE}** requests" in GUIDE
    assert f"**{Settings().max_bytes:,} bytes**" in GUIDE
    assert f"**{ImageLimits().max_pixels:,} pixels**" in GUIDE
    assert f"**{ImageLimits().min_side}**" in GUIDE
