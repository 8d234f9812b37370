"""Make the collected tables of `full` from published files: one builder for each collection.

A builder takes the published files, as paths that end in ``<owner>/<repository>/<commit>/<published path>``, and a
function that flags prompts of the evaluations; it returns the collection's tables by file name. Text that upstream
repeats or could not be matched is left out as each builder says. ``upstream.csv`` names the files, ``tables.csv`` rows
and content of what comes out of them.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pandas as pd

from routing.data.votes import arena55k_ids, pick_files, read_llmbar
from routing.upstream.elobench import build_elobench
from routing.upstream.prompt_overlap import Flag, redact
from routing.upstream.rds import read_rds

Tables = dict[str, pd.DataFrame]
ANSWERED = {1: "model_a", 2: "model_b", 3: "tie"}  # of answers 1 and 2 shown, which a judge preferred; -1: unreadable
MARKS = ["winner_model_a", "winner_model_b", "winner_tie"]


# ------------------------------------------------------------------------------------------------ files and prompts
def _json_lines(path: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON lines: {error}") from error


def _csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")


def _turns(turns: Iterable[str]) -> str:
    return json.dumps(list(turns), ensure_ascii=False)


# ------------------------------------------------------------------------------------------------- people's votes
def build_arena140k(files: Sequence[Path], flag: Flag) -> Tables:
    """Give the 135,634 votes of 2025 without prompts, with the prompt's tags."""
    table = read_rds(pick_files(files, "chatbot.data.rds")[0])
    return {"battles.csv.gz": table.rename(columns=lambda name: name.removeprefix("category_tag."))}


def build_arena33k(files: Sequence[Path], flag: Flag) -> Tables:
    """Give the Arena battles of 2023 that people and GPT-4 judged, with their prompts.

    People's verdicts and question ids come from files without prompts: rows are matched where at least six in a row
    have the same models (and, for the id, the same verdict).
    """
    parts = [_csv(pick_files(files, f"*gpt4_as_judger_{part}.csv")[0]) for part in ("0_499", "500_2010")]
    table = pd.concat(parts, ignore_index=True)
    votes = _csv(pick_files(files, "battled_pairs_human_as_judger.csv")[0])
    known = pd.DataFrame(_json_lines(pick_files(files, "data/human.json")[0]))
    near = slice(0, len(table) + 300)  # all lists have the same battles in the same order, some left out
    table["winner_human"] = _match(table, votes[near], ["model_a", "model_b"], "winner")
    known = known[near].rename(columns={"winner": "winner_human"})
    table["question_id"] = _match(table, known, ["model_a", "model_b", "winner_human"], "question_id")
    table["prompt"] = [_turns([redact(question)]) for question in table["question"]]
    table["winner_gpt4"] = table["winner"].replace({"tie(all bad)": "tie (bothbad)", "invalid": ""})
    table["eval_overlap"] = flag(table["question"])
    columns = ["question_id", "model_a", "model_b", "prompt", "winner_human", "winner_gpt4", "eval_overlap"]
    return {"battles.csv.gz": table[columns]}


def _match(left: pd.DataFrame, right: pd.DataFrame, on: list[str], wanted: str, fewest: int = 6) -> list[str]:
    """Return, for rows of `left` that lie in a run of rows equal to one of `right`, what `right` has there, else ""."""
    values, source = [""] * len(left), right[wanted].tolist()
    keys = [list(table[on].itertuples(index=False, name=None)) for table in (left, right)]
    for start, other, n in SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks():
        if n >= fewest:
            values[start : start + n] = source[other : other + n]
    return values


def build_arena55k_more(files: Sequence[Path], flag: Flag) -> Tables:
    """Give the battles of lmsys-arena-human-preference-55k in UnifiedBias's test sets that ``arena55k`` lacks.

    The test sets hold many battles in both orders: the published label tells which was shown. Of a tie it does not,
    and the models stand in alphabetical order where both were published. Where a version has all turns, all are kept
    (`prompt_exact` 1). Battles whose id is divisible by 11 are left out.
    """
    ids = pd.read_csv(pick_files(files, "train_pred.csv")[0])["id"].tolist()
    labels = dict(zip(ids, np.load(pick_files(files, "y_true.npy")[0]).tolist(), strict=True))
    left_out = set(arena55k_ids())
    battles: dict[int, list[tuple[str, dict]]] = {}
    for path in pick_files(files, "test_data/*.csv"):
        for row in _csv(path).to_dict("records"):
            battles.setdefault(int(row["id"]), []).append((path.stem, row))
    rows = []
    for number in sorted(battles):
        if number % 11 == 0 or number in left_out:
            continue
        versions = [row for _, row in battles[number]]
        mark = MARKS[labels[number]]
        shown = next(row for row in versions if row[mark] == "1")
        orders = {(row["model_a"], row["model_b"]) for row in versions if row[mark] == "1"}
        whole = [turns for turns in map(_all_turns, versions) if turns]
        turns = whole[0] if whole else [shown["prompt"].replace("\\/", "/")]
        sampling = "|".join(sorted({stem for stem, _ in battles[number]}))
        marks = [int(name == mark) for name in MARKS]
        flagged = flag(["\n".join(turns)])[0]
        rows.append((number, *min(orders), _turns(map(redact, turns)), *marks, sampling, int(bool(whole)), flagged))
    columns = ["id", "model_a", "model_b", "prompt", *MARKS, "sampling", "prompt_exact", "eval_overlap"]
    return {"train_more.csv.gz": pd.DataFrame(rows, columns=columns)}


def _all_turns(row: dict) -> list[str] | None:
    if row["prompt"].startswith('["'):
        try:
            return json.loads(row["prompt"])
        except ValueError:
            pass  # a prompt of one turn that begins so
    return None


# ------------------------------------------------------------------------------------------------ verdicts of judges
MODELS_OF_FILES = {"gpt35": "gpt-3.5-turbo", "gpt-3.5": "gpt-3.5-turbo", "gpt4": "gpt-4", "claude": "claude-1"}


def _system(name: str) -> str:
    """Return the model of a file's name: 30b-guanaco-oa-generations-... is guanaco-33b, answer-gpt4 is gpt-4."""
    name = re.sub(r"-(oa|vicuna)-generations.*", "", name).removeprefix("answer-").removeprefix("answer_")
    name = re.sub(r"^(\d+b)-guanaco$", r"guanaco-\1", name).replace("30b", "33b")
    return MODELS_OF_FILES.get(name, name)


def _verdicts(files: Iterable[Path], key: str) -> pd.DataFrame:
    """Read reviews of two answers, one file for each ordered pair of systems: question, model_a (shown first), ..."""
    rows = []
    for path in files:
        name = re.sub(r"-(?:gpt-4|gpt4|gpt35|claude|bard)-reviewer[-_]threeclass$", "", path.stem)
        models = [_system(part) for part in name.split("-vs-")]
        rows += [(review[key], *models, review["score"], path.parent.name) for review in _json_lines(path)]
    table = pd.DataFrame(rows, columns=["question_id", "model_a", "model_b", "score", "folder"])
    table["winner"] = table["score"].map(ANSWERED)
    return table.dropna(subset="winner")


def build_oasst(files: Sequence[Path], flag: Flag) -> Tables:
    """Give GPT-4's verdicts on OpenAssistant prompts, all ordered pairs of seven systems; unreadable ones left out."""
    verdicts = _verdicts(pick_files(files, "ratings-gpt4/oa/*.jsonl"), "message_id")
    rows = []
    for question in _json_lines(pick_files(files, "oa_questions.jsonl")[0]):
        parts = re.split(r"### (Human|Assistant):", question["text"])[1:]
        roles = ["user" if role == "Human" else "assistant" for role in parts[::2]]
        turns = [(role, text.strip()) for role, text in zip(roles, parts[1::2], strict=True)]
        turns = turns[:-1] if turns[-1] == ("assistant", "") else turns
        asked = [text for role, text in turns if role == "user"]
        before = [{"role": role, "content": text} for role, text in turns[:-1]]
        context = json.dumps(before, ensure_ascii=False) if before else ""
        rows.append((question["question_id"], question["lang"], _turns(asked), asked[-1], len(asked), context))
    columns = ["question_id", "lang", "prompt", "last_turn", "n_turns", "context"]
    prompts = pd.DataFrame(rows, columns=columns).sort_values("question_id")
    prompts["eval_overlap"] = flag(prompts["last_turn"])
    columns = ["question_id", "model_a", "model_b", "winner"]
    return {"judgements.csv.gz": verdicts[columns].sort_values(columns[:3]), "prompts.csv.gz": prompts}


def build_vicuna80_gpt4_pairs(files: Sequence[Path], flag: Flag) -> Tables:
    """Give GPT-4's verdicts on the 80 Vicuna questions, all ordered pairs of eight systems."""
    table = _verdicts(pick_files(files, "vicuna/pairwise/*.jsonl"), "question_id")
    questions = {row["question_id"]: row for row in _json_lines(pick_files(files, "vicuna_questions.jsonl")[0])}
    asked = table["question_id"].map(questions)
    text = asked.str["text"]
    table = table.assign(
        question_id="vicuna-" + table["question_id"].astype(str),
        category=asked.str["category"],
        prompt=[_turns([question]) for question in text],
        eval_overlap=text.map(dict(zip(text.unique(), flag(text.unique()), strict=True))),
    )
    columns = ["question_id", "category", "prompt", "model_a", "model_b", "winner", "eval_overlap"]
    return {"judgements.csv.gz": table[columns].sort_values(["question_id", "model_a", "model_b"])}


def build_vicuna80_four_judges(files: Sequence[Path], flag: Flag) -> Tables:
    """Give the verdicts of four judges on the 80 Vicuna questions, all ordered pairs of five systems."""
    table = _verdicts(pick_files(files, "vicuna80/ratings-*/*.jsonl"), "question_id")
    table["judge"] = [_system(folder.removeprefix("ratings-")) for folder in table["folder"]]
    table["question_id"] = "vicuna-" + table["question_id"].astype(str)
    columns = ["question_id", "judge", "model_a", "model_b", "winner"]
    return {"judgements.csv.gz": table[columns].sort_values(columns[:4])}


def build_llmbar(files: Sequence[Path], flag: Flag) -> Tables:
    """Give what LLM judges answered on LLMBar in both orders, as `read_llmbar` reads it from the published folder."""
    commit = next(folder for folder in files[0].parents if re.fullmatch("[0-9a-f]{40}", folder.name))
    return {"llmbar_both_orders.csv.gz": read_llmbar(commit).drop(columns="round")}


def build_arena_hard(files: Sequence[Path], flag: Flag) -> Tables:
    """Give verdicts of the two games of gpt-4-0314 against each entry on the prompts of Arena-Hard v0.1.

    A repository lists a verdict once, or three times where the judge was certain (strength 3); game 2 shows the entry
    first. Where both games went to the same side in four rows, one of them was certain: strength 2 for both. Prompts
    with another number of rows than two games give are left out, and so are entries that an earlier file has or that
    are named by a path on somebody's machine.
    """
    judges = {"JackLingjie": "gpt-4o", "danielwetzel": "gpt-4o", "a5734855": "gpt-4o (batch)"}
    rows, seen = [], set()
    for path in pick_files(files, "*battles.jsonl"):
        owner, _, commit = path.parts[-5:-2]
        judge = judges.get(commit[:8]) or judges.get(owner, "gpt-4-1106-preview")
        entries: dict[str, dict[str, list[str]]] = {}
        for row in _json_lines(path):
            entries.setdefault(row["model_b"], {}).setdefault(row["question_id"], []).append(row["winner"])
        for entry, questions in entries.items():
            content = entry, json.dumps(questions, sort_keys=True)
            if content in seen or entry.startswith("__mnt__"):
                continue
            seen.add(content)
            for question, winners in questions.items():
                for game, (winner, strength) in enumerate(_games(winners)):
                    models = ("gpt-4-0314", entry) if game == 0 else (entry, "gpt-4-0314")
                    winner = winner if game == 0 else {"model_a": "model_b", "model_b": "model_a"}.get(winner, winner)
                    rows.append((question, *models, winner, strength, judge, f"{owner}@{commit[:8]}"))
    columns = ["question_id", "model_a", "model_b", "winner", "strength", "judge", "source"]
    questions = _json_lines(pick_files(files, "arena-hard-v0.1/question.jsonl")[0])
    texts = [[turn["content"] for turn in question["turns"]] for question in questions]
    prompts = {
        "question_id": [question["question_id"] for question in questions],
        "prompt": [_turns(map(redact, turns)) for turns in texts],
        "eval_overlap": flag("\n".join(turns) for turns in texts),
    }
    verdicts = pd.DataFrame(rows, columns=columns).sort_values(["question_id", "source", "model_a", "model_b"])
    return {"judgements.csv.gz": verdicts, "prompts.csv.gz": pd.DataFrame(prompts)}


def _games(winners: list[str]) -> list[tuple[str, int]]:
    """Return winner and strength of two games from their rows; none where these cannot be distinguished."""
    runs = [(winner, len(list(group))) for winner, group in itertools.groupby(winners)]
    if len(runs) == 1 and runs[0][1] in (2, 4, 6):
        runs = [(runs[0][0], runs[0][1] // 2)] * 2
    return runs if len(runs) == 2 and all(n in (1, 2, 3) for _, n in runs) else []


# -------------------------------------------------------------------------------------------------- models' scores
def build_arena_bench(files: Sequence[Path], flag: Flag) -> Tables:
    """Give GPT-4's scores (1 to 10) of 15 models on 300 Arena prompts; answers without a score are left out."""
    rows = [row for path in pick_files(files, "arena-bench-v1/model_judgment/*.jsonl") for row in _json_lines(path)]
    table = pd.DataFrame(rows, dtype=object).dropna(subset="score")
    names = {
        "mistralai/Mistral-7B-Instruct-v0.1": "mistral-7b-instruct",
        "mistralai/Mixtral-8x7B-Instruct-v0.1": "mixtral-8x7b-instruct-v0.1",
    }
    question = r"(?s)\[Question\]\n(.*?)\n\n\[The Start of Reference Answer\]"
    text = table["user_prompt"].str.extract(question)[0]
    table = table.assign(
        prompt=[_turns([redact(turn)]) for turn in text],
        model=table["model"].replace(names),
        judge="gpt-4 (reference gpt-4, single answer, 1-10)",
        eval_overlap=flag(text),
    )
    columns = ["question_id", "prompt", "model", "score", "judge", "eval_overlap"]
    return {"scores.csv.gz": table[columns].sort_values(["question_id", "model"])}


def build_mt_bench(files: Sequence[Path], flag: Flag) -> Tables:
    """Give the scores of all repositories' MT-Bench files, a judge's score of a model's turn once for each repository.

    The first file that has it counts, and in it the last score; answers of the judge that could not be read (-1) are
    left out, and so are scores of 0. `reference` names the judge's prompt.
    """
    parts = []
    for path in files:
        at = next(n for n, part in enumerate(path.parts) if re.fullmatch("[0-9a-f]{40}", part))
        table = pd.DataFrame(_json_lines(path))
        where = {
            "repository": "/".join(path.parts[at - 2 : at]),
            "commit": path.parts[at],
            "path": "/".join(path.parts[at + 1 :]),
        }
        table = table.assign(judge=table["judge"].str[0], reference=table["judge"].str[1], **where)
        parts.append(table[table["score"] > 0])
    table = pd.concat(parts)
    table["public_model"] = table["model"].isin(PUBLIC_MODELS)
    columns = ["repository", "commit", "path", "judge", "reference", "model", "question_id", "turn", "score"]
    table = table.drop_duplicates(["repository", "judge", "model", "question_id", "turn"])
    return {
        "single_judgements.csv.gz": table[[*columns, "public_model"]].sort_values(
            ["repository", "model", "question_id", "turn"]
        )
    }


PUBLIC_MODELS = (  # the other models that were judged are private fine-tunes
    "Meta-Llama-3-8B-Instruct-Normal Nexusflow__Starling-LM-7B-beta NeuralMarcoro14-7B Qwen__Qwen2-7B-Instruct"
    " claude-3-5-sonnet-20240620 claude-3-opus-20240229 dolphin-2.2.1-mistral-7b gemini-1.5-flash gpt-3.5-turbo"
    " gpt-4-1106-preview lightblue__suzume-llama-3-8B-multilingual llama-2-chat-7b llama2_chat_7b martian"
    " meta-llama__Meta-Llama-3-8B-Instruct mistralai/Mixtral-8x7B-Instruct-v0.1 unify vicuna-7b-v1.3"
).split()


def build_routerarena(files: Sequence[Path], flag: Flag) -> Tables:
    """Give score and dollars of each cached answer of RouterArena that was scored."""
    parts = []
    for path in pick_files(files, "cached_results/*.jsonl"):
        for row in _json_lines(path):
            result = row["evaluation_result"]
            result = ast.literal_eval(result) if isinstance(result, str) else result or {}
            usage = row["token_usage"] or {}
            parts.append(
                {
                    "global_index": row["global_index"],
                    "prompt": row["question"],
                    "model": row["llm_selected"],
                    "score": result.get("score"),
                    "metric": result.get("metric"),
                    "cost_usd": result.get("inference_cost"),
                    "input_tokens": usage.get("input_tokens"),
                    "output_tokens": usage.get("output_tokens"),
                }
            )
    table = pd.DataFrame(parts).dropna(subset="score")
    table["eval_overlap"] = flag(table["prompt"])
    return {"scores.csv.gz": table.assign(prompt=table["prompt"].map(redact))}


BUILDERS: dict[str, Callable[[Sequence[Path], Flag], Tables]] = {
    "arena140k": build_arena140k,
    "arena33k_human_and_gpt4": build_arena33k,
    "arena55k_more": build_arena55k_more,
    "arena_bench_v1": build_arena_bench,
    "arena_hard_v01": build_arena_hard,
    "elobench_gpt4_battles": build_elobench,
    "llmbar": build_llmbar,
    "mt_bench": build_mt_bench,
    "oasst_gpt4_pairs": build_oasst,
    "routerarena_cached": build_routerarena,
    "vicuna80_four_judges": build_vicuna80_four_judges,
    "vicuna80_gpt4_pairs": build_vicuna80_gpt4_pairs,
}
