"""Several embedding rows in one HTTP request, and an answer for each of them out of its one answer.

Rows travel together if their bodies are equal but for `input`, and each has one input. To the pool a packed request is
a request like any other, of one request and the sum of its tokens; intents, outcomes and attempts stay the rows' own.
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

# OpenAI takes 300,000 tokens in one request of embeddings; ours are partly estimates.
_MOST_TOKENS = 200_000
# The least that common servers take of a request's body is 2 MB (text-embeddings-inference).
_MOST_BYTES = 1_500_000
# Servers refuse at any time what exceeds the tokens that they let through at once, which is rarely less than this.
_SECONDS_OF_TOKENS = 6.0


@dataclass(frozen=True, slots=True)
class PackableRow:
    """A row that may travel with others."""

    row: Request
    input: bytes
    """JSON of its one input."""
    alike: tuple[type, bytes]
    """Equal for rows that may share a request: a text or a list of tokens, and the JSON of all other parameters."""


def packable_row(row: Request) -> PackableRow | None:
    """The row as a piece of a larger request; `None` if it has to go alone."""
    if row.url != EMBEDDINGS_URL:
        return None
    params = orjson.loads(row.body)
    value = params.pop("input", None)
    is_tokens = isinstance(value, list) and bool(value) and all(type(token) is int for token in value)
    if not (isinstance(value, str) or is_tokens):
        return None
    return PackableRow(row, orjson.dumps(value), (type(value), orjson.dumps(params, option=orjson.OPT_SORT_KEYS)))


def pack(pieces: Sequence[PackableRow]) -> Request:
    """One request for pieces that are alike; of a single one, its row as it is."""
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
    """A packed request as two."""
    pieces = [piece for row in request.rows if (piece := packable_row(row)) is not None]
    middle = len(pieces) // 2
    yield pack(pieces[:middle])
    yield pack(pieces[middle:])


def split_answers(request: Request, completion: Completion) -> Sequence[Completion]:
    """The answers of a packed request's rows, each as if it had been asked alone, in the order of the rows.

    Usage is shared out by the rows' own counts of tokens, and adds up to the whole exactly.

    Raises:
        PackMixedUp: it does not hold exactly one item for each input, or does not say which is whose.
        BadAnswer: it cannot be taken apart.
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
    """Add the items whose `index` was left out, where it is clear which they are; is it?

    Protocol buffers leave a 0 out (Gemini), so that a single index that is missing is the one that no other item has.
    Others leave all of them out: then the order is that of the inputs, unless an index that is there says otherwise.
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
    """Where rows wait."""

    def get_nowait(self) -> Request | None:
        """The next row, if there is one now."""
        ...

    def put_back(self, request: Request) -> None:
        """Give it out again."""
        ...


def fill_pack(row: Request, queue: RowSource, endpoints: Sequence[Endpoint]) -> Request:
    """The row with as many others as any endpoint of the pool takes at once; nothing is waited for."""
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
    """Tokens that a packed request may have."""
    per_minute = min((tpm for tpm in (limits.tpm, limits.input_tpm) if tpm is not None), default=None)
    if per_minute is None:
        return _MOST_TOKENS
    return min(_MOST_TOKENS, per_minute / 60 * min(_SECONDS_OF_TOKENS, limits.window_seconds or _SECONDS_OF_TOKENS))
