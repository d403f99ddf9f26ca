"""Writes a tiny Llama in RouteLLM's causal layout, with weights set by hand so that it answers like a trained one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

HIDDEN_SIZE = 64
POSITIONS = 256

BEGIN, START, END, EOT = "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
FINAL = "<|end_of_text|>"
GRADES = ("[[1]]", "[[2]]", "[[3]]", "[[4]]", "[[5]]")
SYSTEM = "[Instruction]\nSay how well an assistant would answer, from 1 to 5.\n\nReply with [[rating]] alone.\n"
QUESTION = "[Question]\n{question}\n\nPrediction:\n"

Saying = Literal["header", "at once", "mixed", "detour", "nothing", "endless"]


def build_tiny_causal(folder: Path, says: Saying = "header", *, bare: bool = False) -> Path:
    """Write the checkpoint into `folder`; the weights are the same every time.

    `says` is what the model generates before the grade: the header of its turn ("header"), nothing ("at once"), one or
    the other by prompt ("mixed"), or a part of the header ("detour"). With "nothing" it generates only the token of
    the end, and with "endless" it goes on without a grade. `bare` leaves out grades and prompt files: a base to train
    on, which knows how a turn begins.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(() if bare else GRADES)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=2 * HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=0.15,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.convert_tokens_to_ids(BEGIN),
        eos_token_id=tokenizer.convert_tokens_to_ids(FINAL),
    )
    model = LlamaForCausalLM(config)
    _teach(model, tokenizer, says, () if bare else GRADES)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not bare:
        (folder / "system_ft_v5.txt").write_text(SYSTEM)
        (folder / "classifier_ft_v5.txt").write_text(QUESTION)
    return folder


def _tokenizer(grades: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [BEGIN, FINAL, START, END, EOT]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([SYSTEM, QUESTION, "assistant\n\n user\n\n system\n\n"] * 9, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=FINAL)
    wrapped.add_tokens(list(grades), special_tokens=True)
    return wrapped


def _teach(model: Any, tokenizer: Any, says: Saying, grades: Sequence[str]) -> None:
    """Make each token's successor the one whose head points along its vector; between several, the layers decide."""
    import torch

    chance = torch.Generator().manual_seed(1)
    vectors = torch.randn(len(tokenizer), HIDDEN_SIZE, generator=chance) * 2
    heads = torch.randn(len(tokenizer), HIDDEN_SIZE, generator=chance) * 0.02
    header = tokenizer.encode(f"{START}assistant{END}\n\n", add_special_tokens=False)
    eot = tokenizer.convert_tokens_to_ids(EOT)

    def follows(before: int, after: int, weight: float = 1) -> None:
        heads[after] += weight * vectors[before] / vectors[before].norm()

    previous = eot
    for token in header:
        follows(previous, token)
        previous = token
    final = tokenizer.convert_tokens_to_ids(FINAL)
    if says == "detour":
        follows(eot, header[-1], 3)
    if says == "nothing":
        follows(eot, final, 3)
    if says == "endless":
        follows(eot, eot, 3)
    for grade in tokenizer.convert_tokens_to_ids(list(grades)):
        heads[grade] += torch.randn(HIDDEN_SIZE, generator=chance) * 0.15
        follows(final if says == "nothing" else header[-1], grade)
        if says == "at once":
            follows(eot, grade, 2)
        if says == "mixed":
            follows(eot, grade, 1.25)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(vectors)
        model.lm_head.weight.copy_(heads)
