import gzip
from hashlib import blake2b
from pathlib import Path

import orjson
import pytest

from batch.reading.columns import READ_SCHEMA
from batch.reading.read import read_shard
from batch.reading.shards import find_shards
from schemas.job import InputSpec
from tests.reading.rows import Row, body, carried, count_words, read_all, read_lines

DATA = Path(__file__).parents[2] / "../shared/data/batch"
HI = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the hand-written batch files are not here")


def line(custom_id: object, **changes: object) -> Row:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m", "messages": HI}, **changes}


def test_a_shard_becomes_a_table_of_the_schema(tmp_path: Path) -> None:
    """Every column of the schema is there, filled for good rows and empty for what an invalid row lacks."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"id":"a","prompt":"two words","topic":"x"}\n{broken\n')
    spec = InputSpec(path=str(path), params={"temperature": 0, "max_tokens": 5}, system="S")
    (shard,) = find_shards(spec, tmp_path / "spool")
    table = read_shard(shard, spec, count_words)
    assert table.schema == READ_SCHEMA
    table.validate(full=True)
    good, bad = table.to_pylist()
    request = (
        b'{"messages":[{"role":"system","content":"S"},{"role":"user","content":"two words"}],'
        b'"temperature":0,"max_tokens":5}'
    )
    canonical = orjson.dumps(orjson.loads(request), option=orjson.OPT_SORT_KEYS)
    assert good == {
        "row": 0,
        "line": 1,
        "id": "a",
        "id_hash": int.from_bytes(blake2b(b"a", digest_size=8).digest(), "little"),
        "id_found": "id",
        "text": "two words",
        "url": CHAT,
        "body": request,
        "prompt_tokens": 3,
        "max_tokens": 5,
        "hash": blake2b(CHAT.encode() + canonical, digest_size=16).digest(),
        "deterministic": True,
        "asked": None,
        "carry": b'{"topic":"x"}',
        "error_kind": None,
        "error_message": None,
    }
    assert {key: value for key, value in bad.items() if value is not None} == {
        "row": 1,
        "line": 2,
        "id": "in.jsonl:2",
        "deterministic": False,
        "error_kind": "invalid_json",
        "error_message": bad["error_message"],
    }
    assert bad["error_message"].startswith("in.jsonl:2: not JSON: ")


def test_equal_requests_have_equal_hashes_whatever_the_order_of_their_keys(tmp_path: Path) -> None:
    """The hash covers the request and the url, but not key order, id, model or other columns."""
    rows = read_lines(
        tmp_path,
        [
            line("a", body={"model": "x", "messages": HI, "seed": 1, "top_p": 1}),
            line("b", body={"top_p": 1, "seed": 1, "messages": HI}, extra=1),
            line("c", body={"top_p": 1, "seed": 2, "messages": HI}),
        ],
    )
    hashes = [row["hash"] for row in rows]
    assert hashes[0] == hashes[1] != hashes[2]
    assert rows[0]["body"] != rows[1]["body"]


def test_bad_lines_become_invalid_rows_with_file_and_line(tmp_path: Path) -> None:
    """Every kind of bad line becomes an invalid row in its place; blank lines are no rows."""
    rows = read_lines(
        tmp_path,
        [
            line("ok-1"),
            b'{"custom_id": "broken", "method": "POST", "url": "/v1/chat/comp',
            line("ok-1"),
            line("stream", body={"messages": HI, "stream": True}),
            line("get", method="GET"),
            line("url", url="/v1/nonsense"),
            {key: value for key, value in line("x").items() if key != "custom_id"},
            line("nomessages", body={"model": "m"}),
            line("empty", body={"messages": []}),
            b"",
            b"[1, 2, 3]",
            line(17),
            line("ok-2"),
        ],
    )
    assert [(row["line"], row["id"], row["error_kind"]) for row in rows] == [
        (1, "ok-1", None),
        (2, "in.jsonl:2", "invalid_json"),
        (3, "ok-1", None),
        (4, "stream", "streaming"),
        (5, "get", "bad_method"),
        (6, "url", "bad_url"),
        (7, "in.jsonl:7", "missing_id"),
        (8, "nomessages", "missing_column"),
        (9, "empty", "empty_prompt"),
        (11, "in.jsonl:11", "wrong_type"),
        (12, "in.jsonl:12", "wrong_type"),
        (13, "ok-2", None),
    ]
    assert rows[0]["id_hash"] == rows[2]["id_hash"] is not None
    for row in rows:
        if row["error_kind"] is not None:
            assert row["error_message"].startswith(f"in.jsonl:{row['line']}: ")
            assert "\n" not in row["error_message"]
            assert row["text"] is row["body"] is row["hash"] is row["prompt_tokens"] is None


@needs_data
def test_the_hand_written_invalid_file_is_judged_as_its_readme_says(tmp_path: Path) -> None:
    """Of the hand-written invalid file, lines 1 and 13 are good, 3 repeats 1, 10 is blank, the rest is invalid."""
    rows = read_all(InputSpec(path=str(DATA / "invalid.jsonl")), tmp_path)
    assert {row["line"]: row["error_kind"] for row in rows} == {
        1: None,
        2: "invalid_json",
        3: None,
        4: "streaming",
        5: "bad_method",
        6: "bad_url",
        7: "missing_id",
        8: "missing_column",
        9: "empty_prompt",
        11: "wrong_type",
        12: "wrong_type",
        13: None,
    }
    assert rows[0]["id_hash"] == rows[2]["id_hash"]


@needs_data
def test_the_hand_written_valid_files_are_valid(tmp_path: Path) -> None:
    """All hand-written chat and embedding lines are good, and two of them are the same request."""
    rows = read_all(InputSpec(path=(str(DATA / "chat.jsonl"), str(DATA / "embeddings.jsonl"))), tmp_path)
    assert [row["error_message"] for row in rows] == [None] * 10
    by_id = {row["id"]: row for row in rows}
    assert by_id["chat-001"]["hash"] == by_id["chat-008"]["hash"]
    assert by_id["chat-001"]["deterministic"]
    assert by_id["chat-002"]["text"] == "How many legs has a spider?\nAnd an ant?"
    assert by_id["chat-003 with spaces / and slash"]["text"] == "What is in this picture?"
    assert by_id["chat-004"]["asked"] == "router-mf-0.116"
    assert by_id["emb-2"]["text"] == "first\nsecond\nthird"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"prompt":"a\x00b"}', "invalid_json"),
        (b"\x00", "invalid_json"),
        (b'{"prompt":"\\ud800"}', "invalid_json"),
        (b'{"prompt":"\xff"}', "invalid_encoding"),
        (b'{"prompt":"\xed\xa0\x80"}', "invalid_encoding"),
        (b'{"prompt":"a","x":Nan}', "invalid_json"),
        (b'{"messages":[{"role":"user","content":"a","x":NaN}]}', "wrong_type"),
        (b'{"id":"\\ud800","prompt":"a"}', "invalid_json"),
        (b'{"prompt":"a"} {"prompt":"b"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"prompt":"a","x":' + b"[" * 500 + b"]" * 500 + b"}", "invalid_json"),
        (b'{"prompt":5,"x":' + b"[" * 500 + b"]" * 500 + b"}", "wrong_type"),
        (b'{"messages":[{"role":"user","content":"a","x":' + b"[" * 500 + b"]" * 500 + b"}]}", "invalid_json"),
        (b'"prompt"', "wrong_type"),
        (b"null", "wrong_type"),
    ],
)
def test_a_hostile_line_makes_only_its_own_row_invalid(tmp_path: Path, raw: bytes, kind: str) -> None:
    """A line that cannot be read is invalid, and its neighbours are good."""
    rows = read_lines(tmp_path, [{"prompt": "before"}, raw, {"prompt": "after"}])
    assert [row["error_kind"] for row in rows] == [None, kind, None]
    assert rows[1]["error_message"].isprintable()


def test_a_huge_prompt_and_odd_characters_are_good(tmp_path: Path) -> None:
    """Ten megabytes, escaped NULs and any script pass through unchanged."""
    prompts = ["x" * 10_000_000, "a\0b", "日本語 🦆 \u2028", '"\\{}']
    rows = read_lines(tmp_path, [{"prompt": prompt} for prompt in prompts])
    assert [row["text"] for row in rows] == prompts
    assert [body(row)["messages"][0]["content"] for row in rows] == prompts


def test_ids_come_from_the_users_columns_or_are_made_up(tmp_path: Path) -> None:
    """An id is custom_id, else id, else file and line; columns that are not used as id are carried."""
    rows = read_lines(
        tmp_path,
        [
            {"prompt": "a", "custom_id": "c", "id": "i"},
            {"prompt": "a", "id": 7},
            {"prompt": "a", "id": None},
            {"prompt": "a", "id": True},
            {"prompt": "a", "id": ""},
        ],
    )
    assert [row["id"] for row in rows] == ["c", "7", "in.jsonl:3", "in.jsonl:4", "in.jsonl:5"]
    assert [row["id_hash"] is None for row in rows] == [False, False, True, True, True]
    assert [carried(row) for row in rows] == [{"id": "i"}, None, {"id": None}, {"id": True}, {"id": ""}]


def test_a_named_id_column_must_hold_an_id(tmp_path: Path) -> None:
    """If the job names an `id_column`, a row without an id in it is invalid."""
    records: list[Row] = [
        {"prompt": "a", "k": "x"},
        {"prompt": "a"},
        {"prompt": "a", "k": [1]},
        {"prompt": "a", "k": ""},
    ]
    rows = read_lines(tmp_path, records, id_column="k")
    assert [(row["id"], row["error_kind"]) for row in rows] == [
        ("x", None),
        ("in.jsonl:2", "missing_id"),
        ("in.jsonl:3", "wrong_type"),
        ("in.jsonl:4", "missing_id"),
    ]


def test_other_columns_are_carried_by_good_and_invalid_rows(tmp_path: Path) -> None:
    """Columns that are neither id nor request are carried; with a template, all columns but the id are."""
    records: list[Row] = [
        {"id": 1, "prompt": "a", "params": {"n": 1}, "x": {"y": [1, None]}},
        {"id": 2, "prompt": "", "params": {"n": 1}, "x": 2},
        {"id": 3, "messages": HI, "temperature": 1, "x": 3},
        line("d", x=4),
        {"id": 5, "prompt": "a"},
    ]
    expected = [{"x": {"y": [1, None]}}, {"x": 2}, {"x": 3}, {"x": 4}, None]
    assert [carried(row) for row in read_lines(tmp_path, records)] == expected
    (row,) = read_lines(tmp_path, records[:1], prompt="{prompt}!")
    assert carried(row) == {key: value for key, value in records[0].items() if key != "id"}


def test_csv_rows_are_strings_with_their_lines_and_bad_records_are_invalid(tmp_path: Path) -> None:
    """CSV may hold line ends in quotes; a record that does not fit is invalid, the next one is good."""
    path = tmp_path / "in.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,prompt,n\r\n"
        b'1,"two\r\nlines, ""quoted""",007\r\n'
        b"\r\n"
        b"2,too,many,fields\r\n"
        b"3,few\r\n"
        b'4,in "the" middle,1\r\n'
        b"5,caf\xe9,1\r\n"
        b"6,  ,1\r\n"
        b"7," + "naïve".encode() + b",1\r\n"
    )
    rows = read_all(InputSpec(path=str(path)), tmp_path / "spool")
    assert [(row["line"], row["id"], row["error_kind"]) for row in rows] == [
        (2, "1", None),
        (5, "in.csv:5", "wrong_type"),
        (6, "in.csv:6", "wrong_type"),
        (7, "4", None),
        (8, "in.csv:8", "invalid_encoding"),
        (9, "6", "empty_prompt"),
        (10, "7", None),
    ]
    assert rows[0]["text"] == 'two\r\nlines, "quoted"'
    assert carried(rows[0]) == {"n": "007"}
    assert rows[1]["error_message"] == "in.csv:5: 4 fields where the header has 3"


def test_a_compressed_file_is_named_as_the_user_named_it(tmp_path: Path) -> None:
    """Ids and messages of a compressed file name the file itself and its own lines."""
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b'\n{"prompt":"a"}\n', mtime=0) + gzip.compress(b"{broken\n", mtime=0))
    rows = read_all(InputSpec(path=str(path)), tmp_path / "spool")
    assert [row["id"] for row in rows] == ["in.jsonl.gz:2", "in.jsonl.gz:3"]
    assert rows[1]["error_message"].startswith("in.jsonl.gz:3: not JSON")
