"""What one revision of an inspector carries besides its models: figures, votes, cards, and what changed since before.

Read from files of the release, each once a commit; no model is loaded or run here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from anomaly import hub
from anomaly.datasets import GOOD
from anomaly.errors import ModelLoadError, VigieError
from anomaly.figures import Figures, InspectorMetrics, ModelMetrics
from anomaly.guarantees import two_sided
from anomaly.policy_check import problems
from anomaly.votes_file import VOTES_FILE, VotesFile

if TYPE_CHECKING:
    from anomaly.inspector import InspectorFile

CARD, METRICS = "README.md", "metrics.json"
SHOWN = 12  # revisions of a history: each costs a download
Model = TypeVar("Model", bound=BaseModel)
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of pictures, with Clopper and Pearson's 95 % interval (1934)."""

    count: int
    of: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PolicyShares:
    """What a policy did on the test pictures. A part in review does not pass: a defect there counts as found."""

    found: Share | None  # defects that do not pass; None without a defect
    false_alarms: Share | None  # good parts that are rejected; None without a good part
    review: Share | None  # of all


@dataclass(frozen=True, slots=True)
class Change:
    """One commit of an inspector and how it differs from the one before."""

    names: tuple[str, ...]  # tags and branches that point to it
    commit: str
    date: str  # ISO 8601; "" where it is not known
    problem: str = ""  # why it cannot be compared
    first: bool = False  # there is none before it
    added: tuple[str, ...] = ()  # members
    removed: tuple[str, ...] = ()
    retrained: tuple[str, ...] = ()  # members at another commit
    new_policies: tuple[str, ...] = ()
    gone_policies: tuple[str, ...] = ()
    changed_policies: tuple[str, ...] = ()
    default: tuple[str, str] | None = None  # of the policies: before, after

    @property
    def same(self) -> bool:
        """Nothing of what is compared is different."""
        changes = (self.added, self.removed, self.retrained, self.new_policies, self.gone_policies)
        return not any((*changes, self.changed_policies, self.default))


def share(count: int, of: int) -> Share | None:
    """None of nothing."""
    if not of:
        return None
    return Share(count, of, *two_sided(count, of))


def policy_shares(figures: Figures, counts: Mapping[str, int]) -> PolicyShares:
    """What the counts of metrics.json say.

    Args:
        figures: of a policy on test.
        counts: label -> test pictures.
    """
    good, defects = counts.get(GOOD, 0), sum(n for label, n in counts.items() if label != GOOD)
    return PolicyShares(
        share(max(0, defects - figures.fn), defects), share(figures.fp, good), share(figures.review, good + defects)
    )


def model_metrics(place: hub.Source, commit: str) -> ModelMetrics | None:
    """metrics.json of a member at a commit; None where it has none.

    Raises:
        RegistryError, ModelLoadError: it cannot be had, or is not right.
    """
    return _file(place, commit, METRICS, ModelMetrics)


def inspector_metrics(place: hub.Source, commit: str) -> InspectorMetrics | None:
    """metrics.json of an inspector at a commit; otherwise as `model_metrics`."""
    return _file(place, commit, METRICS, InspectorMetrics)


def votes(place: hub.Source, commit: str) -> VotesFile | None:
    """votes.json of an inspector at a commit; None for a release from before there was one; else as `model_metrics`."""
    return _file(place, commit, VOTES_FILE, VotesFile)


def inspector_file(place: hub.Source, commit: str) -> "InspectorFile | None":
    """inspector.json at a commit; otherwise as `model_metrics`."""
    from anomaly.inspector import INSPECTOR_FILE, InspectorFile  # torch

    return _file(place, commit, INSPECTOR_FILE, InspectorFile)


@lru_cache(maxsize=256)
def _file(place: hub.Source, commit: str, name: str, kind: type[Model]) -> Model | None:
    text = _text(place, commit, name)
    try:
        return None if text is None else kind.model_validate_json(text)
    except ValidationError as error:
        raise ModelLoadError(f"{place.repo_id}@{commit[:12]}: {name}: {problems(error, kind)}") from error


def card(place: hub.Source, commit: str) -> str | None:
    """The card of a model or an inspector as Markdown that is safe to show; None where it has none.

    Raises:
        RegistryError, ModelLoadError: it cannot be had.
    """
    text = _text(place, commit, CARD)
    return None if text is None else safe_markdown(text.decode("utf-8", "replace"))


def safe_markdown(text: str) -> str:
    """Without front matter and pictures (which would have another server asked), and with HTML as plain text."""
    parts = _CODE.split(_FRONT.sub("", text.replace("\r\n", "\n")))
    parts[::2] = [_PICTURE.sub(r"\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts).strip()


def history(place: hub.Source, revisions: Sequence[hub.Revision]) -> list[Change]:
    """What changed from commit to commit, the latest first; at most SHOWN.

    Args:
        place: the inspector.
        revisions: tags first, latest first, as `hub.list_revisions` gives them. Where dates are known they decide the
            order; where not, tags come in the order of their numbers and bare commits, of no known order, are left out.
    """
    dates = {revision.commit: revision.date for revision in revisions if revision.date}
    known = [revision for revision in revisions if revision.kind != "commit" or revision.date]
    commits = list(dict.fromkeys(revision.commit for revision in known))
    if all(commit in dates for commit in commits):
        commits.sort(key=lambda commit: dates[commit], reverse=True)
    names = {
        commit: tuple(entry.name for entry in revisions if entry.commit == commit and entry.kind != "commit")
        for commit in commits
    }
    found: list[Change] = []
    read: list[InspectorFile | str] = []  # of each of `found`, or why it cannot be read
    for commit in commits:
        try:
            file = inspector_file(place, commit)
        except VigieError as error:
            read.append(str(error))
        else:
            if file is None:  # a repo's first commit may be from before the first release
                continue
            read.append(file)
        found.append(Change(names[commit], commit, dates.get(commit, "")))
        if len(found) > SHOWN:
            break
    befores = [*read[1:], None]
    changes = [_change(*each) for each in zip(found, read, befores, strict=True)]
    return changes[:SHOWN]


def _change(bare: Change, new: "InspectorFile | str", old: "InspectorFile | str | None") -> Change:
    if isinstance(new, str):
        return replace(bare, problem=new)
    if old is None:
        return replace(bare, first=True)
    if isinstance(old, str):
        return replace(bare, problem=old)
    return replace(bare, **_difference(old, new))  # type: ignore[arg-type]


def _difference(old: "InspectorFile", new: "InspectorFile") -> dict[str, tuple[str, ...] | tuple[str, str] | None]:
    members = [{member.name: (member.repo, member.commit) for member in file.members} for file in (old, new)]
    policies = [{policy.name: policy for policy in file.policies} for file in (old, new)]
    changed = old.default_policy != new.default_policy
    return {
        "added": tuple(name for name in members[1] if name not in members[0]),
        "removed": tuple(name for name in members[0] if name not in members[1]),
        "retrained": tuple(name for name, at in members[1].items() if members[0].get(name, at) != at),
        "new_policies": tuple(name for name in policies[1] if name not in policies[0]),
        "gone_policies": tuple(name for name in policies[0] if name not in policies[1]),
        "changed_policies": tuple(name for name, p in policies[1].items() if policies[0].get(name, p) != p),
        "default": (old.default_policy, new.default_policy) if changed else None,
    }


def counted(metrics: InspectorMetrics) -> dict[str, int]:
    """Label -> test pictures."""
    return metrics.data.counts.get("test", {})


def _text(place: hub.Source, commit: str, name: str) -> bytes | None:
    if not hub.holds(place, commit, name):
        return None
    return (hub.download(place, commit, [name]) / name).read_bytes()
