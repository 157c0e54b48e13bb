"""Lazy frames: each step gives another one, and nothing runs before rows are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from windrow import _drawing, _text, _udf, _windrow
from windrow._errors import InvalidConfigError, InvalidQueryError
from windrow._expr import Expr, IntoExpr, col, expression, expressions, lit, outputs, sort_keys, struct
from windrow._query import Query
from windrow._table import ArrowResult, Table
from windrow._types import type_of

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="DataFrame")


class DataFrame(ArrowResult):
    """A table that is not there yet: where its rows come from, and what is done with them. Methods give other frames and leave this one as it
    is. Only what asks for rows runs: :meth:`collect`, :meth:`show`, :meth:`count`, the ``to_...`` and ``write_...`` methods, iterating.

    >>> import windrow
    >>> from windrow import col
    >>> trips = windrow.from_dict({"zone": ["a", "b", "a"], "fare": [1.0, 2.0, 3.0]})
    >>> trips.filter(col("fare") > 0.5).group_by("zone").agg(col("fare").sum()).sort("zone").to_pydict()
    {'zone': ['a', 'b'], 'fare': [4.0, 2.0]}
    """

    def __init__(self, frame: _windrow.Frame, session: _windrow.Session) -> None:
        self._frame = frame
        self._session = session

    def _then(self, frame: _windrow.Frame) -> Self:
        made = object.__new__(type(self))
        DataFrame.__init__(made, frame, self._session)
        return made

    # What it is

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return self._frame.columns

    @property
    def dtypes(self) -> dict[str, str]:
        """The types of its columns, as Arrow calls them."""
        return Table(self._frame.schema).dtypes

    schema = dtypes

    def collect_schema(self) -> dict[str, str]:
        """The same as :attr:`dtypes`."""
        return self.dtypes

    def print_schema(self) -> None:
        """Prints a line for each column."""
        for name, of in self.dtypes.items():
            print(f"{_text.visible(name)}: {of}")

    def __getitem__(self, key: str | Sequence[str] | Expr) -> Any:
        """``df["x"]`` is a column, ``df[["x", "y"]]`` are some columns, ``df[df["x"] > 0]`` are some rows."""
        if isinstance(key, str):
            return self._column(key)
        if isinstance(key, Expr):
            return self.filter(key)
        return self.select(*key)

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_") or name not in self._frame.columns:
            raise AttributeError(f"{type(self).__name__} has neither a method nor a column {name!r}")
        return self._column(name)

    def _column(self, name: str) -> Expr:
        self._check([name])
        return col(name)

    def _check(self, names: Sequence[str]) -> None:
        known = self._frame.columns
        for name in names:
            if name not in known:
                # The engine's own error, with the nearest name.
                self._frame.select([_windrow.Expr.column(name)])

    # Columns

    def select(self, *columns: IntoExpr, **named: IntoExpr) -> Self:
        """Rows of these columns. Where all are aggregates, there is one row; beside others, an aggregate is over all rows."""
        return self._then(self._frame.select(outputs(columns, named)))

    def with_columns(self, *columns: IntoExpr, **named: IntoExpr) -> Self:
        """These columns beside the others; one with the name of another takes its place."""
        return self._then(self._frame.with_columns(outputs(columns, named)))

    def drop(self, *columns: str | Sequence[str]) -> Self:
        """Without these columns."""
        return self._then(self._frame.drop_columns(_names(columns)))

    def rename(self, names: Mapping[str, str] | None = None, /, **more: str) -> Self:
        """With other names: ``df.rename({"old": "new"})``."""
        return self._then(self._frame.rename(list({**(names or {}), **more}.items())))

    def cast(self, types: Mapping[str, Any]) -> Self:
        """With other types: ``df.cast({"n": "int64"})``. A value that does not fit is an error; ``col("n").cast("int64", strict=False)``
        makes it null."""
        return self._then(self._frame.cast([(name, type_of(of)) for name, of in types.items()]))

    def fill_null(self, value: IntoExpr, subset: str | Sequence[str] | None = None) -> Self:
        """With ``value`` where these columns are null; without columns, in all that may hold it."""
        return self._then(self._frame.fill_null(expression(value)._expr, None if subset is None else _names([subset])))

    def drop_nulls(self, subset: str | Sequence[str] | None = None) -> Self:
        """Without the rows that are null in one of these columns, or in any."""
        return self._then(self._frame.drop_nulls(None if subset is None else _names([subset])))

    def with_row_index(self, name: str = "index", offset: int = 0) -> Self:
        """With a first column that numbers the rows, in the order of the last sort."""
        return self._then(self._frame.with_row_index(name, offset))

    # Rows

    def filter(self, *conditions: IntoExpr) -> Self:
        """The rows for which all conditions are true."""
        return self._then(self._frame.filter(_all(conditions)._expr))

    def head(self, n: int = 5) -> Self:
        """The first rows."""
        return self._then(self._frame.limit(0, n))

    def limit(self, n: int, offset: int = 0) -> Self:
        """``n`` rows after the first ``offset``."""
        return self._then(self._frame.limit(offset, n))

    def slice(self, offset: int, length: int | None = None) -> Self:
        """``length`` rows, or all, after the first ``offset``."""
        return self._then(self._frame.limit(offset, length))

    def tail(self, n: int = 5) -> Self:
        """The last rows of a frame that is sorted."""
        return self._then(self._frame.tail(n))

    def sort(
        self,
        *by: IntoExpr,
        descending: bool | Sequence[bool] = False,
        nulls_last: bool | Sequence[bool] = True,
    ) -> Self:
        """In order. Directions and places for nulls may be one for all keys or one for each, and ``col("x").desc()`` has its own."""
        return self._then(self._frame.sort(sort_keys(by, descending, nulls_last)))

    def top_k(self, k: int, *by: IntoExpr) -> Self:
        """The ``k`` rows with the largest values."""
        return self.sort(*by, descending=True).limit(k)

    def bottom_k(self, k: int, *by: IntoExpr) -> Self:
        """The ``k`` rows with the smallest values."""
        return self.sort(*by).limit(k)

    def unique(self, subset: IntoExpr | Sequence[IntoExpr] | None = None, *, keep: str = "any", order_by: IntoExpr = ()) -> Self:
        """One row of those that are equal in ``subset``, or in all columns: ``keep`` is ``any``, ``first`` or ``last`` in the order of
        ``order_by``, or ``none`` for those alone that have no equal."""
        on = None if subset is None else [one._expr for one in expressions([subset])]
        if keep in ("first", "last") and on is not None and order_by == ():
            raise InvalidQueryError(f"keep={keep!r} of rows without an order", hint="give order_by=, or write keep='any'")
        keys = sort_keys(order_by if isinstance(order_by, (list, tuple)) else [order_by])
        return self._then(self._frame.distinct(on, keep, keys))

    distinct = unique

    def sample(self, n: int | None = None, *, fraction: float | None = None, seed: int | None = None) -> Self:
        """Some rows by chance: ``n`` of them, or about a part. With a seed, the same of the same rows."""
        return self._then(self._frame.sample(fraction, n, seed))

    # Groups and shapes

    def group_by(self, *keys: IntoExpr, **named: IntoExpr) -> GroupBy[Self]:
        """Groups of rows that are equal in these columns, to be followed by :meth:`GroupBy.agg` or one of its short forms."""
        return GroupBy(self, expressions(keys, named))

    def agg(self, *values: IntoExpr, **named: IntoExpr) -> Self:
        """One row of aggregates over all rows."""
        return self._then(self._frame.aggregate([], outputs(values, named)))

    def pivot(
        self,
        on: IntoExpr,
        values: IntoExpr,
        index: IntoExpr | Sequence[IntoExpr],
        *,
        on_columns: Sequence[Any],
        aggregate: str = "first_value",
    ) -> Self:
        """A column for each of ``on_columns``: the aggregate of ``values`` over the rows in which ``on`` is that value."""
        [key], [value] = expressions([on]), expressions([values])
        made = value._then(_windrow.Expr.call(aggregate, [value._expr]))
        columns = [(one, str(one)) for one in on_columns]
        return self._then(self._frame.pivot(outputs([index]), key._expr, columns, outputs([made])))

    def unpivot(
        self,
        on: str | Sequence[str] = (),
        index: str | Sequence[str] = (),
        *,
        variable_name: str = "variable",
        value_name: str = "value",
    ) -> Self:
        """A row for each of the columns ``on``, or of all but ``index``: its name and its value."""
        return self._then(self._frame.unpivot(_names([index]), _names([on]), variable_name, value_name))

    melt = unpivot

    def explode(self, *columns: str | Sequence[str]) -> Self:
        """A row for each value of the lists in these columns: none for a list without values, one with null for a list that is null."""
        return self._then(self._frame.unnest(_names(columns)))

    def unnest(self, *columns: str | Sequence[str]) -> Self:
        """A column for each field of the structs in these columns."""
        return self._then(self._frame.unnest(_names(columns)))

    def describe(self) -> Self:
        """Counts, means, smallest and largest values of the columns."""
        return self._then(self._frame.describe())

    def value_counts(self, *columns: IntoExpr) -> Self:
        """How often each value of these columns is there, as the column ``count``, the most frequent first."""
        keys = expressions(columns)
        return self.group_by(*keys).count().sort(col("count").desc(), *(col(key.name) for key in keys))

    def quantile(self, q: float) -> Self:
        """One row: below its values are ``q`` of each column of numbers, from 0 to 1; between two values it lies between."""
        return self.agg(*(col(name).quantile(q) for name in self._numeric()))

    def corr(self) -> Self:
        """How the columns of numbers go together, from -1 to 1: a row for each, named by ``column``."""
        names = self._numeric()
        return self._table_of({name: {other: col(name).corr(col(other)) for other in names} for name in names})

    def summarize(self) -> Self:
        """A row for each column: its type, how many values and nulls it has, how many different ones, the smallest and the largest as
        text, and of numbers the mean, the deviation and the quartiles."""
        numbers, none = self._numeric(), lit(None)

        def of(name: str, kind: str) -> dict[str, Expr]:
            column, is_number = col(name), name in numbers
            has_order = not kind.startswith(("List", "LargeList", "FixedSizeList", "Struct", "Map"))
            floats = {
                "mean": column.mean(),
                "std": column.std(),
                "q25": column.quantile(0.25),
                "median": column.quantile(0.5),
                "q75": column.quantile(0.75),
            }
            return {
                "type": lit(kind),
                "count": column.count(),
                "null_count": lit(1).count() - column.count(),
                "n_unique": (column.n_unique() if has_order else none).cast("int64"),
                "min": (column.min() if has_order else none).cast("string"),
                "max": (column.max() if has_order else none).cast("string"),
                **{what: (value if is_number else none).cast("float64") for what, value in floats.items()},
            }

        return self._table_of({name: of(name, kind) for name, kind in self.dtypes.items()})

    def _numeric(self) -> list[str]:
        kinds = ("Int", "UInt", "Float", "Decimal")
        names = [name for name, of in self.dtypes.items() if of.startswith(kinds)]
        if not names:
            raise InvalidQueryError("no column has numbers", hint="cast one: df.cast({'x': 'float64'})")
        return names

    def _table_of(self, rows: Mapping[str, Mapping[str, Expr]]) -> Self:
        """A row for each of several sets of aggregates over all rows, which are read once."""
        structs = [struct(lit(name).alias("column"), **values)._expr for name, values in rows.items()]
        together = Expr(_windrow.Expr.call("make_array", structs), "rows")
        return self.agg(together.alias("rows")).explode("rows").unnest("rows")

    # Two frames

    def join(
        self,
        other: DataFrame,
        on: str | Sequence[str] | Expr | None = None,
        how: str = "inner",
        *,
        left_on: str | Sequence[str] | None = None,
        right_on: str | Sequence[str] | None = None,
        suffix: str = "_right",
        coalesce: bool | None = None,
        nulls_equal: bool = False,
    ) -> Self:
        """The rows of both that match: ``how`` is ``inner``, ``left``, ``right``, ``full``, ``semi``, ``anti`` or ``cross``. ``on`` are columns
        that both have, or a condition in which ``windrow.left("x")`` and ``windrow.right("x")`` tell columns of one name apart."""
        condition = on._expr if isinstance(on, Expr) else None
        if on is not None and not isinstance(on, Expr):
            left_on = right_on = on
        here, there = _names([left_on or ()]), _names([right_on or ()])
        if len(here) != len(there):
            raise InvalidQueryError(f"{len(here)} columns on the left, {len(there)} on the right", hint="give as many of each")
        pairs = list(zip(here, there, strict=True))
        return self._then(self._frame.join(other._frame, how, pairs, condition, suffix, coalesce, nulls_equal))

    def union(self, *others: DataFrame) -> Self:
        """The rows of all, columns by position."""
        return self._union(others, by_name=False)

    def union_by_name(self, *others: DataFrame) -> Self:
        """The rows of all, columns by name; one that a frame lacks is null in its rows."""
        return self._union(others, by_name=True)

    def _union(self, others: Sequence[DataFrame], by_name: bool) -> Self:
        made = self._frame
        for other in others:
            made = made.union(other._frame, by_name)
        return self._then(made)

    def intersect(self, other: DataFrame) -> Self:
        """The rows that both have, once each."""
        return self._then(self._frame.intersect(other._frame))

    def except_(self, other: DataFrame) -> Self:
        """The rows that the other has not, once each."""
        return self._then(self._frame.except_(other._frame))

    def pipe(self, function: Callable[Concatenate[Self, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """``function(df, ...)``, for chains."""
        return function(self, *arguments, **named)

    def lazy(self) -> DataFrame:
        """The plain frame: this one is lazy already."""
        return DataFrame(self._frame, self._session)

    def map_batches(
        self,
        function: Callable[..., Any],
        schema: Any,
        *,
        format: str = "arrow",
        batch_size: int = _udf.BATCH_SIZE,
        concurrency: int | None = None,
        memory: str | int | None = None,
        init_args: Sequence[Any] = (),
        init_kwargs: Mapping[str, Any] | None = None,
        deterministic: bool = True,
    ) -> Self:
        """The rows that a function of yours makes of these, batch by batch, in processes of the executors.

        >>> import windrow
        >>> rides = windrow.from_dict({"fare": [10.0, 20.0, 30.0]})
        >>> def dear(batch):
        ...     return batch[batch["fare"] > 15]
        >>> rides.map_batches(dear, schema={"fare": "float64"}, format="pandas").to_pydict()
        {'fare': [20.0, 30.0]}

        Args:
            function: gets a batch and returns one, a table, or an iterator of them, with as many rows as it likes. Of a class, each process
                makes one object and calls that: what is loaded in its ``__init__`` is loaded once.
            schema: the columns of what it returns: a dictionary of names and types, a schema of pyarrow, or a frame that has them.
            format: what a batch is: a ``RecordBatch`` of ``arrow``, a frame of ``pandas`` or ``polars``, or a dictionary of arrays of ``numpy``.
            batch_size: rows that it gets at a time; the last batch of a partition has less.
            concurrency: processes on each executor; by default as many as it has slots.
            memory: what each process may take beyond what Python itself does, as ``"512MB"``: reserved on the executor, and enforced.
            init_args, init_kwargs: what a class is made with.
            deterministic: whether the same rows give the same result each time. If not, rows that are lost with an executor are computed
                again with all that were made of them.
        """
        options = _udf.Options(format, batch_size, concurrency, memory, init_args, init_kwargs, deterministic)
        made = _udf.function(function, _udf.name_of(function), "batches", schema, options)
        return self._then(self._frame.map_batches(made))

    # What runs

    def _started(self) -> Callable[[], Any]:
        """Starts what :func:`windrow.compute` gives, and returns what waits for it."""
        return self.submit().result

    def submit(self) -> Query:
        """Starts to compute the rows and returns a handle: its progress, its end, its result."""
        return Query(self._frame.query())

    def collect(self) -> Table:
        """Computes the rows and returns them. Ctrl-C cancels."""
        return self.submit().result()

    async def collect_async(self) -> Table:
        """As :meth:`collect`, without holding up the event loop."""
        import asyncio

        query = await asyncio.to_thread(self.submit)
        return await query.result_async()

    def _rows(self) -> Table:
        return self.collect()

    def show(self, n: int = _text.ROWS_SHOWN) -> None:
        """Prints the first rows. No more than these are computed."""
        print(self.limit(n).collect())

    def count(self) -> int:
        """How many rows there are. They are counted where they are."""
        return self._frame.count()

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return True

    def is_empty(self) -> bool:
        """Whether there is no row. At most one is computed."""
        return self._frame.is_empty()

    def __iter__(self) -> Iterator[Table]:
        """The rows batch by batch, as they come."""
        return iter(self.submit())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.submit().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._frame.schema.__arrow_c_schema__()

    def explain(self, *, analyze: bool = False, verbose: bool = False, stages: bool = False, format: str = "tree") -> str:
        """How the rows are computed; with ``analyze`` they are, and it says how that went. ``stages`` leaves out all but the stages, and the
        format ``"json"`` has them for programs."""
        rows = self._frame.explain(analyze, verbose)
        if format == "json":
            return _drawing.as_json(rows)
        if format != "tree":
            raise InvalidConfigError(f"format = {format!r} is none of ours", hint="write 'tree' or 'json'")
        return "\n".join(f"{kind}\n{text}" for kind, text in rows if not stages or kind.startswith("stages"))

    def visualize(self, filename: str | os.PathLike[str] | None = None, *, analyze: bool = False) -> _drawing.Drawing:
        """A picture of the stages in which the rows are computed, which notebooks show; with a name, it is written there as SVG. With
        ``analyze`` the rows are computed, and the picture says how that went."""
        drawing = _drawing.Drawing({"": self._frame.explain(analyze, False)})
        if filename is not None:
            drawing.save(filename)
        return drawing

    def persist(self) -> Self:
        """Computes the rows now and keeps them on the cluster, for as long as a frame reads them."""
        return self._then(self._frame.persist())

    def write_parquet(
        self,
        path: str,
        *,
        partition_by: str | Sequence[str] = (),
        mode: str = "error",
        compression: str | None = None,
        file_size: str | int | None = None,
    ) -> int:
        """Writes the rows into a file, or into files of a folder that ends with ``/``; returns how many. Executors write, all files appear
        together, and a write that fails leaves nothing. ``mode="overwrite"`` replaces what is there, ``mode="append"`` adds files to a folder
        with such columns."""
        return self._write("parquet", path, partition_by, mode, compression, file_size)

    def write_csv(
        self, path: str, *, partition_by: str | Sequence[str] = (), mode: str = "error", compression: str | None = None
    ) -> int:
        """As :meth:`write_parquet`, as text with commas."""
        return self._write("csv", path, partition_by, mode, compression, None)

    def write_json(
        self, path: str, *, partition_by: str | Sequence[str] = (), mode: str = "error", compression: str | None = None
    ) -> int:
        """As :meth:`write_parquet`, as JSON, a row a line."""
        return self._write("json", path, partition_by, mode, compression, None)

    def _write(
        self, format: str, path: str, partition_by: Any, mode: str, compression: str | None, file_size: str | int | None
    ) -> int:
        size = _windrow.parse_size(file_size) if isinstance(file_size, str) else file_size
        return self._frame.write(str(path), format, _names([partition_by]), mode, compression, size)

    def __repr__(self) -> str:
        columns = "   ".join(f"{_text.visible(name)}: {of}" for name, of in self.dtypes.items())
        count = _text.plural(len(self.columns), "column")
        return f"windrow.DataFrame [{count}, not computed]  .show() prints rows, .collect() runs it\n  {columns}"

    def _repr_html_(self) -> str:
        return _text.html_grid(self.columns, list(self.dtypes.values()), [], "not computed: .collect() runs it")


class GroupBy(Generic[F]):
    """Groups of a frame's rows."""

    def __init__(self, frame: F, keys: Sequence[Expr]) -> None:
        self._frame = frame
        self._keys = keys

    def agg(self, *values: IntoExpr, **named: IntoExpr) -> F:
        """A row for each group, with the keys and these aggregates."""
        keys = outputs(self._keys)
        return self._frame._then(self._frame._frame.aggregate(keys, outputs(values, named)))

    def _each(self, function: str) -> F:
        keys = {key.name for key in self._keys}
        others = [name for name in self._frame.columns if name not in keys]
        return self.agg(*(col(name)._call(function) for name in others))

    def count(self) -> F:
        """How many rows each group has, as the column ``count``."""
        return self.agg(lit(1).count().alias("count"))

    size = len = count

    def sum(self) -> F:
        """The sums of all other columns."""
        return self._each("sum")

    def mean(self) -> F:
        """The means of all other columns."""
        return self._each("avg")

    def min(self) -> F:
        """The smallest values of all other columns."""
        return self._each("min")

    def max(self) -> F:
        """The largest values of all other columns."""
        return self._each("max")

    def median(self) -> F:
        """The medians of all other columns."""
        return self._each("median")


def _names(given: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for one in given:
        names += [one] if isinstance(one, str) else [str(name) for name in one]
    return names


def _all(conditions: Sequence[IntoExpr]) -> Expr:
    found = expressions(conditions)
    if not found:
        return lit(True)
    whole = found[0]
    for one in found[1:]:
        whole = whole & one
    return whole
