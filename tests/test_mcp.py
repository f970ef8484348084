"""The tools of the MCP server, through the client of the `mcp` package."""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import RunningApp
from gradio_client import Client
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent
from test_app import waited_for

from anomaly.report import Report

ROOT = Path(__file__).resolve().parent.parent


def talk(app: RunningApp, speak: Callable[[ClientSession], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        async with (
            streamable_http_client(f"{app.url}gradio_api/mcp/") as (receive, send, _),
            ClientSession(receive, send) as spoken,
        ):
            await spoken.initialize()
            return await speak(spoken)

    return asyncio.run(session())


def call(app: RunningApp, tool: str, **arguments: Any) -> CallToolResult:
    result = talk(app, lambda session: session.call_tool(tool, arguments))
    assert isinstance(result, CallToolResult)
    return result


def text_of(result: CallToolResult) -> str:
    first = result.content[0]
    assert isinstance(first, TextContent)
    return first.text


@pytest.fixture(scope="module")
def picture(picture_file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture_file.read_bytes()).decode()


def test_the_tools_are_the_public_endpoints_and_their_docstrings_tell_what_for(running_app: RunningApp) -> None:
    tools = {tool.name: tool for tool in talk(running_app, lambda session: session.list_tools()).tools}
    client = Client(running_app.url, verbose=False)
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    client.close()
    assert {f"/{name}" for name in tools} == set(endpoints)
    for name, endpoint in endpoints.items():
        tool = tools[name.removeprefix("/")]
        described = tool.inputSchema["properties"]
        assert list(described) == [entry["parameter_name"] for entry in endpoint["parameters"]]
        assert all(len(entry["description"]) > 15 for entry in described.values()), name
        assert (tool.description or "").startswith(endpoint["description"])
    assert (tools["inspect"].description or "").startswith("Decides whether the part in a picture is good.")
    assert tools["inspect"].inputSchema["required"] == ["image"]


def test_a_picture_is_inspected_and_shown(running_app: RunningApp, picture: str) -> None:
    result = call(running_app, "inspect", image=picture, revision="v1", policy="any_alarm")
    assert not result.isError
    report = Report.model_validate_json(text_of(result))
    assert (report.revision, report.policy, report.image_width) == ("v1", "any_alarm", 128)
    overlay = result.content[1]
    assert isinstance(overlay, ImageContent)
    assert base64.b64decode(overlay.data).startswith(b"\x89PNG")


def test_a_list_is_one_json_text(running_app: RunningApp) -> None:
    result = call(running_app, "revisions")
    assert [entry["name"] for entry in json.loads(text_of(result))][:3] == ["v2", "v1", "main"]


def test_an_error_begins_with_its_code(running_app: RunningApp, picture: str) -> None:
    queued = call(running_app, "inspect", image=picture, policy="lenient")
    at_once = call(running_app, "policies", revision="v9")
    assert queued.isError
    assert at_once.isError
    assert text_of(queued).startswith("unknown_policy: unknown policy 'lenient'")
    assert text_of(at_once).startswith("unknown_revision: ")


def test_the_app_starts_without_the_package_and_says_so(inspector_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mcp'] = None\n")
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "VIGIE_INSPECTORS": str(inspector_folder),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    with subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment) as served:
        try:
            asked = f"http://127.0.0.1:{port}/gradio_api/run/health"
            told = waited_for(lambda: httpx.post(asked, json={"data": []}).raise_for_status().text, served)
            assert json.loads(told)["data"][0]["mcp"] is False
        finally:
            served.terminate()
