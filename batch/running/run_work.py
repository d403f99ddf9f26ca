"""Gives the dispatcher the rows to send, from routed parts and journals, and the journals to write."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from batch.dispatch.endpoint import address
from batch.dispatch.ports import History
from batch.dispatch.request import Request
from batch.runs.affinity_keys import affinity_keys
from batch.runs.integrity.answered import replay_all, write_answered
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.journal.replay import Failures, Replay
from batch.runs.journal.writer import Journal
from batch.runs.layout import Layout
from batch.runs.parts import iter_routed, routed_rows
from batch.runs.routing_record import read_routing_record
from batch.runs.schemas import REQUEST_COLUMNS
from schemas.endpoints import ModelSpec

_BATCH_ROWS = 512


class RunWork:
    """Reads routed parts and earlier journals, opens journals.

    Belongs in one thread, but `history`, which may take seconds, may be called in another. Holds a byte for each row
    of the shards that an earlier sitting began.
    """

    def __init__(
        self,
        layout: Layout,
        models: Sequence[ModelSpec],
        fallbacks: Mapping[str, Sequence[str]],
        group: GroupSync,
        *,
        retry_failed: bool = False,
        hash_key: str | None = None,
    ) -> None:
        """
        Args:
            models: with every endpoint's `url` and `model` filled in.
            retry_failed: rows that failed are not finished.
            hash_key: what requests get their `key` from; left out: they need none.
        """
        self._layout = layout
        self._endpoints = {m.name: [address(e, m.name) for e in m.endpoints] for m in models}
        self._fallbacks = fallbacks
        self._group = group
        self._retry_failed = retry_failed
        self._hash_key = hash_key
        self._left: dict[tuple[int, str], NDArray[np.bool_]] = {}

    def history(self, shard: int) -> History:
        record = read_routing_record(self._layout, shard)
        assert record is not None, "a shard is routed before it is sent"
        journals = (self._layout.journal(shard, model) for model in self._endpoints)
        if not self._layout.answered(shard).exists() and not any(journal.exists() for journal in journals):
            return History(record.routed)
        replays, answered = replay_all(self._layout, shard, self._endpoints)
        # Before anything is sent: later the journals hold these rows again, and what was lost of them must be known.
        write_answered(self._layout, shard, answered)
        remaining: dict[str, int] = {}
        sent: dict[int, int] = {}
        ambiguous: dict[int, str | None] = {}
        failures: dict[int, Failures] = {}
        for model in record.routed:
            reached = [replays[m] for m in (model, *self._fallbacks.get(model, ()))]
            rows = routed_rows(self._layout.routed(model, shard))
            finished = self._finished(reached)
            left = np.fromiter((row not in finished for row in rows), np.bool_, len(rows))
            self._left[shard, model] = left
            remaining[model] = int(np.count_nonzero(left))
            for row in compress(rows, left):
                for journal in reached:
                    if row in journal.attempts:
                        sent[row] = max(journal.attempts[row], sent.get(row, 0))
                    if row in journal.failures:
                        failed, before = journal.failures[row], failures.get(row)
                        failures[row] = failed._replace(counted=failed.counted + (before.counted if before else 0))
                    if row in journal.ambiguous:
                        ambiguous[row] = journal.ambiguous[row].endpoint
        return History(remaining, sent=sent, failures=failures, ambiguous=ambiguous)

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        """The rows that `history` left; all of them where it was not asked, or found no journal."""
        left = self._left.get((shard, model))
        start = 0
        for batch in iter_routed(self._layout.routed(model, shard), _BATCH_ROWS):
            kept = left[start : start + batch.num_rows] if left is not None else None
            start += batch.num_rows
            if kept is not None and not kept.any():
                continue
            columns = [batch.column(name).to_pylist() for name in REQUEST_COLUMNS]
            columns.append(affinity_keys(batch, columns[2], self._hash_key))
            rows = zip(*columns, strict=True) if kept is None else compress(zip(*columns, strict=True), kept)
            yield [
                Request(row, shard, url, body, prompt_tokens, max_tokens, model, key=key)
                for row, url, body, prompt_tokens, max_tokens, key in rows
            ]

    def journal(self, shard: int, model: str) -> Journal:
        return Journal.open(self._layout.journal(shard, model), self._endpoints[model], self._group)

    def _finished(self, journals: Iterable[Replay]) -> set[int]:
        finished: set[int] = set()
        for journal in journals:
            finished |= journal.ok
            if not self._retry_failed:
                finished |= journal.failed
        return finished
