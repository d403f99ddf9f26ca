"""Damages that a stored file can suffer, drawn at random."""

import os
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Literal

from hypothesis import strategies as st

Kind = Literal["truncate", "zero", "flip", "swap", "copy over", "double", "delete", "delete folder"]


@dataclass(frozen=True)
class Harm:
    """One damage; `file` and `other` are fractions of the number of files, `at` and `length` of a file's bytes."""

    kind: Kind
    file: float
    other: float
    at: float
    length: float
    bit: int

    def do(self, folder: Path) -> str:
        """Damage a file of `folder`, and return a description of the damage."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return "nothing left to damage"
        path, other = (files[min(int(share * len(files)), len(files) - 1)] for share in (self.file, self.other))
        data = path.read_bytes()
        start = int(self.at * len(data))
        stop = min(len(data), start + 1 + int(self.length * (len(data) - start)))
        match self.kind:
            case "truncate":
                os.truncate(path, start)
            case "zero":
                path.write_bytes(data[:start] + bytes(stop - start) + data[stop:])
            case "flip" if data:
                at = min(start, len(data) - 1)
                path.write_bytes(data[:at] + bytes([data[at] ^ 1 << self.bit]) + data[at + 1 :])
            case "swap":
                theirs = other.read_bytes()
                other.write_bytes(data)
                path.write_bytes(theirs)
            case "copy over":
                if path != other:
                    copyfile(path, other)
            case "double":
                path.write_bytes(data[:stop] + data[start:stop] + data[stop:])
            case "delete":
                path.unlink()
            case "delete folder" if path.parent != folder:
                rmtree(path.parent)
            case _:
                pass
        named = f" {other.relative_to(folder)}" if self.kind in ("swap", "copy over") else f" at {start}-{stop}"
        return f"{self.kind} {path.relative_to(folder)}{named}"


_shares = st.floats(0, 1, exclude_max=True)

harms = st.builds(
    Harm,
    st.sampled_from(
        ["truncate", "zero", "flip", "swap", "copy over", "double", "delete", "delete folder"],
    ),
    _shares,
    _shares,
    _shares,
    # Short stretches are as likely as long ones.
    st.one_of(_shares, st.just(0.0), st.floats(0, 0.05)),
    st.integers(0, 7),
)
