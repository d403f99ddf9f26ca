"""Builds the transport that an endpoint's spec names."""

from typing import assert_never

from batch.clock import WallClock
from batch.dispatch.transports.base import Transport
from batch.dispatch.transports.imported import ImportedTransport
from batch.environment import Keys
from schemas.endpoints import EndpointSpec
from schemas.imported import ImportSpec


def build_transport(endpoint: EndpointSpec, *, timeout_seconds: float, keys: Keys, wall: WallClock) -> Transport:
    """Build the transport of one endpoint.

    Raises:
        SpecError: the endpoint's key, or anything else that its spec names, is missing.
    """
    transport = endpoint.transport
    if isinstance(transport, ImportSpec):
        return ImportedTransport(transport, endpoint, timeout_seconds=timeout_seconds, keys=keys, wall=wall)
    match transport:
        case "openai":
            from batch.dispatch.transports.openai import OpenAITransport

            return OpenAITransport(endpoint, timeout_seconds=timeout_seconds, keys=keys, wall=wall)
        case "litellm":
            from batch.dispatch.transports.litellm import LiteLLMTransport

            return LiteLLMTransport(endpoint, timeout_seconds=timeout_seconds, keys=keys, wall=wall)
        case _:
            assert_never(transport)
