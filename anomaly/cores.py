"""What this process takes of the machine: cores it was really given, memory it keeps."""

import os
from math import ceil
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def use_given_cores() -> int:
    """Lowers torch's threads to the cores given; more of them would wait for each other.

    OMP_NUM_THREADS and MKL_NUM_THREADS are obeyed, and fewer threads than cores are left as they are: somebody wanted
    them.

    Returns:
        torch's threads from now on.
    """
    import torch

    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys() and torch.get_num_threads() > given_cores():
        torch.set_num_threads(given_cores())
    return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Lets the C library keep up to 64 MB that were freed for the next picture, instead of handing them back.

    glibc sets what it keeps by the largest block that was ever freed, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD). Fresh
    pages for every map of a trunk took a quarter of an inspection by patch kNN. Elsewhere this does nothing.
    """
    import torch

    torch.empty(32 * 2**20 - 2**16, dtype=torch.uint8)


def given_cores(cgroups: Path = _CGROUPS) -> int:
    """Cores by affinity (taskset, cpuset) and by quota (docker --cpus), whichever are fewer; at least 1.

    Args:
        cgroups: where the kernel shows the quota of this container, as version 2 or version 1.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, ceil(_quota(cgroups) or affinity)))


def _quota(cgroups: Path) -> float | None:
    """In cores; None for no limit."""
    both = cgroups / "cpu.max"
    apart = [cgroups / "cpu" / name for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    try:
        quota, period = both.read_text().split() if both.exists() else [path.read_text().strip() for path in apart]
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # not there, or "max"
        return None
