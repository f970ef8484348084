"""What the loopback Hub knows of Spaces beside their files: variables, secrets and hardware (hf_api.py of
huggingface_hub 2.4.0). Nothing is built or run.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from bare_git import BareRepo
from fastapi import APIRouter
from hub_access import HubError, Writable

STATE = "space.json"  # beside hub.json, in the folder of the repository

Json = dict[str, Any]
router = APIRouter(prefix="/api/{kind}/{namespace}/{name}")  # `kind` is spaces: nothing else is asked for these


@dataclass(slots=True)
class Space:
    """What a person sets on the page of a Space."""

    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)  # the API never gives a value back
    hardware: str = "cpu-basic"


def space(repo: BareRepo) -> Space:
    """What was set so far."""
    path = repo.path / STATE
    return Space(**json.loads(path.read_text())) if path.is_file() else Space()


def save(repo: BareRepo, state: Space) -> None:
    (repo.path / STATE).write_text(json.dumps(asdict(state)))


def created(repo: BareRepo, body: Json) -> None:
    """Keeps what came with the creation of a Space."""
    given = {kind: {entry["key"]: entry["value"] for entry in body.get(kind, ())} for kind in ("variables", "secrets")}
    save(repo, Space(**given, hardware=body.get("hardware") or "cpu-basic"))


@router.get("/variables")
def list_variables(repo: Writable) -> Json:
    return {key: {"value": value} for key, value in space(repo).variables.items()}


@router.post("/variables")
def add_variable(repo: Writable, body: Json) -> Json:
    state = space(repo)
    if body["key"] in state.secrets:
        raise HubError(400, f"{body['key']} is a secret already")
    state.variables[body["key"]] = body["value"]
    save(repo, state)
    return list_variables(repo)


@router.delete("/variables")
def delete_variable(repo: Writable, body: Json) -> Json:
    state = space(repo)
    state.variables.pop(body["key"], None)
    save(repo, state)
    return list_variables(repo)


@router.get("/secrets")
def list_secrets(repo: Writable) -> Json:
    return {key: {"key": key} for key in space(repo).secrets}


@router.post("/secrets")
def add_secret(repo: Writable, body: Json) -> Json:
    state = space(repo)
    state.secrets[body["key"]] = body["value"]
    save(repo, state)
    return {}


@router.get("/runtime")
def runtime(repo: Writable) -> Json:
    hardware = space(repo).hardware
    return {"stage": "BUILDING", "hardware": {"current": None, "requested": hardware}, "gcTimeout": None}


@router.post("/hardware")
def request_hardware(repo: Writable, body: Json) -> Json:
    state = space(repo)
    state.hardware = body["flavor"]
    save(repo, state)
    return runtime(repo)
