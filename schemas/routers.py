"""Which router scores the prompts."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.base import Spec
from schemas.embedders import EmbedderSpec, EndpointEmbedderSpec, LocalEmbedderSpec, local_where_no_kind

# A GPU takes this in one pass; on a CPU, where smaller batches are faster, it is only an upper bound.
DEFAULT_BATCH_TOKENS = 16_384


class _RouterSpec(Spec):
    batch_tokens: Annotated[int, Field(gt=0)] = DEFAULT_BATCH_TOKENS
    """Most tokens in one batch, padding included."""

    actors: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Ray actors that score; `auto`: one per GPU, else one per spare core."""


class RandomRouterSpec(_RouterSpec):
    """A score drawn from the prompt's hash and the job's seed: the baseline of every comparison."""

    kind: Literal["random"]
    """Always `random`."""


class ConstantRouterSpec(_RouterSpec):
    """The same score for every prompt."""

    kind: Literal["constant"]
    """Always `constant`."""

    value: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The score."""


class LengthRouterSpec(_RouterSpec):
    """The longer the prompt, the higher the score: the baseline that embarrasses fancy routers."""

    kind: Literal["length"]
    """Always `length`."""

    midpoint: Annotated[float, Field(gt=0)] = 60.0
    """Words at which the score is one half; the order of prompts does not depend on it."""


class RuleSpec(Spec):
    """One rule: every condition given must hold."""

    column: str | None = None
    """Input column that `equals`, `one_of` or `matches` looks at; left out: the prompt."""

    equals: Any = None
    """Holds where the column has exactly this value."""

    one_of: tuple[Any, ...] | None = None
    """Holds where the column's value is one of these."""

    matches: str | None = None
    """Holds where this regular expression is found."""

    min_words: Annotated[int, Field(ge=0)] | None = None
    """Holds from this many words on."""

    max_words: Annotated[int, Field(ge=0)] | None = None
    """Holds up to this many words."""

    language: str | None = None
    """Holds where the row's `language` (or `lang`) column is this, upper or lower case."""

    topic: str | None = None
    """Holds where the row's `topic` column is this, upper or lower case."""

    score: Annotated[float, Field(ge=0, le=1)] | None = None
    """The score when it holds: 1 asks for the strongest model, 0 for the cheapest."""

    model: str | None = None
    """The model when it holds, whatever the plan's cutoff."""

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
    """Contextual routing: the first rule that holds decides."""

    kind: Literal["rules"]
    """Always `rules`."""

    rules: tuple[RuleSpec, ...] = Field(min_length=1)
    """Tried from the top."""

    otherwise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The score where no rule holds."""


class EmbeddingRouterSpec(_RouterSpec):
    """What routers that go by a prompt's vector have in common."""

    embedder: EmbedderSpec = LocalEmbedderSpec()
    """Must be the encoder the checkpoint was trained on."""

    @model_validator(mode="before")
    @classmethod
    def _embedders_are_local(cls, data: Any) -> Any:
        return local_where_no_kind(data)

    @model_validator(mode="after")
    def _one_actor_holds_limits(self) -> "EmbeddingRouterSpec":
        if isinstance(self.embedder, EndpointEmbedderSpec) and self.actors not in ("auto", 1):
            raise ValueError(f"actors {self.actors}: the limits of an embedder's endpoints are held by one actor")
        return self


class CorrectnessRouterSpec(EmbeddingRouterSpec):
    """For each model, the probability that it answers well; the score is strongest less weakest."""

    kind: Literal["correctness"] = "correctness"
    """Always `correctness`."""

    checkpoint: str | None = None
    """Folder or hub id of a trained checkpoint; left out: the one that ships."""


class StaticRouterSpec(_RouterSpec):
    """As `correctness`, over the mean of token embeddings: no transformer, for a million prompts on a laptop."""

    kind: Literal["static"]
    """Always `static`."""

    checkpoint: str | None = None
    """Folder or hub id of a trained checkpoint; left out: the one that ships."""


class KnnRouterSpec(EmbeddingRouterSpec):
    """For each model, how well it answered the most similar prompts whose answers were judged."""

    kind: Literal["knn"]
    """Always `knn`."""

    checkpoint: str = Field(min_length=1)
    """Folder or hub id of a checkpoint made by `batchrouter train`."""


class ClusterRouterSpec(EmbeddingRouterSpec):
    """For each model, how well it answers prompts of the same cluster."""

    kind: Literal["cluster"]
    """Always `cluster`."""

    checkpoint: str = Field(min_length=1)
    """Folder or hub id of a checkpoint made by `batchrouter train`."""


# The pair whose win rate RouteLLM's published checkpoints are asked for.
_STRONG, _WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"


class MfRouterSpec(EmbeddingRouterSpec):
    """RouteLLM's matrix factorisation: models and prompts as vectors, and how likely the strong model wins."""

    kind: Literal["mf"]
    """Always `mf`."""

    checkpoint: str = Field(default="routellm/mf_gpt4_augmented", min_length=1)
    """Folder or hub id, in RouteLLM's layout or made by `batchrouter train`."""

    strong: str = _STRONG
    """Model of the checkpoint that stands for the job's strongest."""

    weak: str = _WEAK
    """Model of the checkpoint that stands for the job's cheapest."""


class SwRankingRouterSpec(EmbeddingRouterSpec):
    """RouteLLM's similarity-weighted ranking: Elo of the two models, from battles weighed by likeness to the prompt."""

    kind: Literal["sw_ranking"]
    """Always `sw_ranking`."""

    battles: tuple[str, ...] = Field(
        default=("lmsys/lmsys-arena-human-preference-55k", "routellm/gpt4_judge_battles"), min_length=1
    )
    """Folders, files or hub ids of battles: which of two models' answers was preferred."""

    embeddings: tuple[str, ...] = Field(
        default=("routellm/arena_battles_embeddings", "routellm/gpt4_judge_battles_embeddings"), min_length=1
    )
    """Folders, files or hub ids of the battles' vectors, in the order of `battles`."""

    strong: str = _STRONG
    """Model of the battles that stands for the job's strongest."""

    weak: str = _WEAK
    """Model of the battles that stands for the job's cheapest."""

    tiers: Annotated[int, Field(gt=1)] = 10
    """Models are grouped into so many tiers of like strength, which are rated in place of models."""

    embedder: EmbedderSpec = LocalEmbedderSpec()
    """Must be the encoder that the battles' vectors came from."""


class BertRouterSpec(_RouterSpec):
    """RouteLLM's BERT: a sequence classifier of weak wins, tie and strong wins."""

    kind: Literal["bert"]
    """Always `bert`."""

    checkpoint: str = Field(default="routellm/bert_gpt4_augmented", min_length=1)
    """Folder or hub id of a sequence classifier in safetensors."""


class CausalLlmRouterSpec(_RouterSpec):
    """RouteLLM's causal model: a language model that grades how well the weak model would answer, from 1 to 5."""

    kind: Literal["causal_llm"]
    """Always `causal_llm`."""

    checkpoint: str = Field(default="routellm/causal_llm_gpt4_augmented", min_length=1)
    """Folder or hub id of a causal language model in safetensors, with its prompt files."""

    threshold: Annotated[int, Field(ge=1, le=5)] = 4
    """A grade from here on means that the weak model suffices."""


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
