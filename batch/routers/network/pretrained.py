"""Folders that transformers wrote: loaded without a network, without their code, from safetensors only."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from batch.errors import SpecError

LOCAL_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# For `refuse_missing_weights`; without the second, weights of another shape end in a table of many lines.
REPORT_MISSING_WEIGHTS: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}

# What the hub's cache calls a large file: the sha256 of its bytes.
_BLOB = re.compile(r"[0-9a-f]{64}")
# One of these is where a tokenizer's words are, whichever kind it is.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
# What affects scores; optimizer states and the like do not.
_READ = ("*.safetensors", "*.json", "*.txt", "*.model")


def folder_fingerprint(folder: Path, key: str) -> str:
    """Hash that changes with anything in the folder that affects what its network says.

    Args:
        key: of the job file, for messages.

    Raises:
        SpecError: it holds no weights in safetensors format, or cannot be read.
    """
    files = sorted({file for pattern in _READ for file in folder.glob(pattern)})
    if not any(file.suffix == ".safetensors" for file in files):
        raise SpecError(f"{key}: {folder} holds no weights in safetensors format; no other format is read")
    whole = sha256()
    for file in files:
        try:
            whole.update(f"{file.name} {_file_sha256(file)}\n".encode())
        except OSError as error:
            raise SpecError(f"{key}: cannot read {file}: {error.strerror}") from error
    return whole.hexdigest()


def _file_sha256(file: Path) -> str:
    target = file.resolve()
    # A model of 16 GB takes ten seconds to hash, and the hub's cache has done it.
    if target.parent.name == "blobs" and _BLOB.fullmatch(target.name):
        return target.name
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer.

    Raises ValueError where it holds none, for transformers makes up one without words then, which reads every text as
    the same unknown one; ValueError or OSError where it cannot be loaded.
    """
    from transformers import AutoTokenizer

    if not any(file for pattern in _VOCABULARIES for file in folder.glob(pattern)):
        raise ValueError(f"it holds no tokenizer: none of {', '.join(_VOCABULARIES)}")
    return AutoTokenizer.from_pretrained(folder, **LOCAL_ONLY)


def refuse_missing_weights(loading: dict[str, Any]) -> None:
    """Raise ValueError where transformers made weights up, since the folder has none of that name and shape.

    `loading` is what `from_pretrained(..., **MADE_UP_IS_TOLD)` says.
    """
    for name, has, wants in sorted(loading["mismatched_keys"]):
        raise ValueError(f"its weights hold {name} of shape {tuple(has)}, not {tuple(wants)}")
    missing = sorted(map(str, loading["missing_keys"]))
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"its weights hold no {missing[0]}{others}")


def save_pretrained(folder: Path, *parts: Any) -> None:
    """Have models and tokenizers write themselves into `folder`, which is made if need be, without a progress bar."""
    folder.mkdir(parents=True, exist_ok=True)
    with transformers_muted():
        for part in parts:
            part.save_pretrained(folder)


@contextmanager
def transformers_muted() -> Iterator[None]:
    """Keep transformers from drawing a progress bar and listing the layers that are left out on purpose.

    Raises ValueError for damaged weights, whose own error is neither that nor an OSError.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"its weights are damaged: {error}") from error
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
