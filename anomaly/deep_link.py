"""What a link to the page says, and what of it there is. Never a picture.

`?inspector=&revision=&policy=`, and what is set in What if?: `&whatif=POLICY&thresholds=member:line,member:line`, each
line in its member's own units. A folder goes by its name, never by its path: where it lies on the server is nobody's
business.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from anomaly.errors import VigieError
from anomaly.settings import Settings
from anomaly.texts import Language, say

if TYPE_CHECKING:
    from anomaly.service import Service

KEYS = ("inspector", "revision", "policy", "whatif", "thresholds")
_LONGEST = 200  # characters of a value that are read: names and commits are shorter
_LONGEST_LINES = 2000  # of `thresholds`: a dozen members
_SHOWN = 40  # of what is too long


@dataclass(frozen=True, slots=True)
class Moved:
    """What is set in What if?, of one inspector: to be shown with the next inspection."""

    policy: str = ""  # the one that was chosen, if empty
    lines: Mapping[str, float] = field(default_factory=dict)  # by member, where its line is, own units

    def __bool__(self) -> bool:
        return bool(self.policy or self.lines)


class Landed(NamedTuple):
    """Where a link leads."""

    inspector: str  # a configured source
    revision: str  # there is one of that name; the default one where the link names none, or one that there is not
    notes: tuple[str, ...]  # what is not there, in sentences
    known: bool = True  # whether there is such an inspector; where there is none, the rest of the link means nothing
    moved: Moved = Moved()  # of what there is


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


def query(settings: Settings, inspector: str, commit: str, policy: str, moved: Moved = Moved()) -> str:
    """The part of a link from the question mark on.

    Args:
        settings: of the deployment.
        inspector: one of its sources.
        commit: 40 hex digits, so that the link means the same for ever.
        policy: its name; left out if empty.
        moved: what is set in What if?.
    """
    name = next((name for name, source in names(settings).items() if source == inspector), inspector)
    lines = ",".join(f"{member}:{line:.10g}" for member, line in moved.lines.items())
    said = dict(zip(KEYS, (name, commit, policy, moved.policy, lines), strict=True))
    return "?" + urlencode({key: value for key, value in said.items() if value}, safe=":,")


def read(parameters: Mapping[str, str]) -> dict[str, str]:
    """What a link asks for: of its parameters those that are known, without what is empty."""
    asked = {key: str(parameters.get(key) or "").strip() for key in KEYS}
    asked |= {key: value[:_LONGEST] for key, value in asked.items() if key != "thresholds"}  # half a number is another
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
    if not link.keys() & {"whatif", "thresholds"}:
        return Landed(source, revision, tuple(notes))
    loaded = service.inspector(source, revision)
    moved, missing = moved_by(link, tuple(loaded.policies), tuple(loaded.members), language)
    return Landed(source, revision, (*notes, *missing), moved=moved)


def moved_by(
    link: Mapping[str, str], policies: Sequence[str], members: Sequence[str], language: Language
) -> tuple[Moved, list[str]]:
    """What a link sets in What if?, and of what there is not or cannot be read, a sentence each.

    Args:
        link: as `read` gives it.
        policies: names of the revision's.
        members: likewise.
        language: of the sentences.
    """
    notes = []
    policy = link.get("whatif", "")
    if policy and policy not in policies:
        notes.append(say("link_whatif", language, name=policy))
        policy = ""
    lines: dict[str, float] = {}
    said = link.get("thresholds", "")
    if len(said) > _LONGEST_LINES:
        return Moved(policy), [*notes, say("link_lines_long", language, part=said[:_SHOWN], most=_LONGEST_LINES)]
    for part in filter(None, (part.strip() for part in said.split(","))):
        name, _, text = part.rpartition(":")
        line = _number(text)
        if not name or line is None:
            notes.append(say("link_line_wrong", language, part=part))
        elif name not in members:
            notes.append(say("link_member", language, name=name, known=", ".join(members)))
        elif name in lines:
            notes.append(say("link_line_twice", language, part=part, name=name))
        else:
            lines[name] = line
    return Moved(policy, lines), notes


def _number(text: str) -> float | None:
    """Finite, or none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
