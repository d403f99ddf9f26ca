"""Fine-tunes a Llama to generate grades: RouteLLM's causal router.

Training uses low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685), which `peft` adds to the model and merges into
its weights afterwards. A grade compares the weak model's answer with the strong model's: 5 if the weak model's answer
is better, 4 if both are equally good, and 3, 2 or 1 the further it is behind. A grade of 4 or 5 means that the weak
model suffices, as in RouteLLM.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batch.errors import InputError, SpecError
from batch.routers.causal_llm import GRADES, QUESTION_FILE, SYSTEM_FILE, Frame, PromptFiles, load_llama
from batch.routers.network.forward import device
from batch.routers.network.pretrained import save_pretrained
from batch.training.data import Judged, Preferences
from batch.training.kind import FineTuner, FineTuningRequest
from batch.training.labels.contests import Contests, collect_contests, split_contests
from batch.training.tuning import OnEpoch, TokenizedExamples, tune

if TYPE_CHECKING:
    import torch

LEARNING_RATE = 2e-4
BATCH_TOKENS = 4096
RANK = 16
_ALPHA = 2 * RANK
_DROPOUT = 0.05
# Layers of attention and of the feed-forward part: adapters on all of them learn more than larger adapters on some.
_ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_ADAPTER = "default"

_SYSTEM = (
    "You see a question that will be put to an AI assistant of modest size. Say how its answer would compare with that "
    "of a much stronger assistant, on a scale from 1 to 5:\n"
    "1 to 3: clearly worse, somewhat worse, slightly worse.\n"
    "4: as good.\n"
    "5: better.\n"
    'Answer with the grade alone, in the form "[[grade]]".\n'
)
_QUESTION = "Question:\n{question}\n\nGrade:\n"


def fine_tune_causal_llm(
    data: Sequence[Judged | Preferences],
    base: Path,
    out: Path,
    *,
    models: tuple[str, ...] | None = None,
    seed: int,
    validation: float,
    epochs: int = 3,
    learning_rate: float = LEARNING_RATE,
    batch_tokens: int = BATCH_TOKENS,
    on_epoch: OnEpoch | None = None,
) -> Mapping[str, Any]:
    """Fine-tune the Llama in `base` and write a checkpoint for `kind: causal_llm` into `out`, in RouteLLM's layout.

    The model learns to generate the header of its turn and then the grade. The adapters of the epoch with the least
    validation loss are merged in. Deterministic on one machine's CPU. Returns figures for a model card.

    Args:
        data: judged answers and preferences, as `collect_contests` takes them.
        base: folder of a Llama in safetensors. If it holds both prompt files, these are used and copied.
        out: folder for the checkpoint; it is created if missing.
        models: weakest first; needed for preferences.
        seed: of the validation part, the order of prompts, and the adapters' initial weights and dropout.
        validation: share of the prompts, above 0 and below 1, that decides which epoch is kept.
        epochs: most epochs; training ends sooner after two epochs without a better validation loss.
        batch_tokens: most tokens in one batch, padding included.

    Raises:
        InputError: the data has no contest or too few, or all contests have the same grade.
        SpecError: `base` is no such model, or `peft` is not installed.
    """
    import torch

    _refuse_without_peft()
    trained, held = split_contests(collect_contests(data, models), validation, seed)
    labels = [_grades(part) for part in (trained, held)]
    counts = _counted(labels[0])
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # for the adapters and their dropout
        tokenizer, llama, frame = _opened(base)
        graded = _Graded(llama, frame)
        tuned = tune(
            graded.module.to(device()),
            graded.loss,
            *(TokenizedExamples(frame(part.prompts), own) for part, own in zip((trained, held), labels, strict=True)),
            seed=seed,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_tokens=batch_tokens,
            on_epoch=on_epoch,
        )
    _save(tokenizer, graded.folded(), base, out)
    return {
        "prompts": len(trained),
        "validation_prompts": len(held),
        "grades": dict(zip(GRADES, counts, strict=True)),
        "epoch": tuned.epoch,
        "validation_losses": [round(one, 4) for one in tuned.losses],
    }


class _Graded:
    """A Llama with adapters. The grades' rows in its output matrix are trained too."""

    def __init__(self, llama: Any, frame: Frame) -> None:
        import torch
        from peft import LoraConfig, LoraModel

        self._llama = llama
        self._grades = torch.tensor(frame.grades, device=device())
        self._draft = torch.tensor(frame.draft, device=device())
        self.module = torch.nn.Module()
        # `get_peft_model` is not used, because its wrapper reads a name that transformers has deprecated.
        lora = LoraConfig(r=RANK, lora_alpha=_ALPHA, lora_dropout=_DROPOUT, target_modules=list(_ADAPTED))
        self._adapted: Any = LoraModel(llama, {_ADAPTER: lora}, _ADAPTER)
        self.module.adapted = self._adapted
        self._rows = torch.nn.Parameter(llama.lm_head.weight.detach()[frame.grades].float())
        self.module.rows = self._rows
        for parameter in self.module.parameters():
            if parameter.requires_grad:
                # peft gives adapters the model's precision. In bfloat16 rounding would undo most training steps.
                parameter.data = parameter.data.float()

    def loss(self, ids: "torch.Tensor", mask: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """The cross-entropy of the draft and the grade after it, in nats, summed for each prompt; shape (prompts,).

        The tokens of each prompt end with the draft. `labels` are positions in `GRADES`.
        """
        import torch

        rows, drafted = torch.arange(len(ids), device=ids.device)[:, None], len(self._draft)
        places = mask.sum(1)[:, None] - drafted - 1 + torch.arange(drafted + 1, device=ids.device)
        states = self._llama.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        said = states[rows, places]
        logits = self._llama.lm_head(said).float()
        logits = logits.index_copy(-1, self._grades, said.float() @ self._rows.T)
        wanted = torch.cat([self._draft.expand(len(ids), -1), self._grades[labels][:, None]], dim=1)
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        return losses.sum(1)

    def folded(self) -> Any:
        """Merge the adapters and the trained rows into the Llama's own weights, and return the Llama."""
        import torch

        llama = self._adapted.merge_and_unload()
        with torch.no_grad():
            llama.lm_head.weight[self._grades] = self._rows.to(llama.lm_head.weight.dtype)
        return llama


def _refuse_without_peft() -> None:
    if find_spec("peft") is None:
        raise SpecError("kind: causal_llm is fine-tuned with peft, which is not installed; pip install peft")


def _opened(base: Path) -> tuple[Any, Any, Frame]:
    """Load the tokenizer and the model, with rows for the grades' tokens, and build the frame of its prompts."""
    try:
        tokenizer, llama = load_llama(base, "bfloat16" if device().type == "cuda" else "float32")
        if len(tokenizer) > llama.get_input_embeddings().num_embeddings:
            _add_rows(tokenizer, llama)
        return tokenizer, llama, Frame(tokenizer, _prompt_files(base), int(llama.config.max_position_embeddings))
    except (OSError, ValueError) as error:
        raise SpecError(f"fine_tuning.base: {base}: {error}".splitlines()[0]) from error


def _add_rows(tokenizer: Any, llama: Any) -> None:
    """Give each grade's token an embedding row and an output row.

    They begin as copies of the grade's digit, because the model knows already that 4 lies near 5. If the tokenizer has
    no token for the digit, they begin as the mean of the rows before them.
    """
    import torch

    llama.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    digits = tokenizer.convert_tokens_to_ids([str(grade + 1) for grade in range(len(GRADES))])
    grades = tokenizer.convert_tokens_to_ids(list(GRADES))
    with torch.no_grad():
        for table in (llama.get_input_embeddings().weight, llama.lm_head.weight):
            for grade, digit in zip(grades, digits, strict=True):
                table[grade] = table[digit] if digit is not None else table[:grade].mean(0)


def _prompt_files(base: Path) -> PromptFiles:
    return PromptFiles.read(base) if _has_prompt_files(base) else PromptFiles.of(_SYSTEM, _QUESTION)


def _has_prompt_files(base: Path) -> bool:
    return (base / SYSTEM_FILE).is_file() and (base / QUESTION_FILE).is_file()


def _save(tokenizer: Any, llama: Any, base: Path, out: Path) -> None:
    save_pretrained(out, llama, tokenizer)
    own = _has_prompt_files(base)
    for name, text in ((SYSTEM_FILE, _SYSTEM), (QUESTION_FILE, _QUESTION)):
        (out / name).write_bytes((base / name).read_bytes() if own else text.encode())


def _grades(part: Contests) -> list[int]:
    """The grade of each contest, as a position in `GRADES`."""
    behind = np.clip(np.ceil(part.ahead * 3), 1, 3).astype(int)
    return [3 - int(by) if ahead > 0 else 4 if ahead < 0 else 3 for ahead, by in zip(part.ahead, behind, strict=True)]


def _counted(labels: Sequence[int]) -> list[int]:
    counts: list[int] = np.bincount(labels, minlength=len(GRADES)).tolist()
    if max(counts) == len(labels):
        raise InputError(
            f"data: all {len(labels)} prompts have the grade {GRADES[labels[0]]}; there is nothing to learn"
        )
    return counts


def _fine_tune(asked: FineTuningRequest) -> Mapping[str, Any]:
    spec = asked.spec
    return fine_tune_causal_llm(
        asked.data,
        asked.base,
        asked.out,
        models=asked.models,
        seed=asked.seed,
        validation=asked.validation,
        epochs=spec.epochs,
        learning_rate=LEARNING_RATE if spec.learning_rate is None else spec.learning_rate,
        batch_tokens=spec.batch_tokens,
        on_epoch=asked.on_epoch,
    )


TRAINER = FineTuner(
    kind="causal_llm",
    card="RouteLLM's causal model: grades from 1 to 5 how well the weakest model would answer.",
    fine_tune=_fine_tune,
)
