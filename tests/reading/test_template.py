import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import SpecError
from batch.reading.invalid import InvalidRow
from batch.reading.template import PromptTemplate


def test_columns_are_filled_in_and_doubled_braces_stay_braces() -> None:
    """Names in braces become the row's values, doubled braces become braces."""
    template = PromptTemplate("{{json}} {question} ({my column}, {n}, {flag})")
    record = {"question": "Why {not}?", "my column": 1.5, "n": 7, "flag": True}
    assert template.render(record) == "{json} Why {not}? (1.5, 7, true)"
    assert template.columns == {"question", "my column", "n", "flag"}


@pytest.mark.parametrize("text", ["{a.b}", "{a[0]}", "{a!r}", "{a:>5}", "{}", "{ }", "{a", "a}", "no column"])
def test_anything_but_plain_names_is_refused(text: str) -> None:
    """Attributes, indexes, conversions, formats and lone braces are refused in one line."""
    with pytest.raises(SpecError, match=r"^input\.prompt: .+$"):
        PromptTemplate(text)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({}, "missing_column"),
        ({"a": None}, "missing_column"),
        ({"a": ["x"]}, "wrong_type"),
        ({"a": {"x": 1}}, "wrong_type"),
        ({"a": ""}, "empty_prompt"),
        ({"a": " \n"}, "empty_prompt"),
    ],
)
def test_a_row_that_cannot_fill_it_is_invalid(record: dict[str, object], kind: str) -> None:
    """A row without a usable value for every column is invalid, and so is one whose columns are all blank."""
    with pytest.raises(InvalidRow) as caught:
        PromptTemplate("Q: {a}").render(record)
    assert caught.value.kind == kind


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_a_value_is_never_read_as_template(value: str, around: str) -> None:
    """Values go in verbatim, whatever braces they hold."""
    escaped = around.replace("{", "{{").replace("}", "}}")
    assert PromptTemplate(f"{escaped}{{a}}{escaped}").render({"a": value}) == around + value + around
