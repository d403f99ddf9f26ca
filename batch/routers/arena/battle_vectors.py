"""Reads stored vectors of battles' prompts, file by file, in blocks."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.arrays import Float32s
from batch.routers.arena.battles import BattleRow, json_rows

VECTOR_FILES = (".parquet", ".jsonl", ".json", ".npy", ".safetensors")

# Name of the column in RouteLLM's data sets, for Parquet and JSON.
COLUMN = "embeddings"
_BLOCK = 1024
_NO_SUCH_TYPE = "its numbers are of a type that numpy lacks; save float32"


def count_vectors(path: Path) -> int:
    """Number of vectors in a file. Raises ValueError, OSError or an Arrow error for one that cannot be read."""
    match path.suffix.lower():
        case ".parquet":
            with pq.ParquetFile(path) as file:
                return int(file.metadata.num_rows)
        case ".npy":
            return len(_array(path))
        case ".safetensors":
            return len(_tensor(path))
        case _:
            return sum(1 for _ in json_rows(path))


def vector_blocks(path: Path) -> Iterator[Float32s]:
    """Yield the vectors of a file in order, in blocks of shape (up to 1,024, dimension), all of one dimension.

    Parquet and JSON rows have them in the column `embeddings`, a safetensors file in the tensor of that name or in
    its only one. Raises ValueError, OSError or an Arrow error where they are not there or not all finite.
    """
    dimension: int | None = None
    for block in _blocks(path):
        if block.ndim != 2 or dimension not in (None, block.shape[1]):
            raise ValueError("its vectors are not all of one length")
        if not np.isfinite(block).all():
            raise ValueError("it holds numbers that are not finite")
        dimension = block.shape[1]
        yield block


def _blocks(path: Path) -> Iterator[Float32s]:
    match path.suffix.lower():
        case ".parquet":
            yield from _parquet(path)
        case ".npy" | ".safetensors":
            whole = _array(path) if path.suffix.lower() == ".npy" else _tensor(path)
            for start in range(0, len(whole), _BLOCK):
                yield np.asarray(whole[start : start + _BLOCK], dtype=np.float32)
        case _:
            rows = json_rows(path)
            while some := list(islice(rows, _BLOCK)):
                yield np.array([_vector(row) for row in some], dtype=np.float32)


def _parquet(path: Path) -> Iterator[Float32s]:
    with pq.ParquetFile(path) as file:
        if COLUMN not in file.schema_arrow.names:
            raise ValueError(f"it has no column `{COLUMN}`")
        for batch in file.iter_batches(batch_size=_BLOCK, columns=[COLUMN]):
            if not len(batch):
                continue
            lists = batch.column(0)
            numbers = pa.compute.cast(lists.flatten(), pa.float32(), safe=False)
            lengths = set(pa.compute.list_value_length(lists).to_pylist())
            if len(lengths) != 1 or None in lengths or numbers.null_count:
                raise ValueError("its vectors are not all of one length")
            yield numbers.to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def _array(path: Path) -> NDArray[np.floating]:
    try:
        whole: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
    except EOFError as error:
        raise ValueError("the file is empty") from error
    if whole.ndim != 2:
        raise ValueError(f"it is an array of shape {whole.shape}, not (vectors, numbers)")
    return whole


def _tensor(path: Path) -> NDArray[np.floating]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"it is no safetensors file: {error}") from error
    except (TypeError, AttributeError) as error:  # how it says that numpy has no such type
        raise ValueError(_NO_SUCH_TYPE) from error
    if COLUMN not in tensors and len(tensors) != 1:
        raise ValueError(f"it holds no tensor `{COLUMN}`")
    found: NDArray[np.floating] = tensors.get(COLUMN, next(iter(tensors.values())))
    if found.dtype.kind not in "fiu":
        # Where some library has taught numpy the type: whether one has is up to what else was imported.
        raise ValueError(_NO_SUCH_TYPE)
    return found


def _vector(row: BattleRow) -> list[float]:
    vector = row.get(COLUMN)
    if not isinstance(vector, list):
        raise ValueError(f"a row has no list `{COLUMN}`")  # noqa: TRY004 - as for all files
    return vector
