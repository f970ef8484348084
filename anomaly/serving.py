"""What the page and the API run: one Service, warmed in the background, safe on ZeroGPU (huggingface.co/docs/hub).

Importing this costs nothing; torch comes with the first `service`.
"""

import atexit
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import spaces  # there is one on a ZeroGPU Space only, where it has to come before torch
except ImportError:
    spaces = None
import numpy as np

from anomaly import __version__, render
from anomaly.errors import DataError, VigieError
from anomaly.feedback import FeedbackStore, Stored
from anomaly.images import RgbImage
from anomaly.imports import importing
from anomaly.monitor import Journal
from anomaly.settings import Settings

if TYPE_CHECKING:
    from anomaly.service import Service

Function = TypeVar("Function", bound=Callable[..., Any])

_LOCK = threading.Lock()
_LONGEST_JOIN_S = 10.0
_WARMING: dict[Settings, threading.Thread] = {}
_WARM: dict[Settings, str | None] = {}  # when warming is over: why it failed, None if it did not


def on_zero_gpu() -> bool:
    """Whether a GPU is lent for one inspection at a time, to another process."""
    return spaces is not None


def gpu(function: Function) -> Function:
    """On ZeroGPU the function runs in a process that has a GPU, elsewhere as it is."""
    decorated: Function = spaces.GPU(function) if spaces else function
    return decorated


@cache
def _service(settings: Settings) -> "Service":
    with importing("torch"):
        from anomaly.service import Service  # torch, 3 s

    return Service(settings)


def _held(settings: Settings) -> "Service":
    with _LOCK:
        return _service(settings)


def service(settings: Settings) -> "Service":
    """The one Service with these settings; on ZeroGPU on the CPU, for this process must not touch the GPU."""
    return _held(settings.model_copy(update={"device": "cpu"}) if spaces else settings)


def journal(settings: Settings) -> Journal:
    """Where the inspections with these settings are logged."""
    with _LOCK:  # two first requests at once would have one each
        return _journal(settings)


@cache
def _journal(settings: Settings) -> Journal:
    return Journal(
        settings.log,
        max_bytes=settings.log_max_bytes,
        files=settings.log_files,
        pictures=settings.log_pictures,
    )


@cache
def _feedback(settings: Settings) -> FeedbackStore | None:
    if settings.feedback is None:
        return None
    return FeedbackStore(settings.feedback, settings.feedback_repo, most=settings.feedback_most)


def give_feedback(
    settings: Settings, picture: str | Path | bytes, report: object, label: str, region: object = None
) -> Stored:
    """Stores a picture under what a person says it is.

    Args:
        settings: of the deployment.
        picture: its file.
        report: of its inspection.
        label: "good" or a type of defect.
        region: where the defect is, as `regions.mask_of` takes it.

    Raises:
        DataError, ImageError, RegistryError: as FeedbackStore.add; also where feedback is switched off.
    """
    if (store := feedback(settings)) is None:
        raise DataError("labels are not collected here: set VIGIE_FEEDBACK to a folder and start the app again")
    return store.add(picture, report, label, region)


def feedback(settings: Settings) -> FeedbackStore | None:
    """Where labels go with these settings; None where none are collected."""
    with _LOCK:
        return _feedback(settings)


def start_warming(settings: Settings) -> None:
    """Begins to load what the first inspection needs, in the background."""
    thread = _WARMING[settings] = threading.Thread(target=_warm, args=(settings,), daemon=True)
    thread.start()
    atexit.register(thread.join, _LONGEST_JOIN_S)  # a process that ends while torch runs in a thread is aborted


def _warm(settings: Settings) -> None:
    try:
        held = service(settings)
        inspector = held.inspector()
        grey = np.full((64, 64, 3), 128, np.uint8)
        inspector.ballots(grey, inspector.members)  # some members import what they need when they first vote
        held.meter.warm_up()
        _WARM[settings] = None
    except Exception as error:  # the page is up all the same; /health tells the cause
        _WARM[settings] = str(error) if isinstance(error, VigieError) else repr(error)


def health(settings: Settings) -> dict[str, Any]:
    """What /health answers."""
    warm, problem = settings in _WARM, _WARM.get(settings)
    return {
        "status": "starting" if not warm else "failed" if problem else "ready",
        "problem": problem,
        "version": __version__,
        "inspectors": list(settings.inspectors),
        "loaded": _loaded(settings) if warm else [],
        "limits": {
            "bytes": settings.max_bytes,
            "batch_files": settings.batch_files,
            "batch_bytes": settings.batch_bytes,
        },
    }


def _loaded(settings: Settings) -> list[dict[str, Any]]:
    held = service(settings)
    with held._lock:
        return [
            {
                "inspector": source,
                "revision": inspector.revision,
                "commit": commit,
                "backend": str(inspector.backend),
                "warnings": inspector.warnings,
            }
            for (source, commit), inspector in held._loaded.items()
        ]


def inspect(
    settings: Settings, path: str, inspector: str, revision: str, policy: str, pixels: RgbImage | None = None
) -> render.Exhibit:
    """Inspects a picture file; an empty inspector, revision or policy is the default one. Waits until warm.

    `pixels` is what `images.read` made of the file, where that was done already, within `Service.limits`.

    Raises:
        ImageError, RegistryError, ModelLoadError, PolicyError: as Service.inspect.
    """
    if settings in _WARMING:
        _WARMING[settings].join()  # the warm-up runs the members without the meter, which lets in one at a time
    outcome = _inspect(settings, path if pixels is None else pixels, inspector, revision, policy)
    if isinstance(outcome, VigieError):
        raise outcome
    if outcome.policy is not None:  # here, for what a fork keeps in memory is gone with it
        service(settings).drift.add(outcome.report, outcome.policy, outcome.calibrations)
    journal(settings).add(outcome.report, path)
    return outcome


@gpu
def _inspect(
    settings: Settings, image: str | RgbImage, inspector: str, revision: str, policy: str
) -> render.Exhibit | VigieError:
    """Returns errors, because ZeroGPU puts words of its own in place of a raised one."""
    try:
        inspection, picture = _held(settings).inspect_and_show(image, inspector, revision, policy)
        report = inspection.report
        held = _held(settings).inspector(report.inspector, report.commit)
        calibrations = {name: member.calibration for name, member in held.members.items()}
        return render.exhibit(report, picture, inspection.heatmaps, calibrations, held.policy(report.policy))
    except VigieError as error:
        return error
