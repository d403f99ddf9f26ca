"""System messages of rows."""

from typing import Any

import pytest

from batch.errors import SpecError
from batch.reading.invalid import InvalidRow
from batch.reading.requests.shaped import Shaped
from batch.reading.shapes import Shaper
from schemas.job import InputSpec

HI = [{"role": "user", "content": "hi"}]
SHAPES: list[dict[str, Any]] = [{"prompt": "hi"}, {"messages": HI}]


def shape(record: dict[str, Any], **settings: Any) -> Shaped:
    return Shaper(InputSpec(path="in.jsonl", **settings)).shape(record)


def system(record: dict[str, Any], **settings: Any) -> list[str]:
    """The system messages that are sent."""
    return [m["content"] for m in shape(record, **settings).body["messages"] if m["role"] == "system"]


@pytest.mark.parametrize("prompt", SHAPES)
@pytest.mark.parametrize(
    "own", ["Answer in French.", [{"type": "text", "text": "Answer"}, {"type": "text", "text": "in French."}]]
)
def test_a_rows_system_column_is_its_system_message(prompt: dict[str, Any], own: Any) -> None:
    """It goes first, replaces the job's, counts as prompt and is not carried; Anthropic's blocks become text."""
    shaped = shape({**prompt, "system": own}, system="Be brief.")
    text = own if isinstance(own, str) else "Answer\nin French."
    assert shaped.body["messages"][0] == {"role": "system", "content": text}
    assert len(shaped.body["messages"]) == 2
    assert shaped.counted == f"{text}\nhi"
    assert shaped.text == "hi"
    assert "system" in shaped.used
    assert shaped.notes == ()


@pytest.mark.parametrize("prompt", SHAPES)
@pytest.mark.parametrize("own", [None, "", "  ", []])
def test_a_blank_system_column_leaves_the_jobs_message(prompt: dict[str, Any], own: Any) -> None:
    """A row without its own system message gets `input.system`."""
    assert system({**prompt, "system": own}, system="Be brief.") == ["Be brief."]
    assert system({**prompt, "system": own}) == []


@pytest.mark.parametrize("prompt", SHAPES)
def test_the_jobs_system_message_is_a_template(prompt: dict[str, Any]) -> None:
    """It is filled from each row's columns and not sent if all of them are blank; doubled braces become braces."""
    row = {**prompt, "system_prompt": "Be kind."}
    assert system(row, system="{system_prompt}") == ["Be kind."]
    assert system(row, system='{system_prompt} Answer as {{"a": 1}}.') == ['Be kind. Answer as {"a": 1}.']
    assert system({**prompt, "system_prompt": ""}, system="{system_prompt}") == []
    assert system({**prompt}, system="{system_prompt?}") == []
    assert system({**prompt, "system": "x"}, system="Rule: {system}") == ["Rule: x"]
    with pytest.raises(InvalidRow, match="system_prompt"):
        system(prompt, system="{system_prompt}")


def test_the_jobs_system_template_works_beside_a_prompt_template() -> None:
    """Both are filled from the same row; a `system` column is then data, and a note says so."""
    row = {"q": "Why?", "s": "Be kind.", "system": "linux"}
    shaped = shape(row, prompt="{q}", system="{s}")
    assert [m["content"] for m in shaped.body["messages"]] == ["Be kind.", "Why?"]
    assert [fact.code for fact in shaped.notes] == ["system_not_sent"]
    assert 'input.system: "{system}"' in shaped.notes[0].text
    assert shape(row, prompt="{q}", system="{system}").notes == ()


def test_braces_that_are_no_column_are_refused_with_what_to_write() -> None:
    """JSON in a system message is refused with how to write braces."""
    with pytest.raises(SpecError, match=r"input\.system: .*write \{\{ and \}\}"):
        Shaper(InputSpec(path="in.jsonl", system='Answer as {"a": 1}.'))


def test_messages_keep_their_own_system_message_and_a_note_says_so() -> None:
    """A system message in `messages` takes precedence, and the `system` column is carried."""
    talk = [{"role": "developer", "content": "D"}, *HI]
    shaped = shape({"messages": talk, "system": "S"}, system="{missing}")
    assert shaped.body["messages"] == talk
    assert "system" not in shaped.used
    assert [fact.code for fact in shaped.notes] == ["system_not_sent"]


def test_columns_that_other_data_sets_call_a_system_message_are_named() -> None:
    """`system_prompt` is not sent by default; the note says how to send it."""
    (fact,) = shape({"prompt": "hi", "system_prompt": "S"}).notes
    assert 'input.system: "{system_prompt}"' in fact.text


def test_a_system_column_that_is_no_text_is_data_and_noted() -> None:
    """An object or a number cannot be a message."""
    for own in ({"os": "linux"}, 5, [1]):
        shaped = shape({"prompt": "hi", "system": own})
        assert len(shaped.body["messages"]) == 1
        assert [fact.code for fact in shaped.notes] == ["system_not_sent"]
        assert "system" not in shaped.used


def test_embeddings_have_no_system_message_and_a_note_says_so() -> None:
    """If rows are embeddings, a note says that `input.system` is not sent."""
    shaped = shape({"input": "lake"}, system="S")
    assert shaped.body == {"input": "lake"}
    assert "system_not_sent" in [fact.code for fact in shaped.notes]
