"""What policies are made of and judged on: finished runs, or a released inspector with the manifest of its split."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from anomaly.calibration import read_calibration
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError
from anomaly.hub import parse_source
from anomaly.inspector import Inspector, InspectorFile, Member, MemberRef
from anomaly.loading import load_inspector
from anomaly.model_repo import load_detector
from anomaly.settings import STARTER
from anomaly.votes_file import VOTES_FILE
from training.finish import RUN
from training.joint_votes import Joint, ask, joint_of, split_samples
from training.policy_recipes import default_policies
from training.release import calibration_votes, read_runs
from training.votes_file import joint_from, read_votes


def add_sources(parser: argparse.ArgumentParser) -> None:
    """The arguments that `Sources` reads."""
    parser.add_argument(
        "sources",
        nargs="*",
        default=[str(STARTER)],
        metavar="RUN_OR_INSPECTOR",
        help="folders of runs, or one inspector (default: the starter)",
    )
    parser.add_argument("--category", help="of the runs")
    parser.add_argument("--revision", help="of an inspector")
    parser.add_argument("--manifest", type=Path, help="of an inspector without votes.json: of a run of its split")
    parser.add_argument("--data", help="where the pictures are now; by default where the first run had them")
    parser.add_argument("--layout", default="auto", choices=("auto", "folder", "mvtec", "visa"), help="of the data")


@dataclass(frozen=True, slots=True)
class Sources:
    """The members, ready to vote, and what they say of the calibration pictures; None where those cannot be had."""

    args: argparse.Namespace
    inspector: Inspector
    joint: Joint | None

    @property
    def of_runs(self) -> bool:
        return _are_runs(self.args)

    def tested(self, joint: Joint) -> Joint:
        """What they say of the test pictures of the same manifest; `joint` has the prices.

        Raises:
            DataError: there are none, or they cannot be had.
        """
        args = self.args
        if not self.of_runs:
            if (found := _of_inspector(self.inspector, args, "test")) is None:
                raise DataError(f"the release holds no {VOTES_FILE}: give --manifest and --data")
            return found
        samples = split_samples(Path(args.sources[0]), self.inspector.file.category, "test", args.data, args.layout)
        return replace(joint, parts=ask(self.inspector, samples))


def read_sources(args: argparse.Namespace, country: str = "USA") -> Sources:
    """Loads them.

    Args:
        args: of `add_sources`.
        country: ISO 3166 alpha-3, for the estimate of emissions.

    Raises:
        VigieError: the sources or the data are not what they should be.
    """
    meter = EmissionsMeter(country)
    if _are_runs(args):
        return Sources(args, *_of_runs([Path(source) for source in args.sources], args, meter))
    if len(args.sources) == 1:
        inspector = load_inspector(args.sources[0], args.revision, meter=meter)
        return Sources(args, inspector, _of_inspector(inspector, args))
    raise DataError(f"{args.sources}: several sources can only be folders of finished runs ({RUN} in them)")


def _are_runs(args: argparse.Namespace) -> bool:
    return (Path(args.sources[0]) / RUN).is_file()


def _of_inspector(
    inspector: Inspector, args: argparse.Namespace, split: Literal["calibrate", "test"] = "calibrate"
) -> Joint | None:
    if args.manifest is None:
        found = read_votes(inspector, parse_source(args.sources[0]))
        return None if found is None else joint_from(found, inspector, split)
    return joint_of(inspector, parse_source(args.sources[0]), args.manifest, args.data, args.layout, split)


def _of_runs(
    folders: Sequence[Path], args: argparse.Namespace, meter: EmissionsMeter
) -> tuple[Inspector, Joint | None]:
    if args.category is None:
        raise DataError("give --category, of the runs")
    runs = read_runs(folders, args.category)
    members = []
    for name, run in runs.items():
        ref = MemberRef(name=name, repo="local/run", commit="0" * 40, sha256="0" * 64)
        calibration = read_calibration(run / "calibration.json").categories[args.category]
        members.append(Member(ref, load_detector(run).detector.select(args.category), calibration))
    file = InspectorFile(
        category=args.category,
        labels=("good",),
        members=tuple(member.ref for member in members),
        policies=default_policies({member.ref.name: member.calibration for member in members}),
        default_policy="majority",
    )
    inspector = Inspector(file, members, source="runs", revision="new", commit="0" * 40, meter=meter)
    return inspector, calibration_votes(inspector, runs, args.data, args.layout)
