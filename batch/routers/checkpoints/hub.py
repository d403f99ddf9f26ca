"""Where checkpoints and encoders are: a folder, or a hub id that was downloaded before."""

from pathlib import Path
from typing import Literal

from batch.errors import SpecError


def find_folder(
    name: str, key: str, *, revision: str | None = None, holds: Literal["model", "dataset"] = "model"
) -> Path:
    """Return the folder of `name`: a folder, or a hub id on this machine, `owner/name` or `owner/name@revision`.

    Nothing is downloaded: scoring must not depend on a network.

    Args:
        key: of the job file, for messages.
        revision: of the hub; the one in `name` goes before.
        holds: what the hub keeps under that id.

    Raises:
        SpecError: it is neither, or cannot be looked for.
    """
    try:
        if Path(name).is_dir():
            return Path(name)
    except OSError as error:  # a name that no system has, or a folder above that may not be read
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
            f"{key}: {name}: {absent}, and no such repository in the hub's cache on this machine; mend the path, or "
            f"download it first: {command}"
        ) from error
