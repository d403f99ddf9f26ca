"""The lines of a journal: what was sent for each row and what came of it, written before any later step relies on it.

A journal is a JSON Lines file per shard and model. Each line starts with a checksum of fixed width over the
rest of the line, so that any damaged byte is noticed:

    {"crc":"1c291ca3","journal":{"version":1,"place":"00012/m.jsonl","endpoints":["http://a/v1","http://b/v1"]}}
    {"crc":"...","intent":[row, attempt, endpoint]}
    {"crc":"...","attempt":[row, attempt, endpoint, kind, status, seconds, counts]}
    {"crc":"...","attempt":[row, attempt, endpoint, kind, status, seconds, counts, prompt tokens, answer tokens, exact]}
    {"crc":"...","outcome":{"row":7,"status":"ok","endpoint":0,...},"response":<the provider's JSON as it came>}

`endpoint` is an index into the endpoints of the header above it. A header opens each sitting: a process that
found the file, cut a torn last line off, and went on. An attempt ends by its `attempt` line or by the row's
outcome; a row may have several outcomes, and the last one stands. `counts` is 1 if the attempt is one of the row's
`max_attempts`, which all sittings share; journals of older versions do not say. An attempt that may have been billed
without an answer has the tokens it was billed for, or, if `exact` is 0, those that it can be billed for at most
(null: nothing bounds them). An outcome that is such an attempt's end has them as `"billed":[prompt, answer, exact]`.

What follows the checksum and its comma is called the content of a line: it has no opening brace and no newline.
"""

import re
from pathlib import Path
from zlib import crc32

import orjson

VERSION = 1

CRC_MARK = b'{"crc":"'
_PREFIX = CRC_MARK + b'%08x",'
_LINE = _PREFIX + b"%b\n"

# Where the content of a line starts.
CONTENT_START = len(_PREFIX % 0)

# Between the members of an outcome and the provider's response.
RESPONSE_MARK = b'},"response":'

_PLACE = re.compile(r"\d{5,}/[^/]+\.jsonl")


def to_line(content: bytes) -> bytes:
    """The line with this content: its checksum in front, a newline behind."""
    return _LINE % (crc32(content), content)


def header(path: Path, endpoints: list[str]) -> bytes:
    """The content of the line that opens a sitting in the journal at `path`."""
    journal = {"version": VERSION, "place": place_of(path), "endpoints": endpoints}
    return orjson.dumps({"journal": journal})[1:]


def checked_content(line: bytes) -> bytes | None:
    """The content of a line, which is given without its newline; `None` if its checksum is wrong."""
    content = line[CONTENT_START:]
    return content if content and line.startswith(_PREFIX % crc32(content)) else None


def salvaged_content(line: bytes) -> bytes | None:
    """The content of a line whose newline has become another byte; `None` if its checksum is wrong even so."""
    return checked_content(line[:-1])


def place_of(path: Path) -> str:
    """Where a journal belongs, as its header says it: its shard's folder and its file name."""
    return f"{path.parent.name}/{path.name}"


def place_in_header(content: bytes) -> str | None:
    """The place that a header states; `None` if the content is no header, or that of an older version."""
    if not content.startswith(b'"journal":'):
        return None
    place = orjson.loads(b"{" + content)["journal"].get("place")
    return place if isinstance(place, str) and _PLACE.fullmatch(place) else None
