"""Readers of what profile ``paper`` takes beyond `full`: the judge's battles and the published embeddings.

The owners' files could not be downloaded where this was written: the formats are those of the Hugging Face pages, and
tests read files made in these formats. Both are Parquet, which needs `pyarrow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from routing.battles import PAIR_COLUMNS, quote
from routing.data.sources import find_files
from routing.data.tables import read_table
from routing.data.votes import ARENA_MARKS, read_marked

JUDGE_ROWS = 109_101
EMBEDDING_WIDTH = 1_536  # text-embedding-3-small
FEWEST_CHARACTERS = 16  # of a stripped first turn that was embedded
DATASETS = ("arena55k_whole", "routellm", "gpt4_judge_battles")  # that the profile reads
EMBEDDINGS = ("arena_battles_embeddings", "gpt4_judge_battles_embeddings")  # read on request


def _parts(dataset: str, path: Path | str | None) -> list[Path]:
    files = [Path(path)] if path is not None else list(find_files(dataset))
    folder = files[0] if files[0].is_dir() else files[0].parent
    parts = sorted(folder.glob("*.parquet"), key=lambda file: (len(file.name), file.name))
    if not parts:
        raise FileNotFoundError(f"{folder}: no .parquet file of {dataset}")
    return parts


def _read_parts(dataset: str, path: Path | str | None, columns: list[str]) -> tuple[pd.DataFrame, Path]:
    parts = _parts(dataset, path)
    return pd.concat([read_table(part, columns)[columns] for part in parts], ignore_index=True), parts[0].parent


def read_gpt4_judge_battles(path: Path | str | None = None, min_prompt_characters: int = 16) -> pd.DataFrame:
    """Read the GPT-4 judge's battles of the paper, ``routellm/gpt4_judge_battles``: its D_judge [RouteLLM24].

    Columns prompt, model_a, model_b, winner, id; parameters as `routing.data.votes.read_arena55k`, `path` a folder of
    the Parquet files, or one. Raises ValueError for a download, read without `path`, that has not all 109,101 rows.
    """
    columns = ["id", "model_a", "model_b", "prompt", *ARENA_MARKS.values()]
    table, folder = _read_parts("gpt4_judge_battles", path, columns)
    table = table.astype(dict.fromkeys(PAIR_COLUMNS, "str"))  # categories of the parts before
    if path is None and len(table) != JUDGE_ROWS:
        raise ValueError(
            f"{folder}: has {len(table):,} of the judge's {JUDGE_ROWS:,} battles; remove it, fetch it again"
        )
    return read_marked(table, folder, min_prompt_characters)


def read_published_embeddings(
    dataset: str, prompts: Sequence[str], path: Path | str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read the published text-embedding-3-small vectors of all battles of a data set.

    Parameters
    ----------
    dataset : str
        One of `EMBEDDINGS`.
    prompts : sequence of str
        First turns of all its battles in the published order, those of any length: what ``read_arena55k(whole=True,
        min_prompt_characters=0)`` or ``read_gpt4_judge_battles(min_prompt_characters=0)`` gives.

    Returns
    -------
    embedded : bool array, shape (n_prompts,)
        Whether a prompt has a vector: it has 16 characters or more without white space at both ends.
    vectors : float32 array, shape (n_embedded, 1536)
        Of these, in the same order.

    Raises
    ------
    ValueError
        Another number of vectors than of such prompts, or another width.
    """
    if dataset not in EMBEDDINGS:
        raise ValueError(f"no published embeddings {quote(dataset)}; choose from {', '.join(EMBEDDINGS)}")
    embedded = np.array([len(prompt.strip()) >= FEWEST_CHARACTERS for prompt in prompts], dtype=bool)
    table, folder = _read_parts(dataset, path, ["embeddings"])
    widths = table["embeddings"].map(len).unique()
    if len(table) != embedded.sum() or list(widths) != [EMBEDDING_WIDTH] * (len(table) > 0):
        wanted = f"{embedded.sum():,} vectors of {EMBEDDING_WIDTH:,} numbers"
        raise ValueError(f"{folder}: has {len(table):,} vectors of {sorted(widths)} numbers; the prompts need {wanted}")
    return embedded, np.array(table["embeddings"].tolist(), dtype=np.float32).reshape(-1, EMBEDDING_WIDTH)
