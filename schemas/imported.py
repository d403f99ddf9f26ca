"""Names a class of the user's own, to use in place of one of ours."""

from typing import Any, Literal

from pydantic import Discriminator, Field

from schemas.base import Spec


class ImportSpec(Spec):
    """A class of your own, named by its import path."""

    kind: Literal["import"]
    """Always `import`."""

    path: str = Field(pattern=r"^[\w.]+:\w+$")
    """`package.module:Class`."""

    options: dict[str, Any] = {}
    """Keyword arguments of its constructor."""


def _form(value: object) -> str:
    return "import" if isinstance(value, dict | ImportSpec) else "name"


NAME_OR_IMPORT = Discriminator(_form)
"""Tells the name of one of our classes (tag `name`) from an `ImportSpec` (tag `import`)."""
