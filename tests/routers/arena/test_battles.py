"""Files of battles, and files of their vectors."""

import json
from pathlib import Path

import numpy as np
import pytest

from batch.errors import SpecError
from batch.routers.arena.battle_vectors import count_vectors, vector_blocks
from batch.routers.arena.battles import BATTLE_FILES, data_files, read_battles

KEY = "router.battles"


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["train.csv", "test.csv"], ["train.csv"]),
        (["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"], [1, 0]),
        (["b.jsonl", "a.csv", ".hidden.csv", "README.md"], ["a.csv", "b.jsonl"]),
        (["constraints.jsonl", "validation/a.jsonl"], ["constraints.jsonl"]),
    ],
)
def test_the_training_split_of_a_folder(tmp_path: Path, names: list[str], read: list[str | int]) -> None:
    """Files whose path says "train" are taken, else those that name no other split; sorted, without hidden files."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    wanted = [tmp_path / (names[one] if isinstance(one, int) else one) for one in read]
    assert data_files(tmp_path, BATTLE_FILES, KEY) == wanted


def test_a_folder_without_a_training_split(tmp_path: Path) -> None:
    """A folder with only a test split, and a file of another kind, are refused by their key."""
    (tmp_path / "test.csv").touch()
    (tmp_path / "notes.txt").touch()
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(SpecError, match=r"^router.battles: "):
            data_files(place, BATTLE_FILES, KEY)


def test_prompts_and_winners(tmp_path: Path) -> None:
    """A first turn counts by its stripped length, a plain text too; if both models win, the first does."""
    prompts = [
        '["' + "x" * 16 + '", "y"]',
        '["  ' + "x" * 15 + '  "]',
        "[plain text, no JSON",
        "short",
        ["y" * 16],
        '["\\ud83d' + "x" * 15 + '"]',
    ]
    rows = [
        {"model_a": "a", "model_b": "b", "prompt": prompt, "winner_model_a": one, "winner_model_b": other}
        for prompt, one, other in zip(prompts, [1, 0, 0, 1, 0, 0], [0, 1, 0, 1, 1, 0], strict=True)
    ]
    file = tmp_path / "b.json"
    file.write_text(json.dumps(rows))
    battles = read_battles([file], KEY)
    assert battles.long_enough.tolist() == [True, False, True, False, True, True]
    assert battles.outcome.tolist() == [1.0, 0.0, 0.5, 1.0, 0.0, 0.5]
    assert (battles.first, battles.second) == (["a"] * 6, ["b"] * 6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"model_a": "a", "winner": "tie"}', r"row 2: `model_b` must name a model, not None"),
        ('{"model_a": "a", "model_b": "b"}', r"row 2: give winner_model_a and winner_model_b, or `winner` as one of"),
        ('{"model_a": "a", "model_b": "b", "winner": "tie", "prompt": 7}', r"row 2: `prompt` must be a text"),
        ("7", r"cannot be read: a row is int, not an object"),
        ("{", r"cannot be read: "),
    ],
)
def test_a_bad_battle_is_named(tmp_path: Path, line: str, message: str) -> None:
    """The message is one line that names the file, the row and what is wrong."""
    file = tmp_path / "b.jsonl"
    file.write_text('{"model_a": "a", "model_b": "b", "winner": "tie"}\n' + line + "\n")
    with pytest.raises(SpecError, match=message) as refused:
        read_battles([file], KEY)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_vectors_that_are_none(tmp_path: Path) -> None:
    """Ragged lists, infinite numbers, another column, pickles, and arrays without rows or dimensions are refused."""
    names = ("r.jsonl", "i.npy", "o.jsonl", "p.npy", "n.npy", "e.npy")
    ragged, infinite, other, pickled, number, empty = (tmp_path / name for name in names)
    ragged.write_text('{"embeddings": [1, 2]}\n{"embeddings": [1]}\n')
    np.save(infinite, np.array([[1.0, np.inf]]))
    other.write_text('{"vector": [1, 2]}\n')
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(number, np.array(3.0))
    empty.touch()
    says = {
        ragged: "inhomogeneous shape",
        infinite: "not finite",
        other: "no list `embeddings`",
        pickled: "Python objects",
        number: r"an array of shape \(\)",
        empty: "the file is empty",
    }
    for file, why in says.items():
        with pytest.raises(ValueError, match=why):
            list(vector_blocks(file))
    with pytest.raises(ValueError, match=r"pickle|Array can't be memory-mapped"):
        count_vectors(pickled)
    for file in (number, empty):
        with pytest.raises(ValueError, match=r"of shape \(\)|empty"):
            count_vectors(file)
