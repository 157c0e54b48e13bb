"""Frames against polars: the same operation on the same rows, with nulls, gives the same rows."""

import datetime as dt
import math
import random

import polars as pl
import pytest

import windrow
from windrow import col, lit, when
from windrow import functions as F


def rows():
    """A few hundred rows, the same each time, with nulls in most columns."""
    chance = random.Random(7)
    maybe = lambda value: None if chance.random() < 0.1 else value  # noqa: E731
    count = 300
    return pl.DataFrame(
        {
            "id": list(range(count)),
            "g": [maybe(chance.choice("abcde")) for _ in range(count)],
            "n": [maybe(chance.randint(-50, 50)) for _ in range(count)],
            "x": [maybe(round(chance.uniform(-10, 10), 3)) for _ in range(count)],
            "s": [maybe(chance.choice(["Apple", "banana split", "", "Über", "xyz", "a1b2"])) for _ in range(count)],
            "b": [maybe(chance.random() < 0.5) for _ in range(count)],
            "d": [maybe(dt.date(2020, 1, 1) + dt.timedelta(days=chance.randint(0, 1500))) for _ in range(count)],
            "t": [maybe(dt.datetime(2020, 1, 1) + dt.timedelta(seconds=chance.randint(0, 10**8))) for _ in range(count)],
            "l": [maybe([chance.randint(0, 5) for _ in range(chance.randint(0, 4))]) for _ in range(count)],
        }
    )


def others():
    return pl.DataFrame({"g": ["a", "b", "c", "z", None], "n": [1, 2, 3, 4, 5], "label": ["A", "B", None, "Z", "none"]})


@pytest.fixture(params=["embedded", "cluster"], scope="module")
def frames(request):
    if request.param == "embedded":
        client = windrow.connect(slots=2, memory_limit="512MB")
    else:
        client = windrow.Client(request.getfixturevalue("cluster"))
    with client:
        client.set(small_input="1B", partitions=3)
        yield client.from_arrow(rows()), client.from_arrow(others())


def plain(value):
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return f"{float(value):.6g}"
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value


def same(ours, theirs, ordered=False):
    ours, theirs = ours.collect().to_pydict(), theirs.to_dict(as_series=False)
    assert list(ours) == list(theirs)
    ours = [tuple(map(plain, row)) for row in zip(*ours.values(), strict=True)]
    theirs = [tuple(map(plain, row)) for row in zip(*theirs.values(), strict=True)]
    if not ordered:
        ours, theirs = sorted(ours, key=repr), sorted(theirs, key=repr)
    assert ours == theirs


P = pl.col
C = col

# An expression of ours beside the one of polars.
EXPRESSIONS = {
    "column": (C("n"), P("n")),
    "literal": (lit(5).alias("v"), pl.lit(5).alias("v")),
    "add": (C("n") + 1, P("n") + 1),
    "radd": (1 + C("n"), (1 + P("n")).alias("n")),
    "add_columns": (C("n") + C("x"), P("n") + P("x")),
    "subtract": (C("n") - C("id"), P("n") - P("id")),
    "rsubtract": (100 - C("n"), (100 - P("n")).alias("n")),
    "multiply": (C("x") * 2, P("x") * 2),
    "divide": (C("n") / 4, P("n") / 4),
    "rdivide": (1 / (C("id") + 1), (1 / (P("id") + 1)).alias("id")),
    "floor_divide": (C("n") // 7, P("n") // 7),
    "modulo": (C("id") % 7, P("id") % 7),
    "power": ((C("id") % 5) ** 2, (P("id") % 5) ** 2),
    "negate": (-C("n"), -P("n")),
    "equal": (C("n") == 3, P("n") == 3),
    "not_equal": (C("n") != 3, P("n") != 3),
    "less": (C("n") < C("x"), P("n") < P("x")),
    "less_equal": (C("n") <= 3, P("n") <= 3),
    "greater": (C("x") > 0.5, P("x") > 0.5),
    "greater_equal": (C("s") >= "b", P("s") >= "b"),
    "and": ((C("n") > 0) & C("b"), (P("n") > 0) & P("b")),
    "or": ((C("n") > 0) | C("b"), (P("n") > 0) | P("b")),
    "not": (~C("b"), ~P("b")),
    "eq_missing": (C("g").eq_missing(lit(None)), P("g").eq_missing(None)),
    "is_null": (C("g").is_null(), P("g").is_null()),
    "is_not_null": (C("g").is_not_null(), P("g").is_not_null()),
    "is_in": (C("g").is_in(["a", "c"]), P("g").is_in(["a", "c"])),
    "between": (C("n").between(-5, 5), P("n").is_between(-5, 5)),
    "fill_null": (C("n").fill_null(0), P("n").fill_null(0)),
    "abs": (C("n").abs(), P("n").abs()),
    "round": (C("x").round(1), P("x").round(1)),
    "floor": (C("x").floor(), P("x").floor()),
    "ceil": (C("x").ceil(), P("x").ceil()),
    "sqrt": (C("id").sqrt(), P("id").sqrt()),
    "exp": ((C("x") / 10).exp(), (P("x") / 10).exp()),
    "log": ((C("id") + 1).log(), (P("id") + 1).log()),
    "clip": (C("n").clip(-10, 10), P("n").clip(-10, 10)),
    "cast_float": (C("n").cast("float64"), P("n").cast(pl.Float64)),
    "cast_text": (C("n").cast(str), P("n").cast(pl.String)),
    "cast_not_strict": (C("s").cast("int64", strict=False), P("s").cast(pl.Int64, strict=False)),
    "cast_date": (C("t").cast("date"), P("t").cast(pl.Date)),
    "when": (
        when(C("n") > 0).then(lit("more")).when(C("n") < 0).then(lit("less")).otherwise(lit("none")).alias("w"),
        pl.when(P("n") > 0).then(pl.lit("more")).when(P("n") < 0).then(pl.lit("less")).otherwise(pl.lit("none")).alias("w"),
    ),
    "when_open": (when(C("b")).then(C("n")), pl.when(P("b")).then(P("n"))),
    "coalesce": (windrow.coalesce("n", "id"), pl.coalesce("n", "id")),
    "concat_str": (
        windrow.concat_str(C("g").fill_null("?"), C("id").cast(str), separator="-"),
        pl.concat_str(P("g").fill_null("?"), P("id").cast(pl.String), separator="-"),
    ),
    "struct": (windrow.struct("id", "g").alias("v"), pl.struct("id", "g").alias("v")),
    "struct_field": (windrow.struct("id", "g").struct.field("g"), pl.struct("id", "g").struct.field("g")),
    "str_upper": (C("s").str.to_uppercase(), P("s").str.to_uppercase()),
    "str_lower": (C("s").str.to_lowercase(), P("s").str.to_lowercase()),
    "str_len": (C("s").str.len_chars(), P("s").str.len_chars()),
    "str_bytes": (C("s").str.len_bytes(), P("s").str.len_bytes()),
    "str_contains": (C("s").str.contains("a.*a"), P("s").str.contains("a.*a")),
    "str_contains_literal": (C("s").str.contains("an", literal=True), P("s").str.contains("an", literal=True)),
    "str_starts": (C("s").str.starts_with("b"), P("s").str.starts_with("b")),
    "str_ends": (C("s").str.ends_with("t"), P("s").str.ends_with("t")),
    "str_strip": ((C("s").str.strip_chars("a")), P("s").str.strip_chars("a")),
    "str_replace": (C("s").str.replace("[0-9]", "#"), P("s").str.replace_all("[0-9]", "#")),
    "str_replace_all": (C("s").str.replace_all("a", "-"), P("s").str.replace_all("a", "-", literal=True)),
    "str_extract": (C("s").str.extract("([a-z])[0-9]"), P("s").str.extract("([a-z])[0-9]")),
    "str_slice": (C("s").str.slice(1, 3), P("s").str.slice(1, 3)),
    "str_slice_open": (C("s").str.slice(2), P("s").str.slice(2)),
    "str_pad_start": (C("s").str.pad_start(6, "*"), P("s").str.pad_start(6, "*")),
    "str_pad_end": (C("s").str.pad_end(6, "*"), P("s").str.pad_end(6, "*")),
    "str_reverse": (C("s").str.reverse(), P("s").str.reverse()),
    "dt_year": (C("d").dt.year(), P("d").dt.year()),
    "dt_month": (C("t").dt.month(), P("t").dt.month()),
    "dt_day": (C("d").dt.day(), P("d").dt.day()),
    "dt_quarter": (C("d").dt.quarter(), P("d").dt.quarter()),
    "dt_week": (C("d").dt.week(), P("d").dt.week()),
    "dt_weekday": (C("d").dt.weekday(), P("d").dt.weekday()),
    "dt_ordinal": (C("d").dt.ordinal_day(), P("d").dt.ordinal_day()),
    "dt_hour": (C("t").dt.hour(), P("t").dt.hour()),
    "dt_minute": (C("t").dt.minute(), P("t").dt.minute()),
    "dt_second": (C("t").dt.second(), P("t").dt.second()),
    "dt_date": (C("t").dt.date(), P("t").dt.date()),
    "dt_truncate_month": (C("t").dt.truncate("month"), P("t").dt.truncate("1mo")),
    "dt_truncate_hour": (C("t").dt.truncate("hour"), P("t").dt.truncate("1h")),
    "dt_strftime": (C("d").dt.strftime("%Y/%m"), P("d").dt.strftime("%Y/%m")),
    "list_contains": (C("l").list.contains(3), P("l").list.contains(3)),
    "list_get": (C("l").list.get(1), P("l").list.get(1, null_on_oob=True)),
    "list_last": (C("l").list.last(), P("l").list.last()),
    "list_max": (C("l").list.max(), P("l").list.max()),
    "list_reverse": (C("l").list.reverse(), P("l").list.reverse()),
    "sum_over_all": (C("n").sum(), P("n").sum()),
    "share": ((C("id") / C("id").sum()).alias("v"), (P("id") / P("id").sum()).alias("v")),
    "sum_over_group": (C("n").sum().over("g").alias("v"), P("n").sum().over("g").alias("v")),
    "mean_over_group": (C("x").mean().over("g").alias("v"), P("x").mean().over("g").alias("v")),
    "running": (
        C("id").sum().over("g", order_by="id").alias("v"),
        P("id").cum_sum().over("g", order_by="id").alias("v"),
    ),
    "moving": (
        C("id").sum().over(order_by="id", rows=(-2, 0)).alias("v"),
        P("id").rolling_sum(3, min_samples=1).alias("v"),
    ),
    "shift": (C("n").shift(1).over("g", order_by="id").alias("v"), P("n").shift(1).over("g", order_by="id").alias("v")),
    "lead": (C("n").shift(-2).over("g", order_by="id").alias("v"), P("n").shift(-2).over("g", order_by="id").alias("v")),
    "rank": (C("id").rank().over("g").alias("v"), P("id").rank("min").over("g").alias("v")),
    "function": (F.abs("n"), P("n").abs()),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_that_of_polars(frames, name):
    ours, theirs = EXPRESSIONS[name]
    same(frames[0].with_columns(v_=ours).select("id", "v_"), rows().with_columns(v_=theirs).select("id", "v_"))


@pytest.mark.parametrize("name", [name for name, (ours, _) in EXPRESSIONS.items() if not ours.name == "literal"])
def test_a_column_has_the_name_that_polars_gives_it(name):
    ours, theirs = EXPRESSIONS[name]
    assert ours.name == theirs.meta.output_name()


AGGREGATES = {
    "sum": (C("n").sum(), P("n").sum()),
    "mean": (C("x").mean(), P("x").mean()),
    "min": (C("s").min(), P("s").min()),
    "max": (C("d").max(), P("d").max()),
    "count": (C("n").count(), P("n").count()),
    "rows": (F.count().alias("rows"), pl.len().alias("rows")),
    "n_unique": (C("s").n_unique(), P("s").drop_nulls().n_unique()),
    "std": (C("x").std(), P("x").std()),
    "var": (C("x").var(), P("x").var()),
    "std_population": (C("x").std(ddof=0), P("x").std(ddof=0)),
    "median": (C("x").median(), P("x").median()),
    "quantile": (C("x").quantile(0.25), P("x").quantile(0.25, "linear")),
    "first": (C("n").first(order_by="id"), P("n").sort_by("id").first()),
    "last": (C("n").last(order_by=C("id")), P("n").sort_by("id").last()),
    "any": (C("b").any(), P("b").drop_nulls().any()),
    "all": (C("b").all(), P("b").drop_nulls().all()),
    "list": (C("id").implode(order_by="id"), P("id").sort()),
    "where": (C("n").sum().where(C("b")), P("n").filter(P("b")).sum()),
    "of_expression": ((C("n") * 2).sum().alias("v"), (P("n") * 2).sum().alias("v")),
    "of_aggregates": ((C("n").max() - C("n").min()).alias("v"), (P("n").max() - P("n").min()).alias("v")),
}


@pytest.mark.parametrize("name", AGGREGATES)
def test_an_aggregate_of_groups_is_that_of_polars(frames, name):
    ours, theirs = AGGREGATES[name]
    mine = frames[0].filter(C("n").is_not_null(), C("b").is_not_null())
    same(mine.group_by("g").agg(ours), rows().filter(P("n").is_not_null(), P("b").is_not_null()).group_by("g").agg(theirs))


@pytest.mark.parametrize("name", [name for name in AGGREGATES if name != "list"])
def test_an_aggregate_of_all_rows_is_that_of_polars(frames, name):
    ours, theirs = AGGREGATES[name]
    same(frames[0].select(ours), rows().select(theirs))


FRAMES = {
    "select": (lambda f, o: f.select("n", "g"), lambda f, o: f.select("n", "g")),
    "select_list": (lambda f, o: f.select(["n", "g"]), lambda f, o: f.select(["n", "g"])),
    "select_named": (lambda f, o: f.select("id", k=C("n") * 2), lambda f, o: f.select("id", k=P("n") * 2)),
    "getitem": (lambda f, o: f[["n", "g"]], lambda f, o: f[["n", "g"]]),
    "filter_by_index": (lambda f, o: f[f["n"] > 0], lambda f, o: f.filter(P("n") > 0)),
    "attribute": (lambda f, o: f.filter(f.n > 0), lambda f, o: f.filter(P("n") > 0)),
    "with_columns": (lambda f, o: f.with_columns(C("n") + 1, k=lit(1)), lambda f, o: f.with_columns(P("n") + 1, k=pl.lit(1))),
    "drop": (lambda f, o: f.drop("n", "l"), lambda f, o: f.drop("n", "l")),
    "rename": (lambda f, o: f.rename({"n": "m"}), lambda f, o: f.rename({"n": "m"})),
    "cast": (lambda f, o: f.cast({"n": "float64"}), lambda f, o: f.cast({"n": pl.Float64})),
    "filter": (lambda f, o: f.filter(C("n") > 0, C("b")), lambda f, o: f.filter(P("n") > 0, P("b"))),
    "fill_null": (lambda f, o: f.select("n", "s").fill_null(0, "n"), lambda f, o: f.select(P("n").fill_null(0), "s")),
    "drop_nulls": (lambda f, o: f.drop_nulls(), lambda f, o: f.drop_nulls()),
    "drop_nulls_of": (lambda f, o: f.drop_nulls(["n", "s"]), lambda f, o: f.drop_nulls(["n", "s"])),
    "unique": (lambda f, o: f.select("g", "b").unique(), lambda f, o: f.select("g", "b").unique()),
    "unique_first": (
        lambda f, o: f.unique("g", keep="first", order_by="id"),
        lambda f, o: f.sort("id").unique("g", keep="first", maintain_order=True),
    ),
    "unique_last": (
        lambda f, o: f.unique("g", keep="last", order_by="id"),
        lambda f, o: f.sort("id").unique("g", keep="last", maintain_order=True),
    ),
    "unique_none": (lambda f, o: f.select("n").unique("n", keep="none"), lambda f, o: f.select("n").unique("n", keep="none")),
    "group_sum": (
        lambda f, o: f.select("g", "n", "x").group_by("g").sum(),
        lambda f, o: f.select("g", "n", "x").group_by("g").sum(),
    ),
    "group_mean": (lambda f, o: f.select("g", "x").group_by("g").mean(), lambda f, o: f.select("g", "x").group_by("g").mean()),
    "group_max": (lambda f, o: f.select("g", "s").group_by("g").max(), lambda f, o: f.select("g", "s").group_by("g").max()),
    "group_count": (lambda f, o: f.group_by("g").count(), lambda f, o: f.group_by("g").agg(pl.len().alias("count"))),
    "group_by_two": (
        lambda f, o: f.group_by("g", "b").agg(C("n").sum(), k=C("x").max()),
        lambda f, o: f.group_by("g", "b").agg(P("n").sum(), k=P("x").max()),
    ),
    "group_by_expression": (
        lambda f, o: f.group_by((C("id") % 3).alias("k")).agg(C("n").sum()),
        lambda f, o: f.group_by((P("id") % 3).alias("k")).agg(P("n").sum()),
    ),
    "join_inner": (
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), "g"),
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), on="g"),
    ),
    "join_left": (
        lambda f, o: f.select("id", "g", "n").join(o, "g", "left"),
        lambda f, o: f.select("id", "g", "n").join(o, on="g", how="left"),
    ),
    "join_right": (
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), "g", "right"),
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), on="g", how="right"),
    ),
    "join_full": (
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), "g", "full"),
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), on="g", how="full"),
    ),
    "join_full_coalesced": (
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), "g", "full", coalesce=True),
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), on="g", how="full", coalesce=True),
    ),
    "join_semi": (
        lambda f, o: f.select("id", "g").join(o, "g", "semi"),
        lambda f, o: f.select("id", "g").join(o, on="g", how="semi"),
    ),
    "join_anti": (
        lambda f, o: f.select("id", "g").join(o, "g", "anti"),
        lambda f, o: f.select("id", "g").join(o, on="g", how="anti"),
    ),
    "join_cross": (
        lambda f, o: f.select("id").join(o.select("label"), how="cross"),
        lambda f, o: f.select("id").join(o.select("label"), how="cross"),
    ),
    "join_two_names": (
        lambda f, o: f.select("id", "n").join(o.select(C("n").alias("m"), "label"), left_on="n", right_on="m"),
        lambda f, o: f.select("id", "n").join(o.select(P("n").alias("m"), "label"), left_on="n", right_on="m"),
    ),
    "join_nulls": (
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), "g", nulls_equal=True),
        lambda f, o: f.select("id", "g").join(o.select("g", "label"), on="g", nulls_equal=True),
    ),
    "join_condition": (
        lambda f, o: f.select("id").join(o.select("n"), C("id") < C("n")),
        lambda f, o: f.select("id").join(o.select("n"), how="cross").filter(P("id") < P("n")),
    ),
    "union": (lambda f, o: f.select("g").union(o.select("g")), lambda f, o: pl.concat([f.select("g"), o.select("g")])),
    "union_by_name": (
        lambda f, o: f.select("id", "g").union_by_name(o.select("label", "g")),
        lambda f, o: pl.concat([f.select("id", "g"), o.select("label", "g")], how="diagonal"),
    ),
    "intersect": (
        lambda f, o: f.select("g").intersect(o.select("g")),
        lambda f, o: f.select("g").unique().join(o.select("g").unique(), on="g", nulls_equal=True),
    ),
    "except": (
        lambda f, o: f.select("g").except_(o.select("g")),
        lambda f, o: f.select("g").unique().join(o.select("g"), on="g", how="anti", nulls_equal=True),
    ),
    "explode": (
        lambda f, o: f.select("id", "l").drop_nulls().explode("l"),
        lambda f, o: f.select("id", "l").drop_nulls().explode("l"),
    ),
    "unpivot": (
        lambda f, o: f.select("id", "n", "x").unpivot(["n", "x"], "id"),
        lambda f, o: f.select("id", P("n").cast(pl.Float64), "x").unpivot(["n", "x"], index="id"),
    ),
    "pivot": (
        lambda f, o: f.pivot("b", "n", "g", on_columns=[True, False], aggregate="sum").rename({"True": "t", "False": "f"}),
        lambda f, o: f.group_by("g").agg(
            t=pl.when(P("b").any()).then(P("n").filter(P("b")).sum()),
            f=pl.when((~P("b")).any()).then(P("n").filter(~P("b")).sum()),
        ),
    ),
    "pipe": (lambda f, o: f.pipe(lambda frame, n: frame.filter(C("n") > n), 3), lambda f, o: f.filter(P("n") > 3)),
    "agg": (lambda f, o: f.agg(C("n").sum(), C("x").mean()), lambda f, o: f.select(P("n").sum(), P("x").mean())),
    "select_aggregates": (lambda f, o: f.select(C("n").sum()), lambda f, o: f.select(P("n").sum())),
}


@pytest.mark.parametrize("name", FRAMES)
def test_an_operation_on_frames_is_that_of_polars(frames, name):
    ours, theirs = FRAMES[name]
    same(ours(*frames), theirs(rows(), others()))


ORDERED = {
    "sort": (lambda f: f.sort("id"), lambda f: f.sort("id")),
    "sort_descending": (lambda f: f.sort("id", descending=True), lambda f: f.sort("id", descending=True)),
    "sort_two": (
        lambda f: f.sort("g", "id", descending=[False, True], nulls_last=[True, False]),
        lambda f: f.sort("g", "id", descending=[False, True], nulls_last=[True, False]),
    ),
    "sort_nulls_first": (
        lambda f: f.sort(C("n").asc(nulls_last=False), C("id")),
        lambda f: f.sort("n", "id", nulls_last=False),
    ),
    "sort_expression": (lambda f: f.sort(-C("id")), lambda f: f.sort(-P("id"))),
    "head": (lambda f: f.sort("id").head(3), lambda f: f.sort("id").head(3)),
    "tail": (lambda f: f.sort("id").tail(3), lambda f: f.sort("id").tail(3)),
    "limit": (lambda f: f.sort("id").limit(3, offset=5), lambda f: f.sort("id").slice(5, 3)),
    "slice": (lambda f: f.sort("id").slice(290), lambda f: f.sort("id").slice(290)),
    "top_k": (
        lambda f: f.drop_nulls("x").top_k(5, "x", "id"),
        lambda f: f.drop_nulls("x").sort("x", "id", descending=True).head(5),
    ),
    "bottom_k": (lambda f: f.drop_nulls("x").bottom_k(5, "x", "id"), lambda f: f.drop_nulls("x").sort("x", "id").head(5)),
    "row_index": (
        lambda f: f.sort("id", descending=True).with_row_index("i").sort("i"),
        lambda f: f.sort("id", descending=True).with_row_index("i"),
    ),
}


@pytest.mark.parametrize("name", ORDERED)
def test_an_order_is_that_of_polars(frames, name):
    ours, theirs = ORDERED[name]
    same(ours(frames[0]), theirs(rows()), ordered=True)


def test_nothing_runs_before_rows_are_asked_for(client):
    frame = client.from_arrow(rows())
    before = len(client.queries())
    made = frame.filter(C("n") > 0).group_by("g").agg(C("x").mean()).sort("g").join(frame, "g")
    repr(made), made._repr_html_(), made.columns, made.dtypes, repr(C("n") + 1)
    assert len(client.queries()) == before


def test_names_are_exact(client):
    frame = client.from_dict({"Upper Case": [1], "a.b": [2], 'quo"te': [3]})
    assert frame.select("Upper Case", "a.b", 'quo"te').to_pylist() == [{"Upper Case": 1, "a.b": 2, 'quo"te': 3}]
    with pytest.raises(windrow.NotFoundError, match="Upper Case"):
        frame.select("upper case")
    with pytest.raises(AttributeError):
        frame.nothing  # noqa: B018


def test_frames_and_sql_are_each_others_tables(anywhere_with_plans):
    frame = anywhere_with_plans.from_dict({"n": [1, 2, 3]})
    assert anywhere_with_plans.sql("SELECT sum(n) AS s FROM {df}", df=frame).to_pydict() == {"s": [6]}
    assert anywhere_with_plans.sql("SELECT sum(n) AS s FROM frame").to_pydict() == {"s": [6]}
    assert anywhere_with_plans.sql("SELECT sum(n) AS s FROM frame WHERE n > $1", 1).to_pydict() == {"s": [5]}
    lazy = anywhere_with_plans.frame("SELECT n * 2 AS m FROM {df}", df=frame)
    assert lazy.filter(C("m") > 2).sort("m").to_pydict() == {"m": [4, 6]}
    anywhere_with_plans.register("stays", lazy)
    assert anywhere_with_plans.table("stays").count() == 3


def test_actions(anywhere_with_plans, tmp_path):
    frame = anywhere_with_plans.from_dict({"n": list(range(10)), "k": ["a", "b"] * 5})
    assert frame.count() == len(frame) == 10
    assert not frame.is_empty() and frame.filter(C("n") > 100).is_empty()
    assert sum(len(batch) for batch in frame) == 10
    assert frame.submit().result().num_rows == 10
    assert "stage" in frame.group_by("k").count().explain().lower()
    assert "rows" in frame.explain(analyze=True).lower()
    kept = frame.filter(C("n") > 5).persist()
    assert kept.count() == 4
    assert frame.sample(3, seed=1).count() == 3
    assert frame.describe().columns == ["statistic", "n", "k"]


@pytest.mark.parametrize("format", ["parquet", "csv", "json"])
def test_what_is_written_is_read(anywhere_with_plans, tmp_path, format):
    frame = anywhere_with_plans.from_dict({"n": list(range(10)), "k": ["a", "b"] * 5})
    path = str(tmp_path / f"rows.{format}")
    assert getattr(frame, f"write_{format}")(path) == 10
    back = getattr(anywhere_with_plans, f"read_{format}")(path)
    assert back.select("n", "k").sort("n").to_pydict() == frame.sort("n").to_pydict()
    with pytest.raises(windrow.Error):
        getattr(frame, f"write_{format}")(path)
    assert getattr(frame.head(0), f"write_{format}")(path, mode="overwrite") == 0


def test_folders_are_columns(anywhere_with_plans, tmp_path):
    frame = anywhere_with_plans.from_dict({"n": list(range(10)), "k": ["a", "b"] * 5})
    assert frame.write_parquet(f"{tmp_path}/parts/", partition_by="k") == 10
    back = anywhere_with_plans.read_parquet(f"{tmp_path}/parts/", hive_partitions={"k": "string"})
    assert back.filter(C("k") == "a").sort("n").select("n").to_pydict() == {"n": [0, 2, 4, 6, 8]}


def test_a_scheduler_without_plans_takes_frames_that_are_sql_and_refuses_the_rest(scheduler_without_plans, tmp_path):
    with windrow.connect(scheduler_without_plans.url) as client:
        frame = client.from_dict({"n": list(range(10)), "k": ["a", "b"] * 5})
        kept = frame.filter(C("n") > 6).select("k", m="n")
        assert sorted(kept.to_pylist(), key=repr) == [{"k": "a", "m": 8}, {"k": "b", "m": 7}, {"k": "b", "m": 9}]
        assert client.sql("SELECT sum(m) AS s FROM {kept}", kept=kept).to_pydict() == {"s": [24]}
        assert frame.write_parquet(f"{tmp_path}/rows.parquet") == 10
        back = client.read_parquet(f"{tmp_path}/rows.parquet")
        assert sorted(back.filter(C("k") == "a").select("n").to_pydict()["n"]) == [0, 2, 4, 6, 8]
        for refused in (
            frame.sort("n"),
            frame.head(1),
            frame.group_by("k").agg(F.sum("n")),
            frame.join(frame, on="n"),
            frame.select(C("n") + 1),
        ):
            with pytest.raises(windrow.UnsupportedError, match="takes no plans") as error:
                refused.collect()
            assert "accept_plans" in error.value.hint
        with pytest.raises(windrow.UnsupportedError, match="takes no plans"):
            client.read_parquet(f"{tmp_path}/", hive_partitions={"k": "string"}).collect()


@pytest.mark.parametrize("format", ["parquet", "csv", "json"])
def test_rows_are_added_to_folders(client, tmp_path, format):
    frame = client.from_dict({"n": [1, 2], "s": ["a", "b"]})
    write = lambda frame, **more: getattr(frame, f"write_{format}")(f"{tmp_path}/rows/", mode="append", **more)  # noqa: E731
    assert write(frame) == 2
    assert write(frame.filter(C("n") > 1)) == 1
    assert write(frame.head(0)) == 0
    back = getattr(client, f"read_{format}")(f"{tmp_path}/rows/")
    assert back.sort("n").to_pydict() == {"n": [1, 2, 2], "s": ["a", "b", "b"]}
    with pytest.raises(windrow.InvalidQueryError, match="cannot be added"):
        write(frame, partition_by="s")
    if format != "json":  # which has types only when it is read
        with pytest.raises(windrow.InvalidQueryError, match="cannot be added"):
            write(frame.select("s", "n") if format == "csv" else frame.select(n="s", s="n"))
    with pytest.raises(windrow.UnsupportedError, match="one file"):
        getattr(frame, f"write_{format}")(f"{tmp_path}/rows.{format}", mode="append")
    assert len(back.collect()) == 3


def test_rows_are_added_to_tables(client, tmp_path):
    frame = client.from_dict({"n": [1, 2]})
    client.sql(f"CREATE EXTERNAL TABLE files (n BIGINT) STORED AS PARQUET LOCATION '{tmp_path}/'").result()
    for _ in range(2):
        client.sql("INSERT INTO files SELECT n FROM {df}", df=frame.collect()).result()
    assert sorted(client.table("files").collect()["n"]) == [1, 1, 2, 2]
    assert client.append("kept", frame) == client.append("kept", frame.filter(C("n") > 0)) == 2
    assert sorted(client.table("kept").collect()["n"]) == [1, 1, 2, 2]


def test_a_description_and_a_summary_are_those_of_pandas(frames):
    frame = frames[0].select("id", "n", "x", "g", "d", "l")
    data = rows().to_pandas()
    described = {row["statistic"]: row for row in frame.drop("l", "d").describe().to_pylist()}
    theirs = data[["id", "n", "x"]].describe()
    for name in theirs.columns:
        for statistic in ("count", "mean", "std", "min", "max"):
            assert described[statistic][name] == pytest.approx(theirs[name][statistic])
        assert described["null_count"][name] == data[name].isna().sum()
    summary = {row["column"]: row for row in frame.summarize().to_pylist()}
    assert list(summary) == frame.columns
    for name in ("id", "n", "x"):
        row = summary[name]
        for ours, statistic in (("mean", "mean"), ("std", "std"), ("q25", "25%"), ("median", "50%"), ("q75", "75%")):
            assert row[ours] == pytest.approx(theirs[name][statistic])
        assert (float(row["min"]), float(row["max"])) == (theirs[name]["min"], theirs[name]["max"])
    for name in ("id", "n", "x", "g", "d"):
        assert summary[name]["n_unique"] == data[name].nunique()
    for name, row in summary.items():
        assert (row["count"], row["null_count"]) == (data[name].notna().sum(), data[name].isna().sum())
        assert row["type"] == frame.dtypes[name]
    assert summary["g"]["min"] == "a" and summary["g"]["mean"] is None and summary["l"]["min"] is None


def test_samples_are_some_of_the_rows(frames):
    frame, every = frames[0].select("id"), set(range(300))
    ten = frame.sample(10, seed=3).collect()["id"]
    assert len(set(ten)) == 10 and set(ten) <= every
    assert frame.sample(500, seed=3).count() == 300
    part = frame.sample(fraction=0.5, seed=3).collect()["id"]
    assert len(set(part)) == len(part) and set(part) <= every and 80 < len(part) < 220
    assert frame.sample(fraction=0.0, seed=3).is_empty() and frame.sample(fraction=1.0, seed=3).count() == 300
    with pytest.raises(windrow.InvalidConfigError):
        frame.sample()


def test_a_window_that_moves_has_an_order(frames):
    rolling = C("n").rolling_sum(3)
    assert "over(order_by=...)" in repr(rolling)
    for wrong in (lambda: C("n").rolling_sum(0), lambda: C("n").rolling_mean(2, min_samples=3)):
        with pytest.raises(windrow.InvalidQueryError, match="window"):
            wrong()
    with pytest.raises(TypeError):
        rolling.over("g")


def test_several_frames_are_computed_together(anywhere_with_plans):
    frame = anywhere_with_plans.from_dict({"n": [1, 2, 3]})
    rows, total = windrow.compute(frame.filter(C("n") > 1).sort("n"), frame.agg(C("n").sum()))
    assert (rows.to_pydict(), total.to_pydict()) == ({"n": [2, 3]}, {"n": [6]})
    assert windrow.compute() == ()


def test_a_condition_is_no_truth():
    with pytest.raises(windrow.InvalidQueryError, match="&, | and ~"):
        bool(C("n") > 0)
    with pytest.raises(windrow.InvalidQueryError):
        C("n") > 0 and C("n") < 5


def test_mistakes_are_found_when_they_are_made(client):
    frame = client.from_dict({"amount": [1]})
    with pytest.raises(windrow.NotFoundError, match="did you mean 'amount'"):
        frame.select("amuont")
    with pytest.raises(windrow.NotFoundError, match="amuont"):
        frame["amuont"]
    with pytest.raises(windrow.InvalidConfigError, match="inner"):
        frame.join(frame, "amount", "sideways")
    with pytest.raises(windrow.NotFoundError):
        F.call("no_such_function", "amount")
    with pytest.raises(AttributeError):
        F.no_such_function  # noqa: B018
    assert "upper" in F.names() and "upper" in dir(F)
