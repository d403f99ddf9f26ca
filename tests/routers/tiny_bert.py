"""Writes classifiers of three labels with random weights, in RouteLLM's layout: BERT and XLM-RoBERTa."""

from pathlib import Path
from typing import Any

WORDS = ["the", "a", "of", "to", "and", "is", "in", "what", "why", "how", "prove", "that", "theorem", "capital"]
WORDS += ["france", "write", "poem", "sum", "two", "numbers", "word"]
POSITIONS = 64
# Spreads of random weights: with the usual one, every prompt would have the same score.
FAR_APART, USUAL = 0.3, 0.05


def build_tiny_bert(folder: Path, *, labels: int = 3, spread: float = FAR_APART) -> Path:
    """Write a BERT with a WordPiece vocabulary into `folder`; the weights are the same every time."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification

    letters = "abcdefghijklmnopqrstuvwxyz0123456789?.,"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    ids = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    config = BertConfig(
        vocab_size=len(ids), max_position_embeddings=POSITIONS, pad_token_id=0, num_labels=labels, **_sizes(spread)
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _saved(folder, tokenizer, BertForSequenceClassification, config, special)


def build_tiny_xlmr(folder: Path, *, spread: float = FAR_APART) -> Path:
    """Write an XLM-RoBERTa with a Unigram vocabulary into `folder`; the published checkpoint is one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -4.0) for word in WORDS]
    pieces += [(letter, -9.0) for letter in "▁abcdefghijklmnopqrstuvwxyz0123456789?.,"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    config = XLMRobertaConfig(
        vocab_size=len(pieces), max_position_embeddings=POSITIONS + 2, pad_token_id=1, num_labels=3, **_sizes(spread)
    )
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _saved(folder, tokenizer, XLMRobertaForSequenceClassification, config, special)


def _sizes(spread: float) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": spread,
    }


def _saved(folder: Path, tokenizer: Any, architecture: Any, config: Any, special: dict[str, str]) -> Path:
    import torch
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    architecture(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **special).save_pretrained(folder)
    return folder


def swap_classifier(folder: Path, kind: str, *, built: bool = True, **options: Any) -> None:
    """Replace the classifier in `folder` by another architecture, or only its configuration; keep the tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    tokens = len(AutoTokenizer.from_pretrained(folder))
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=tokens, num_labels=3, **special, **options)
    if not built:
        config.save_pretrained(folder)
        return
    torch.manual_seed(0)
    classifier = AutoModelForSequenceClassification.from_config(config)
    for parameter in classifier.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=FAR_APART)
    classifier.save_pretrained(folder)
