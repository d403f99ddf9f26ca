import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from batch.costs.prices import Listing, Price, litellm_prices, look_up, prices_for
from schemas.endpoints import EndpointSpec, ModelSpec, PriceSpec

ROOT = Path(__file__).parents[2]


def price(prompt: str, completion: str, up_to: int | None = None) -> Price:
    return Price(Decimal(prompt), Decimal(completion), up_to)


def table(**prices: Price) -> Mapping[str, Listing]:
    return {name.replace("__", "/"): Listing("openai", p) for name, p in prices.items()}


def test_the_job_file_comes_first() -> None:
    """A price in the job file, in dollars per million tokens, takes precedence over LiteLLM's and is kept exactly."""
    own = PriceSpec(input=Decimal("0.1234567"), output=Decimal("0.60"))
    assert prices_for([ModelSpec(name="gpt-4", price=own)]) == {"gpt-4": price("1.234567E-7", "6.0E-7")}


def test_litellm_knows_the_rest() -> None:
    """A model without a price has the one LiteLLM lists, in exact decimals; an unlisted one has none."""
    models = [ModelSpec(name="gpt-4"), ModelSpec(name="gpt-4o-mini"), ModelSpec(name="of-my-own")]
    assert prices_for(models) == {
        "gpt-4": price("0.00003", "0.00006"),
        "gpt-4o-mini": price("1.5E-7", "6E-7"),
        "of-my-own": None,
    }


def test_litellm_is_not_imported() -> None:
    """Prices are read without the seconds that importing LiteLLM takes."""
    program = (
        "import sys; from batch.costs.prices import litellm_prices; "
        "print(litellm_prices()['gpt-4'].provider, 'litellm' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.split() == ["openai", "False"]


def test_the_endpoints_names_are_looked_up_when_the_models_is_not_listed() -> None:
    """A model that LiteLLM does not list has the price of the name that all its endpoints use for it."""

    def model(*names: str) -> ModelSpec:
        urls = (f"http://{i}/v1" for i in range(len(names)))
        return ModelSpec(
            name="strong", endpoints=tuple(EndpointSpec(url=u, model=n) for u, n in zip(urls, names, strict=True))
        )

    assert prices_for([model("gpt-4", "openai/gpt-4")])["strong"] == price("0.00003", "0.00006")
    assert prices_for([model("gpt-4", "gpt-4o")])["strong"] is None
    assert prices_for([model("gpt-4", "of-my-own")])["strong"] is None


def test_look_up_never_guesses() -> None:
    """A name is looked up as given, without its provider, and behind all providers if these agree; never otherwise."""
    prices = table(
        a=price("1", "2"),
        groq__b=price("1", "2"),
        nebius__b=price("1", "2"),
        groq__c=price("1", "2"),
        nebius__c=price("1", "3"),
        groq__d=price("1", "2"),
        groq__maker__e=price("1", "2"),
    )
    assert look_up("a", prices) == price("1", "2")
    assert look_up("openai/a", prices) == price("1", "2")
    assert look_up("together/a", prices) is None
    assert look_up("b", prices) == price("1", "2")
    assert look_up("c", prices) is None
    assert look_up("maker/e", prices) == price("1", "2")
    assert look_up("e", prices) is None


def test_zero_and_missing_prices_are_left_out() -> None:
    """An entry with a price of 0 is unknown, not free; only the answers of embeddings are free."""
    listed = litellm_prices()
    assert all(listing.price.input > 0 for listing in listed.values())
    assert "sample_spec" not in listed
    assert listed["text-embedding-3-small"].price == price("2E-8", "0")


@pytest.mark.parametrize(
    ("prompt_tokens", "completion_tokens", "cost"),
    [
        (1000, 10, Decimal("0.0302")),
        (0, 0, Decimal(0)),
        (None, 10, None),
        (1000, None, None),
        (200_000, 0, Decimal(6)),
        (200_001, 0, None),
    ],
)
def test_a_cost_is_exact_or_unknown(
    prompt_tokens: int | None, completion_tokens: int | None, cost: Decimal | None
) -> None:
    """A missing count that is charged for, or a prompt longer than the price covers, makes the cost unknown."""
    assert price("0.00003", "0.00002", up_to=200_000).cost(prompt_tokens, completion_tokens) == cost


def test_a_count_that_costs_nothing_may_be_missing() -> None:
    """Embeddings report no completion tokens and have a cost all the same."""
    assert price("2E-8", "0").cost(100, None) == Decimal("0.000002")
    assert price("0", "0").cost(None, None) == 0


def test_a_price_ends_where_a_second_one_for_long_prompts_begins() -> None:
    """If LiteLLM lists a second price for long prompts, the first one ends where the second begins."""
    assert litellm_prices()["gemini-2.5-pro"].price.up_to == 200_000


@pytest.mark.parametrize("kind", ["image_url", "input_image", "input_audio", "file", "document"])
def test_what_is_no_text_has_no_bound(kind: str) -> None:
    """A request with media has no bound, because a URL does not tell what it costs; a text that quotes it has one."""
    of = price("0.001", "0.01")
    part = {"type": kind, kind: {"url": "https://example.org/a.png"}}
    shown = orjson.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}]})
    told = orjson.dumps({"messages": [{"role": "user", "content": orjson.dumps(part).decode()}]})
    assert of.bound("/v1/chat/completions", shown, 10) is None
    assert of.bound("/v1/chat/completions", told, 10) == len(told) * of.input + 10 * of.output


def test_the_bound_of_a_request() -> None:
    """The bound counts each byte as a token; without a limit on the answer, only an embedding request has a bound."""
    of = price("0.001", "0.01")
    assert of.bound("/v1/chat/completions", b"{}", None) is None
    assert of.bound("/v1/chat/completions", b"{}", 5) == Decimal("0.052")
    assert of.bound("/v1/embeddings", b"{}", None) == Decimal("0.002")
    assert price("1", "1", up_to=1).bound("/v1/chat/completions", b"{}", 5) is None
