"""Embeds prompts with the first layers of a sentence encoder in int8, on the CPU, without torch."""

import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from batch.arrays import Float32s, Indices, Int64s
from batch.errors import SpecError
from batch.routers.checkpoints.encoder_files import KEY
from batch.routers.embedders.int8_graph import Int8Encoder, Ranges, Shape, bert_weights
from batch.routers.network.batching import equal_batches
from batch.routers.network.core_pool import on_cores
from batch.routers.network.wordpiece import WordTokens

_log = logging.getLogger("batchrouter.routers.embedders")

_CONFIG = "config.json"

# Prompts tokenized at once: of so many, a few have the same number of tokens.
_CHUNK = 1024

# One core scores 266 prompts/s at 1,024 tokens a batch, 244 at 256, and with padding 174 at 4,096: what a batch's wide
# products give should stay in the cache of its core.
_BATCH_TOKENS = 1024


class Int8Embedder:
    """`LocalEmbedder` in int8: mean of the hidden states after `layer`, over a prompt's first `max_tokens` tokens.

    Cosine of its vectors and those of float32: .998. A text's vector does not depend on its neighbours but for
    rounding: less than 1e-5.
    """

    def __init__(
        self, folder: Path, ranges: Ranges, *, layer: int, max_tokens: int, batch_tokens: int, threads: int | None
    ) -> None:
        """Load the encoder.

        Args:
            ranges: `ranges_of` this encoder and layer.
            batch_tokens: most tokens in one batch; fewer are taken, since that is faster.
            threads: batches that are run at once; left out, one for each core that this process may use.

        Raises:
            SpecError: the folder lacks something other than weights, or the encoder takes fewer tokens.
        """
        self._tokens = WordTokens(folder, max_tokens, KEY)
        shape, self.dimension = _shape(folder, layer, max_tokens)
        self._encoder = Int8Encoder(bert_weights(folder, layer), shape, ranges)
        self._batch_tokens = min(batch_tokens, _BATCH_TOKENS)
        self._threads = threads or len(os.sched_getaffinity(0))
        _log.info("the encoder %s computes in int8 in %d threads", folder.name, self._threads)

    def embed(self, texts: Sequence[str]) -> Float32s:
        """Return vectors of shape `(len(texts), dimension)`, in the order of `texts`."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        # By characters, since tokens are not known yet: of prompts that are nearly as long, more are of equal length.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        with on_cores(self._threads) as run:
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                tokens, lengths = self._tokens([texts[i] for i in chunk])
                starts = np.cumsum(lengths) - lengths
                run(
                    partial(
                        self._run, tokens[starts[batch][:, None] + np.arange(lengths[batch[0]])], vectors, chunk[batch]
                    )
                    for batch in equal_batches(lengths, self._batch_tokens)
                )
        return vectors

    @property
    def precision(self) -> str:
        """What it computes in."""
        return "int8"

    def _run(self, ids: Int64s, vectors: Float32s, rows: Indices) -> None:
        vectors[rows] = self._encoder(ids)


def _shape(folder: Path, layers: int, max_tokens: int) -> tuple[Shape, int]:
    """What `config.json` says, and the dimension."""
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
        shape = Shape(layers, int(config["num_attention_heads"]), float(config["layer_norm_eps"]))
        dimension, most = int(config["hidden_size"]), int(config["max_position_embeddings"])
    except OSError as error:
        raise SpecError(f"{KEY}: cannot read {folder / _CONFIG}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{KEY}: {folder / _CONFIG} is no configuration of BERT's: {error}") from error
    if max_tokens > most:
        raise SpecError(f"{KEY}: {folder} cannot be loaded: it takes {most} tokens, not {max_tokens}")
    return shape, dimension
