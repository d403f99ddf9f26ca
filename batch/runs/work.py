"""The run directory as the dispatcher sees it."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from batch.dispatch.endpoint import address
from batch.dispatch.request import Request
from batch.dispatch.work import History
from batch.runs.group_sync import GroupSync
from batch.runs.journal import Journal
from batch.runs.keys import keys_of
from batch.runs.layout import Layout
from batch.runs.parts import iter_routed, routed_rows
from batch.runs.replay import Replay, replay
from batch.runs.verdicts import read_verdicts
from schemas.endpoints import ModelSpec

_BATCH_ROWS = 512


class RunWork:
    """Reads routed parts and earlier journals, opens journals. Belongs in one thread."""

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

    def history(self, shard: int) -> History:
        verdicts = read_verdicts(self._layout, shard)
        assert verdicts is not None, "a shard is routed before it is sent"
        if not any(self._layout.journal(shard, model).exists() for model in self._endpoints):
            return History(verdicts.routed)
        replays = {model: replay(self._layout.journal(shard, model)) for model in self._endpoints}
        remaining: dict[str, int] = {}
        finished: set[int] = set()
        sent: dict[int, int] = {}
        ambiguous: dict[int, str | None] = {}
        for model in verdicts.routed:
            reached = [replays[m] for m in (model, *self._fallbacks.get(model, ()))]
            rows = routed_rows(self._layout.routed(model, shard))
            done = [row for row in rows if self._finished(row, reached)]
            finished.update(done)
            remaining[model] = len(rows) - len(done)
            for row in set(rows).difference(done):
                sent[row] = max(journal.attempts.get(row, 0) for journal in reached)
                for journal in reached:
                    if row in journal.ambiguous:
                        ambiguous[row] = journal.ambiguous[row].endpoint
        return History(remaining, finished, sent, ambiguous)

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        for batch in iter_routed(self._layout.routed(model, shard), _BATCH_ROWS):
            columns = [batch.column(name).to_pylist() for name in ("row", "url", "body", "prompt_tokens", "max_tokens")]
            keys = keys_of(batch, columns[2], self._hash_key)
            yield [
                Request(row, shard, url, body, prompt_tokens, max_tokens, model, key=key)
                for row, url, body, prompt_tokens, max_tokens, key in zip(*columns, keys, strict=True)
            ]

    def journal(self, shard: int, model: str) -> Journal:
        return Journal.open(self._layout.journal(shard, model), self._endpoints[model], self._group)

    def _finished(self, row: int, journals: Collection[Replay]) -> bool:
        if any(row in journal.ok for journal in journals):
            return True
        return not self._retry_failed and any(row in journal.failed for journal in journals)
