"""Judged comparisons with prompts: people's further votes, and what GPT-4 judges said of two answers.

Every reader gives battles with the columns prompt, model_a (shown first), model_b, winner, source, judge, weight and
question_id, and looks its files up as those of `routing.data.votes`. `weight` is what a row counts for within its
source: half where an answer pair was judged in both orders, so that a judge's liking for the first answer cancels.
Rows whose prompt equals, contains or nearly equals one of MT-Bench, MMLU or GSM8K (their column `eval_overlap`) are
left out: nothing may learn from them. Names of models are those of ``model_names.csv``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from routing.battles import PairCounts, encode_battles, pair_codes, split_codes
from routing.data.benchmarks import BenchmarkTable
from routing.data.sources import find_files
from routing.data.tables import read_table
from routing.data.votes import (
    as_battles,
    canonical_names,
    find_file,
    first_turn,
    pick_files,
    read_alpaca_eval,
    read_arena55k,
    read_arena_votes,
)

COLUMNS = ["prompt", "model_a", "model_b", "winner", "source", "judge", "weight", "question_id"]
PRIOR_VOTES = 10.0  # added to the votes of each pair, with the shares of all: some pairs met a few times
HUMAN = "human"


def normalise_text(text: str) -> str:
    """Return a text in lower case without punctuation and white space: how a prompt is known again elsewhere."""
    return re.sub(r"[\W_]+", "", text.casefold())


def normalise_texts(texts: Iterable[str]) -> list[str]:
    """Return `normalise_text` of each text; of a text that is repeated, as prompts of battles are, once."""
    texts = list(texts)
    normalised = {text: normalise_text(text) for text in set(texts)}
    return [normalised[text] for text in texts]


def overlaps(prompts: Iterable[str], others: Iterable[str]) -> np.ndarray:
    """Return whether each prompt is one of the others by `normalise_text`: (n_prompts,) bool."""
    known = set(normalise_texts(others))
    return np.array([text in known for text in normalise_texts(prompts)], dtype=bool)


# ------------------------------------------------------------------------------------------------------- weights
def match_outcomes(battles: pd.DataFrame, target: PairCounts, weights: np.ndarray | None = None) -> np.ndarray:
    """Return weights with which each pair of models has the shares of outcomes it has in `target`: (n_battles,).

    For battles that were drawn by their outcome, or by a judge who favours a model: what a prompt says of the two
    models remains, what the source says of them on average does not. A pair keeps the weight it had, so an outcome that
    it lacks leaves its share to the others.

    Parameters
    ----------
    target : PairCounts
        Has all models of the battles; a pair that never met in it has the shares of all pairs.
    weights : float array, shape (n_battles,), optional
        What the battles weigh before. Default: 1.
    """
    weights = np.ones(len(battles)) if weights is None else np.asarray(weights, dtype=float)
    models, *fields = encode_battles(battles)
    unknown = sorted(set(models) - set(target.models))
    if unknown:
        raise ValueError(f"the target counts lack {', '.join(unknown)}; drop these battles, or count their votes too")
    codes = pair_codes(len(models), *fields)
    total = np.bincount(codes, weights, minlength=3 * len(models) ** 2)
    low, high, outcome = split_codes(len(models), np.arange(len(total)))
    place = np.array([target.models.index(name) for name in models])
    low, high = place[low], place[high]
    counts = np.choose(outcome, [target.wins[low, high], target.ties[low, high], target.wins[high, low]])
    tied = target.ties.sum() / 2 / target.n_battles
    share = np.array([(1 - tied) / 2, tied, (1 - tied) / 2])[outcome]
    wanted = np.where(total > 0, counts + PRIOR_VOTES * share, 0.0).reshape(-1, 3)
    wanted *= (total.reshape(-1, 3).sum(axis=1) / np.maximum(wanted.sum(axis=1), 1e-300))[:, None]
    return weights * (wanted.ravel() / np.where(total > 0, total, 1.0))[codes]


def _both_orders(table: pd.DataFrame, key: Iterable[str]) -> pd.DataFrame:
    """Return the rows whose two models were judged in both orders under the same `key`, each with weight 1/2."""
    pair = np.where(table["model_a"] < table["model_b"], table["model_a"] + "\0" + table["model_b"],
                    table["model_b"] + "\0" + table["model_a"])  # fmt: skip
    groups = table.assign(pair=pair).groupby([*key, "pair"], sort=False)["model_a"]
    orders, rows = groups.transform("nunique"), groups.transform("size")
    return table[orders == 2].assign(weight=1 / rows[orders == 2])


def _finish(table: pd.DataFrame, source: str, path: Path) -> pd.DataFrame:
    """Return the columns of this module, names and winners checked, rows that overlap with an evaluation left out."""
    if "eval_overlap" in table:
        table = table[table["eval_overlap"].isna()]
    table = table.assign(
        source=source, **{side: canonical_names(table[side], source) for side in ("model_a", "model_b")}
    )
    if "weight" not in table:
        table = table.assign(weight=1.0)
    return as_battles(table[COLUMNS], path)


def _read_joined(dataset: str, path: Path | str | None, wanted: Iterable[str] = ()) -> tuple[pd.DataFrame, Path]:
    """Return the judgements of a dataset of two files, with the prompts that they name by question_id."""
    files = find_files(dataset, path)
    judged, asked = (pick_files(files, f"{part}.csv*")[0] for part in ("judgements", "prompts"))
    judgements = read_table(judged, ["question_id", "model_a", "model_b", "winner", *wanted])
    prompts = read_table(asked, ["question_id", "prompt", "eval_overlap"])
    unknown = ~judgements["question_id"].isin(prompts["question_id"])
    if unknown.any():
        row = int(unknown.to_numpy().argmax())
        raise ValueError(f"{judged}, row {row}: question {judgements['question_id'].iloc[row]} is not in {asked.name}")
    prompts = prompts.drop(columns=["source", "lang", "last_turn", "n_turns", "context"], errors="ignore")
    return judgements.merge(prompts, on="question_id", validate="many_to_one"), judged


def _turns(texts: pd.Series, path: Path) -> list[str]:
    return [first_turn(text, row, path) for row, text in enumerate(texts)]


# ------------------------------------------------------------------------------------------------------- readers
def read_elobench(path: Path | str | None = None) -> pd.DataFrame:
    """Read 73,278 GPT-4-turbo verdicts on 28 models, one random order for each pair; "both are bad" is a tie."""
    table, file = _read_joined("elobench_gpt4_battles", path)
    return _finish(table.assign(judge="gpt-4-1106-preview"), "elobench_gpt4_battles", file)


def read_oasst(path: Path | str | None = None) -> pd.DataFrame:
    """Read GPT-4 verdicts on all pairs of 7 models on 953 conversations, judged in both orders.

    The prompt is all that the user said, turns on lines of their own. Pairs with one legible order are left out.
    """
    table, file = _read_joined("oasst_gpt4_pairs", path)
    said = {text: "\n".join(json.loads(text)) for text in table["prompt"].unique()}
    table = table.assign(prompt=table["prompt"].map(said), judge="gpt-4-0314")
    return _finish(_both_orders(table, ["question_id"]), "oasst_gpt4_pairs", file)


def read_arena_hard(path: Path | str | None = None) -> pd.DataFrame:
    """Read verdicts of two judges on gpt-4-0314 against other models on the 500 prompts of Arena-Hard, in both orders.

    Entries that answered with hints (``_guided``) are left out. A judge who saw one pair in several repositories
    has the weight of one.
    """
    table, file = _read_joined("arena_hard_v01", path, ["judge", "strength"])
    guided = table["model_a"].str.endswith("_guided") | table["model_b"].str.endswith("_guided")
    table = table[~guided].reset_index(drop=True)
    table = table.assign(
        prompt=_turns(table["prompt"], file),
        judge=table["judge"].str.replace(" (batch)", "", regex=False),
        **{side: canonical_names(table[side], "arena_hard_v01") for side in ("model_a", "model_b")},
    )
    return _finish(_both_orders(table, ["question_id", "judge"]), "arena_hard_v01", file)


def read_vicuna80(path: Path | str | None = None) -> pd.DataFrame:
    """Read GPT-4 verdicts on 8 systems on the 80 Vicuna questions, judged in both orders."""
    file = find_file("vicuna80_gpt4_pairs", path)
    table = read_table(file, ["question_id", "prompt", "model_a", "model_b", "winner", "eval_overlap"])
    table = table.assign(prompt=_turns(table["prompt"], file), judge="gpt-4-0314")
    return _finish(_both_orders(table, ["question_id"]), "vicuna80_gpt4_pairs", file)


def read_four_judges(path: Path | str | None = None, questions: Path | str | None = None) -> pd.DataFrame:
    """Read verdicts of four models as judges of each other and Vicuna on the same 80 questions, in both orders.

    `questions` is the file of `read_vicuna80`, which has the prompts.
    """
    file, asked = find_file("vicuna80_four_judges", path), find_file("vicuna80_gpt4_pairs", questions)
    table = read_table(file, ["question_id", "judge", "model_a", "model_b", "winner"])
    prompts = read_table(asked, ["question_id", "prompt", "eval_overlap"]).drop_duplicates("question_id")
    table = table.merge(prompts[["question_id", "prompt", "eval_overlap"]], on="question_id", validate="many_to_one")
    table = table.assign(
        prompt=_turns(table["prompt"], file), judge=canonical_names(table["judge"], "vicuna80_four_judges")
    )
    return _finish(_both_orders(table, ["question_id", "judge"]), "vicuna80_four_judges", file)


def read_arena33k(path: Path | str | None = None) -> pd.DataFrame:
    """Read 2,008 battles of 2023 judged by people, then those of them judged by GPT-4: the same two answers.

    `judge` is "human" or "gpt-4"; where GPT-4 failed there is no row of it. Rows of one question_id are one battle; 628
    battles have none, and are identified by prompt and models.
    """
    file = find_file("arena33k_human_and_gpt4", path)
    judges = {HUMAN: "winner_human", "gpt-4": "winner_gpt4"}
    table = read_table(file, ["question_id", "model_a", "model_b", "prompt", *judges.values(), "eval_overlap"])
    table = table.assign(prompt=_turns(table["prompt"], file))
    parts = [table.assign(judge=judge, winner=table[column]) for judge, column in judges.items()]
    return _finish(pd.concat(parts).dropna(subset="winner"), "arena33k_human_and_gpt4", file)


def read_arena55k_more(
    path: Path | str | None = None, votes: PairCounts | None = None, min_prompt_characters: int = 16
) -> pd.DataFrame:
    """Read people's battles drawn BY OUTCOME, of lmsys-arena-human-preference-55k: ties are 3 % instead of 30 %.

    `weight` gives each pair of models the shares of outcomes that it has among `votes` (`read_arena_votes`), so that
    weighted the battles are fit for ratings; `random_sample` is False in every row, as a reminder. Else as
    `read_arena55k`.
    """
    file = find_file("arena55k_more", path)
    table = read_arena55k(file, min_prompt_characters)
    overlap = read_table(file, ["id", "eval_overlap", "sampling"]).set_index("id")
    table = table.join(overlap[["eval_overlap", "sampling"]], on="id").rename(columns={"id": "question_id"})
    kept = table[table["eval_overlap"].isna()].reset_index(drop=True)
    weight = match_outcomes(kept, read_arena_votes() if votes is None else votes)
    finished = _finish(kept.assign(judge=HUMAN, weight=weight), "arena55k_more", file)
    return finished.assign(sampling=kept["sampling"], random_sample=False)


def read_alpaca_eval_battles(path: Path | str | None = None) -> pd.DataFrame:
    """Read AlpacaEval's judgements as `read_alpaca_eval`, with the columns of this module; one annotator an entry."""
    table = read_alpaca_eval(path).drop_duplicates(["prompt", "directory"])
    table = table.rename(columns={"annotator": "judge"}).assign(question_id=table["prompt"])
    return _finish(table, "alpaca_eval", Path("alpaca_eval"))


READERS: Mapping[str, Callable[[], pd.DataFrame]] = {
    "elobench_gpt4_battles": read_elobench,
    "oasst_gpt4_pairs": read_oasst,
    "arena_hard_v01": read_arena_hard,
    "vicuna80_gpt4_pairs": read_vicuna80,
    "vicuna80_four_judges": read_four_judges,
    "arena33k_human_and_gpt4": read_arena33k,
    "arena55k_more": read_arena55k_more,
    "alpaca_eval": read_alpaca_eval_battles,
}


def judged_battles(
    sources: Iterable[str] = tuple(READERS), benchmarks: Mapping[str, BenchmarkTable] | None = None
) -> pd.DataFrame:
    """Return the battles of all `sources`, one after the other; without those on a prompt of one of `benchmarks`."""
    unknown = sorted(set(sources) - set(READERS))
    if unknown:
        raise ValueError(f"no source {', '.join(unknown)}; choose from {', '.join(READERS)}")
    table = pd.concat([READERS[source]()[COLUMNS] for source in sources], ignore_index=True)
    tested = [prompt for benchmark in (benchmarks or {}).values() for prompt in benchmark.prompts["prompt"]]
    return table[~overlaps(table["prompt"], tested)].reset_index(drop=True)


# ---------------------------------------------------------------------------------------------------- a benchmark
def read_arena_bench(path: Path | str | None = None) -> BenchmarkTable:
    """Read Arena-Bench v1: GPT-4's scores (1-10) of 15 models on the 300 hard Arena prompts that all were judged on.

    The judge saw an answer of GPT-4 as a reference, which favours models that answer alike. Prompts that lack a score
    of gpt-4-1106-preview or Mixtral-8x7B are left out (293 remain), as are other models that lack one of these. Never
    training data. Metadata: question_id, eval_overlap (a prompt near one of MT-Bench).
    """
    file = find_file("arena_bench_v1", path)
    table = read_table(file, ["question_id", "prompt", "model", "score", "eval_overlap"])
    table["model"] = canonical_names(table["model"], "arena_bench_v1")
    scores = table.pivot(index="question_id", columns="model", values="score")
    pair = [name for name in ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1") if name in scores]
    scores = scores.dropna(subset=pair).dropna(axis="columns").astype(float)
    prompts = table.drop_duplicates("question_id").set_index("question_id").loc[scores.index].reset_index()
    prompts = prompts.assign(prompt=_turns(prompts["prompt"], file))[["prompt", "question_id", "eval_overlap"]]
    return BenchmarkTable(prompts, scores.reset_index(drop=True).rename_axis(columns=None))
