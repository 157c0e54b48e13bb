"""Statements, their parameters, and the frames that they name."""

import datetime as dt
import decimal
import uuid

import numpy
import pandas
import polars
import pyarrow as pa
import pytest

import windrow


def test_a_statement_gives_its_rows(anywhere):
    query = anywhere.sql("SELECT value AS n, value * 2 AS twice FROM generate_series(1, 3)")
    assert query.columns == ["n", "twice"]
    assert query.to_pylist() == [{"n": 1, "twice": 2}, {"n": 2, "twice": 4}, {"n": 3, "twice": 6}]
    assert query.to_pydict() == {"n": [1, 2, 3], "twice": [2, 4, 6]}
    assert len(query) == 3
    assert query.state == "succeeded"


@pytest.mark.parametrize(
    "value",
    [
        True,
        -7,
        2**63 + 1,
        1.5,
        "it's text",
        b"\x00bytes",
        dt.date(2026, 11, 22),
        dt.datetime(2026, 11, 22, 1, 2, 3, 456789),
        dt.time(1, 2, 3, 456789),
        dt.timedelta(days=-1, microseconds=5),
        decimal.Decimal("-12.340"),
        decimal.Decimal("1E+3"),
        [1, None, 3],
        ["a", "b"],
        {"a": 1, "b": "x"},
        None,
    ],
    ids=repr,
)
def test_values_of_parameters_come_back_as_they_were(anywhere, value):
    assert anywhere.sql("SELECT $1 AS x", value).to_pydict() == {"x": [value]}


def test_values_of_other_libraries_are_those_of_python(client):
    moment = dt.datetime(2026, 11, 22, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    identity = uuid.UUID(int=7)
    values = [
        numpy.int32(5),
        numpy.float64(0.5),
        pandas.Timestamp(2026, 1, 2),
        pa.scalar(9),
        moment,
        identity,
        numpy.array([1, 2]),
    ]
    row = client.sql("SELECT ? AS a, ? AS b, ? AS c, ? AS d, ? AS e, ? AS f, ? AS g", *values).to_pylist()[0]
    assert row["e"] == moment
    assert [row[name] for name in "abcdfg"] == [5, 0.5, dt.datetime(2026, 1, 2), 9, str(identity), [1, 2]]
    assert client.sql("SELECT $1 AS x", pandas.NaT).to_pydict() == {"x": [None]}


def test_parameters_have_places_and_names(anywhere):
    assert anywhere.sql("SELECT $2 - $1 AS x", 1, 10).to_pydict() == {"x": [9]}
    assert anywhere.sql("SELECT $low + $high AS x", high=10, low=1).to_pydict() == {"x": [11]}
    assert anywhere.sql("SELECT count(*) AS n FROM generate_series(1, 10) WHERE value > ?", 7).to_pydict() == {"n": [3]}


def test_values_that_do_not_fit_are_refused(anywhere):
    with pytest.raises(windrow.InvalidQueryError):
        anywhere.sql("SELECT $1 + $2", 1).result()
    with pytest.raises(windrow.InvalidQueryError, match="no value"):
        anywhere.sql("SELECT $1").result()
    with pytest.raises(TypeError, match="object"):
        anywhere.sql("SELECT $1", object())


def frames():
    rows = {"k": ["a", "b", None], "v": [1, 2, 3]}
    return {
        "pandas": pandas.DataFrame(rows),
        "polars": polars.DataFrame(rows),
        "pyarrow": pa.table(rows),
        "batch": pa.record_batch(rows),
        "reader": pa.table(rows).to_reader(),
        "windrow": windrow.Table(pa.table(rows)),
    }


@pytest.mark.parametrize("kind", frames())
def test_rows_of_any_library_are_tables(anywhere, kind):
    anywhere.register("given", frames()[kind])
    assert anywhere.sql("SELECT k, v FROM given ORDER BY v").to_pydict() == {"k": ["a", "b", None], "v": [1, 2, 3]}
    anywhere.register("given", pa.table({"other": [1]}))
    assert anywhere.sql("SELECT * FROM given").to_pydict() == {"other": [1]}
    anywhere.deregister("given")
    with pytest.raises(windrow.Error, match="given"):
        anywhere.sql("SELECT * FROM given").result()


def test_a_frame_without_rows_keeps_its_columns(anywhere):
    anywhere.register("nothing", pa.table({"a": pa.array([], pa.int32())}))
    assert anywhere.sql("SELECT a FROM nothing").to_arrow().schema.field("a").type == pa.int32()


def test_rows_that_cannot_be_read_change_nothing(anywhere):
    def batches():
        yield pa.record_batch({"a": [1]})
        raise OSError("the disk is gone")

    anywhere.register("kept", pa.table({"a": [7]}))
    broken = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), batches())
    with pytest.raises(windrow.DataError, match="the disk is gone"):
        anywhere.register("kept", broken)
    assert anywhere.sql("SELECT a FROM kept").to_pydict() == {"a": [7]}


module_frame = pa.table({"m": [1, 2]})


def test_a_statement_names_variables_of_who_runs_it(anywhere):
    local_frame = polars.DataFrame({"n": [1, 2, 3]})
    assert anywhere.sql("SELECT sum(n) AS s FROM local_frame").to_pydict() == {"s": [6]}
    assert anywhere.sql("SELECT sum(m) AS s FROM module_frame").to_pydict() == {"s": [3]}
    local_frame = polars.DataFrame({"n": [10]})  # noqa: F841
    assert anywhere.sql("SELECT sum(n) AS s FROM local_frame").to_pydict() == {"s": [10]}
    assert anywhere.sql("SELECT count(*) AS c FROM local_frame, module_frame").to_pydict() == {"c": [2]}
    assert not any("local_frame" in table for table in anywhere.tables())


def test_variables_of_other_functions_are_not_seen(client):
    def ask():
        return client.sql("SELECT * FROM hidden_frame")

    hidden_frame = pa.table({"n": [1]})
    assert hidden_frame.num_rows == 1
    with pytest.raises(windrow.Error, match="hidden_frame"):
        ask()


def test_the_catalog_comes_before_variables(client):
    both = pa.table({"n": [1]})
    client.register("both", pa.table({"n": [2]}))
    assert client.sql("SELECT n FROM both").to_pydict() == {"n": [2]}
    client.deregister("both")
    assert client.sql("SELECT n FROM both").to_pydict() == {"n": [1]}
    client.python_scan = False
    with pytest.raises(windrow.Error, match="both"):
        client.sql("SELECT n FROM both")
    assert both.num_rows == 1


def test_a_frame_of_pandas_may_change(client):
    changing = pandas.DataFrame({"n": [1, 2]})
    assert client.sql("SELECT sum(n) AS s FROM changing").to_pydict() == {"s": [3]}
    changing.loc[0, "n"] = 100
    assert client.sql("SELECT sum(n) AS s FROM changing").to_pydict() == {"s": [102]}


def test_named_frames_take_the_places_of_tables(anywhere):
    given = pa.table({"n": [4, 5]})
    assert anywhere.sql("SELECT sum(n) AS s FROM {df}", df=given).to_pydict() == {"s": [9]}
    assert anywhere.sql("SELECT sum(n) AS s FROM t WHERE n > $low", t=given, low=4).to_pydict() == {"s": [5]}


def test_results_are_tables_of_further_statements(anywhere):
    first = anywhere.sql("SELECT value AS n FROM generate_series(1, 4)")
    assert anywhere.sql("SELECT sum(n) AS s FROM first").to_pydict() == {"s": [10]}
    assert first.to_pydict() == {"n": [1, 2, 3, 4]}


def test_tables_of_frames_go_with_them(client):
    for count in range(5):
        passing = pa.table({"n": [count]})
        assert client.sql("SELECT n FROM passing").to_pydict() == {"n": [count]}
        del passing
    client.sql("SELECT 1 FROM {x}", x=pa.table({"n": [1]})).result()
    assert sum("_frame_" in table for table in client.tables()) <= 2


def test_append_makes_a_table_and_adds_to_it(anywhere):
    name = f"appended_{uuid.uuid4().hex}"
    assert anywhere.append(name, pa.table({"n": [1, 2]})) == 2
    assert anywhere.append(name, pa.table({"n": [3]})) == 1
    assert anywhere.sql(f"SELECT sum(n) AS s FROM {name}").to_pydict() == {"s": [6]}
    assert name in {table.rpartition(".")[2] for table in anywhere.tables()}
    anywhere.sql(f"DROP TABLE {name}").result()


def test_settings_are_set_and_shown(anywhere):
    anywhere.set(partitions=3)
    assert anywhere.settings()["windrow.query.partitions"] == "3"
    with pytest.raises(windrow.InvalidConfigError, match="partitions"):
        anywhere.set({"windrow.query.partitons": 3})


def test_the_last_client_serves_the_functions_of_the_module():
    with windrow.connect(slots=1) as client:
        client.register("only_here", pa.table({"n": [1]}))
        assert windrow.sql("SELECT n FROM only_here").to_pydict() == {"n": [1]}
        assert windrow.get_client() is client
    with pytest.raises(windrow.NotFoundError):
        windrow.get_client()
    assert windrow.sql("SELECT 1 AS n").to_pydict() == {"n": [1]}
    windrow.get_client().close()
