"""What the tools of the MCP server answer (Model Context Protocol, modelcontextprotocol.io): JSON, pictures, codes.

gradio 6.31 makes a tool of every public endpoint. It writes an answer as Python prints it, and of a queued endpoint
with several results one long line, the picture lost in it; this mends that much and leaves the rest to gradio.
"""

import json
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError, is_file_obj_with_meta

if TYPE_CHECKING:
    from gradio.mcp import GradioMCPServer

QUEUE_FULL = "queue_full: too many inspections wait already; try again in a moment"


def speak_json(server: "GradioMCPServer") -> None:
    """Makes the tools answer with one content for each result: JSON as text, a picture as a picture.

    Args:
        server: of a launched app.
    """
    contents_of = server.postprocess_output_data

    async def finish(job: Any) -> list[Any]:
        try:
            result = await run_sync(job.result)
        except AppError as error:
            raise RuntimeError(f"{error.title}: {error.message}") from error
        except QueueError as error:
            raise RuntimeError(QUEUE_FULL) from error
        return list(result) if isinstance(result, tuple) else [result]  # a tuple is several results, a list is one

    def contents(data: Any, root_url: str) -> Any:
        return contents_of([result if _is_plain(result) else _json(result) for result in data], root_url)

    server._execute_tool_without_progress = finish
    server.postprocess_output_data = contents


def _is_plain(result: Any) -> bool:
    return isinstance(result, str) or is_file_obj_with_meta(result)


def _json(result: Any) -> str:
    return json.dumps(result, ensure_ascii=False)
