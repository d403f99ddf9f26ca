"""All providers, by the names that job files call them.

A new provider is a file beside this one and a line here; its name goes into `schemas.reaching.Provider`.
"""

from batch.dispatch.providers.anthropic import ANTHROPIC
from batch.dispatch.providers.azure import AZURE
from batch.dispatch.providers.base import Provider
from batch.dispatch.providers.generic import GENERIC
from batch.dispatch.providers.openai import OPENAI
from schemas.endpoints import Provider as ProviderName

PROVIDERS: dict[ProviderName, Provider] = {
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "azure": AZURE,
    "generic": GENERIC,
}
