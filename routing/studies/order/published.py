"""Look again at what others published about orders, ties and probabilities, and measure what the data here allow."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

from routing.battles import PairCounts, count_pairs
from routing.data.benchmarks import read_llmrouter
from routing.data.judged import read_arena_hard
from routing.data.votes import read_arena_votes
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.studies.order.original import variance_tiers

N_TIERS = 10  # RouteLLM's, of 64 models
SKIPPED = "skipped in this profile: needs real data"
PUBLISHED, MEASURED = "published", "measured here"


def same_tier_share(counts: PairCounts, n_tiers: int = N_TIERS) -> float:
    """Return the share of the battles whose two models are in one of RouteLLM's tiers (`variance_tiers`)."""
    tiers = variance_tiers(fit_bradley_terry(counts, "half").ratings, min(n_tiers, len(counts.models))).to_numpy()
    return float(counts.battles[tiers[:, None] == tiers].sum() / counts.battles.sum())


def same_tier_shares(battles: pd.DataFrame, n_tiers: int) -> dict[str, float]:
    """Return `same_tier_share` of the battles studied and of all of the Arena's published votes, by name."""
    return {
        "the battles here": same_tier_share(count_pairs(battles), n_tiers),
        "all Arena votes": same_tier_share(read_arena_votes()),
    }


def count_first_of_best(quality: pd.DataFrame) -> dict[str, object]:
    """Return how ties for the best score of a prompt are broken when the first model listed gets the label.

    `quality` has a row per prompt and a column per model. Values are tied (share of prompts with several best models),
    model (the first column), labelled (share of prompts that it gets) and alone (share on which it alone is best).
    """
    best = quality.eq(quality.max(axis=1), axis=0)
    first = quality.columns[0]
    alone = (best[first] & (best.sum(axis=1) == 1)).mean()
    return {"tied": (best.sum(axis=1) > 1).mean(), "model": first, "labelled": best[first].mean(), "alone": alone}


def read_both_games(verdicts: pd.DataFrame, baseline: str) -> dict[str, float]:
    """Return the score of `baseline` (a tie is half) where it is shown first, second, and second with letters misread.

    Misread, "model_a" of the second game is taken for the baseline, as in the first.
    """
    score = verdicts["winner"].map({"model_a": 1.0, "tie": 0.5, "model_b": 0.0})
    first, second = score[verdicts["model_a"] == baseline].mean(), score[verdicts["model_b"] == baseline].mean()
    return {"first": first, "second": 1 - second, "misread": second}


def audit_published(battles: pd.DataFrame, margin: np.ndarray, pair: tuple[str, str], real: bool) -> pd.DataFrame:
    """Return finding, published, measured here and source of each publication looked at again.

    `margin` are log-odds of RouteLLM's form on benchmark prompts, (n_prompts,), `pair` the strong and the weak model.
    What needs data that only a study of real ones has is skipped where not `real`.
    """
    p_strong = expit(margin)
    elo = fit_bradley_terry(count_pairs(battles), "half").elo()
    ties = games = SKIPPED
    if real:
        label = count_first_of_best(pd.concat([part.quality for part in read_llmrouter()]))
        ties = (
            f"several models are best on {label['tied']:.0%} of its prompts; {label['model']}, listed first, gets the"
            f" label on {label['labelled']:.0%} and is best alone on {label['alone']:.0%}"
        )
        score = read_both_games(read_arena_hard(), "gpt-4-0314")
        games = (
            f"gpt-4-0314 scores {score['first']:.0%} shown first and {score['second']:.0%} shown second;"
            f" with the second game's letters misread {score['misread']:.0%}"
        )
    rows = [
        (
            "A similarity-weighted router hardly tells prompts apart",
            "the released one's P(strong wins) spans 0.209 to 0.230 on 57,477 prompts",
            f"RouteLLM's form trained here spans {p_strong.min():.3f} to {p_strong.max():.3f} on {len(p_strong):,}",
            "wanghesong2019/RouteLLM-Eng (2026)",
        ),
        (
            "Judges' battles can invert the pair",
            "with judge data its ratings put GPT-4 226 Elo points below Mixtral, with Arena battles alone 138 above",
            f"on the battles here {elo[pair[0]] - elo[pair[1]]:+.0f} Elo points; not measured with that judge data",
            "wanghesong2019/RouteLLM-Eng (2026)",
        ),
        (
            "Ties for the best model go to the model listed first",
            "a query's label is the first row with the highest score",
            ties,
            "training code of ulab-uiuc/LLMRouter (2025)",
        ),
        (
            "A judge's two games look like a mistake, and are none",
            "game 2 shows the answers the other way round; its letters were reported, wrongly, as a bug",
            games,
            "lmarena/arena-hard-auto, issue 14 and pull request 23 (2024)",
        ),
    ]
    return pd.DataFrame(rows, columns=["finding", PUBLISHED, MEASURED, "source"])
