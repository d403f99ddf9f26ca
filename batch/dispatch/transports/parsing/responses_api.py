"""Checks answers of OpenAI's Responses API: `{status, output: [...], usage: {input_tokens, output_tokens}}`.

An answer with the status `incomplete` was cut off at its length limit, or by a filter, and its `incomplete_details`
says why. It is a good answer, as a chat completion that ends with `finish_reason: length` is.
"""

from collections.abc import Mapping
from typing import Any

# Only a finished answer can be used: a server that answers in the background sends `queued` and `in_progress`, and one
# that has no answer sends `failed` and `cancelled`.
_ENDED = ("completed", "incomplete")


def fault_of(answer: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the body of a 2xx answer, or `None` if it can be used.

    Servers that only imitate the API omit `status`; then `output` must not be empty. An answer that is cut off before
    its first word is `incomplete` and has an empty output.
    """
    status, output = answer.get("status"), answer.get("output")
    if not isinstance(output, list):
        return "the answer has no 'output'"
    if status is None:
        return None if output else "the answer has no 'output'"
    if status not in _ENDED:
        return "the answer is not complete: its status is neither 'completed' nor 'incomplete'"
    return None if output or status == "incomplete" else "the answer has no 'output'"
