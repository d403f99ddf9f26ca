"""Loads and saves folders in transformers' format.

Loading uses no network, runs no code from the folder, and reads weights from safetensors only.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from batch.errors import SpecError

LOCAL_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# For `refuse_missing_weights`. Without `ignore_mismatched_sizes`, transformers reports weights of another shape in a
# table of many lines.
REPORT_MISSING_WEIGHTS: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}

# The hub's cache names a large file after the sha256 of its bytes.
_BLOB = re.compile(r"[0-9a-f]{64}")
# A tokenizer of any kind has its vocabulary in one of these files.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
# The files that affect scores; optimizer states and the like do not.
_READ = ("*.safetensors", "*.json", "*.txt", "*.model")


def folder_fingerprint(folder: Path, key: str) -> str:
    """Return a hash of the files in the folder that affect its network's outputs.

    Args:
        key: key of the job file that names the folder, for messages.

    Raises:
        SpecError: the folder holds no weights in safetensors format, or a file cannot be read.
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
    # Hashing a model of 16 GB takes ten seconds, and the hub's cache has hashed it already.
    if target.parent.name == "blobs" and _BLOB.fullmatch(target.name):
        return target.name
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def load_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer.

    Raises ValueError if the folder holds no tokenizer: transformers would invent one with an empty vocabulary, which
    reads every text as the same unknown token. Raises ValueError or OSError if the tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    if not any(file for pattern in _VOCABULARIES for file in folder.glob(pattern)):
        raise ValueError(f"it holds no tokenizer: none of {', '.join(_VOCABULARIES)}")
    return AutoTokenizer.from_pretrained(folder, **LOCAL_ONLY)


def refuse_missing_weights(loading: dict[str, Any]) -> None:
    """Raise ValueError if the folder lacks weights of the network, or has them in another shape.

    transformers would initialise such weights itself. `loading` is the loading info that
    `from_pretrained(..., **REPORT_MISSING_WEIGHTS)` returns.
    """
    for name, has, wants in sorted(loading["mismatched_keys"]):
        raise ValueError(f"its weights hold {name} of shape {tuple(has)}, not {tuple(wants)}")
    missing = sorted(map(str, loading["missing_keys"]))
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"its weights hold no {missing[0]}{others}")


def save_pretrained(folder: Path, *parts: Any) -> None:
    """Save transformers' models and tokenizers into `folder`, without a progress bar.

    The folder is created if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with transformers_muted():
        for part in parts:
            part.save_pretrained(folder)


@contextmanager
def transformers_muted() -> Iterator[None]:
    """Keep transformers from drawing a progress bar, and from listing the layers that are left out on purpose.

    Raises ValueError in place of a SafetensorError, so that callers need to catch only ValueError and OSError for
    damaged weights.
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
