"""What runs in a Python worker: a process of an executor that calls one function of a user, batch by batch.

The executor gives this text to the interpreter that ``executor.python`` names, which need not know the package: nothing here imports
``windrow``. Standard input is a socket to the executor, standard output a pipe that nobody writes to: it closes when the executor is gone,
however it went, and then the kernel kills this process and what it started. What the function prints goes to standard error.

A message is a letter, eight bytes with the length of what follows, and that. Parts of it are four bytes with a length, and that.

====== ============= ==========================================================
``H``  to executor   the versions of Python, pyarrow and cloudpickle, and what is wrong
``L``  to worker     what is called and how: style, format, memory, columns, function
``R``  to executor   the function is loaded
``B``  to worker     rows, as a stream of Arrow IPC
``O``  to executor   rows of the result, as a stream of Arrow IPC
``D``  to executor   all of the result was sent
``E``  to executor   it failed: how, in one line, and the traceback
====== ============= ==========================================================
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_HEAD = struct.Struct("<cQ")
_LENGTH = struct.Struct("<I")
# How much larger than a result what it is written into may be.
_SPARE = 4

# pyarrow, once it is known to be there.
pa: Any = None


class _Wrong(Exception):
    """What the function gave is not what was said. Has no traceback of the function's."""


class _Channel:
    """Messages to and from the executor."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def receive(self) -> tuple[bytes, Any] | None:
        """The next message; ``None`` when the executor wants no more."""
        head = memoryview(bytearray(_HEAD.size))
        if not self._fill(head):
            return None
        kind, length = _HEAD.unpack(head)
        body = pa.allocate_buffer(length)
        if length and not self._fill(memoryview(body).cast("B")):
            return None
        return kind, body

    def _fill(self, view: memoryview) -> bool:
        while len(view) > 0:
            count = self._socket.recv_into(view)
            if count == 0:
                return False
            view = view[count:]
        return True

    def send(self, kind: bytes, body: Any = b"") -> None:
        view = memoryview(body)
        self._socket.sendall(_HEAD.pack(kind, view.nbytes))
        if view.nbytes:
            self._socket.sendall(view)

    def send_parts(self, kind: bytes, *parts: str) -> None:
        encoded = [part.encode("utf-8", "replace") for part in parts]
        self.send(kind, b"".join(_LENGTH.pack(len(part)) + part for part in encoded))


def _parts(body: Any) -> list[bytes]:
    data, parts, at = bytes(body), [], 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        parts.append(data[at : at + length])
        at += length
    return parts


# What keeps this process apart


def _apart() -> _Channel:
    """Takes standard input and output for itself: whatever the function reads or prints, it meets no message."""
    channel, lifeline = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for descriptor in (channel, lifeline):
        os.set_inheritable(descriptor, False)
    _die_with(lifeline)
    _limit()
    return _Channel(channel)


def _die_with(lifeline: int) -> None:
    """Ends this process and its children when the other end of the pipe closes."""
    import fcntl
    import signal

    if hasattr(fcntl, "F_SETSIG"):
        # By the kernel, whatever the function does: it may hold the interpreter's lock, or block signals.
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    import select
    import threading

    # Where there is no such signal, and for what happened before it was asked for.
    closed = select.poll()
    closed.register(lifeline, 0)
    if closed.poll(0):
        os._exit(1)
    if not hasattr(fcntl, "F_SETSIG"):

        def watch() -> None:
            closed.poll()
            os.killpg(os.getpgrp(), signal.SIGKILL)

        threading.Thread(target=watch, name="windrow-lifeline", daemon=True).start()


def _limit() -> None:
    """No files with the memory of processes that crash, and no programs with more rights than this one."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        no_new_privileges = 38
        ctypes.CDLL(None).prctl(no_new_privileges, 1, 0, 0, 0)


def _limit_memory(limit: int) -> None:
    """What this process may take beyond what it has."""
    if sys.platform != "linux" or limit == 0:
        return
    import resource

    with open("/proc/self/status") as status:
        [has] = (int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (has + limit, has + limit))


# What is called


def _load(parts: list[bytes]) -> Callable[[Any], Iterator[Any]]:
    """What makes batches of a result from a batch."""
    style, format_, memory, columns, function = parts
    _limit_memory(int(memory))
    schema = pa.ipc.open_stream(columns).schema
    shipped = pickle.loads(function)
    sys.path.extend(place for place in shipped["path"] if place not in sys.path)
    called, arguments, named = pickle.loads(shipped["function"])
    if isinstance(called, type):
        called = called(*arguments, **named)
    of = _FORMATS[format_.decode()]
    if style == b"batches":
        return lambda batch: _batches(called, batch, of, schema)
    if style == b"values":
        return lambda batch: _values(called, batch, of, schema)
    return lambda batch: _groups(called, batch, of, schema)


def _batches(function: Callable[[Any], Any], batch: Any, of: _Format, schema: Any) -> Iterator[Any]:
    result = function(of.batch(batch))
    several = isinstance(result, Iterable) and not _is_rows(result)
    for one in result if several else (result,):
        yield from _checked(one, schema)


def _values(function: Callable[..., Any], batch: Any, of: _Format, schema: Any) -> Iterator[Any]:
    field = schema.field(0)
    result = function(*(of.column(column) for column in batch.columns)) if batch.num_columns else function()
    values = _array(result, field)
    if len(values) != batch.num_rows:
        raise _Wrong(f"it gave {len(values)} values for {batch.num_rows} rows")
    yield pa.record_batch([values], schema=schema)


def _groups(function: Callable[..., Any], batch: Any, of: _Format, schema: Any) -> Iterator[Any]:
    field = schema.field(0)
    columns = batch.columns
    empty = [pa.array([], column.type.value_type) for column in columns]
    values = []
    for row in range(batch.num_rows):
        groups = [column[row].values for column in columns]
        value = function(*(of.column(none if group is None else group) for group, none in zip(groups, empty, strict=True)))
        values.append(value.as_py() if hasattr(value, "as_py") else value.item() if hasattr(value, "item") else value)
    yield pa.record_batch([_array(values, field)], schema=schema)


# What functions get


class _Format:
    """How rows and columns are given to a function."""

    def batch(self, batch: Any) -> Any:
        return batch

    def column(self, column: Any) -> Any:
        return column


class _Pandas(_Format):
    def batch(self, batch: Any) -> Any:
        return batch.to_pandas()

    def column(self, column: Any) -> Any:
        return column.to_pandas()


class _Polars(_Format):
    def batch(self, batch: Any) -> Any:
        import polars

        return polars.from_arrow(batch)

    def column(self, column: Any) -> Any:
        import polars

        return polars.from_arrow(column)


class _Numpy(_Format):
    def batch(self, batch: Any) -> Any:
        return {name: self.column(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}

    def column(self, column: Any) -> Any:
        return column.to_numpy(zero_copy_only=False)


_FORMATS = {"arrow": _Format(), "pandas": _Pandas(), "polars": _Polars(), "numpy": _Numpy()}


# What functions give


def _is_rows(result: Any) -> bool:
    return isinstance(result, dict) or hasattr(result, "__arrow_c_stream__") or hasattr(result, "__arrow_c_array__")


def _checked(result: Any, schema: Any) -> Iterator[Any]:
    """The rows of a result as batches of the columns that were declared."""
    if isinstance(result, pa.RecordBatch) and result.schema.equals(schema) and all(field.nullable for field in schema):
        yield result
        return
    columns = _columns(result)
    missing = [name for name in schema.names if name not in columns]
    if missing:
        raise _Wrong(f"the column {missing[0]!r} of its schema is not in what it gave, which has {_listed(columns)}")
    extra = [name for name in columns if name not in schema.names]
    if extra:
        raise _Wrong(f"the column {extra[0]!r} that it gave is not in its schema, which has {_listed(schema.names)}")
    arrays = [_array(columns[field.name], field) for field in schema]
    if len({len(array) for array in arrays}) > 1:
        sizes = ", ".join(f"{name!r} has {len(array)}" for name, array in zip(schema.names, arrays, strict=True))
        raise _Wrong(f"the columns that it gave differ in their number of values: {sizes}")
    if not arrays:
        yield result if isinstance(result, pa.RecordBatch) else pa.table(result).to_batches()[0]
        return
    yield from pa.table(arrays, schema=schema).to_batches()


def _columns(result: Any) -> dict[str, Any]:
    if isinstance(result, dict):
        return result
    if type(result).__module__.split(".")[0] == "pandas":
        return {str(name): result[name] for name in result.columns}
    if not _is_rows(result):
        raise _Wrong(f"it gave a {type(result).__name__}, which is no batch of rows")
    table = result if isinstance(result, (pa.RecordBatch, pa.Table)) else pa.table(result)
    names = table.schema.names
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise _Wrong(f"it gave two columns with the name {twice[0]!r}")
    return dict(zip(names, table.columns, strict=True))


def _array(values: Any, field: Any) -> Any:
    """Values as an array of the field's type."""
    wants = field.type
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        made = values
    elif hasattr(values, "to_arrow"):  # polars
        made = values.to_arrow()
    else:
        try:
            made = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            made = _made_as(values, field)
    if pa.types.is_dictionary(made.type) and not pa.types.is_dictionary(wants):
        made = made.cast(made.type.value_type)
    if made.type != wants:
        if _kind(made.type) != _kind(wants) and not pa.types.is_null(made.type):
            raise _Wrong(f"the column {field.name!r} that it gave is {made.type}, and its schema says {wants}")
        try:
            made = made.cast(wants)
        except pa.ArrowException as error:
            raise _Wrong(f"the column {field.name!r} that it gave is {made.type}, not {wants}: {error}") from None
    if not field.nullable and made.null_count:
        raise _Wrong(f"the column {field.name!r} that it gave has nulls, and its schema says that it has none")
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _made_as(values: Any, field: Any) -> Any:
    try:
        return pa.array(values, field.type, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _Wrong(f"the values that it gave for {field.name!r} are no {field.type}: {error}") from None


def _kind(of: Any) -> object:
    """Types of one kind stand for each other."""
    types = pa.types
    if types.is_integer(of) or types.is_floating(of) or types.is_decimal(of):
        return "number"
    if types.is_string(of) or types.is_large_string(of) or types.is_string_view(of):
        return "text"
    if types.is_binary(of) or types.is_large_binary(of) or types.is_fixed_size_binary(of) or types.is_binary_view(of):
        return "bytes"
    if types.is_timestamp(of):
        return "moment", of.tz is None
    if types.is_date(of):
        return "date"
    if types.is_time(of):
        return "time"
    if types.is_duration(of):
        return "duration"
    if types.is_list(of) or types.is_large_list(of) or types.is_fixed_size_list(of):
        return "list", _kind(of.value_type)
    if types.is_struct(of):
        return "struct", tuple((of.field(index).name, _kind(of.field(index).type)) for index in range(of.num_fields))
    return str(of)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


# The process


def _hello() -> list[str]:
    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    try:
        import cloudpickle

        pickles = cloudpickle.__version__
    except ImportError:
        pickles = ""
    global pa
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        return [python, "", pickles, str(error)]
    pa = pyarrow
    return [python, pyarrow.__version__, pickles, ""]


def _failed(channel: _Channel, error: BaseException) -> None:
    if isinstance(error, _Wrong):
        return channel.send_parts(b"E", "wrong", str(error), "")
    kind = "memory" if isinstance(error, MemoryError) else "raised"
    line = "".join(traceback.format_exception_only(error)).strip()
    # Without the steps of this file.
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename == _worker_file():
        step = step.tb_next
    lines = traceback.format_exception(type(error), error, step)
    return channel.send_parts(b"E", kind, line, "".join(lines).rstrip())


def _worker_file() -> str:
    return _failed.__code__.co_filename


class _Sink:
    """Sends results. What one was written into serves for the next: fresh memory costs more than the rows."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._buffer: Any = None

    def send(self, batch: Any) -> None:
        counted = pa.MockOutputStream()
        _write(counted, batch)
        room = counted.size()
        if self._buffer is None or not room <= self._buffer.size <= _SPARE * room:
            self._buffer = pa.allocate_buffer(room)
        _write(pa.FixedSizeBufferWriter(self._buffer), batch)
        self._channel.send(b"O", memoryview(self._buffer)[:room])


def _write(sink: Any, batch: Any) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)


def main() -> None:
    """Serves the executor until it wants no more."""
    channel = _apart()
    channel.send_parts(b"H", *_hello())
    sink = _Sink(channel)
    call: Callable[[Any], Iterator[Any]] | None = None
    while (message := channel.receive()) is not None:
        kind, body = message
        try:
            if kind == b"L":
                call = _load(_parts(body))
                channel.send(b"R")
            elif call is not None:
                with pa.ipc.open_stream(body) as rows:
                    for batch in rows:
                        for result in call(batch):
                            sink.send(result)
                channel.send(b"D")
        except OSError as error:
            if isinstance(error, (BrokenPipeError, ConnectionError)) and _is_gone(channel):
                break
            _failed(channel, error)
        except BaseException as error:
            _failed(channel, error)
        message = body = None
    # Whatever threads the function has left.
    os._exit(0)


def _is_gone(channel: _Channel) -> bool:
    try:
        channel._socket.send(b"", socket.MSG_DONTWAIT)
        return channel._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


if __name__ == "__main__":
    main()
