"""Makes policies from calibration, as JSON to look at, to edit, and to release with `training.release --policy FILE`.

python -m training.make_policies RUN... --category cable --out DIR
python -m training.make_policies INSPECTOR --out DIR

RUN is the folder of a finished run; an inspector is a Hub repo id or a local folder, whose release carries the votes on
its calibration pictures (votes.json). For one without, --manifest FILE of a run of its split and --data DIR have them
cast again; else only the policies are made that need no joint votes.

--max-missed 0.05 --max-false-alarms 0.2 adds CONTROLLED, whose thresholds are tuned at once by MAPIE's risk control.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from anomaly.calibration import Calibration
from anomaly.errors import DataError
from anomaly.guarantees import upper_share
from anomaly.inspector import Inspector
from anomaly.policy import Policy
from training.arguments import command, exit_code
from training.joint_votes import Joint, Tally, left_out, tally
from training.policy_recipes import generated, heard
from training.policy_sources import add_sources, read_sources
from training.risk_control import controlled_policy, least_defects


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 done, 1 wrong input, 2 usage."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: make(args))


def _parser() -> argparse.ArgumentParser:
    parser = command("make_policies", __doc__)
    add_sources(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder for a JSON file of each policy")
    both = "with the other bound, adds CONTROLLED: thresholds tuned together so that both hold with --confidence"
    parser.add_argument("--max-missed", type=float, help=f"share of defects; {both}")
    parser.add_argument("--max-false-alarms", type=float, help="share of good parts, goes with --max-missed")
    parser.add_argument("--confidence", type=float, default=0.95, help="of these two bounds together (default 0.95)")
    return parser


def make(args: argparse.Namespace) -> None:
    """Writes OUT/<name>.json of every policy the data permits, and prints what each does on calibration.

    Raises:
        VigieError: the sources or the data are not what they should be.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    sources = read_sources(args)
    inspector, joint = sources.inspector, sources.joint
    calibrations = {name: member.calibration for name, member in inspector.members.items()}
    policies = generated(calibrations, joint, inspector.file.category)
    said: tuple[str, ...] = ()
    if args.max_missed is not None or args.max_false_alarms is not None:
        more, said = _controlled(joint, args)
        policies += more
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
    own = [policy.for_category(inspector.file.category) for policy in policies]
    print(*table(own, joint, calibrations), *said, sep="\n")


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


def _controlled(joint: Joint | None, args: argparse.Namespace) -> tuple[tuple[Policy, ...], tuple[str, ...]]:
    """CONTROLLED where the parts support it, and what to say of it."""
    if args.max_missed is None or args.max_false_alarms is None:
        raise DataError("--max-missed and --max-false-alarms go together: give both")
    if joint is None:
        raise DataError("--max-missed needs the calibration pictures: give --manifest and --data")
    missed, alarms, sure = args.max_missed, args.max_false_alarms, args.confidence
    found = controlled_policy(joint, max_missed=missed, max_false_alarms=alarms, confidence=sure)
    asked = f"at most {missed:.1%} missed and at most {alarms:.1%} false alarms with {sure:.0%} confidence"
    if found is None:
        return (), (
            f"no CONTROLLED: {len(joint.defects)} defects and {len(joint.good)} good parts do not support {asked}; "
            f"half of them test, where even without a miss {least_defects(missed, sure)} defects are needed",
        )
    policy, held = found
    return (policy,), (
        f"CONTROLLED supports {asked}: on the half that tested {held.missed} of {held.defects} missed, "
        f"{held.false_alarms} of {held.good} false alarms; {held.held} of {held.tried} combinations hold",
    )


def _row(policy: Policy, found: Tally, apart: Tally, unit: str) -> str:
    missed, again = f"{found.missed}/{found.defects}", f"{apart.missed}/{apart.defects}"
    alarms = f"{found.false_alarms}/{found.good}"
    return f"{policy.name:22}{missed:>12}{again:>12}{alarms:>16}{found.reviews:>9}{found.cost:>10.3g} {unit}"


if __name__ == "__main__":
    sys.exit(main())
