"""The correctness router without a transformer: logistic heads over the mean of the token embeddings.

A linear head over a mean is a mean over the head's value for each token, so that a prompt is scored by looking up
a few numbers a token: what the heads make of it, and what it adds as a word.
"""

from collections.abc import Sequence
from pathlib import Path

from batch.arrays import Float32s
from batch.errors import SpecError
from batch.routers.base import Router
from batch.routers.checkpoints.encoder_files import encoder_sha256, packaged_encoder
from batch.routers.checkpoints.format import Checkpoint, model_mixture
from batch.routers.checkpoints.lookup import open_checkpoint, own_fingerprint
from batch.routers.estimators.logistic_heads import Heads, probabilities
from batch.routers.estimators.token_means import TokenMeans, token_vectors
from batch.routers.estimators.word_weights import KEY, WordWeights
from batch.routers.kind import BuildContext, RouterKind
from batch.routers.network.wordpiece import WordTokens
from schemas.routers import StaticRouterSpec


class StaticRouter:
    """Scores of shape (prompts, models): the probability that each of the job's models answers well."""

    def __init__(self, models: tuple[str, ...], checkpoint: Checkpoint, folder: Path) -> None:
        """Fold the heads into a table of tokens; `models` are the job's, cheapest first, `folder` is the encoder's.

        Raises SpecError if the checkpoint does not know one of the models, or was trained on another encoder.
        """
        self.models: tuple[str, ...] = models
        mixture = model_mixture(models, checkpoint.config)
        trained_on = checkpoint.config.encoder
        if trained_on.layer != 0 or encoder_sha256(folder) != trained_on.sha256:
            raise SpecError(
                "router.checkpoint: it was not trained on the token embeddings of the packaged encoder, but on "
                f"{trained_on.name}, layer {trained_on.layer}"
            )
        assert trained_on.max_tokens is not None, "the packaged encoder has a limit of tokens"
        heads = Heads.of(checkpoint)
        self._bias = heads.bias @ mixture
        table = token_vectors(folder) @ (heads.weight.T @ mixture)
        words, weights = WordTokens(folder, trained_on.max_tokens, KEY), WordWeights.of(checkpoint)
        once = None if weights is None else weights.table(words.vocabulary, mixture)
        self._logits = TokenMeans(words, table, once)

    def score(self, prompts: Sequence[str]) -> Float32s:
        return probabilities(self._logits.embed(prompts) + self._bias)


def _build(spec: StaticRouterSpec, context: BuildContext) -> Router:
    return StaticRouter(context.models, open_checkpoint(spec), packaged_encoder())


KIND = RouterKind(
    spec=StaticRouterSpec,
    build=_build,
    loads_model=True,
    fingerprint=own_fingerprint,
    row_spec=StaticRouterSpec(kind="static"),
)
