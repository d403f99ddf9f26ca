"""Prices of tokens: from the job file, else from the table that LiteLLM brings along, else unknown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from batch.costs.bounds import most_tokens
from batch.errors import SpecError
from schemas.endpoints import ModelSpec

# Sums of dollars are exact or raise an error. With Python's default of 28 digits, the product of a price with many
# digits and billions of tokens would be rounded silently.
EXACT = Context(prec=100, traps=[Inexact])

# Models of other modes are billed for images, seconds or searches besides tokens.
_MODES = frozenset({"chat", "completion", "responses", "embedding"})

# If a price changes above some length of the prompt, its key is `input_cost_per_token_above_<n>k_tokens`.
_ABOVE = "input_cost_per_token_above_"


@dataclass(frozen=True, slots=True)
class Price:
    """A list price, in US dollars per token. Discounts for cached prompts are not known here, so none is subtracted."""

    input: Decimal
    """Dollars per prompt token."""
    output: Decimal
    """Dollars per completion token; 0 for embeddings."""
    up_to: int | None = None
    """The longest prompt, in tokens, that this price holds for; `None`: it holds for any length."""

    def cost(self, prompt_tokens: int | None, completion_tokens: int | None) -> Decimal | None:
        """Dollars for one request, exact; `None` if they cannot be known (see `covers`)."""
        if not self.covers(prompt_tokens, completion_tokens):
            return None
        return self.total(prompt_tokens or 0, completion_tokens or 0)

    def covers(self, prompt_tokens: int | None, completion_tokens: int | None) -> bool:
        """Can the cost be known? Every count that is charged for must be known, and the prompt at most `up_to` long."""
        if (completion_tokens is None and self.output) or (prompt_tokens is None and self.input):
            return False
        return self.up_to is None or (prompt_tokens is not None and prompt_tokens <= self.up_to)

    def bound(self, url: str, body: bytes, max_tokens: int | None) -> Decimal | None:
        """The most dollars that one request can cost; `None` if it has no bound (see `bounds.most_tokens`)."""
        most = most_tokens(url, body, max_tokens)
        return None if most is None else self.cost(*most)

    def total(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Dollars for the sums of tokens over many requests, exact. The price must cover each of them."""
        prompt = EXACT.multiply(self.input, Decimal(prompt_tokens))
        return EXACT.add(prompt, EXACT.multiply(self.output, Decimal(completion_tokens)))


def prices_for(models: Sequence[ModelSpec]) -> dict[str, Price | None]:
    """The price of each model, in the given order; `None`: unknown, which is not zero.

    LiteLLM's table is read only if a model has no price in the job file. The model's name is looked up in it, and then
    the names that its endpoints use for it, if these have the same price.
    """
    return {model.name: _own(model) or _listed(model) for model in models}


def _own(model: ModelSpec) -> Price | None:
    if model.price is None:
        return None
    # Shifting the point is exact; dividing by a million would round a long price.
    return Price(model.price.input.scaleb(-6, EXACT), model.price.output.scaleb(-6, EXACT))


def _listed(model: ModelSpec) -> Price | None:
    table = litellm_prices()
    price = look_up(model.name, table)
    if price is None:
        prices = {look_up(endpoint.model, table) for endpoint in model.endpoints if endpoint.model}
        price = prices.pop() if len(prices) == 1 and all(e.model for e in model.endpoints) else None
    return price


@dataclass(frozen=True, slots=True)
class Listing:
    """One entry of LiteLLM's table."""

    provider: str
    """LiteLLM's name for the provider that has this price."""
    price: Price


def look_up(name: str, table: Mapping[str, Listing]) -> Price | None:
    """The price of `name`; `None` if the table has none, or several that differ.

    Tried in turn: the name itself; for `openai/gpt-4`, the entry `gpt-4` if it is that provider's; the name behind any
    provider, as `groq/<name>`, if all entries with it have the same price.
    """
    if name in table:
        return table[name].price
    provider, slash, rest = name.partition("/")
    if slash and rest in table and table[rest].provider == provider:
        return table[rest].price
    behind = {listing.price for key, listing in table.items() if key.partition("/")[2] == name}
    return behind.pop() if len(behind) == 1 else None


@cache
def litellm_prices() -> Mapping[str, Listing]:
    """The entries of LiteLLM's table that are priced per token alone.

    The table is read from LiteLLM's folder, because importing LiteLLM takes seconds. Entries without a price, or with
    a price of 0, are left out: the table has 0 for prices that are not known. A model that is free can have a price of
    0 in the job file.

    Raises:
        SpecError: LiteLLM is not installed or keeps its table elsewhere.
    """
    path = litellm_folder() / "model_prices_and_context_window_backup.json"
    try:
        entries: dict[str, dict[str, Any]] = orjson.loads(path.read_bytes())
    except OSError as error:
        raise SpecError(f"LiteLLM's price table cannot be read ({error}); give every model a price") from error
    priced = {name: (entry, _price(entry)) for name, entry in entries.items() if entry.get("mode") in _MODES}
    return {name: Listing(entry.get("litellm_provider", ""), p) for name, (entry, p) in priced.items() if p}


def litellm_folder() -> Path:
    """The folder in which LiteLLM is installed, found without importing it.

    Raises:
        SpecError: it is not installed.
    """
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        raise SpecError("LiteLLM is not installed; install batchrouter with its dependencies")
    return Path(spec.submodule_search_locations[0])


def _price(entry: Mapping[str, Any]) -> Price | None:
    """The price of an entry; `None` if a request's cost does not depend on tokens alone."""
    embeds = entry["mode"] == "embedding"
    prompt = entry.get("input_cost_per_token")
    completion = 0 if embeds else entry.get("output_cost_per_token")
    thought = entry.get("output_cost_per_reasoning_token", completion)
    if not prompt or not (completion or embeds) or thought != completion:
        return None
    tiers = [int(key[len(_ABOVE) :].partition("k_")[0]) for key in entry if key.startswith(_ABOVE)]
    return Price(
        # `repr` gives the shortest text that reads back as the same float: the digits in the table's JSON.
        input=Decimal(repr(prompt)),
        output=Decimal(repr(completion)),
        up_to=min(tiers) * 1000 if tiers else None,
    )
