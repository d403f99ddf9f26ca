"""Checks an endpoint before a run sends anything, with the client that the run uses and a limit on the time."""

import asyncio
from typing import Any

import orjson

from batch.dispatch.transports.access import Access, key_header, key_reference, resolve
from batch.dispatch.transports.client_choice import build_client
from batch.dispatch.transports.keys import EndpointKey
from batch.dispatch.transports.masking import mask
from batch.dispatch.transports.refusals import refusal
from batch.dispatch.transports.words import hiding
from batch.environment import Keys
from batch.errors import BadAnswer, DispatchError, NotConnected, SpecError
from schemas.endpoints import EndpointSpec
from schemas.imported import ImportSpec

_MODELS = "/v1/models"
_MOST_BYTES = 4 << 20

# The client keeps the time limit itself; this grace is for a client that does not.
_GRACE_SECONDS = 2.0

_MODELS_SHOWN = 5
_MODEL_CHARACTERS = 80

_KEY_REFUSED = (401, 403)
_PROXY_WANTS_PASSWORD = 407
_BEHIND_PROXY = (502, 503, 504)


async def ask_for_models(endpoint: EndpointSpec, keys: Keys, seconds: float) -> tuple[bool, str]:
    """Request an endpoint's list of models, which costs nothing. Returns whether it is usable, and what it answered.

    The request has the headers, query, key, proxy and certificates of the requests that a run sends. Whatever the
    server does, this raises no error and takes little more than `seconds`.
    """
    if isinstance(endpoint.transport, ImportSpec):
        return True, f"not asked: requests are sent by {endpoint.transport.path}"
    try:
        access = resolve(endpoint, keys)
        key = EndpointKey(key_reference(endpoint), keys)
        header = key_header(endpoint, key.value) if key.value is not None else None
        client = build_client(access, header, timeout_seconds=seconds, most_bytes=_MOST_BYTES)
    except SpecError as error:
        return False, str(error)
    secrets = (*key.remembered, *access.secrets)
    try:
        async with asyncio.timeout(seconds + _GRACE_SECONDS):
            status, raw, _ = await client.ask("GET", _MODELS)
    except NotConnected as error:
        return False, hiding(*secrets)(str(error))
    except BadAnswer:
        return True, f"reachable; its list of models is longer than {_MOST_BYTES >> 20} MiB"
    except DispatchError as error:
        return False, f"no HTTP answer: {hiding(*secrets)(str(error))}"
    except TimeoutError:
        return False, f"no HTTP answer: no whole answer within {seconds:g} seconds"
    finally:
        await client.aclose()
    via = f" (through the proxy {access.proxy_shown})" if access.proxy is not None else ""
    raw = mask(secrets)(raw)
    if 200 <= status < 300:
        return True, _listed(raw, endpoint.model) + via
    return _verdict(endpoint, access, status, raw, hiding(*secrets))


async def connection_refusal(endpoint: EndpointSpec, keys: Keys, seconds: float) -> str | None:
    """Connect to the endpoint, or to its proxy, without sending anything; return why that fails, or `None` if it works.

    For an endpoint with the user's own transport it is not known how to connect, and the result is `None`.
    """
    if isinstance(endpoint.transport, ImportSpec):
        return None
    try:
        access = resolve(endpoint, keys)
    except SpecError as error:
        return str(error)
    address = access.address()
    via = f" to the proxy {access.proxy_shown}, which the environment names" if access.proxy is not None else ""
    try:
        async with asyncio.timeout(seconds):
            if isinstance(address, str):
                _, writer = await asyncio.open_unix_connection(address)
            else:
                _, writer = await asyncio.open_connection(*address)
    except TimeoutError:
        return f"no answer{via} within {seconds:g} seconds"
    except (OSError, ValueError) as error:
        # asyncio raises ValueError if the host is not a valid name.
        return _reason(error) + via
    writer.close()
    return None


def _reason(error: OSError | ValueError) -> str:
    """Return why a connection failed, in the operating system's words if the error has a number."""
    said = getattr(error, "strerror", None) or str(error)
    # asyncio lists all addresses that it tried; the name of the first error is enough.
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        from os import strerror

        said = strerror(number)
    return said.lower()


def _verdict(endpoint: EndpointSpec, access: Access, status: int, raw: bytes, hide: Any) -> tuple[bool, str]:
    """Judge a non-2xx answer: return whether the endpoint is usable, and what it answered."""
    via = f" through the proxy {access.proxy_shown}" if access.proxy is not None else ""
    words = refusal(status, raw, lambda name: None, endpoint.provider, lambda: 0.0, hide=hide).words
    said = f": {words}" if words else ""
    if status in _KEY_REFUSED:
        return False, f"HTTP {status}{via}: the key is refused{said}"
    if access.proxy is not None and status == _PROXY_WANTS_PASSWORD:
        return False, f"HTTP {status}: the proxy {access.proxy_shown} wants a password; put it into the proxy's url"
    if access.proxy is not None and status in _BEHIND_PROXY:
        return False, f"HTTP {status}: the proxy {access.proxy_shown} cannot reach it{said}"
    if 300 <= status < 400:
        return True, f"reachable{via}; HTTP {status}: redirects are not followed, give the final url"
    return True, f"reachable{via}; it has no list of models (HTTP {status}{said})"


def _listed(body: bytes, model: str | None) -> str:
    """Say whether the endpoint's list of models contains `model`, and if not, which models it lists."""
    try:
        answer = orjson.loads(body)
        names = [entry["id"] for entry in answer["data"] if isinstance(entry["id"], str)]
    except (ValueError, KeyError, TypeError):
        return "reachable; its list of models cannot be read"
    if model in names:
        return f"serves {model}"
    shown = ", ".join(name[:_MODEL_CHARACTERS] for name in names[:_MODELS_SHOWN]) or "nothing"
    return f"reachable, but lists {shown} and not {model}"
