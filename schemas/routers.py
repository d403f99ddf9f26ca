"""Which router scores the prompts."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from schemas.base import Spec
from schemas.endpoints import EndpointSpec, ModelSpec

# A GPU takes this in one pass; on a CPU, where smaller batches are faster, it is only an upper bound.
DEFAULT_BATCH_TOKENS = 16_384


class LocalEmbedderSpec(Spec):
    """Embeds prompts in the scoring process."""

    kind: Literal["local"] = "local"
    """Always `local`."""

    model: str | None = None
    """Folder or hub id of a sentence encoder; left out: the packaged MiniLM."""


class EndpointEmbedderSpec(EndpointSpec):
    """Embeds prompts by calling `/v1/embeddings`, at one endpoint or, with `endpoints`, at a pool of them."""

    kind: Literal["endpoint"]
    """Always `endpoint`."""

    model: str = Field(min_length=1)
    """The embedding model: the one the checkpoint was trained on."""

    url: str | None = None
    """Base URL, up to and including `/v1`; left out: EMBEDDING_BASE_URL, else OPENAI_BASE_URL."""

    endpoints: tuple[EndpointSpec, ...] = ()
    """A pool like a model's, in place of `url`, `api_key_env`, `weight`, `limits`, `provider` and `transport`."""

    dimensions: Annotated[int, Field(gt=0)] | None = None
    """Length of vectors to ask for; left out: the model's own."""

    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Prompts are cut at two bytes for each of these, so they rarely have more; left out: as the checkpoint says."""

    cache: str | None = None
    """Folder in which vectors are kept, for any number of jobs; left out: `cache` in the run directory."""

    @model_validator(mode="after")
    def _one_or_several(self) -> "EndpointEmbedderSpec":
        both = sorted(self.model_fields_set & set(_OF_ONE_ENDPOINT)) if self.endpoints else []
        if both:
            raise ValueError(f"give {', '.join(both)} in `endpoints`, or leave `endpoints` out")
        try:
            self.pool()
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return self

    def pool(self) -> ModelSpec:
        """The embedding model with its endpoints."""
        own = EndpointSpec(**{key: getattr(self, key) for key in _OF_ONE_ENDPOINT})
        return ModelSpec(
            name=self.model,
            endpoints=tuple(
                e if e.model is not None else e.model_copy(update={"model": self.model})
                for e in self.endpoints or (own,)
            ),
        )

    def at(self, pool: ModelSpec, cache: str | None) -> "EndpointEmbedderSpec":
        """The same embedder with these endpoints, and this folder where it has none of its own."""
        return EndpointEmbedderSpec(
            kind=self.kind,
            model=self.model,
            endpoints=pool.endpoints,
            dimensions=self.dimensions,
            max_tokens=self.max_tokens,
            cache=self.cache or cache,
        )


_OF_ONE_ENDPOINT = ("url", "api_key_env", "weight", "limits", "provider", "transport")

EmbedderSpec = Annotated[LocalEmbedderSpec | EndpointEmbedderSpec, Field(discriminator="kind")]


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


class CorrectnessRouterSpec(_RouterSpec):
    """For each model, the probability that it answers well; the score is strongest less weakest."""

    kind: Literal["correctness"] = "correctness"
    """Always `correctness`."""

    checkpoint: str | None = None
    """Folder of a trained checkpoint; left out: the one that ships."""

    embedder: EmbedderSpec = LocalEmbedderSpec()
    """Must be the encoder the checkpoint was trained on."""

    @model_validator(mode="before")
    @classmethod
    def _embedders_are_local(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("embedder"), dict) and "kind" not in data["embedder"]:
            return {**data, "embedder": {"kind": "local", **data["embedder"]}}
        return data

    @model_validator(mode="after")
    def _one_actor_holds_limits(self) -> "CorrectnessRouterSpec":
        if isinstance(self.embedder, EndpointEmbedderSpec) and self.actors not in ("auto", 1):
            raise ValueError(f"actors {self.actors}: the limits of an embedder's endpoints are held by one actor")
        return self


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
    | ImportRouterSpec,
    Field(discriminator="kind"),
]
