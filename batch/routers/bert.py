"""RouteLLM's BERT router: a sequence classifier with three labels, of which the first is that the strong model wins.

The layout is that of `routellm/bert_gpt4_augmented`: a folder that `AutoModelForSequenceClassification` reads, with the
labels strong wins, tie, weak wins. The win rate is 1 - (p(tie) + p(weak wins)), as in RouteLLM's `BERTRouter`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batch.arrays import Float32s
from batch.errors import SpecError
from batch.routers.base import Router
from batch.routers.checkpoints.format import refuse_trained
from batch.routers.checkpoints.lookup import network_fingerprint, network_folder
from batch.routers.kind import BuildContext, RouterKind
from batch.routers.network.forward import Forward, first_tokens, most_tokens
from batch.routers.network.pretrained import (
    LOCAL_ONLY,
    REPORT_MISSING_WEIGHTS,
    load_tokenizer,
    refuse_missing_weights,
    transformers_muted,
)
from batch.routers.network.unpadded_attention import attend_to_own_tokens, end_at_first_token
from schemas.routers import BertRouterSpec

if TYPE_CHECKING:
    import torch

STRONG_WINS, TIE, WEAK_WINS = range(3)
LABELS = ("strong wins", "tie", "weak wins")


class BertRouter:
    """Win rates of the strongest model, shape (prompts, 1).

    A prompt is cut at the end to what the model takes. On a GPU it runs in bfloat16, on a CPU in float32, where its
    scores are RouteLLM's to 1e-5.
    """

    def __init__(self, model: str, folder: Path, *, batch_tokens: int, threads: int | None = None) -> None:
        """Load the classifier for `model`, the job's strongest.

        `threads` sets torch's for this whole process; left out, torch's own choice stands.
        Raises SpecError where the folder holds no encoder with a classifier of three labels in safetensors.
        """
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.models: tuple[str, ...] = (model,)
        refuse_trained(folder, "bert")
        try:
            tokenizer, classifier, loading = load_classifier(folder)
            refuse_missing_weights(loading)
            tokenize = first_tokens(tokenizer, token_limit(tokenizer, classifier))
        except (OSError, ValueError) as error:
            raise SpecError(f"router.checkpoint: {folder} cannot be loaded: {error}".splitlines()[0]) from error
        self._forward = Forward(
            tokenize,
            self._logits,
            width=len(LABELS),
            batch_tokens=batch_tokens,
            padding=tokenizer.pad_token_id or 0,
        )
        self._classifier = classifier.eval().to(self._forward.device)
        if self._forward.device.type == "cpu":
            attend_to_own_tokens(self._classifier)
            end_at_first_token(self._classifier)

    def score(self, prompts: Sequence[str]) -> Float32s:
        return win_rates(self._forward(prompts))

    def _logits(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        logits: torch.Tensor = self._classifier(input_ids=ids, attention_mask=mask).logits
        return logits


def win_rates(logits: Float32s) -> Float32s:
    """Return the strong model's win rates, shape (len(logits), 1), of logits of shape (prompts, labels)."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = odds / odds.sum(axis=1, keepdims=True)
    rates: Float32s = 1 - shares[:, [TIE, WEAK_WINS]].sum(axis=1, keepdims=True)
    return rates


def token_limit(tokenizer: Any, classifier: Any) -> int:
    """Most tokens of a text that both the tokenizer and the model's positions allow, special ones included."""
    most = most_tokens(classifier)
    limit = int(tokenizer.model_max_length)
    return limit if most is None else min(limit, most)


def load_classifier(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Return the tokenizer, the classifier of three labels, and transformers' report of weights that were missing.

    Raises ValueError or OSError where the folder holds no encoder in safetensors.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    _refuse_decoder(AutoConfig.from_pretrained(folder, **LOCAL_ONLY))
    with transformers_muted():
        tokenizer = load_tokenizer(folder)
        classifier, loading = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=len(LABELS),
            dtype="float32",
            return_dict=True,
            use_safetensors=True,
            **REPORT_MISSING_WEIGHTS,
            **LOCAL_ONLY,
        )
    return tokenizer, classifier, loading


def _refuse_decoder(config: Any) -> None:
    """Raise ValueError for a model that generates text, with or without an encoder before its decoder.

    Its head reads the last token, which it finds by a token of padding that its configuration and its tokenizer need
    not agree on, and many lack: scores would depend on a prompt's batch.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS
    from transformers.modeling_layers import GenericForSequenceClassification

    # BERT and its kin are in the table of causal models too, but only they are in that of masked words. Some newer
    # decoders are in neither table; their heads are of the class that transformers uses for decoders.
    kind = type(config)
    generates = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    generic = kind in CLASSIFIERS and issubclass(CLASSIFIERS[kind], GenericForSequenceClassification)
    if generates or generic or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise ValueError(f"it is a decoder, of architecture {config.model_type!r}, and no encoder")


def _build(spec: BertRouterSpec, context: BuildContext) -> Router:
    folder = network_folder(spec)
    return BertRouter(context.strongest, folder, batch_tokens=spec.batch_tokens, threads=context.threads)


KIND = RouterKind(spec=BertRouterSpec, build=_build, loads_model=True, fingerprint=network_fingerprint)
