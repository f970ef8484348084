"""The parts of a bulk run on a Ray cluster (Ray Data, docs.ray.io): actors that each hold the inspector.

A row of the dataset is a part; its actor writes the file itself, so nothing large passes through Ray's object store.
What an actor or a node was at when it died is done in another round, by a pool as large as the cluster is then: Ray
itself would wait for a CPU to start that very actor again, for ever where the only ones left are taken.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from anomaly.errors import VigieError
from anomaly.ray_cluster import ray_cluster
from anomaly.score import Job, Part, Scorer
from anomaly.score_input import Span

_IN_VAIN = 3  # rounds one after the other that finish nothing: then it is no accident


class PartScorer:
    """An actor."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scorer: Scorer | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Takes a batch of one part; says which it was, and what went wrong, for Ray would drop the row of an error."""
        spans = tuple(Span(*span) for span in json.loads(batch["spans"][0]))
        why = ""
        try:
            self._scorer = self._scorer or Scorer(self._job)
            self._scorer.score(Part(int(batch["number"][0]), spans))
        except Exception as error:  # also a disk that is full: told where somebody reads it
            why = " ".join(f"{type(error).__name__}: {error}".split())
        return {"number": batch["number"], "error": [why]}


def run_on_ray(job: Job, parts: Sequence[Part], workers: int | None) -> Iterator[int]:
    """Scores parts on the cluster at RAY_ADDRESS, by default on one that is started here; yields each one's number.

    Args:
        job: what to score.
        parts: of it.
        workers: actors, each on one CPU; by default as many as there are CPUs.

    Raises:
        VigieError: Ray is not installed or not to be reached, or a worker raised one.
    """
    if not parts:
        return
    missing, in_vain = list(parts), 0
    with ray_cluster(workers) as ray:
        while missing:
            done, why = set(), "its workers died"
            try:
                for number in _round(job, missing, min(workers or int(ray.cluster_resources()["CPU"]), len(missing))):
                    done.add(number)
                    yield number
            except ray.exceptions.RayError as error:  # also that of an actor on a node that has just died
                why = " ".join(str(error).split())
            in_vain = 0 if done else in_vain + 1
            if in_vain == _IN_VAIN:
                raise VigieError(f"Ray gave up ({why}); run it again, what is done stays done")
            missing = [part for part in missing if part.number not in done]


def _round(job: Job, parts: Sequence[Part], size: int) -> Iterator[int]:
    """Yields the numbers of the parts that were done; not those that an actor took with it."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = [{"number": part.number, "spans": json.dumps(part.spans)} for part in parts]
    with warnings.catch_warnings(action="ignore"):  # max_restarts still has no name of its own in Ray 2.60
        finished = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            PartScorer,
            fn_constructor_args=[job],
            batch_size=1,
            num_cpus=1,
            compute=ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            max_restarts=0,
            max_task_retries=0,
        )
    for row in finished.iter_rows():
        if row["error"]:
            raise VigieError(f"a worker stopped ({row['error']}); run it again, what is done stays done")
        yield int(row["number"])
