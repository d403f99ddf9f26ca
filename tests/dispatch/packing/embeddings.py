"""Rows to embed, and answers to them."""

from typing import Any

import orjson

from batch.dispatch.packing.packs import pack, packable_row
from batch.dispatch.request import Completion, Request
from schemas.openai_batch import EMBEDDINGS_URL


def embedding(
    row: int, value: object = "text", *, tokens: int = 1, url: str = EMBEDDINGS_URL, **params: Any
) -> Request:
    return Request(row, 0, url, orjson.dumps({"input": value, **params}), tokens, None, "m")


def packed(*rows: Request) -> Request:
    return pack([piece for row in rows if (piece := packable_row(row)) is not None])


def answer(*items: object, usage: object = None, **more: Any) -> Completion:
    tokens = usage["prompt_tokens"] if isinstance(usage, dict) else None
    told = {"object": "list", "data": items, "model": "m", **more} | ({"usage": usage} if usage is not None else {})
    return Completion(orjson.dumps(told), tokens, None if tokens is None else 0)
