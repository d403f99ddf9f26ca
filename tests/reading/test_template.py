from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import SpecError
from batch.reading.invalid import InvalidRow
from batch.reading.template import PromptTemplate
from tests.reading.rows import read_lines


def test_columns_are_filled_in_and_doubled_braces_stay_braces() -> None:
    """Names in braces become the row's values, doubled braces become braces."""
    template = PromptTemplate("{{json}} {question} ({my column}, {n}, {flag})")
    record = {"question": "Why {not}?", "my column": 1.5, "n": 7, "flag": True}
    assert template.render(record) == "{json} Why {not}? (1.5, 7, true)"
    assert template.columns == {"question", "my column", "n", "flag"}


@pytest.mark.parametrize("text", ["{a!r}", "{a:>5}", "{}", "{ }", "{a", "a}", "{'a'}", "{a\nb}", r"\frac{1}{\pi}"])
def test_braces_that_are_no_column_are_refused_with_the_way_to_write_braces(text: str) -> None:
    """Conversions, formats, code and lone braces are refused in one line that says how braces are written."""
    with pytest.raises(SpecError, match=r"^input\.prompt: .+; write \{\{ and \}\} for braces in the text$"):
        PromptTemplate(text)


@pytest.mark.parametrize("text", ['Return {"label": "x"} for: {text}', '{"label"}', '{\n  "a": {"b": 1}\n} {text}'])
def test_json_in_a_template_is_named_and_not_quoted_at_length(text: str) -> None:
    """JSON between braces is shown on one line, beside the hint about braces."""
    with pytest.raises(SpecError, match=r'^input\.prompt: \{ ?"[^\n]{1,50}\} is no column, .*\{\{ and \}\}'):
        PromptTemplate(text)


def test_a_template_in_the_syntax_of_jinja_is_refused_with_a_hint() -> None:
    """`{{question}}` names no column; the message says what doubled braces stand for."""
    with pytest.raises(SpecError, match=r"names no column; .*doubled braces stand for braces"):
        PromptTemplate("Answer: {{question}}")
    with pytest.raises(SpecError, match=r"names no column; put one in braces, as in \{question\}$"):
        PromptTemplate("no column")


@pytest.mark.parametrize(
    ("text", "value", "rendered"),
    [
        ("{a[0]}", ["x", "y"], "x"),
        ("{a[-1]}", ["x", "y"], "y"),
        ("{a.title}", {"title": "T"}, "T"),
        ("{a[title]}", {"title": "T"}, "T"),
        ("{a['title']}", {"title": "T"}, "T"),
        ("{a.turns[1].text}", {"turns": [{}, {"text": 5}]}, "5"),
        ("{a[0].value}", [{"from": "human", "value": "hi"}], "hi"),
        ("{a[2024]}", {"2024": True}, "true"),
        ("{a.choices}", {"choices": ["red", 2.5]}, "1. red\n2. 2.5"),
        ("{a[0]}", '["x", "y"]', "x"),
        ("{a.meta.k}", '{"meta": {"k": "v"}}', "v"),
        ("{a}", '["x", "y"]', '["x", "y"]'),
        ("{a}", [True, "no", 3], "1. true\n2. no\n3. 3"),
        ("{a} {a[1]}", ["x", "y"], "1. x\n2. y y"),
        ("{ a }", "x", "x"),
        ("{ a[0] }", ["x"], "x"),
    ],
)
def test_templates_reach_into_lists_and_objects(text: str, value: object, rendered: str) -> None:
    """Indexes and keys select a value inside lists, objects and JSON text; a list becomes numbered lines."""
    template = PromptTemplate(text)
    assert template.columns == {"a"}
    assert template.render({"a": value}) == rendered


@pytest.mark.parametrize("name", ["a.b", "score [0-1]", "What is your name?", "a[0]", "What's new", "Größe (µm)"])
def test_a_column_with_signs_in_its_name_is_found_by_that_name(name: str) -> None:
    """A column is found by its exact name first, even if the name looks like a path into another one."""
    template = PromptTemplate(f"Q: {{{name}}}")
    assert template.render({name: "x", "a": {"b": "inside"}}) == "Q: x"
    assert not template.absent({name})


def test_an_optional_column_is_blank_where_it_is_missing_or_null() -> None:
    """`{context?}` is blank if the column is null or missing or lacks the key; others keep their values."""
    template = PromptTemplate("{q}|{context?}|{meta.title?}|{turns[1]?}")
    assert template.columns == {"q"}
    assert template.render({"q": "Why?"}) == "Why?|||"
    assert template.render({"q": "Why?", "context": None, "meta": {}, "turns": ["a"]}) == "Why?|||"
    assert template.render({"q": "Q", "context": "c", "meta": {"title": "t"}, "turns": [1, 2]}) == "Q|c|t|2"
    assert template.absent({"context"}) == {"q"}
    assert not template.absent({"q"})


def test_a_template_that_may_be_plain_needs_no_column() -> None:
    """A text without columns is filled as it is, if allowed; a template whose columns are all blank gives `None`."""
    assert PromptTemplate("Be {{brief}}.", "input.system", may_be_plain=True).fill({}) == "Be {brief}."
    optional = PromptTemplate("Act as {role?}", "input.system", may_be_plain=True)
    assert (optional.fill({"role": "clerk"}), optional.fill({})) == ("Act as clerk", None)


@pytest.mark.parametrize(
    ("text", "record", "kind", "said"),
    [
        ("{a}", {}, "missing_column", r"column 'a' is missing; write \{a\?\} where a blank will do"),
        ("{a}", {"a": None}, "missing_column", r"column 'a' is null; write \{a\?\}"),
        ("{a}", {"a": {"x": 1}}, "wrong_type", r"column 'a' is an object; name what is meant in it, as \{a\.name\}"),
        ("{a}", {"a": [{"x": 1}]}, "wrong_type", r"column 'a\[0\]' is an object; .* as \{a\[0\]\.name\}"),
        ("{a}", {"a": [["x"]]}, "wrong_type", r"column 'a\[0\]' is a list; .* as \{a\[0\]\[0\]\}"),
        ("{a}", {"a": ["x", None]}, "wrong_type", "column 'a' has a null among its items"),
        ("{a[2]}", {"a": ["x"]}, "missing_column", r"column 'a\[2\]' is missing; write \{a\[2\]\?\}"),
        ("{a.b.c}", {"a": {}}, "missing_column", r"column 'a\.b' is missing; write \{a\.b\.c\?\}"),
        ("{a.b}", {"a": "text"}, "wrong_type", r"column 'a' is a string: there is no 'a\.b'"),
        ("{a.b?}", {"a": ["x"]}, "wrong_type", r"column 'a' is a list: there is no 'a\.b'"),
        ("{a}", {"a": ""}, "empty_prompt", "every column of input.prompt is blank"),
        ("{a}", {"a": " \n"}, "empty_prompt", "every column of input.prompt is blank"),
        ("{a?}", {}, "empty_prompt", "every column of input.prompt is blank"),
        ("{a}", {"a": []}, "empty_prompt", "every column of input.prompt is blank"),
    ],
)
def test_a_row_that_cannot_fill_it_is_invalid(text: str, record: dict[str, object], kind: str, said: str) -> None:
    """A row without a usable value for a column, or with only blank ones, is invalid; the message has a remedy."""
    with pytest.raises(InvalidRow, match=said) as caught:
        PromptTemplate(f"Q: {text}").render(record)
    assert caught.value.kind == kind


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_a_value_is_never_read_as_template(value: str, around: str) -> None:
    """Values go in verbatim, whatever braces they hold."""
    escaped = around.replace("{", "{{").replace("}", "}}")
    assert PromptTemplate(f"{escaped}{{a}}{escaped}").render({"a": value}) == around + value + around


def test_nan_is_null(tmp_path: Path) -> None:
    """NaN, which tables write for null, is blank for an optional column and makes the row invalid for another."""
    line = b'{"id": 1, "q": "Why?", "context": NaN, "meta": {"title": NaN}}'
    (row,) = read_lines(tmp_path, [line], prompt="{q}|{context?}|{meta.title?}")
    assert row["text"] == "Why?||"
    (nested,) = read_lines(tmp_path, [line], prompt="{q} {meta.title}")
    assert nested["error_message"].endswith(
        "column 'meta.title' is missing; write {meta.title?} where a blank will do instead"
    )


def test_numbers_keep_their_digits_in_a_prompt(tmp_path: Path) -> None:
    """Whole numbers beyond 64 bits and long decimals are written as the file has them, also within JSON text."""
    line = b'{"n": 123456789012345678901234567890, "x": 0.1234567890123456789, "j": "{\\"n\\": 123456789012345678901}"}'
    (row,) = read_lines(tmp_path, [line], prompt="{n} {x} {j.n}")
    assert row["text"] == "123456789012345678901234567890 0.1234567890123456789 123456789012345678901"
