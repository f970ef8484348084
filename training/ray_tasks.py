"""Training runs as tasks of a Ray cluster (docs.ray.io): each writes its own folder, as it would in sequence.

A task whose worker dies is begun again by Ray, up to three times, and resumes where its checkpoint is; what was
finished is not done again. The tasks exchange files only, so on several machines the data and --out lie where all of
them see them by the same path.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from anomaly.errors import VigieError
from anomaly.ray_cluster import ray_cluster
from training.arguments import RunArgs


class Job(NamedTuple):
    """One run of the script of one detector."""

    script: Callable[[Any], None]
    args: RunArgs


def run_job(job: Job, threads: int) -> None:
    """Runs it with that number of threads, on which the last bits of its sums depend."""
    torch.set_num_threads(threads)
    job.script(job.args)


def run_on_ray(jobs: Sequence[Job]) -> None:
    """Runs them on the cluster at RAY_ADDRESS, or else on one on this machine, as many at once as there are CPUs for.

    Each has as many CPUs, and as many threads, as this process has threads: on those the last bits of its sums depend,
    so a smaller OMP_NUM_THREADS means more tasks at once. On a machine with a GPU each has one.

    Raises:
        VigieError: as `ray_cluster`, or a job raised one; those that are under way are given up then.
    """
    threads, gpus = torch.get_num_threads(), int(torch.cuda.is_available())
    environment = {"env_vars": {"OMP_NUM_THREADS": str(threads)}}
    with ray_cluster(log=True) as ray:
        task = ray.remote(num_cpus=threads, num_gpus=gpus, runtime_env=environment)(run_job)
        try:
            ray.get([task.remote(_absolute(job), threads) for job in jobs])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            words = " ".join(str(error).split())
            raise VigieError(f"Ray gave up ({words}); run it again, what is finished stays finished") from error


def _absolute(job: Job) -> Job:
    """With paths that do not depend on where a process was started."""
    paths = {name: value.absolute() for name, value in vars(job.args).items() if hasattr(value, "absolute")}
    return Job(job.script, dataclasses.replace(job.args, **paths))
