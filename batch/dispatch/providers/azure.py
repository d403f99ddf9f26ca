"""Azure OpenAI."""

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from batch.dispatch.providers import openai
from batch.dispatch.providers.base import Provider, prompt_and_answer
from batch.errors import BadRequest, Refused
from schemas.endpoints import EndpointSpec

DEPLOYMENTS = "/openai/deployments"


def _key_header(key: str) -> tuple[str, str]:
    return "api-key", key


def _base_url(endpoint: EndpointSpec, base: str) -> str:
    """Where the url is a whole Azure resource, as its SDKs take it, the deployment (the endpoint's model) is added."""
    if endpoint.api_version is None or endpoint.model is None:
        return base
    path = urlsplit(base).path
    if path not in ("", "/openai", DEPLOYMENTS):
        return base
    return f"{base.removesuffix(path)}{DEPLOYMENTS}/{quote(endpoint.model, safe='')}"


def _query(endpoint: EndpointSpec) -> Mapping[str, str]:
    return {} if endpoint.api_version is None else {"api-version": endpoint.api_version}


AZURE = Provider(
    # Requests over 1 or 10 seconds: an even pace keeps to the former, a window to the latter. Tokens: an estimate
    # that is not corrected, and is reset every minute.
    count_tokens=prompt_and_answer,
    refunds=False,
    request_window=10,
    token_window=60,
    limit_signs=openai.LIMIT_SIGNS,
    windowed_limits=openai.LIMIT_HEADERS,
    error_codes={
        "DeploymentNotFound": Refused,
        "OperationNotSupported": Refused,
        "ResponsibleAIPolicyViolation": BadRequest,
    },
    key_header=_key_header,
    base_url=_base_url,
    query=_query,
)
