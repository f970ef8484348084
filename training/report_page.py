"""The page of a report, from its numbers and from the pass that gave them."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from anomaly.detectors import Detector
from anomaly.evaluation import Scored, counting_threshold
from anomaly.figures import Estimate
from training import report_plots as draw
from training.ranking import MEANING, TERMS, WEIGHTS
from training.report_file import ReportFile
from training.report_pictures import cases

TEMPLATE = "report.html"
_SAME = 1e-6  # how far a figure may be from the one in the run's metrics.json; another torch adds in another order


def render(file: ReportFile, scored: Scored) -> str:
    """HTML in one piece: styles, plots and pictures are in it.

    Args:
        file: the numbers.
        scored: the pass that they are of, with heatmaps kept.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": _figure,
        "interval": _interval,
        "bounds": _bounds,
        "share": _share,
        "amount": _amount,
    }
    levels = {name: figures.levels for name, figures in file.evaluation.members.items()}
    leader = file.best or next(iter(scored.inspector.members))
    return environment.get_template(TEMPLATE).render(
        file=file,
        found=file.evaluation,
        levels=levels,
        ranking=file.ranking,
        same=_SAME,
        leader=leader,
        cases=cases(scored, leader),
        calibrations={name: member.calibration for name, member in scored.inspector.members.items()},
        kinds={name: member.detector.kind for name, member in scored.inspector.members.items()},
        labels=sorted(file.evaluation.counts, key=lambda label: (label != "good", label)),
        plots=_plots(file, scored),
        weights=WEIGHTS,
        meaning=MEANING,
        term_names=TERMS,
        backbones={name: _trunk(member.detector) for name, member in scored.inspector.members.items()},
        colours=_colours(scored),
    )


def _trunk(detector: Detector) -> str:
    """What it stands on, in a word."""
    if detector.trunk is not None:
        return detector.trunk.config.architecture
    return str(getattr(detector.config, "architecture", "none"))


def _colours(scored: Scored) -> dict[str, str]:
    return {name: draw.COLOURS[i % len(draw.COLOURS)] for i, name in enumerate(scored.inspector.members)}


def _plots(file: ReportFile, scored: Scored) -> dict[str, tuple[str, str]]:
    """By name: an SVG, or nothing and why."""
    inspector = scored.inspector
    thresholds = {
        name: member.calibration.thresholds[counting_threshold(inspector, name)].value
        for name, member in inspector.members.items()
    }
    auroc = {name: f.image_auroc for name, f in file.evaluation.members.items()}
    energy = {n: (c.energy_mj, a) for n, c in file.costs.items() if c.energy_mj and (a := auroc[n]) is not None}
    on_trunk = next((m.detector for m in inspector.members.values() if m.detector.trunk is not None), None)

    def curves() -> str:
        if not any(value is not None for value in auroc.values()):
            raise ValueError("it needs good and defective pictures")
        return draw.roc_and_precision(scored, thresholds)

    def learning() -> str:
        if not file.curves:
            raise ValueError("none of these detectors was trained in epochs, or their runs did not record the losses")
        return draw.learning_curves(file.curves)

    def features() -> str:
        if on_trunk is None:
            raise ValueError("no member stands on a frozen trunk")
        return draw.feature_map(*draw.embedded(on_trunk, scored))

    def cost_and_quality() -> str:
        if not energy:
            raise ValueError("the energy of every detector is below the resolution of CodeCarbon, or there is no AUROC")
        return draw.pareto({n: (e, a) for n, (e, a) in energy.items()}, "mJ a picture, estimated (logarithmic)")

    makers: dict[str, Callable[[], str]] = {
        "roc": curves,
        "reliability": lambda: draw.reliability_diagram(scored),
        "learning": learning,
        "features": features,
        "pareto": cost_and_quality,
    }
    return {name: _tried(make) for name, make in makers.items()}


def _tried(make: Callable[[], str]) -> tuple[str, str]:
    """A plot that cannot be drawn says why in its place; the rest of the report stands."""
    try:
        return make(), ""
    except ValueError as error:
        return "", str(error)


def _figure(value: float | None, digits: int = 3) -> str:
    return "—" if value is None else f"{value:.{digits}f}"


def _interval(estimate: Estimate | None, digits: int = 3) -> str:
    """With its bootstrap interval."""
    if estimate is None or estimate.value is None:
        return "—"
    return f"{estimate.value:.{digits}f} {_bounds(estimate, digits)}".rstrip()


def _bounds(estimate: Estimate, digits: int = 3) -> str:
    """The interval alone; nothing where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _share(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.1f} %"


def _amount(value: float | None, unit: str, missing: str = "not measured") -> str:
    """Three significant digits, no exponent."""
    if value is None:
        return missing
    return f"{Decimal(f'{value:.3g}').normalize():f} {unit}".strip()
