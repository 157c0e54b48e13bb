"""What goes wrong says what to do."""

import pickle

import pytest

import windrow


def test_the_place_is_shown_and_the_nearest_name(anywhere):
    text = "SELECT amuont\nFROM (VALUES (1)) AS t(amount)"
    with pytest.raises(windrow.InvalidQueryError) as failed:
        anywhere.sql(text)
    error = failed.value
    assert error.kind == "InvalidQuery"
    assert error.suggestion is not None and "amount" in error.suggestion
    assert error.position == windrow.Position(1, 8, 1, 14)
    assert error.text == text
    lines = str(error).splitlines()
    assert lines[2].endswith("SELECT amuont")
    assert lines[3].index("^") - lines[3].index("|") == lines[2].index("amuont") - lines[2].index("|")
    assert lines[3].count("^") == 6
    assert "did you mean" in lines[4]


def test_each_kind_has_a_class(anywhere):
    with pytest.raises(windrow.InvalidQueryError):
        anywhere.sql("SELEC 1")
    with pytest.raises(windrow.NotFoundError):
        anywhere.sql("SELECT * FROM '/no/such/file.parquet'").result()
    with pytest.raises(windrow.UnsupportedError):
        anywhere.sql("BEGIN")
    with pytest.raises(windrow.InvalidConfigError):
        anywhere.sql("SET windrow.query.nonsense = 1").result()
    with pytest.raises(ValueError, match="nonsense"):
        anywhere.set(nonsense=1)
    with pytest.raises(windrow.Error, match="[Dd]ivide by zero") as failed:
        anywhere.sql("SELECT 1 / (value - 5) FROM generate_series(1, 10)").result()
    assert failed.value.text is not None


def test_every_class_is_below_one_and_has_its_kind():
    for name in windrow.__all__:
        one = getattr(windrow, name)
        if name.endswith("Error") and name != "Error":
            assert issubclass(one, windrow.Error)
            assert one.kind + "Error" == name
    assert issubclass(windrow.InvalidConfigError, ValueError)
    assert issubclass(windrow.NotFoundError, KeyError)


def test_errors_survive_pickle():
    error = windrow.InvalidQueryError("no", hint="yes", position=(1, 2, 1, 3), text="xy", suggestion="z", query_id=7)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is windrow.InvalidQueryError
    assert str(again) == str(error)
    assert (again.query_id, again.position) == (7, (1, 2, 1, 3))


def test_nobody_at_an_address_is_told_with_the_next_step():
    with pytest.raises(windrow.UnavailableError, match="no scheduler answers"):
        windrow.connect("grpc://127.0.0.1:1")
    with pytest.raises(windrow.InvalidConfigError, match="grpc://"):
        windrow.connect("http://127.0.0.1:1")


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(windrow.InvalidConfigError):
        windrow.connect("grpc://127.0.0.1:1", slots=3)
    with pytest.raises(windrow.InvalidConfigError):
        windrow.LocalCluster(n_workers=0)
    with pytest.raises(windrow.InvalidConfigError):
        windrow.LocalCluster(n_workers=1, executors=2)
    with pytest.raises(windrow.InvalidConfigError):
        windrow.LocalCluster(n_workers=1, memory_limit="lots")


def test_a_query_that_is_cancelled_says_so(anywhere, until):
    query = anywhere.sql("SELECT count(*) FROM generate_series(1, 100000000000) WHERE random() < 2")
    until(lambda: query.state == "running", "the query runs")
    query.cancel()
    with pytest.raises(windrow.CancelledError) as failed:
        query.result()
    assert failed.value.query_id == query.id


def test_a_query_is_cancelled_by_its_number(anywhere, until):
    query = anywhere.sql("SELECT count(*) FROM generate_series(1, 100000000000) WHERE random() < 2")
    until(lambda: any(one["id"] == query.id and one["state"] == "running" for one in anywhere.queries()), "it is listed")
    assert anywhere.cancel(query)
    with pytest.raises(windrow.CancelledError):
        query.result()
    assert not anywhere.cancel(query)
