"""RouteLLM's causal router: a language model that grades how well the weak model would answer, from [[1]] to [[5]].

A checkpoint has the layout of `routellm/causal_llm_gpt4_augmented`: a Llama with one token for each grade, and two
prompt files. RouteLLM writes the prompt in Llama 3's format, decodes up to six tokens greedily, and takes the softmax
over the grades' logits at the position of the first grade. The win rate is 1 - p(grade >= threshold), or 1 if the model
generates no grade. This router gives the same win rates.

RouteLLM's prompt ends before the header of the assistant's turn, so the model first generates that header, token by
token. This router appends the header to the prompt as a draft, and computes the logits at all its positions in one
forward pass. If the model predicts the header up to a grade, as a trained one does, that pass gives what decoding would
give. All other prompts are decoded. The tokens that all prompts begin with, RouteLLM's instruction of about 200 tokens,
are run once, and their keys and values are kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np

from batch.arrays import Float32s
from batch.errors import SpecError
from batch.routers.base import Router
from batch.routers.checkpoints.lookup import network_fingerprint, network_folder
from batch.routers.kind import BuildContext, RouterKind
from batch.routers.network.forward import CHARACTERS_PER_TOKEN, Forward, device
from batch.routers.network.pretrained import (
    LOCAL_ONLY,
    REPORT_MISSING_WEIGHTS,
    load_tokenizer,
    refuse_missing_weights,
    transformers_muted,
)
from schemas.routers import CausalLlmRouterSpec

if TYPE_CHECKING:
    import torch

GRADES = ("[[1]]", "[[2]]", "[[3]]", "[[4]]", "[[5]]")
SYSTEM_FILE, QUESTION_FILE = "system_ft_v5.txt", "classifier_ft_v5.txt"
MOST_NEW_TOKENS = 6

# The beginning and the end of a turn in Llama 3's format.
HEADER = "<|start_header_id|>{role}<|end_header_id|>\n\n"
END_OF_TURN = "<|eot_id|>"

# Possible first characters of a prompt. A tokenizer may join some of them to the text before the prompt, so only the
# tokens that are the same for all of these count as the beginning of every prompt.
_PROBES = ("", " ", "\n", "\n\n", "a", "A", "1", ".", "é", "你")


# Most characters that are tokenized in one call. The tokenizer truncates nothing, because the text after the prompt
# must be kept. During a call it needs 65 bytes of memory per character, a quarter of a GiB for this number. So many
# characters are hundreds of prompts of the usual length, enough for all cores.
_MOST_CHARACTERS = 1 << 22


@dataclass(frozen=True)
class PromptFiles:
    """A checkpoint's two prompt files, which turn a prompt into the text that the model reads."""

    system: str
    """Text of the system file."""
    before: str
    """Text of the question file before `{question}`."""
    after: str
    """Text of the question file after `{question}`."""

    @classmethod
    def read(cls, folder: Path) -> "PromptFiles":
        """Read the two files from a checkpoint. Raises OSError if one is missing, and ValueError as `of` does."""
        return cls.of(
            (folder / SYSTEM_FILE).read_text(encoding="utf-8"), (folder / QUESTION_FILE).read_text(encoding="utf-8")
        )

    @classmethod
    def of(cls, system: str, question: str) -> "PromptFiles":
        """Build them from the files' texts. Raises ValueError unless `question` holds `{question}` exactly once."""
        before, after, asked = "", "", 0
        for text, name, how, conversion in Formatter().parse(question):
            before, after = (before, after + text) if asked else (before + text, after)
            if name is not None:
                asked += 1
                if (name, how, conversion) != ("question", "", None):
                    raise ValueError(f"{QUESTION_FILE} holds a placeholder that is not {{question}}")
        if asked != 1:
            raise ValueError(f"{QUESTION_FILE} must hold {{question}} once, and holds it {asked} times")
        return cls(system.strip(), before, after)

    def text(self, prompt: str) -> str:
        """The text that the model reads, without the beginning-of-text token, which the tokenizer adds."""
        system = HEADER.format(role="system") + self.system + END_OF_TURN if self.system else ""
        asked = (self.before + prompt + self.after).strip()
        return system + HEADER.format(role="user") + asked + END_OF_TURN

    @property
    def end(self) -> str:
        """The text that follows the prompt."""
        return self.after.rstrip() + END_OF_TURN


def _slices(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Cut items of these sizes, in order, into slices whose sizes sum to at most `most`; a larger item is alone."""
    start = total = 0
    for place, size in enumerate(sizes):
        if place > start and total + size > most:
            yield slice(start, place)
            start, total = place, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))


class Frame:
    """Turns prompts into the tokens that the model reads, followed by a draft of what it generates before its grade."""

    def __init__(self, tokenizer: Any, files: PromptFiles, positions: int) -> None:
        """Turn truncation and padding off in `tokenizer`, and tokenize the draft.

        `positions` is the most tokens that the model reads. Raises ValueError if the files leave none for a prompt.
        """
        rust = tokenizer.backend_tokenizer
        rust.no_truncation()
        rust.no_padding()
        self._rust = rust
        self._files = files
        self.grades: list[int] = tokenizer.convert_tokens_to_ids(list(GRADES))
        header = rust.encode(HEADER.format(role="assistant"), add_special_tokens=False).ids
        self.draft: list[int] = header[: MOST_NEW_TOKENS - 1]
        self._end: list[int] = rust.encode(files.end, add_special_tokens=False).ids
        self._limit = positions - MOST_NEW_TOKENS
        framed = len(rust.encode(files.text("")).ids)
        if framed >= self._limit:
            raise ValueError(f"its prompt files fill {framed} of {self._limit} tokens, which leaves none for a prompt")

    def __call__(self, prompts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Return the tokens of each prompt; a prompt that is too long for the model is cut at its end."""
        most = self._limit * CHARACTERS_PER_TOKEN
        beginnings = [prompt[:most] for prompt in prompts]
        framed: list[list[int]] = []
        for few in _slices(list(map(len, beginnings)), _MOST_CHARACTERS):
            texts = [self._files.text(prompt) for prompt in beginnings[few]]
            # No variable holds the tokenizer's output, so its memory is freed before the next call.
            framed.extend(self._cut(encoded.ids) + self.draft for encoded in self._rust.encode_batch_fast(texts))
        return framed

    def _cut(self, ids: list[int]) -> list[int]:
        """Remove excess tokens from the end of the prompt, and keep the text that follows it."""
        return ids if len(ids) <= self._limit else ids[: self._limit - len(self._end)] + self._end

    def beginning(self) -> list[int]:
        """The tokens that all prompts begin with."""
        probes = self(_PROBES)
        shortest = min(map(len, probes))
        table = np.array([ids[:shortest] for ids in probes])
        shared = int((table == table[0]).all(axis=0).cumprod().sum())
        common: list[int] = table[0, :shared].tolist()
        return common


class CausalLlmRouter:
    """Scores of shape (prompts, 1): the win rate of the strongest model.

    A prompt that is too long for the language model is cut at its end. On a GPU the language model runs in bfloat16, as
    in RouteLLM, on a CPU in float32.
    """

    def __init__(
        self, model: str, folder: Path, *, threshold: int, batch_tokens: int, threads: int | None = None
    ) -> None:
        """Load the language model for `model`, the job's strongest.

        A grade of `threshold` or higher means that the weak model suffices. `threads` sets the number of torch's
        threads for the whole process. Raises SpecError if the folder holds no Llama in safetensors with embedding rows
        for the grades, or no prompt files, or prompt files that leave no token for a prompt.
        """
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.models: tuple[str, ...] = (model,)
        self._threshold = threshold
        try:
            files = PromptFiles.read(folder)
            tokenizer, self._llama = load_llama(folder, "bfloat16" if device().type == "cuda" else "float32")
            _refuse_without_grades(tokenizer, self._llama)
            frame = Frame(tokenizer, files, int(self._llama.config.max_position_embeddings))
        except (OSError, ValueError) as error:
            raise SpecError(f"router.checkpoint: {folder} cannot be loaded: {error}".splitlines()[0]) from error
        self._forward = Forward(frame, self._rates, width=1, batch_tokens=batch_tokens)
        self._llama.eval().to(self._forward.device)
        self._grades = torch.tensor(frame.grades, device=self._forward.device)
        self._draft = torch.tensor(frame.draft, device=self._forward.device)
        self._ends = torch.tensor(_end_tokens(self._llama), device=self._forward.device, dtype=torch.int64)
        self._keep(frame.beginning())

    def score(self, prompts: Sequence[str]) -> Float32s:
        return self._forward(prompts)

    def _keep(self, beginning: list[int]) -> None:
        """Run the tokens that all prompts begin with, and keep the keys and values of each layer."""
        import torch

        self._beginning = torch.tensor(beginning, device=self._forward.device, dtype=torch.int64)
        self._kept: list[tuple[Any, Any]] = []
        if beginning:
            with torch.inference_mode():
                cache = self._llama.base_model(self._beginning[None], use_cache=True).past_key_values
            self._kept = [(layer.keys, layer.values) for layer in cache.layers]

    def _rates(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        """Compute the win rates of one batch, shape (prompts, 1).

        They come from one pass over the drafts. Prompts for which the model generates something else are decoded.
        """
        import torch

        drafted = len(self._draft)
        ends = mask.sum(1) - drafted
        logits = self._logits(ids, mask, ends[:, None] - 1 + torch.arange(drafted + 1, device=ids.device))
        said = logits.argmax(-1)
        # Decoding reaches a position of the draft only if the model predicts all of the draft's tokens before it.
        comes = torch.ones_like(said, dtype=torch.bool)
        comes[:, 1:] = (said[:, :-1] == self._draft).cumprod(1).bool()
        graded = torch.isin(said, self._grades) & comes
        rows = torch.arange(len(ids), device=ids.device)
        rates = self._rate(logits[rows, graded.int().argmax(1)])
        (others,) = (~graded.any(1)).nonzero(as_tuple=True)
        if len(others):
            rates[others] = self._decoded(ids[others], ends[others])
        # A damaged model gives NaN logits, in which no grade is found. Without this line, every prompt would seem to
        # need the strong model.
        rates[logits.isnan().flatten(1).any(1)] = torch.nan
        return rates[:, None]

    def _decoded(self, ids: "torch.Tensor", ends: "torch.Tensor") -> "torch.Tensor":
        """Compute win rates by decoding token by token; each prompt's tokens end before its position in `ends`."""
        import torch

        rates = torch.ones(len(ids), device=ids.device)
        going = torch.ones(len(ids), device=ids.device, dtype=torch.bool)
        ids = torch.nn.functional.pad(ids, (0, MOST_NEW_TOKENS))
        rows, places = torch.arange(len(ids), device=ids.device), torch.arange(ids.shape[1], device=ids.device)
        for _ in range(MOST_NEW_TOKENS):
            logits = self._logits(ids, (places < ends[:, None]).long(), ends[:, None] - 1)[:, 0]
            said = logits.argmax(-1)
            graded = torch.isin(said, self._grades)
            rates = torch.where(going & graded, self._rate(logits), rates)
            going &= ~graded & ~torch.isin(said, self._ends)
            if not going.any():
                break
            ids[rows, ends] = said
            ends = ends + 1
        return rates

    def _rate(self, logits: "torch.Tensor") -> "torch.Tensor":
        """1 - p(grade >= threshold), from logits of shape (prompts, vocabulary)."""
        shares = logits[:, self._grades].softmax(-1)
        rates: torch.Tensor = 1 - shares[:, self._threshold - 1 :].sum(1)
        return rates

    def _logits(self, ids: "torch.Tensor", mask: "torch.Tensor", places: "torch.Tensor") -> "torch.Tensor":
        """Compute the logits at the given positions, shape (prompts, positions, vocabulary).

        The other positions' logits are not computed, because the vocabulary is large.
        """
        import torch

        rows = torch.arange(len(ids), device=ids.device)[:, None]
        kept = len(self._beginning)
        if kept and bool((ids[:, :kept] == self._beginning).all()):
            # Padding is on the right, so no position whose state is used attends to it.
            states = self._llama.base_model(
                input_ids=ids[:, kept:], attention_mask=mask, past_key_values=self._cache(len(ids)), use_cache=True
            ).last_hidden_state
            places = places - kept
        else:
            states = self._llama.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits: torch.Tensor = self._llama.lm_head(states[rows, places]).float()
        return logits

    def _cache(self, rows: int) -> Any:
        from transformers import DynamicCache

        return DynamicCache(
            [(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in self._kept]
        )


def load_llama(folder: Path, dtype: str) -> tuple[Any, Any]:
    """Load a Llama's tokenizer and the Llama itself; returns both, the tokenizer first.

    The grades' tokens are added to the tokenizer if it lacks them. The model's embeddings are not enlarged, so they may
    have no rows for added tokens. Raises ValueError or OSError if the folder holds no Llama in safetensors, lacks some
    of its weights, or has no fast tokenizer.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, **LOCAL_ONLY)
    if config.model_type != "llama":
        raise ValueError(f"it is of architecture {config.model_type!r}, not 'llama'")
    with transformers_muted():
        tokenizer = load_tokenizer(folder)
        llama, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, return_dict=True, use_safetensors=True, **REPORT_MISSING_WEIGHTS, **LOCAL_ONLY
        )
    refuse_missing_weights(loading)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ValueError(f"{type(tokenizer).__name__} is no fast tokenizer; it needs a tokenizer.json")
    # RouteLLM adds the grades to the base model's own tokenizer in this way, so they get the same ids here.
    tokenizer.add_tokens(list(GRADES), special_tokens=True)
    return tokenizer, llama


def _refuse_without_grades(tokenizer: Any, llama: Any) -> None:
    rows = llama.get_input_embeddings().num_embeddings
    if max(tokenizer.convert_tokens_to_ids(list(GRADES))) >= rows:
        raise ValueError(f"its weights have {rows} rows for tokens, and none for {GRADES[0]} to {GRADES[-1]}")


def _end_tokens(llama: Any) -> list[int]:
    """The tokens at which decoding stops."""
    ends = llama.generation_config.eos_token_id
    if ends is None:
        ends = llama.config.eos_token_id
    if ends is None:
        return []
    return [ends] if isinstance(ends, int) else list(ends)


def _build(spec: CausalLlmRouterSpec, context: BuildContext) -> Router:
    return CausalLlmRouter(
        context.strongest,
        network_folder(spec),
        threshold=spec.threshold,
        batch_tokens=spec.batch_tokens,
        threads=context.threads,
    )


KIND = RouterKind(spec=CausalLlmRouterSpec, build=_build, loads_model=True, fingerprint=network_fingerprint)
