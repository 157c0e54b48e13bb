"""A cluster on this machine, in one line."""

from __future__ import annotations

import os
import sys
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from windrow import _machine, _scheduler_file, _text, _windrow
from windrow._adaptive import Adaptive
from windrow._errors import InvalidConfigError, UnsupportedError

if TYPE_CHECKING:
    from windrow._client import Client

# What is to end before the interpreter does.
_open: weakref.WeakSet[Any] = weakref.WeakSet()
# The process to which it belongs.
_process: int | None = None


def close_at_exit(one: Any) -> None:
    """Closes ``one`` when the interpreter ends, if somebody still holds it then."""
    import atexit

    global _process
    if _process != os.getpid():
        _process = os.getpid()
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _open.add(one)


def _close_all() -> None:
    if os.getpid() != _process:
        return  # forked: all of it belongs to the parent
    # Clients before their clusters.
    for one in sorted(_open, key=lambda one: isinstance(one, LocalCluster)):
        one.close()


class LocalCluster:
    """A scheduler in this process and executors beside it, as processes of their own or in this one. It ends with :meth:`close`, at the
    end of a ``with`` block, or with this process, however that ends.

    Args:
        n_workers: executors; by default one for each core, at most four.
        threads_per_worker: partitions that each computes at a time; by default the cores are divided among them.
        memory_limit: of each executor: ``"2GB"``, a number of bytes, a part of the memory (``0.25``), or ``"auto"``, an even share of
            three quarters of what the machine, the cgroup or Slurm allows. Whatever does not fit is spilled to disk.
        processes: whether executors are processes. They are supervised: one that dies is started again, and its work is repeated.
        executors, slots: the same as ``n_workers`` and ``threads_per_worker``, in the words of the rest of Windrow.
        port: the port of the loopback interface that clients and executors connect to; a free one by default.
        spill_dir: the folder for data that does not fit into memory.
        state_dir: the folder in which tables and views outlive the cluster.
        scheduler_file: a file that tells :func:`windrow.connect` on this machine, or on others that see it and reach this one, where the
            cluster is and who asks. Nobody else may read it, and it goes with the cluster.
        accept_plans: whether clients in other processes send frames as plans, which say more than SQL does.

    >>> import windrow
    >>> with windrow.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="256MB") as cluster:
    ...     with windrow.Client(cluster) as client:
    ...         client.sql("SELECT count(*) AS n FROM generate_series(1, 1000)").to_pydict()
    {'n': [1000]}
    """

    def __init__(
        self,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        memory_limit: str | int | float | None = "auto",
        processes: bool = True,
        *,
        executors: int | None = None,
        slots: int | None = None,
        port: int = 0,
        spill_dir: str | os.PathLike[str] | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        accept_plans: bool = True,
        scheduler_file: str | os.PathLike[str] | None = None,
    ) -> None:
        cores = _machine.cores()
        count = _one_of("n_workers", n_workers, "executors", executors)
        count = min(4, cores) if count is None else _at_least_one("n_workers", count)
        threads = _one_of("threads_per_worker", threads_per_worker, "slots", slots)
        threads = max(1, cores // count) if threads is None else _at_least_one("threads_per_worker", threads)
        self._processes = processes
        self._cluster: _windrow.Cluster | None = None
        self._client: weakref.ref[Client] | None = None
        program, arguments = _program() if processes else (None, [])
        limit = _machine.memory_limit(memory_limit, count)
        python = sys.executable or None
        self._cluster = _windrow.Cluster.start(
            count, threads, limit, port, program, arguments, spill_dir, state_dir, accept_plans, python
        )
        self._url = self._cluster.url
        self._slots = threads
        self._adaptive: Adaptive | None = None
        self._file: str | None = None
        close_at_exit(self)
        if scheduler_file is not None:
            try:
                self._file = _scheduler_file.write(scheduler_file, self._url, self.token())
            except BaseException:
                self.close()
                raise

    @property
    def url(self) -> str:
        """Where clients of other processes connect: ``windrow.connect(cluster.url)``."""
        return self._url

    scheduler_address = url

    @property
    def dashboard_link(self) -> str | None:
        """The address of the dashboard; ``None``, because there is none yet."""
        return None

    @property
    def status(self) -> str:
        """``running`` or ``closed``."""
        return "closed" if self._cluster is None else "running"

    @property
    def executors(self) -> list[dict[str, Any]]:
        """What is known of each executor that is there, by name."""
        gone = ("dead", "left")
        return [one for one in self._open().status()["executors"] if one["state"] not in gone]

    workers = executors

    def token(self) -> str:
        """A token with which drivers of other kinds log in as the owner of the cluster, for a week."""
        return self._open().token()

    def pids(self) -> list[int | None]:
        """The process of each executor; ``None`` while one is down, or where it lives in this process."""
        return self._open().pids()

    def deaths(self) -> list[tuple[str, str]]:
        """Why executors have ended so far, as pairs of name and cause."""
        return self._open().deaths()

    def kill(self, index: int) -> None:
        """Kills an executor as ``kill -9`` does, to see what happens: it is started again, and no query fails."""
        self._open().kill(index)

    def scale(self, n: int) -> None:
        """Changes the number of executors and returns when that is so. Executors that leave finish what they run, so that no query notices.
        Ends :meth:`adapt`."""
        self._end_adapting()
        self._open().scale(_at_least_one("n", n))

    def adapt(self, minimum: int = 1, maximum: int | None = None, *, interval: float = 1.0) -> Adaptive:
        """Changes the number of executors by itself, until :meth:`scale` or :meth:`close`: there are as many as the tasks that wait and run
        keep busy, from ``minimum`` to ``maximum``, by default one for each core. It looks every ``interval`` seconds, grows at once, and
        shrinks when three looks in a row found fewer enough."""
        self._open()
        if not self._processes:
            raise UnsupportedError("executors in this process cannot leave it", hint="write LocalCluster(processes=True)")
        self._end_adapting()
        self._adaptive = Adaptive(self, self._slots, minimum, maximum or max(minimum, _machine.cores()), interval)
        return self._adaptive

    def _end_adapting(self) -> None:
        adaptive, self._adaptive = self._adaptive, None
        if adaptive is not None:
            adaptive.stop()

    def get_client(self) -> Client:
        """A client of this cluster."""
        from windrow._client import Client

        return Client(self)

    def close(self) -> None:
        """Ends all queries, executors and their files, and returns when they are gone. Harmless when done before."""
        self._end_adapting()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            if self._file is not None:
                _scheduler_file.remove(self._file)
            _open.discard(self)
            cluster.shutdown()

    def _open(self) -> _windrow.Cluster:
        if self._cluster is None:
            from windrow._errors import UnavailableError

            raise UnavailableError("the cluster is closed", hint="start another one")
        return self._cluster

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _facts(self) -> list[tuple[str, object]]:
        facts: list[tuple[str, object]] = [("Status", self.status)]
        if self._cluster is None:
            return facts
        status = self._cluster.status()
        executors = [one for one in status["executors"] if one["state"] not in ("dead", "left")]
        running = sum(one["state"] in ("queued", "running") for one in status["queries"])
        return [
            ("Address", self._url),
            ("Total threads", sum(one["slots"] for one in executors)),
            ("Total memory", _text.size(sum(one["memory_limit"] for one in executors))),
            *facts,
            ("Workers", f"{len(executors)} (executors)"),
            ("Using processes", self._processes),
            ("Running queries", running),
        ]

    def __repr__(self) -> str:
        return _text.facts("LocalCluster", self._facts())

    def _repr_html_(self) -> str:
        return _text.html_facts("LocalCluster", self._facts())


def _program() -> tuple[str, list[str]]:
    """How to run the program `windrow` with this interpreter, whatever the working directory holds."""
    if not sys.executable:
        raise UnsupportedError(
            "this interpreter does not know its own path, so that it cannot start executors",
            hint="write LocalCluster(processes=False), or set sys.executable",
        )
    packages = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = f"import sys; sys.path.append({packages!r}); from windrow._cli import main; main()"
    return sys.executable, ["-P", "-c", script]


def _one_of(name: str, value: int | None, other: str, alias: int | None) -> int | None:
    if value is not None and alias is not None:
        raise InvalidConfigError(f"{name} = {value} and {other} = {alias} are the same setting", hint="give one of them")
    return alias if value is None else value


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise InvalidConfigError(f"{name} = {value}: a cluster needs at least one")
    return value
