"""Embedders: they turn prompts into vectors, for the routers that score vectors."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from schemas.base import Spec
from schemas.endpoints import EndpointSpec, ModelSpec, PriceSpec


class LocalEmbedderSpec(Spec):
    """Embeds prompts in the scoring process."""

    kind: Literal["local"] = "local"
    """Always `local`."""

    model: str | None = None
    """Folder or hub id of a sentence encoder; left out: the packaged MiniLM."""


class EndpointEmbedderSpec(EndpointSpec):
    """Embeds prompts by calling `/v1/embeddings` at one endpoint or, with `endpoints`, at a pool of them."""

    kind: Literal["endpoint"]
    """Always `endpoint`."""

    model: str = Field(min_length=1)
    """The embedding model: the one that the checkpoint was trained on."""

    url: str | None = None
    """Base URL, up to and including `/v1`; left out: EMBEDDING_BASE_URL, else OPENAI_BASE_URL."""

    endpoints: tuple[EndpointSpec, ...] = ()
    """A pool of endpoints, as a model has, in place of `url` and the other keys of a single endpoint."""

    price: PriceSpec | None = None
    """Its price, with an `output` of 0; left out: LiteLLM's price table by the model's name. If that has none, the
    price is unknown.
    """

    dimensions: Annotated[int, Field(gt=0)] | None = None
    """Length of the vectors to ask for; left out: the model's own."""

    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Most tokens of a prompt. Prompts are cut at two bytes per token, so they rarely have more; left out: as the
    checkpoint says.
    """

    cache: str | None = None
    """Folder that keeps vectors; several jobs may share one. Left out: `cache` in the run directory."""

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
            price=self.price,
            endpoints=tuple(
                e if e.model is not None else e.model_copy(update={"model": self.model})
                for e in self.endpoints or (own,)
            ),
        )

    def at(self, pool: ModelSpec, cache: str | None) -> "EndpointEmbedderSpec":
        """The same embedder with the endpoints of `pool`, and with this `cache` if it has none of its own."""
        return EndpointEmbedderSpec(
            kind=self.kind,
            model=self.model,
            endpoints=pool.endpoints,
            price=self.price,
            dimensions=self.dimensions,
            max_tokens=self.max_tokens,
            cache=self.cache or cache,
        )


_OF_ONE_ENDPOINT = tuple(key for key in EndpointSpec.model_fields if key != "model")


class ImportEmbedderSpec(Spec):
    """Embeds prompts by code of your own: any class with `embed`."""

    kind: Literal["import"]
    """Always `import`."""

    path: str = Field(pattern=r"^[\w.]+:\w+$")
    """`package.module:Class`: the one the checkpoint was trained on."""

    options: dict[str, Any] = {}
    """Keyword arguments of its constructor."""


EmbedderSpec = Annotated[LocalEmbedderSpec | EndpointEmbedderSpec | ImportEmbedderSpec, Field(discriminator="kind")]


def local_where_no_kind(data: Any) -> Any:
    """The same keys, with `kind: local` added to an `embedder` without a kind."""
    if isinstance(data, dict) and isinstance(data.get("embedder"), dict) and "kind" not in data["embedder"]:
        return {**data, "embedder": {"kind": "local", **data["embedder"]}}
    return data
