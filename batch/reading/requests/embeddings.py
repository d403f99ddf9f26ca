"""Embedding requests: which rows are read as such, and which parameters they may have."""

from collections.abc import Mapping
from typing import Any, Final

from batch.reading.invalid import InvalidRow
from batch.reading.notes import Fact
from batch.reading.requests.parameters import CHAT_PARAMETERS, EMBEDDING_PARAMETERS, PARAMETERS

INPUT_COLUMNS: Final = frozenset({"input", "params", "model"})
FOUND_EMBEDDINGS: Final = Fact(
    "embeddings", "taken for an embedding request, because the row has `input` and neither messages nor prompt"
)
# If a column other than these holds text, `input` may not be the whole prompt: Alpaca's rows have instruction, input
# and output.
_BESIDE_INPUT = INPUT_COLUMNS | PARAMETERS | {"id", "custom_id"}
# Parameters that only embedding requests have.
_ASKS_FOR_EMBEDDINGS = ("dimensions", "encoding_format")
_NAMES_SHOWN = 4


def check_ambiguous_input(record: Mapping[str, Any], id_column: str | None) -> None:
    """Raise InvalidRow if `input` may be only part of a prompt, because other columns hold text."""
    texts = [name for name, value in record.items() if type(value) is str and name not in _BESIDE_INPUT]
    texts = [name for name in texts if name != id_column]
    if texts and all(record.get(name) is None for name in _ASKS_FOR_EMBEDDINGS):
        shown = ", ".join(texts[:_NAMES_SHOWN]) + (", ..." if len(texts) > _NAMES_SHOWN else "")
        raise InvalidRow(
            "ambiguous_shape",
            f"`input` stands beside other text ({shown}), so the row is not taken for an embedding request; give "
            'input.prompt a template over the columns, as "{instruction} {input}", or set input.shape: embeddings',
        )


def keep_embedding_parameters(params: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Fact, ...]]:
    """Drop chat parameters, which embedding servers refuse; return the rest, and a note on each dropped one."""
    left = [name for name in params if name in CHAT_PARAMETERS and name not in EMBEDDING_PARAMETERS]
    if not left:
        return dict(params), ()
    notes = tuple(
        Fact("not_a_parameter", f"the parameter `{name}` is not sent: embedding requests have no such parameter")
        for name in left
    )
    return {name: value for name, value in params.items() if name not in left}, notes
