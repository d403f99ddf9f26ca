"""An attempt without an answer is billed by its usage or by the most it can have cost, for each of its rows."""

from batch.dispatch.billed_tokens import billed_tokens
from batch.dispatch.request import Request
from batch.errors import BadAnswer, ServerError, TimedOut
from batch.outcomes import Billed
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL
from tests.fakes import request

BODY = b'{"messages":[{"role":"user","content":"Why?"}],"max_tokens":7}'


def asked(**changes: object) -> Request:
    """A chat row with `max_tokens`."""
    row = request(0, max_tokens=7)
    row.url, row.body = CHAT_URL, BODY
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def test_told_usage_counts_and_otherwise_the_bound() -> None:
    """A complete usage is billed exactly, an incomplete one or none at the bound, and a plain 500 not at all."""
    row = asked()
    assert billed_tokens([row], BadAnswer("x", usage=(9, 4))) == [Billed(9, 4, exact=True)]
    assert billed_tokens([row], BadAnswer("x", usage=(9, None))) == [Billed(len(BODY), 7, exact=False)]
    assert billed_tokens([row], TimedOut("x")) == [Billed(len(BODY), 7, exact=False)]
    assert billed_tokens([row], ServerError("x", status=500)) == [None]
    assert billed_tokens([asked(max_tokens=None)], TimedOut("x")) == [Billed(None, None, exact=False)]


def test_rows_that_travelled_together_share_what_was_billed_exactly() -> None:
    """Usage is divided by the rows' tokens and adds up exactly; without usage each row is billed its own bound."""
    rows = [asked(url=EMBEDDINGS_URL, body=b'{"input":"a"}', prompt_tokens=n) for n in (1, 1, 5)]
    told = billed_tokens(rows, BadAnswer("x", usage=(100, 0)))
    assert [billed.prompt_tokens for billed in told if billed] == [14, 14, 72]
    assert billed_tokens(rows, TimedOut("x")) == [Billed(13, 0, exact=False)] * 3
