"""Several shards are fed at once: the dispatcher reads their journals while it sends rows of earlier shards."""

import asyncio
from dataclasses import dataclass, field
from threading import Event

import pytest

from batch.dispatch.dispatcher import DispatchEnd
from batch.dispatch.ports import History
from batch.dispatch.request import Completion, Request
from batch.errors import StorageError
from schemas.endpoints import EndpointSpec, ModelSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import Behaviour, answer

# Far longer than needed; only a failing test waits this long.
_PATIENCE_SECONDS = 10.0


@dataclass
class SlowWork(MemoryWork):
    """Work whose history of shard 1 is only returned once `go_on` is set."""

    go_on: Event = field(default_factory=Event)
    told: bool | None = None

    def history(self, shard: int) -> History:
        if shard == 1:
            self.told = self.go_on.wait(_PATIENCE_SECONDS)
        return super().history(shard)


class UnreadableWork(MemoryWork):
    """Work whose journal of shard 1 cannot be read."""

    def history(self, shard: int) -> History:
        if shard == 1:
            raise StorageError("cannot read the journal")
        return super().history(shard)


def dispatch(work: MemoryWork, behaviour: Behaviour, *, drain_first: bool = False) -> DispatchEnd:
    """Feed shards 0 and 1, close the feed, and run to the end."""

    async def main() -> DispatchEnd:
        dispatcher = built(
            work, behaviour, [ModelSpec(name="a", endpoints=(EndpointSpec(url="http://a/v1", model="a"),))]
        )
        dispatcher.feed_all([0, 1])
        if drain_first:
            dispatcher.drain()
        dispatcher.close_feed()
        return await dispatcher.run()

    return asyncio.run(main())


async def yes(request: Request, endpoint: EndpointSpec) -> Completion:
    return answer()


def test_rows_of_the_first_shard_are_sent_while_the_next_is_looked_up() -> None:
    """Reading the journal of one shard does not delay the rows of another, and the run ends only after both."""
    work = SlowWork({(0, "a"): [0, 1], (1, "a"): [2, 3]})

    async def tell(request: Request, endpoint: EndpointSpec) -> Completion:
        work.go_on.set()
        return answer()

    end = dispatch(work, tell)
    assert work.told, "nothing was sent until the second shard was looked up"
    assert sorted(work.outcomes) == [0, 1, 2, 3]
    assert not end.interrupted


def test_a_journal_that_cannot_be_read_stops_the_run() -> None:
    """The rows of that shard may have been paid for already, so none of them is sent."""
    work = UnreadableWork({(0, "a"): [0], (1, "a"): [1]})
    with pytest.raises(StorageError, match="cannot read the journal"):
        dispatch(work, yes)
    assert 1 not in work.outcomes


def test_shards_that_were_not_read_before_a_drain_are_left_over() -> None:
    """After a drain before any shard was read, the run ends as interrupted and nothing was sent."""
    work = MemoryWork({(0, "a"): [0], (1, "a"): [1]})
    assert dispatch(work, yes, drain_first=True).interrupted
    assert not work.outcomes
