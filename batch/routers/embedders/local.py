"""Embeds prompts with the first layers of a local sentence encoder.

Layer 2 of the packaged MiniLM separates prompts better than its last one (APGR .692 against .640 on MMLU) and
costs a third of the time, so the layers above the one that is asked for are never built.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.arrays import Float32s
from batch.errors import SpecError
from batch.routers.checkpoints.encoder_files import KEY
from batch.routers.network.forward import Forward, device, first_tokens, most_tokens
from batch.routers.network.pretrained import (
    LOCAL_ONLY,
    REPORT_MISSING_WEIGHTS,
    load_tokenizer,
    refuse_missing_weights,
    transformers_muted,
)

if TYPE_CHECKING:
    import torch


class LocalEmbedder:
    """Mean of the hidden states after `layer`, over a prompt's own tokens, the first `max_tokens` of them.

    Runs on a GPU where torch sees one, in bfloat16, else on the CPU in float32. A text's vector does not depend on
    its neighbours but for rounding: less than 1e-5 on the CPU, the third digit in bfloat16.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layer: int,
        max_tokens: int,
        batch_tokens: int,
        threads: int | None = None,
        key: str = KEY,
    ) -> None:
        """Load the encoder.

        Args:
            threads: torch's, for this whole process; left out, torch's own choice stands.
            key: what the user calls the encoder, for messages.

        Raises:
            SpecError: the folder holds no such encoder, or one that takes fewer tokens.
        """
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        try:
            tokenizer, config = _load(folder, layer)
            tokenize = first_tokens(tokenizer, max_tokens)
            self._encoder = _encoder(folder, config)
            _refuse_more_tokens(self._encoder, max_tokens)
        except (OSError, ValueError) as error:
            raise SpecError(f"{key}: {folder} cannot be loaded: {error}".splitlines()[0]) from error
        self.dimension = int(config.hidden_size)
        self._forward = Forward(tokenize, self._pooled, width=self.dimension, batch_tokens=batch_tokens)

    def embed(self, texts: Sequence[str]) -> Float32s:
        """Return vectors of shape `(len(texts), dimension)`, in the order of `texts`.

        Where the GPU's memory runs out, the token budget is halved for this and all later calls.
        """
        return self._forward(texts)

    @property
    def precision(self) -> str:
        """What it computes in."""
        return "bfloat16" if self._forward.device.type == "cuda" else "float32"

    def _pooled(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        hidden = self._encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        kept = mask.unsqueeze(-1).float()
        pooled: torch.Tensor = (hidden * kept).sum(1) / kept.sum(1)
        return pooled


def _load(folder: Path, layers: int) -> tuple[Any, Any]:
    """Return the tokenizer, and the configuration of an encoder of only the first `layers` layers."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, **LOCAL_ONLY)
    if layers > config.num_hidden_layers:
        raise ValueError(f"it has {config.num_hidden_layers} layers, not {layers}")
    config.num_hidden_layers = layers
    config.return_dict = True
    with transformers_muted():
        return load_tokenizer(folder), config


def _encoder(folder: Path, config: Any) -> Any:
    from transformers import AutoModel

    with transformers_muted():
        model, loading = AutoModel.from_pretrained(
            folder,
            config=config,
            attn_implementation="sdpa",
            use_safetensors=True,
            **REPORT_MISSING_WEIGHTS,
            **LOCAL_ONLY,
        )
    # A pooler is not run, and many encoders have none.
    refuse_missing_weights(
        loading | {"missing_keys": {name for name in loading["missing_keys"] if "pooler." not in name}}
    )
    return model.eval().to(device())


def _refuse_more_tokens(encoder: Any, max_tokens: int) -> None:
    most = most_tokens(encoder)
    if most is not None and max_tokens > most:
        raise ValueError(f"it takes {most} tokens, not {max_tokens}")
