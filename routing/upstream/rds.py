"""R's serialised objects (``.rds``) as far as tables of text and whole numbers need them.

The format is that of R's manual "R Internals", section 1.8: big-endian words, each object headed by a word of type and
flags. What a table of votes does not have (functions, environments, complex numbers) raises ValueError.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

SYMBOL, PAIRS, CHARACTERS, LOGICAL, INTEGER, REAL, TEXT, LIST = 1, 2, 9, 10, 13, 14, 16, 19
NOTHING, REFERENCE, WRAPPED = 254, 255, 238
HAS_ATTRIBUTES, HAS_TAG = 512, 1024


class _Reader:
    """Reads objects one after another; an object with attributes comes as (values, attributes)."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at, self.symbols = content, 0, []

    def numbers(self, kind: str, n: int) -> np.ndarray:
        values = np.frombuffer(self.content, kind, n, self.at)
        self.at += values.nbytes
        return values

    def number(self) -> int:
        return int(self.numbers(">i4", 1)[0])

    def text(self, n_bytes: int) -> str | None:
        if n_bytes < 0:  # R's missing text
            return None
        self.at += n_bytes
        return self.content[self.at - n_bytes : self.at].decode()

    def read(self) -> object:
        flags = self.number()
        kind = flags & 255
        if kind == NOTHING:
            return None
        if kind == REFERENCE:
            return self.symbols[(flags >> 8) - 1]
        if kind == SYMBOL:
            self.symbols.append(self.read())
            return self.symbols[-1]
        if kind == CHARACTERS:
            return self.text(self.number())
        if kind == PAIRS:
            pairs = {}
            while flags & 255 == PAIRS:
                if flags & HAS_ATTRIBUTES:
                    self.read()
                tag = self.read() if flags & HAS_TAG else None
                pairs[tag] = self.read()
                flags = self.number()
            return pairs
        if kind == WRAPPED:  # a vector with what R knows of it: its order, whether values are missing
            _, vector, _ = self.read(), self.read(), self.read()
            return vector
        n = self.number()
        if kind in (LOGICAL, INTEGER, REAL):
            values = self.numbers(">f8" if kind == REAL else ">i4", n)
        elif kind in (TEXT, LIST):
            values = [self.read() for _ in range(n)]
        else:
            raise ValueError(f"an object of R's type {kind}, at byte {self.at}; only tables are read")
        return (values, self.read()) if flags & HAS_ATTRIBUTES else values


def read_rds(path: Path) -> pd.DataFrame:
    """Read a data frame that R's ``saveRDS`` wrote; columns of a nested data frame are named ``outer.inner``.

    A missing whole number is the smallest of 32 bits, as R stores it. Raises ValueError, naming the file, where it
    holds anything else.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        reader = _Reader(content)
        reader.at = 14  # behind "X", a line break, and three words of versions
        if content[:2] != b"X\n":
            raise ValueError("not R's binary format")
        if content[5] == 3:
            reader.text(reader.number())  # the encoding
        columns = dict(_columns(reader.read(), ""))
        return pd.DataFrame(columns)
    except (ValueError, OSError, EOFError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read as a data frame of R: {error}") from error


def _columns(frame: tuple[list, dict], outer: str) -> list[tuple[str, object]]:
    values, attributes = frame
    pairs = []
    for name, column in zip(attributes["names"], values, strict=True):
        nested = isinstance(column, tuple)
        pairs += _columns(column, f"{outer}{name}.") if nested else [(outer + name, column)]
    return pairs
