"""Functions of yours that run on executors: of rows, of columns, of groups."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windrow import _windrow
from windrow._errors import InvalidQueryError, UnsupportedError
from windrow._expr import Expr, IntoExpr, expressions
from windrow._types import type_of

# Rows that a function is given at a time: with fewer, the way to it costs more, with more, it saves little.
BATCH_SIZE = 32768
# Groups that a function is given at a time.
GROUPS = 8192


@dataclass(frozen=True)
class Options:
    """How a function runs: what :meth:`windrow.DataFrame.map_batches` says of each."""

    format: str
    batch_size: int
    concurrency: int | None
    memory: str | int | None
    init_args: Sequence[Any]
    init_kwargs: Mapping[str, Any] | None
    deterministic: bool


def function(called: Callable[..., Any], name: str, style: str, schema: Any, options: Options) -> _windrow.PythonFunction:
    """A function as executors are given it: checked and pickled."""
    if not callable(called):
        raise InvalidQueryError(f"{called!r} is no function", hint="give a function, or a class whose objects can be called")
    if not isinstance(called, type) and (options.init_args or options.init_kwargs):
        raise InvalidQueryError(f"{name!r} is a function, and init_args are for a class", hint="use functools.partial")
    if isinstance(called, type) and "__call__" not in dir(called):
        raise InvalidQueryError(f"objects of the class {name!r} cannot be called", hint="give it a method __call__(self, batch)")
    pickle, cloudpickle = _pickled(called, name, tuple(options.init_args), dict(options.init_kwargs or {}))
    limit = _windrow.parse_size(options.memory) if isinstance(options.memory, str) else options.memory
    return _windrow.PythonFunction(
        name,
        pickle,
        style,
        options.format,
        schema_of(schema),
        options.batch_size,
        options.concurrency,
        limit,
        options.deterministic,
        platform.python_version(),
        cloudpickle,
    )


def schema_of(schema: Any) -> Any:
    """The columns that a function gives: a dictionary of names and types, or anything with a schema of Arrow."""
    if isinstance(schema, Mapping):
        return [(str(name), type_of(of)) for name, of in schema.items()]
    if hasattr(schema, "__arrow_c_schema__"):
        return schema
    raise InvalidQueryError(
        f"{schema!r} is no schema", hint="write schema={'id': 'int64', 'p': 'float64'}, or a schema of pyarrow"
    )


def name_of(called: Any) -> str:
    """What plans and errors call a function."""
    inner = called.func if isinstance(called, functools.partial) else called
    return str(getattr(inner, "__name__", type(inner).__name__))


def _pickled(called: Any, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[bytes, str]:
    import pickle

    try:
        import cloudpickle
    except ImportError:
        raise UnsupportedError(
            "functions are sent to executors by cloudpickle, which is not installed", hint="pip install windrow[udf]"
        ) from None
    try:
        with _by_value(called, cloudpickle):
            made: bytes = cloudpickle.dumps((called, arguments, named))
    except Exception as error:
        raise InvalidQueryError(
            f"the function {name!r} cannot be sent to executors: {type(error).__name__}: {error}",
            hint="make what cannot be pickled inside of the function, or in the __init__ of a class",
        ) from error
    # Modules that are no packages: executors of this machine, or of a shared file system, find them.
    places = [os.path.abspath(place) for place in sys.path]
    return pickle.dumps({"path": places, "function": made}, protocol=5), str(cloudpickle.__version__)


@contextlib.contextmanager
def _by_value(called: Any, cloudpickle: Any) -> Iterator[None]:
    """Code of a module that is installed nowhere travels with the function."""
    inner = called.func if isinstance(called, functools.partial) else called
    where = getattr(inner, "__module__", None) or type(inner).__module__
    module = sys.modules.get(where)
    if module is None or where == "__main__" or _is_installed(module):
        yield
        return
    known = cloudpickle.list_registry_pickle_by_value()
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        if where not in known:
            cloudpickle.unregister_pickle_by_value(module)


def _is_installed(module: Any) -> bool:
    import sysconfig

    file = getattr(module, "__file__", None)
    if file is None:
        return True
    paths = sysconfig.get_paths()
    return any(os.path.abspath(file).startswith(paths[of] + os.sep) for of in ("stdlib", "platstdlib", "purelib", "platlib"))


class Udf:
    """A function of yours for expressions, and for SQL after :meth:`windrow.Client.register_udf`. Calling it with columns makes an
    expression; :attr:`function` is what was decorated."""

    def __init__(self, called: Callable[..., Any], function: _windrow.PythonFunction, name: str) -> None:
        functools.update_wrapper(self, called, updated=())
        self.function = called
        self.name = name
        self._function = function

    def __call__(self, *columns: IntoExpr) -> Expr:
        given = expressions(columns)
        made = _windrow.call_python(self._function, [one._expr for one in given])
        return given[0]._made(made, given[0].name, *given[1:]) if given else Expr(made, self.name)

    def __repr__(self) -> str:
        return f"<windrow function {self.name}>"


Decorator = Callable[[Callable[..., Any]], Udf]


def udf(
    *,
    returns: Any,
    name: str | None = None,
    format: str = "arrow",
    batch_size: int = BATCH_SIZE,
    concurrency: int | None = None,
    memory: str | int | None = None,
    init_args: Sequence[Any] = (),
    init_kwargs: Mapping[str, Any] | None = None,
    deterministic: bool = True,
) -> Decorator:
    """A function of columns: it gets an array for each and returns one of as many values. It runs in processes of the executors.

    >>> import windrow
    >>> from windrow import col
    >>> @windrow.udf(returns="float64", format="numpy")
    ... def fee(fare):
    ...     return fare * 0.1 + 1
    >>> rides = windrow.from_dict({"fare": [10.0, 20.0]})
    >>> rides.select(fee(col("fare")).alias("fee")).to_pydict()
    {'fee': [2.0, 3.0]}

    Args:
        returns: the type of what it returns: ``"float64"``, ``str``, one of pyarrow.
        format: what arrays are: of ``arrow``, ``pandas``, ``polars`` or ``numpy``.
        batch_size, concurrency, memory, init_args, init_kwargs, deterministic: as of :meth:`windrow.DataFrame.map_batches`.
    """
    options = Options(format, batch_size, concurrency, memory, init_args, init_kwargs, deterministic)
    return _decorator("values", returns, name, options)


def udaf(
    *,
    returns: Any,
    name: str | None = None,
    format: str = "arrow",
    batch_size: int = GROUPS,
    concurrency: int | None = None,
    memory: str | int | None = None,
    init_args: Sequence[Any] = (),
    init_kwargs: Mapping[str, Any] | None = None,
    deterministic: bool = True,
) -> Decorator:
    """A function of groups: it gets an array of all values of a group for each column and returns one value.

    >>> import windrow
    >>> from windrow import col
    >>> @windrow.udaf(returns="int64", format="numpy")
    ... def spread(values):
    ...     return values.max() - values.min()
    >>> rides = windrow.from_dict({"zone": ["a", "b", "a"], "fare": [1, 2, 5]})
    >>> rides.group_by("zone").agg(spread(col("fare")).alias("spread")).sort("zone").to_pydict()
    {'zone': ['a', 'b'], 'spread': [4, 0]}

    Args: as of :func:`windrow.udf`; ``batch_size`` counts groups.
    """
    options = Options(format, batch_size, concurrency, memory, init_args, init_kwargs, deterministic)
    return _decorator("groups", returns, name, options)


def _decorator(style: str, returns: Any, name: str | None, options: Options) -> Decorator:
    def decorate(called: Callable[..., Any]) -> Udf:
        known_as = name or name_of(called)
        return Udf(called, function(called, known_as, style, {known_as: returns}, options), known_as)

    return decorate
