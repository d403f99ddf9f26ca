"""How an endpoint is reached: the variables, files and proxies that its spec names are looked up here, once."""

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from batch.dispatch.providers.azure import DEPLOYMENTS
from batch.dispatch.providers.registry import PROVIDERS
from batch.environment import Keys
from batch.errors import SpecError
from schemas.endpoints import EndpointSpec
from schemas.openai_batch import RESPONSES_URL
from schemas.reaching import NAMED_VARIABLE

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one endpoint. Its repr shows no secret.

    Attributes:
        base: the http address before a call's path.
        query: what follows the path, without the question mark; it may hold secrets.
        headers: the headers of the spec, without the key.
        proxy: url of the proxy; `None`: connect to the server directly.
        socket: path of a Unix domain socket in place of host and port.
        authorities: certificates of authorities, in PEM, that are trusted beside the usual ones.
        identity: certificate and private key, in PEM, with which the client identifies itself.
        secrets: the values of the variables that were looked up.
    """

    base: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str | None = field(default=None, repr=False)
    socket: str | None = None
    authorities: tuple[bytes, ...] = field(default=(), repr=False)
    identity: bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def url(self, path: str) -> str:
        """The address of one call; `path` begins with /v1, as the rows' paths do, and `base` ends with it."""
        base = self.base
        if path == RESPONSES_URL and f"{DEPLOYMENTS}/" in base:
            # Azure's deployments serve the older APIs only; this one takes the deployment from the body's `model`.
            base = base.partition(DEPLOYMENTS)[0] + "/openai"
        address = base + path.removeprefix("/v1")
        return f"{address}?{self.query}" if self.query else address

    def address(self) -> tuple[str, int] | str:
        """Where the connection goes: host and port of the server or its proxy, or the path of a socket."""
        if self.socket is not None:
            return self.socket
        parts = urlsplit(self.proxy or self.base)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def proxy_shown(self) -> str | None:
        """The proxy without a password."""
        if self.proxy is None:
            return None
        parts = urlsplit(self.proxy)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def resolve(endpoint: EndpointSpec, keys: Keys) -> Access:
    """Look up everything that the spec of `endpoint` names.

    Raises:
        SpecError: a variable is not set, or a file cannot be used.
    """
    # LiteLLM knows the addresses of most servers.
    base = endpoint.base_url or ("" if endpoint.transport == "litellm" else None)
    if base is None:
        raise SpecError("an endpoint has no url: give `url`, or set COMPLETION_BASE_URL or OPENAI_BASE_URL")
    secrets: list[str] = []
    headers = {
        name.lower(): _filled(f"the header {name}", value, keys, secrets) for name, value in endpoint.headers.items()
    }
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()) or value != value.strip():
            raise SpecError(
                f"the header {name}: its variable holds a line break, a space at an end, or what no header takes"
            )
    proxy = None
    if endpoint.socket_path is None and base:
        proxy = proxy_for(base, keys)
    if proxy is not None:
        password = urlsplit(proxy).password
        secrets += [password] if password else []
    return Access(
        base=PROVIDERS[endpoint.provider].base_url(endpoint, base),
        query=_query(endpoint, keys, secrets),
        headers=headers,
        proxy=proxy,
        socket=endpoint.socket_path,
        authorities=_authorities(endpoint.ca_file) if endpoint.ca_file is not None else (),
        identity=_identity(endpoint.client_cert, endpoint.client_key) if endpoint.client_cert is not None else None,
        secrets=tuple(secrets),
    )


def variables(endpoint: EndpointSpec) -> Iterator[tuple[str, str]]:
    """Each key of an endpoint's spec that names an environment variable, and the variable's name."""
    for what, values in (("headers", endpoint.headers), ("query", endpoint.query)):
        for key, value in values.items():
            for name in NAMED_VARIABLE.findall(value):
                yield f"{what}.{key}", name


def proxy_for(url: str, keys: Keys) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY ask for, in either case, as curl reads them.

    A proxy on another machine is not used for a server on this one: it would look for the server on its own machine.

    Raises:
        SpecError: it is no url of a proxy.
    """
    parts = urlsplit(url)
    name, proxy = next(
        (
            (name, value)
            for wanted in (f"{parts.scheme}_proxy", "all_proxy")
            for name in (wanted, wanted.upper())
            if (value := keys(name))
        ),
        ("", None),
    )
    if proxy is None or _goes_direct(parts.hostname or "", parts.port, keys("no_proxy") or keys("NO_PROXY") or ""):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        usable = urlsplit(proxy).scheme in ("http", "https") and bool(urlsplit(proxy).hostname)
        _ = urlsplit(proxy).port
    except ValueError:
        usable = False
    if not usable:
        raise SpecError(
            f"the environment variable {name} is no url of an http proxy; put the host into NO_PROXY to go without"
        )
    if _is_loopback(parts.hostname or "") and not _is_loopback(urlsplit(proxy).hostname or ""):
        return None
    return proxy


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _goes_direct(host: str, port: int | None, no_proxy: str) -> bool:
    """Is `host` in a NO_PROXY list of hosts, suffixes, addresses and networks, with or without a port?"""
    host = host.lower().rstrip(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        if entry == "*":
            return True
        name, colon, only = entry.rpartition(":")
        if colon and only.isdigit() and (name.count(":") == 0 or name.endswith("]")):
            if int(only) != port:
                continue
            entry = name
        entry = entry.strip("[]").removeprefix("*").lstrip(".").rstrip(".")
        try:
            if ip_address(host) in ip_network(entry, strict=False):
                return True
        except ValueError:
            # One of the two is a name.
            if entry and (host == entry or host.endswith(f".{entry}")):
                return True
    return False


def key_reference(endpoint: EndpointSpec) -> str | None:
    """The reference by which `Keys` finds the key: a variable's name, `file:` and a path, or `command:` and JSON."""
    if endpoint.api_key_file is not None:
        return f"file:{endpoint.api_key_file}"
    if endpoint.api_key_command is not None:
        return f"command:{json.dumps(endpoint.api_key_command)}"
    return endpoint.api_key_env


def key_header(endpoint: EndpointSpec, key: str) -> tuple[str, str]:
    """The header that carries the key, as the provider wants it."""
    return PROVIDERS[endpoint.provider].key_header(key)


def _filled(what: str, text: str, keys: Keys, secrets: list[str]) -> str:
    def value(match: re.Match[str]) -> str:
        found = keys(match[1])
        if not found:
            raise SpecError(f"{what}: the environment variable {match[1]} is not set")
        secrets.append(found)
        return found

    return NAMED_VARIABLE.sub(value, text)


def _query(endpoint: EndpointSpec, keys: Keys, secrets: list[str]) -> str:
    url = endpoint.url or ""
    own = "" if url.startswith("unix://") else urlsplit(url).query
    added = {
        name: _filled(f"the query parameter {name}", value, keys, secrets) for name, value in endpoint.query.items()
    }
    there = {name for name, _ in parse_qsl(own, keep_blank_values=True)}
    for name, value in PROVIDERS[endpoint.provider].query(endpoint).items():
        if name not in there:
            added.setdefault(name, value)
    return "&".join(part for part in (own, urlencode(added)) if part)


def _authorities(path: str) -> tuple[bytes, ...]:
    try:
        certificates = tuple(_CERTIFICATE.findall(Path(path).read_bytes()))
        if certificates:
            ssl.create_default_context().load_verify_locations(cadata=b"\n".join(certificates).decode())
    except OSError as error:
        raise SpecError(f"ca_file {path} cannot be used: {error.strerror or error}") from error
    except ValueError as error:
        raise SpecError(f"ca_file {path} cannot be used: {error}") from error
    if not certificates:
        raise SpecError(f"ca_file {path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
    return certificates


def _identity(certificate: str, key: str | None) -> bytes:
    what = f"client_cert {certificate}" if key is None else f"client_cert {certificate} with client_key {key}"

    def no_passphrase() -> str:
        # Python would ask for it on the terminal, and wait.
        raise SpecError(f"{what}: the private key has a passphrase; give one without, in a file of mode 600")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, no_passphrase)
        parts = [Path(path).read_bytes() for path in (certificate, key) if path is not None]
    except OSError as error:
        reason = (
            error.strerror
            if not isinstance(error, ssl.SSLError) and error.strerror
            else "no certificate and its private key in PEM"
        )
        raise SpecError(f"{what} cannot be used: {reason}") from error
    return b"\n".join(parts)
