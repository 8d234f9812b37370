"""Published votes and judgements: one function for each format, each gives a validated table.

Every function looks its files up with `find_files`, or reads the user's own copy at `path`: a file, or a folder that
holds the files. A dataset published as many files may also lie collected in one CSV table; both give the same rows.
Battle tables have the columns of `routing.battles`, then others. A model against itself says nothing and is left out.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd

from routing.battles import (
    PAIR_COLUMNS,
    WINNERS,
    PairCounts,
    clean_name,
    count_pairs,
    quote,
    sum_outcomes,
    validate_battles,
)
from routing.data.sources import FOLDER, find_files
from routing.data.tables import blame, check_columns, read_table

ARENA_MARKS = {"model_a": "winner_model_a", "tie": "winner_tie", "model_b": "winner_model_b"}
ARENA55K_ROWS = 57_477  # of train.csv as published
CLEAN_BATTLES = (1_799_991, 1_670_250)  # votes in clean_battle_20240814_public.json, and those the leaderboard counts


# ----------------------------------------------------------------------------------------------- files to records
def find_file(dataset: str, path: Path | str | None) -> Path:
    """Return the file of a dataset that is one file; ValueError where `path` is a folder of several."""
    files = find_files(dataset, path)
    if len(files) != 1:
        raise ValueError(f"{path} holds {len(files)} files; name the one to read as {dataset}")
    return files[0]


def pick_files(files: Sequence[Path], pattern: str) -> list[Path]:
    """Return those of `files` whose path ends in the glob `pattern`; FileNotFoundError where there is none."""
    picked = [file for file in files if fnmatch(file.absolute().as_posix(), f"*/{pattern}")]
    if not picked:
        raise FileNotFoundError(f"no {pattern} among {len(files)} file(s): {', '.join(map(str, files[:3]))} ...")
    return picked


@functools.cache
def _model_names(source: str) -> dict[str, str]:
    """Return the names in ``model_names.csv`` that hold everywhere, and those that hold in one source."""
    with FOLDER.joinpath("model_names.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype="str", keep_default_na=False)
    return table[table["source"].isin(["any", source])].set_index("name")["model"].to_dict()


def canonical_names(names: pd.Series, source: str = "any") -> pd.Series:
    """Return the same models by one name each, the Arena's, as ``model_names.csv`` says; cleaned by `clean_name`.

    A name stands there only where its `source` certainly means that model.
    """
    clean = {name: clean_name(name) for name in names.dropna().unique()}
    return names.map({name: _model_names(source).get(other, other) for name, other in clean.items()})


def as_battles(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return canonical names and winners, no model against itself, checked; the columns keep their order."""
    table = table.assign(**{side: canonical_names(table[side]) for side in PAIR_COLUMNS})
    table = table[table["model_a"] != table["model_b"]].reset_index(drop=True)
    with blame(path):
        return table.assign(**validate_battles(table))


def read_arena_votes(path: Path | str | None = None) -> PairCounts:
    """Read the pair counts of 1,670,250 Chatbot Arena votes up to 2024-08-14 over 129 models [Chiang24].

    The file is JSON: {"models": [name], "X": [[i, j]], "Y": [[wins of i, wins of j, ties, both bad (ties too)]]}.
    """
    file = find_file("votes", path)
    with blame(f"{file}: cannot be read as JSON"):
        data = json.loads(file.read_text(encoding="utf-8"))
    check_columns(data if isinstance(data, dict) else (), ("models", "X", "Y"), file)
    models = tuple(clean_name(str(name)) for name in data["models"])
    pairs, outcomes = np.asarray(data["X"], dtype=np.int64), np.asarray(data["Y"], dtype=float)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or outcomes.shape != (len(pairs), 4):
        raise ValueError(f"{file}: X has shape {pairs.shape} and Y {outcomes.shape}; expected (n, 2) and (n, 4)")
    if pairs.min(initial=0) < 0 or pairs.max(initial=0) >= len(models):
        raise ValueError(f"{file}: X names models {pairs.min()} to {pairs.max()} of {len(models)}")
    win, loss, tie, bad = outcomes.T
    with blame(file):
        codes = np.repeat([0, 1, 2], len(pairs))  # of the outcomes, as in `BattleCodes`
        return sum_outcomes(models, *np.tile(pairs.T, 3), codes, np.concatenate([win, tie + bad, loss]))


def clean_battle_records(path: Path, size: int = 1 << 22) -> Iterator[dict]:
    """Yield the votes of a ``clean_battle_*.json`` as published, `size` characters at a time: it has 2 GB.

    Raises ValueError, with the file and the record, where it is no JSON list of objects.
    """
    scan, gap, number = json.JSONDecoder().raw_decode, re.compile(r"[\s,\[]*"), 0
    with path.open(encoding="utf-8") as file:
        text, at = file.read(size), 0
        while True:
            at = gap.match(text, at).end()
            if text.startswith("]", at):
                return
            try:
                record, at = scan(text, at)
            except ValueError as error:
                more = file.read(size)
                if not more:
                    raise ValueError(f"{path}: cannot be read as JSON: record {number}: {error}") from error
                text, at = text[at:] + more, 0
                continue
            if not isinstance(record, dict):
                raise ValueError(f"{path}: cannot be read as JSON: record {number}: expected a JSON object")
            yield record
            number += 1


def read_clean_battles(path: Path | str) -> pd.DataFrame:
    """Read the votes of a ``clean_battle_*.json`` as LMSYS publishes it with its leaderboard [Chiang24].

    Columns model_a, model_b, winner, language, tstamp (seconds since 1970). Kept are anonymous votes and, where the
    file marks repeated prompts, those it sampled: what the leaderboard counts.
    """
    path, columns = Path(path), ["model_a", "model_b", "winner", "language", "tstamp"]
    rows = []
    for record in clean_battle_records(path):
        check_columns(record, [*columns, "anony"], path)
        tag = record.get("dedup_tag")
        if record["anony"] is True and (not isinstance(tag, dict) or tag["sampled"]):
            # one object for all rows that have the same name
            rows.append([sys.intern(value) if isinstance(value, str) else value for value in map(record.get, columns)])
    return as_battles(pd.DataFrame(rows, columns=columns), path)


def check_clean_battles(path: Path, counts: PairCounts, published: tuple[int, int] = CLEAN_BATTLES) -> str:
    """Compare a ``clean_battle_20240814_public.json``, which has no published hash, with what is known of it.

    Returns the finding. Raises ValueError where it does not have the `published` numbers of rows, of all votes and of
    those that are counted, or other pair counts than `counts`.
    """
    votes = read_clean_battles(path)
    rows, found = (sum(1 for _ in clean_battle_records(path)), len(votes)), count_pairs(votes)
    same = np.array_equal(found.wins, counts.wins) and np.array_equal(found.ties, counts.ties)
    if rows != published or found.models != counts.models or not same:
        raise ValueError(f"{path} has {rows} rows and counted votes, expected {published}, or other pair counts")
    return f"{rows[0]:,} votes in {path.name}, {rows[1]:,} after deduplication; pair counts equal the packaged ones"


def first_turn(turns: str, row: int, path: Path) -> str:
    """Return the first of a JSON list of turns; ValueError names file and row."""
    with blame(f"{path}, row {row}, column prompt: not a JSON list of turns", (ValueError, TypeError, LookupError)):
        first = json.loads(turns)[0]
    # Half of a surrogate pair is legal in JSON but is no text: encoders and tokenizers refuse it.
    return (first or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@functools.cache
def arena55k_ids() -> tuple[int, ...]:
    """Return the ids of the battles of lmsys-arena-human-preference-55k that the results of this project use.

    ``arena55k_ids.gz`` holds the differences of the sorted ids, as 32-bit numbers: of a table `battles` that has these,
    ``gzip.compress(numpy.diff(sorted(battles["id"]), prepend=0).astype("<u4").tobytes(), mtime=0)``.
    """
    steps = np.frombuffer(gzip.decompress(FOLDER.joinpath("arena55k_ids.gz").read_bytes()), dtype="<u4")
    return tuple(steps.cumsum(dtype=np.int64).tolist())


def read_arena55k(path: Path | str | None = None, min_prompt_characters: int = 16, whole: bool = False) -> pd.DataFrame:
    """Read battles with prompts: lmsys-arena-human-preference-55k, the D_arena of [RouteLLM24].

    Columns prompt, model_a, model_b, winner, id. The prompt is the first turn of the conversation. Prompts under
    `min_prompt_characters` are left out, and with them null turns, as in the paper.

    The file is ``train.csv`` as published, or a part of it. Where no `path` is given, only the battles of
    `arena55k_ids` are read, which the results of this project use; `whole`: all 57,477, as in profile ``paper``.
    Raises ValueError where the file lacks some of them.
    """
    file = find_file("arena55k_whole" if whole else "arena55k", path)
    columns = ["id", "model_a", "model_b", "prompt", *ARENA_MARKS.values()]
    table = read_table(file, columns)[columns]
    if path is None:
        wanted = np.arange(ARENA55K_ROWS) if whole else np.array(arena55k_ids())
        table = table if whole else table[table["id"].isin(wanted)].reset_index(drop=True)
        if len(table) != len(wanted):
            raise ValueError(f"{file}: has {len(table):,} of the {len(wanted):,} battles that are to be read")
    return read_marked(table, file, min_prompt_characters)


def read_marked(table: pd.DataFrame, file: Path, min_prompt_characters: int) -> pd.DataFrame:
    """Return battles of a table with the columns of lmsys-arena-human-preference-55k; parameters as `read_arena55k`."""
    marked = table[[ARENA_MARKS[winner] for winner in WINNERS]].to_numpy()
    wrong = np.flatnonzero((marked == 1).sum(axis=1) != 1)
    if len(wrong):
        raise ValueError(f"{file}, row {wrong[0]}: not exactly one of {', '.join(ARENA_MARKS.values())} is 1")
    prompts = [first_turn(turns, row, file) for row, turns in enumerate(table["prompt"])]
    table = table.assign(prompt=prompts, winner=np.array(WINNERS)[(marked == 1).argmax(axis=1)])
    long_enough = table["prompt"].str.len() >= min_prompt_characters
    return as_battles(table.loc[long_enough, ["prompt", "model_a", "model_b", "winner", "id"]], file)


def read_arena140k(path: Path | str | None = None) -> pd.DataFrame:
    """Read votes of 2025, model_a shown first: arena-human-preference-140k; columns model_a, model_b, winner, id."""
    file, columns = find_file("arena140k", path), ["model_a", "model_b", "winner", "id"]
    return as_battles(read_table(file, columns)[columns], file)


def read_human_and_judges(path: Path | str | None = None) -> pd.DataFrame:
    """Read the same Arena battles judged by people and by three LLMs, in the order of display [PPRanking24].

    Columns model_a, model_b, winner, judge ("human" or the name of an LLM), num, question_id; judge after judge.
    """
    columns = ["model_a", "model_b", "winner", "judge", "num", "question_id"]
    # As the published files are named, and the columns of the collected table.
    judges = {"human": "human", "gpt-4-0125-preview": "gpt_4_0125_preview", "gpt-3.5-turbo": "gpt_3_5_turbo"}
    judges["claude-3-opus-20240229"] = "claude_3_opus"
    files = find_files("judges", path)
    if any(file.name == "human.json" for file in files):
        parts = [read_table(pick_files(files, f"{judge}.json")[0], set(columns) - {"judge"}) for judge in judges]
    else:
        table = read_table(files[0], ["num", "question_id", "model_a", "model_b", *judges.values()])
        parts = [table.assign(winner=table[column]) for column in judges.values()]
    parts = [part.assign(judge=judge)[columns] for judge, part in zip(judges, parts, strict=True)]
    return as_battles(pd.concat(parts, ignore_index=True), files[0].parent)


def read_llmbar(path: Path | str | None = None) -> pd.DataFrame:
    """Read what LLM judges answered when queried in both orders, the better output known [LLMBar24].

    The source is the folder ``Dataset/LLMBar`` of a clone of princeton-nlp/LLMBar, or a collected table. Columns
    subset, judge, protocol, item, round, label (the correct output, 1 or 2), winner_unswapped, winner_swapped. Winners
    are outputs, not places: the judge answered for the place shown first when winner_unswapped is 1 and when
    winner_swapped is 2; missing: no answer was found. round: 0, and 1 where a protocol asked again because the orders
    disagreed. The Rating protocols score each output alone: winners that differ mean equal scores there.
    """
    key, winners = ["subset", "judge", "protocol", "item"], ["winner_unswapped", "winner_swapped"]
    files = find_files("llmbar", path)
    if any(file.name == "result.json" for file in files):
        table = pd.concat([_read_llmbar_results(file) for file in pick_files(files, "evaluators/*/result.json")])
    else:
        table = read_table(files[0], [*key, "label", *winners])
    for column in winners:
        answers = pd.to_numeric(table[column], errors="coerce").astype("Int64")
        table[column] = answers.where(answers.isin([1, 2]))
    table["round"] = table.groupby(key).cumcount()
    return table[[*key, "round", "label", *winners]].reset_index(drop=True)


def _read_llmbar_results(path: Path) -> pd.DataFrame:
    items = read_table(path, ["label", "results"])
    *_, parent, subset, _, judge, protocol, _ = path.absolute().parts  # Adversarial/GPTInst/evaluators/GPT-4/CoT/...
    rows = [
        (item, label, answers["swap = False"].get("winner"), answers["swap = True"].get("winner"))
        for item, (label, results) in enumerate(zip(items["label"], items["results"], strict=True))
        for answers in results  # among them, as lists, what the judge wrote in preparation
        if isinstance(answers, dict) and {"swap = False", "swap = True"} <= answers.keys()
    ]
    table = pd.DataFrame(rows, columns=["item", "label", "winner_unswapped", "winner_swapped"])
    subset = f"{parent}/{subset}" if parent == "Adversarial" else subset
    return table.assign(subset=subset, judge=judge, protocol=protocol)


def read_alpaca_eval(path: Path | str | None = None) -> pd.DataFrame:
    """Read GPT-4-turbo judgements on the 805 prompts of AlpacaEval, the D_judge of this reproduction [AlpacaEval23].

    The source is an ``annotations.json``, a folder with several, or a collected table. Columns prompt, model_a (the
    baseline of every comparison), model_b, winner, preference, annotator; some models were judged by several.
    AlpacaEval shows the two in random order and turns the answer back: `preference` is below 1.5 where model_a won,
    above it where model_b did, 1.5 or 0 for a draw. Rows without one are left out, others than 0 and 1 to 2 an error.
    """
    names = {"instruction": "prompt", "generator_1": "model_a", "generator_2": "model_b"}
    columns = [*names, "preference", "annotator"]
    files = find_files("alpaca_eval", path)
    if any(file.name == "annotations.json" for file in files):
        parts = []
        for file in pick_files(files, "annotations.json"):
            above = file.absolute().parts
            entry = above[above.index("results") + 1] if "results" in above else above[-2]
            parts.append(_with_winner(read_table(file, columns)[columns].assign(directory=entry), file))
        table = pd.concat(parts, ignore_index=True)
    else:
        table = _with_winner(read_table(files[0], [*columns, "directory"]), files[0])
    order = [*names.values(), "winner", "preference", "annotator", "directory"]
    return as_battles(table.rename(columns=names)[order], files[0])


def _with_winner(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    table = table.dropna(subset="preference")
    preference = pd.to_numeric(table["preference"], errors="coerce")
    for row in table.index[~(preference.between(1, 2) | (preference == 0))]:
        value = quote(table.loc[row, "preference"])
        raise ValueError(f"{path}, row {row}, column preference: {value} is neither 0 nor between 1 and 2")
    side = np.sign(preference.replace(0, 1.5) - 1.5).map({-1.0: "model_a", 0.0: "tie", 1.0: "model_b"})
    return table.assign(preference=preference, winner=side)


def read_mt_bench_judgements(path: Path | str | None = None) -> pd.DataFrame:
    """Read MT-Bench scores (1-10) that GPT-4 judges gave single answers [MTBench23].

    The source is a ``gpt-4_single.jsonl`` as FastChat writes it, or a collected table. Columns judge, model,
    question_id, turn, score; from a collected table also repository, within which the judge's version is the same, and
    public_model (whether it was released). Scores below 0, where the judge's answer could not be read, are left out.
    """
    file = find_file("mt_bench", path)
    published = file.suffix == ".jsonl"
    columns = ["judge", "model", "question_id", "turn", "score"]
    table = read_table(file, columns := columns if published else ["repository", *columns, "public_model"])
    if published:
        table["judge"] = table["judge"].str[0]  # [judge, name of the judge's prompt]
    table["model"] = canonical_names(table["model"])
    return table.loc[table["score"] >= 0, columns].reset_index(drop=True)
