"""Benchmarks as tables: every model's score on every prompt, and its cost where that is known.

One type, `BenchmarkTable`, for every benchmark, whether two models were run on it or eleven.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from routing.data.sources import find_files
from routing.data.tables import blame, check_columns, read_table
from routing.data.votes import canonical_names, pick_files, read_mt_bench_judgements


@dataclass(frozen=True, eq=False)
class BenchmarkTable:
    """Scores of models on prompts: every table has a row per prompt, `quality` and `cost_usd` a column per model.

    Raises ValueError for a table without column ``prompt``, tables of different size, a model named twice, or a missing
    score or cost; the message names the row and the model.
    """

    prompts: pd.DataFrame  # column prompt, and what else is known of each (subject, category, split, ...)
    quality: pd.DataFrame  # float, the scale is the benchmark's
    cost_usd: pd.DataFrame | None = None  # float, dollars that each model's answer cost

    def __post_init__(self) -> None:
        if "prompt" not in self.prompts.columns:
            raise ValueError(f"benchmark: no column prompt, only {', '.join(map(str, self.prompts.columns))}")
        if not self.quality.columns.is_unique:
            raise ValueError(f"benchmark: a model is named twice: {', '.join(self.quality.columns)}")
        for kind, values in (("quality", self.quality), ("cost_usd", self.cost_usd)):
            if values is None:
                continue
            if len(values) != len(self.prompts) or list(values.columns) != list(self.quality.columns):
                raise ValueError(f"benchmark: {kind} has other rows or models than its prompts and quality")
            missing = ~np.isfinite(values.to_numpy(dtype=float))
            if missing.any():
                row, column = np.argwhere(missing)[0]
                raise ValueError(f"benchmark: {kind} of {values.columns[column]} in row {row} is missing")

    @property
    def models(self) -> tuple[str, ...]:
        """The models' names, in the order of the columns."""
        return tuple(self.quality.columns)

    def battles(self, model_a: str, model_b: str) -> pd.DataFrame:
        """Return a battle per prompt between two of the models: the higher score wins, equal scores are a tie.

        Which model is called a says nothing of how an answer was shown: these battles had no judge.
        """
        for model in (model_a, model_b):
            if model not in self.models:
                raise ValueError(f"benchmark: no model {model!r}; it has {', '.join(self.models)}")
        sign = np.sign(self.quality[model_a] - self.quality[model_b]).to_numpy().astype(int)
        winner = np.array(["model_b", "tie", "model_a"], dtype=object)[sign + 1]
        return self.prompts[["prompt"]].assign(model_a=model_a, model_b=model_b, winner=winner)

    def select(self, mask: np.ndarray | pd.Series) -> BenchmarkTable:
        """Return the same benchmark on the prompts at which `mask` (bool, shape (n_prompts,)) is true."""
        mask = np.asarray(mask, dtype=bool)
        tables = (self.prompts, self.quality, self.cost_usd)
        return BenchmarkTable(*(None if table is None else table[mask].reset_index(drop=True) for table in tables))


# --------------------------------------------------------------------- RouteLLM's evaluation files [RouteLLM24]
def _routellm_files(benchmark: str, path: Path | str | None) -> Callable[[str], list[Path]]:
    files = find_files("routellm", path)
    return lambda pattern: pick_files(files, f"{benchmark}/{pattern}")


def _leave_out_contaminated(table: BenchmarkTable, files: Callable[[str], list[Path]]) -> BenchmarkTable:
    contaminated = read_table(files("contaminated_prompts.jsonl")[0], ["eval_prompt"])["eval_prompt"]
    return table.select(~table.prompts["prompt"].isin(contaminated))


def _read_correctness(path: Path, **metadata: str) -> BenchmarkTable:
    table = read_table(path, ["prompt"])
    # A model's column holds whether it was right; the text of its answer, if there, stands in <model>_response.
    models = [name for name in table.columns if name != "prompt" and not name.endswith("_response")]
    for model in models:
        if table[model].dtype != bool:
            raise ValueError(f"{path}: column {model} holds {table[model].iloc[0]!r}; expected True or False")
    quality = table[models].astype(float)
    quality.columns = canonical_names(pd.Series(models))
    return BenchmarkTable(table[["prompt"]].assign(**metadata), quality)


def read_mmlu(decontaminate: bool = True, path: Path | str | None = None) -> BenchmarkTable:
    """Read MMLU: 1 where a model was right, else 0 [RouteLLM24]. Metadata: subject.

    `decontaminate` leaves out the prompts that RouteLLM found in its training data. `path` is a copy of RouteLLM's
    folder ``routellm/evals``.
    """
    files = _routellm_files("mmlu", path)
    paths = files("responses/*.csv")
    subjects = [_read_correctness(file, subject=file.stem.removeprefix("mmlu_")) for file in paths]
    for file, table in zip(paths, subjects, strict=True):
        check_columns(table.models, subjects[0].models, file)
    parts = [subject.prompts for subject in subjects], [subject.quality for subject in subjects]
    table = BenchmarkTable(*(pd.concat(tables, ignore_index=True) for tables in parts))
    return _leave_out_contaminated(table, files) if decontaminate else table


def read_gsm8k(decontaminate: bool = True, path: Path | str | None = None) -> BenchmarkTable:
    """Read GSM8K: 1 where a model's result was right, else 0 [RouteLLM24]. Parameters as `read_mmlu`."""
    files = _routellm_files("gsm8k", path)
    table = _read_correctness(files("gsm8k_responses.csv")[0])
    return _leave_out_contaminated(table, files) if decontaminate else table


def read_mt_bench(decontaminate: bool = True, path: Path | str | None = None) -> BenchmarkTable:
    """Read MT-Bench: the mean of GPT-4's scores (1-10) for a model's two turns [RouteLLM24], [MTBench23].

    The prompt is the first turn. Metadata: question_id, category. Parameters as `read_mmlu`. Raises ValueError where a
    model lacks one of its two scores; the message names model and question.
    """
    files = _routellm_files("mt_bench", path)
    judgements_file = files("judgements.jsonl")[0]
    questions = read_table(files("question.jsonl")[0], ["question_id", "category", "turns"])
    scores = read_mt_bench_judgements(judgements_file).pivot_table(
        index="question_id", columns=["model", "turn"], values="score", aggfunc="mean"
    )
    models = scores.columns.unique("model")
    scores = scores.reindex(index=questions["question_id"], columns=pd.MultiIndex.from_product([models, (1, 2)]))
    missing = np.argwhere(scores.isna().to_numpy())
    if len(missing):
        question, (model, turn) = scores.index[missing[0, 0]], scores.columns[missing[0, 1]]
        raise ValueError(f"{judgements_file}: no score for {model} at question {question}, turn {turn}")
    quality = scores.T.groupby(level=0).mean().T.reset_index(drop=True)
    quality.columns.name = None
    prompts = questions.assign(prompt=questions["turns"].str[0])[["prompt", "question_id", "category"]]
    table = BenchmarkTable(prompts, quality)
    return _leave_out_contaminated(table, files) if decontaminate else table


# ------------------------------------------------------------------------------------------------- many models
def read_routerbench(name: str, path: Path | str | None = None) -> BenchmarkTable:
    """Read RouterBench's ``arc_challenge`` or ``mbpp``: 11 models, score, dollars [RouterBench24], [RouterDC24].

    `path` has ``<name>_train.csv`` and ``<name>_test.csv`` as published, or a collected ``<name>.csv.gz``. The prompts
    of arc_challenge begin with the same worked examples, about 1,650 characters; metadata ``question`` is what follows
    them, which is all that tells one prompt from another. Other metadata: sample_id, split ("train" or "test"). Prompts
    that lack a model's score are left out: 14 questions of arc_challenge that are published as two rows, each with
    other models.
    """
    if name not in ("arc_challenge", "mbpp"):
        raise ValueError(f"unknown benchmark {name}; RouterBench's here are arc_challenge and mbpp")
    files = find_files("routerbench", path)
    splits = {split: [file for file in files if file.name == f"{name}_{split}.csv"] for split in ("train", "test")}
    if splits["train"] and splits["test"]:
        parts = [read_table(found[0], ["sample_id", "prompt"]).assign(split=split) for split, found in splits.items()]
        file, table = splits["train"][0], pd.concat(parts, ignore_index=True)
    else:
        file = pick_files(files, f"{name}.csv*")[0]
        table = read_table(file, ["sample_id", "prompt", "split"])
    priced = [column.removesuffix("|total_cost") for column in table.columns if column.endswith("|total_cost")]
    check_columns(table.columns, priced or ["<model>|total_cost"], file)
    models = [column for column in table.columns if column in priced]
    table = table.dropna(subset=models).reset_index(drop=True)
    text = ["\n".join(_parse_list(prompt, row, file)) for row, prompt in enumerate(table["prompt"])]
    questions = [re.split(r"\nAnswer:\n\w+\n\n", prompt)[-1] for prompt in text]
    prompts = table.assign(prompt=text, question=questions)[["prompt", "question", "sample_id", "split"]]
    names = canonical_names(pd.Series(models))
    scores = [table[[model + kind for model in models]].set_axis(names, axis=1) for kind in ("", "|total_cost")]
    return BenchmarkTable(prompts, *scores)


def _parse_list(literal: str, row: int, path: Path) -> list[str]:
    with blame(f"{path}, row {row}, column prompt: not a list of strings", (ValueError, SyntaxError)):
        return ast.literal_eval(literal)


def read_llmrouter(path: Path | str | None = None) -> tuple[BenchmarkTable, BenchmarkTable]:
    """Read training and test part of LLMRouter's mixture of tasks: 9 models' scores in [0, 1] [LLMRouter25].

    `path` has ``train.json`` and ``test.json`` as published, or both collected as ``.csv.gz``. The two parts have the
    same models in the same (alphabetical) order. Metadata: cluster, the group of similar prompts in the training part
    (missing in the test part).
    """
    files = find_files("llmrouter", path)
    paths = [pick_files(files, f"{part}.*")[0] for part in ("train", "test")]
    train, test = (_read_llmrouter_part(file) for file in paths)
    check_columns(test.models, train.models, paths[1])
    return train, test


def _read_llmrouter_part(path: Path) -> BenchmarkTable:
    if path.suffix == ".json":
        table = read_table(path, ["question", "scores"])
        quality = pd.DataFrame(table["scores"].tolist())
        cluster = table.get("cluster_id", pd.Series(pd.NA, index=table.index))
    else:
        table = read_table(path, ["question", "task"])
        quality = table.drop(columns=["question", "task"])
        cluster = table["task"]
    prompts = pd.DataFrame({"prompt": table["question"], "cluster": cluster.astype("Int64")})
    quality.columns = canonical_names(pd.Series(quality.columns))
    return BenchmarkTable(prompts, quality.sort_index(axis=1))


ROUTERDC_TASKS = {  # by part: each task and the name of its published file
    "train": {"mmlu": "mmlu_train", "gsm8k": "gsm8k-train", "cmmlu": "cmmlu_train", "arc_challenge":
              "arc_challenge_train", "humaneval": "humaneval_train"},
    "test": {"mmlu": "mmlu_test", "gsm8k": "gsm8k-test", "cmmlu": "cmmlu_test", "arc_challenge": "arc_challenge_test",
             "humaneval": "humaneval_test"},
    "ood": {"prealgebra": "MATH_prealgebra", "mbpp": "mbpp", "ceval": "ceval", "javascript": "javascript"},
}  # fmt: skip
MULTIPLE_CHOICE = ("mmlu", "cmmlu", "arc_challenge", "ceval")


def read_routerdc(path: Path | str | None = None) -> tuple[BenchmarkTable, BenchmarkTable, BenchmarkTable]:
    """Read RouterDC's training prompts, test prompts of the same five tasks, and prompts of other tasks [RouterDC24].

    Of 7 models of 7 to 8 billion parameters; quality is 1 where a multiple-choice answer is right (published: the
    probability of the right answer where it was chosen, else 0), elsewhere the share of right attempts. `path` has the
    JSON files of ``datasets/split2_model7`` as published, or all of it collected as ``train``, ``test`` and
    ``ood.csv.gz``. Metadata: task.
    """
    files = find_files("routerdc", path)
    collected = any(file.name.startswith("ood.csv") for file in files)
    tables = []
    for part, tasks in ROUTERDC_TASKS.items():
        if collected:
            table = read_table(pick_files(files, f"{part}.csv*")[0], ["prompt", "task"])
            table = table.drop(columns="split", errors="ignore")
        else:
            paths = {task: pick_files(files, f"{name}.json")[0] for task, name in tasks.items()}
            read = {task: read_table(file, ["question", "scores"]) for task, file in paths.items()}
            parts = [
                pd.DataFrame(some["scores"].tolist()).assign(prompt=some["question"], task=task)
                for task, some in read.items()
            ]
            table = pd.concat(parts, ignore_index=True)
        quality = table.drop(columns=["prompt", "task"]).astype(float)
        quality = quality.where(~table["task"].isin(MULTIPLE_CHOICE), (quality > 0).astype(float))
        quality.columns = canonical_names(pd.Series(quality.columns))
        tables.append(BenchmarkTable(table[["prompt", "task"]], quality.sort_index(axis=1)))
    return tuple(tables)


def read_routerarena(path: Path | str | None = None) -> BenchmarkTable:
    """Read RouterArena's cached answers: score and dollars of two models on the same queries [RouterArena25].

    For evaluation only; its authors refuse training on it. `path` is a table with a row per query and model: columns
    global_index, prompt, model, score, cost_usd. Models that did not answer nearly all queries are left out, and
    queries that one of the others did not answer. Metadata: global_index.
    """
    file = find_files("routerarena_cached", path)[0]
    table = read_table(file, ["global_index", "prompt", "model", "score", "cost_usd"])
    counts = table["model"].value_counts()
    table = table[table["model"].isin(counts.index[counts > counts.max() / 2])]
    wide = table.pivot(index=["global_index", "prompt"], columns="model", values=["score", "cost_usd"]).dropna()
    prompts = wide.index.to_frame(index=False)[["prompt", "global_index"]]
    quality, cost = (wide[kind].reset_index(drop=True).rename_axis(columns=None) for kind in ("score", "cost_usd"))
    return BenchmarkTable(prompts, quality, cost)
