"""Embeds prompts by calling `/v1/embeddings`, through a dispatcher of its own.

The dispatcher does limits, balancing, retries, health and packing, so they are as exact here as for the rows
themselves, as long as only one process calls the endpoints.
"""

import threading
import weakref
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from batch.arrays import Float32s
from batch.costs.prices import prices_for
from batch.costs.tokens import counter
from batch.dispatch.budget import Pricing
from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.limits.open_files import connections
from batch.dispatch.ports import History
from batch.dispatch.request import Request
from batch.environment import Environment
from batch.errors import BadRequest, BatchRouterError, EmbedderError, SpecError
from batch.loop_thread import LoopThread
from batch.outcomes import FailedAttempt, RowOutcome
from batch.routers.embedders.spending_log import SpendingLog, read_spending
from batch.routers.embedders.vector_cache import Vector, VectorCache, key_of
from schemas.embedders import EndpointEmbedderSpec
from schemas.job import DispatchSpec
from schemas.openai_batch import EMBEDDINGS_URL
from schemas.results import ErrorInfo

# Tokens of common vocabularies average more than two bytes in nearly every text, of any script.
_BYTES_PER_TOKEN = 2
# Vectors come within seconds; if they do not, every row waits, so the timeout is shorter than for rows.
_DISPATCH = DispatchSpec(timeout_seconds=120)
_LOOK_SECONDS = 0.1
# Encoders put up to two tokens around a text.
_TOKENS_AROUND = 2


class EndpointEmbedder:
    """Vectors from endpoints. A text that repeats, or whose vector is in the cache, is not sent again."""

    def __init__(
        self,
        spec: EndpointEmbedderSpec,
        *,
        dimension: int | None,
        max_tokens: int,
        environment: Environment,
        dispatch: DispatchSpec = _DISPATCH,
        key: str = "router.embedder",
    ) -> None:
        """Keep the values; the first text sends the first request, looks up keys and makes files.

        Args:
            dimension: length that vectors must have; `None`: that of the first.
            max_tokens: where prompts are cut, if the spec does not say.
            dispatch: how requests are sent.
            key: what the user calls the embedder, for messages.
        """
        self._spec = spec
        self._key = key
        self.dimension = dimension
        self._longest = _BYTES_PER_TOKEN * (spec.max_tokens or max_tokens)
        self._outside = environment
        self._dispatch = dispatch
        self._cache: VectorCache | None = None
        self._line: _Line | None = None

    def embed(self, texts: Sequence[str]) -> Float32s:
        """Return vectors of shape `(len(texts), dimension)`, in the order of `texts`; all of them, or it raises.

        Raises:
            SpecError: an endpoint's key or url is missing, every endpoint refuses for good, a prompt is refused, or
                vectors are not what the checkpoint was trained on.
            EmbedderError: the endpoints stayed unreachable, or prompts had no good answer in all their attempts.
            StorageError: the cache, or the log of what is spent, cannot be used.
        """
        cut = [self._cut(text) for text in texts]
        keys = {text: key_of(self._spec.model, self._spec.dimensions, text) for text in cut}
        if self._cache is None and self._spec.cache is not None:
            self._cache = VectorCache(Path(self._spec.cache))
        known = self._cache.get(list(keys.values())) if self._cache is not None else {}
        missing = [text for text, key in keys.items() if not self._fits(known.get(key))]
        if missing:
            known |= self._ask({text: keys[text] for text in missing})
        vectors = np.empty((len(cut), self.dimension or 0), dtype=np.float32)
        for row, text in enumerate(cut):
            vectors[row] = known[keys[text]]
        return vectors

    def _ask(self, missing: dict[str, bytes]) -> dict[bytes, Vector]:
        if self._line is None:
            line = _Line(self._spec, self._outside, self._dispatch)
            line.start()
            self._line = line
            # The line's thread holds no reference to the embedder, so it can end when the embedder is collected.
            weakref.finalize(self, self._line.close)
        keys = list(missing.values())
        got: dict[bytes, Vector] = {}
        wrong: Vector | None = None

        def keep(answered: dict[int, Vector]) -> None:
            nonlocal wrong
            fitting = {keys[row]: vector for row, vector in answered.items() if self._fits(vector)}
            if len(fitting) < len(answered):
                wrong = next(vector for vector in answered.values() if not self._fits(vector))
            if self._cache is not None and fitting:
                self._cache.put(fitting)
            got.update(fitting)

        call = self._line.send(list(missing), keep)
        if call.error is not None:
            raise _failure(call.error, self._key)
        if wrong is not None:
            gives = f"{self._key}: {self._spec.model} gives {_described(wrong)}"
            raise SpecError(
                f"{gives}; the checkpoint was trained on vectors of {self.dimension}" if self.dimension else gives
            )
        return got

    def _cut(self, text: str) -> str:
        # Empty inputs are refused.
        raw = text.encode()[: self._longest] or b" "
        return raw.decode(errors="ignore")

    def _fits(self, vector: Vector | None) -> bool:
        if vector is None or vector.ndim != 1 or not np.isfinite(vector).all():
            return False
        if self.dimension is None:
            self.dimension = vector.size
        return vector.size == self.dimension


def _described(vector: Vector) -> str:
    return f"vectors of {vector.size}" if vector.ndim == 1 and np.isfinite(vector).all() else "no numbers"


def _failure(error: ErrorInfo, key: str) -> BatchRouterError:
    if error.kind == BadRequest.kind:
        return SpecError(f"{key}: a prompt is refused: {error.message}; {key}.max_tokens cuts long ones shorter")
    if error.kind == "budget":
        return EmbedderError(
            f"{key}: dispatch.budget_usd does not cover embedding the prompts: {error.message}; "
            "raise it, then rerun the same command to resume"
        )
    if error.kind == "refused":
        return SpecError(f"{key}: {error.message}")
    return EmbedderError(f"{key}: {error.message}; rerun the same command to resume")


@dataclass(eq=False)
class _Call:
    """Texts to embed, and the vectors that came, by their place among the texts."""

    texts: Sequence[str]
    tokens: Sequence[int]
    log: SpendingLog | None
    error: ErrorInfo | None = None
    """Of one that was not answered."""
    ended: threading.Event = field(default_factory=threading.Event)
    _fresh: deque[tuple[int, Vector]] = field(default_factory=deque)

    def take(self) -> dict[int, Vector]:
        """Vectors that have come since the last call. Another thread than the dispatcher's may ask."""
        taken = {}
        while self._fresh:
            row, vector = self._fresh.popleft()
            taken[row] = vector
        return taken

    def intent(self, row: int, attempt: int, endpoint: int) -> None:
        """Record that a text is about to be sent. If its answer is lost, it is sent again, and both may be billed."""
        if self.log is not None:
            self.log.sent(1, self._bound(row))

    def attempt(self, attempt: FailedAttempt) -> None:
        """Record an attempt that failed, may have been billed, and is followed by another."""
        self._settle(attempt.row, attempt.billed.prompt_tokens if attempt.billed is not None else 0)

    def outcome(self, outcome: RowOutcome) -> None:
        """Keep a text's vector, or the error of a text that gets none."""
        if outcome.status == "ok":
            assert outcome.response is not None, "answers have a response"
            self._settle(outcome.row, outcome.prompt_tokens)
            self._fresh.append((outcome.row, _vector(outcome.response)))
            return
        self.error = outcome.error
        if outcome.status == "failed":
            self._settle(outcome.row, outcome.billed.prompt_tokens if outcome.billed is not None else 0)

    def flush(self) -> None:
        """Write what was recorded of spending to its log."""
        if self.log is not None:
            self.log.flush()

    def close(self) -> None:
        """Flush; the log stays open for the next call."""
        self.flush()

    def _settle(self, row: int, tokens: int | None) -> None:
        """Record the end of an attempt for which `tokens` may be billed; `None`: the number is unknown."""
        if self.log is not None:
            bound = self._bound(row)
            self.log.ended(1, bound, bound if tokens is None else tokens)

    def _bound(self, row: int) -> int:
        """Most tokens that a text can have: one for each byte, and those that an encoder adds around it."""
        return len(self.texts[row].encode()) + _TOKENS_AROUND


class _Calls:
    """Work of a dispatcher: each call is a shard."""

    def __init__(self, model: str, dimensions: int | None) -> None:
        self._model = model
        self._params = {} if dimensions is None else {"dimensions": dimensions}
        self.open: dict[int, _Call] = {}

    def history(self, shard: int) -> History:
        return History({self._model: len(self.open[shard].texts)})

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        call = self.open[shard]
        for row, (text, tokens) in enumerate(zip(call.texts, call.tokens, strict=True)):
            body = orjson.dumps({"input": text, **self._params})
            yield [Request(row, shard, EMBEDDINGS_URL, body, tokens, None, model)]

    def journal(self, shard: int, model: str) -> _Call:
        return self.open[shard]


class _Line:
    """A dispatcher in a thread of its own, which keeps its limits and its findings between calls."""

    def __init__(self, spec: EndpointEmbedderSpec, environment: Environment, dispatch: DispatchSpec) -> None:
        """Raises SpecError where there is a budget and no price of the embedder is known."""
        self._pool = spec.pool()
        self._calls = _Calls(self._pool.name, spec.dimensions)
        self._outside = environment
        self._price = prices_for([self._pool])[self._pool.name]
        record = environment.spending
        cap = record.cap if record is not None else None
        if cap is not None and self._price is None:
            raise SpecError(
                f"dispatch.budget_usd: what {self._pool.name} costs is not known; give router.embedder.price"
            )
        # Not validated again: where earlier sittings have spent it all, the cap is 0 or less, and nothing is sent.
        self._dispatch = dispatch.model_copy(update={"budget_usd": cap})
        self._log = SpendingLog(record.log, self._pool.name, self._price) if record is not None else None
        counted = any(e.limits.tpm or e.limits.input_tpm for e in self._pool.endpoints)
        self._count = counter("exact" if counted else "estimate", self._pool.name)
        self._sent = 0
        self._thread = LoopThread("embedder", self._run)

    def start(self) -> None:
        """Start the thread.

        Raises:
            SpecError: an endpoint's key or url is missing.
            StorageError: the log of what is spent cannot be used.
        """
        self._thread.start()

    def send(self, texts: Sequence[str], keep: Callable[[dict[int, Vector]], None]) -> _Call:
        """Ask for the vector of every text; the call that is returned has an error if one of them has none.

        Args:
            keep: called in this thread, several times a second, with the vectors that came since, by the place of
                their text; and with the last of them before this returns or raises. What was answered has been paid
                for, so it is kept at once: a call of thousands of texts may be killed before its end.
        """
        call = _Call(texts, self._count(texts), self._log)
        number = self._sent
        self._sent += 1
        self._calls.open[number] = call
        # Does nothing where the loop has closed: an error closed it, which is raised below.
        self._thread.call(partial(self._dispatcher.feed, number))
        lane = self._dispatcher.lanes[self._pool.name]
        try:
            while not call.ended.wait(_LOOK_SECONDS):
                if self._thread.error is not None:
                    raise self._thread.error
                if lane.stalled is not None:
                    call.error = ErrorInfo(kind="unreachable", message=lane.stalled)
                    break
                keep(call.take())
        finally:
            keep(call.take())
        return call

    def close(self) -> None:
        """End the thread."""
        self._thread.call(self._dispatcher.drain)

    async def _run(self, ready: Callable[[], None]) -> None:
        record = self._outside.spending
        with self._log if self._log is not None else nullcontext():
            self._dispatcher = Dispatcher(
                [self._pool],
                self._dispatch,
                self._calls,
                seed=0,
                keys=self._outside.keys,
                wall=self._outside.wall,
                pricing={} if self._price is None else {self._pool.name: Pricing.at(self._price)},
                connections=connections(len(self._pool.endpoints)),
                spent=read_spending(record.log).usd if record is not None else Decimal(0),
                on_shard=lambda number: self._calls.open.pop(number).ended.set(),
            )
            ready()
            await self._dispatcher.run()


def _vector(response: bytes) -> Vector:
    """The numbers in an answer; a single NaN if it has none."""
    try:
        (item,) = orjson.loads(response)["data"]
        value: Any = item["embedding"]
        if isinstance(value, str):
            return np.frombuffer(b64decode(value, validate=True), "<f4").astype(np.float32)
        return np.array(value, dtype=np.float32)
    except (ValueError, KeyError, TypeError):
        return np.full(1, np.nan, dtype=np.float32)
