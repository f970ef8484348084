"""Makes policies from calibration, as JSON to look at, to edit, and to release with `training.release --policy FILE`.

python -m training.make_policies RUN... --category cable --out DIR
python -m training.make_policies INSPECTOR --out DIR [--manifest FILE --data DIR]

RUN is the folder of a finished run; an inspector is a Hub repo id or a local folder. An inspector keeps no list of its
calibration pictures: with the manifest.json of a run of its split, and the pictures, all policies can be made from it;
without, those that need no joint votes.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from anomaly import hub
from anomaly.calibration import Calibration, read_calibration
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, VigieError
from anomaly.guarantees import upper_share
from anomaly.inspector import Inspector, InspectorFile, Member, MemberRef, load_inspector
from anomaly.model_repo import load_detector
from anomaly.policy import Policy
from training.finish import RUN
from training.hub_data import local_data
from training.joint_votes import Joint, Tally, ask, figures_of, left_out, named_samples, price, tally
from training.manifest import Manifest
from training.policy_recipes import default_policies, generated, heard
from training.release import calibration_votes, read_runs


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 done, 1 wrong input, 2 usage."""
    args = _parser().parse_args(argv)
    try:
        make(args)
    except (VigieError, OSError, ValidationError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m training.make_policies",
    )
    parser.add_argument("sources", nargs="+", metavar="RUN_OR_INSPECTOR", help="folders of runs, or one inspector")
    parser.add_argument("--out", required=True, type=Path, help="folder for a JSON file of each policy")
    parser.add_argument("--category", help="of the runs")
    parser.add_argument("--revision", help="of an inspector")
    parser.add_argument("--manifest", type=Path, help="of an inspector: manifest.json of a run of its split")
    parser.add_argument("--data", help="where the pictures are now; by default where the first run had them")
    parser.add_argument("--layout", default="auto", choices=("auto", "folder", "mvtec", "visa"), help="of the data")
    return parser


def make(args: argparse.Namespace) -> None:
    """Writes OUT/<name>.json of every policy the data permits, and prints what each does on calibration.

    Raises:
        VigieError: the sources or the data are not what they should be.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    if (Path(args.sources[0]) / RUN).is_file():
        inspector, joint = _of_runs([Path(source) for source in args.sources], args)
    elif len(args.sources) == 1:
        inspector, joint = _of_inspector(args.sources[0], args)
    else:
        raise DataError(f"{args.sources}: several sources can only be folders of finished runs ({RUN} in them)")
    calibrations = {name: member.calibration for name, member in inspector.members.items()}
    policies = generated(calibrations, joint, inspector.file.category)
    Inspector(  # checks them
        inspector.file.model_copy(update={"policies": policies, "default_policy": policies[0].name}),
        list(inspector.members.values()),
        source="make_policies",
        revision="new",
        commit="0" * 40,
        meter=inspector.meter,
    )
    for policy in policies:
        (args.out / f"{policy.name}.json").write_text(policy.model_dump_json(indent=1) + "\n", encoding="utf-8")
    print(f"{len(policies)} policies in {args.out}")
    for line in table([policy.for_category(inspector.file.category) for policy in policies], joint, calibrations):
        print(line)


def table(policies: Sequence[Policy], joint: Joint | None, calibrations: Mapping[str, Calibration]) -> list[str]:
    """What each policy does on the pictures it was made from, in lines of text."""
    if joint is None:
        return ["without the calibration pictures nothing is known of what they do together"]
    joint = heard(joint, calibrations)
    labelled = all("safe" in calibration.thresholds for calibration in calibrations.values())
    apart = left_out(joint, calibrations) if labelled else joint
    lines = [
        f"{'policy':22}{'missed':>12}{'set apart':>12}{'false alarms':>16}{'review':>9}{'cost':>14}",
        *(_row(policy, tally(policy, joint), tally(policy, apart), joint.price.unit) for policy in policies),
    ]
    if joint.defects:
        upper = upper_share(0, len(joint.defects))
        lines.append(
            f"On the pictures that they were chosen on, which promises nothing; 0 missed of {len(joint.defects)} would "
            f"on other pictures support at most {upper:.1%} missed, with 95 % confidence."
        )
    return lines


def _row(policy: Policy, found: Tally, apart: Tally, unit: str) -> str:
    missed, again = f"{found.missed}/{found.defects}", f"{apart.missed}/{apart.defects}"
    alarms = f"{found.false_alarms}/{found.good}"
    return f"{policy.name:22}{missed:>12}{again:>12}{alarms:>16}{found.reviews:>9}{found.cost:>10.3g} {unit}"


def _of_runs(folders: Sequence[Path], args: argparse.Namespace) -> tuple[Inspector, Joint | None]:
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
    inspector = Inspector(file, members, source="runs", revision="new", commit="0" * 40, meter=EmissionsMeter())
    return inspector, calibration_votes(inspector, runs, args.data, args.layout)


def _of_inspector(source: str, args: argparse.Namespace) -> tuple[Inspector, Joint | None]:
    inspector = load_inspector(source, args.revision)
    if args.manifest is None:
        return inspector, None
    if args.data is None:
        raise DataError("--manifest goes with --data: where the pictures that it names are")
    manifest = Manifest.model_validate_json(args.manifest.read_bytes())
    for name, member in inspector.members.items():
        if member.calibration.split_hash != manifest.split_hash:
            raise DataError(
                f"{args.manifest} is of split {manifest.split_hash[:12]}, {name} was calibrated on "
                f"{member.calibration.split_hash[:12]}: give the manifest of a run of this inspector"
            )
    root, _ = local_data(args.data)
    category, layout = inspector.file.category, args.layout
    samples = named_samples(manifest, "calibrate", root, category, layout, str(args.manifest))
    place, figures = hub.parse_source(source), {}
    for ref in inspector.file.members:
        folder = hub.download(place.sibling(ref.repo), ref.commit, ["metrics.json"])
        figures[ref.name] = figures_of(folder / "metrics.json", category)
    return inspector, Joint(ask(inspector, samples), price(inspector, figures))


if __name__ == "__main__":
    sys.exit(main())
