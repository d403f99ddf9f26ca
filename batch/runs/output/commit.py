"""A shard's journals become its part of the output: one result for each input row, in order."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import orjson

from batch.errors import BadAnswer, NotConnected, RateLimited, StorageError
from batch.outcomes import Billed
from batch.reading.columns import ID_FOUND, LINE
from batch.reading.exact import carried_json, splice_carried
from batch.reading.ids import column_of, column_value, made_up_id
from batch.runs.committed import Committed, write_commit
from batch.runs.integrity.answered import write_answered
from batch.runs.journal.outcomes import Answer, Answers
from batch.runs.journal.replay import OK, Sent
from batch.runs.layout import Layout
from batch.runs.output.parts import part_writer
from batch.runs.output.rows import Result, content_of
from batch.runs.parts import check_scored, iter_part
from batch.runs.routing_record import RoutingRecord, read_routing_record
from batch.runs.schemas import COMMITTED_COLUMNS, PLACE_COLUMNS, SCORE
from batch.storage.atomic import storage_error, sync
from schemas.job import OutputSpec
from schemas.reports import Ambiguous
from schemas.results import ErrorInfo, Status

AttemptOutcome = Literal["ok", "throttled", "error"]

Cost = Callable[[str, int | None, int | None], Decimal | None]
"""Dollars of an answer by (model, prompt tokens, completion tokens); `None`: unknown."""

UNSENT = ErrorInfo(kind="unsent", message="the run ended before this row was sent")

UNKNOWN_ENDPOINT = "unknown"

_ATTEMPT_OUTCOMES: Final[Mapping[str, AttemptOutcome]] = {OK: "ok", RateLimited.kind: "throttled"}
_NOTHING = Decimal(0)


class _Row(NamedTuple):
    """What a commit needs of a scored row; columns that the part lacks are null."""

    row: int
    id: str
    score: float | None
    carry: bytes | None
    error_kind: str | None
    error_message: str | None
    pinned: str | None
    prompt_tokens: int | None
    max_tokens: int | None


class Counts(Protocol):
    """What a commit feeds; `batch.costs.ledger.Ledger` is one."""

    def add_attempt(self, model: str, endpoint: str, outcome: AttemptOutcome) -> None:
        """One request ended so."""

    def add_row(
        self,
        status: Status,
        model: str | None,
        endpoint: str | None,
        prompt_tokens: int | None,
        completion_tokens: int | None,
        latency: float | None,
        error_kind: str | None,
        deduplicated: bool,
        *,
        pinned: bool,
    ) -> None:
        """One row ended so."""

    def add_example(self, kind: str, row: int, row_id: str, status: int | None, message: str) -> None:
        """One row ended in this error."""

    def add_billed(
        self,
        model: str,
        endpoint: str,
        prompt_tokens: int | None,
        completion_tokens: int | None,
        *,
        exact: bool,
    ) -> None:
        """One attempt brought no answer and was billed for so many tokens, or, if not `exact`, for so many at most."""

    def add_superseded(self, model: str, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """One answer is not in the results, since an earlier plan had another model for its row."""

    def to_json(self) -> bytes:
        """Everything counted, as a JSON object."""


def discard_commits(layout: Layout, shards: Iterable[int]) -> None:
    """Forget what was stored of these: from now on their journals say what becomes of their rows. Raises StorageError.

    A sitting that sends their failed rows again may end at any time, and the next one would go by the old counts.
    """
    records = [path for shard in shards if (path := layout.commit(shard)).exists()]
    for path in records:
        try:
            path.unlink()
        except OSError as error:
            raise storage_error(path, error, "remove") from error
    if records:
        folder = records[0].parent
        try:
            sync(folder)
        except OSError as error:
            raise storage_error(folder, error, "sync") from error


def commit_shard(
    layout: Layout,
    shard: int,
    *,
    models: Sequence[str],
    fallbacks: Mapping[str, Sequence[str]],
    output: OutputSpec,
    cost: Cost,
    ledger: Counts,
    unsent: ErrorInfo = UNSENT,
    elsewhere: Callable[[int], Answer | None] = lambda _: None,
    make_up_ids: str | None = None,
) -> Committed:
    """Write the part of `shard` and then its commit record. Done again, it writes the same bytes.

    The scored part gives the rows and their order, the routed parts each row's model, the journals its outcome. A row
    with no outcome is `unsent`. The routing record says which rows repeat an id, which makes them `invalid`, and which
    share another row's answer, which then costs nothing.

    Args:
        models: all of the job's.
        fallbacks: models to which a model's rows may have gone instead.
        output: format, and whether input columns are carried.
        cost: prices.
        ledger: an empty one; it takes every attempt and row of this shard and is stored in the record.
        unsent: why rows were not sent that no outcome speaks of.
        elsewhere: the answer of a row in another shard, for rows that share it.
        make_up_ids: where ids that nobody asked for repeat, what messages call the shard's file: such ids are carried
            as data, and their rows are called `<file>:<line>`.

    Raises:
        StorageError: something cannot be read or written; the shard is then not committed.
    """
    rows = 0
    ambiguous: list[Ambiguous] = []
    with Answers(layout, shard, models, fallbacks) as answers:
        judge = _Judge(answers, _routing_record(layout, shard), elsewhere, cost, unsent)
        lost = _lost(answers)
        any_billed = any(journal.billed for journal in answers.replays.values())
        check_scored(layout, shard)
        with part_writer(layout, shard, output) as part:
            for given in _with_made_up_ids(_rows(layout.scored(shard)), layout.scored(shard), make_up_ids):
                result = judge.result(given)
                if any_billed and judge.routing.shares_answer_of.get(given.row, given.row) == given.row:
                    result = _charged(result, list(answers.billed(given.row)), cost, ledger)
                part.write(result if output.carry else result._replace(carry=None))
                _count_row(ledger, result, shared=judge.shares(result), pinned=given.pinned is not None)
                _note_error(ledger, result)
                ambiguous += [_ambiguous(given, model, sent, cost) for model, sent in lost.get(given.row, ())]
                rows += 1
        _count_attempts(ledger, answers)
        for model, outcome in answers.superseded():
            ledger.add_superseded(model, outcome.prompt_tokens, outcome.completion_tokens)
        notes = (*(n for journal in answers.replays.values() for n in journal.notes), *answers.answered.notes)
        write_answered(layout, shard, answers.answered)
    parts = part.checksums()
    committed = Committed(rows, ledger.to_json(), tuple(ambiguous), notes, parts, make_up_ids is not None)
    write_commit(layout, shard, committed)
    return committed


def _routing_record(layout: Layout, shard: int) -> RoutingRecord:
    record = read_routing_record(layout, shard)
    if record is None:
        raise StorageError(
            f"{layout.routing_record(shard)} is missing: the shard was not routed; --fresh starts a new run"
        )
    return record


def _rows(scored: Path) -> Iterator[_Row]:
    for batch in iter_part(scored, columns=COMMITTED_COLUMNS):
        columns: list[list[Any]] = []
        for name in COMMITTED_COLUMNS:
            if name not in batch.schema.names:
                columns.append([None] * batch.num_rows)
            elif name == SCORE:
                # By way of text: the shortest decimal that is this float32, as 0.116 and not 0.11599999666213989.
                columns.append([_finite(text) for text in batch.column(name).cast("string").to_pylist()])
            else:
                columns.append(batch.column(name).to_pylist())
        yield from map(_Row._make, zip(*columns, strict=True))


def _with_made_up_ids(rows: Iterable[_Row], scored: Path, file: str | None) -> Iterator[_Row]:
    """The rows; with `file`, those whose id nobody asked for have a made-up one, and carry their own."""
    if file is None:
        yield from rows
        return
    places = (
        place
        for batch in iter_part(scored, columns=PLACE_COLUMNS)
        for place in zip(batch.column(LINE).to_pylist(), batch.column(ID_FOUND).to_pylist(), strict=True)
    )
    for given, (line, found) in zip(rows, places, strict=True):
        if found is None:
            yield given
            continue
        own = carried_json({column_of(found): column_value(found, given.id, file)})
        yield given._replace(
            id=made_up_id(file, line), carry=own if given.carry is None else splice_carried(own, given.carry)
        )


def _finite(text: str | None) -> float | None:
    value = float(text) if text is not None else None
    return value if value is not None and isfinite(value) else None


@dataclass(frozen=True)
class _Judge:
    """Says what each row of one shard came to."""

    answers: Answers
    routing: RoutingRecord
    elsewhere: Callable[[int], Answer | None]
    cost: Cost
    unsent: ErrorInfo

    def result(self, given: _Row) -> Result:
        if given.error_kind is not None:
            error = ErrorInfo(kind=given.error_kind, message=given.error_message or given.error_kind)
            return _unanswered(given, "invalid", None, error)
        duplicate = self.routing.duplicate_ids.get(given.row)
        if duplicate is not None:
            return _unanswered(given, "invalid", None, ErrorInfo(kind="duplicate_id", message=duplicate))
        source = self.routing.shares_answer_of.get(given.row, given.row)
        shared = source != given.row
        answer = self.answers.find(source)
        if answer is None and shared and source not in self.answers.planned:
            answer = self.elsewhere(source)
        if answer is not None:
            return _answered(given, answer, self.cost, shared=shared)
        sent = 0 if shared else self.answers.sent(source)
        return _unanswered(given, "unsent", self.answers.planned.get(source), self.unsent, sent)

    def shares(self, result: Result) -> bool:
        """Is the row done, by another row's answer?"""
        return result.row in self.routing.shares_answer_of and result.status in ("ok", "failed")


def _unanswered(given: _Row, status: Status, model: str | None, error: ErrorInfo, attempts: int = 0) -> Result:
    return Result(
        id=given.id,
        row=given.row,
        status=status,
        model=model,
        endpoint=None,
        score=given.score,
        content=None,
        response=None,
        prompt_tokens=None,
        completion_tokens=None,
        cost_usd=None,
        latency_seconds=None,
        attempts=attempts,
        error=error,
        carry=given.carry,
    )


def _answered(given: _Row, answer: Answer, cost: Cost, *, shared: bool) -> Result:
    model, outcome = answer
    status, response, error = outcome.status, outcome.response, outcome.error
    parsed = _parsed(response)
    if response is not None and parsed is None:
        # A transport let it through; one row must not make the whole part unreadable.
        status, response = "failed", None
        error = ErrorInfo(kind=BadAnswer.kind, message="the stored answer is not a JSON object")
    charged = status == "ok"
    dollars = cost(model, outcome.prompt_tokens, outcome.completion_tokens) if charged and not shared else None
    return Result(
        id=given.id,
        row=given.row,
        status=status,
        model=model,
        endpoint=outcome.endpoint,
        score=given.score,
        content=content_of(parsed) if status == "ok" else None,
        response=response,
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        cost_usd=_NOTHING if shared and charged else dollars,
        latency_seconds=None if shared else outcome.latency,
        attempts=0 if shared else outcome.attempts,
        error=error,
        carry=given.carry,
    )


def _charged(result: Result, billed: Sequence[tuple[str, str | None, Billed]], cost: Cost, ledger: Counts) -> Result:
    """The result with the cost of its row's attempts that brought no answer, which the ledger takes too."""
    if not billed:
        return result
    costs = []
    for model, endpoint, tokens in billed:
        prompt_tokens, completion_tokens, exact = tokens
        ledger.add_billed(model, endpoint or UNKNOWN_ENDPOINT, prompt_tokens, completion_tokens, exact=exact)
        if prompt_tokens is not None or completion_tokens is not None:
            costs.append(cost(model, prompt_tokens, completion_tokens))
    if result.status == "ok":
        costs.append(result.cost_usd)
    known = [dollars for dollars in costs if dollars is not None]
    return result._replace(cost_usd=sum(known, _NOTHING) if known and len(known) == len(costs) else None)


def _parsed(response: bytes | None) -> dict[str, Any] | None:
    try:
        parsed = None if response is None else orjson.loads(response)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _count_row(ledger: Counts, result: Result, *, shared: bool, pinned: bool) -> None:
    ledger.add_row(
        result.status,
        result.model,
        result.endpoint,
        result.prompt_tokens,
        result.completion_tokens,
        result.latency_seconds,
        None if result.error is None else result.error.kind,
        shared,
        pinned=pinned,
    )


def _note_error(ledger: Counts, result: Result) -> None:
    if result.error is not None:
        ledger.add_example(result.error.kind, result.row, result.id, result.error.status, result.error.message)


def _count_attempts(ledger: Counts, answers: Answers) -> None:
    for model, journal in answers.replays.items():
        for (endpoint, kind), times in journal.ended.items():
            # What reached no server was not sent.
            if kind != NotConnected.kind:
                for _ in range(times):
                    ledger.add_attempt(model, endpoint or UNKNOWN_ENDPOINT, _ATTEMPT_OUTCOMES.get(kind, "error"))


def _lost(answers: Answers) -> dict[int, list[tuple[str, Sent]]]:
    lost: dict[int, list[tuple[str, Sent]]] = {}
    for model, journal in answers.replays.items():
        for sent in journal.lost:
            lost.setdefault(sent.row, []).append((model, sent))
    return lost


def _ambiguous(given: _Row, model: str, sent: Sent, cost: Cost) -> Ambiguous:
    most = None if given.max_tokens is None else cost(model, given.prompt_tokens, given.max_tokens)
    return Ambiguous(id=given.id, row=given.row, model=model, endpoint=sent.endpoint or UNKNOWN_ENDPOINT, cost_usd=most)
