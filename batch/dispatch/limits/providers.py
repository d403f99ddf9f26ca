"""How each provider counts what a request takes from its limits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from batch.clock import Clock
from batch.dispatch.limits.requests import Limiter, RequestPace, RequestWindow
from batch.dispatch.limits.tokens import TokenPace, TokenReserve, TokenWindow
from batch.dispatch.request import Cost
from batch.limits import Measure
from schemas.endpoints import LimitsSpec, Provider


@dataclass(frozen=True, slots=True)
class Profile:
    """One provider's way of counting."""

    tokens: Callable[[Cost], float]
    """What a request takes from a limit on all tokens, when it arrives."""
    refunds: bool
    """Does what the answer did not use come back when it ends?"""
    request_window: float | None = None
    """Requests are counted in windows of so many seconds; `None`: continuously."""
    token_window: float | None = None
    """The same for tokens."""


def _prompt_and_answer(cost: Cost) -> float:
    return cost.input + cost.output


def _the_larger(cost: Cost) -> float:
    return max(cost.input, cost.output)


PROFILES: dict[Provider, Profile] = {
    # "The maximum of max_tokens and the estimated number of tokens", from OpenAI's guide on rate limits.
    "openai": Profile(_the_larger, refunds=False),
    # Input and output are estimated on arrival and corrected at the end.
    "anthropic": Profile(_prompt_and_answer, refunds=True),
    # Requests over 1 or 10 seconds: an even pace keeps to the former, a window to the latter. Tokens: an estimate
    # that is not corrected, and is reset every minute.
    "azure": Profile(_prompt_and_answer, refunds=False, request_window=10, token_window=60),
    "generic": Profile(_prompt_and_answer, refunds=True),
}


def build_limiters(spec: LimitsSpec, provider: Provider, clock: Clock) -> list[Limiter]:
    """The limiters of an endpoint but for its concurrency, all to be asked."""
    profile = PROFILES[provider]
    request_window = spec.window_seconds or profile.request_window
    token_window = spec.window_seconds or profile.token_window
    limiters: list[Limiter] = []
    if spec.rpm is not None:
        limiters += _requests(spec.rpm, spec.burst, request_window, clock)
    if spec.tpm is not None:
        limiters += _tokens(spec.tpm, profile, token_window, clock)
    if spec.input_tpm is not None:
        limiters.append(
            TokenPace(spec.input_tpm, clock, measure="input", count=lambda c: c.input, refunds=profile.refunds)
        )
    if spec.output_tpm is not None:
        limiters += _output(spec.output_tpm, profile, clock)
    return limiters


def limiter_from_header(measure: Measure, limit: float, provider: Provider, clock: Clock) -> Limiter:
    """A limit that is not configured and that the server told us, per minute."""
    profile = PROFILES[provider]
    match measure:
        case "requests":
            return RequestPace(limit, None, clock)
        case "tokens" if profile.token_window is not None:
            window = profile.token_window
            return TokenPace(limit, clock, count=profile.tokens, refunds=profile.refunds, window=window)
        case "tokens":
            return TokenPace(limit, clock, count=profile.tokens, refunds=profile.refunds)
        case "input":
            return TokenPace(limit, clock, measure=measure, count=lambda c: c.input, refunds=profile.refunds)
        case "output":
            return TokenPace(limit, clock, measure=measure, count=lambda c: c.output, refunds=profile.refunds)
        case _:
            assert_never(measure)


def _requests(rpm: float, burst: int | None, window: float | None, clock: Clock) -> list[Limiter]:
    if window is None or burst is not None:
        return [RequestPace(rpm, burst, clock)]
    if rpm * window < 60:
        return [RequestPace(rpm, None, clock)]
    # Evenly within the window too, as servers ask for, a little ahead of the limit so that only the window binds.
    at_once = max(2, int(rpm * window / 60 * _AT_ONCE))
    return [RequestPace(rpm * _AHEAD, at_once, clock), RequestWindow(rpm, window, clock)]


# A pace above the window's, and a second request at once, make up for late timers.
_AHEAD = 1.05
_AT_ONCE = 0.05


def _tokens(tpm: float, profile: Profile, window: float | None, clock: Clock) -> list[Limiter]:
    """Where what is not used comes back, two: an even pace of what answers really use, and the server's own limit,
    which reserves the most. With the server's alone, twice the limit would go out in the first minute; with the pace
    alone, long answers under way would use up the server's.
    """
    if not profile.refunds:
        return [TokenPace(tpm, clock, count=profile.tokens, refunds=False, window=window or 60.0)]
    pace = TokenPace(tpm, clock, window=window or 60.0)
    if window is None:
        return [pace, TokenReserve(tpm, clock, measure="tokens", count=profile.tokens)]
    return [pace, TokenWindow(tpm, window, clock, count=profile.tokens)]


def _output(tpm: float, profile: Profile, clock: Clock) -> list[Limiter]:
    if not profile.refunds:
        return [TokenPace(tpm, clock, measure="output", count=lambda c: c.output, refunds=False)]
    return [
        TokenPace(tpm, clock, measure="output", count=lambda c: c.expected),
        TokenReserve(tpm, clock, measure="output", count=lambda c: c.output),
    ]
