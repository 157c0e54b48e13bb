"""Dask's words for what runs."""

import signal
import time

import pytest

import windrow
from windrow.distributed import Client, LocalCluster, as_completed, get_client, progress, wait

ENDLESS = "SELECT count(*) FROM generate_series(1, 100000000000) WHERE random() < 2"


def test_the_names_are_those_of_the_package():
    assert Client is windrow.Client and LocalCluster is windrow.LocalCluster and get_client is windrow.get_client


def test_queries_are_waited_for(anywhere):
    queries = [anywhere.sql(f"SELECT {number} AS n") for number in range(5)]
    found = wait(queries)
    assert found.done == set(queries) and found.not_done == set()
    assert [query.result()["n"] for query in queries] == [[number] for number in range(5)]
    assert wait(queries[0]).done == {queries[0]}


def test_waiting_ends_in_time_and_with_failures(anywhere):
    endless, failing = anywhere.sql(ENDLESS), anywhere.sql("SELECT 1 / (value - value) AS n FROM generate_series(1, 3)")
    with pytest.raises(windrow.UnavailableError, match="1 of 2"):
        wait([endless, failing], timeout=2)
    endless.cancel()
    wait([endless, failing], timeout=20)
    with pytest.raises(windrow.CancelledError):
        endless.result()
    with pytest.raises(windrow.Error, match="(?i)divi"):
        failing.result()


def test_queries_come_in_the_order_in_which_they_end(anywhere):
    endless, quick = anywhere.sql(ENDLESS), anywhere.sql("SELECT 1 AS n")
    ended = as_completed([endless, quick])
    assert next(ended) is quick
    endless.cancel()
    assert next(ended) is endless
    assert next(ended, None) is None


def test_progress_returns_at_the_end(anywhere):
    query = anywhere.sql("SELECT count(*) AS n FROM generate_series(1, 1000)")
    progress(query)
    assert query.state == "succeeded"
    endless = anywhere.sql(ENDLESS)
    endless.cancel()
    progress(endless)
    assert endless.state == "cancelled"


INTERRUPTED = """
import windrow
from windrow.distributed import {name}
client = windrow.connect(slots=1)
query = client.sql("{text}")
while query.state != "running":
    pass
print("running", flush=True)
try:
    list({name}([query]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
while query.state != "cancelled":
    pass
print("cancelled", flush=True)
"""


@pytest.mark.parametrize("name", ["wait", "as_completed"])
def test_ctrl_c_cancels_what_is_waited_for(python, name):
    process = python(INTERRUPTED.format(name=name, text=ENDLESS))
    assert process.stdout.readline() == "running\n", process.stderr.read()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=30)
    assert (process.returncode, said.split()) == (0, ["interrupted", "cancelled"]), wrong
