"""`find_folder` looks up checkpoints and encoders: first as a folder, then in the hub's cache."""

import re
from pathlib import Path

import pytest

from batch.errors import SpecError
from batch.routers.checkpoints.hub import find_folder


def refusal(name: str) -> str:
    with pytest.raises(SpecError) as caught:
        find_folder(name, "router.checkpoint")
    return str(caught.value)


def test_a_folder_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path that could be a hub id is taken as the folder if that exists."""
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_folder("checkpoints/mine", "router.checkpoint") == Path("checkpoints/mine")


@pytest.mark.parametrize("name", ["checkpoints/mine", "mine", "checkpoints/mine@v2"])
def test_what_may_be_a_folder_or_a_hub_id_is_refused_as_both(name: str) -> None:
    """One line says that neither exists, and what to do about either."""
    repository, _, revision = name.partition("@")
    command = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    assert refusal(name) == (
        f"router.checkpoint: {name}: no such folder, and no such repository in the hub's cache on this machine; "
        f"correct the path, or download it first: {command}"
    )


@pytest.mark.parametrize("name", ["./checkpoints/mine", "/nowhere/mine", "out/checkpoints/mine", "my checkpoint"])
def test_what_can_be_no_hub_id_is_refused_as_a_folder(name: str) -> None:
    """Such a name cannot be downloaded, because of its beginning or its form, so the message offers no download."""
    assert re.fullmatch(rf"router\.checkpoint: {re.escape(name)}: no such folder", refusal(name))


def test_what_the_system_cannot_look_for_is_refused() -> None:
    """A name that is too long for a file is refused in one line, with the system's reason."""
    name = "a" * 300 + "/b"
    assert refusal(name) == f"router.checkpoint: {name}: File name too long"
