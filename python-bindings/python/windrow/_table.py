"""Rows in memory, which other libraries read without a copy."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from windrow import _text, _windrow
from windrow._errors import InvalidQueryError, NotFoundError, UnsupportedError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


def missing(package: str, extra: str) -> UnsupportedError:
    """The error for a package that is not installed."""
    return UnsupportedError(f"this needs the package {package}, which is not installed", hint=f"pip install 'windrow[{extra}]'")


class ArrowResult:
    """What can be read as Arrow, by any library that knows it, and turned into the frames of those that people use."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        raise NotImplementedError

    def to_arrow(self) -> pyarrow.Table:
        """The rows as a table of pyarrow."""
        try:
            import pyarrow
        except ImportError:
            raise missing("pyarrow", "pandas") from None
        return pyarrow.table(self._rows())

    def to_pandas(self, **options: Any) -> pandas.DataFrame:
        """The rows as a frame of pandas; ``options`` are those of pyarrow's ``Table.to_pandas``. Columns of numbers without nulls are not
        copied, if they came in one batch: each is a block of its own, unless ``split_blocks=False`` puts them together."""
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise missing("pandas", "pandas") from None
        return self.to_arrow().to_pandas(**{"split_blocks": True, **options})

    def to_polars(self) -> polars.DataFrame:
        """The rows as a frame of polars."""
        try:
            import polars
        except ImportError:
            raise missing("polars", "polars") from None
        return polars.DataFrame(self._rows())

    def to_pylist(self) -> list[dict[str, Any]]:
        """Each row as a dictionary."""
        return self._rows()._table.to_pylist()

    def to_pydict(self) -> dict[str, list[Any]]:
        """Each column as a list of its values."""
        table = self._rows()
        return {name: table._table.column_values(at) for at, name in enumerate(table.columns)}

    def _rows(self) -> Table:
        raise NotImplementedError


class Table(ArrowResult):
    """Rows in memory: the result of a query, or those of any object that Arrow's libraries can read, without a copy.

    >>> import windrow
    >>> table = windrow.sql("SELECT 1 AS one, 'a' AS letter").result()
    >>> table.to_pylist()
    [{'one': 1, 'letter': 'a'}]
    """

    __slots__ = ("_table",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: Any) -> None:
        self._table = data if isinstance(data, _windrow.Table) else _windrow.Table(_as_arrow(data))

    @classmethod
    def from_dict(cls, columns: Mapping[str, Sequence[Any]]) -> Table:
        """The table of a dictionary of columns, each a list of values of one type."""
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidQueryError(f"columns of several lengths: {lengths}")
        return cls(_windrow.table_of_columns(list(columns), [list(values) for values in columns.values()]))

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return self._table.columns

    @property
    def dtypes(self) -> dict[str, str]:
        """The types of the columns, as Arrow calls them."""
        return dict(zip(self._table.columns, self._table.types, strict=True))

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self._table.num_rows

    @property
    def num_columns(self) -> int:
        """How many columns there are."""
        return len(self._table.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.num_rows, self.num_columns

    @property
    def nbytes(self) -> int:
        """The bytes that the rows take."""
        return self._table.nbytes

    def __len__(self) -> int:
        return self.num_rows

    def slice(self, offset: int = 0, length: int | None = None) -> Table:
        """Rows from ``offset`` on, ``length`` of them or fewer, without a copy."""
        if offset < 0 or (length is not None and length < 0):
            raise InvalidQueryError(f"slice({offset}, {length}): neither may be negative", hint="write table[-10:]")
        return Table(self._table.slice(offset, self.num_rows if length is None else length))

    def head(self, n: int = 5) -> Table:
        """The first rows."""
        return self[:n]

    def tail(self, n: int = 5) -> Table:
        """The last rows."""
        return self[max(0, self.num_rows - n) :]

    def select(self, *names: str) -> Table:
        """Some of the columns, in this order."""
        return Table(self._table.select([self._index(name) for name in names]))

    def batches(self) -> Iterator[Table]:
        """The batches that the rows came in, each as a table."""
        return map(Table, self._table.batches())

    @overload
    def __getitem__(self, key: builtins.slice) -> Table: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: builtins.slice | int | str) -> Table | dict[str, Any] | list[Any]:
        """``table[2:5]`` are rows, ``table[0]`` is one row, ``table["name"]`` are the values of a column."""
        if isinstance(key, builtins.slice):
            start, stop, step = key.indices(self.num_rows)
            if step != 1:
                raise InvalidQueryError(f"table[::{step}]: rows are taken one after the other", hint="leave out the step")
            return self.slice(start, max(0, stop - start))
        if isinstance(key, str):
            return self._table.column_values(self._index(key))
        row = key + self.num_rows if key < 0 else key
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {key} of {self.num_rows}")
        return self._table.slice(row, 1).to_pylist()[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._table.batches():
            yield from batch.to_pylist()

    def _index(self, name: str) -> int:
        columns = self.columns
        if name in columns:
            return columns.index(name)
        from difflib import get_close_matches

        near = get_close_matches(name, columns, 1)
        raise NotFoundError(f"there is no column {name!r}", suggestion=near[0] if near else None)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same columns and rows, however they are divided into batches."""
        return self._table.equals(other._table) if isinstance(other, Table) else NotImplemented

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._table.__arrow_c_schema__()

    def _rows(self) -> Table:
        return self

    def __repr__(self) -> str:
        cells = self._table.cells(_text.ROWS_SHOWN)
        shape = f"{_text.plural(self.num_rows, 'row')}, {_text.plural(self.num_columns, 'column')}"
        grid = _text.grid(self.columns, self._table.types, cells, self.num_rows - len(cells))
        return f"{grid}\n{shape}" if self.columns else f"windrow.Table: {shape}"

    def _repr_html_(self) -> str:
        caption = f"{_text.plural(self.num_rows, 'row')}, {_text.plural(self.num_columns, 'column')}"
        return _text.html_grid(self.columns, self._table.types, self._table.cells(_text.ROWS_SHOWN), caption)


def _as_arrow(data: Any) -> Any:
    if is_arrow(data):
        return data
    raise InvalidQueryError(
        f"an object of the type {type(data).__name__} is no table",
        hint="give a frame of pandas or polars, a table of pyarrow, or anything else with __arrow_c_stream__",
    )


def is_arrow(data: Any) -> bool:
    """Whether Arrow's libraries can read it."""
    kind = type(data)
    return hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__")
