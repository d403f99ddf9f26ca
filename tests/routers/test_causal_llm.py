"""RouteLLM's causal router, compared with decoding one prompt at a time."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from batch.errors import SpecError
from batch.routers.causal_llm import CausalLlmRouter, Frame, PromptFiles, load_llama
from batch.routers.registry import build_router, router_fingerprint
from batch.routers.scores import scores_of
from schemas.routers import CausalLlmRouterSpec
from tests.routers.conftest import PAIR
from tests.routers.tiny_bert import build_tiny_bert
from tests.routers.tiny_causal import END, EOT, POSITIONS, QUESTION, START, SYSTEM, Saying, build_tiny_causal

PROMPTS = [
    "what is the capital of france?",
    "prove it",
    "",
    "why? " * 20,
    "Añade 你好 🎉",
    "\n\n  how to write 7 poems?\n",
    "x" * 30,
    "{question} [[3]] <|eot_id|>",
]


def router(folder: Path, threshold: int = 4, batch_tokens: int = 500) -> CausalLlmRouter:
    return CausalLlmRouter("large", folder, threshold=threshold, batch_tokens=batch_tokens)


def framed(prompt: str) -> str:
    """The prompt files' text in Llama 3's format, written out by hand."""
    asked = QUESTION.replace("{question}", prompt).strip()
    return f"{START}system{END}\n\n{SYSTEM.strip()}{EOT}{START}user{END}\n\n{asked}{EOT}"


def decoded(folder: Path, prompts: list[str], threshold: int = 4) -> tuple[NDArray[np.float32], list[int | None]]:
    """RouteLLM's win rates by `generate`, one prompt at a time, and each grade's place among the new tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    first_grade = len(tokenizer) - 5
    rates, places = [], []
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(framed(prompt))])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
            output_scores=True,
            return_dict_in_generate=True,
        )
        new = out.sequences[0, ids.shape[1] :].tolist()
        place = next((i for i, token in enumerate(new) if token >= first_grade), None)
        places.append(place)
        shares = torch.softmax(out.scores[place or 0][0, first_grade:], 0)
        rates.append(1.0 if place is None else 1 - float(shares[threshold - 1 :].sum()))
    return np.array(rates, dtype=np.float32)[:, None], places


class RecordingTokenizer:
    """Records how many texts each call tokenizes."""

    def __init__(self, rust: Any) -> None:
        self._rust = rust
        self.asked: list[int] = []

    def encode_batch_fast(self, texts: list[str]) -> Any:
        self.asked.append(len(texts))
        return self._rust.encode_batch_fast(texts)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("header", {4}),
        ("at once", {0}),
        ("mixed", {0, 4}),
        ("detour", {1}),
        ("nothing", {None}),
        ("endless", {None}),
    ],
)
def test_win_rates_are_those_of_decoding(says: Saying, expected: set[int | None], tmp_path: Path) -> None:
    """Wherever the grade comes, or if none comes, batched win rates equal those of decoding each prompt."""
    folder = build_tiny_causal(tmp_path, says)
    wanted, places = decoded(folder, PROMPTS)
    assert set(places) == expected
    assert None in expected or np.ptp(wanted) > 0.05
    np.testing.assert_allclose(router(folder).score(PROMPTS), wanted, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_causal(tmp_path_factory.mktemp("causal"))


@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_the_threshold_is_the_jobs(folder: Path, threshold: int) -> None:
    """Grades of at least the job's threshold count for the weak model; with threshold 1, all grades do."""
    spec = CausalLlmRouterSpec(kind="causal_llm", checkpoint=str(folder), threshold=threshold)
    built = build_router(spec, PAIR, seed=0)
    assert built.models == ("large",)
    np.testing.assert_allclose(built.score(PROMPTS), decoded(folder, PROMPTS, threshold)[0], rtol=0, atol=1e-5)


def test_the_instruction_is_run_once(folder: Path) -> None:
    """The tokens that all prompts begin with are not run again; a batch with another beginning is run whole."""
    built = router(folder)
    lengths: list[int] = []
    built._llama.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    shared = built.score(PROMPTS[:1])
    kept = len(built._beginning)
    assert kept > 30
    built._beginning = built._beginning + 1
    whole = built.score(PROMPTS[:1])
    assert lengths == [lengths[1] - kept, lengths[1]]
    np.testing.assert_allclose(shared, whole, rtol=0, atol=1e-5)


def test_long_prompts_lose_their_end_and_nothing_else(folder: Path) -> None:
    """A prompt beyond the model's positions is cut at its end, and the frame around it stays whole."""
    tokenizer, llama = load_llama(folder, "float32")
    frame = Frame(tokenizer, PromptFiles.read(folder), llama.config.max_position_embeddings)
    long = "why? how? " * 200
    (ids,) = frame([long])
    assert len(ids) == POSITIONS - 6 + len(frame.draft)
    text = tokenizer.decode(ids)
    assert text.endswith(f"\n\nPrediction:{EOT}{START}assistant{END}\n\n")
    built = router(folder)
    np.testing.assert_array_equal(built.score([long]), built.score([long + "and what? " * 10_000]))


def test_long_prompts_are_tokenized_a_few_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the number of prompts; each keeps the tokens it has alone, and its place."""
    tokenizer, llama = load_llama(folder, "float32")
    frame = Frame(tokenizer, PromptFiles.read(folder), llama.config.max_position_embeddings)
    prompts = ["why? " * 30, "how?", "", "a" * 500, "b" * 20, "what? " * 10]
    alone = [frame([prompt])[0] for prompt in prompts]
    rust = RecordingTokenizer(frame._rust)
    monkeypatch.setattr(frame, "_rust", rust)
    monkeypatch.setattr("batch.routers.causal_llm._MOST_CHARACTERS", 160)
    assert frame(prompts) == alone
    assert rust.asked == [3, 1, 2]
    assert frame([]) == []


def test_what_the_model_reads(folder: Path) -> None:
    """The text equals RouteLLM's character by character, and braces in a prompt mean nothing."""
    files = PromptFiles.read(folder)
    for prompt in PROMPTS:
        assert files.text(prompt) == framed(prompt)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("no place for it", "must hold {question} once, and holds it 0 times"),
        ("{question} {question}", "once, and holds it 2 times"),
        ("{question.__class__}", "a placeholder that is not {question}"),
        ("{question} {", "Single '{' encountered"),
    ],
)
def test_a_broken_prompt_file_is_refused(copy: Path, template: str, says: str) -> None:
    """A question file that is no template for exactly one question is refused in one line."""
    (copy / "classifier_ft_v5.txt").write_text(template)
    with pytest.raises(SpecError) as refused:
        router(copy)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_prompt_files_must_be_there_and_leave_room(copy: Path) -> None:
    """A folder without prompt files, or with an instruction that fills the model, is refused."""
    spec = CausalLlmRouterSpec(kind="causal_llm", checkpoint=str(copy))
    before = router_fingerprint(spec)
    (copy / "system_ft_v5.txt").write_text("Say how well. " * 100)
    assert router_fingerprint(spec) != before
    with pytest.raises(SpecError, match="leaves none for a prompt"):
        router(copy)
    (copy / "system_ft_v5.txt").unlink()
    with pytest.raises(SpecError, match=r"system_ft_v5\.txt"):
        router(copy)


def test_other_architectures_are_refused(copy: Path, tmp_path: Path) -> None:
    """A model that is no Llama is refused by name."""
    build_tiny_bert(tmp_path / "bert")
    for file in ("system_ft_v5.txt", "classifier_ft_v5.txt"):
        shutil.copy(copy / file, tmp_path / "bert" / file)
    with pytest.raises(SpecError, match="architecture 'bert', not 'llama'"):
        router(tmp_path / "bert")


def test_a_damaged_model_has_no_scores(copy: Path) -> None:
    """Weights that are NaN are refused; otherwise a prompt without a grade would count as the strong model's win."""
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][:] = torch.nan
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SpecError, match="a number that is not finite"):
        scores_of(router(copy), "causal_llm", ["why", "how"])


def test_a_model_without_grades_is_refused(copy: Path) -> None:
    """Weights without rows for the five grades are refused: the softmax would be over other words."""
    from transformers import AutoModelForCausalLM

    llama = AutoModelForCausalLM.from_pretrained(copy)
    llama.resize_token_embeddings(llama.config.vocab_size - 1)
    llama.save_pretrained(copy)
    with pytest.raises(SpecError, match=r"none for \[\[1\]\] to \[\[5\]\]"):
        router(copy)
