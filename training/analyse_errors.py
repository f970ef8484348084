"""False alarms and misses of an inspector or of runs: per type, member and policy, with pictures and heatmaps.

And which exception would mend what, chosen on one half of the pictures and judged on the other.

python -m training.analyse_errors SOURCE --data DIR --out DIR   writes OUT/errors.json and OUT/errors.html

SOURCE is an inspector or folders of runs. Of an inspector the pictures are those of the data's test folder, or with
--manifest, the manifest.json of a run of its split, the test pictures that it names.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError
from anomaly.evaluation import Row, Scored, counting_threshold, score
from anomaly.hub_data import local_data
from anomaly.inspector import Inspector
from anomaly.loading import load_inspector
from anomaly.policy import Policy, Verdict, replay
from anomaly.settings import STARTER
from training.arguments import command, exit_code
from training.exception_trials import Trial, trials
from training.finish import RUN
from training.joint_votes import inspector_samples
from training.report_pictures import Case, case_of
from training.report_source import Subject, subject

TEMPLATE = Path(__file__).with_name("errors.html")
_MOST_PICTURES = 30
Kind = Literal["miss", "false alarm", "review", "failed"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Error(_Frozen):
    """One picture that somebody got wrong, or left to a person."""

    path: str
    label: str
    kind: Kind
    margins: dict[str, float | None]  # by member: how far above its threshold, in interquartile ranges; None: no vote


class Tally(_Frozen):
    """Pictures of one label."""

    n: int
    wrong: int  # misses among defects, false alarms among good parts
    review: int = 0
    failed: int = 0


class ErrorsFile(_Frozen):
    """errors.json."""

    format: Literal[1] = 1
    category: str
    data: str
    pictures: str  # which, in words
    default_policy: str
    thresholds: dict[str, str]  # by member: the name of the threshold it is judged at
    members: dict[str, dict[str, Tally]]  # member -> label
    policies: dict[str, dict[str, Tally]]  # policy -> label
    errors: dict[str, tuple[Error, ...]]  # policy -> pictures that are wrong or in review
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 done, 1 wrong input, 2 usage."""
    parser = command("analyse_errors", __doc__)
    parser.add_argument(
        "sources",
        nargs="*",
        default=[str(STARTER)],
        metavar="SOURCE",
        help="folders of runs, or one inspector (default: the starter)",
    )
    parser.add_argument("--data", required=True, help="folder of pictures, or hf://datasets/ORG/NAME@REVISION")
    parser.add_argument("--out", type=Path, default=Path("errors"), help="folder to write to (default errors)")
    parser.add_argument("--revision", help="of an inspector")
    parser.add_argument("--manifest", type=Path, help="of an inspector: manifest.json of a run of its split")
    parser.add_argument("--policy", help="whose errors are shown as pictures (default the inspector's default)")
    parser.add_argument("--category", help="for runs over several categories")
    parser.add_argument("--layout", default="auto", choices=("auto", "folder", "mvtec", "visa"), help="of the data")
    args = parser.parse_args(argv)
    return exit_code(lambda: write(args))


def write(args: argparse.Namespace) -> None:
    """Writes OUT/errors.json and OUT/errors.html.

    Raises:
        VigieError: the sources, the data or the policy are not what they should be.
    """
    args.out.mkdir(parents=True, exist_ok=True)  # before the work: an hour later is too late to find out
    about = _subject(args)
    about.inspector.policy(args.policy)  # an unknown one is refused before the work
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder:
        scored = score(about.inspector, about.samples, Path(folder), keep_maps=True, progress=sys.stderr.isatty())
        found = analyse(scored, data=about.data, pictures=about.pictures, notes=about.notes)
        shown = args.policy or found.default_policy
        page = render(found, worst(scored, found, shown), shown)
    (args.out / "errors.json").write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (args.out / "errors.html").write_text(page, encoding="utf-8")
    print(
        f"{args.out / 'errors.html'}: {', '.join(f'{n} {len(e)}' for n, e in found.errors.items())} wrong or in review"
    )


def _subject(args: argparse.Namespace) -> Subject:
    if args.manifest is None:
        return subject(
            args.sources,
            args.data,
            category=args.category,
            layout=args.layout,
            revision=args.revision,
            meter=EmissionsMeter(),
        )
    if len(args.sources) > 1 or (Path(args.sources[0]) / RUN).is_file():
        raise DataError(f"--manifest goes with one inspector, not with {args.sources}: runs bring their own")
    inspector = load_inspector(args.sources[0], args.revision)
    samples = inspector_samples(inspector, args.manifest, "test", args.data, args.layout)
    _, name = local_data(args.data)
    words = f"the test pictures that {'/'.join(args.manifest.resolve().parts[-2:])} names"
    return Subject(inspector, tuple(samples), name, words, origins={}, manifests={})


def analyse(scored: Scored, *, data: str, pictures: str, notes: Sequence[str] = ()) -> ErrorsFile:
    """Counts what is wrong.

    Args:
        scored: labelled pictures that nobody was trained on.
        data: what to call them.
        pictures: which of the data's they are, in words.
        notes: to hand on.
    """
    inspector = scored.inspector
    errors: dict[str, tuple[Error, ...]] = {}
    policies: dict[str, dict[str, Tally]] = {}
    for name, policy in inspector.policies.items():
        kinds: list[tuple[str, Kind | None]] = []
        found = []
        for row in scored.rows:
            decision, _ = replay({n: ballot.vote for n, ballot in row.ballots.items()}, policy)
            kind = _kind(row.sample.is_defect, decision.verdict)
            kinds.append((row.sample.label, kind))
            if kind is not None:
                margins = {member: _margin(scored, row, member) for member in inspector.members}
                found.append(Error(path=row.sample.relative, label=row.sample.label, kind=kind, margins=margins))
        errors[name], policies[name] = tuple(found), _tallies(kinds)
    return ErrorsFile(
        category=inspector.file.category,
        data=data,
        pictures=pictures,
        default_policy=inspector.file.default_policy,
        thresholds={name: counting_threshold(inspector, name) for name in inspector.members},
        members={name: _tallies(_member_kinds(scored, name)) for name in inspector.members},
        policies=policies,
        errors=errors,
        trials=tuple(trial for policy in _different(inspector) for trial in trials(inspector, policy, scored.rows)),
        notes=tuple(notes),
    )


def _different(inspector: Inspector) -> list[Policy]:
    """Policies without those that decide as an earlier one does, under another name."""
    found: dict[str, Policy] = {}
    for policy in inspector.policies.values():
        found.setdefault(policy.model_dump_json(exclude={"name", "description"}), policy)
    return list(found.values())


def _margin(scored: Scored, row: Row, name: str) -> float | None:
    vote = row.vote(name)
    calibration = scored.inspector.members[name].calibration
    return None if vote is None else calibration.margin(vote.score, counting_threshold(scored.inspector, name))


def _kind(is_defect: bool, verdict: Verdict) -> Kind | None:
    if verdict == "review":
        return "review"
    if is_defect:
        return "miss" if verdict == "ok" else None
    return "false alarm" if verdict == "defect" else None


def _member_kinds(scored: Scored, name: str) -> list[tuple[str, Kind | None]]:
    threshold = scored.inspector.members[name].calibration.thresholds[counting_threshold(scored.inspector, name)].value
    kinds: list[tuple[str, Kind | None]] = []
    for row in scored.rows:
        vote = row.vote(name)
        said: Kind | None = "failed"
        if vote is not None:
            said = _kind(row.sample.is_defect, "defect" if vote.score >= threshold else "ok")
        kinds.append((row.sample.label, said))
    return kinds


def _tallies(kinds: Sequence[tuple[str, Kind | None]]) -> dict[str, Tally]:
    """By label, good first."""
    by_label: dict[str, list[Kind | None]] = defaultdict(list)
    for label, kind in kinds:
        by_label[label].append(kind)
    return {
        label: Tally(
            n=len(said),
            wrong=said.count("miss") + said.count("false alarm"),
            review=said.count("review"),
            failed=said.count("failed"),
        )
        for label, said in sorted(by_label.items(), key=lambda item: (item[0] != "good", item[0]))
    }


def worst(scored: Scored, found: ErrorsFile, policy: str) -> list[Case]:
    """Pictures of what a policy gets wrong: misses, then false alarms, then reviews; at most 30."""
    places = {row.sample.relative: index for index, row in enumerate(scored.rows)}
    order = ("miss", "false alarm", "review", "failed")
    wrong = sorted(found.errors[policy], key=lambda error: (order.index(error.kind), error.label, error.path))
    return [case_of(scored, places[error.path], error.kind) for error in wrong[:_MOST_PICTURES]]


def render(found: ErrorsFile, cases: Sequence[Case], policy: str) -> str:
    """One page that needs nothing else; the cases are those of this policy."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        found=found,
        cases=cases,
        policy=policy,
        wrong=len(found.errors[policy]),
        labels=list(next(iter(found.policies.values()))),
    )


if __name__ == "__main__":
    sys.exit(main())
