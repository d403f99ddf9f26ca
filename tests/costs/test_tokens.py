import pickle
import shutil
from collections.abc import Iterator

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from batch.costs.prices import litellm_folder
from batch.costs.tokens import LONGEST_PIECE, EncodingName, counter, encoding_name, load_encoding

SAMPLES = (
    "",
    "How many apples are 3 bags of 12?",
    "  two  spaces\n\n\ttab\r\n and it's DON'T 12345 ...\n",
    "价格是多少？ Größe, été, 🙂🙃 नमस्ते",
    "<|endoftext|> and <|im_start|>",
    "lone surrogate \ud800 here",
)


@pytest.fixture(autouse=True, scope="module")
def _tiktoken_finds_its_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # A copy, because tiktoken deletes a file whose checksum it does not know.
    folder = tmp_path_factory.mktemp("tiktoken") / "cache"
    shutil.copytree(litellm_folder() / "litellm_core_utils" / "tokenizers", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
@pytest.mark.parametrize("text", SAMPLES)
def test_it_encodes_as_tiktoken_does(name: EncodingName, text: str) -> None:
    """Our vocabulary, built without network or environment, cuts text exactly as tiktoken's own."""
    assert load_encoding(name).encode_ordinary(text) == tiktoken.get_encoding(name).encode_ordinary(text)


@given(st.text(max_size=200))
def test_it_counts_any_text_as_tiktoken_does(text: str) -> None:
    """Both vocabularies give tiktoken's count for any text."""
    for model in ("gpt-4", "gpt-4o"):
        assert counter("exact", model)([text]) == [len(tiktoken.encoding_for_model(model).encode_ordinary(text))]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4", "cl100k_base"),
        ("gpt-4-1106-preview", "cl100k_base"),
        ("openai/gpt-3.5-turbo-0125", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("azure/gpt-5", "o200k_base"),
        ("gpt-oss-20b", "o200k_base"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "o200k_base"),
    ],
)
def test_each_model_has_its_vocabulary(model: str, name: str) -> None:
    """OpenAI's models are counted with their own vocabulary, others with the newest."""
    assert encoding_name(model) == name


@pytest.mark.parametrize("character", [" ", "a", "\n"])
def test_long_runs_of_one_character_are_counted(character: str) -> None:
    """A million equal characters, on which tiktoken alone may panic, are counted in pieces."""
    pieces = 10
    once, long = counter("exact", "gpt-4o")([character * LONGEST_PIECE, character * LONGEST_PIECE * pieces])
    assert long == once * pieces


def test_the_estimate_is_a_quarter_of_the_bytes() -> None:
    """The estimate rounds up, counts UTF-8 bytes and keeps the order."""
    assert counter("estimate", "any")(["", "abcd", "abcde", "éé", "🙂x", "\ud800"]) == [0, 1, 2, 1, 2, 1]


@pytest.mark.parametrize("kind", ["exact", "estimate"])
def test_counters_travel(kind: str) -> None:
    """A counter pickles in a few bytes, without its vocabulary."""
    count = counter("exact" if kind == "exact" else "estimate", "gpt-4")
    frozen = pickle.dumps(count)
    assert len(frozen) < 200
    assert pickle.loads(frozen)(["one two three"]) == count(["one two three"])
