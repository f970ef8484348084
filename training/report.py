"""A report of finished runs or of a released inspector: one HTML file that needs nothing else, and its numbers.

python -m training.report RUN_OR_INSPECTOR... --data DIR --out DIR

RUN is the folder of one finished run, or what `train_all` wrote (`runs/` in it); an inspector is a Hub repo id or a
local folder. Every figure comes from one pass over pictures that no member has seen.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from anomaly.emissions import EmissionsMeter
from anomaly.evaluation import score, summarise
from training.arguments import command, exit_code
from training.cost import Cost, cost
from training.image_metrics import RESAMPLES
from training.metrics import with_levels
from training.report_file import report_file
from training.report_page import render
from training.report_source import Subject, subject


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 done, 1 wrong input, 2 usage."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    words = shlex.join(["python", "-m", "training.report", *given])
    return exit_code(lambda: write_report(args, words))


def _parser() -> argparse.ArgumentParser:
    parser = command("report", __doc__)
    parser.add_argument("sources", nargs="+", metavar="RUN_OR_INSPECTOR", help="folders of runs, or one inspector")
    parser.add_argument("--data", required=True, help="folder of pictures, or hf://datasets/ORG/NAME@REVISION")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.html and metrics.json")
    parser.add_argument("--revision", help="of an inspector")
    parser.add_argument("--category", help="for runs over several categories")
    parser.add_argument("--layout", default="auto", choices=("auto", "folder", "mvtec", "visa"), help="of the data")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"of the bootstrap (default {RESAMPLES})")
    parser.add_argument("--country", default="USA", help="ISO 3166 alpha-3 code, for the estimate of emissions")
    parser.add_argument("--cpu-power-w", type=float, help="rated CPU power where it is known")
    return parser


def write_report(args: argparse.Namespace, command: str) -> None:
    """Scores, measures, draws, writes OUT/report.html and OUT/metrics.json.

    Raises:
        VigieError: the sources, the data or a model are not what they should be.
    """
    args.out.mkdir(parents=True, exist_ok=True)  # before the work: an hour later is too late to find out
    meter = EmissionsMeter(args.country, args.cpu_power_w)
    about = subject(
        args.sources, args.data, category=args.category, layout=args.layout, revision=args.revision, meter=meter
    )
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder:
        scored = score(about.inspector, about.samples, Path(folder), keep_maps=True, progress=sys.stderr.isatty())
        found = summarise(scored, data=about.data, split="test")
        found = with_levels(scored, found, resamples=args.resamples, box_labels=_box_labels(about))
        file = report_file(about, found, _costs(about, meter), command)
        page = render(file, scored)
    (args.out / "metrics.json").write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (args.out / "report.html").write_text(page, encoding="utf-8")
    print(f"{args.out / 'report.html'}: {len(found.members)} members on {len(about.samples)} pictures")


def _box_labels(about: Subject) -> tuple[str, ...]:
    """What the types in box files were called when the members were trained."""
    for origin in about.origins.values():
        given = origin.metrics.settings.get("box_labels") if origin.metrics else None
        if isinstance(given, list) and given:
            return tuple(map(str, given))
    return ()


def _costs(about: Subject, meter: EmissionsMeter) -> dict[str, Cost]:
    """Each detector alone, so that none profits from a trunk that another has run."""
    from tqdm import tqdm

    pictures = [sample.path for sample in about.samples]
    found = {}
    for name, member in tqdm(about.inspector.members.items(), desc="measuring cost", leave=False, disable=None):
        origin = about.origins[name]
        training = origin.metrics.training if origin.metrics else None
        found[name] = cost(member.detector, origin.folder, pictures, meter=meter, training=training)
    return found


if __name__ == "__main__":
    sys.exit(main())
