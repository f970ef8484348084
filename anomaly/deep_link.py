"""What a link to the page says: `?inspector=&revision=&policy=`, and what of it there is. Never a picture.

A folder goes by its name, never by its path: where it lies on the server is nobody's business.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from anomaly.errors import VigieError
from anomaly.settings import Settings
from anomaly.texts import Language, say

if TYPE_CHECKING:
    from anomaly.service import Service

KEYS = ("inspector", "revision", "policy")
_LONGEST = 200  # characters of a value that are read: names and commits are shorter


class Landed(NamedTuple):
    """Where a link leads."""

    inspector: str  # a configured source
    revision: str  # there is one of that name; the default one where the link names none, or one that there is not
    notes: tuple[str, ...]  # what is not there, in sentences
    known: bool = True  # whether there is such an inspector; where there is none, the rest of the link means nothing


def names(settings: Settings) -> dict[str, str]:
    """The configured sources by the names that they go by: a repo id, or the last part of a folder's path."""
    found: dict[str, str] = {}
    for source in settings.inspectors:
        name = plain = Path(source).name if Path(source).is_dir() else source
        number = 2
        while name in found:  # two folders of the same name
            name, number = f"{plain} ({number})", number + 1
        found[name] = source
    return found


def query(settings: Settings, inspector: str, commit: str, policy: str) -> str:
    """The part of a link from the question mark on.

    Args:
        settings: of the deployment.
        inspector: one of its sources.
        commit: 40 hex digits, so that the link means the same for ever.
        policy: its name; left out if empty.
    """
    name = next((name for name, source in names(settings).items() if source == inspector), inspector)
    said = dict(zip(KEYS, (name, commit, policy), strict=True))
    return "?" + urlencode({key: value for key, value in said.items() if value})


def read(parameters: Mapping[str, str]) -> dict[str, str]:
    """What a link asks for: of its parameters those that are known, without what is empty."""
    asked = {key: str(parameters.get(key) or "").strip()[:_LONGEST] for key in KEYS}
    return {key: value for key, value in asked.items() if value}


def land(link: Mapping[str, str], settings: Settings, service: "Service", language: Language) -> Landed:
    """Finds what a link asks for, and the default of what there is not.

    Args:
        link: as `read` gives it.
        settings: of the deployment.
        service: of the app.
        language: of the notes.

    Raises:
        RegistryError: not even the default revision can be had.
    """
    known = names(settings)
    source, notes = settings.inspectors[0], []
    if asked := link.get("inspector"):
        if asked in known:
            source = known[asked]
        else:
            note = say("link_inspector", language, name=asked, known=", ".join(known))
            return Landed(source, service.default_revision(source), (note,), known=False)
    revision = service.default_revision(source)
    if asked := link.get("revision"):
        try:
            service.inspector(source, asked)
            revision = asked
        except VigieError as error:
            notes.append(say("link_revision", language, name=asked, default=revision, cause=str(error)))
    return Landed(source, revision, tuple(notes))
