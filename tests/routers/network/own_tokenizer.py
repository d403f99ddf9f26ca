"""The packaged encoder's own tokenizer, with which `WordTokens` must agree."""

from functools import cache

from tokenizers import Tokenizer

from batch.routers.checkpoints.encoder_files import packaged_encoder


@cache
def own_tokenizer() -> Tokenizer:
    """The tokenizer, cut to the first 20 tokens, marks included."""
    tokenizer = Tokenizer.from_file(str(packaged_encoder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(20)
    return tokenizer
