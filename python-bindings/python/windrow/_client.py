"""The way to an engine: in this process, in a cluster on this machine, or elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

from windrow import _drawing, _machine, _scheduler_file, _text, _windrow
from windrow._cluster import LocalCluster, close_at_exit
from windrow._errors import InvalidConfigError, InvalidQueryError, NotFoundError, UnavailableError, UnsupportedError
from windrow._frame import DataFrame
from windrow._query import Query
from windrow._scan import Scanned, found_in
from windrow._table import Table, is_arrow
from windrow._types import type_of
from windrow._udf import Udf

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Client:
    """A session: it runs SQL and holds temporary tables and settings. Threads may share one, and their queries run side by side.

    ``Client()`` starts a cluster on this machine and ends with it; ``Client(cluster)`` joins one; ``Client("grpc://host:8815")`` goes to
    a scheduler elsewhere. :func:`windrow.connect` without an address runs all of it in this process, which is the fastest to start.

    Args:
        address: a :class:`LocalCluster`, or the address of a scheduler.
        token, user, password, ca: who asks, and the certificate that signed the server's; see :func:`windrow.connect`.
        scheduler_file: the file that says where a scheduler is, as :class:`LocalCluster` writes it.
        python_scan: whether SQL text may name variables of the code that runs it.
        options: without an address, those of :class:`LocalCluster`.
    """

    def __init__(
        self,
        address: LocalCluster | str | None = None,
        *,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        scheduler_file: str | os.PathLike[str] | None = None,
        python_scan: bool = True,
        **options: Any,
    ) -> None:
        if scheduler_file is not None:
            address, token = _scheduler_file.of(scheduler_file, address, token)
        if address is not None and options:
            raise InvalidConfigError(f"{', '.join(options)}: these shape a new cluster, and one is named", hint="leave them out")
        self._owned: LocalCluster | None = None
        if isinstance(address, str):
            opened = _connect(address, token, user, password, ca)
            self._begin(opened, None, "Address", python_scan)
            return
        cluster = address
        if cluster is None:
            cluster = self._owned = LocalCluster(**options)
        try:
            self._begin(cluster._open().session(), cluster, "Cluster object", python_scan)
        except BaseException:
            if self._owned is not None:
                self._owned.close()
            raise

    @classmethod
    def _of(cls, session: _windrow.Session, method: str, python_scan: bool) -> Client:
        self = cls.__new__(cls)
        self._owned = None
        self._begin(session, None, method, python_scan)
        return self

    def _begin(self, session: _windrow.Session, cluster: LocalCluster | None, method: str, python_scan: bool) -> None:
        self._session = session
        self._cluster = cluster
        self._method = method
        self._scanned = Scanned(session)
        self.id = f"Client-{uuid.uuid4()}"
        self.python_scan = python_scan
        close_at_exit(self)
        _set_default(self)

    # Queries

    def sql(self, query: str, /, *params: Any, **named: Any) -> Query:
        """Starts one statement and returns before its rows are there.

        ``$1``, ``$2`` or ``?`` in the text are the ``params``, ``$name`` is a named one. A named one that the text has as a table, in
        FROM or as ``{name}``, is a frame: of pandas, polars, pyarrow, or anything else that Arrow's libraries can read. A table that the
        catalog does not know is looked up among the variables of the code that calls.

        >>> import windrow
        >>> client = windrow.connect()
        >>> client.sql("SELECT $1 + $factor AS x", 1, factor=2).to_pydict()
        {'x': [3]}
        >>> client.close()
        """
        return self._sql(query, params, named, sys._getframe(1))

    def _sql(self, text: str, params: tuple[Any, ...], named: Mapping[str, Any], caller: FrameType) -> Query:
        values = dict(named)
        frames: dict[str, Any] = {}
        needs_names = self.python_scan or any(is_arrow(value) for value in values.values())
        for table in _windrow.table_references(_without_places(text, values)) if needs_names else ():
            if table in values:
                frames[table] = values.pop(table)
            elif self.python_scan and (variable := found_in(caller, table)) is not None and not self._knows(table):
                frames[table] = variable
        if not (params or values) and any(isinstance(frame, DataFrame) for frame in frames.values()):
            return self._over(text, frames)
        for name in [name for name in values if "{" + name + "}" in text]:
            text = text.replace("{" + name + "}", self._scanned.table(values.pop(name)))
        with self._scanned.named(frames):
            started = self._session.sql(text, [*params, *values.values()], list(values))
        return Query(started)

    def _over(self, text: str, frames: Mapping[str, Any]) -> Query:
        """Starts a query that names lazy frames: they become a part of it."""
        lazy = {name: frame if isinstance(frame, DataFrame) else self.from_arrow(frame) for name, frame in frames.items()}
        return self.frame(text, **lazy).submit()

    def _knows(self, table: str) -> bool:
        # Views of other threads' variables are no tables that anybody made.
        with self._scanned.settled():
            return any(name == table for name, _columns in self._session.names()["tables"])

    async def sql_async(self, query: str, /, *params: Any, **named: Any) -> Query:
        """As :meth:`sql`, without holding up the event loop."""
        import asyncio

        caller = sys._getframe(1)
        return await asyncio.to_thread(self._sql, query, params, named, caller)

    def register_udf(self, function: Udf) -> None:
        """Makes a function of yours known to this session's SQL, by its name.

        >>> import windrow
        >>> @windrow.udf(returns="int64", format="numpy")
        ... def twice(x):
        ...     return x * 2
        >>> with windrow.connect() as client:
        ...     client.register_udf(twice)
        ...     client.sql("SELECT twice(21) AS x").to_pydict()
        {'x': [42]}
        """
        function._function.register(self._session)

    # Frames

    def frame(self, query: str, /, **frames: DataFrame) -> DataFrame:
        """The lazy frame of a query, which may name other frames, in FROM or as ``{name}``.

        >>> import windrow
        >>> with windrow.connect() as client:
        ...     numbers = client.frame("SELECT value AS n FROM generate_series(1, 4)")
        ...     client.frame("SELECT sum(n) AS total FROM {numbers}", numbers=numbers).to_pydict()
        {'total': [10]}
        """
        text = query
        for name in frames:
            text = text.replace("{" + name + "}", quoted(name))
        given = [(name, frame._frame) for name, frame in frames.items()]
        return DataFrame(_windrow.frame_of_query(self._session, text, given), self._session)

    def table(self, name: str) -> DataFrame:
        """The lazy frame of a table or a view. Dots divide catalog, schema and table."""
        return DataFrame(_windrow.frame_of_table(self._session, name), self._session)

    def read_parquet(self, paths: Paths, *, hive_partitions: Mapping[str, Any] | None = None) -> DataFrame:
        """The lazy frame of Parquet files: a path, a pattern, a folder that ends with ``/``, an address of a store, or several of them. Folders
        like ``year=2026/`` are columns."""
        return self._read("parquet", paths, hive_partitions)

    def read_csv(
        self,
        paths: Paths,
        *,
        has_header: bool = True,
        delimiter: str = ",",
        quote: str = '"',
        escape: str | None = None,
        comment: str | None = None,
        schema: Any = None,
        hive_partitions: Mapping[str, Any] | None = None,
    ) -> DataFrame:
        """The lazy frame of CSV files, compressed or not. The columns are found out, unless there is a ``schema``, one of pyarrow."""
        csv = {"has_header": has_header, "delimiter": delimiter, "quote": quote, "escape": escape, "comment": comment}
        return self._read("csv", paths, hive_partitions, csv, schema)

    def read_json(self, paths: Paths, *, schema: Any = None, hive_partitions: Mapping[str, Any] | None = None) -> DataFrame:
        """The lazy frame of files of JSON, a row a line, compressed or not."""
        return self._read("json", paths, hive_partitions, None, schema)

    def read_arrow(self, paths: Paths) -> DataFrame:
        """The lazy frame of Arrow's IPC files."""
        return self._read("arrow", paths, None)

    def _read(
        self,
        format: str,
        paths: Paths,
        hive_partitions: Mapping[str, Any] | None,
        csv: dict[str, Any] | None = None,
        schema: Any = None,
    ) -> DataFrame:
        several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        partitions = [(name, type_of(of)) for name, of in (hive_partitions or {}).items()]
        names = [os.fspath(path) for path in several]
        frame = _windrow.frame_of_files(self._session, format, names, csv, schema, partitions)
        return DataFrame(frame, self._session)

    def from_arrow(self, data: Any) -> DataFrame:
        """The lazy frame of rows that are here: of pandas, polars, pyarrow, or anything else that Arrow's libraries can read. Few travel with
        each query, many are written once into a table of the session."""
        if not is_arrow(data):
            data = Table(data)  # says what is wrong
        return DataFrame(_windrow.frame_of_rows(self._session, data), self._session)

    from_pandas = from_polars = from_arrow

    def from_dict(self, columns: Mapping[str, Sequence[Any]]) -> DataFrame:
        """The lazy frame of a dictionary of columns."""
        return self.from_arrow(Table.from_dict(columns))

    # Tables

    def register(self, name: str, data: Any, *, replace: bool = True) -> None:
        """Makes the rows of ``data`` a temporary table of this session: a frame of pandas or polars, a table of pyarrow, or anything else
        with ``__arrow_c_stream__`` or ``__arrow_c_array__``. A stream is read once, here."""
        self._ingest(name, data, "replace" if replace else "create", temporary=True)

    def append(self, name: str, data: Any) -> int:
        """Adds the rows of ``data`` to a table, or makes a new shared one of them; returns how many. All become visible at once."""
        return self._ingest(name, data, "create_append", temporary=False)

    def _ingest(self, name: str, data: Any, mode: str, temporary: bool) -> int:
        if not is_arrow(data):
            raise InvalidQueryError(
                f"{name!r} cannot be made a table of an object of the type {type(data).__name__}",
                hint="give a frame of pandas or polars, a table of pyarrow, or anything else with __arrow_c_stream__",
            )
        return self._session.ingest(name, data, mode, temporary)

    def deregister(self, name: str) -> None:
        """Drops a temporary table of this session."""
        self._session.sql(f"DROP TABLE temp.{quoted(name)}").collect()

    def tables(self) -> list[str]:
        """The tables and views that the session sees."""
        return sorted(name for name, _columns in self._session.names()["tables"])

    def schemas(self) -> list[str]:
        """The schemas that the session sees."""
        rows = self._session.sql("SELECT schema_name FROM information_schema.schemata ORDER BY schema_name").collect()
        return rows.column_values(0)

    # The cluster

    @property
    def cluster(self) -> LocalCluster | None:
        """The cluster that this client joined, if it is an object of this process."""
        return self._cluster

    @property
    def url(self) -> str | None:
        """The scheduler's address; ``None`` if it is reached without the network."""
        return self._session.url

    @property
    def dashboard_link(self) -> str | None:
        """The address of the dashboard; ``None``, because there is none yet."""
        return None

    @property
    def status(self) -> str:
        """``running`` or ``closed``."""
        return "closed" if self._session.is_closed else "running"

    def executors(self) -> list[dict[str, Any]]:
        """What is known of each executor that is there."""
        return [one for one in self._session.status()["executors"] if one["state"] not in ("dead", "left")]

    def queries(self) -> list[dict[str, Any]]:
        """What is known of the queries that wait and run, and of the last ones that ended."""
        queries: list[dict[str, Any]] = self._session.status()["queries"]
        return queries

    def cancel(self, query: Query | int) -> bool:
        """Ends a query, which another session may have started; whether it was running."""
        number = query.id if isinstance(query, Query) else query
        return False if number is None else self._session.cancel(number)

    def wait_for_executors(self, n: int = 1, timeout: float = 30.0) -> None:
        """Waits until there are at least ``n`` executors.

        Raises:
            UnavailableError: there are not after ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while len(there := [one for one in self.executors() if one["state"] == "alive"]) < n:
            if time.monotonic() > end:
                raise UnavailableError(f"{len(there)} of {n} executors are there after {timeout:g} s")
            time.sleep(0.02)

    wait_for_workers = wait_for_executors

    # Settings

    def set(self, settings: Mapping[str, object] | None = None, /, **more: object) -> None:
        """Changes settings of this session: ``client.set({"windrow.query.partitions": 8})`` or ``client.set(partitions=8)``."""
        for name, value in {**(settings or {}), **more}.items():
            full = name if "." in name else f"windrow.query.{name}"
            self._session.set(full, str(value).lower() if isinstance(value, bool) else str(value))

    def settings(self) -> dict[str, Any]:
        """The settings of this session."""
        rows = self._session.sql("SELECT name, value FROM system.settings").collect()
        return dict(zip(rows.column_values(0), rows.column_values(1), strict=True))

    def versions(self) -> dict[str, str]:
        """The versions of this package and of the interpreter."""
        return {"windrow": _windrow.__version__, "python": sys.version.split()[0]}

    # The end

    def close(self) -> None:
        """Ends the session and what it alone owns: its temporary tables, the engine in this process, the cluster that ``Client()`` started.
        Harmless when done before."""
        if not self._session.is_closed:
            self._scanned.forget()
            self._session.close(engine=self._method == "Embedded")
        if self._owned is not None:
            self._owned.close()

    def shutdown(self) -> None:
        """Ends the session and the cluster that it joined, whoever started it."""
        if self.url is not None:
            raise UnsupportedError(f"the scheduler at {self.url} belongs to others too", hint="end it where it was started")
        self.close()
        if self._cluster is not None:
            self._cluster.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import asyncio

        await asyncio.to_thread(self.close)

    def _facts(self) -> list[tuple[str, object]]:
        facts: list[tuple[str, object]] = [("Client ID", self.id), ("Connection method", self._method)]
        if self._cluster is not None:
            facts += [("Cluster type", "windrow.LocalCluster"), *self._cluster._facts()]
        elif self.url is not None:
            facts += [("Address", self.url), ("Status", self.status)]
        else:
            facts += [("Status", self.status)]
        return facts

    def __repr__(self) -> str:
        return _text.facts("Client", self._facts())

    def _repr_html_(self) -> str:
        return _text.html_facts("Client", self._facts())


def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    user: str | None = None,
    password: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    scheduler_file: str | os.PathLike[str] | None = None,
    slots: int | None = None,
    memory_limit: str | int | float | None = "auto",
    python_scan: bool = True,
    settings: Mapping[str, object] | None = None,
) -> Client:
    """Opens a session.

    Args:
        url: ``grpc://host:8815`` or ``grpc+tls://host:8815``; by default ``WINDROW_URL``, and without that an engine in this process with
            all its cores. ``"single"`` is one with one core and fixed order, to find mistakes with.
        token: who asks, as an administrator gave it; by default ``WINDROW_TOKEN``.
        user, password: who asks; the password is ``WINDROW_PASSWORD`` by default.
        ca: a file with the certificate that signed the server's, if this machine does not know it.
        scheduler_file: the file that says where a scheduler is and who asks, as ``LocalCluster(scheduler_file=...)`` writes it.
        slots, memory_limit: of the engine in this process, as of :class:`windrow.LocalCluster`.
        python_scan: whether SQL text may name variables of the code that runs it.
        settings: settings of the session, as of :meth:`Client.set`.
    """
    if scheduler_file is not None:
        url, token = _scheduler_file.of(scheduler_file, url, token)
    address = url if url is not None else os.environ.get("WINDROW_URL") or None
    if address is None or address == "single":
        threads = 1 if address == "single" else slots or _machine.cores()
        limit = _machine.memory_limit(memory_limit, 1)
        session = _windrow.Session.connect(slots=threads, memory_limit=limit, python=sys.executable or None)
        client = Client._of(session, "Embedded", python_scan)
        chosen = {"partitions": 1, **(settings or {})} if address == "single" else dict(settings or {})
    else:
        if slots is not None or memory_limit not in (None, "auto"):
            raise InvalidConfigError(
                "slots and memory_limit shape an engine in this process, not a scheduler's", hint="leave them out"
            )
        client = Client._of(_connect(address, token, user, password, ca), "Address", python_scan)
        chosen = dict(settings or {})
    try:
        client.set(chosen)
    except BaseException:
        client.close()
        raise
    return client


def _connect(
    url: str, token: str | None, user: str | None, password: str | None, ca: str | os.PathLike[str] | None
) -> _windrow.Session:
    if user is not None:
        from urllib.parse import quote

        scheme, separator, rest = url.partition("://")
        if not separator or "@" in rest:
            raise InvalidConfigError(f"{url!r} and user = {user!r} do not go together", hint="write grpc+tls://HOST:PORT")
        url = f"{scheme}://{quote(user, safe='')}@{rest}"
    token = token or (os.environ.get("WINDROW_TOKEN") if password is None else None) or None
    password = password or os.environ.get("WINDROW_PASSWORD") or None
    return _windrow.Session.connect(url, token, password, ca)


def _without_places(text: str, named: Mapping[str, Any]) -> str:
    """The text with a name in each place for a frame, so that it parses."""
    for name in named:
        text = text.replace("{" + name + "}", quoted("{" + name + "}"))
    return text


def quoted(name: str) -> str:
    """A name as SQL text, exactly as it is."""
    return '"' + name.replace('"', '""') + '"'


# The client of the module's functions.

_lock = threading.Lock()
_last: weakref.ref[Client] | None = None
_embedded: Client | None = None


def _set_default(client: Client) -> None:
    global _last
    _last = weakref.ref(client)


def default_client() -> Client:
    """The client that was made last, unless it is closed; without one, an engine in this process."""
    global _embedded
    with _lock:
        client = _last() if _last is not None else None
        if client is None or client.status == "closed":
            client = _embedded = connect()
        return client


def get_client() -> Client:
    """The client that was made last.

    Raises:
        NotFoundError: there is none, or it is closed.
    """
    client = _last() if _last is not None else None
    if client is None or client.status == "closed":
        raise NotFoundError("there is no client", hint="make one with windrow.connect() or windrow.Client()")
    return client


def sql(query: str, /, *params: Any, **named: Any) -> Query:
    """As :meth:`Client.sql`, with the client that was made last, or an engine in this process.

    >>> import windrow
    >>> numbers = windrow.Table(windrow.sql("SELECT value AS n FROM generate_series(1, 3)"))
    >>> windrow.sql("SELECT sum(n) AS total FROM numbers").to_pylist()
    [{'total': 6}]
    """
    return default_client()._sql(query, params, named, sys._getframe(1))


def register(name: str, data: Any) -> None:
    """As :meth:`Client.register`, with the client that was made last, or an engine in this process."""
    default_client().register(name, data)


def frame(query: str, /, **frames: DataFrame) -> DataFrame:
    """As :meth:`Client.frame`, with the client that was made last, or an engine in this process."""
    return default_client().frame(query, **frames)


def table(name: str) -> DataFrame:
    """As :meth:`Client.table`, with the client that was made last, or an engine in this process."""
    return default_client().table(name)


def read_parquet(paths: Paths, **options: Any) -> DataFrame:
    """As :meth:`Client.read_parquet`, with the client that was made last, or an engine in this process."""
    return default_client().read_parquet(paths, **options)


def read_csv(paths: Paths, **options: Any) -> DataFrame:
    """As :meth:`Client.read_csv`, with the client that was made last, or an engine in this process."""
    return default_client().read_csv(paths, **options)


def read_json(paths: Paths, **options: Any) -> DataFrame:
    """As :meth:`Client.read_json`, with the client that was made last, or an engine in this process."""
    return default_client().read_json(paths, **options)


def from_arrow(data: Any) -> DataFrame:
    """As :meth:`Client.from_arrow`, with the client that was made last, or an engine in this process."""
    return default_client().from_arrow(data)


from_pandas = from_polars = from_arrow


def from_dict(columns: Mapping[str, Sequence[Any]]) -> DataFrame:
    """As :meth:`Client.from_dict`, with the client that was made last, or an engine in this process."""
    return default_client().from_dict(columns)


def compute(*frames: Any) -> tuple[Any, ...]:
    """What each of several frames and columns gives, as a tuple: a :class:`Table`, or in Dask's words a frame of pandas, a column or a
    number. Their queries run side by side; what is none of them is returned as it is.

    >>> import windrow
    >>> numbers = windrow.from_dict({"n": [1, 2, 3]})
    >>> [table.to_pydict() for table in windrow.compute(numbers.filter(numbers.n > 1), numbers.agg(numbers.n.sum()))]
    [{'n': [2, 3]}, {'n': [6]}]
    """
    waits = [frame._started() if hasattr(frame, "_started") else frame for frame in frames]
    return tuple(wait() if hasattr(frame, "_started") else wait for frame, wait in zip(frames, waits, strict=True))


def visualize(*frames: DataFrame, filename: str | os.PathLike[str] | None = None) -> _drawing.Drawing:
    """One picture of how several frames are computed, side by side: see :meth:`DataFrame.visualize`."""
    several = len(frames) > 1
    plans = {f"Frame {at}" if several else "": frame._frame.explain(False, False) for at, frame in enumerate(frames, start=1)}
    drawing = _drawing.Drawing(plans)
    if filename is not None:
        drawing.save(filename)
    return drawing
