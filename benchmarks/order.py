"""Compare the original behaviours, as `routing.studies.order.original` rewrites them, with the package `routellm`.

    python benchmarks/order.py        (with the extra "bench" installed)

Runs on the simulated arena: no data, no network. Writes results/benchmarks/order.csv.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OPENAI_API_KEY", "none")  # routellm makes a client when it is imported; nothing is asked of it
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else litellm asks the network when it is imported

import numpy as np
import pandas as pd
import torch
from routellm.evals.benchmarks import GSM8K
from routellm.routers import routers as installed
from routellm.routers.matrix_factorization.model import MODEL_IDS, MFModel
from routellm.routers.similarity_weighted.utils import compute_elo_mle_with_tie, compute_tiers
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from routing.battles import swap_battles
from routing.evaluation.call_curve import call_curve
from routing.routers.base import Prompts, Router
from routing.studies.order.original import (
    FixedPairRouter,
    OriginalSimilarityRouter,
    TiesToWeakRouter,
    fit_rows,
    variance_tiers,
)
from routing.studies.simulated.arena import simulate_arena

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
PAIR = ("gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1")
N_TIERS = 5
VECTOR_WIDTH = 384


class FixedOutcomes(Router):
    """P(a wins), P(tie), P(b wins) of the one prompt's vector, as a three-label classifier gives them."""

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray | None = None) -> Router:
        self.models, self.nu = PAIR, 0.0
        return self

    def ratings(self, prompts: Prompts) -> np.ndarray:
        raise NotImplementedError("a three-label classifier has no ratings")

    def outcome_probability(self, prompts: Prompts, model_a: str, model_b: str) -> np.ndarray:
        outcome = softmax(np.asarray(prompts), axis=1)
        return outcome if (model_a, model_b) == PAIR else outcome[:, ::-1]


class FixedRatings(FixedOutcomes):
    """Ratings that are the prompts' vectors."""

    outcome_probability = Router.outcome_probability

    def ratings(self, prompts: Prompts) -> np.ndarray:
        return np.asarray(prompts)


def serve(vector: np.ndarray) -> SimpleNamespace:
    """A client that embeds every prompt as `vector`."""
    response = SimpleNamespace(data=[SimpleNamespace(embedding=vector.tolist())])
    return SimpleNamespace(embeddings=SimpleNamespace(create=lambda **_: response))


def ask_installed_similarity(
    battles: pd.DataFrame, vectors: np.ndarray, asked: np.ndarray, tolerance: float | None
) -> np.ndarray:
    """Its answers; with a `tolerance` its logistic regressions stop there, and not where scikit-learn's would."""
    solver = LogisticRegression if tolerance is None else partial(LogisticRegression, tol=tolerance, max_iter=10_000)
    compute_elo_mle_with_tie.__globals__["LogisticRegression"] = solver
    router = object.__new__(installed.SWRankingRouter)  # its __init__ downloads the battles
    router.strong_model, router.weak_model, router.embedding_model = *PAIR, "none"
    router.arena_conv_embedding = vectors
    router.model2tier = compute_tiers(compute_elo_mle_with_tie(battles), num_tiers=N_TIERS)
    router.arena_df = battles.assign(**{side: battles[side].map(router.model2tier) for side in ("model_a", "model_b")})
    answers = []
    for vector in asked:
        installed.OPENAI_CLIENT = serve(vector)
        answers.append(router.calculate_strong_win_rate("?"))
    return np.array(answers)


def ask_installed_factorization(asked: np.ndarray, strong: str, weak: str) -> np.ndarray:
    """Of weights that make a model's rating one number of the prompt's vector."""
    router = object.__new__(installed.MatrixFactorizationRouter)
    router.model = MFModel(dim=2, num_models=len(MODEL_IDS), text_dim=2, num_classes=1, use_proj=True)
    router.strong_model_id, router.weak_model_id = MODEL_IDS[strong], MODEL_IDS[weak]
    with torch.no_grad():
        router.model.P.weight[[MODEL_IDS[name] for name in PAIR]] = torch.eye(2)
        router.model.text_proj[0].weight.copy_(torch.eye(2))
        router.model.classifier[0].weight.fill_(1.0)
    answers = []
    for vector in asked:
        MFModel.forward.__globals__["OPENAI_CLIENT"] = serve(vector)
        answers.append(router.calculate_strong_win_rate("?"))
    return np.array(answers)


def ask_installed_classifier(logits: np.ndarray) -> np.ndarray:
    router = object.__new__(installed.BERTRouter)
    router.tokenizer = lambda *_, **__: {}
    answers = []
    for row in logits:
        output = SimpleNamespace(logits=torch.from_numpy(row[None]))
        router.model = lambda output=output: output
        answers.append(router.calculate_strong_win_rate("?"))
    return np.array(answers)


def evaluate_installed(scores: np.ndarray, quality: pd.DataFrame, n_results: int) -> np.ndarray:
    """Strong share and mean quality at each of its thresholds: (n_results + 1, 2)."""
    benchmark = object.__new__(GSM8K)
    benchmark.routed_pair = SimpleNamespace(strong=PAIR[0], weak=PAIR[1])
    benchmark.cache, benchmark.overwrite_cache, benchmark.all_data = {"router": scores}, [], quality.copy()
    results = benchmark.evaluate(None, "router", n_results, False)
    return np.array([(counts[PAIR[0]] / total, mean / 100) for _, mean, counts, total in results])


def error_of(function: Callable[[], object]) -> str:
    try:
        function()
    except ValueError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    return "no error"


def compare(rng: np.random.Generator) -> pd.DataFrame:
    arena = simulate_arena(0)
    battles = arena.sample_battles(arena.sample_prompts(200, rng), 3_000, rng)
    vectors, asked = rng.normal(size=(len(battles), VECTOR_WIDTH)) + 0.3, rng.normal(size=(40, VECTOR_WIDTH)) + 0.3
    rows: list[tuple[str, str, float, str]] = []

    elo = compute_elo_mle_with_tie(battles)
    rows.append(("ratings of rows (fit_rows)", "Elo points", np.abs(fit_rows(battles) - elo).max(), ""))
    one_class = battles[battles["winner"] != "tie"]
    one_class = swap_battles(one_class, (one_class["winner"] == "model_b").to_numpy())
    errors = error_of(lambda: fit_rows(one_class)), error_of(lambda: compute_elo_mle_with_tie(one_class))
    rows.append(("one class raises (fit_rows)", "errors that differ", float(errors[0] != errors[1]), errors[1]))

    theirs = pd.Series(compute_tiers(elo, num_tiers=N_TIERS))
    rows.append(("tiers (variance_tiers)", "models", float((variance_tiers(elo, N_TIERS) != theirs).sum()), ""))

    tables = battles, swap_battles(battles)
    ours = [
        OriginalSimilarityRouter(*PAIR, n_tiers=N_TIERS).fit(table, vectors).win_probability(asked, *PAIR)
        for table in tables
    ]
    for tolerance in (None, 1e-8):
        theirs = [ask_installed_similarity(table, vectors, asked, tolerance) for table in tables]
        moved = f"swapping all rows moves theirs by up to {np.abs(theirs[0] - theirs[1]).max():.5f}"
        difference = np.abs(np.subtract(ours, theirs)).max()
        name = "overwritten rows" + (", their solver run to convergence" if tolerance else "")
        rows.append((f"{name} (OriginalSimilarityRouter)", "probability", difference, moved))

    asked = rng.normal(size=(200, 2))
    for made_for in (PAIR, PAIR[::-1]):
        ours = FixedPairRouter(FixedRatings(), *made_for).fit(battles).win_probability(asked, *PAIR)
        difference = np.abs(ours - ask_installed_factorization(asked, *made_for)).max()
        rows.append((f"fixed pair, made for {made_for[0]} (FixedPairRouter)", "probability", difference, ""))

    logits = rng.normal(size=(200, 3))
    ours = TiesToWeakRouter(FixedOutcomes()).fit(battles).win_probability(logits, *PAIR)
    difference = np.abs(ours - ask_installed_classifier(logits)).max()
    rows.append(("ties to the weak (TiesToWeakRouter)", "probability", difference, ""))

    quality = pd.DataFrame(rng.integers(0, 2, size=(400, 2)), columns=list(PAIR))
    scores = rng.permutation(400) / 400
    share, mean = evaluate_installed(scores, quality, 10).T
    curve = call_curve(scores, quality[PAIR[0]], quality[PAIR[1]])
    difference = np.abs(np.interp(share, curve.strong_share, curve.quality) - mean).max()
    rows.append(("curve at distinct scores (call_curve)", "quality", difference, ""))
    note = error_of(lambda: evaluate_installed(np.round(scores, 1), quality, 20))
    rows.append(("equal scores: the installed evaluation does not cut them by rows", "", np.nan, note))
    for name in ("pivot tables (fit_pivot_tables)", "bootstrap cells (bootstrap_written_cells)"):
        rows.append((name, "", np.nan, "not in routellm: code of the Chatbot Arena"))
    return pd.DataFrame(rows, columns=["behaviour", "unit", "largest_difference", "note"])


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)  # of the installed code about scikit-learn
    table = compare(np.random.default_rng(0))
    print(table.to_string(index=False, float_format="{:.2e}".format))
    FOLDER.mkdir(parents=True, exist_ok=True)
    table.to_csv(FOLDER / "order.csv", index=False, float_format="%.3g", lineterminator="\n")


if __name__ == "__main__":
    main()
