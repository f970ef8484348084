"""The Ray cluster (docs.ray.io) that bulk scoring and training runs share: joined, or started here and ended again."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anomaly.errors import VigieError


@contextmanager
def ray_cluster(cpus: int | None = None, *, log: bool = False) -> Iterator[Any]:
    """The module `ray`, on the cluster at RAY_ADDRESS, or else on one on this machine that ends with the block.

    Nothing is sent to Ray's makers. A cluster that is started here has no dashboard and listens on the loopback only.

    Args:
        cpus: of a cluster that is started here; by default all there are.
        log: whether what the workers print is shown here.

    Raises:
        VigieError: Ray is not installed, or there is no cluster at RAY_ADDRESS.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read at import: the loopback, as by default on macOS
    try:
        import ray
    except ImportError as error:
        raise VigieError("--engine ray needs Ray: pip install 'vigie[ray]'") from error
    if ray.is_initialized():  # whoever did that ends it
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": log, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(**quiet)
        else:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except ConnectionError as error:
        raise VigieError(f"no Ray cluster at RAY_ADDRESS ({address}); start it: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
