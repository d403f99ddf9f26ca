"""The table that reading a shard gives: one row per input row, good or invalid, in input order."""

import pyarrow as pa

ROW = "row"
LINE = "line"
ID = "id"
ID_HASH = "id_hash"
ID_FOUND = "id_found"
TEXT = "text"
URL = "url"
BODY = "body"
PROMPT_TOKENS = "prompt_tokens"
MAX_TOKENS = "max_tokens"
HASH = "hash"
DETERMINISTIC = "deterministic"
ASKED = "asked"
CARRY = "carry"
ERROR_KIND = "error_kind"
ERROR_MESSAGE = "error_message"

HASH_BYTES = 16
ID_HASH_BYTES = 8

READ_SCHEMA = pa.schema(
    [
        # Number of the row in the whole input, from 0.
        pa.field(ROW, pa.int64(), nullable=False),
        # Line in its file from 1 (JSONL, CSV: where the record starts) or row in its file from 1 (Parquet).
        pa.field(LINE, pa.int64(), nullable=False),
        # The user's id, else "<file>:<line>".
        pa.field(ID, pa.string(), nullable=False),
        # blake2b of the user's id; null for made-up ids, which are never compared.
        pa.field(ID_HASH, pa.uint64()),
        # Where the reader found the id by itself (`RowId.found`); null if the job names the id's column, and for
        # made-up ids.
        pa.field(ID_FOUND, pa.dictionary(pa.int8(), pa.string())),
        # What routers score: the text of all user messages, the prompt, or the text to embed.
        pa.field(TEXT, pa.string()),
        pa.field(URL, pa.dictionary(pa.int8(), pa.string())),
        # JSON object of the request without `model`, system message and job parameters included; never "{}".
        pa.field(BODY, pa.binary()),
        # Tokens of the whole prompt.
        pa.field(PROMPT_TOKENS, pa.int32()),
        # Most tokens the answer may have, over all its choices; null where the request sets no limit.
        pa.field(MAX_TOKENS, pa.int32()),
        # blake2b of url and body with sorted keys.
        pa.field(HASH, pa.binary(HASH_BYTES)),
        # The request sets temperature 0.
        pa.field(DETERMINISTIC, pa.bool_(), nullable=False),
        # The row's own `model`, verbatim.
        pa.field(ASKED, pa.string()),
        # The input's other columns: a JSON object, written and read by `batch.reading.exact`.
        pa.field(CARRY, pa.binary()),
        # Null for good rows.
        pa.field(ERROR_KIND, pa.string()),
        # "<file>:<line>: ..." on one line; never the prompt's text.
        pa.field(ERROR_MESSAGE, pa.string()),
    ]
)
