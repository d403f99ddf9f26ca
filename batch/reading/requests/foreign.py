"""Shapes of other providers' batch files that this program recognizes but does not read."""

from collections.abc import Set

_SHAPES = {
    "request": "`request` is how Gemini's and Vertex AI's batch lines hold a request, which are not read: put its "
    "texts into `messages`, or, where it has Anthropic's messages, rename `request` to `params`",
    "batch_request": "`batch_request` is how xAI's batches hold a request, which are not read: put its messages into "
    "`messages`",
    "contents": "`contents` is Gemini's, which is not read: put its texts into `messages`",
    "modelInput": "`modelInput` is how Bedrock's batch lines hold a request, which are not read: where it has "
    "Anthropic's messages, rename it to `params` and `recordId` to `custom_id`",
}


def foreign_shape(columns: Set[str]) -> str | None:
    """Return which provider's shape the columns have and what to do about it; `None` if no shape is recognized."""
    return next((said for column, said in _SHAPES.items() if column in columns), None)
