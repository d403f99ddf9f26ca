"""Packs several embedding rows into one HTTP request, and splits its answer into one for each row.

Rows can be packed together if each has one input and their bodies are equal otherwise. To the pool a packed request is
a request like any other, with the sum of the rows' tokens. Intents, attempts and outcomes are journaled row by row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from batch.dispatch.billed_tokens import share_out
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Completion, Request
from batch.errors import BadAnswer, PackMixedUp
from schemas.endpoints import LimitsSpec
from schemas.openai_batch import EMBEDDINGS_URL

# OpenAI takes 300,000 tokens in one request for embeddings; our counts are partly estimates.
_MOST_TOKENS = 200_000
# The smallest limit on a request's body among common servers is 2 MB (text-embeddings-inference).
_MOST_BYTES = 1_500_000
# Servers refuse a request that exceeds the tokens which they let through at once; that is rarely less than this many
# seconds of their limit.
_SECONDS_OF_TOKENS = 6.0


@dataclass(frozen=True, slots=True)
class PackableRow:
    """A row that may be packed with others."""

    row: Request
    input: bytes
    """Its one input, as JSON."""
    alike: tuple[type, bytes]
    """Equal for rows that may share a request: the input's type, and the JSON of all other parameters."""


def packable_row(row: Request) -> PackableRow | None:
    """The row as one that may be packed; `None` if it must be sent alone."""
    if row.url != EMBEDDINGS_URL:
        return None
    params = orjson.loads(row.body)
    value = params.pop("input", None)
    is_tokens = isinstance(value, list) and bool(value) and all(type(token) is int for token in value)
    if not (isinstance(value, str) or is_tokens):
        return None
    return PackableRow(row, orjson.dumps(value), (type(value), orjson.dumps(params, option=orjson.OPT_SORT_KEYS)))


def pack(pieces: Sequence[PackableRow]) -> Request:
    """One request for rows that are alike; for a single row, the row itself."""
    first = pieces[0].row
    if len(pieces) == 1:
        return first
    params = pieces[0].alike[1]
    rest = b"}" if params == b"{}" else b"," + params[1:]
    avoid = 0
    for piece in pieces:
        avoid |= piece.row.avoid
    return Request(
        row=first.row,
        shard=first.shard,
        url=first.url,
        body=b'{"input":[' + b",".join(piece.input for piece in pieces) + b"]" + rest,
        prompt_tokens=sum(piece.row.prompt_tokens for piece in pieces),
        max_tokens=None,
        model=first.model,
        avoid=avoid,
        key=first.key,
        rows=tuple(piece.row for piece in pieces),
    )


def halves(request: Request) -> Iterator[Request]:
    """Split a packed request into two."""
    pieces = [piece for row in request.rows if (piece := packable_row(row)) is not None]
    middle = len(pieces) // 2
    yield pack(pieces[:middle])
    yield pack(pieces[middle:])


def split_answers(request: Request, completion: Completion) -> Sequence[Completion]:
    """Split the answer to a packed request: one for each row, as if it had been sent alone, in the order of the rows.

    Usage is divided in proportion to the rows' own token counts, and adds up to the whole exactly.

    Raises:
        PackMixedUp: the answer does not hold exactly one item for each input, or not which item belongs to which input.
        BadAnswer: the answer cannot be split.
    """
    answer = orjson.loads(completion.raw)
    items = answer["data"]
    count = len(request.rows)
    by_index = {item["index"]: item for item in items if isinstance(item, dict) and isinstance(item.get("index"), int)}
    if len(items) != count or (by_index.keys() != set(range(count)) and not _complete(by_index, items)):
        raise PackMixedUp(
            f"{len(items)} embeddings came, not one for each of {count} inputs",
            status=200,
            usage=(completion.prompt_tokens, completion.completion_tokens),
        )
    try:
        return _shared_out(answer, by_index, request.rows, completion)
    except (orjson.JSONEncodeError, RecursionError) as error:
        # orjson reads deeper nesting than it writes.
        raise BadAnswer(
            "the embeddings are nested too deeply to be taken apart",
            status=200,
            usage=(completion.prompt_tokens, completion.completion_tokens),
        ) from error


def _complete(by_index: dict[int, Any], items: Sequence[Any]) -> bool:
    """Add the items without an `index`, if their places are clear. Returns whether they are.

    Protocol buffers omit a 0 (Gemini), so a single missing index is the one that no other item has. Other servers omit
    all of them: the items are then in the order of the inputs, unless an index that is there contradicts it.
    """
    unnumbered = [i for i, item in enumerate(items) if isinstance(item, dict) and item.get("index") is None]
    if len(by_index) + len(unnumbered) != len(items) or not by_index.keys() <= set(range(len(items))):
        return False
    if len(unnumbered) == 1:
        (left,) = set(range(len(items))) - by_index.keys()
        by_index[left] = items[unnumbered[0]]
        return True
    by_index.update((i, items[i]) for i in unnumbered if i not in by_index)
    return all(by_index.get(i) is item for i, item in enumerate(items))


def _shared_out(
    answer: dict[str, Any], by_index: Mapping[int, Any], rows: Sequence[Request], completion: Completion
) -> list[Completion]:
    weights = [row.prompt_tokens for row in rows]
    usage = share_out(answer.get("usage"), weights)
    prompt_tokens = share_out(completion.prompt_tokens, weights)
    completion_tokens = share_out(completion.completion_tokens, weights)
    answers = []
    for i in range(len(rows)):
        own = {"data": [{**by_index[i], "index": 0}], "usage": usage[i]}
        raw = orjson.dumps({key: own.get(key, value) for key, value in answer.items()})
        answers.append(Completion(raw, prompt_tokens[i], completion_tokens[i]))
    return answers


class RowSource(Protocol):
    """What gives rows to be packed."""

    def get_nowait(self) -> Request | None:
        """The next row; `None` if there is none now."""
        ...

    def put_back(self, request: Request) -> None:
        """Take the row back, to give it out again."""
        ...


def fill_pack(row: Request, queue: RowSource, endpoints: Sequence[Endpoint]) -> Request:
    """Pack the row with others at hand, as many as every endpoint of the pool takes at once. Never waits for rows."""
    first = packable_row(row)
    if first is None:
        return row
    usable = [endpoint for endpoint in endpoints if not endpoint.out]
    most = min((endpoint.pack_size.allowed for endpoint in usable), default=1)
    tokens = min((_most_tokens(endpoint.spec.limits) for endpoint in usable), default=0.0) - row.prompt_tokens
    size = _MOST_BYTES - len(row.body)
    pieces = [first]
    while len(pieces) < most and (other := queue.get_nowait()) is not None:
        piece = packable_row(other)
        tokens -= other.prompt_tokens
        size -= len(other.body)
        if piece is None or piece.alike != first.alike or tokens < 0 or size < 0:
            queue.put_back(other)
            break
        pieces.append(piece)
    return pack(pieces)


def _most_tokens(limits: LimitsSpec) -> float:
    """The most tokens that a packed request may have."""
    per_minute = min((tpm for tpm in (limits.tpm, limits.input_tpm) if tpm is not None), default=None)
    if per_minute is None:
        return _MOST_TOKENS
    return min(_MOST_TOKENS, per_minute / 60 * min(_SECONDS_OF_TOKENS, limits.window_seconds or _SECONDS_OF_TOKENS))
