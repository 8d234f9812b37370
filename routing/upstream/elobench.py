"""Make the table of EloBench: verdicts and who was shown lie in different files, which are matched row by row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import pandas as pd

from routing.data.votes import pick_files
from routing.upstream.prompt_overlap import Flag, redact

Rows = tuple[list[int], list[int]]


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")


def build_elobench(files: Sequence[Path], flag: Flag) -> dict[str, pd.DataFrame]:
    """Give GPT-4-turbo's verdicts of EloBench's experiments, and their prompts; those that failed are left out.

    Arrangements (question, who is shown first) and verdicts lie in two files, row by row. Of rwq_21962_small three
    verdicts are missing: the rows between are matched by their pairs, and the 40 before each gap left out. Of
    rwq_200_nx1 only runs of 30 equal pairs are matched. A question and pair counts once, where it comes first.
    """
    experiments = {  # in the order of precedence; the folders' names end so
        "rwq_20772": ["clean_20772_fullset"],
        "rwq_21962_small": ["21962_test1_smallset"],
        "google_quora_alpaca_10629": ["10629_test", "10629_test2", "10629_test3"],
        "quora_100": ["quora_100_test", "test5_iterative_80_no_tie", "test2_shuffle_ab", "quora_100_test3"],
        "rwq_200_nx1": ["nx1_gpt4", "nx1_gpt35", "nx1_llama1_13b"],
    }
    parts = []
    for experiment, folders in experiments.items():
        for folder in folders:
            tables = [
                _read(pick_files(files, f"*{folder}/{kind}.csv")[0]) for kind in ("battle_arrangement", "battled_pairs")
            ]
            match = {"rwq_21962_small": _match_gaps, "rwq_200_nx1": _match_runs}.get(experiment, _match_rows)
            shown, judged = match(*([*zip(table["model_a"], table["model_b"], strict=True)] for table in tables))
            part = tables[0].iloc[shown].reset_index(drop=True)
            parts.append(part.assign(winner=tables[1]["winner"].iloc[judged].to_numpy(), experiment=experiment))
    table = pd.concat(parts).replace({"winner": {"tie(all bad)": "tie (bothbad)"}})
    table = table[~table["winner"].isin(["", "invalid"])].drop_duplicates(["question", "model_a", "model_b"])
    for side in ("model_a", "model_b"):
        table[side] = table[side].map(_elobench_name)
    asked = sorted(table["question"].unique())
    ids = {question: f"rwq-{number:05}" for number, question in enumerate(asked)}
    table["question_id"] = table["question"].map(ids)
    listed = pd.concat([_read(path) for path in pick_files(files, "questions.csv")])
    listed = listed.drop_duplicates("question", keep="last").set_index("question")["source"]
    prompts = {
        "question_id": ids.values(),
        "source": listed.reindex(asked).fillna(""),
        "prompt": map(redact, asked),
        "eval_overlap": flag(asked),
    }
    columns = ["question_id", "model_a", "model_b", "winner", "experiment"]
    return {
        "judgements.csv.gz": table[columns],
        "prompts.csv.gz": pd.DataFrame({k: list(v) for k, v in prompts.items()}),
    }


def _match_rows(shown: list, judged: list) -> Rows:
    """Return the rows of both lists up to the end of the shorter one; ValueError where they differ."""
    n = min(len(shown), len(judged))
    if shown[:n] != judged[:n]:
        row = next(row for row in range(n) if shown[row] != judged[row])
        raise ValueError(f"row {row}: {shown[row]} was shown, {judged[row]} judged")
    return list(range(n)), list(range(n))


def _match_gaps(shown: list, judged: list, doubtful: int = 40) -> Rows:
    rows, gaps, at = [], [], 0
    for pair in judged:
        while shown[at] != pair:
            gaps.append(at)
            at += 1
        rows.append(at)
        at += 1
    kept = [n for n, row in enumerate(rows) if not any(gap - doubtful <= row < gap for gap in gaps)]
    return [rows[n] for n in kept], kept


def _match_runs(shown: list, judged: list, fewest: int = 30) -> Rows:
    blocks = SequenceMatcher(None, shown, judged, autojunk=False).get_matching_blocks()
    runs = [(a + k, b + k) for a, b, n in blocks if n >= fewest for k in range(n)]
    return [a for a, _ in runs], [b for _, b in runs]


def _elobench_name(name: str) -> str:
    known = {
        "gpt-4-turbo": "gpt-4-1106-preview",
        "gpt-35-turbo": "gpt-3.5-turbo",
        "gemini": "gemini-pro",
        "chavinlo/alpaca-native": "alpaca-7b",
        "mistralai/Mixtral-8x7B-Instruct-v0.1": "mixtral-8x7b-instruct-v0.1",
    }
    if name in known:
        return known[name]
    name = re.sub(r"-(hf|v1\.[0235]|v0\.1)$", "", name.split("/")[-1].lower())
    return f"{name}-base" if re.fullmatch(r"llama-2-\d+b", name) else name
