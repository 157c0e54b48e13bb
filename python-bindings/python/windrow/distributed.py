"""The names of ``dask.distributed``, for code that comes from there: replace ``dask`` by ``windrow`` in the imports.

What runs is a :class:`windrow.Query`: ``df.submit()`` starts one.

>>> import windrow
>>> from windrow.distributed import as_completed, wait
>>> queries = [windrow.from_dict({"n": [n]}).submit() for n in range(3)]
>>> sorted(query.result()["n"][0] for query in as_completed(queries))
[0, 1, 2]
>>> wait(queries).not_done
set()
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from windrow import _progress
from windrow._client import Client, get_client
from windrow._cluster import LocalCluster
from windrow._errors import Error, UnavailableError
from windrow._query import Query

__all__ = ["Client", "DoneAndNotDone", "LocalCluster", "as_completed", "get_client", "progress", "wait"]

# Seconds between two looks at a query that somebody else reads.
_LOOK = 0.02
_ENDED = ("succeeded", "failed", "cancelled")


class DoneAndNotDone(NamedTuple):
    """What :func:`wait` found.

    Attributes:
        done: the queries that have ended.
        not_done: those that have not.
    """

    done: set[Query]
    not_done: set[Query]


def wait(queries: Query | Iterable[Query], timeout: float | None = None) -> DoneAndNotDone:
    """Waits until all queries have ended, however they did; the results are kept in them. Ctrl-C cancels them.

    Raises:
        UnavailableError: some have not after ``timeout`` seconds. They go on.
    """
    several = [queries] if isinstance(queries, Query) else list(queries)
    end = None if timeout is None else time.monotonic() + timeout
    left = 0
    with _cancelled_by_ctrl_c(several):
        threads = [threading.Thread(target=_quietly, args=(query,), daemon=True) for query in several]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
            left += thread.is_alive()
    if left:
        raise UnavailableError(f"{left} of {len(several)} queries have not ended after {timeout:g} s")
    return DoneAndNotDone(set(several), set())


def as_completed(queries: Iterable[Query]) -> Iterator[Query]:
    """The queries in the order in which they end, however they do: ``result()`` says how. Ctrl-C cancels those that are left."""
    several = list(queries)
    ended: queue.SimpleQueue[Query] = queue.SimpleQueue()

    def end(query: Query) -> None:
        _quietly(query)
        ended.put(query)

    with _cancelled_by_ctrl_c(several):
        for query in several:
            threading.Thread(target=end, args=(query,), daemon=True).start()
        for _ in several:
            yield ended.get()


def progress(query: Query) -> None:
    """Shows how far a query is until it ends, which need not be here: a line in a terminal, a bar in a notebook."""
    shown = _progress.display()
    try:
        while (facts := query._query.progress())["state"] not in _ENDED:
            if shown is not None:
                shown(facts)
            time.sleep(_LOOK)
    finally:
        if shown is not None:
            shown.close()


@contextmanager
def _cancelled_by_ctrl_c(queries: Iterable[Query]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        for query in queries:
            query.cancel()
        raise


def _quietly(query: Query) -> None:
    try:
        query.result()
    except Error:
        pass  # whoever asks for the result gets it again
