"""Small JSON files with a checksum."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import DamagedError
from batch.storage.checksums import CheckedWriter, matches
from batch.storage.sealed import read_sealed, sealed, unsealed, write_sealed

BODY = b'{"rows":7,"name":"x"}'


def test_what_was_sealed_comes_back(tmp_path: Path) -> None:
    """A sealed file is JSON; a missing file reads as `None`; an older version's file without a checksum is read."""
    path = tmp_path / "a.json"
    assert read_sealed(path, "a.json") is None
    write_sealed(path, "a.json", BODY)
    assert path.read_bytes().startswith(b'{"crc":"')
    assert read_sealed(path, "a.json") == BODY
    path.write_bytes(BODY)
    assert read_sealed(path, "a.json") == BODY


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_flipped_bit_is_noticed_or_makes_it_no_json(place: int, bit: int) -> None:
    """A flipped bit is damage; in the mark `{"crc":"`, the file reads as one without a checksum, with other content."""
    data = bytearray(sealed("a.json", BODY))
    at = place % len(data)
    data[at] ^= 1 << bit
    with suppress(DamagedError):
        assert unsealed(Path("a.json"), "a.json", bytes(data)) != BODY


def test_a_file_in_another_ones_place_is_damaged(tmp_path: Path) -> None:
    """Swapping two sealed files damages both."""
    for name in ("a.json", "b.json"):
        write_sealed(tmp_path / name, name, BODY)
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    with pytest.raises(DamagedError, match=r"b\.json is damaged"):
        read_sealed(tmp_path / "b.json", "b.json")


def test_a_writer_knows_what_it_wrote(tmp_path: Path) -> None:
    """The writer's size and CRC-32 are those of the file; a file with one byte more or different does not match."""
    path = tmp_path / "part"
    with CheckedWriter(path) as file:
        file.write(b"ab")
        file.write(b"c" * (3 << 20))
        file.write(memoryview(b"d"))
    assert matches(path, file.checksum)
    data = path.read_bytes()
    for damaged in (data + b"x", data[:-1], b"A" + data[1:], b""):
        path.write_bytes(damaged)
        assert not matches(path, file.checksum)
    path.unlink()
    assert not matches(path, file.checksum)
