"""Write files and folders whole or not at all, lock them, hash their content, and find the cache folder."""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path

import pandas as pd

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None


def cache_folder() -> Path:
    """Return the folder of all caches: the one that ROUTING_CACHE names, or ``routing`` in the user's cache folder."""
    import pooch  # slow to import

    return Path(os.environ.get("ROUTING_CACHE") or pooch.os_cache("routing")).expanduser()


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an existing file or folder during the block; the system releases it when the process ends.

    BlockingIOError: another holder has it and `wait` is False. FileNotFoundError: there is no such file or folder, or
    it was removed while this call waited.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise  # any other is a file system without locks
        if not os.path.samestat(os.stat(path), os.fstat(descriptor)):
            raise FileNotFoundError(f"{path} was replaced while its lock was waited for")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder during the block; the file ``.lock`` in it names this process.

    ValueError: another process, whose id is given, has locked the folder.
    """
    name = folder / ".lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False))
        except BlockingIOError as error:
            holder = name.read_text() if name.is_file() else "unknown"
            raise ValueError(
                f"process {holder} is writing into {folder}; wait until it is done, stop it, or choose another folder"
            ) from error
        write_atomically(name, str(os.getpid()))
        stack.callback(name.unlink, missing_ok=True)
        yield


@contextmanager
def write_whole(target: Path, folder: bool = False) -> Iterator[Path]:
    """Yield a new, empty file or folder next to `target`, and move it there at the end of the block.

    If several processes write a file at once, the last one wins. What a killed process left is removed by the next
    call. OSError: `target` is a folder with content.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        with suppress(OSError), locked(left, wait=False):  # its writer does not live, or it would hold the lock
            _remove(left)
    with ExitStack() as stack:
        while True:
            partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
            partial.mkdir() if folder else partial.touch(exist_ok=False)
            with suppress(FileNotFoundError):  # another process took it for a leftover before it was locked
                stack.enter_context(locked(partial))
                break
        try:
            yield partial
            os.replace(partial, target)
        finally:
            _remove(partial)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is there whole or not at all, as `write_whole`."""
    with write_whole(path) as partial:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())


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
