"""Threads, tasks, signals, and a thousand queries."""

import asyncio
import gc
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import windrow

ENDLESS = "SELECT count(*) FROM generate_series(1, 100000000000) WHERE random() < 2"


def test_ten_threads_share_a_client(anywhere):
    def ask(number):
        return [anywhere.sql("SELECT $1 + value AS n FROM generate_series(1, 3)", number).to_pydict()["n"] for _ in range(10)]

    with ThreadPoolExecutor(10) as pool:
        for number, answers in enumerate(pool.map(ask, range(10))):
            assert answers == [[number + 1, number + 2, number + 3]] * 10


def test_threads_scan_their_own_variables(client):
    import pyarrow as pa

    def ask(number):
        mine = pa.table({"n": [number]})
        return [client.sql("SELECT n FROM mine").to_pydict()["n"][0] for _ in range(5)], mine.num_rows

    with ThreadPoolExecutor(8) as pool:
        for number, (answers, _rows) in enumerate(pool.map(ask, range(8))):
            assert answers == [number] * 5


def test_other_threads_go_on_while_one_waits(client):
    query = client.sql(ENDLESS)
    counted = 0

    def wait():
        with pytest.raises(windrow.CancelledError):
            query.result()

    waiting = threading.Thread(target=wait)
    waiting.start()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        counted += 1
    query.cancel()
    waiting.join(20)
    assert not waiting.is_alive()
    assert counted > 10_000


def test_an_asyncio_program_shares_a_client(anywhere):
    async def one(number):
        query = await anywhere.sql_async("SELECT $1 AS n", number)
        return (await query.result_async()).to_pydict()["n"][0]

    async def all_of_them():
        return await asyncio.gather(*(one(number) for number in range(20)))

    assert asyncio.run(all_of_them()) == list(range(20))


def test_a_task_that_is_cancelled_cancels_its_query(anywhere, until):
    async def give_up():
        query = await anywhere.sql_async(ENDLESS)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(query.result_async(), 0.3)
        return query

    query = asyncio.run(give_up())
    until(lambda: query.state == "cancelled", "the query is cancelled")


def test_batches_are_read_by_an_event_loop(anywhere):
    async def read():
        query = await anywhere.sql_async("SELECT value FROM generate_series(1, 50000)")
        return sum([len(batch) async for batch in query])

    assert asyncio.run(read()) == 50_000


INTERRUPTED = """
import sys, time, windrow
import pandas, pyarrow  # now: an interrupt while they are imported would have nothing to cancel
client = windrow.{connect}
query = client.sql("{text}")
while query.state != "running":
    pass
print("running", flush=True)
try:
    try:
        {read}
    except pyarrow.ArrowException:
        time.sleep(5)  # pyarrow's word for the end of the stream; the interrupt follows
except KeyboardInterrupt:
    pass
else:
    print("not interrupted", flush=True)
    sys.exit(1)
end = time.monotonic() + 10
while query.state != "cancelled":
    assert time.monotonic() < end, query.state
print("cancelled", flush=True)
assert client.sql("SELECT 1 AS n").to_pydict() == {{"n": [1]}}
client.close()
print("usable", flush=True)
"""

READS = {
    "result": "query.result()",
    "batches": "list(query)",
    "stream": "pyarrow.table(query)",
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("connect", ["connect(slots=1)", "Client(n_workers=1, threads_per_worker=1, memory_limit='128MB')"])
def test_ctrl_c_cancels_what_runs(python, connect, read):
    process = python(INTERRUPTED.format(connect=connect, text=ENDLESS, read=READS[read]))
    assert process.stdout.readline() == "running\n", process.stderr.read()
    time.sleep(0.2)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=30)
    assert process.returncode == 0, (said, wrong)
    assert said.split() == ["cancelled", "usable"]
    assert time.monotonic() - start < 10


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_queries_leave_memory_and_files_as_they_were(anywhere):
    import pyarrow as pa

    def ask(times, given=pa.table({"n": list(range(100))})):  # noqa: B008
        for number in range(times):
            assert anywhere.sql("SELECT count(*) AS c FROM given WHERE n < $1", number % 100).to_pydict() == {"c": [number % 100]}
            anywhere.sql("SELECT value FROM generate_series(1, 1000)")  # dropped unread

    ask(50)
    gc.collect()
    memory, files = resident(), len(os.listdir("/proc/self/fd"))
    ask(500)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files + 4
    assert resident() - memory < 48 << 20


def test_clients_that_are_forgotten_leave_nothing():
    def one():
        client = windrow.connect(slots=1, memory_limit="64MB")
        assert client.sql("SELECT 1 AS n").to_pydict() == {"n": [1]}
        client.close()

    for _ in range(5):
        one()
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for _ in range(20):
        one()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files + 4
    assert threading.active_count() == threads
