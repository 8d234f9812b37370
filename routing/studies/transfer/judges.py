"""Compare people's verdicts with GPT-4's on the same answers to the same prompts: notebook 10."""

from __future__ import annotations

import numpy as np
import pandas as pd

from routing.evaluation.resampling import paired_bootstrap, wilson_interval
from routing.studies.transfer.sources import Source, correlation, source_of_battles

KINDS = {  # the first that a prompt fits
    "code": r"```|\b(?:python|java|javascript|c\+\+|sql|html|css|code|script|regex|function)\b",
    "mathematics": r"\d\s*[-+*/=^]\s*\d|\b(?:solve|equation|calculate|integral|probability|how many|prove)\b",
    "writing": r"\b(?:write|compose|story|poem|essay|song|lyrics|email|letter|article|joke|haiku)\b",
    "role play": r"\b(?:you are|act as|pretend|imagine|roleplay)\b",
    "question": r"^\W*(?:what|who|when|where|why|which|how|is|are|do|does|can|could|should)\b",
}


def one_battle_each(battles: pd.DataFrame) -> pd.DataFrame:
    """Return one row per battle and judge, with a column ``battle`` that both judges' rows share."""
    shown = battles["prompt"] + "\0" + battles["model_a"] + "\0" + battles["model_b"]
    return battles.assign(battle=battles["question_id"].fillna(shown)).drop_duplicates(["battle", "judge"])


def agreement_table(battles: pd.DataFrame) -> pd.DataFrame:
    """Return how often people and GPT-4 say the same of the same two answers, overall and by category.

    `battles` as `read_arena33k`. The columns are kind, measure ("same verdict", of three; "same winner", where both
    name one; "GPT-4 names a winner", where people call it a tie), estimate, low, high (95 %, Wilson), n.
    """
    battles = one_battle_each(battles).set_index("battle")
    verdicts = battles.pivot(columns="judge", values="winner").dropna()
    prompts = battles["prompt"][~battles.index.duplicated()].loc[verdicts.index].str.lower()
    kind = pd.Series("other", index=verdicts.index)
    for name, pattern in reversed(KINDS.items()):
        kind[prompts.str.contains(pattern, regex=True)] = name
    same, tied = verdicts["human"] == verdicts["gpt-4"], verdicts == "tie"
    decided = ~tied.any(axis=1)
    measures = {
        "same verdict": (same, ~same | same),
        "same winner": (same, decided),
        "GPT-4 names a winner": (~tied["gpt-4"], tied["human"]),
    }
    rows = []
    for name in ["all prompts", *KINDS, "other"]:
        inside = (kind == name) | (name == "all prompts")
        for measure, (happened, among) in measures.items():
            n, k = (inside & among).sum(), (inside & among & happened).sum()
            if n:
                rows.append((name, measure, k / n, *wilson_interval(k, n), n))
    return pd.DataFrame(rows, columns=["kind", "measure", "estimate", "low", "high", "n"])


def judge_sources(battles: pd.DataFrame) -> dict[str, Source]:
    """Return people's verdicts and GPT-4's on the same battles as two sources, for the model in most of them."""
    battles = one_battle_each(battles).drop(columns="source")
    battles = battles[battles.groupby("battle")["judge"].transform("nunique") == 2]
    strong = pd.concat([battles["model_a"], battles["model_b"]]).mode()[0]
    names = {"human": "people", "gpt-4": "GPT-4"}
    return {name: source_of_battles(battles[battles["judge"] == judge], [strong]) for judge, name in names.items()}


def correlate_effects(sources: dict[str, Source], n_resamples: int, seed: int) -> tuple[float, float, float]:
    """Return the correlation of the effects that the two sources of `judge_sources` observed, low and high (95 %)."""
    one, other = (source.effects.to_numpy() for source in sources.values())  # of the same prompts in one order
    rng = np.random.default_rng([seed, 11])
    low, high, _ = paired_bootstrap(lambda counts: correlation(one, other, counts), len(one), n_resamples, rng)
    return correlation(one, other), float(low), float(high)
