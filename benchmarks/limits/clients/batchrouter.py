"""batchrouter's dispatcher, with its limits, retries, balancing and journals written with fsync."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.ports import History
from batch.dispatch.request import Request
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.journal.writer import Journal
from benchmarks.limits.clients.batch import Batch
from benchmarks.limits.rows import prompt, prompt_tokens
from schemas.endpoints import ModelSpec
from schemas.job import DispatchSpec

MODEL = "m"
_ROWS_AT_ONCE = 512


class _Work:
    """Gives the dispatcher one shard of generated rows, and a journal on disk."""

    def __init__(self, batch: Batch, group: GroupSync) -> None:
        self._batch = batch
        self._group = group

    def history(self, shard: int) -> History:
        return History({MODEL: self._batch.rows})

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        for first in range(0, self._batch.rows, _ROWS_AT_ONCE):
            yield [self._request(row) for row in range(first, min(first + _ROWS_AT_ONCE, self._batch.rows))]

    def journal(self, shard: int, model: str) -> Journal:
        urls = [str(endpoint.url) for endpoint in self._batch.endpoints]
        return Journal.open(Path(self._batch.folder) / "journal.jsonl", urls, self._group)

    def _request(self, row: int) -> Request:
        text = prompt(row)
        max_tokens = self._batch.max_tokens
        body = json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}).encode()
        return Request(row, 0, "/v1/chat/completions", body, prompt_tokens(text), max_tokens, MODEL)


async def main(batch: Batch) -> None:
    """Send the batch."""
    with GroupSync() as group:
        dispatcher = Dispatcher(
            [ModelSpec(name=MODEL, endpoints=batch.endpoints)],
            DispatchSpec(max_attempts=batch.attempts, timeout_seconds=batch.timeout_seconds),
            _Work(batch, group),
            seed=0,
            keys=lambda name: None,
            wall=time.time,
        )
        dispatcher.feed(0)
        dispatcher.close_feed()
        await dispatcher.run()


if __name__ == "__main__":
    uvloop.run(main(Batch.model_validate_json(sys.stdin.read())))
