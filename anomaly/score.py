"""Any number of pictures -> Parquet files, here or on Ray; run again after a break, it does what is missing.

The output is `manifest.json`, `rows/00000.parquet` ... and, under the same names, `measured/`. A row has the fields of
a report, the picture's name, and `error` and `code` where there is no report: no picture is ever left out. What differs
by its nature from one run to the next (emissions, durations, the time of day, which worker) is in `measured/`, so that
the files in `rows/` are the same to the byte whatever engine wrote them, in however many pieces: a picture is scored by
itself, each worker computes on one thread (on two, the last digits of a score differ), and a part is always the same
stretch of the pictures. Other processors, or other versions of torch or pyarrow, may write other bytes.

A part appears by one rename when it is whole, which is all that a resumption needs to know; done twice, it is the same
again. Take a file out of `rows/`, and the next run makes it anew. Workers reach input and output, where these are
folders, under the same paths; what is on the Hub they fetch themselves. Of several workers on one machine each
estimates the energy of the whole machine, so these figures do not add up.
"""

import logging
import multiprocessing
import os
import shutil
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from anomaly import __version__, hub, images, score_input
from anomaly.backends import TORCH, Backend
from anomaly.emissions import EmissionsMeter
from anomaly.errors import INTERNAL, DataError, VigieError
from anomaly.inspector import Inspector
from anomaly.loading import load_at
from anomaly.score_input import Span
from anomaly.score_rows import ROWS, need_pyarrow, write

MANIFEST = "manifest.json"
PART_SIZE = 256

_log = logging.getLogger(__name__)


class Manifest(BaseModel):
    """What the rows depend on: a folder is only ever gone on with for the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    version: str  # of this software
    input: str  # a path, or hf://datasets/ORG/NAME@COMMIT/folder
    input_sha256: str  # of the list of files: names, sizes, times of change
    pictures: int
    part_size: int  # pictures
    inspector: str
    revision: str
    commit: str
    policy: str
    backend: str = str(TORCH)  # and precision


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker has to know."""

    manifest: Manifest
    place: hub.Source  # of the inspector
    root: Path  # of the pictures, where the run was started
    output: Path
    country: str
    cpu_power_w: float | None
    backend: Backend = TORCH


@dataclass(frozen=True, slots=True)
class Part:
    """The task of a worker: some pictures that become one file."""

    number: int
    spans: tuple[Span, ...]

    @property
    def file(self) -> str:
        """Its name, in `rows/` and in `measured/`."""
        return f"{self.number:05d}.parquet"


@dataclass(frozen=True, slots=True)
class Counts:
    """What lies in the output now."""

    pictures: int
    decisions: Counter[str]
    errors: Counter[str]  # by code
    parts: int
    scored: int  # of these, in this run


Told = Callable[[int, int], None]  # parts that are there, of how many


class Scorer:
    """What a worker holds: the inspector."""

    def __init__(self, job: Job, inspector: Inspector | None = None) -> None:
        self._job = job
        meter = EmissionsMeter(job.country, job.cpu_power_w)
        released = job.manifest
        with _one_thread():  # a backend takes as many as there are when it is loaded
            self._inspector = inspector or load_at(
                job.place, released.commit, released.revision, meter=meter, backend=job.backend
            )
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def score(self, part: Part) -> None:
        """Writes a part, unless it is there."""
        if (self._job.output / ROWS / part.file).exists():
            return
        root = score_input.at_hand(self._job.manifest.input, self._job.root, part.spans)
        with _one_thread():
            rows = [self._row(*picture) for picture in score_input.pictures(root, part.spans)]
        write(self._job.output, part.file, rows)

    def _row(self, name: str, picture: Path | bytes | DataError) -> dict[str, Any]:
        row: dict[str, Any] = {"image": name, "worker": self._worker}
        try:
            image = self._image(picture)
            return row | self._inspector.inspect(image, self._job.manifest.policy).report.model_dump(mode="json")
        except VigieError as error:
            return row | {"error": score_input.readable(str(error)), "code": error.code}
        except Exception as error:  # a mistake of this software costs one picture, not a million
            _log.exception("%s", name)
            return row | {"error": score_input.readable(f"{type(error).__name__}: {error}"), "code": INTERNAL}

    def _image(self, picture: Path | bytes | DataError) -> images.RgbImage:
        if isinstance(picture, DataError):
            raise picture
        return images.read(picture, self._inspector.file.limits)


def score(
    inputs: str,
    inspector: str,
    output: Path,
    *,
    revision: str | None = None,
    policy: str | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    part_size: int = PART_SIZE,
    country: str = "USA",
    cpu_power_w: float | None = None,
    backend: Backend = TORCH,
    told: Told = lambda done, of: None,
) -> Counts:
    """Scores all pictures, or those that an earlier run with the same arguments has left.

    Args:
        inputs: as in `score_input.find`.
        inspector: a Hub repo id, or a folder in the Hub's cache layout.
        output: folder; new, or of an earlier run.
        revision: tag, branch or commit; `main` by default.
        policy: by default the inspector's own.
        engine: `local`, or `ray`: the cluster at RAY_ADDRESS, by default one that is started here for this run.
        workers: processes that each hold an inspector and compute on one thread; by default one, and on Ray one for
            each CPU. They and the engine change nothing in the rows.
        part_size: pictures in one file, which is also what a kill can cost each worker.
        country: ISO 3166 alpha-3 code, for the estimate of emissions.
        cpu_power_w: rated CPU power where it is known, for the same.
        backend: that runs trunks and networks; where a worker cannot have it, the warnings of its rows say so.
        told: is called after each part.

    Raises:
        DataError: no pictures, or an output of something else.
        VigieError: the inspector or the policy is not to be had, or a package is missing.
    """
    need_pyarrow()
    found = score_input.find(inputs)
    place = hub.parse_source(inspector)
    commit = hub.resolve(place, revision)
    with _one_thread():
        loaded = load_at(place, commit, revision or "main", meter=EmissionsMeter(country, cpu_power_w), backend=backend)
    loaded.meter.warm_up()  # a country that does not exist shows now
    manifest = Manifest(
        version=__version__,
        input=found.named,
        input_sha256=found.sha256,
        pictures=found.count,
        part_size=part_size,
        inspector=inspector,
        revision=revision or "main",
        commit=commit,
        policy=loaded.policy(policy).name,
        backend=str(backend),
    )
    _begin(output, manifest)
    job = Job(manifest, place, found.root, output.resolve(), country, cpu_power_w, backend)
    parts = [Part(number, spans) for number, spans in enumerate(score_input.parts(found, part_size))]
    missing = _missing(job, parts)
    finished: Iterator[object]
    if engine == "ray":
        from anomaly.score_ray import run_on_ray

        del loaded  # each actor has its own
        finished = run_on_ray(job, missing, workers)
    elif (workers or 1) > 1:
        del loaded
        finished = _in_processes(job, missing, workers or 1)
    else:
        finished = map(Scorer(job, loaded).score, missing)
    for done, _ in enumerate(finished, start=len(parts) - len(missing) + 1):
        told(done, len(parts))
    if lost := _missing(job, parts):
        raise VigieError(f"{len(lost)} of {len(parts)} parts are not in {output}; run it again, only they are done")
    shutil.rmtree(output / "partial", ignore_errors=True)  # what killed workers left
    return _counts(job, parts, len(missing))


def _begin(output: Path, manifest: Manifest) -> None:
    path = output / MANIFEST
    try:
        before = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        if output.is_dir() and any(output.iterdir()):
            raise DataError(f"{output} holds other files and no {MANIFEST}; name a new folder as output") from None
        output.mkdir(parents=True, exist_ok=True)
        partial = output / f".{uuid.uuid4().hex}"
        partial.write_text(manifest.model_dump_json(indent=1) + "\n")
        partial.replace(path)
        return
    except ValidationError as error:
        raise DataError(f"{path} is not what this version writes; name a new folder as output") from error
    now, then = manifest.model_dump(), before.model_dump()
    if differs := [f"{name} {then[name]!r}, now {now[name]!r}" for name in now if now[name] != then[name]]:
        raise DataError(f"{output} was begun with {'; '.join(differs)}: repeat that, or name a new folder as output")


def _missing(job: Job, parts: Sequence[Part]) -> list[Part]:
    there = {path.name for path in (job.output / ROWS).glob("*.parquet")}
    return [part for part in parts if part.file not in there]


def _counts(job: Job, parts: Sequence[Part], scored: int) -> Counts:
    from pyarrow import parquet

    pictures, decisions, errors = 0, Counter[str](), Counter[str]()
    for part in parts:
        columns = parquet.read_table(job.output / ROWS / part.file, columns=["decision", "code"]).to_pydict()
        pictures += len(columns["code"])
        decisions.update(name for name in columns["decision"] if name is not None)
        errors.update(code for code in columns["code"] if code is not None)
    return Counts(pictures, decisions, errors, len(parts), scored)


_scorer: Scorer  # of a process that `_in_processes` has started


def _in_processes(job: Job, parts: Sequence[Part], workers: int) -> Iterator[None]:
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # a fork of a process in which torch has run may hang
    with ProcessPoolExecutor(workers, context, initializer=_hold, initargs=(job,)) as pool:
        futures = [pool.submit(_score, part) for part in parts]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise VigieError("a worker died, perhaps for want of memory; run it again with fewer workers") from error
        finally:
            for future in futures:
                future.cancel()


def _hold(job: Job) -> None:
    global _scorer  # noqa: PLW0603  what an initializer of a process can leave for its tasks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _scorer = Scorer(job)


def _end_with_parent() -> None:
    """A worker would wait for ever for the next task of a process that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _score(part: Part) -> None:
    _scorer.score(part)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
