"""The columns of the Parquet parts in a run directory: their names and types, who writes them and who reads them.

A row passes three tables, each of which keeps what the one before it had, as far as it is needed:

| table | schema | written by | stored as |
|---|---|---|---|
| as read | `batch.reading.columns.READ_SCHEMA` | `batch.reading.read` | not stored by itself |
| scored | `scored_schema` | `batch.running.scorer` | `scored/00012.parquet` |
| routed | `routed_schema` | `batch.running.stages.route` | `routed/<model>/00012.parquet` |

Parts of older versions may lack columns that were added since (`id_found`, `carry`): readers get those that are there.
The schema of the results, `RESULT_SCHEMA`, is in `batch.runs.output.parquet`.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from batch.reading.columns import (
    BODY,
    CARRY,
    DETERMINISTIC,
    ERROR_KIND,
    ERROR_MESSAGE,
    HASH,
    ID,
    ID_FOUND,
    ID_HASH,
    LINE,
    MAX_TOKENS,
    PROMPT_TOKENS,
    READ_SCHEMA,
    ROW,
    URL,
)

SCORE: Final = "score"
OWN_CUTOFF: Final = "own_cutoff"
PINNED: Final = "pinned"

SCORE_FIELDS: Final = (
    # What the plan compares with its cutoff; null for rows that no router scored: invalid and pinned ones.
    pa.field(SCORE, pa.float32()),
    # The cutoff that the row's own `model` names; null for all others.
    pa.field(OWN_CUTOFF, pa.float32()),
    # The model that the row's own `model`, or a rule of the router, names; null for rows that the plan decides.
    pa.field(PINNED, pa.string()),
)


def quality_field(model: str) -> pa.Field:
    """The column with the predicted quality of one model's answers. No part of a run reads it yet."""
    return pa.field(f"quality:{model}", pa.float32())


def scored_schema(quality_models: Sequence[str] = ()) -> pa.Schema:
    """The schema of a scored part: every row of the shard, good or invalid, in input order.

    Args:
        quality_models: the models whose quality the router predicts; a router of two models predicts only which of them
            wins, and adds no such columns.
    """
    return pa.schema([*READ_SCHEMA, *SCORE_FIELDS, *(quality_field(model) for model in quality_models)])


# The request of one row. `batch.running.run_work` reads them from a routed part, in this order.
REQUEST_COLUMNS: Final = (ROW, URL, BODY, PROMPT_TOKENS, MAX_TOKENS)


def affinity_field(hash_key: str) -> pa.Field:
    """The column with a hash of each row's affinity key: of its id, or of the input column `hash_key`."""
    return pa.field(f"key:{hash_key}", pa.uint64())


def routed_schema(hash_key: str | None = None) -> pa.Schema:
    """The schema of a routed part: the rows of one shard that are sent to one model, in input order.

    Args:
        hash_key: `dispatch.hash_key` if it is `id` or an input column; `None`: the part has no affinity keys.
    """
    keys = () if hash_key is None else (affinity_field(hash_key),)
    return pa.schema([*(READ_SCHEMA.field(name) for name in REQUEST_COLUMNS), *keys])


# Which columns of a scored part are read, and by whom.

# `batch.running.stages.planned_part`: what planning looks at.
PLANNED_COLUMNS: Final = (ROW, SCORE, OWN_CUTOFF, PINNED, ERROR_KIND, ID_HASH, ID_FOUND, HASH, DETERMINISTIC)

# `batch.runs.output.scored_rows`: what the results have from the input, in the order of its `ScoredRow`.
COMMITTED_COLUMNS: Final = (ROW, ID, SCORE, CARRY, ERROR_KIND, ERROR_MESSAGE, PINNED, PROMPT_TOKENS, MAX_TOKENS)

# `batch.running.stages.summary`: how many rows there are, and how many of them are invalid.
SUMMARY_COLUMNS: Final = (ROW, ERROR_MESSAGE)

# `batch.running.row_verdicts` and `batch.runs.output.scored_rows`: where a row and its id are from.
PLACE_COLUMNS: Final = (LINE, ID_FOUND)

# `batch.runs.journal.spent`: what the cost of a request is bounded by.
COST_BOUND_COLUMNS: Final = (URL, BODY, MAX_TOKENS)

# `jobs.commands.estimate`: what the cost of a model's share of the rows is estimated from.
ESTIMATED_COLUMNS: Final = (PROMPT_TOKENS, MAX_TOKENS, URL, PINNED, ERROR_MESSAGE)
