"""Templates of `model_cards/` -> Markdown (Jinja2, jinja.palletsprojects.com).

A figure that is None is said in words: the templates cannot print None, nor a number that no filter has rounded.
"""

import json
import re
from decimal import Decimal
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateRuntimeError

from anomaly.calibration import Calibration, Threshold, ThresholdName, sweep
from anomaly.errors import VigieError
from anomaly.figures import Estimate
from anomaly.guarantees import guarantees, promise
from anomaly.probability import Kind, why_no_probability

TEXTS = Path(__file__).resolve().parent.parent / "model_cards"

_SWEEP = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # rows of the card


def render(template: str, **values: object) -> str:
    """A template of `model_cards/` with these values.

    Raises:
        VigieError: there is no such template, it uses a variable that does not exist, or it prints None or a number
            that no filter has rounded.
    """
    environment = Environment(
        loader=FileSystemLoader(TEXTS),
        undefined=StrictUndefined,
        finalize=_finished,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown; the names that people choose go through `cell`
    )
    environment.filters |= {
        "amount": _amount,
        "area": lambda value, missing: missing if value is None else f"{value:.4f}",
        "cell": _cell,
        "estimate": _estimate,
        "plural": lambda count, noun: f"{count} {noun}" if count == 1 else f"{count} {noun}s",
        "quoted": lambda text: json.dumps(text, ensure_ascii=False),
        "significant": _significant,
    }
    environment.globals |= {
        "curve": curve_meaning,
        "guarantees": guarantees,
        "promise": promise,
        "meaning": threshold_meaning,
        "no_probability": _no_probability,
        "sweep": lambda calibration: sweep(calibration, _SWEEP),
    }
    try:
        text = environment.get_template(template).render(**values)
    except TemplateNotFound as error:
        raise VigieError(f"no text for the card: write {TEXTS / str(error.name)}, like the others there") from error
    except TemplateError as error:
        raise VigieError(f"model_cards/{template}: {error}") from error
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _finished(value: object) -> object:
    """What an expression in a template may print."""
    if value is None or isinstance(value, float):
        raise TemplateRuntimeError(f"{value} is printed as it is: say it in words, or round it with a filter")
    return value


def _amount(value: float | None, unit: str, missing: str) -> str:
    """The number and its unit, or the words for why there is none; an energy or a time that was measured is not 0."""
    return f"{_significant(value)} {unit}".strip() if value else missing


def _estimate(found: Estimate) -> str:
    """The figure and its interval, or that there is none."""
    if found.value is None:
        return "not defined: nothing was rejected"
    interval = "" if found.low is None or found.high is None else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.value:.3f}{interval}"


def _significant(value: float, digits: int = 3) -> str:
    """Without an exponent: 0.0000123, 4.4, 1230."""
    return f"{Decimal(f'{value:.{digits}g}').normalize():f}"


def _cell(text: str) -> str:
    """A name that somebody chose, harmless in Markdown and its tables."""
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def threshold_meaning(name: ThresholdName, threshold: Threshold) -> str:
    """Where a threshold comes from, in words."""
    match name:
        case "far":
            return f"good images alone, for a false-alarm level of {threshold.level}"
        case "f1":
            return "the largest F1 on the calibration images"
        case "f2":
            return "the largest F2 on them: a miss weighs more than a false alarm"
        case "youden":
            return "the largest Youden's J on them: share of defects rejected less share of good images rejected"
        case "safe":
            return "the highest cut that lets none of the calibration defects pass"


def curve_meaning(kind: Kind) -> str:
    """How a score becomes a probability, in words."""
    match kind:
        case "temperature":
            return "a logistic curve of one parameter (temperature)"
        case "platt":
            return "a logistic curve of two parameters (Platt)"
        case "isotonic":
            return "a rising line through knots (isotonic regression)"


def _no_probability(calibration: Calibration) -> str:
    missing = why_no_probability(len(calibration.good_scores), len(calibration.defect_scores))
    return missing or "this calibration is from before probabilities were fitted, or was made without"
