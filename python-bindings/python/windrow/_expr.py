"""What columns are computed of: columns, values, operators and functions."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from windrow import _windrow
from windrow._errors import InvalidQueryError
from windrow._types import type_of

IntoExpr = Any
Key: TypeAlias = "tuple[_windrow.Expr, bool, bool]"


class Expr:
    """An expression over the columns of a frame: nothing is computed before the frame's rows are.

    Its column has the name of the first column in it, or that of :meth:`alias`.

    >>> from windrow import col
    >>> (col("fare") * 2 > 10).alias("dear").name
    'dear'
    """

    __slots__ = ("_expr", "name", "_sort")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expr: _windrow.Expr, name: str) -> None:
        self._expr = expr
        #: The name of its column.
        self.name = name
        self._sort: tuple[bool, bool] | None = None

    def _made(self, expr: _windrow.Expr, name: str, *others: Expr) -> Expr:
        """Another one, made of this one and others."""
        return Expr(expr, name)

    def _then(self, expr: _windrow.Expr) -> Expr:
        return self._made(expr, self.name)

    def _binary(self, operator: str, other: IntoExpr) -> Expr:
        right = expression(other)
        name = right.name if self.name == LITERAL else self.name
        return self._made(self._expr.binary(operator, right._expr), name, right)

    def _reverse(self, operator: str, other: IntoExpr) -> Expr:
        left = expression(other)
        return self._made(left._expr.binary(operator, self._expr), self.name, left)

    def _call(self, function: str, *arguments: IntoExpr, distinct: bool = False) -> Expr:
        others = [expression(argument) for argument in arguments]
        called = _windrow.Expr.call(function, [self._expr, *(other._expr for other in others)], distinct)
        return self._made(called, self.name, *others)

    # Names and types

    def alias(self, name: builtins.str) -> Expr:
        """The same under another name."""
        return self._made(self._expr, name)

    def cast(self, dtype: Any, *, strict: bool = True) -> Expr:
        """Another type: ``"int64"``, ``float``, ``"timestamp[us, UTC]"``, or one of pyarrow. A value that does not fit is an error, or null if
        ``strict`` is not set."""
        return self._then(self._expr.cast(type_of(dtype), strict))

    astype = cast

    # Operators

    def __add__(self, other: IntoExpr) -> Expr:
        return self._binary("+", other)

    def __radd__(self, other: IntoExpr) -> Expr:
        return self._reverse("+", other)

    def __sub__(self, other: IntoExpr) -> Expr:
        return self._binary("-", other)

    def __rsub__(self, other: IntoExpr) -> Expr:
        return self._reverse("-", other)

    def __mul__(self, other: IntoExpr) -> Expr:
        return self._binary("*", other)

    def __rmul__(self, other: IntoExpr) -> Expr:
        return self._reverse("*", other)

    def __truediv__(self, other: IntoExpr) -> Expr:
        """Division as Python has it: ``1 / 2`` is 0.5."""
        return _float(self)._binary("/", other)

    def __rtruediv__(self, other: IntoExpr) -> Expr:
        return self._reverse("/", _float(expression(other)))

    def __floordiv__(self, other: IntoExpr) -> Expr:
        return self.__truediv__(other)._call("floor")

    def __mod__(self, other: IntoExpr) -> Expr:
        return self._binary("%", other)

    def __rmod__(self, other: IntoExpr) -> Expr:
        return self._reverse("%", other)

    def __pow__(self, other: IntoExpr) -> Expr:
        return self._call("power", other)

    def __neg__(self) -> Expr:
        return self._then(self._expr.negated())

    def __eq__(self, other: IntoExpr) -> Expr:  # type: ignore[override]
        return self._binary("==", other)

    def __ne__(self, other: IntoExpr) -> Expr:  # type: ignore[override]
        return self._binary("!=", other)

    def __lt__(self, other: IntoExpr) -> Expr:
        return self._binary("<", other)

    def __le__(self, other: IntoExpr) -> Expr:
        return self._binary("<=", other)

    def __gt__(self, other: IntoExpr) -> Expr:
        return self._binary(">", other)

    def __ge__(self, other: IntoExpr) -> Expr:
        return self._binary(">=", other)

    def __and__(self, other: IntoExpr) -> Expr:
        return self._binary("and", other)

    def __rand__(self, other: IntoExpr) -> Expr:
        return self._reverse("and", other)

    def __or__(self, other: IntoExpr) -> Expr:
        return self._binary("or", other)

    def __ror__(self, other: IntoExpr) -> Expr:
        return self._reverse("or", other)

    def __invert__(self) -> Expr:
        return self._then(self._expr.inverted())

    def __abs__(self) -> Expr:
        return self._call("abs")

    def __bool__(self) -> bool:
        raise InvalidQueryError(
            f"whether {self!r} is true is known of each row only, when it is computed",
            hint="combine conditions with &, | and ~ instead of and, or and not; put each in parentheses",
        )

    def __iter__(self) -> Any:
        raise InvalidQueryError(f"{self!r} has no values before it is computed", hint="call collect() on the frame")

    # Values and nulls

    def eq_missing(self, other: IntoExpr) -> Expr:
        """Equality for which null is a value like others."""
        return self._binary("is not distinct from", other)

    def is_null(self) -> Expr:
        """Whether it is null."""
        return self._then(self._expr.is_null())

    isnull = isna = is_null

    def is_not_null(self) -> Expr:
        """Whether it is a value."""
        return self._then(self._expr.is_not_null())

    notnull = notna = is_not_null

    def is_nan(self) -> Expr:
        """Whether it is the number that is none."""
        return self._call("isnan")

    def is_in(self, values: Iterable[Any]) -> Expr:
        """Whether it is one of the values."""
        return self._then(self._expr.is_in([expression(value)._expr for value in values]))

    isin = is_in

    def between(self, low: IntoExpr, high: IntoExpr) -> Expr:
        """Whether it is from ``low`` to ``high``, both included."""
        return self._then(self._expr.between(expression(low)._expr, expression(high)._expr))

    def fill_null(self, value: IntoExpr) -> Expr:
        """The value where it is null."""
        return self._call("coalesce", value)

    fillna = fill_null

    def abs(self) -> Expr:
        """Without its sign."""
        return self._call("abs")

    def round(self, decimals: int = 0) -> Expr:
        """The nearest number of so many decimals."""
        return self._call("round", decimals)

    def floor(self) -> Expr:
        """The nearest whole number below."""
        return self._call("floor")

    def ceil(self) -> Expr:
        """The nearest whole number above."""
        return self._call("ceil")

    def sqrt(self) -> Expr:
        """The square root."""
        return self._call("sqrt")

    def exp(self) -> Expr:
        """e to its power."""
        return self._call("exp")

    def log(self) -> Expr:
        """The natural logarithm."""
        return self._call("ln")

    def clip(self, lower: IntoExpr = None, upper: IntoExpr = None) -> Expr:
        """Not below ``lower`` and not above ``upper``; null stays null."""
        result = self
        if lower is not None:
            result = when(result < lower).then(lower).otherwise(result).alias(self.name)
        if upper is not None:
            result = when(result > upper).then(upper).otherwise(result).alias(self.name)
        return result

    # Aggregates

    def sum(self) -> Expr:
        """The sum of a group's values that are not null."""
        return self._call("sum")

    def mean(self) -> Expr:
        """The mean of a group's values that are not null."""
        return self._call("avg")

    avg = mean

    def min(self) -> Expr:
        """The smallest of a group."""
        return self._call("min")

    def max(self) -> Expr:
        """The largest of a group."""
        return self._call("max")

    def count(self) -> Expr:
        """How many of a group are not null."""
        return self._call("count")

    def n_unique(self) -> Expr:
        """How many different values of a group are not null."""
        return self._call("count", distinct=True)

    nunique = n_unique

    def std(self, ddof: int = 1) -> Expr:
        """The standard deviation of a group; ``ddof=0`` is that of a whole population."""
        return self._call("stddev" if ddof == 1 else "stddev_pop")

    def var(self, ddof: int = 1) -> Expr:
        """The variance of a group; ``ddof=0`` is that of a whole population."""
        return self._call("var" if ddof == 1 else "var_pop")

    def median(self) -> Expr:
        """The median of a group."""
        return self._call("median")

    def quantile(self, q: float) -> Expr:
        """Below it are ``q`` of a group, from 0 to 1; between two values it lies between."""
        return self._call("percentile_cont", q)

    def corr(self, other: IntoExpr) -> Expr:
        """How a group's values go together with those of another column, from -1 to 1."""
        return self._call("corr", _column(other))

    def cov(self, other: IntoExpr, ddof: int = 1) -> Expr:
        """The covariance with another column in a group; ``ddof=0`` is that of a whole population."""
        return self._call("covar_samp" if ddof == 1 else "covar_pop", _column(other))

    def first(self, order_by: IntoExpr = None) -> Expr:
        """The first of a group, in an order."""
        return self._ordered("first_value", order_by)

    def last(self, order_by: IntoExpr = None) -> Expr:
        """The last of a group, in an order."""
        return self._ordered("last_value", order_by)

    def implode(self, order_by: IntoExpr = None) -> Expr:
        """The values of a group as a list, in an order."""
        return self._ordered("array_agg", order_by)

    def _ordered(self, function: str, order_by: IntoExpr) -> Expr:
        keys = [] if order_by is None else sort_keys([order_by])
        return self._then(_windrow.Expr.call(function, [self._expr], False, keys))

    def any(self) -> Expr:
        """Whether one of a group is true."""
        return self._call("bool_or")

    def all(self) -> Expr:
        """Whether all of a group are true."""
        return self._call("bool_and")

    def where(self, condition: IntoExpr) -> Expr:
        """The aggregate over the rows alone for which the condition is true."""
        return self._then(self._expr.only_where(expression(condition)._expr))

    # Windows

    def over(
        self,
        *partition_by: IntoExpr,
        order_by: IntoExpr | Sequence[IntoExpr] = (),
        rows: tuple[int | None, int | None] | None = None,
    ) -> Expr:
        """Over the rows that are equal in ``partition_by``, for each row: an aggregate, or a function of windows. With an order, an aggregate is
        over the rows up to each, unless ``rows`` says from which to which, counted from its own: ``(-2, 0)`` are it and the two before."""
        partition = [one._expr for one in expressions(partition_by)]
        keys = sort_keys([order_by] if not isinstance(order_by, (list, tuple)) else order_by)
        return self._then(self._expr.over(partition, keys, rows))

    def shift(self, n: int = 1, fill_value: Any = None) -> Expr:
        """The value ``n`` rows before, or after for a negative one; to be used with :meth:`over`."""
        function, count = ("lag", n) if n >= 0 else ("lead", -n)
        return self._call(function, count) if fill_value is None else self._call(function, count, fill_value)

    def rank(self, method: builtins.str = "min") -> Expr:
        """The place in the order of this column: ``min``, ``dense`` or ``ordinal``; to be used with :meth:`over` and an order."""
        names = {"min": "rank", "dense": "dense_rank", "ordinal": "row_number"}
        if method not in names:
            raise InvalidQueryError(f"rank({method!r})", hint="write 'min', 'dense' or 'ordinal'")
        return self._then(_windrow.Expr.call(names[method], [])).over(order_by=self)

    def cum_sum(self) -> Expr:
        """The sum up to each row; to be used with :meth:`over` and an order."""
        return self.sum()

    def cum_min(self) -> Expr:
        """The smallest up to each row; to be used with :meth:`over` and an order."""
        return self.min()

    def cum_max(self) -> Expr:
        """The largest up to each row; to be used with :meth:`over` and an order."""
        return self.max()

    def cum_count(self) -> Expr:
        """How many up to each row are not null; to be used with :meth:`over` and an order."""
        return self.count()

    def diff(self, n: int = 1) -> Expr:
        """The difference to the value ``n`` rows before; to be used with :meth:`over` and an order."""
        return self - self.shift(n)

    def rolling_sum(self, window: int, *, min_samples: int | None = None) -> Rolling:
        """The sum of each row and those before it, ``window`` in all, in the order of :meth:`Rolling.over`. Where fewer than ``min_samples``
        of them are not null, by default ``window``, it is null."""
        return Rolling(self, "sum", window, min_samples)

    def rolling_mean(self, window: int, *, min_samples: int | None = None) -> Rolling:
        """The mean of a window that moves: see :meth:`rolling_sum`."""
        return Rolling(self, "avg", window, min_samples)

    def rolling_min(self, window: int, *, min_samples: int | None = None) -> Rolling:
        """The smallest of a window that moves: see :meth:`rolling_sum`."""
        return Rolling(self, "min", window, min_samples)

    def rolling_max(self, window: int, *, min_samples: int | None = None) -> Rolling:
        """The largest of a window that moves: see :meth:`rolling_sum`."""
        return Rolling(self, "max", window, min_samples)

    # Orders

    def sort(self, *, descending: bool = False, nulls_last: bool = True) -> Expr:
        """As a key of an order, with a direction and a place for nulls of its own."""
        key = self._then(self._expr)
        key._sort = (not descending, not nulls_last)
        return key

    def asc(self, *, nulls_last: bool = True) -> Expr:
        """As a key of an order, the smallest first."""
        return self.sort(nulls_last=nulls_last)

    def desc(self, *, nulls_last: bool = True) -> Expr:
        """As a key of an order, the largest first."""
        return self.sort(descending=True, nulls_last=nulls_last)

    # Namespaces

    @property
    def str(self) -> StringFunctions:
        """Functions of text."""
        return StringFunctions(self)

    @property
    def dt(self) -> DateFunctions:
        """Functions of dates and times."""
        return DateFunctions(self)

    @property
    def list(self) -> ListFunctions:
        """Functions of lists."""
        return ListFunctions(self)

    @property
    def struct(self) -> StructFunctions:
        """Functions of structs."""
        return StructFunctions(self)

    def __repr__(self) -> builtins.str:
        text = repr(self._expr)
        return text if text == self.name else f"{text} AS {self.name}"


LITERAL = "literal"


def _float(value: Expr) -> Expr:
    """The value, or its double if it is whole: SQL's division of whole numbers is whole."""
    return value._then(value._expr.binary("*", _windrow.Expr.literal(1.0)))


def _column(value: IntoExpr) -> Expr:
    [one] = expressions([value])
    return one


def _named(value: Expr) -> _windrow.Expr:
    return value._expr if repr(value._expr) == value.name else value._expr.alias(value.name)


def col(name: str) -> Expr:
    """The column of this name, exactly as it is."""
    return Expr(_windrow.Expr.column(name), name)


def left(name: str) -> Expr:
    """In the condition of a join, the column of the frame on the left."""
    return Expr(_windrow.Expr.of_side(name, False), name)


def right(name: str) -> Expr:
    """In the condition of a join, the column of the frame on the right."""
    return Expr(_windrow.Expr.of_side(name, True), name)


def lit(value: Any) -> Expr:
    """A value."""
    return value if isinstance(value, Expr) else Expr(_windrow.Expr.literal(value), LITERAL)


def expression(value: IntoExpr) -> Expr:
    """A value of Python's as one of a column; a text is a text."""
    return lit(value)


def expressions(values: Iterable[IntoExpr], named: dict[str, IntoExpr] | None = None) -> list[Expr]:
    """What is given where columns are meant: a text is a column's name, lists are taken apart."""
    found: list[Expr] = []
    for value in values:
        if isinstance(value, str):
            found.append(col(value))
        elif isinstance(value, (list, tuple)):
            found += expressions(value)
        else:
            found.append(lit(value))
    found += [(col(value) if isinstance(value, str) else lit(value)).alias(name) for name, value in (named or {}).items()]
    return found


def outputs(values: Iterable[IntoExpr], named: dict[str, IntoExpr] | None = None) -> list[_windrow.Expr]:
    """As :func:`expressions`, each under its name."""
    return [_named(one) for one in expressions(values, named)]


def sort_keys(
    by: Iterable[IntoExpr], descending: bool | Sequence[bool] = False, nulls_last: bool | Sequence[bool] = True
) -> list[Key]:
    """The keys of an order."""
    keys = expressions(by)
    down, last = _each("descending", descending, len(keys)), _each("nulls_last", nulls_last, len(keys))
    return [
        (key._expr, *key._sort) if key._sort is not None else (key._expr, not down[at], not last[at])
        for at, key in enumerate(keys)
    ]


def _each(name: str, given: bool | Sequence[bool], count: int) -> list[bool]:
    if isinstance(given, bool):
        return [given] * count
    if len(given) != count:
        raise InvalidQueryError(f"{name} has {len(given)} values for {count} keys", hint="give one for each, or one for all")
    return [*given]


class Rolling:
    """An aggregate over windows that move, which is an expression once :meth:`over` says in which order."""

    def __init__(self, value: Expr, function: str, window: int, min_samples: int | None) -> None:
        needed = window if min_samples is None else min_samples
        if window < 1 or not 1 <= needed <= window:
            raise InvalidQueryError(
                f"a window of {window} rows, of which {needed} are to be values", hint="write 1 <= min_samples <= window"
            )
        self._value, self._function, self._window, self._needed = value, function, window, needed

    def over(self, *partition_by: IntoExpr, order_by: IntoExpr | Sequence[IntoExpr]) -> Expr:
        """Over the rows that are equal in ``partition_by``, in an order."""
        rows = (1 - self._window, 0)
        result = self._value._call(self._function).over(*partition_by, order_by=order_by, rows=rows)
        if self._needed == 1:
            return result
        samples = self._value.count().over(*partition_by, order_by=order_by, rows=rows)
        return result._then(_case([samples >= self._needed], [result], None))

    def __repr__(self) -> str:
        return f"{self._value!r}.rolling({self._window}): .over(order_by=...) makes it a column"


class When:
    """The beginning of a choice: see :func:`when`."""

    def __init__(self, conditions: Sequence[Expr], values: Sequence[Expr]) -> None:
        self._conditions, self._values = conditions, values

    def then(self, value: IntoExpr) -> Then:
        """What it is if the condition is true."""
        return Then(self._conditions, [*self._values, expression(value)])


class Then(Expr):
    """A choice, which is null where no condition is true."""

    __slots__ = ("_conditions", "_values")

    def __init__(self, conditions: Sequence[Expr], values: Sequence[Expr]) -> None:
        super().__init__(_case(conditions, values, None), values[0].name)
        self._conditions, self._values = conditions, values

    def when(self, condition: IntoExpr) -> When:
        """A further condition, for rows of which none before is true."""
        return When([*self._conditions, expression(condition)], self._values)

    def otherwise(self, value: IntoExpr) -> Expr:
        """What it is where no condition is true."""
        return Expr(_case(self._conditions, self._values, expression(value)._expr), self.name)


def _case(conditions: Sequence[Expr], values: Sequence[Expr], otherwise: _windrow.Expr | None) -> _windrow.Expr:
    return _windrow.Expr.case([one._expr for one in conditions], [one._expr for one in values], otherwise)


def when(condition: IntoExpr) -> When:
    """A choice: ``when(col("a") > 0).then("more").otherwise("less")``. Texts in it are texts, not columns."""
    return When([expression(condition)], [])


def coalesce(*values: IntoExpr) -> Expr:
    """The first that is not null; texts are columns."""
    all_of = expressions(values)
    return Expr(_windrow.Expr.call("coalesce", [one._expr for one in all_of]), all_of[0].name)


def concat_str(*values: IntoExpr, separator: str = "") -> Expr:
    """One text of several; texts are columns."""
    all_of = expressions(values)
    parts = [_windrow.Expr.literal(separator), *(one._expr for one in all_of)]
    return Expr(_windrow.Expr.call("concat_ws", parts), all_of[0].name)


def struct(*values: IntoExpr, **named: IntoExpr) -> Expr:
    """One struct of several columns."""
    all_of = expressions(values, named)
    parts = [part for one in all_of for part in (_windrow.Expr.literal(one.name), one._expr)]
    return Expr(_windrow.Expr.call("named_struct", parts), all_of[0].name)


class _Namespace:
    """Functions of one kind of value, below a name of :class:`Expr`."""

    def __init__(self, value: Expr) -> None:
        self._value = value

    def _call(self, function: str, *arguments: IntoExpr) -> Expr:
        return self._value._call(function, *arguments)


def _method(function: str, doc: str) -> Callable[..., Expr]:
    def method(self: _Namespace, *arguments: IntoExpr) -> Expr:
        return self._call(function, *arguments)

    method.__doc__ = doc
    return method


class StringFunctions(_Namespace):
    """Functions of text. Texts among the arguments are texts."""

    to_uppercase = upper = _method("upper", "In upper case.")
    to_lowercase = lower = _method("lower", "In lower case.")
    capitalize = title = _method("initcap", "Each word with a capital.")
    len_chars = len = _method("character_length", "How many characters it has.")
    len_bytes = _method("octet_length", "How many bytes it has.")
    starts_with = startswith = _method("starts_with", "Whether it begins with a text.")
    ends_with = endswith = _method("ends_with", "Whether it ends with a text.")
    strip_chars = strip = _method("btrim", "Without spaces, or these characters, at both ends.")
    strip_chars_start = lstrip = _method("ltrim", "Without spaces, or these characters, at its beginning.")
    strip_chars_end = rstrip = _method("rtrim", "Without spaces, or these characters, at its end.")
    reverse = _method("reverse", "Backwards.")
    replace_all = _method("replace", "With a text in the place of another, everywhere.")
    repeat = _method("repeat", "So many times.")

    def contains(self, pattern: IntoExpr, *, literal: bool = False) -> Expr:
        """Whether a regular expression, or a text if ``literal`` is set, is in it."""
        return self._call("contains" if literal else "regexp_like", pattern)

    def replace(self, pattern: str, value: IntoExpr, *, literal: bool = False) -> Expr:
        """With ``value`` in the place of each match of a regular expression, or of a text if ``literal`` is set."""
        return self._call("replace", pattern, value) if literal else self._call("regexp_replace", pattern, value, "g")

    def split(self, by: str) -> Expr:
        """The parts between a text, as a list; of an empty text, one that is empty."""
        value = self._value
        empty = _windrow.Expr.call("make_array", [_windrow.Expr.literal("")])
        return value._then(_case([value == ""], [value._then(empty)], value._call("string_to_array", by)._expr))

    def extract(self, pattern: str, group: int = 1) -> Expr:
        """What a group of a regular expression matches first."""
        return self._call("regexp_match", pattern).list.get(group - 1)

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """Characters from ``offset`` on, which counts from 0."""
        return self._call("substr", offset + 1) if length is None else self._call("substr", offset + 1, length)

    def pad_start(self, length: int, fill: str = " ") -> Expr:
        """At least so many characters, filled at its beginning."""
        value = self._value
        return when(value.str.len() >= length).then(value).otherwise(value._call("lpad", length, fill)).alias(value.name)

    def pad_end(self, length: int, fill: str = " ") -> Expr:
        """At least so many characters, filled at its end."""
        value = self._value
        return when(value.str.len() >= length).then(value).otherwise(value._call("rpad", length, fill)).alias(value.name)

    def like(self, pattern: str, *, ignore_case: bool = False) -> Expr:
        """Whether it matches a pattern of SQL, in which ``%`` is any text and ``_`` any character."""
        return self._value._then(self._value._expr.like(expression(pattern)._expr, ignore_case))

    def to_date(self, format: str | None = None) -> Expr:
        """The date that it says, in a format of chrono such as ``%Y-%m-%d``."""
        return self._call("to_date") if format is None else self._call("to_date", format)

    def to_datetime(self, format: str | None = None) -> Expr:
        """The moment that it says, in a format of chrono such as ``%Y-%m-%d %H:%M:%S``."""
        return self._call("to_timestamp_micros") if format is None else self._call("to_timestamp_micros", format)


def _part(part: str, doc: str) -> Callable[[DateFunctions], Expr]:
    def method(self: DateFunctions) -> Expr:
        return self._date_part(part)

    method.__doc__ = doc
    return method


class DateFunctions(_Namespace):
    """Functions of dates and times."""

    def _date_part(self, part: str) -> Expr:
        value = self._value
        return value._then(_windrow.Expr.call("date_part", [_windrow.Expr.literal(part), value._expr]))

    year = _part("year", "The year.")
    quarter = _part("quarter", "The quarter, from 1 to 4.")
    month = _part("month", "The month, from 1 to 12.")
    week = _part("week", "The week of ISO 8601.")
    day = _part("day", "The day of the month, from 1.")
    hour = _part("hour", "The hour, from 0.")
    minute = _part("minute", "The minute, from 0.")
    ordinal_day = dayofyear = _part("doy", "The day of the year, from 1.")

    def second(self) -> Expr:
        """The whole seconds, from 0."""
        return self._date_part("second").floor().cast("int32")

    def weekday(self) -> Expr:
        """The day of the week, from 1 for Monday to 7 for Sunday."""
        value = self._date_part("dow")
        return when(value == 0).then(7).otherwise(value).alias(self._value.name).cast("int32")

    def dayofweek(self) -> Expr:
        """The day of the week, from 0 for Monday, as pandas counts."""
        return self.weekday() - 1

    def truncate(self, every: str) -> Expr:
        """The beginning of its year, quarter, month, week, day, hour, minute or second."""
        value = self._value
        return value._then(_windrow.Expr.call("date_trunc", [_windrow.Expr.literal(every), value._expr]))

    def strftime(self, format: str) -> Expr:
        """As text, in a format of chrono."""
        return self._call("to_char", format)

    to_string = strftime

    def date(self) -> Expr:
        """Its day."""
        return self._value.cast("date")

    def epoch(self) -> Expr:
        """Seconds since 1970."""
        return self._date_part("epoch")


class ListFunctions(_Namespace):
    """Functions of lists."""

    len = lengths = _method("array_length", "How many values it has.")
    contains = _method("array_has", "Whether a value is in it.")
    max = _method("array_max", "The largest.")
    min = _method("array_min", "The smallest.")
    unique = _method("array_distinct", "Each of its values once.")
    reverse = _method("array_reverse", "Backwards.")
    join = _method("array_to_string", "As one text, with a text between the values.")
    concat = _method("array_concat", "With another list after it.")

    def get(self, index: int) -> Expr:
        """One value, counted from 0, or from the end for a negative number; null if there is none."""
        return self._call("array_element", index + 1 if index >= 0 else index)

    def first(self) -> Expr:
        """The first value."""
        return self.get(0)

    def last(self) -> Expr:
        """The last value."""
        return self.get(-1)

    def sort(self, *, descending: bool = False) -> Expr:
        """In order, nulls last."""
        return self._call("array_sort", "DESC" if descending else "ASC", "NULLS LAST")

    def slice(self, offset: int, length: int) -> Expr:
        """Values from ``offset`` on, which counts from 0."""
        return self._call("array_slice", offset + 1, offset + length)


class StructFunctions(_Namespace):
    """Functions of structs."""

    def field(self, name: str) -> Expr:
        """One of its fields."""
        return self._call("get_field", name).alias(name)

    __getitem__ = field
