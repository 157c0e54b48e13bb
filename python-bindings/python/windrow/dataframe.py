"""Dask's words for frames: replace ``dask`` by ``windrow`` in the imports.

>>> import windrow.dataframe as dd
>>> df = dd.from_dict({"category": ["a", "b", "a"], "column": [5, 20, 30]})
>>> filtered = df[df["column"] > 10]
>>> filtered.groupby("category").mean().sort_values("category").lazy().to_pydict()
{'category': ['a', 'b'], 'column': [30.0, 20.0]}
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from windrow import _client, _frame, _table, _text, _udf, _windrow
from windrow._errors import InvalidQueryError, UnsupportedError
from windrow._expr import Expr, IntoExpr, col, lit

if TYPE_CHECKING:
    import pandas

__all__ = [
    "DataFrame",
    "GroupBy",
    "Series",
    "concat",
    "from_dict",
    "from_pandas",
    "merge",
    "read_csv",
    "read_json",
    "read_parquet",
]

# Rows that a function gets of a partition at a time.
PARTITION_ROWS = 65_536

_NUMBERS = ("Int", "UInt", "Float", "Decimal", "Boolean")


class Series(Expr):
    """A column that knows its frame: an expression like others, and ``df["x"].mean().compute()`` is a number."""

    __slots__ = ("_of",)

    def __init__(self, expr: _windrow.Expr, name: str, of: DataFrame) -> None:
        super().__init__(expr, name)
        self._of = of

    def _made(self, expr: _windrow.Expr, name: str, *others: Expr) -> Series:
        for other in others:
            if isinstance(other, Series) and other._of is not self._of:
                raise InvalidQueryError(
                    f"the columns {self.name!r} and {other.name!r} are of two frames",
                    hint="join the frames first: left.merge(right, on=...)",
                )
        return Series(expr, name, self._of)

    def compute(self) -> Any:
        """The values as a column of pandas, or the one value of an aggregate."""
        return self._started()()

    def _started(self) -> Callable[[], Any]:
        query = self._of.lazy().select(self).submit()
        if not self._is_aggregate():
            return lambda: query.to_pandas()[self.name]

        def one() -> Any:
            values = query.result()[self.name]
            return values[0] if len(values) == 1 else query.to_pandas()[self.name]

        return one

    def _is_aggregate(self) -> bool:
        return _windrow.has_aggregate(self._expr)

    def sum(self) -> Expr:
        """The sum of the values that are not null; of none, 0."""
        return super().sum().fill_null(0)

    def value_counts(self) -> DataFrame:
        """How often each value is there, the most frequent first."""
        return self._of.value_counts(self.name)

    def apply(self, func: Callable[..., Any], args: tuple[Any, ...] = (), meta: Any = None, **kwargs: Any) -> Series:
        """A column of what a function returns for each value. ``meta`` is its name and type: ``("x", "float64")``."""

        def values(column: Any) -> Any:
            return column.apply(func, args=args, **kwargs)

        return self._of._computed(values, func, meta, [self])

    def unique(self) -> Series:
        """The different values, as a frame's column."""
        frame = self._of._then(self._of._frame.select([self._expr.alias(self.name)])).drop_duplicates()
        return frame._column(self.name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        values = self.compute()
        import numpy

        return numpy.asarray(values, dtype=dtype)


class DataFrame(_frame.DataFrame):
    """A lazy frame with Dask's words. :meth:`compute` gives pandas; :meth:`lazy` gives the plain frame."""

    def compute(self) -> pandas.DataFrame:
        """The rows as a frame of pandas."""
        return self.to_pandas()

    def _started(self) -> Callable[[], Any]:
        return self.submit().to_pandas

    def _column(self, name: str) -> Series:
        self._check([name])
        return Series(_windrow.Expr.column(name), name, self)

    def filter(self, *conditions: IntoExpr) -> DataFrame:
        """The rows for which all conditions are true."""
        for condition in conditions:
            if isinstance(condition, Series) and condition._of is not self:
                raise InvalidQueryError(
                    f"the condition over {condition.name!r} is of another frame",
                    hint="write it over this one, or join the frames first",
                )
        return super().filter(*conditions)

    # What runs at once, as in Dask

    def head(self, n: int = 5, npartitions: int = 1, compute: bool = True) -> Any:
        """The first rows, as pandas."""
        frame = super().head(n)
        return frame.to_pandas() if compute else frame

    def tail(self, n: int = 5, compute: bool = True) -> Any:
        """The last rows of a frame that is sorted, as pandas."""
        frame = super().tail(n)
        return frame.to_pandas() if compute else frame

    # Groups

    def groupby(self, by: IntoExpr | Sequence[IntoExpr], **options: Any) -> GroupBy:
        """Groups of rows. Keys come back as columns: there is no index."""
        if options.pop("as_index", False) or options.pop("level", None) is not None:
            raise UnsupportedError("there is no index", hint="keys come back as columns")
        return GroupBy(self, by, None)

    def value_counts(self, *subset: IntoExpr) -> DataFrame:
        """How often each row is there, or each value of some columns, as the column ``count``, the most frequent first. Nulls do not count."""
        keys = _frame._names([one if isinstance(one, (str, list, tuple)) else one.name for one in subset]) or self.columns
        return _frame.DataFrame.value_counts(self.drop_nulls(keys), *keys)

    def nunique(self) -> DataFrame:
        """How many different values each column has."""
        return self.agg(*(col(name).n_unique() for name in self.columns))

    def mean(self, numeric_only: bool = False) -> DataFrame:
        """The mean of each column."""
        return self._reduce("avg", numeric_only)

    def sum(self, numeric_only: bool = False) -> DataFrame:
        """The sum of each column."""
        return self.agg(*(_sum(col(name)) for name in self._numbers(self.columns, "sum", numeric_only)))

    def min(self) -> DataFrame:
        """The smallest value of each column."""
        return self.agg(*(col(name).min() for name in self.columns))

    def max(self) -> DataFrame:
        """The largest value of each column."""
        return self.agg(*(col(name).max() for name in self.columns))

    def std(self, ddof: int = 1, numeric_only: bool = False) -> DataFrame:
        """The standard deviation of each column."""
        return self.agg(*(col(name).std(ddof) for name in self._numbers(self.columns, "std", numeric_only)))

    def var(self, ddof: int = 1, numeric_only: bool = False) -> DataFrame:
        """The variance of each column."""
        return self.agg(*(col(name).var(ddof) for name in self._numbers(self.columns, "var", numeric_only)))

    def median(self, numeric_only: bool = False) -> DataFrame:
        """The median of each column."""
        return self._reduce("median", numeric_only)

    def quantile(self, q: float = 0.5, numeric_only: bool = False) -> DataFrame:
        """Below it are ``q`` of each column, from 0 to 1."""
        return self.agg(*(col(name).quantile(q) for name in self._numbers(self.columns, "quantile", numeric_only)))

    def _reduce(self, function: str, numeric_only: bool) -> DataFrame:
        return self.agg(*(col(name)._call(function) for name in self._numbers(self.columns, function, numeric_only)))

    def _numbers(self, names: Sequence[str], function: str, numeric_only: bool) -> list[str]:
        types = self.dtypes
        other = [name for name in names if not types[name].startswith(_NUMBERS)]
        if other and not numeric_only:
            raise InvalidQueryError(
                f"the column {other[0]!r} is {types[other[0]]}, of which there is no {function}",
                hint="write numeric_only=True, or choose columns first",
            )
        return [name for name in names if name not in other]

    # Columns and rows

    def assign(self, **columns: Any) -> DataFrame:
        """With these columns; a function is called with the frame."""
        frame = self
        for name, value in columns.items():
            made = value(frame) if callable(value) else value
            frame = frame.with_columns(lit(made).alias(name))
        return frame

    def __setitem__(self, name: str, value: Any) -> None:
        changed = self.with_columns(lit(value).alias(name))
        self._frame = changed._frame

    def astype(self, dtype: Any) -> DataFrame:
        """With other types: one for all columns, or one for each of some."""
        return self.cast(dtype if isinstance(dtype, Mapping) else dict.fromkeys(self.columns, dtype))

    def rename(self, names: Mapping[str, str] | None = None, /, columns: Any = None, **more: str) -> DataFrame:
        """With other names: ``df.rename(columns={"old": "new"})``."""
        chosen = columns if columns is not None else names
        if callable(chosen):
            chosen = {name: chosen(name) for name in self.columns}
        return super().rename(chosen, **more)

    def drop(self, labels: Any = None, *more: Any, columns: Any = None, axis: Any = 1) -> DataFrame:
        """Without these columns."""
        if axis not in (1, "columns") and columns is None:
            raise UnsupportedError("rows have no names that they could be dropped by", hint="write df[~condition]")
        return super().drop(*(one for one in (labels, columns, *more) if one is not None))

    def dropna(self, subset: str | Sequence[str] | None = None, how: str = "any") -> DataFrame:
        """Without the rows that are null in one of these columns."""
        if how == "all":
            names = self.columns if subset is None else _frame._names([subset])
            condition: Expr = lit(False)
            for name in names:
                condition = condition | col(name).is_not_null()
            return self.filter(condition)
        return self.drop_nulls(subset)

    def fillna(self, value: Any) -> DataFrame:
        """With a value where columns are null; a dictionary has one for each of some."""
        if isinstance(value, Mapping):
            return self.with_columns(*(col(name).fill_null(one) for name, one in value.items()))
        return self.fill_null(value)

    def isin(self, values: Any) -> DataFrame:
        """Whether each value is one of ``values``, or in a dictionary of those for its column. A value of another kind is in no column."""

        def among(name: str, of: str) -> Expr:
            given = values.get(name, ()) if isinstance(values, Mapping) else values
            fitting = [value for value in given if _fits(value, of)]
            return (col(name).is_in(fitting).fill_null(False) if fitting else lit(False)).alias(name)

        return self.select(*(among(name, of) for name, of in self.dtypes.items()))

    def isna(self) -> DataFrame:
        """Whether each value is null."""
        return self.select(*(col(name).is_null().alias(name) for name in self.columns))

    isnull = isna

    def notna(self) -> DataFrame:
        """Whether each value is none."""
        return self.select(*(col(name).is_not_null().alias(name) for name in self.columns))

    notnull = notna

    def query(self, condition: str) -> DataFrame:
        """The rows for which an expression is true: that of SQL, in which ``==``, ``&`` and ``|`` may be written too."""
        text = condition.replace("==", "=").replace("&", " AND ").replace("|", " OR ")
        frame = _windrow.frame_of_query(self._session, f"SELECT * FROM df WHERE {text}", [("df", self._frame)])
        return self._then(frame)

    def drop_duplicates(self, subset: str | Sequence[str] | None = None, keep: str | bool = "first") -> DataFrame:
        """One row of those that are equal. Rows have no order, so that the first is any."""
        return self.unique(subset, keep="none" if keep is False else "any")

    def nlargest(self, n: int, columns: str | Sequence[str]) -> DataFrame:
        """The rows with the largest values."""
        return self._first(n, columns, descending=True)

    def nsmallest(self, n: int, columns: str | Sequence[str]) -> DataFrame:
        """The rows with the smallest values."""
        return self._first(n, columns, descending=False)

    def _first(self, n: int, columns: str | Sequence[str], descending: bool) -> DataFrame:
        ordered = self.sort(*_frame._names([columns]), descending=descending)
        return self._then(ordered._frame.limit(0, n))

    def sort_values(
        self, by: str | Sequence[str], ascending: bool | Sequence[bool] = True, na_position: str = "last", **_options: Any
    ) -> DataFrame:
        """In order."""
        down = not ascending if isinstance(ascending, bool) else [not one for one in ascending]
        return self.sort(*_frame._names([by]), descending=down, nulls_last=na_position == "last")

    def set_index(self, other: str, **_options: Any) -> DataFrame:
        """In the order of a column, which stays one: there is no index."""
        return self.sort(other)

    def reset_index(self, drop: bool = False) -> DataFrame:
        """The same: there is no index."""
        return self

    @property
    def iloc(self) -> Any:
        """Not supported: rows have no numbers."""
        raise UnsupportedError(
            "rows have no numbers before they are computed", hint="write df.head(n), or df.compute().iloc[...]"
        )

    @property
    def loc(self) -> Any:
        """Not supported: rows have no names."""
        raise UnsupportedError("there is no index", hint="write df[condition], or df[[columns]]")

    @property
    def index(self) -> Any:
        """Not supported: there is no index."""
        raise UnsupportedError("there is no index", hint="keep what identifies rows in a column")

    # Two frames

    def merge(
        self,
        right: _frame.DataFrame,
        how: str = "inner",
        on: str | Sequence[str] | None = None,
        left_on: str | Sequence[str] | None = None,
        right_on: str | Sequence[str] | None = None,
        suffixes: tuple[str, str] = ("_x", "_y"),
    ) -> DataFrame:
        """The rows of both that match, with both names of a key whose names differ."""
        how = {"outer": "full", "leftsemi": "semi", "leftanti": "anti"}.get(how, how)
        if on is None and left_on is None and how != "cross":
            on = [name for name in self.columns if name in right.columns]
        same = _frame._names([on or ()])
        here, there = (same, same) if on is not None else (_frame._names([left_on or ()]), _frame._names([right_on or ()]))
        shared = [name for name in self.columns if name in right.columns and name not in same]
        first = super().rename({name: name + suffixes[0] for name in shared})
        other = right.rename({name: name + suffixes[1] for name in shared})
        renamed = {name: name + suffixes[0] for name in shared}, {name: name + suffixes[1] for name in shared}
        left_keys, right_keys = (
            [names.get(key, key) for key in keys] for names, keys in zip(renamed, (here, there), strict=True)
        )
        joined = _frame.DataFrame.join(
            first, other, how=how, left_on=left_keys, right_on=right_keys, coalesce=on is not None and how != "cross"
        )
        order = [*first.columns, *(name for name in other.columns if name not in first.columns)]
        return joined.select(*(name for name in order if name in joined.columns))

    # Functions of yours

    def map_partitions(self, func: Callable[..., Any], *args: Any, meta: Any = None, **kwargs: Any) -> DataFrame:
        """The rows that a function makes of frames of pandas, batch by batch: ``func(batch, *args, **kwargs)``, in processes of the
        executors. ``meta`` has the columns of what it returns; without it, the function is tried here with a frame without rows."""

        def called(batch: Any) -> Any:
            return func(batch, *args, **kwargs)

        called.__name__ = _udf.name_of(func)
        called.__module__ = getattr(func, "__module__", None) or "__main__"
        schema = _columns_of(self._tried(called) if meta is None else meta)
        return self.map_batches(called, schema, format="pandas", batch_size=PARTITION_ROWS)

    def _tried(self, func: Callable[[Any], Any]) -> Any:
        empty = _table.Table(self._frame.schema).to_pandas()
        try:
            return func(empty)
        except Exception as error:
            raise InvalidQueryError(
                f"a frame without rows does not show what the function gives: {type(error).__name__}: {error}",
                hint="give meta={'column': 'float64'}",
            ) from error

    def apply(
        self, func: Callable[..., Any], axis: Any = 1, args: tuple[Any, ...] = (), meta: Any = None, **kwargs: Any
    ) -> Series:
        """A column of what a function returns for each row, a series of pandas. ``meta`` is its name and type: ``("x", "float64")``."""
        if axis not in (1, "columns"):
            raise UnsupportedError("apply takes rows, axis=1", hint="write df[column].mean() for what is of a whole column")
        names = self.columns

        def rows(*columns: Any) -> Any:
            import pandas

            frame = pandas.DataFrame(dict(zip(names, columns, strict=True)))
            return frame.apply(func, axis=1, args=args, **kwargs)

        return self._computed(rows, func, meta, [col(name) for name in names])

    def _computed(self, called: Callable[..., Any], func: Callable[..., Any], meta: Any, columns: Sequence[Expr]) -> Series:
        if meta is None:
            raise InvalidQueryError(
                "the type of what the function returns is not known", hint="give its name and type: meta=('x', 'float64')"
            )
        [(name, of)] = _columns_of(meta if isinstance(meta, (tuple, Mapping)) or hasattr(meta, "dtype") else ("x", meta)).items()
        called.__name__ = _udf.name_of(func)
        called.__module__ = getattr(func, "__module__", None) or "__main__"
        made = _udf.udf(returns=of, format="pandas")(called)(*columns)
        return Series(made._expr, str(name), self)

    # Partitions and files

    @property
    def npartitions(self) -> int:
        """One, to whoever asks: the engine divides the work by itself, into as many parts as there are slots."""
        return 1

    def repartition(self, *_arguments: Any, **_options: Any) -> DataFrame:
        """The same: the engine divides the work by itself."""
        return self

    @property
    def divisions(self) -> Any:
        """Not supported: rows are not divided before they are computed."""
        raise UnsupportedError("rows are not divided before they are computed", hint="sort by what should be together")

    def to_parquet(
        self, path: str, partition_on: str | Sequence[str] = (), append: bool = False, overwrite: bool = False, **options: Any
    ) -> int:
        """Writes the rows into Parquet files of a folder; returns how many."""
        folder = path if path.endswith((".parquet", "/")) else path + "/"
        mode = "append" if append else "overwrite" if overwrite else "error"
        return self.write_parquet(folder, partition_by=partition_on, mode=mode, **options)

    def to_csv(self, path: str, single_file: bool = False, **options: Any) -> int:
        """Writes the rows into CSV files of a folder, or into one file; returns how many."""
        folder = path if single_file or path.endswith("/") else path.replace("*", "") + "/"
        return self.write_csv(folder, **options)

    def to_json(self, path: str, single_file: bool = False, **options: Any) -> int:
        """Writes the rows into JSON files of a folder, or into one file, a row a line; returns how many."""
        folder = path if single_file or path.endswith("/") else path.replace("*", "") + "/"
        return self.write_json(folder, **options)

    def __repr__(self) -> str:
        widths = [max(len(_text.visible(name)), len(of)) for name, of in self.dtypes.items()]
        names = "  ".join(_text.visible(name).rjust(width) for name, width in zip(self.columns, widths, strict=True))
        types = "  ".join(of.rjust(width) for of, width in zip(self.dtypes.values(), widths, strict=True))
        return f"windrow.dataframe DataFrame Structure:\n  {names}\n  {types}\nNothing is computed yet: .compute() gives pandas"


class GroupBy:
    """Groups with Dask's words. The short forms aggregate all other columns."""

    def __init__(self, frame: DataFrame, by: Any, chosen: list[str] | None) -> None:
        self._frame = frame
        self._by = by if isinstance(by, (list, tuple)) else [by]
        self._chosen = chosen

    def __getitem__(self, columns: str | Sequence[str]) -> GroupBy:
        """Only these columns are aggregated."""
        self._frame._check(_frame._names([columns]))
        return GroupBy(self._frame, self._by, _frame._names([columns]))

    def _columns(self) -> list[str]:
        if self._chosen is not None:
            return self._chosen
        keys = {key if isinstance(key, str) else lit(key).name for key in self._by}
        return [name for name in self._frame.columns if name not in keys]

    def _each(self, function: Callable[[Expr], Expr], names: Iterable[str]) -> DataFrame:
        return self._frame.group_by(*self._by).agg(*(function(col(name)) for name in names))

    def _numbers(self, function: str, numeric_only: bool) -> list[str]:
        return self._frame._numbers(self._columns(), function, numeric_only)

    def mean(self, numeric_only: bool = False) -> DataFrame:
        """The means."""
        return self._each(Expr.mean, self._numbers("mean", numeric_only))

    def sum(self, numeric_only: bool = False) -> DataFrame:
        """The sums."""
        return self._each(_sum, self._numbers("sum", numeric_only))

    def std(self, ddof: int = 1, numeric_only: bool = False) -> DataFrame:
        """The standard deviations."""
        return self._each(lambda column: column.std(ddof), self._numbers("std", numeric_only))

    def var(self, ddof: int = 1, numeric_only: bool = False) -> DataFrame:
        """The variances."""
        return self._each(lambda column: column.var(ddof), self._numbers("var", numeric_only))

    def median(self, numeric_only: bool = False) -> DataFrame:
        """The medians."""
        return self._each(Expr.median, self._numbers("median", numeric_only))

    def min(self) -> DataFrame:
        """The smallest values."""
        return self._each(Expr.min, self._columns())

    def max(self) -> DataFrame:
        """The largest values."""
        return self._each(Expr.max, self._columns())

    def count(self) -> DataFrame:
        """How many values are not null."""
        return self._each(Expr.count, self._columns())

    def nunique(self) -> DataFrame:
        """How many different values there are."""
        return self._each(Expr.n_unique, self._columns())

    def first(self) -> DataFrame:
        """A value: rows have no order, so that the first is any."""
        return self._each(Expr.first, self._columns())

    def size(self) -> DataFrame:
        """How many rows there are, as the column ``size``."""
        return self._frame.group_by(*self._by).agg(lit(1).count().alias("size"))

    def agg(self, functions: Any = None, **named: tuple[str, str]) -> DataFrame:
        """Several aggregates: ``{"x": "mean"}``, ``{"x": ["min", "max"]}``, ``"mean"``, or ``name=("x", "mean")``."""
        wanted: list[Expr] = []
        if isinstance(functions, Mapping):
            for name, given in functions.items():
                several = [given] if isinstance(given, str) else list(given)
                alone = len(several) == 1
                wanted += [_aggregate(name, one).alias(name if alone else f"{name}_{one}") for one in several]
        elif functions is not None:
            several = [functions] if isinstance(functions, str) else list(functions)
            alone = len(several) == 1
            wanted += [
                _aggregate(name, one).alias(name if alone else f"{name}_{one}") for name in self._columns() for one in several
            ]
        wanted += [_aggregate(column, function).alias(name) for name, (column, function) in named.items()]
        return self._frame.group_by(*self._by).agg(*wanted)

    aggregate = agg


def _sum(column: Expr) -> Expr:
    """The sum as pandas has it: that of no value is 0."""
    return column.sum().fill_null(0)


_AGGREGATES: dict[str, Callable[[Expr], Expr]] = {
    "sum": _sum,
    "mean": Expr.mean,
    "min": Expr.min,
    "max": Expr.max,
    "count": Expr.count,
    "nunique": Expr.n_unique,
    "std": Expr.std,
    "var": Expr.var,
    "median": Expr.median,
    "first": Expr.first,
    "last": Expr.last,
    "size": lambda column: lit(1).count(),
    "list": Expr.implode,
}


def _fits(value: Any, of: str) -> bool:
    """Whether a column of this type may hold it."""
    if isinstance(value, bool):
        return of == "Boolean"
    if isinstance(value, str):
        return of.startswith(("Utf8", "LargeUtf8", "Dictionary"))
    if isinstance(value, (int, float, decimal.Decimal)):
        return of.startswith(("Int", "UInt", "Float", "Decimal"))
    return value is not None and of.startswith(
        ("Date", "Time", "Duration", "Interval", "Binary", "LargeBinary", "FixedSizeBinary")
    )


def _aggregate(name: str, function: str) -> Expr:
    if function not in _AGGREGATES:
        raise InvalidQueryError(f"there is no aggregate {function!r}", hint=f"there are {', '.join(_AGGREGATES)}")
    return _AGGREGATES[function](col(name))


def _of(frame: _frame.DataFrame) -> DataFrame:
    return DataFrame(frame._frame, frame._session)


def read_csv(paths: _client.Paths, *, sep: str = ",", blocksize: Any = None, dtype: Mapping[str, Any] | None = None) -> DataFrame:
    """The lazy frame of CSV files. The engine divides them by itself, whatever ``blocksize`` says."""
    frame = _of(_client.default_client().read_csv(paths, delimiter=sep))
    return frame if dtype is None else frame.astype(dtype)


def read_parquet(paths: _client.Paths, columns: Sequence[str] | None = None) -> DataFrame:
    """The lazy frame of Parquet files."""
    frame = _of(_client.default_client().read_parquet(paths))
    return frame if columns is None else frame.select(*columns)


def read_json(paths: _client.Paths, *, lines: bool = True) -> DataFrame:
    """The lazy frame of files of JSON, a row a line."""
    if not lines:
        raise UnsupportedError("JSON that is not a row a line", hint="write lines=True")
    return _of(_client.default_client().read_json(paths))


def from_pandas(data: Any, npartitions: int | None = None, chunksize: int | None = None) -> DataFrame:
    """The lazy frame of a frame of pandas."""
    return _of(_client.default_client().from_pandas(data))


def from_dict(columns: Mapping[str, Sequence[Any]], npartitions: int | None = None) -> DataFrame:
    """The lazy frame of a dictionary of columns."""
    return _of(_client.default_client().from_dict(columns))


def concat(frames: Sequence[DataFrame], axis: int = 0) -> DataFrame:
    """The rows of all, columns by name."""
    if axis != 0 or not frames:
        raise UnsupportedError("frames are put under each other only", hint="merge them to have them side by side")
    return frames[0].union_by_name(*frames[1:])


def merge(left: DataFrame, right: DataFrame, **options: Any) -> DataFrame:
    """As :meth:`DataFrame.merge`."""
    return left.merge(right, **options)


def _columns_of(meta: Any) -> dict[str, Any]:
    """The names and types that Dask's ``meta`` means: a frame or a column of pandas, a dictionary, pairs, or one pair."""
    if isinstance(meta, Mapping):
        pairs = list(meta.items())
    elif hasattr(meta, "dtypes") and hasattr(meta, "columns"):
        pairs = list(zip(meta.columns, meta.dtypes, strict=True))
    elif hasattr(meta, "dtype"):
        pairs = [(meta.name, meta.dtype)]
    elif isinstance(meta, tuple) and len(meta) == 2 and not isinstance(meta[0], tuple):
        pairs = [meta]
    else:
        pairs = list(meta)
    return {str(name): _arrow_name(of) for name, of in pairs}


def _arrow_name(of: Any) -> Any:
    """Types of numpy and pandas, as ``f8`` or ``datetime64[ns]``."""
    if hasattr(of, "__arrow_c_schema__"):
        return of
    if isinstance(of, str):
        try:
            import numpy

            return str(numpy.dtype(of).name)
        except (ImportError, TypeError):
            return of
    return str(of) if hasattr(of, "kind") or hasattr(of, "na_value") else of
