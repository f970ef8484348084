"""Reads the next pictures in threads while the model runs (concurrent.futures of Python).

Pillow lets go of the interpreter while it decodes, and a model does not keep every core busy all of the time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")

DEPTH = 2  # the usual number of cores; each picture that waits may take 150 MB


@contextmanager
def ahead(
    read: Callable[[Item], Content], items: Iterable[Item], depth: int = DEPTH
) -> Iterator[Iterator[tuple[Item, Future[Content]]]]:
    """Reads ahead of whoever goes through the items.

    Args:
        read: what to do for each item, in a thread.
        items: in this order.
        depth: so many are read beyond the one that is handed out, each in a thread of its own.

    Yields:
        Each item with its future; `result()` waits for what was read, or raises what `read` raised. At the end of the
        block, however it comes, no further item is begun, and the threads have ended.
    """
    pool = ThreadPoolExecutor(depth, "reading-ahead")
    try:
        yield _in_turn(pool, read, items, depth)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_turn(
    pool: ThreadPoolExecutor, read: Callable[[Item], Content], items: Iterable[Item], depth: int
) -> Iterator[tuple[Item, Future[Content]]]:
    begun: deque[tuple[Item, Future[Content]]] = deque()
    for item in items:
        begun.append((item, pool.submit(read, item)))
        if len(begun) > depth:
            yield begun.popleft()
    while begun:
        yield begun.popleft()
