"""What a person names: a SOURCE (a Hub repo or a local folder in the Hub's cache layout) and a revision of it."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from anomaly import local_repo
from anomaly.errors import RegistryError


@dataclass(frozen=True, slots=True)
class Source:
    """Where a repo is: on the Hub, or in a local folder. Raises RegistryError for what cannot be a repo id."""

    text: str  # as a person wrote it
    repo_id: str  # org/name
    folder: Path | None = None  # of the cache layout; None = the Hub

    def __post_init__(self) -> None:
        local_repo.check_repo_id(self.repo_id)

    def sibling(self, repo_id: str) -> "Source":
        """Another repo in the same place."""
        return replace(self, text=repo_id, repo_id=repo_id)


@dataclass(frozen=True, slots=True)
class Revision:
    """One thing a person may choose."""

    name: str
    kind: Literal["tag", "branch", "commit"]
    commit: str  # 40 hex digits
    title: str = ""  # of the commit, where it is known
    date: str = ""  # ISO 8601, where it is known


def parse_source(text: str, marker: str = "inspector.json") -> Source:
    """Says what a SOURCE means: a local folder if there is one of that name, else a Hub repo id.

    Args:
        text: `org/name`, a folder in the Hub's cache layout, or one repo's `models--org--name` folder in it.
        marker: the file that tells the wanted repo of a folder from the others.

    Raises:
        RegistryError: for what is neither, or for a folder without exactly one such repo.
    """
    path = _folder(text)
    if path is None:
        if text.count("/") != 1 or text.startswith(("/", ".", "~")):
            raise RegistryError(f"{text!r} is neither a folder here nor a Hub repo id (org/name)")
        return Source(text, text)
    if path.name.startswith("models--"):
        return Source(text, local_repo.repo_id_of(path), path.parent)
    repos = [repo for repo in sorted(path.glob("models--*")) if any(repo.glob(f"snapshots/*/{marker}"))]
    if len(repos) == 1:
        return Source(text, local_repo.repo_id_of(repos[0]), path)
    found = f"found {[repo.name for repo in repos]}: name one of these folders" if repos else "found none"
    raise RegistryError(f"folder {text!r} should hold one repo with {marker} (models--org--name/snapshots), {found}")


def _folder(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return Path(os.path.abspath(path)) if text.strip() and path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, nobody's home (~name), a null byte
        return None


def latest_first(revisions: list[Revision]) -> list[Revision]:
    """Sorts by name as people number releases: v10 is after v9, v1.1 after v1, and v1 after v1-rc2."""
    return sorted(revisions, key=lambda revision: _numbered(revision.name), reverse=True)


def _numbered(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)  # text and digits in turn
    ranks = (0 if re.match(r"-\D", part) else 1 if not part else 2 for part in parts)  # "-rc" < end < ".1"
    return [
        (3, int(part), "") if part.isdecimal() else (rank, 0, part) for rank, part in zip(ranks, parts, strict=True)
    ]
