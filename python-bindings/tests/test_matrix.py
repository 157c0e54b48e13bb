"""Frames against polars in all combinations of what an operation takes: joins, orders, casts, windows, sets, shapes."""

import datetime as dt
import itertools

import polars as pl
import pytest

import windrow
from test_frames import C, P, frames, others, rows, same  # noqa: F401
from windrow import functions as F
from windrow import lit

CASES = {}

# Joins: each kind, with one key or two, with nulls on both sides that are equal or not, with keys once or twice.

KEYS = {"one": ["g"], "two": ["g", "n"]}


def right_side(keys):
    """Other rows with nulls and repeated keys."""
    made = {"g": ["a", "a", "b", None, "z", None], "n": [1, None, 3, 4, None, None], "label": ["A", "B", "C", "D", "E", None]}
    return {name: made[name] for name in (*keys, "label")}


for how, (count, keys), nulls_equal, coalesce in itertools.product(
    ("inner", "left", "right", "full", "semi", "anti"), KEYS.items(), (False, True), (None, True, False)
):
    if how in ("semi", "anti") and coalesce is not None:
        continue

    def ours(f, c, how=how, keys=keys, nulls_equal=nulls_equal, coalesce=coalesce):
        other = c.from_arrow(pl.DataFrame(right_side(keys)))
        return f.select("id", "g", "n").join(other, keys, how, nulls_equal=nulls_equal, coalesce=coalesce)

    def theirs(f, how=how, keys=keys, nulls_equal=nulls_equal, coalesce=coalesce):
        other = pl.DataFrame(right_side(keys))
        return f.select("id", "g", "n").join(other, on=keys, how=how, nulls_equal=nulls_equal, coalesce=coalesce)

    CASES[f"join_{how}_{count}_{'equal' if nulls_equal else 'unequal'}_{coalesce}"] = (ours, theirs, False)

# Orders: each kind of key, in both directions, with nulls first and last; and two keys, each with its own.

for key, down, last in itertools.product(("n", "x", "s", "b", "d", "t"), (False, True), (False, True)):
    CASES[f"sort_{key}_{'down' if down else 'up'}_{'last' if last else 'first'}"] = (
        lambda f, c, key=key, down=down, last=last: f.sort(key, "id", descending=[down, False], nulls_last=[last, True]),
        lambda f, key=key, down=down, last=last: f.sort(key, "id", descending=[down, False], nulls_last=[last, True]),
        True,
    )
for down, last in itertools.product(itertools.product((False, True), repeat=2), repeat=2):
    name = "_".join(f"{'down' if d else 'up'}{'last' if n else 'first'}" for d, n in zip(down, last, strict=True))
    CASES[f"sort_two_{name}"] = (
        lambda f, c, down=down, last=last: f.sort(
            C("g").sort(descending=down[0], nulls_last=last[0]), C("n").sort(descending=down[1], nulls_last=last[1]), "id"
        ),
        lambda f, down=down, last=last: f.sort("g", "n", "id", descending=[*down, False], nulls_last=[*last, True]),
        True,
    )

# Casts.

CASTS = {
    "n": {
        "int8": pl.Int8,
        "int16": pl.Int16,
        "int32": pl.Int32,
        "float32": pl.Float32,
        "float64": pl.Float64,
        "string": pl.String,
        "decimal(10, 2)": pl.Decimal(10, 2),
    },
    "id": {"uint16": pl.UInt16, "uint32": pl.UInt32, "uint64": pl.UInt64, "int32": pl.Int32, "bool": pl.Boolean},
    "x": {"int64": pl.Int64, "float32": pl.Float32, "decimal(12, 4)": pl.Decimal(12, 4)},
    "b": {"int64": pl.Int64, "string": pl.String, "float64": pl.Float64},
    "d": {"string": pl.String, "timestamp[us]": pl.Datetime("us"), "timestamp[ms]": pl.Datetime("ms")},
    "t": {"date": pl.Date, "timestamp[ms]": pl.Datetime("ms"), "timestamp[s]": pl.Datetime("ms"), "time": pl.Time},
}
for column, types in CASTS.items():
    for of, polars_type in types.items():
        CASES[f"cast_{column}_{of}"] = (
            lambda f, c, column=column, of=of: f.select("id", v=C(column).cast(of)),
            lambda f, column=column, of=polars_type: f.select("id", v=P(column).cast(of)),
            False,
        )
for bad, of, polars_type in (
    ("s", "int64", pl.Int64),
    ("s", "float64", pl.Float64),
    ("n", "int8", pl.Int8),
    ("id", "int8", pl.Int8),
):
    CASES[f"cast_not_strict_{bad}_{of}"] = (
        lambda f, c, bad=bad, of=of: f.select("id", v=C(bad).cast(of, strict=False)),
        lambda f, bad=bad, of=polars_type: f.select("id", v=P(bad).cast(of, strict=False)),
        False,
    )

# Windows.

for function, window, needed in itertools.product(("sum", "mean", "min", "max"), (1, 4), (None, 1, 2)):
    if needed is not None and needed > window:
        continue
    CASES[f"rolling_{function}_{window}_{needed}"] = (
        lambda f, c, function=function, window=window, needed=needed: f.select(
            "id", v=getattr(C("n"), f"rolling_{function}")(window, min_samples=needed).over(order_by="id")
        ),
        lambda f, function=function, window=window, needed=needed: f.sort("id").select(
            "id", v=getattr(P("n"), f"rolling_{function}")(window, min_samples=needed)
        ),
        False,
    )
CASES["rolling_in_groups"] = (
    lambda f, c: f.select("id", v=C("x").rolling_mean(3, min_samples=1).over("g", order_by="id")),
    lambda f: f.sort("id").select("id", v=P("x").rolling_mean(3, min_samples=1).over("g")),
    False,
)
for function in ("sum", "mean", "min", "max", "count", "median", "std", "n_unique"):
    polars_function = "drop_nulls" if function == "n_unique" else function
    CASES[f"over_{function}"] = (
        lambda f, c, function=function: f.select("id", v=getattr(C("n"), function)().over("g", "b")),
        lambda f, function=function: f.select(
            "id", v=(P("n").drop_nulls().n_unique() if function == "n_unique" else getattr(P("n"), function)()).over("g", "b")
        ),
        False,
    )
for function in ("sum", "min", "max"):
    CASES[f"cum_{function}"] = (
        lambda f, c, function=function: f.drop_nulls("n").select(
            "id", v=getattr(C("n"), f"cum_{function}")().over("g", order_by="id")
        ),
        lambda f, function=function: f.drop_nulls("n").select(
            "id", v=getattr(P("n"), f"cum_{function}")().over("g", order_by="id")
        ),
        False,
    )
CASES["cum_count"] = (
    lambda f, c: f.select("id", v=C("n").cum_count().over(order_by="id")),
    lambda f: f.sort("id").select("id", v=P("n").cum_count()),
    False,
)
for n in (1, 3):
    CASES[f"diff_{n}"] = (
        lambda f, c, n=n: f.select("id", v=C("n").diff(n).over(order_by="id")),
        lambda f, n=n: f.sort("id").select("id", v=P("n").diff(n)),
        False,
    )
for n in (-2, 1, 4):
    CASES[f"shift_{n}"] = (
        lambda f, c, n=n: f.select("id", v=C("n").shift(n, fill_value=0).over(order_by="id")),
        lambda f, n=n: f.sort("id").select("id", v=P("n").shift(n, fill_value=0)),
        False,
    )
for method in ("min", "dense"):
    CASES[f"rank_{method}"] = (
        lambda f, c, method=method: f.drop_nulls("n").select("id", v=C("n").rank(method)),
        lambda f, method=method: f.drop_nulls("n").select("id", v=P("n").rank(method)),
        False,
    )
CASES["rank_ordinal"] = (
    lambda f, c: f.select("id", v=C("id").rank("ordinal").over("g")),
    lambda f: f.select("id", v=P("id").rank("ordinal").over("g")),
    False,
)
CASES["first_over"] = (
    lambda f, c: f.select("id", v=C("n").first().over("g", order_by="id", rows=(None, None))),
    lambda f: f.sort("id").select("id", v=P("n").first().over("g")),
    False,
)

# Sets.

for columns in (["g"], ["g", "b"], ["b", "n"]):
    here, there = slice(0, 200), slice(150, 300)
    name = "_".join(columns)
    for operation, how in (("intersect", "semi"), ("except_", "anti")):
        CASES[f"{operation}_{name}"] = (
            lambda f, c, columns=columns, operation=operation: getattr(f.filter(C("id") < 200).select(*columns), operation)(
                f.filter(C("id") >= 260).select(*columns)
            ),
            lambda f, columns=columns, how=how: (
                f.filter(P("id") < 200)
                .select(columns)
                .unique()
                .join(f.filter(P("id") >= 260).select(columns).unique(), on=columns, how=how, nulls_equal=True)
            ),
            False,
        )
    CASES[f"union_{name}"] = (
        lambda f, c, columns=columns: f.select(*columns).union(f.select(*columns), f.select(*columns).head(0)),
        lambda f, columns=columns: pl.concat([f.select(columns)] * 2),
        False,
    )
    CASES[f"union_unique_{name}"] = (
        lambda f, c, columns=columns: f.select(*columns).union(f.select(*columns)).unique(),
        lambda f, columns=columns: f.select(columns).unique(),
        False,
    )
    CASES[f"value_counts_{name}"] = (
        lambda f, c, columns=columns: f.value_counts(*columns),
        lambda f, columns=columns: f.group_by(columns).agg(pl.len().alias("count")),
        False,
    )

# Shapes.

for aggregate in ("sum", "min", "max", "count", "avg"):
    polars_name = {"avg": "mean"}.get(aggregate, aggregate)
    CASES[f"pivot_{aggregate}"] = (
        lambda f, c, aggregate=aggregate: f.filter(C("n").is_not_null()).pivot(
            "g", "n", C("b").alias("k"), on_columns=["a", "b", "zz"], aggregate=aggregate
        ),
        lambda f, aggregate=aggregate, polars_name=polars_name: (
            f.filter(P("n").is_not_null())
            .group_by(k="b")
            .agg(
                *(
                    pl.when((P("g") == one).any() | pl.lit(aggregate == "count"))
                    .then(getattr(P("n").filter(P("g") == one), polars_name)())
                    .alias(one)
                    for one in ("a", "b", "zz")
                )
            )
        ),
        False,
    )
for index in ([], ["id"], ["id", "g"]):
    CASES[f"unpivot_{len(index)}"] = (
        lambda f, c, index=index: f.select(*index, "n", m=C("id") * 2).unpivot(
            ["n", "m"], index, variable_name="k", value_name="v"
        ),
        lambda f, index=index: f.select(*index, "n", m=P("id") * 2).unpivot(
            ["n", "m"], index=index, variable_name="k", value_name="v"
        ),
        False,
    )
CASES["unpivot_all_others"] = (
    lambda f, c: f.select("id", "n", m=C("id") * 2).unpivot(index="id"),
    lambda f: f.select("id", "n", m=P("id") * 2).unpivot(index="id"),
    False,
)
CASES["explode"] = (lambda f, c: f.select("id", "l").explode("l"), lambda f: f.select("id", "l").explode("l"), False)
CASES["explode_two"] = (
    lambda f, c: f.select("id", "l", k=C("l").list.reverse()).explode("l", "k"),
    lambda f: f.select("id", "l", k=P("l").list.reverse()).explode("l", "k"),
    False,
)
CASES["implode_and_explode"] = (
    lambda f, c: f.group_by("g").agg(C("id").implode(order_by="id")).explode("id"),
    lambda f: f.group_by("g").agg(P("id").sort()).explode("id"),
    False,
)
CASES["unnest"] = (
    lambda f, c: f.select("id", z=windrow.struct(p="n", q="g")).unnest("z"),
    lambda f: f.select("id", z=pl.struct(p="n", q="g")).unnest("z"),
    False,
)
CASES["struct_fields"] = (
    lambda f, c: f.select("id", z=windrow.struct(p="n", q="g")).select(C("z").struct["p"], C("z").struct.field("q")),
    lambda f: f.select(p="n", q="g"),
    False,
)
CASES["row_index"] = (
    lambda f, c: f.sort("id", descending=True).with_row_index("i", 5),
    lambda f: f.sort("id", descending=True).with_row_index("i", 5),
    False,
)
CASES["top_k"] = (
    lambda f, c: f.drop_nulls("n").top_k(7, "n", "id"),
    lambda f: f.drop_nulls("n").sort("n", "id", descending=True).head(7),
    True,
)
for offset, count in ((0, 0), (0, 7), (295, 10), (400, 3)):
    CASES[f"limit_{offset}_{count}"] = (
        lambda f, c, offset=offset, count=count: f.sort("id").limit(count, offset),
        lambda f, offset=offset, count=count: f.sort("id").slice(offset, count),
        True,
    )
CASES["quantile"] = (
    lambda f, c: f.select("n", "x", "g").quantile(0.3),
    lambda f: f.select("n", "x").quantile(0.3, "linear"),
    False,
)
CASES["fill_null_all"] = (
    lambda f, c: f.select("id", "n", "x").fill_null(7),
    lambda f: f.select("id", "n", "x").fill_null(7),
    False,
)
CASES["corr_of_groups"] = (
    lambda f, c: f.drop_nulls(["n", "x"]).group_by("b").agg(v=C("n").corr("x"), w=C("n").cov("x")),
    lambda f: f.drop_nulls(["n", "x"]).group_by("b").agg(v=pl.corr("n", "x"), w=pl.cov("n", "x")),
    False,
)
CASES["corr"] = (
    lambda f, c: f.drop_nulls(["n", "x"]).select("id", "n", "x", "g").corr(),
    lambda f: pl.concat(
        [
            pl.DataFrame({"column": ["id", "n", "x"]}),
            pl.from_pandas(f.drop_nulls(["n", "x"]).select("id", "n", "x").to_pandas().corr().reset_index(drop=True)),
        ],
        how="horizontal",
    ),
    False,
)
CASES["group_by_all_aggregates"] = (
    lambda f, c: (
        f.filter(C("g").is_not_null())
        .group_by("g")
        .agg(a=C("n").sum(), b=C("x").mean(), c=F.count(), d=C("d").min(), e=C("t").max(), f=C("s").n_unique())
    ),
    lambda f: (
        f.filter(P("g").is_not_null())
        .group_by("g")
        .agg(a=P("n").sum(), b=P("x").mean(), c=pl.len(), d=P("d").min(), e=P("t").max(), f=P("s").drop_nulls().n_unique())
    ),
    False,
)

# Text, dates, lists.

EXPRESSIONS = {
    "str_lstrip": (C("s").str.lstrip("a"), P("s").str.strip_chars_start("a")),
    "str_rstrip": (C("s").str.rstrip("t"), P("s").str.strip_chars_end("t")),
    "str_split": (C("s").str.split(" "), P("s").str.split(" ")),
    "str_replace_literal": (C("s").str.replace("a", "o", literal=True), P("s").str.replace_all("a", "o", literal=True)),
    "str_concat": (windrow.concat_str(C("s").fill_null(""), lit("!")), pl.concat_str(P("s").fill_null(""), pl.lit("!"))),
    "str_compare": (C("s") < "b", P("s") < "b"),
    "str_is_in": (C("s").is_in(["", "xyz"]), P("s").is_in(["", "xyz"])),
    "dt_truncate_year": (C("t").dt.truncate("year"), P("t").dt.truncate("1y")),
    "dt_truncate_day": (C("t").dt.truncate("day"), P("t").dt.truncate("1d")),
    "dt_truncate_quarter": (C("t").dt.truncate("quarter"), P("t").dt.truncate("1q")),
    "dt_truncate_week": (C("t").dt.truncate("week"), P("t").dt.truncate("1w")),
    "dt_compare": (C("d") >= dt.date(2022, 1, 1), P("d") >= dt.date(2022, 1, 1)),
    "dt_plus": (C("t") + dt.timedelta(hours=5), P("t") + dt.timedelta(hours=5)),
    "dt_difference": (C("t") - dt.datetime(2020, 1, 1), P("t") - dt.datetime(2020, 1, 1)),
    "dt_between": (
        C("d").between(dt.date(2021, 1, 1), dt.date(2022, 1, 1)),
        P("d").is_between(dt.date(2021, 1, 1), dt.date(2022, 1, 1)),
    ),
    "list_min": (C("l").list.min(), P("l").list.min()),
    "list_first": (C("l").list.first(), P("l").list.first()),
    "list_get_negative": (C("l").list.get(-2), P("l").list.get(-2, null_on_oob=True)),
    "list_sort": (C("l").list.sort(), P("l").list.sort()),
    "list_sort_down": (C("l").list.sort(descending=True), P("l").list.sort(descending=True)),
    "list_slice": (C("l").list.slice(1, 2), P("l").list.slice(1, 2)),
    "list_concat": (C("l").list.concat(C("l")), P("l").list.concat(P("l"))),
    "list_join": (C("l").list.join("-"), P("l").cast(pl.List(pl.String)).list.join("-")),
    "list_len": (C("l").list.len(), P("l").list.len()),
    "null_arithmetic": (C("n") + lit(None).cast("int64"), P("n") + pl.lit(None, pl.Int64)),
    "null_comparison": (C("n") == lit(None).cast("int64"), P("n") == pl.lit(None, pl.Int64)),
    "and_with_null": (C("b") & (C("n") > 0), P("b") & (P("n") > 0)),
    "or_with_null": (C("b") | (C("n") > 0), P("b") | (P("n") > 0)),
    "clip_lower": (C("n").clip(lower=0), P("n").clip(lower_bound=0)),
    "clip_upper": (C("x").clip(upper=1.5), P("x").clip(upper_bound=1.5)),
}
for name, (mine, other) in EXPRESSIONS.items():
    CASES[name] = (
        lambda f, c, mine=mine: f.select("id", v=mine),
        lambda f, other=other: f.select("id", v=other),
        False,
    )


@pytest.mark.parametrize("name", CASES)
def test_a_combination_is_that_of_polars(frames, name):  # noqa: F811
    ours, theirs, ordered = CASES[name]
    frame, _other = frames
    same(ours(frame, windrow.default_client()), theirs(rows()), ordered=ordered)


def test_there_are_enough_comparisons():
    import test_dataframe
    import test_frames

    compared = sum(map(len, (test_frames.EXPRESSIONS, test_frames.AGGREGATES, test_frames.FRAMES, test_frames.ORDERED, CASES)))
    assert compared + len(test_dataframe.CASES) >= 400
