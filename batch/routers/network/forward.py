"""Runs texts through a network in batches, for all routers and embedders that use torch.

Texts are sorted by length and cut into chunks, and each chunk into batches by token budget. While one chunk runs, the
next is tokenized; the tokenizer is written in Rust and releases the interpreter lock meanwhile. On a CPU each core runs
batches of its own: cores that share a batch wait for each other at every product.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from batch.arrays import Float32s, Indices, Int64s
from batch.routers.network.batching import run_in_batches, token_batches
from batch.routers.network.core_pool import on_cores

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("batchrouter.routers.network")

Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]
Network = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]

# Only a text's first tokens count, so it is cut to so many characters for each. No text needs this many for a token,
# and tokenizing a prompt of many megabytes, only to discard nearly all of it, would delay its whole batch.
CHARACTERS_PER_TOKEN = 64

# What a batch's widest products give should stay in the caches. One core takes as long for 512 tokens a batch as for
# 1,024, 2 % longer for 2,048 and 7 % for 4,096, where memory is fetched from the system and given back at each product.
_CPU_BATCH_TOKENS = 1024

# Texts tokenized at once: enough to sort by length and to fill several batches, and few enough that a device
# does not wait long for the first of them.
_CHUNK = 1024


def first_tokens(tokenizer: Any, limit: int) -> Tokenize:
    """Return a function that gives the first `limit` token ids of each text, special tokens included.

    It calls the tokenizer's Rust half directly, for ids alone: 1.4 times as fast as calling `tokenizer`, with the same
    ids. Raises ValueError for a tokenizer without that half.
    """
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is None:
        raise ValueError(f"{type(tokenizer).__name__} is no fast tokenizer; it needs a tokenizer.json")
    rust.enable_truncation(limit, direction=tokenizer.truncation_side)
    rust.no_padding()

    def tokenize(texts: Sequence[str]) -> Sequence[Sequence[int]]:
        beginnings = [text[: limit * CHARACTERS_PER_TOKEN] for text in texts]
        return [encoded.ids for encoded in rust.encode_batch_fast(beginnings)]

    return tokenize


class Forward:
    """Runs a network that gives a row of numbers for each text.

    It runs on a GPU if torch sees one, in bfloat16, else on the CPU in float32. A text's numbers depend on its
    neighbours by rounding only: less than 1e-5 in float32, the third digit in bfloat16.
    """

    def __init__(
        self, tokenize: Tokenize, network: Network, *, width: int, batch_tokens: int, padding: int = 0
    ) -> None:
        """Keep the values; nothing runs yet.

        Args:
            tokenize: gives each text's tokens; called in a thread, with a chunk of texts at a time.
            network: takes tokens and mask, both int64 of shape (texts, tokens) and on `device`, padded on the right,
                longest text first; returns shape (texts, width). On a CPU called in as many threads as torch has.
            width: numbers for each text.
            batch_tokens: most tokens in one batch, padding included; on a CPU fewer are taken, since that is faster.
            padding: the token that fills rows up; the mask is 0 there.
        """
        import torch

        self._torch = torch
        self.device = device()
        self._on_gpu = self.device.type == "cuda"
        self._tokenize = tokenize
        self._network = network
        self._width = width
        self._cores = 1 if self._on_gpu else torch.get_num_threads()
        self._batch_tokens = batch_tokens if self._on_gpu else min(batch_tokens, _CPU_BATCH_TOKENS)
        self._padding = padding
        _log.info("a network runs on %s, with at most %d tokens a batch", self.device, self._batch_tokens)

    def __call__(self, texts: Sequence[str]) -> Float32s:
        """Return shape `(len(texts), width)`, in the order of `texts`.

        If the GPU's memory runs out, the token budget is halved for this and all later calls. Raises
        torch.OutOfMemoryError if even a single text is too much.
        """
        results = np.empty((len(texts), self._width), dtype=np.float32)
        # By characters, since tokens are not known yet. Longest first, so that memory that does not suffice shows at
        # once; what was measured in tokens sorts each chunk again.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        chunks = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
        if self._cores > 1:
            self._run_on_cores(texts, chunks, results)
        else:
            self._run_ahead(texts, chunks, results)
        return results

    def _run_on_cores(self, texts: Sequence[str], chunks: Sequence[Indices], results: Float32s) -> None:
        threads = self._torch.set_num_threads
        try:
            with on_cores(self._cores, partial(threads, 1)) as run:
                for chunk in chunks:
                    tokens = self._tokens(texts, chunk)
                    lengths = [len(ids) for ids in tokens]
                    # Of a few texts too each core has some.
                    budget = min(self._batch_tokens, -(-sum(lengths) // self._cores))
                    run(
                        partial(self._run_batch, [tokens[i] for i in batch], chunk[batch], results)
                        for batch in token_batches(lengths, budget)
                    )
        finally:
            # torch keeps it for each thread; those yet to come begin with the last that any thread set.
            threads(self._cores)

    def _run_batch(self, tokens: Sequence[Sequence[int]], rows: Indices, results: Float32s) -> None:
        with self._torch.inference_mode():
            results[rows] = self._network(*self._padded(tokens)).float().numpy()

    def _run_ahead(self, texts: Sequence[str], chunks: Sequence[Indices], results: Float32s) -> None:
        with ExitStack() as stack:
            for context in self._contexts():
                stack.enter_context(context)
            ahead = stack.enter_context(ThreadPoolExecutor(1)) if len(chunks) > 1 else None
            tokenized: Future[Sequence[Sequence[int]]] | None = None
            for number, chunk in enumerate(chunks):
                tokens = tokenized.result() if tokenized else self._tokens(texts, chunk)
                if ahead and number + 1 < len(chunks):
                    tokenized = ahead.submit(self._tokens, texts, chunks[number + 1])
                self._run(tokens, chunk, results)

    def _contexts(self) -> Sequence[AbstractContextManager[Any]]:
        """Around a whole call rather than a batch: weights are then cast to bfloat16 once."""
        torch = self._torch
        return torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self._on_gpu)

    def _tokens(self, texts: Sequence[str], chunk: Indices) -> Sequence[Sequence[int]]:
        return self._tokenize([texts[i] for i in chunk])

    def _run(self, tokens: Sequence[Sequence[int]], chunk: Indices, results: Float32s) -> None:
        """Run one chunk. Results are fetched at its end: fetching each would make the host wait for the device."""

        def run(batch: Indices) -> "torch.Tensor":
            return self._network(*self._padded([tokens[i] for i in batch])).float()

        lengths = [len(ids) for ids in tokens]
        done, self._batch_tokens = run_in_batches(lengths, self._batch_tokens, run, self._torch.OutOfMemoryError)
        for batch, rows in done:
            results[chunk[batch]] = rows.cpu().numpy()

    def _padded(self, tokens: Sequence[Sequence[int]]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Tokens and mask of one batch, longest text first. A text without tokens is one of padding."""
        longest = max(len(tokens[0]), 1)
        ids = np.full((len(tokens), longest), self._padding, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = text
            mask[row, : max(len(text), 1)] = 1
        return self._on_device(ids), self._on_device(mask)

    def _on_device(self, array: Int64s) -> "torch.Tensor":
        tensor = self._torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self._on_gpu else tensor


def device() -> "torch.device":
    """The device that networks run on: the GPU if torch sees one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def most_tokens(network: Any) -> int | None:
    """Most tokens that the model's positions allow; `None` where it names none, as with relative ones."""
    positions = getattr(network.config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    table = getattr(getattr(network.base_model, "embeddings", None), "position_embeddings", None)
    # RoBERTa's positions begin behind the one of padding: 514 of them are for 512 tokens.
    padding = getattr(table, "padding_idx", None)
    return int(positions) if padding is None else int(positions) - padding - 1
