"""The record that describes a provider."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from batch.dispatch.request import LimitCost
from batch.errors import DispatchError
from batch.limits import Measure
from schemas.endpoints import EndpointSpec


class LimitHeaders(NamedTuple):
    """The headers in which an answer states one limit."""

    measure: Measure
    limit: str
    remaining: str
    reset: str
    policy: str | None = None
    """The header that states the period of the limit; `None`: the limit is per minute."""


def bearer(key: str) -> tuple[str, str]:
    """The header of most providers."""
    return "authorization", f"Bearer {key}"


def _as_given(endpoint: EndpointSpec, base: str) -> str:
    return base


def _no_query(endpoint: EndpointSpec) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How a provider counts limits, states them in headers, names errors, and takes keys and addresses."""

    count_tokens: Callable[[LimitCost], float]
    """What a request takes from a limit on all tokens, when it arrives."""
    refunds: bool
    """Does the provider give back, when an answer ends, the tokens that the answer did not use?"""
    request_window: float | None = None
    """Seconds of the windows in which requests are counted; `None`: they are counted continuously."""
    token_window: float | None = None
    """Seconds of the windows in which tokens are counted; `None`: they are counted continuously."""

    limit_signs: tuple[str, ...]
    """One of these headers is in every answer that states limits; looking for one costs 0.1 us."""
    even_limits: tuple[LimitHeaders, ...] = ()
    """Limits that fill again evenly: their reset is when they are full, long after something is free again."""
    windowed_limits: tuple[LimitHeaders, ...] = ()
    """Limits that fill again all at once, at their reset."""

    error_codes: Mapping[str, type[DispatchError]]
    """Codes in error bodies that only this provider uses, and what they stand for.

    They are looked for in every answer, whatever the endpoint's provider: gateways pass on what others said.
    """

    key_header: Callable[[str], tuple[str, str]] = bearer
    """Name and value of the header that carries a key."""
    base_url: Callable[[EndpointSpec, str], str] = _as_given
    """The base of an endpoint's addresses, from the url in the job file."""
    query: Callable[[EndpointSpec], Mapping[str, str]] = _no_query
    """Query parameters of every request, beside those in the job file."""


def prompt_and_answer(cost: LimitCost) -> float:
    """The prompt's tokens, and the most that the answer may have."""
    return cost.input + cost.output


def larger_of_both(cost: LimitCost) -> float:
    """The prompt's tokens, or the most that the answer may have, whichever are more."""
    return max(cost.input, cost.output)
