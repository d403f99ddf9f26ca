"""The encoder that a router is trained on: its embedder, and how the checkpoint and a job describe it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batch.environment import Environment
from batch.routers.base import Embedder
from batch.routers.checkpoints.format import EncoderConfig
from schemas.embedders import EmbedderSpec, EndpointEmbedderSpec, ImportEmbedderSpec, LocalEmbedderSpec
from schemas.training import TrainLocalEmbedderSpec

PACKAGED = "sentence-transformers/all-MiniLM-L6-v2"

BATCH_TOKENS = 16_384
# Most tokens of hosted embedding models, if the file does not say.
_ENDPOINT_TOKENS = 8191

# Key of the encoder in a training file, for messages.
_KEY = "embedder"


@dataclass(frozen=True)
class Encoder:
    """An encoder to train on."""

    embedder: Embedder
    """Turns prompts into vectors."""
    config: Callable[[], EncoderConfig]
    """Returns its description in the checkpoint; some encoders know their dimension only after the first texts."""
    job: EmbedderSpec
    """The `router.embedder` of a job that uses the checkpoint."""


def local_encoder(spec: TrainLocalEmbedderSpec, threads: int | None = None) -> Encoder:
    """Build a local encoder. Raises SpecError if it cannot be loaded.

    Args:
        threads: torch's, for this whole process; left out, torch's own choice stands.
    """
    from batch.routers.checkpoints.encoder_files import encoder_folder, encoder_sha256
    from batch.routers.embedders.local import LocalEmbedder

    key = f"{_KEY}.model"
    folder = encoder_folder(spec.model, key)
    embedder = LocalEmbedder(
        folder, layer=spec.layer, max_tokens=spec.max_tokens, batch_tokens=BATCH_TOKENS, threads=threads, key=key
    )
    # Of a folder only the last name is kept: its path means nothing on other machines.
    name = PACKAGED if spec.model is None else Path(spec.model).name if Path(spec.model).is_dir() else spec.model
    config = EncoderConfig(
        name=name,
        sha256=encoder_sha256(folder, key),
        layer=spec.layer,
        max_tokens=spec.max_tokens,
        dimension=embedder.dimension,
    )
    return Encoder(embedder, lambda: config, LocalEmbedderSpec(model=spec.model))


def token_encoder() -> Encoder:
    """Build the static router's encoder, the packaged encoder's token embeddings; torch is not loaded."""
    from batch.routers.checkpoints.encoder_files import encoder_sha256, packaged_encoder
    from batch.routers.estimators.token_means import TokenMeans, token_vectors
    from batch.routers.estimators.word_weights import MOST_TOKENS
    from batch.routers.network.wordpiece import WordTokens

    folder = packaged_encoder()
    embedder = TokenMeans(WordTokens(folder, MOST_TOKENS, _KEY), token_vectors(folder))
    config = EncoderConfig(
        name=PACKAGED, sha256=encoder_sha256(folder), layer=0, max_tokens=MOST_TOKENS, dimension=embedder.dimension
    )
    return Encoder(embedder, lambda: config, LocalEmbedderSpec())


def endpoint_encoder(spec: EndpointEmbedderSpec, environment: Environment) -> Encoder:
    """Build an encoder behind endpoints whose `url` and `model` are filled in; nothing is sent yet."""
    from batch.routers.embedders.endpoint import EndpointEmbedder

    max_tokens = spec.max_tokens or _ENDPOINT_TOKENS
    embedder = EndpointEmbedder(
        spec, dimension=spec.dimensions, max_tokens=max_tokens, environment=environment, key=_KEY
    )

    def config() -> EncoderConfig:
        assert embedder.dimension is not None, "something was embedded"
        return EncoderConfig(kind="endpoint", name=spec.model, max_tokens=max_tokens, dimension=embedder.dimension)

    return Encoder(embedder, config, spec)


def import_encoder(spec: ImportEmbedderSpec) -> Encoder:
    """Build an encoder from the user's own class. Raises SpecError if it cannot be imported or made."""
    from batch.routers.embedders.imported import ImportedEmbedder

    embedder = ImportedEmbedder(spec, dimension=None, key=_KEY)

    def config() -> EncoderConfig:
        assert embedder.dimension is not None, "something was embedded"
        return EncoderConfig(kind="import", name=spec.path, dimension=embedder.dimension)

    return Encoder(embedder, config, spec)
