"""Files that are there whole or not at all, folders that one process writes at a time, and hashes of content."""

from __future__ import annotations

import glob
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path

import pandas as pd

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None


@contextmanager
def _locked(path: Path) -> Iterator[str | None]:
    """Create and lock a file for the block, then remove it; yield None, or what it holds if another process has it.

    The system ends the lock when the process ends, however it ends.
    """
    while fcntl:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        except BlockingIOError:
            try:
                yield os.read(descriptor, 100).decode()
            finally:
                os.close(descriptor)
            return
        except FileNotFoundError:  # the process that had it removed it just now
            pass
        except OSError:  # a file system without locks
            break
        os.close(descriptor)
    try:
        yield None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
        if fcntl:
            os.close(descriptor)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder during the block; the file ``.lock`` in it names this process.

    Raises
    ------
    ValueError
        Another process has locked the folder; the message gives its process id.
    """
    path = folder / ".lock"
    with _locked(path) as holder:
        if holder is not None:
            raise ValueError(
                f"process {holder} is writing into {folder}; wait until it is done, stop it, or choose another folder"
            )
        path.write_text(str(os.getpid()))
        yield


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name in the same folder, then put it in place: it is there whole or not at all.

    The temporary name is unique, so several processes may write the same file at once, and the last one wins. What a
    killed process leaves behind is removed by the next call.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial") if fcntl else ():
        with _locked(leftover):
            pass
    holder = ""
    while holder is not None:  # else another process takes the file for a leftover and is about to remove it
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        with _locked(partial) as holder:
            if holder is None:
                partial.write_bytes(content if isinstance(content, bytes) else content.encode())
                os.replace(partial, path)


def write_json(path: Path, content: Mapping) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def hash_table(table: pd.DataFrame) -> str:
    """Return the sha256 of a table's column names and values, row by row; the index plays no part."""
    digest = sha256(json.dumps([str(name) for name in table.columns]).encode())
    digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    return digest.hexdigest()
