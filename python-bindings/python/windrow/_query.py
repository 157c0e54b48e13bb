"""A query that runs, and what comes of it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

from windrow import _progress, _text, _windrow
from windrow._errors import Error, NotFoundError
from windrow._progress import Progress
from windrow._table import ArrowResult, Table


class Query(ArrowResult):
    """A query that runs. It is read in one of three ways: :meth:`result` and the ``to_...`` methods keep all its rows, iterating gives
    batch after batch, and other libraries pull its stream. A query of which nobody holds anything any more is cancelled.

    >>> import windrow
    >>> windrow.sql("SELECT sum(value) AS total FROM generate_series(1, 10)").to_pydict()
    {'total': [55]}
    """

    def __init__(self, query: _windrow.Query) -> None:
        self._query = query
        self._table: Table | None = None
        self._reading = threading.Lock()
        self._was_streamed = False
        self._is_read = False
        self._error: Error | None = None

    @property
    def id(self) -> int | None:
        """Its number, as ``system.queries`` shows it; ``None`` if it was answered without executors."""
        return self._query.id

    @property
    def text(self) -> str:
        """The statement."""
        return self._query.text

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return self._query.columns

    @property
    def dtypes(self) -> dict[str, str]:
        """The types of the columns, as Arrow calls them."""
        return Table(self._query.schema).dtypes

    @property
    def state(self) -> str:
        """``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``."""
        if self._table is not None:
            return "succeeded"
        return self.progress().state

    def progress(self) -> Progress:
        """How far it is."""
        return Progress(**self._query.progress())

    def cancel(self) -> None:
        """Ends it everywhere; who waits for its rows gets a :class:`windrow.CancelledError`. Harmless after its end."""
        self._query.cancel()

    def result(self) -> Table:
        """Waits for all rows and returns them. They are kept, so that every further call is free. Ctrl-C cancels the query."""
        with self._reading:
            if self._table is None:
                self._check_unread()
                shown = _progress.display()
                try:
                    self._table = Table(self._query.collect(shown))
                except Error as error:
                    self._error = error
                    raise
                finally:
                    if shown is not None:
                        shown.close()
            return self._table

    collect = result

    async def result_async(self) -> Table:
        """As :meth:`result`, without holding up the event loop. Cancelling the task cancels the query."""
        import asyncio

        waiting = asyncio.ensure_future(asyncio.to_thread(self.result))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self.cancel()
            # The thread ends with the query; what it raises is nobody's business any more.
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    collect_async = result_async

    def batches(self) -> Iterator[Table]:
        """The rows batch by batch, as they come; those that were read are not kept."""
        if self._table is not None:
            yield from self._table.batches()
            return
        self._begin_batches()
        shown = _progress.display()
        try:
            while (batch := self._query.next_batch(shown)) is not None:
                yield Table(batch)
            self._is_read = True
        except Error as error:
            self._error = error
            raise
        finally:
            if shown is not None:
                shown.close()

    __iter__ = batches

    async def __aiter__(self) -> AsyncIterator[Table]:
        import asyncio

        if self._table is not None:
            for batch in self._table.batches():
                yield batch
            return
        self._begin_batches()
        try:
            while (read := await asyncio.to_thread(self._query.next_batch)) is not None:
                yield Table(read)
            self._is_read = True
        except Error as error:
            self._error = error
            raise

    def _begin_batches(self) -> None:
        """Whoever stopped in the middle goes on there; whoever reads again what was read is told so."""
        if self._error is not None or self._is_read:
            self._check_unread()
        self._was_streamed = True

    def __len__(self) -> int:
        return len(self.result())

    def show(self, n: int = _text.ROWS_SHOWN) -> None:
        """Prints the first rows."""
        print(self.result().head(n))

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows as an Arrow stream: pulled batch by batch, so that a slow reader slows the query down. Dropping the stream cancels it."""
        with self._reading:
            if self._table is not None:
                return self._table.__arrow_c_stream__(requested_schema)
            self._was_streamed = True
            return self._query.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._query.__arrow_c_schema__()

    def _rows(self) -> Table:
        return self.result()

    def _check_unread(self) -> None:
        if self._error is not None:
            raise self._error
        if self._was_streamed:
            raise NotFoundError(
                "some rows of this query were read already, and are gone",
                hint="call result() first, which keeps all of them, or run the statement again",
            )

    def __repr__(self) -> str:
        if self._table is not None:
            return repr(self._table)
        number = "" if self.id is None else f" {self.id}"
        columns = "   ".join(f"{_text.visible(name)}: {of}" for name, of in self.dtypes.items())
        return f"windrow.Query{number} [{self.state}]  .show() prints rows, .result() keeps them\n  {columns}"

    def _repr_html_(self) -> str:
        if self._table is not None:
            return self._table._repr_html_()
        pairs = [("Query", self.id), ("State", self.state), *self.dtypes.items()]
        return _text.html_facts("Query", [(_text.visible(name), value) for name, value in pairs])
