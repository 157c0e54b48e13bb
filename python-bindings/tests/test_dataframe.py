"""Dask's words against pandas."""

import pandas as pd
import pytest

import windrow
import windrow.dataframe as dd

DATA = {"category": ["a", "b", "a", "c", "b", "a"], "column": [5, 20, 30, 11, 50, 12], "x": [1.0, None, 3.0, 4.0, 5.0, 6.0]}


@pytest.fixture(autouse=True)
def default():
    with windrow.connect(slots=2, memory_limit="512MB") as client:
        yield client


def same(ours, theirs, by=None):
    ours = ours.compute()
    theirs = theirs.reset_index(drop=True)
    assert list(ours.columns) == list(theirs.columns)
    if by is not None:
        ours = ours.sort_values(by).reset_index(drop=True)
        theirs = theirs.sort_values(by).reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)


def test_the_example_of_the_guide_runs_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    pd.DataFrame(DATA)[["category", "column"]].to_csv("data/file.csv", index=False)
    names = {}
    exec(
        """
import windrow.dataframe as dd
df = dd.read_csv("data/file.csv")
df
#filter operation
filtered = df[df["column"] > 10]
# Groupby operation
grouped = filtered.groupby("category").mean()
grouped
result = grouped.compute()
""",
        names,
    )
    data = pd.DataFrame(DATA)[["category", "column"]]
    expected = data[data["column"] > 10].groupby("category").mean().reset_index()
    result = names["result"].sort_values("category").reset_index(drop=True)
    pd.testing.assert_frame_equal(result, expected, check_dtype=False)
    assert "DataFrame Structure" in repr(names["df"])


@pytest.fixture
def frame():
    return dd.from_dict(DATA)


CASES = {
    "filter": (lambda f: f[f["column"] > 10], lambda f: f[f["column"] > 10]),
    "filter_two": (lambda f: f[(f.column > 10) & (f.category != "a")], lambda f: f[(f.column > 10) & (f.category != "a")]),
    "isin": (lambda f: f[f.category.isin(["a", "c"])], lambda f: f[f.category.isin(["a", "c"])]),
    "query": (lambda f: f.query("column > 10"), lambda f: f.query("column > 10")),
    "columns": (lambda f: f[["x", "column"]], lambda f: f[["x", "column"]]),
    "assign": (lambda f: f.assign(y=f["column"] * 2), lambda f: f.assign(y=f["column"] * 2)),
    "assign_function": (lambda f: f.assign(y=lambda g: g.x + 1), lambda f: f.assign(y=lambda g: g.x + 1)),
    "astype": (lambda f: f.astype({"column": "float64"}), lambda f: f.astype({"column": "float64"})),
    "rename": (lambda f: f.rename(columns={"x": "z"}), lambda f: f.rename(columns={"x": "z"})),
    "drop": (lambda f: f.drop(columns=["x"]), lambda f: f.drop(columns=["x"])),
    "dropna": (lambda f: f.dropna(), lambda f: f.dropna()),
    "fillna": (lambda f: f.fillna({"x": 0.0}), lambda f: f.fillna({"x": 0.0})),
    "sort": (lambda f: f.sort_values("column", ascending=False), lambda f: f.sort_values("column", ascending=False)),
    "sort_two": (
        lambda f: f.sort_values(["category", "column"], ascending=[True, False]),
        lambda f: f.sort_values(["category", "column"], ascending=[True, False]),
    ),
    "nlargest": (lambda f: f.nlargest(2, "column"), lambda f: f.nlargest(2, "column")),
    "nsmallest": (lambda f: f.nsmallest(2, "column"), lambda f: f.nsmallest(2, "column")),
    "drop_duplicates": (lambda f: f[["category"]].drop_duplicates(), lambda f: f[["category"]].drop_duplicates()),
    "group_mean": (
        lambda f: f.groupby("category").mean(),
        lambda f: f.groupby("category").mean().reset_index(),
    ),
    "group_chosen": (
        lambda f: f.groupby("category")["column"].sum(),
        lambda f: f.groupby("category")["column"].sum().reset_index(),
    ),
    "group_agg": (
        lambda f: f.groupby("category").agg({"column": "max", "x": "count"}),
        lambda f: f.groupby("category").agg({"column": "max", "x": "count"}).reset_index(),
    ),
    "group_named": (
        lambda f: f.groupby("category").agg(top=("column", "max")),
        lambda f: f.groupby("category").agg(top=("column", "max")).reset_index(),
    ),
    "group_size": (
        lambda f: f.groupby("category").size(),
        lambda f: f.groupby("category").size().reset_index(name="size"),
    ),
    "merge": (
        lambda f: f.merge(dd.from_dict({"category": ["a", "b"], "label": ["A", "B"]}), on="category"),
        lambda f: f.merge(pd.DataFrame({"category": ["a", "b"], "label": ["A", "B"]}), on="category"),
    ),
    "merge_left_suffixes": (
        lambda f: f.merge(dd.from_dict({"category": ["a"], "x": [9]}), how="left", on="category"),
        lambda f: f.merge(pd.DataFrame({"category": ["a"], "x": [9]}), how="left", on="category"),
    ),
    "merge_outer": (
        lambda f: f.merge(dd.from_dict({"category": ["z"], "label": ["Z"]}), how="outer", on="category"),
        lambda f: f.merge(pd.DataFrame({"category": ["z"], "label": ["Z"]}), how="outer", on="category"),
    ),
    "concat": (lambda f: dd.concat([f, f]), lambda f: pd.concat([f, f])),
    "isin_of_frame": (lambda f: f.isin([5, 20, "a", 1.0]), lambda f: f.isin([5, 20, "a", 1.0])),
    "isin_of_columns": (
        lambda f: f.isin({"category": ["b"], "column": [11]}),
        lambda f: f.isin({"category": ["b"], "column": [11]}),
    ),
    "isna": (lambda f: f.isna(), lambda f: f.isna()),
    "notnull": (lambda f: f.notnull(), lambda f: f.notnull()),
    "dropna_all": (lambda f: f[["x"]].dropna(how="all"), lambda f: f[["x"]].dropna(how="all")),
    "mean": (lambda f: f.mean(numeric_only=True), lambda f: f.mean(numeric_only=True).to_frame().T),
    "sum": (lambda f: f[["column", "x"]].sum(), lambda f: f[["column", "x"]].sum().to_frame().T),
    "std": (lambda f: f.std(numeric_only=True), lambda f: f.std(numeric_only=True).to_frame().T),
    "var": (lambda f: f.var(numeric_only=True), lambda f: f.var(numeric_only=True).to_frame().T),
    "median": (lambda f: f.median(numeric_only=True), lambda f: f.median(numeric_only=True).to_frame().T),
    "min": (lambda f: f[["column", "x"]].min(), lambda f: f[["column", "x"]].min().to_frame().T),
    "max": (lambda f: f[["column", "x"]].max(), lambda f: f[["column", "x"]].max().to_frame().T),
    "nunique": (lambda f: f.nunique(), lambda f: f.nunique().to_frame().T),
    "quantile": (
        lambda f: f.quantile(0.25, numeric_only=True),
        lambda f: f.quantile(0.25, numeric_only=True).to_frame().T,
    ),
    "sort_nulls_first": (
        lambda f: f.sort_values("x", na_position="first"),
        lambda f: f.sort_values("x", na_position="first"),
    ),
    **{
        f"group_{function}": (
            lambda f, function=function: getattr(f.groupby("category"), function)(),
            lambda f, function=function: getattr(f.groupby("category"), function)().reset_index(),
        )
        for function in ("sum", "min", "max", "count", "nunique", "std", "var", "median")
    },
    "group_two": (
        lambda f: f.groupby(["category", "column"])["x"].sum(),
        lambda f: f.groupby(["category", "column"])["x"].sum().reset_index(),
    ),
    "merge_right": (
        lambda f: f.merge(dd.from_dict({"category": ["a", "z"], "label": ["A", "Z"]}), how="right", on="category"),
        lambda f: f.merge(pd.DataFrame({"category": ["a", "z"], "label": ["A", "Z"]}), how="right", on="category"),
    ),
    "merge_two_names": (
        lambda f: f.merge(dd.from_dict({"key": ["a", "b"], "label": ["A", "B"]}), left_on="category", right_on="key"),
        lambda f: f.merge(pd.DataFrame({"key": ["a", "b"], "label": ["A", "B"]}), left_on="category", right_on="key"),
    ),
    "value_counts_of_two": (
        lambda f: f.value_counts(["category", "x"]),
        lambda f: f.value_counts(["category", "x"]).reset_index(),
    ),
    "value_counts": (
        lambda f: f.category.value_counts(),
        lambda f: f.category.value_counts().reset_index(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_word_of_dask_means_what_it_does_in_pandas(frame, name):
    ours, theirs = CASES[name]
    made = theirs(pd.DataFrame(DATA))
    same(ours(frame), made, list(made.columns))


def test_a_column_is_computed(frame):
    data = pd.DataFrame(DATA)
    assert frame["column"].mean().compute() == data["column"].mean()
    assert frame.column.max().compute() == 50
    assert (frame["column"].max() - frame["column"].min()).compute() == 45
    assert sorted(frame["column"].compute()) == sorted(data["column"])
    assert sorted(frame.category.unique().compute()) == ["a", "b", "c"]
    import numpy

    assert numpy.asarray(frame["column"]).sum() == data["column"].sum()


def test_head_and_tail_are_pandas(frame):
    assert len(frame.head(2)) == 2 and isinstance(frame.head(2), pd.DataFrame)
    assert frame.sort_values("column").tail(1)["column"].tolist() == [50]


def test_several_are_computed_together(frame):
    data = pd.DataFrame(DATA)
    rows, total, column, other = windrow.compute(frame[frame.column > 10], frame["column"].sum(), frame.x.max(), "no frame")
    pd.testing.assert_frame_equal(rows, data[data["column"] > 10].reset_index(drop=True), check_dtype=False)
    assert (total, column, other) == (128, 6.0, "no frame")


def test_some_rows_are_shown(frame, capsys):
    frame.sort_values("column").show(2)
    shown = capsys.readouterr().out
    assert "2 rows" in shown and "11" in shown and "50" not in shown
    assert frame.top_k(1, "column").compute()["column"].tolist() == [50]


def test_columns_of_two_frames_do_not_mix(frame):
    other = dd.from_dict(DATA)
    with pytest.raises(windrow.InvalidQueryError, match="merge"):
        frame["column"] + other["column"]
    with pytest.raises(windrow.InvalidQueryError, match="another frame"):
        frame[other["column"] > 1]


def test_what_is_not_numeric_has_no_mean(frame):
    with pytest.raises(windrow.InvalidQueryError, match="numeric_only"):
        frame.groupby("x").mean()
    assert frame.groupby("x").mean(numeric_only=True).columns == ["x", "column"]


def test_what_there_is_not_says_how_to_write_it(frame):
    for name in ("iloc", "loc", "index", "divisions"):
        with pytest.raises(windrow.UnsupportedError) as refused:
            getattr(frame, name)
        assert refused.value.hint


def test_files(frame, tmp_path):
    assert frame.to_parquet(str(tmp_path / "p")) == 6
    assert len(dd.read_parquet(f"{tmp_path}/p/").compute()) == 6
    assert frame.to_csv(str(tmp_path / "c.csv"), single_file=True) == 6
    assert len(dd.read_csv(str(tmp_path / "c.csv")).compute()) == 6
