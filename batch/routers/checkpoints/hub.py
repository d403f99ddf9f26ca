"""Finds the folder of a checkpoint, an encoder or a data set: by path, or by hub id in the hub's cache."""

from pathlib import Path
from typing import Literal

from batch.errors import SpecError


def find_folder(
    name: str, key: str, *, revision: str | None = None, holds: Literal["model", "dataset"] = "model"
) -> Path:
    """Return the folder that `name` names: its path, or a hub id, `owner/name` or `owner/name@revision`.

    A folder takes precedence over a hub id, which is looked up in the hub's cache on this machine. Nothing is
    downloaded, because scoring must not depend on a network.

    Args:
        key: key of the user's file that holds `name`, for messages.
        revision: revision of the hub's repository, unless `name` has one.
        holds: type of the hub's repository.

    Raises:
        SpecError: there is neither such a folder nor such a repository, or the path cannot be looked up.
    """
    try:
        if Path(name).is_dir():
            return Path(name)
    except OSError as error:  # the name is too long, say, or a folder above it may not be read
        raise SpecError(f"{key}: {name}: {error.strerror}") from error
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, _, pinned = name.partition("@")
    wanted = pinned or revision
    try:
        return Path(snapshot_download(repository, revision=wanted, repo_type=holds, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        absent = "no such folder" if holds == "model" else "no such file or folder"
        absent = "not a folder" if Path(name).exists() else absent
        if name.startswith(("/", ".")) or isinstance(error, HFValidationError):
            raise SpecError(f"{key}: {name}: {absent}") from error
        command = f"hf download {repository}" + (f" --revision {wanted}" if wanted else "")
        command += "" if holds == "model" else f" --repo-type {holds}"
        raise SpecError(
            f"{key}: {name}: {absent}, and no such repository in the hub's cache on this machine; correct the path, or "
            f"download it first: {command}"
        ) from error
