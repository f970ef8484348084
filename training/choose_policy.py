"""Chooses a policy by what its decisions cost, and the cuts of every policy for these costs.

python -m training.choose_policy RUN... --category cable --cost-miss 50 --cost-false-alarm 1 --cost-review 5
    --prevalence 0.02 [--carbon-price 100] [--out DIR]
python -m training.choose_policy INSPECTOR --cost-miss 50 ...

RUN is the folder of a finished run; an inspector is a Hub repo id or a local folder, whose release carries the votes
on its calibration pictures (votes.json); for one without, --manifest FILE --data DIR have them cast again. Costs are of
one part, in any currency. Every policy is judged on calibration pictures that its thresholds were not set on (5 folds);
the test pictures only check the choice. OUT/choice.json has all figures, and where cuts that were tuned win,
OUT/<NAME>.json is the policy for `python -m training.release --policy`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from anomaly.costs import Bootstrap, Comparison, Costs, Difference, PolicyCost, compare_jointly
from anomaly.errors import DataError
from anomaly.policy import Policy, check_policy
from training.arguments import command, exit_code
from training.cross_validated import FOLDS, cross_validated, folds, grid_of
from training.joint_votes import Joint
from training.policy_recipes import generated
from training.policy_sources import Sources, add_sources, read_sources
from training.tune_policy import SUFFIX, decided, tuned

_FLAGS = {
    "miss": "--cost-miss",
    "false_alarm": "--cost-false-alarm",
    "review": "--cost-review",
    "prevalence": "--prevalence",
    "carbon_price": "--carbon-price",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(PolicyCost):
    """A row of choice.json."""

    tuned_from: str | None  # the policy whose cuts were chosen anew


class Check(_Frozen):
    """What they cost on the test pictures. Not used to choose."""

    not_used_to_choose: bool = True
    cheapest: str
    policies: dict[str, Candidate]


class Choice(_Frozen):
    """choice.json."""

    format: int = 1
    costs: Costs
    currency_per: str = "1,000 parts"
    category: str
    folds: int = FOLDS
    bootstrap: Bootstrap
    resamples: int
    carbon_counted: bool
    g_per_kwh: float | None
    policies: dict[str, Candidate]  # the cheapest first
    winner: str
    alike: tuple[str, ...]
    runner_up: str | None
    difference: Difference | None  # runner-up less winner, paired
    test: Check | None
    no_test: str | None = None  # why there is none


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 done, 1 wrong input, 2 usage."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: choose(args))


def _parser() -> argparse.ArgumentParser:
    parser = command("choose_policy", __doc__)
    add_sources(parser)
    needed = {
        "--cost-miss": "of a defect that passes as ok",
        "--cost-false-alarm": "of a good part that is rejected",
        "--cost-review": "of a part that a person looks at",
        "--prevalence": "share of defects in production, between 0 and 1",
    }
    for flag, text in needed.items():
        parser.add_argument(flag, type=float, required=True, help=text)
    parser.add_argument("--carbon-price", type=float, default=0.0, help="of a tonne of CO2e (default 0)")
    parser.add_argument("--country", default="USA", help="ISO 3166 alpha-3 code, whose electricity it is")
    parser.add_argument("--out", type=Path, default=Path("choice"), help="folder for choice.json (default choice)")
    parser.add_argument("--no-test", action="store_true", help="leave the test pictures alone")
    parser.add_argument("--seed", type=int, default=0, help="of folds and bootstrap")
    return parser


def choose(args: argparse.Namespace) -> Choice:
    """Writes OUT/choice.json and a winner that was tuned, and prints the table.

    Raises:
        VigieError: the costs, the sources or the data are not what they should be.
    """
    costs = costs_of(args)
    sources = read_sources(args, args.country)
    inspector, joint = sources.inspector, sources.joint
    if joint is None:
        raise DataError(
            "costs are counted on the calibration pictures: give their folder with --data"
            + ("" if sources.of_runs else " and --manifest, or an inspector that was released with its votes.json")
        )
    category = inspector.file.category
    known = {name: member.calibration for name, member in inspector.members.items()}
    folds(joint, seed=args.seed)  # refuses too few parts before the work
    policies = generated(known, joint, category) if sources.of_runs else inspector.file.policies
    grid = grid_of(inspector.meter)
    better = {
        policy.name: found
        for policy in policies
        if (found := tuned(policy.for_category(category), joint, known, costs, grid)) is not None
    }
    heard = cross_validated(policies, known, joint, category, tune_for=costs, g_per_kwh=grid, seed=args.seed)
    rows = {policy.name: policy.for_category(category) for policy in policies}
    rows |= {f"{name}{SUFFIX}": policy for name, policy in better.items()}
    compared = compare_jointly(heard.only(list(rows)), costs, seed=args.seed)
    test, why = _tested(args, sources, joint, rows, costs, grid)
    choice = Choice(
        **compared.model_dump(exclude={"policies"}),
        category=category,
        g_per_kwh=grid,
        policies=_candidates(compared),
        test=test,
        no_test=why,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "choice.json").write_text(choice.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for line in table(choice):
        print(line)
    if (name := choice.winner.removesuffix(SUFFIX)) in better and choice.winner != name:
        winner = better[name]
        check_policy(winner, known, category=category)
        path = args.out / f"{winner.name}.json"
        path.write_text(winner.model_dump_json(indent=1) + "\n", encoding="utf-8")
        print(f"{path}: release it with python -m training.release --policy")
    return choice


def costs_of(args: argparse.Namespace) -> Costs:
    """The costs of the command line. Raises DataError naming the flag."""
    values = {
        "miss": args.cost_miss,
        "false_alarm": args.cost_false_alarm,
        "review": args.cost_review,
        "prevalence": args.prevalence,
        "carbon_price": args.carbon_price,
    }
    try:
        return Costs(**values)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        wanted = "a share between 0 and 1, neither of them" if key == "prevalence" else "a number of 0 or more"
        raise DataError(f"{_FLAGS[key]} {values[key]:g}: it has to be {wanted}") from None


def _tested(
    args: argparse.Namespace,
    sources: Sources,
    joint: Joint,
    rows: Mapping[str, Policy],
    costs: Costs,
    grid: float | None,
) -> tuple[Check | None, str | None]:
    if args.no_test:
        return None, "--no-test"
    try:
        parts = sources.tested(joint)
        named = [policy.model_copy(update={"name": name}) for name, policy in rows.items()]
        found = compare_jointly(decided(named, parts, grid), costs, seed=args.seed)
    except (DataError, ValueError) as error:
        return None, " ".join(str(error).split())
    return Check(cheapest=found.winner, policies=_candidates(found)), None


def _candidates(compared: Comparison) -> dict[str, Candidate]:
    return {
        name: Candidate(**found.model_dump(), tuned_from=name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else None)
        for name, found in compared.policies.items()
    }


def table(choice: Choice) -> list[str]:
    """Lines for a person: the cheapest first."""
    costs, test = choice.costs, choice.test
    lines = [
        f"Cost of 1,000 parts: miss {costs.miss:g}, false alarm {costs.false_alarm:g}, review {costs.review:g}, "
        f"{100 * costs.prevalence:g} % defects, tonne of CO2e {costs.carbon_price:g}"
        + ("" if choice.carbon_counted or not costs.carbon_price else " (left out: energy or grid is not known)"),
        f"{'policy':26}{'cost':>8}{'95 % interval':>22}{'cautious':>10}{'cheapest':>10}{'missed':>10}"
        f"{'false alarms':>14}{'review':>8}{'mJ':>9}{'on test':>10}",
    ]
    for name, row in choice.policies.items():
        energy = "?" if row.energy_mj is None else f"{row.energy_mj:.3g}"
        check = "" if test is None else f"{test.policies[name].cost:.1f}"
        interval = f"{row.low:.1f} – {row.high:.1f}"
        missed, alarms = f"{row.missed}/{row.defects}", f"{row.false_alarms}/{row.good}"
        lines.append(
            f"{name:26}{row.cost:>8.1f}{interval:>22}{row.cautious:>10.1f}{row.cheapest:>10.0%}{missed:>10}"
            f"{alarms:>14}{row.reviews:>8}{energy:>9}{check:>10}"
        )
    lines.append(_words(choice))
    what = "pairs every policy on the same drawn parts" if choice.bootstrap == "parts" else "draws each by itself"
    lines.append(
        f"Counted on calibration parts in {choice.folds} folds, each judged by thresholds, p-values and cuts of the "
        f"others; the bootstrap ({choice.resamples} draws) {what}. The winner is the best of {len(choice.policies)}, "
        "so its own figure flatters it a little. cautious: misses at their 95 % upper bound."
    )
    lines.append(
        f"on test: not used to choose; {test.cheapest} is the cheapest there."
        if test is not None
        else f"Not checked on test: {choice.no_test}"
    )
    return lines


def _words(choice: Choice) -> str:
    best = choice.policies[choice.winner]
    said = f"{choice.winner} costs least: {best.cost:.1f} ({best.low:.1f} – {best.high:.1f})"
    if choice.alike:
        said += f", and so do {', '.join(choice.alike)}, which decide alike"
    if choice.runner_up is None or choice.difference is None:
        return f"{said}."
    d = choice.difference
    clear = "" if d.low > 0 else "; the parts do not tell the two apart"
    return f"{said}; next {choice.runner_up}, {d.cost:.1f} more ({d.low:.1f} – {d.high:.1f}){clear}."


if __name__ == "__main__":
    sys.exit(main())
