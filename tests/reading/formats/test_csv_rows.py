"""CSV as spreadsheets, databases and people write it: each record is a row, or the file is refused in one line."""

import csv
import io
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.errors import InputError
from batch.reading.formats import csv_records
from batch.reading.formats.csv_rows import csv_rows
from batch.reading.shards import find_shards
from schemas.job import CsvSpec, InputSpec
from tests.reading.rows import carried, read_all

Rows = list[Any]


def rows_of(content: bytes | str, *, tabs: bool = False, limit: int | None = None, **options: Any) -> Rows:
    """The rows that are read from a file with this content."""
    raw = content.encode() if isinstance(content, str) else content
    chunks = [raw[at : at + 7] for at in range(0, len(raw), 7)]
    # As in a real file, the first chunk has all bytes from which the encoding is detected.
    chunks = [b"".join(chunks[:600]), *chunks[600:]] if chunks else []
    return [orjson.loads(line) for line in csv_rows("in.csv", chunks, CsvSpec(**options), limit, tabs=tabs)]


def refusal(content: bytes | str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        rows_of(content, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


TWO = [[2, {"id": "1", "question": "Why?"}], [3, {"id": "2", "question": "How?"}]]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("id,question\n1,Why?\n2,How?\n", {}),
        ("id,question\r\n1,Why?\r\n2,How?", {}),
        ("id,question\r1,Why?\r2,How?\r", {}),
        ("id;question\n1;Why?\n2;How?\n", {}),
        ("id|question\n1|Why?\n2|How?\n", {}),
        ('"id";"question"\n1;"Why?"\n2;How?\n', {}),
        ("id\tquestion\n1\tWhy?\n2\tHow?\n", {}),
        ("id\tquestion\n1\tWhy?\n2\tHow?\n", {"tabs": True}),
        ("id^question\n1^Why?\n2^How?\n", {"delimiter": "^"}),
        ("id,question,,\n1,Why?,,\n2,How?,,\n", {}),
        ("id,question\n1,Why?,,\n2,How?\n", {}),
        ("id,question\n1,Why?\n2,How?\n".encode("utf-16"), {}),
        (b"\xfe\xff" + "id,question\n1,Why?\n2,How?\n".encode("utf-16-be"), {}),
        ("id,question\n1,Why?\n2,How?\n".encode("utf-32"), {}),
        ("id,question\n1,Why?\n2,How?\n".encode("utf-16-le"), {"encoding": "utf-16-le"}),
        (b"\xef\xbb\xbfid,question\n1,Why?\n2,How?\n", {}),
        (b"\xef\xbb\xbfid,question\n1,Why?\n2,How?\n", {"encoding": "utf-8"}),
        ("id,question\n1,Why?\n2,How?\n", {"columns": ("id", "question")}),
        ("'id','question'\n1,'Why?'\n2,How?\n", {"quote": "'"}),
    ],
)
def test_the_same_table_is_read_however_it_is_written(content: bytes | str, options: dict[str, Any]) -> None:
    """Line ends, delimiters, encodings, quotes and empty columns change nothing about the rows."""
    assert rows_of(content, **options) == TWO


def test_excel_names_its_delimiter_in_a_line_of_its_own() -> None:
    """A line `sep=;` sets the delimiter and is not the header; it counts as a line."""
    assert rows_of("sep=;\r\nid;question\r\n1;a,b\r\n") == [[3, {"id": "1", "question": "a,b"}]]


def test_a_file_without_a_header_gets_its_columns_from_the_job() -> None:
    """With `columns` the first line is a row."""
    rows = rows_of("What is 2+2?,3,4\n", columns=("question", "a", "b"))
    assert rows == [[1, {"question": "What is 2+2?", "a": "3", "b": "4"}]]
    assert rows_of("a;b\n", columns=("x", "y")) == [[1, {"x": "a", "y": "b"}]]
    message = refusal("What is 2+2?,4,4\n")
    assert "line 1 is taken for the header" in message
    assert "input.csv.columns" in message


def test_columns_without_a_name_are_kept_if_they_hold_something() -> None:
    """pandas writes its index without a name, and spreadsheets write empty columns, also in the middle."""
    assert rows_of(",q,,r\n0,a,,b\n1,c,note,\n") == [
        [2, {"column_1": "0", "q": "a", "r": "b"}],
        [3, {"column_1": "1", "q": "c", "column_3": "note", "r": ""}],
    ]


def test_records_that_do_not_fit_are_invalid_and_their_neighbours_good() -> None:
    """The end of such a record is known, so too many or too few fields make only that record invalid."""
    rows = rows_of('id,q\n1,a,b\n2\n"3\n",x,"y\nz"\n4,d\n')
    assert rows == [
        [2, None, "wrong_type", "3 fields where the header has 2"],
        [3, None, "wrong_type", "1 fields where the header has 2"],
        [4, None, "wrong_type", "3 fields where the header has 2 (the record is in lines 4 to 6)"],
        [7, {"id": "4", "q": "d"}],
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('id,q\n1," is the inch sign\n' + "2,x\n" * 200, 2),
        ('id,q\n1,a\n2,"a\nb\n3,c\n', 3),
        ('id,q\n1,"a "b" c"\n2,d\n', 2),
        ('id,q\n1,"She asked \\"why?\\"\nThen she left, and said \\"ok\\""\n2,d\n', 2),
        ('id,q\n1,"two\nlines"\n2,"one",""x"\n3,"y"\n', 4),
        ('id,q\n"two\nlines","open\n1,x\n', 3),
        ('id,q\n1, "She left,\nand he said ok"\n', 2),
        ('"id,q\n1,a\n', 1),
    ],
)
def test_a_fault_in_quotes_refuses_the_file_by_the_line_where_the_quote_opened(content: str, line: int) -> None:
    """After such a fault the next record's start is unknown, so no part of a record may become a row."""
    message = refusal(content)
    assert message.startswith(f"in.csv:{line}: ")
    assert "input.csv.quote" in message


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading stops at a maximum field length, with and without an escape character."""
    monkeypatch.setattr(csv_records, "MAX_FIELD_CHARACTERS", 1000)
    content = 'id,q\n1,"open\n' + "2,x\n" * 10_000
    assert "longer than 1,000 characters" in refusal(content)
    assert "longer than 1,000 characters" in refusal(content, escape="\\")


def test_backslashes_escape_quotes_where_the_job_says_so() -> None:
    """In Spark's and MySQL's files, quotes, delimiters and line ends are escaped; other backslashes are literal."""
    content = (
        "id,q\n"
        '1,"She asked \\"why?\\"\nThen she left, and said \\"ok\\""\n'
        '2,"C:\\new\\\\table, ""doubled"""\n'
        "3,a\\, b\\\nc\n"
        "\\N,\\N\n"
        "\n"
        '5,"\\N"\n'
    )
    assert rows_of(content, escape="\\") == [
        [2, {"id": "1", "q": 'She asked "why?"\nThen she left, and said "ok"'}],
        [4, {"id": "2", "q": 'C:\\new\\table, "doubled"'}],
        [5, {"id": "3", "q": "a, b\nc"}],
        [7, {"id": None, "q": None}],
        [9, {"id": "5", "q": "\\N"}],
    ]
    assert refusal('id,q\n1,"a\\"\n2,b\n', escape="\\").startswith("in.csv:2: ")
    assert refusal('id,q\n1,"a" b\n', escape="\\").startswith("in.csv:2: ")


def test_quotes_may_be_ordinary_characters() -> None:
    """With `quote: ''`, a quotation mark at the beginning of a field, such as an inch sign, is literal."""
    assert rows_of('id,q\n1," is the inch sign\n2,"x"\n', quote="") == [
        [2, {"id": "1", "q": '" is the inch sign'}],
        [3, {"id": "2", "q": '"x"'}],
    ]


def test_bytes_that_are_not_in_the_encoding_say_which_option_helps() -> None:
    """A row in another encoding is invalid, and a header is refused; with the right `encoding` the row is read."""
    content = "id,q\n1,plain\n2,café\n".encode("cp1252")
    assert rows_of(content, encoding="cp1252")[1] == [3, {"id": "2", "q": "café"}]
    good, bad = rows_of(content)
    assert good == [2, {"id": "1", "q": "plain"}]
    assert bad[2] == "invalid_encoding"
    assert "input.csv.encoding: cp1252" in bad[3]
    assert "input.csv.encoding: cp1252" in refusal("id,café\n1,a\n".encode("cp1252"))
    assert "utf-16-le" in refusal("id,q\n1,a\n2,b\n".encode("utf-16-le"))
    assert "input.csv.encoding" in refusal("id,q\n1,a\n".encode("utf-16")[:-1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id;question;price, net\n", "1 x comma and 2 x semicolon"),
        ("a;b|c\n", "input.csv.delimiter"),
        ("# made by a tool\nid,q\n1,a\n", "begins with #"),
    ],
)
def test_an_ambiguous_header_is_refused(content: str, words: str) -> None:
    """If the delimiter or the header would be a guess, one line names the option to set."""
    assert words in refusal(content)


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "klingon"},
        {"encoding": "base64"},
        {"delimiter": ";;"},
        {"delimiter": '"'},
        {"escape": "\n"},
        {"columns": ("a", "a")},
        {"columns": ()},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """A wrong option is an error of the job file and makes no row invalid."""
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's own, whatever the field
        CsvSpec(**options)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8) | st.sampled_from(
    ['"', '""', "a\nb", "\r\n", "\\", '\\"', ",", ";", ' "', 'x, "y"']
)
tables = st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5)


@settings(max_examples=200)
@given(tables, st.sampled_from([",", ";", "\t"]))
def test_a_csv_writers_output_is_read_back(table: list[tuple[str, str, str]], delimiter: str) -> None:
    """Any values come back from a file in which every value is quoted."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("x", "y", "z"), *table])
    read = rows_of(sink.getvalue(), delimiter=delimiter)
    assert [tuple(row[1].values()) for row in read] == table


@settings(max_examples=200)
@given(tables)
def test_escaped_values_are_read_back(table: list[tuple[str, str, str]]) -> None:
    """Any values come back from a file that has a backslash before quotes and backslashes."""
    quoted = ('"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"' for row in table for cell in row)
    lines = [",".join(next(quoted) for _ in range(3)) for _ in table]
    read = rows_of("\n".join(["x,y,z", *lines]), delimiter=",", escape="\\")
    assert [tuple(row[1].values()) for row in read] == table


def test_csv_options_apply_to_the_spooled_file_and_its_rows(tmp_path: Path) -> None:
    """A job with CSV options has a spooled file of its own, and its rows keep their line numbers."""
    path = tmp_path / "in.tsv"
    path.write_text('1\t"a\n2\tb\n')
    rows = read_all(
        InputSpec(path=str(path), prompt="{q}", csv=CsvSpec(quote="", columns=("n", "q"))), tmp_path / "spool"
    )
    assert [(row["line"], row["text"], carried(row)) for row in rows] == [
        (1, '"a', {"n": "1", "q": '"a'}),
        (2, "b", {"n": "2", "q": "b"}),
    ]
    with pytest.raises(InputError, match=r"in.tsv:1: a quote opens here and is never closed"):
        read_all(InputSpec(path=str(path), csv=CsvSpec(columns=("n", "q"))), tmp_path / "spool")


def test_a_first_row_that_was_taken_for_the_header_is_suspected(tmp_path: Path) -> None:
    """If a CSV file lacks a named column, the message says that line 1 was taken for the header."""
    path = tmp_path / "in.csv"
    path.write_text("What is 2+2?,4\nWhat is 3+3?,6\n")
    with pytest.raises(InputError, match=r"line 1 of a CSV file is taken for its header.*input\.csv\.columns"):
        find_shards(InputSpec(path=str(path), prompt="{question}"), tmp_path / "spool")


@pytest.mark.parametrize("quote", ["*", "\\", "^", "]", "|", "$", "'"])
def test_any_character_may_be_the_quote(quote: str) -> None:
    """The quote may be special in a regular expression; a delimiter inside quotes does not separate fields."""
    content = f"id,{quote}the;prompt;of;it{quote}\n1,{quote}a,b{quote}\n"
    assert rows_of(content, quote=quote) == [[2, {"id": "1", "the;prompt;of;it": "a,b"}]]
