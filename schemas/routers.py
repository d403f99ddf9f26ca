"""Routers: they score prompts."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.base import Spec
from schemas.embedders import EmbedderSpec, EndpointEmbedderSpec, LocalEmbedderSpec, local_where_no_kind

# A GPU computes so many in one pass. On a CPU smaller batches are faster, so there it is only an upper bound.
DEFAULT_BATCH_TOKENS = 16_384


class _RouterSpec(Spec):
    batch_tokens: Annotated[int, Field(gt=0)] = DEFAULT_BATCH_TOKENS
    """Most tokens in one batch, padding included."""

    actors: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Number of Ray actors that score; `auto`: one per GPU, or without GPUs one per spare core."""


class RandomRouterSpec(_RouterSpec):
    """Draws the score from the prompt's hash and the job's seed; the baseline of every comparison."""

    kind: Literal["random"]
    """Always `random`."""


class ConstantRouterSpec(_RouterSpec):
    """Gives every prompt the same score."""

    kind: Literal["constant"]
    """Always `constant`."""

    value: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The score."""


class LengthRouterSpec(_RouterSpec):
    """Gives longer prompts higher scores; a baseline that trained routers do not always beat."""

    kind: Literal["length"]
    """Always `length`."""

    midpoint: Annotated[float, Field(gt=0)] = 60.0
    """Number of words at which the score is one half; the order of the prompts does not depend on it."""


class RuleSpec(Spec):
    """One rule; it applies to a row if all of its conditions hold."""

    column: str | None = None
    """Column of the input that `equals`, `one_of` or `matches` refers to; left out: the prompt."""

    equals: Any = None
    """Holds if the column has exactly this value."""

    one_of: tuple[Any, ...] | None = None
    """Holds if the column's value is one of these."""

    matches: str | None = None
    """Holds if this regular expression matches anywhere in the value."""

    min_words: Annotated[int, Field(ge=0)] | None = None
    """Holds if the prompt has at least so many words."""

    max_words: Annotated[int, Field(ge=0)] | None = None
    """Holds if the prompt has at most so many words."""

    language: str | None = None
    """Holds if the row's column `language` (or `lang`) has this value, in upper or lower case."""

    topic: str | None = None
    """Holds if the row's column `topic` has this value, in upper or lower case."""

    score: Annotated[float, Field(ge=0, le=1)] | None = None
    """The score of rows that the rule applies to: 1 asks for the strongest model, 0 for the cheapest."""

    model: str | None = None
    """The model of rows that the rule applies to, whatever the plan."""

    @model_validator(mode="after")
    def _says_something(self) -> "RuleSpec":
        if (self.score is None) == (self.model is None):
            raise ValueError("a rule gives either a score or a model")
        conditions = (
            self.equals,
            self.one_of,
            self.matches,
            self.min_words,
            self.max_words,
            self.language,
            self.topic,
        )
        if all(c is None for c in conditions):
            raise ValueError(
                "a rule needs a condition: equals, one_of, matches, min_words, max_words, language or topic"
            )
        if self.equals is not None and self.column is None:
            raise ValueError("equals needs a column")
        if self.one_of is not None and self.column is None:
            raise ValueError("one_of needs a column")
        return self


class RulesRouterSpec(_RouterSpec):
    """Routes by rules; the first rule that applies decides."""

    kind: Literal["rules"]
    """Always `rules`."""

    rules: tuple[RuleSpec, ...] = Field(min_length=1)
    """The rules, tried in this order."""

    otherwise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The score of rows that no rule applies to."""


class EmbeddingRouterSpec(_RouterSpec):
    """Keys that all routers which score the prompt's vector have."""

    embedder: EmbedderSpec = LocalEmbedderSpec()
    """The encoder; it must be the one that the checkpoint was trained on."""

    @model_validator(mode="before")
    @classmethod
    def _embedders_are_local(cls, data: Any) -> Any:
        return local_where_no_kind(data)

    @model_validator(mode="after")
    def _one_actor_holds_limits(self) -> "EmbeddingRouterSpec":
        if isinstance(self.embedder, EndpointEmbedderSpec) and self.actors not in ("auto", 1):
            raise ValueError(f"actors {self.actors}: only one actor can keep the limits of an embedder's endpoints")
        return self


class CorrectnessRouterSpec(EmbeddingRouterSpec):
    """Predicts for each model the probability that it answers well; the score is the strongest's less the weakest's."""

    kind: Literal["correctness"] = "correctness"
    """Always `correctness`."""

    checkpoint: str | None = None
    """Folder or hub id of a trained checkpoint; left out: the one that ships."""


class StaticRouterSpec(_RouterSpec):
    """Like `correctness`, from the mean of token embeddings: no transformer, for a million prompts on a laptop."""

    kind: Literal["static"]
    """Always `static`."""

    checkpoint: str | None = None
    """Folder or hub id of a trained checkpoint; left out: the one that ships."""


class KnnRouterSpec(EmbeddingRouterSpec):
    """Scores by how well each model answered the most similar prompts whose answers were judged."""

    kind: Literal["knn"]
    """Always `knn`."""

    checkpoint: str = Field(min_length=1)
    """Folder or hub id of a checkpoint made by `batchrouter train`."""


class ClusterRouterSpec(EmbeddingRouterSpec):
    """Scores by how well each model answered the prompts of the same cluster."""

    kind: Literal["cluster"]
    """Always `cluster`."""

    checkpoint: str = Field(min_length=1)
    """Folder or hub id of a checkpoint made by `batchrouter train`."""


# The two models whose win rate RouteLLM's published checkpoints predict.
_STRONG, _WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"


class MfRouterSpec(EmbeddingRouterSpec):
    """RouteLLM's matrix factorisation: predicts from vectors of models and prompt how likely the strong model wins."""

    kind: Literal["mf"]
    """Always `mf`."""

    checkpoint: str = Field(default="routellm/mf_gpt4_augmented", min_length=1)
    """Folder or hub id, in RouteLLM's layout or made by `batchrouter train`."""

    strong: str = _STRONG
    """Model of the checkpoint that stands for the job's strongest."""

    weak: str = _WEAK
    """Model of the checkpoint that stands for the job's cheapest."""


class SwRankingRouterSpec(EmbeddingRouterSpec):
    """RouteLLM's similarity-weighted ranking: Elo ratings from battles, weighted by their similarity to the prompt."""

    kind: Literal["sw_ranking"]
    """Always `sw_ranking`."""

    battles: tuple[str, ...] = Field(
        default=("lmsys/lmsys-arena-human-preference-55k", "routellm/gpt4_judge_battles"), min_length=1
    )
    """Folders, files or hub ids of battles; each says which of two models' answers was preferred."""

    embeddings: tuple[str, ...] = Field(
        default=("routellm/arena_battles_embeddings", "routellm/gpt4_judge_battles_embeddings"), min_length=1
    )
    """Folders, files or hub ids of the battles' vectors, in the order of `battles`."""

    strong: str = _STRONG
    """Model of the battles that stands for the job's strongest."""

    weak: str = _WEAK
    """Model of the battles that stands for the job's cheapest."""

    tiers: Annotated[int, Field(gt=1)] = 10
    """Number of tiers of similar strength into which the models are grouped; the tiers are rated, not the models."""

    embedder: EmbedderSpec = LocalEmbedderSpec()
    """The encoder; it must be the one that made the battles' vectors."""


class BertRouterSpec(_RouterSpec):
    """RouteLLM's BERT: classifies a prompt as a win of the weak model, a tie or a win of the strong model."""

    kind: Literal["bert"]
    """Always `bert`."""

    checkpoint: str = Field(default="routellm/bert_gpt4_augmented", min_length=1)
    """Folder or hub id of a sequence classifier in safetensors."""


class CausalLlmRouterSpec(_RouterSpec):
    """RouteLLM's causal model: a language model grades, from 1 to 5, how well the weak model would answer."""

    kind: Literal["causal_llm"]
    """Always `causal_llm`."""

    checkpoint: str = Field(default="routellm/causal_llm_gpt4_augmented", min_length=1)
    """Folder or hub id of a causal language model in safetensors, with its prompt files."""

    threshold: Annotated[int, Field(ge=1, le=5)] = 4
    """The weak model suffices if the grade is this or higher."""


class ImportRouterSpec(_RouterSpec):
    """A router of your own: any class with `models` and `score`."""

    kind: Literal["import"]
    """Always `import`."""

    path: str = Field(pattern=r"^[\w.]+:\w+$")
    """`package.module:Class`."""

    options: dict[str, Any] = {}
    """Keyword arguments of its constructor."""


RouterSpec = Annotated[
    RandomRouterSpec
    | ConstantRouterSpec
    | LengthRouterSpec
    | RulesRouterSpec
    | CorrectnessRouterSpec
    | StaticRouterSpec
    | KnnRouterSpec
    | ClusterRouterSpec
    | MfRouterSpec
    | SwRankingRouterSpec
    | BertRouterSpec
    | CausalLlmRouterSpec
    | ImportRouterSpec,
    Field(discriminator="kind"),
]
