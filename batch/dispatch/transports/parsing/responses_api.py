"""Answers of OpenAI's Responses API: `{status, output: [...], usage: {input_tokens, output_tokens}}`.

An answer whose status is `incomplete` was cut at its limit, or by a filter: it is a good answer, as a chat's is that
ends with `finish_reason: length`, and `incomplete_details` says why.
"""

from collections.abc import Mapping
from typing import Any

# Only a finished answer is one: `queued` and `in_progress` come where a server answers in the background, `failed`
# and `cancelled` where it has none.
_ENDED = ("completed", "incomplete")


def fault_of(answer: Mapping[str, Any]) -> str | None:
    """What is wrong with the body of a 2xx answer; `None` where it can be used.

    Servers that only imitate the API leave `status` out, and then `output` must hold something. An answer that
    is cut before its first word is `incomplete` with no output.
    """
    status, output = answer.get("status"), answer.get("output")
    if not isinstance(output, list):
        return "the answer has no 'output'"
    if status is None:
        return None if output else "the answer has no 'output'"
    if status not in _ENDED:
        return "the answer is not complete: its status is neither 'completed' nor 'incomplete'"
    return None if output or status == "incomplete" else "the answer has no 'output'"
