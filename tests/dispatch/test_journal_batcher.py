"""The journal batcher writes what was added to journals before a request is sent or the event loop waits."""

import asyncio
from dataclasses import dataclass, field

import pytest

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.journal_batcher import JournalBatcher
from batch.dispatch.request import Completion, Request
from batch.errors import StorageError
from batch.outcomes import RowOutcome
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.dispatch.memory_work import MemoryJournal, MemoryWork
from tests.fakes import FunctionTransport, answer
from tests.virtual_time import run


@dataclass(eq=False)
class WaitingJournal(MemoryJournal):
    """A journal that holds lines back until `flush`, which fails once it was called `full` times."""

    written: list[tuple[str, int]] = field(default_factory=list)
    full: int | None = None
    flushes: int = 0
    # The lines of this journal alone.
    own: list[tuple[str, int]] = field(default_factory=list)

    def intent(self, row: int, attempt: int, endpoint: int) -> None:
        super().intent(row, attempt, endpoint)
        self.own.append(("intent", row))

    def outcome(self, outcome: RowOutcome) -> None:
        super().outcome(outcome)
        self.own.append(("outcome", outcome.row))

    def flush(self) -> None:
        if self.own == self.written:
            return
        if self.full is not None and self.flushes >= self.full:
            raise StorageError("the disk is full")
        self.flushes += 1
        self.written[:] = self.own

    def close(self) -> None:
        self.flush()
        super().close()


@dataclass
class WaitingWork(MemoryWork):
    """Rows whose journals hold lines back until they are flushed."""

    full: int | None = None
    opened: dict[tuple[int, str], WaitingJournal] = field(default_factory=dict)

    def journal(self, shard: int, model: str) -> WaitingJournal:
        journal = WaitingJournal(model, self.events, self.outcomes, full=self.full)
        self.opened[shard, model] = journal
        self.journals.append(journal)
        return journal


class Server:
    """A server that answers after a second, and records the rows whose intent was not written when they arrived."""

    def __init__(self, work: WaitingWork) -> None:
        self.sent: list[int] = []
        self.unwritten: list[int] = []
        """Rows that arrived before their intent was written."""
        self._work = work

    async def __call__(self, request: Request, endpoint: EndpointSpec) -> Completion:
        self.sent.append(request.row)
        if ("intent", request.row) not in self._work.opened[request.shard, request.model].written:
            self.unwritten.append(request.row)
        await asyncio.sleep(1)
        return answer()


async def dispatch(work: WaitingWork, server: Server, on_shard: list[int]) -> None:
    limits = LimitsSpec(max_in_flight=8)
    models = [
        ModelSpec(name=name, endpoints=(EndpointSpec(url=f"http://{name}/v1", model=name, limits=limits),))
        for name in ("a", "b")
    ]
    dispatcher = Dispatcher(
        models,
        DispatchSpec(),
        work,
        seed=0,
        keys=lambda name: None,
        wall=lambda: 0.0,
        transports=lambda endpoint: FunctionTransport(server, endpoint),
        on_shard=on_shard.append,
    )
    for shard in sorted({s for s, _ in work.rows}):
        dispatcher.feed(shard)
    dispatcher.close_feed()
    await dispatcher.run()


def rows() -> dict[tuple[int, str], list[int]]:
    return {
        (shard, m): list(range(100 * shard + b, 100 * shard + b + 40))
        for shard in (0, 1)
        for m, b in (("a", 0), ("b", 50))
    }


def test_no_request_goes_out_before_its_intent_is_written_and_a_row_costs_one_write() -> None:
    """Each intent is written before its request is sent, together with the outcome before it."""
    work = WaitingWork(rows())
    server, done = Server(work), list[int]()
    run(dispatch(work, server, done))
    assert server.unwritten == []
    assert sorted(done) == [0, 1]
    assert len(work.outcomes) == 160
    for journal in work.opened.values():
        assert journal.written == journal.own
        # One flush for each intent, and some for the last outcomes before a lane goes on to the next shard.
        assert journal.flushes <= 40 + 8


@pytest.mark.parametrize("full", range(12))
def test_nothing_is_sent_or_trusted_after_a_write_that_failed(full: int) -> None:
    """Whichever write fails, no request is sent without its written intent, and no shard is reported as done."""
    work = WaitingWork(rows(), full=full)
    server, done = Server(work), list[int]()
    with pytest.raises(StorageError, match="the disk is full"):
        run(dispatch(work, server, done))
    assert server.unwritten == []
    assert done == []
    assert all(journal.closed or journal.own != journal.written for journal in work.opened.values())


def test_lines_are_written_before_the_loop_waits() -> None:
    """If no request is sent, the lines of one turn of the event loop are written at its end, in one flush."""

    async def test() -> None:
        writes = JournalBatcher(lambda error: None)
        journal = WaitingJournal("a", [], {})
        for row in range(5):
            writes.add(journal)
            journal.intent(row, 1, 0)
        assert journal.written == []
        await asyncio.sleep(0)
        assert len(journal.written) == 5
        assert journal.flushes == 1

    run(test())


def test_a_failure_at_the_end_of_a_turn_is_reported_and_raised_by_later_writes() -> None:
    """The failure goes to the callback, and each later `write` raises it, since lines before it were not written."""

    async def test() -> None:
        told: list[StorageError] = []
        writes = JournalBatcher(told.append)
        bad, good = WaitingJournal("a", [], {}, full=0), WaitingJournal("b", [], {})
        for journal in (bad, good):
            writes.add(journal)
            journal.intent(0, 1, 0)
        await asyncio.sleep(0)
        assert [str(error) for error in told] == ["the disk is full"]
        for _ in range(2):
            with pytest.raises(StorageError, match="the disk is full"):
                writes.write()

    run(test())
