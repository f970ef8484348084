"""What a Space of the app holds: files, front matter, models pinned to commits, settings (huggingface.co/docs/hub).

Everything is looked up and checked here; training/deploy_space.py sends it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from anomaly import hub
from anomaly.errors import DataError, ModelLoadError
from anomaly.hub_errors import explained
from anomaly.inspector import INSPECTOR_FILE, InspectorFile
from anomaly.model_repo import CARD_FILES, MODEL_FILES
from anomaly.settings import STARTER, Settings
from anomaly.votes_file import VOTES_FILE

if TYPE_CHECKING:
    pass

ROOT = Path(__file__).resolve().parent.parent
APP_FILES = ("app.py", "app.css", "requirements.txt", "LICENSE")
PACKAGE = "anomaly"
SUFFIXES = (".py", ".css", ".js", ".json", ".html")  # of the package's files; whatever else lies there stays here
PREFIX = "VIGIE_"
TOKEN = re.compile(  # of the Hub, GitHub, AWS, and any private key
    rb"hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_LEAST_SECRET = 8  # characters; anything shorter may stand in a file by chance


@dataclass(frozen=True, slots=True)
class Pinned:
    """A repo at a commit, with the files that the app reads of it."""

    repo: str
    commit: str
    files: tuple[str, ...]
    revision: str = ""  # the name of an inspector's commit
    category: str = ""  # of an inspector
    open: bool = True  # anybody may download it; what is private or gated cannot be preloaded


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the Space will hold."""

    files: Mapping[str, bytes]  # by path
    front: Mapping[str, Any]
    variables: Mapping[str, str | None]  # None: to be taken away
    closed: tuple[str, ...]  # repos that it can read with a token only


def planned(
    inspectors: Sequence[str], settings: Mapping[str, str], *, title: str | None = None, hardware: str | None = None
) -> Plan:
    """Looks up everything that the Space will hold.

    Args:
        inspectors: Hub repos, or the embedded one; the first is shown first.
        settings: of the app: VIGIE_NAME -> value.
        title: of the Space; by default the one in README.md.
        hardware: that the front matter suggests to whoever duplicates the Space.

    Raises:
        DataError, RegistryError, ModelLoadError: an inspector is not on the Hub, or a setting is wrong.
    """
    told = variables(inspectors, settings)
    pinned = [repo for text in inspectors if not is_starter(text) for repo in inspector(text)]
    front = front_matter(pinned, title, hardware)
    files = app_files(starter=any(map(is_starter, inspectors))) | {"README.md": card(front, pinned).encode()}
    return Plan(files, front, told, closed=tuple(sorted({repo.repo for repo in pinned if not repo.open})))


def is_starter(text: str) -> bool:
    """Whether a person means the embedded inspector, which is sent with the app."""
    return Path(text).expanduser().resolve() == STARTER


def inspector(text: str) -> list[Pinned]:
    """The inspector at the revision that the app shows first (the latest tag, else main), then its members."""
    if Path(text).expanduser().is_dir():
        raise DataError(
            f"{text!r} is a folder here, which a Space cannot read: push it first (python -m training.release "
            "--category NAME --members RUN... --push ORG/NAME --tag v1) and give ORG/NAME"
        )
    source = hub.parse_source(text)
    revisions = hub.list_revisions(source)
    shown = next((r for r in revisions if r.kind == "tag"), None) or next(r for r in revisions if r.name == "main")
    folder = hub.download(source, shown.commit, [INSPECTOR_FILE])
    try:
        file = InspectorFile.model_validate_json((folder / INSPECTOR_FILE).read_bytes())
    except ValidationError as error:
        raise ModelLoadError(f"{text}@{shown.commit[:12]}: {INSPECTOR_FILE}: {error}") from error
    found = pin(text, shown.commit, (INSPECTOR_FILE,), (*CARD_FILES, VOTES_FILE))
    members = [pin(member.repo, member.commit, MODEL_FILES, CARD_FILES) for member in file.members]
    return [replace(found, revision=shown.name, category=file.category), *members]


def pin(repo: str, commit: str, needed: Sequence[str], wanted: Sequence[str]) -> Pinned:
    """A repo at a commit with the files it needs and those of the wanted ones that are there.

    A Space whose preload names a file that is not there is never built, so it is looked at before.
    """
    with explained(f"{repo}@{commit[:12]}"):
        info = hub.client().model_info(repo, revision=commit, timeout=hub.ANSWER_S)
    there = {file.rfilename for file in info.siblings or ()}
    if missing := [name for name in needed if name not in there]:
        raise ModelLoadError(f"{repo}@{commit[:12]} has no {', '.join(missing)}")
    files = (*needed, *(name for name in wanted if name in there))
    return Pinned(repo, commit, files, open=not (info.private or info.gated))


def app_files(*, starter: bool) -> dict[str, bytes]:
    """Path in the Space -> content, of what the app runs on."""
    if missing := [name for name in APP_FILES if not (ROOT / name).is_file()]:
        raise DataError(f"{ROOT} has no {', '.join(missing)}: run this in a checkout of Vigie")
    paths = [ROOT / name for name in APP_FILES]
    paths += [path for path in (ROOT / PACKAGE).rglob("*") if path.suffix in SUFFIXES]
    if starter:
        paths += [path for path in STARTER.rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {name: names[name].read_bytes() for name in sorted(names) if not _is_hidden(name)}


def front_matter(pinned: Sequence[Pinned], title: str | None, hardware: str | None) -> dict[str, Any]:
    """The head of the Space's README.md: the checkout's own, with these models."""
    from huggingface_hub import metadata_load

    front: dict[str, Any] = dict(metadata_load(ROOT / "README.md") or {})
    gradio = re.search(r"^gradio(?:\[[^]]*\])?==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)
    if gradio is None:
        raise DataError("requirements.txt does not pin gradio (gradio==VERSION), so the Space cannot either")
    front |= {"sdk": "gradio", "sdk_version": gradio[1], "app_file": APP_FILES[0]}
    front |= {"title": title or front["title"], "suggested_hardware": hardware or front["suggested_hardware"]}
    if pinned:
        front["models"] = sorted({repo.repo for repo in pinned})
    preload = sorted({f"{repo.repo} {','.join(repo.files)} {repo.commit}" for repo in pinned if repo.open})
    return front | ({"preload_from_hub": preload} if preload else {})


def card(front: Mapping[str, Any], pinned: Sequence[Pinned]) -> str:
    """README.md of the Space."""
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    shown = [repo for repo in pinned if repo.category]
    lines = [
        f"- [{r.repo}](https://huggingface.co/{r.repo}) ({r.category}), {r.revision} = `{r.commit}`" for r in shown
    ]
    embedded = "The inspector is the embedded one, of synthetic cables that this app's repository draws.\n"
    inspectors = "Inspectors, as they were when this Space was last deployed:\n\n" + "\n".join(lines) + "\n"
    return (
        f"---\n{yaml_dump(dict(front), sort_keys=False)}---\n\n# {front['title']}\n\n"
        "Decides whether the part in a picture is good, and shows why: the heatmap, every detector's vote, and the "
        f"energy that CodeCarbon estimated.\n\n{inspectors if lines else embedded}\n"
        "Written by `python -m training.deploy_space`; the next call replaces what was changed here by hand.\n"
    )


def variables(inspectors: Sequence[str], settings: Mapping[str, str]) -> dict[str, str | None]:
    """Name -> value of what the app is told; what the app would refuse is refused here.

    Raises:
        DataError, ValidationError: an unknown name, or a value that the app would not start with.
    """
    known = {f"{PREFIX}{field.upper()}": field for field in Settings.model_fields}
    if unknown := sorted(settings.keys() - known.keys()):
        raise DataError(f"{', '.join(unknown)}: no such setting, the app knows {', '.join(known)}")
    only_starter = all(map(is_starter, inspectors))  # the default; said otherwise, its examples are not shown
    named = [STARTER.name if is_starter(text) else text for text in inspectors]
    told = {**settings, f"{PREFIX}INSPECTORS": None if only_starter else ",".join(dict.fromkeys(named))}
    values: dict[str, Any] = {known[name]: value for name, value in told.items() if value is not None}
    Settings(**values)
    if not re.fullmatch("[A-Z]{3}", country := str(values.get("country", "USA"))):
        raise DataError(f"{country!r} is not an ISO 3166 alpha-3 code in capitals, such as FRA, DEU or USA")
    return told


def refuse_tokens(plan: Plan, secrets: Iterable[str]) -> None:
    """Raises DataError where a file or a variable holds a secret: whoever sees the Space could read it."""
    from huggingface_hub import get_token

    own = [secret.encode() for secret in (get_token(), *secrets) if secret and len(secret) >= _LEAST_SECRET]
    places = {f"the file {name}": content for name, content in plan.files.items()}
    places |= {f"the variable {name}": value.encode() for name, value in plan.variables.items() if value is not None}
    for place, content in places.items():
        if TOKEN.search(content) or any(secret in content for secret in own):
            raise DataError(
                f"{place} holds what looks like a token or a key: anybody could read it there. Take it out (and "
                "revoke it if it is real); what the Space must know goes into --secrets NAME"
            )


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__pycache__")) for part in name.split("/"))
