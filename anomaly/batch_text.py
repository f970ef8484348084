"""What the batch tab says: limits, progress, counts, what could not be inspected. Every value is escaped."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from markupsafe import Markup

from anomaly import batch
from anomaly.images import FORMATS
from anomaly.panels import figure, warning_html
from anomaly.policy import Verdict
from anomaly.settings import Settings
from anomaly.texts import Language, numeral, say

VERDICTS: tuple[Verdict, ...] = ("defect", "review", "ok")
_MARKS: dict[Verdict, str] = {"defect": "✕", "review": "?", "ok": "✓"}


@dataclass(frozen=True, slots=True)
class Batch:
    """What a session knows of its batch."""

    rows: tuple[batch.Row, ...] = ()
    total: int = 0
    state: Literal["running", "done", "stopped", "failed"] = "running"
    problem: str = ""  # why it failed
    left_s: float | None = None  # estimated
    stop: threading.Event = field(default_factory=threading.Event)  # gradio's own cancelling looks like a failure


def caption(row: batch.Row, language: Language) -> str:
    """Decision, distance and name, under a picture of the gallery."""
    assert row.report is not None
    far = row.distance
    known = abs(far) != float("inf")
    sign = "+" if far >= 0 else "\u2212"
    distance = f"{sign}{figure(abs(far), language)} {say('batch_iqr', language)}" if known else say("unknown", language)
    return f"{_MARKS[row.report.decision]} {say(row.report.decision, language)} · {distance} · {row.file}"


def intro_html(settings: Settings, revision: str, policy: str, language: Language) -> str:
    """What it does, with what, and its limits: said before the upload."""
    limits = batch.limits_of(settings)
    lines = [
        say("batch_intro", language),
        say(
            "batch_limits",
            language,
            files=limits.files,
            each=_megabytes(limits.bytes_each, language),
            all=_megabytes(limits.bytes_all, language),
            formats=", ".join(FORMATS),
        ),
    ]
    if revision and policy:
        lines.append(say("batch_with", language, revision=revision, policy=policy))
    return Markup("").join(Markup("<p>{}</p>").format(line) for line in lines)


def _megabytes(count: int, language: Language) -> str:
    return numeral(f"{count / 1_000_000:g}", language)


def hint_html(language: Language) -> str:
    """What the order of the gallery means."""
    return Markup('<h3>{}</h3><p class="hint">{}</p>').format(
        say("batch_gallery", language), say("batch_hint", language)
    )


def status_html(now: Batch | None, language: Language) -> str:
    """How far it is, what was found, and what could not be inspected: always a sentence."""
    if now is None:
        return _line(say("batch_empty", language))
    done, failed = len(now.rows), [row for row in now.rows if row.report is None]
    seen = Counter(row.report.decision for row in now.rows if row.report is not None)
    bar = Markup("")
    if now.state == "running":
        said = say("batch_waiting", language)
        if now.total:
            said = say("batch_running", language, done=done, total=now.total)
            said += "" if now.left_s is None else " " + _left(now.left_s, language)
            bar = Markup('<progress max="{}" value="{}" aria-label="{}"></progress>').format(now.total, done, said)
    elif now.state == "failed":
        said = now.problem
    else:
        said = say(f"batch_{now.state}", language, done=done, total=now.total)
    counts = {verdict: seen[verdict] for verdict in VERDICTS if seen[verdict]}
    found = [f"{say(verdict, language)} {count}" for verdict, count in counts.items()]
    found += [say("batch_errors", language, count=len(failed))] if failed else []
    tally = Markup('<p class="tally">{}</p>').format(" · ".join(found)) if found else Markup("")
    items = Markup("").join(Markup("<li><b>{}</b> {}</li>").format(row.file, _cause(row)) for row in failed)
    refused = Markup('<details class="refused" open><summary>{}</summary><ul>{}</ul></details>')
    listed = refused.format(say("batch_refused", language), items) if failed else Markup("")
    head = warning_html(said, language) if now.state == "failed" else _line(said)
    return head + bar + tally + listed


def _cause(row: batch.Row) -> str:
    """Without the name of the file, which stands before it."""
    return str(row.error).removeprefix(f"'{PurePosixPath(row.file).name}' ")


def _left(seconds: float, language: Language) -> str:
    if seconds < 90:
        return say("batch_left_s", language, seconds=max(1, round(seconds)))
    return say("batch_left_min", language, minutes=round(seconds / 60))


def _line(text: str) -> Markup:
    return Markup('<p class="lead" role="status">{}</p>').format(text)
