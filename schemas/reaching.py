"""How an endpoint is reached: address, keys, headers, certificates. Specs name secrets and never hold them."""

import re
import shlex
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from pydantic import BeforeValidator, Tag, field_validator, model_validator

from schemas.base import Spec
from schemas.imported import NAME_OR_IMPORT, ImportSpec

Provider = Literal["openai", "anthropic", "azure", "generic"]

NAMED_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""`${NAME}` in a header or a query: the value of that environment variable."""

# Names of headers and query parameters whose values are secrets: `x-api-key`, `accessToken`, `sig`.
_SECRET_NAME = re.compile(
    r"(key|secret|token|password|passwd|signature|authorization|cookie|credentials?|jwt)$|^(sig|auth|pwd)$",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[^A-Za-z0-9]+")

# Texts that have the form of a well-known provider's key.
_SECRET_VALUE = re.compile(
    r"\b(sk-[\w-]{16,}|gh[pousr]_\w{20,}|hf_\w{20,}|xox[abp]-[\w-]{10,}|AKIA\w{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,})"
    r"|\b(bearer|basic)\s+\S{8,}",
    re.IGNORECASE,
)

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# These headers describe the body and the connection, which are the transport's business.
_OUR_HEADERS = frozenset(
    {"content-type", "content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade", "te", "trailer"}
)

# People often copy the address of a single call from a provider's page.
_CALL_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses")

_UNIX = "unix://"
_SHELL = ("|", "||", "&&", ";", "<", ">", ">>", "&")


def _text(value: Any) -> Any:
    """Converts values to text: YAML reads `2024-06-01` as a date and `1` as a number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_text)]


def names_secret(name: str) -> bool:
    """Whether the value of a header or query parameter with this name is a secret."""
    return any(_SECRET_NAME.search(word) for word in _WORDS.split(name)) or name.lower() == "code"


def looks_secret(text: str) -> bool:
    """Whether this text contains something in the form of a well-known provider's key; `${NAME}` is none."""
    return _SECRET_VALUE.search(NAMED_VARIABLE.sub("", text)) is not None


TransportName = Literal["openai", "litellm"]
TransportSpec = Annotated[
    Annotated[TransportName, Tag("name")] | Annotated[ImportSpec, Tag("import")],
    NAME_OR_IMPORT,
]


class ReachSpec(Spec):
    """Address, key, headers and certificates of an endpoint."""

    url: str | None = None
    """Base URL, up to and including `/v1`; left out: COMPLETION_BASE_URL, else OPENAI_BASE_URL."""

    name: str | None = None
    """Its name in results and reports; left out: its url, with the name of its key if endpoints share the url."""

    provider: Provider = "generic"
    """Decides how limits are counted, how headers are read and how the key is sent."""

    transport: TransportSpec = "openai"
    """`openai`: direct HTTP to an OpenAI-compatible server; `litellm`: everything LiteLLM knows."""

    api_version: Text | None = None
    """Azure's `api-version`, sent in the query of every request."""

    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is never written into this file."""

    api_key_file: str | None = None
    """File that holds the key. The run reads it again when it changes and when the server refuses the key with 401."""

    api_key_command: tuple[str, ...] | None = None
    """Command that prints the key, run without a shell, and again when the server refuses the key with 401."""

    headers: Mapping[str, Text] = {}
    """Headers of every request; `${NAME}` in a value stands for an environment variable."""

    query: Mapping[str, Text] = {}
    """Query parameters of every request; `${NAME}` in a value stands for an environment variable."""

    ca_file: str | None = None
    """PEM file of certificate authorities to trust beside the usual ones."""

    client_cert: str | None = None
    """PEM file of the client's certificate; it may also hold the private key."""

    client_key: str | None = None
    """PEM file of the client certificate's private key, without a passphrase."""

    uds: str | None = None
    """Unix domain socket that the server listens on; `url` then gives only host and path, and may be left out."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        return None if url is None else _base_url(url)

    @field_validator("api_key_env")
    @classmethod
    def _a_variable(cls, name: str | None) -> str | None:
        # The message does not repeat the value: if it is a key, pasted by mistake, it must not appear in a log.
        if name is not None and not name.replace("_", "a").isalnum():
            raise ValueError("api_key_env takes the name of an environment variable, not the key")
        return name

    @field_validator("api_key_command", mode="before")
    @classmethod
    def _argv(cls, command: Any) -> Any:
        if isinstance(command, str):
            try:
                command = shlex.split(command)
            except ValueError as error:
                raise ValueError(f"api_key_command cannot be split into words: {error}") from error
            if any(word in _SHELL or "$(" in word or "`" in word for word in command):
                raise ValueError("api_key_command runs without a shell; for one, write [sh, -c, '...']")
        if isinstance(command, list | tuple):
            if not command or not command[0]:
                raise ValueError("api_key_command is empty")
            if any(isinstance(word, str) and looks_secret(word) for word in command):
                raise ValueError(
                    "api_key_command holds a key, which other users of the machine would see; name a variable"
                )
        return command

    @field_validator("headers")
    @classmethod
    def _headers_are_sendable(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        seen: set[str] = set()
        for name, value in headers.items():
            if not _HEADER_NAME.match(name):
                raise ValueError(f"{name!r} is not a valid name of a header")
            if name.lower() in _OUR_HEADERS:
                raise ValueError(f"the header {name} is set by batchrouter; leave it out")
            if name.lower() in seen:
                raise ValueError(f"the header {name} is given twice")
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"the value of the header {name} holds characters that no header takes")
            seen.add(name.lower())
            _refuse_secret("header", name, value)
        return headers

    @field_validator("query")
    @classmethod
    def _query_has_no_secrets(cls, query: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in query.items():
            _refuse_secret("query parameter", name, value)
        return query

    @field_validator("name")
    @classmethod
    def _name_is_shown(cls, name: str | None) -> str | None:
        if name is not None and (not name.strip() or not name.isprintable()):
            raise ValueError("an endpoint's name is a printable text that is not blank")
        return name

    @field_validator("uds")
    @classmethod
    def _a_path(cls, path: str | None) -> str | None:
        if path == "":
            raise ValueError("uds is empty; give the path of a socket")
        return path

    @model_validator(mode="after")
    def _belongs_together(self) -> "ReachSpec":
        sources = [k for k in ("api_key_env", "api_key_file", "api_key_command") if getattr(self, k) is not None]
        if len(sources) > 1:
            raise ValueError(f"give one of {' and '.join(sources)}")
        if sources and any(name.lower() in ("authorization", "api-key") for name in self.headers):
            raise ValueError(f"the key is given in `headers` and in {sources[0]}; give one of them")
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key needs a client_cert")
        if self.api_version is not None and self.provider != "azure" and self.transport != "litellm":
            raise ValueError("api_version is for `provider: azure`; for other servers put it into `query`")
        if self.uds is not None and self.url is not None and self.url.startswith(_UNIX):
            raise ValueError("give the socket in `uds` or in `url`, not in both")
        if self.transport == "litellm":
            alien = [k for k in ("query", "ca_file", "client_cert", "uds") if getattr(self, k)]
            if alien or (self.url is not None and self.url.startswith(_UNIX)):
                raise ValueError(f"{' and '.join(alien) or 'a unix socket'}: only `transport: openai` can do that")
        own = parse_qsl(urlsplit(self.url or "").query)
        if self.transport == "litellm" and any(key != "api-version" for key, _ in own):
            raise ValueError("the url has a query: only `transport: openai` can send it")
        versions = [value for key, value in own if key == "api-version"]
        if self.api_version is not None and versions and versions != [self.api_version]:
            raise ValueError(f"api_version is {self.api_version}, and the url says {versions[0]}")
        return self

    @property
    def socket_path(self) -> str | None:
        """Path of the Unix domain socket that the endpoint listens on; `None`: it is reached by TCP."""
        if self.uds is not None or self.url is None or not self.url.startswith(_UNIX):
            return self.uds
        return unquote(self.url.removeprefix(_UNIX).split(":", 1)[0])

    @property
    def base_url(self) -> str | None:
        """The http address that requests are built from: it has no query, and a host even for a socket.

        `None`: only the transport knows the address.
        """
        if self.url is None:
            return None if self.uds is None else "http://localhost/v1"
        if self.url.startswith(_UNIX):
            return f"http://localhost{self.url.removeprefix(_UNIX).partition(':')[2] or '/v1'}"
        return urlunsplit(urlsplit(self.url)._replace(query=""))

    @property
    def lacks_api_version(self) -> bool:
        """Whether this is one of Azure's deployments without an `api_version`, to which Azure answers 404."""
        if self.provider != "azure" or self.api_version is not None or "api-version" in self.query:
            return False
        url = self.url or ""
        return "/openai/deployments/" in url and "api-version" not in dict(parse_qsl(urlsplit(url).query))

    @property
    def key_tag(self) -> str | None:
        """A short name of the source of the key, which is no secret; `None`: the endpoint has no key."""
        if self.api_key_env is not None:
            return self.api_key_env
        if self.api_key_file is not None:
            return self.api_key_file.rstrip("/").rpartition("/")[2]
        return self.api_key_command[0].rpartition("/")[2] if self.api_key_command is not None else None


def _base_url(url: str) -> str:
    # A message does not repeat a url that may hold a secret.
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("the url holds a space or a character that cannot be printed")
    if url.startswith(_UNIX):
        return _socket_url(url)
    if not url.startswith(("http://", "https://")):
        shown = f", not {url!r}" if "@" not in url and not looks_secret(url) else ""
        raise ValueError(f"an endpoint's url starts with http:// or https:// (or unix://){shown}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError("the url's host or port cannot be read; write it as http://host:8000/v1") from error
    if "@" in parts.netloc or any(names_secret(name) for name, _ in parse_qsl(parts.query)) or looks_secret(url):
        raise ValueError(
            "the url holds a password or a key, which results would show; name it in api_key_env, or in `query`"
        )
    if not parts.hostname:
        raise ValueError(f"the url {url!r} names no host")
    if parts.fragment:
        raise ValueError(f"the url {url!r} has a fragment (#), which is never sent to a server; leave it out")
    path = parts.path.rstrip("/")
    for call in _CALL_PATHS:
        path = path.removesuffix(call)
    return urlunsplit(parts._replace(path=path.rstrip("/")))


def _socket_url(url: str) -> str:
    if "?" in url or "#" in url:
        raise ValueError("a unix url has no query; give it in `query`")
    path, colon, prefix = url.removeprefix(_UNIX).partition(":")
    if not path.startswith("/") or len(path) < 2:
        raise ValueError(f"a unix url is unix:// and an absolute path, such as unix:///run/server.sock, not {url!r}")
    if colon and not prefix.startswith("/"):
        raise ValueError(f"a unix url has a path after its colon, such as unix:///run/server.sock:/v1, not {url!r}")
    return f"{_UNIX}{quote(unquote(path), safe='/')}{colon}{prefix.rstrip('/')}"


def _refuse_secret(what: str, name: str, value: str) -> None:
    """Raise ValueError if the value is, or looks like, a secret written into the file; the message leaves it out."""
    if value.startswith("$") and NAMED_VARIABLE.search(value) is None:
        raise ValueError(f"the {what} {name}: an environment variable is written as ${{NAME}}")
    if "${" in NAMED_VARIABLE.sub("", value):
        raise ValueError(f"the {what} {name}: only the name of an environment variable may stand between ${{ and }}")
    if (names_secret(name) and NAMED_VARIABLE.search(value) is None) or looks_secret(value):
        raise ValueError(
            f"the {what} {name} holds a secret; put it into an environment variable, and write ${{ITS_NAME}}"
        )
