"""A cluster that grows while there is work and shrinks when there is none."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from windrow import _text
from windrow._errors import Error, InvalidConfigError

if TYPE_CHECKING:
    from windrow._cluster import LocalCluster

# Looks in a row that must find fewer executors enough before some go: work often comes again at once.
_CALM = 3


def wanted(status: dict[str, Any], slots: int, minimum: int, maximum: int) -> int:
    """How many executors would have something to do: one for each ``slots`` tasks that are left of the queries that wait and run."""
    tasks = 0
    for query in status["queries"]:
        if query["state"] in ("queued", "running"):
            tasks += max(1, query["tasks"] - query["tasks_done"])
    return min(maximum, max(minimum, -(-tasks // slots)))


class Adaptive:
    """Changes the number of a cluster's executors by what waits, from a thread of its own: see :meth:`LocalCluster.adapt`."""

    def __init__(self, cluster: LocalCluster, slots: int, minimum: int, maximum: int, interval: float) -> None:
        if not 1 <= minimum <= maximum:
            raise InvalidConfigError(f"minimum = {minimum}, maximum = {maximum}", hint="write 1 <= minimum <= maximum")
        if not interval > 0:
            raise InvalidConfigError(f"interval = {interval}", hint="give a number of seconds above 0")
        self._cluster = cluster
        self._slots, self.minimum, self.maximum, self.interval = slots, minimum, maximum, interval
        #: Why the number could not be changed the last time, if so.
        self.error: Error | None = None
        self._calm = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="windrow-adapt", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._look()
                self.error = None
            except Error as error:
                self.error = error  # of this moment: the next look may find it gone
            self._stopped.wait(self.interval)

    def _look(self) -> None:
        status = self._cluster._open().status()
        there = len(self._cluster.pids())
        count = wanted(status, self._slots, self.minimum, self.maximum)
        self._calm = self._calm + 1 if count < there else 0
        if count > there or self._calm >= _CALM:
            self._calm = 0
            if not self._stopped.is_set():
                self._cluster._open().scale(count)

    @property
    def is_running(self) -> bool:
        """Whether it still looks."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def stop(self) -> None:
        """Leaves the cluster at the size that it has; returns when a change that was begun is made. Harmless when done before."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return _text.facts("Adaptive", [("Minimum", self.minimum), ("Maximum", self.maximum), ("Status", state)])
