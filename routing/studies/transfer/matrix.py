"""Learn effects of prompts from one source and test them on another: the transfer matrix of notebook 10."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeCV
from torch import nn

from routing.battles import encode_battles
from routing.data.judged import normalise_text
from routing.evaluation.resampling import bootstrap_fits
from routing.ratings.ties import outcome_probability
from routing.routers.base import Prompts, Router
from routing.routers.bert import BertRouter
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.cross_validation import assign_folds
from routing.studies.plotting import plot_heatmaps, spell
from routing.studies.transfer.sources import PRIOR, Encode, Source, correlation, score_residuals

N_FOLDS = 5
PENALTIES = np.logspace(-2, 3, 11)  # of ridge regression on unit vectors, chosen by leave-one-out
GAMMAS = (10.0, 1e3, 1e5)  # of similarity weighting, chosen on a fifth of the training prompts
N_CHOSEN_ON = 400  # battles of these
RESAMPLES = {"smoke": 50, "quick": 200, "full": 1000}
N_FITS = {"smoke": {"": 2}, "quick": {"": 2}, "full": {"head": 3, "": 5}}  # on resampled prompts

Predict = Callable[[np.ndarray], np.ndarray]  # unit vectors of prompts, (n, width), to effects up to a constant, (n,)
Learner = Callable[[Source, np.ndarray, int], Predict]  # a source, a vector for each of its battles, a seed


def learn_ridge(source: Source, vectors: np.ndarray, seed: int) -> Predict:
    """Fit ridge regression of effects on vectors, one row per prompt, weighted by its battles."""
    _, first, number = np.unique(source.battles["prompt"].to_numpy(dtype=object), True, True)
    residual, n = score_residuals(source.battles, source.strong), np.bincount(number)
    means = np.bincount(number, residual) / n
    return RidgeCV(PENALTIES).fit(vectors[first], means, sample_weight=n / n.mean()).predict


def router_effects(router: Router, source: Source, vectors: np.ndarray) -> np.ndarray:
    """Return the strong models' expected score on each prompt, over the pairs of the source's battles: (n_prompts,)."""
    ratings = pd.DataFrame(router.ratings(vectors), columns=list(router.models))
    effects = np.zeros(len(vectors))
    for (a, b), n in source.battles[["model_a", "model_b"]].value_counts().items():
        strong, weak = (a, b) if a in source.strong else (b, a)
        win, tie, _ = outcome_probability((ratings[strong] - ratings[weak]).to_numpy(), "davidson", router.nu).T
        effects += n / len(source.battles) * (win + tie / 2)
    return effects


def learn_similarity(source: Source, vectors: np.ndarray, seed: int) -> Predict:
    """Fit similarity weighting with ten tiers, and of `GAMMAS` the one that does best on a fifth of the prompts."""
    folds = assign_folds(source.battles["prompt"].to_numpy(), N_FOLDS, np.random.default_rng([seed, 3]))
    inner, judged = folds != 0, np.flatnonzero(folds == 0)[:N_CHOSEN_ON]
    outcome, losses = encode_battles(source.battles).outcome, []
    routers = [SimilarityRouter(gamma, prior_strength=1.0) for gamma in GAMMAS]
    for router in routers:
        router.fit(source.battles[inner], vectors[inner])
        known = judged[source.battles[["model_a", "model_b"]].iloc[judged].isin(router.models).all(axis=1)]
        probability = router.battle_probability(source.battles.iloc[known], vectors[known])
        losses.append(-np.log(probability[np.arange(len(known)), outcome[known]]).mean())
    return partial(router_effects, routers[int(np.argmin(losses))].fit(source.battles, vectors), source)


def learn_factorization(source: Source, vectors: np.ndarray, seed: int, learning_rate: float = 3e-4) -> Predict:
    """Fit matrix factorization with the paper's settings, keeping the last epoch as the paper does."""
    settings = {"n_seeds": 1, "early_stopping": False, "prior_strength": PRIOR, "learning_rate": learning_rate}
    router = MatrixFactorizationRouter(seed=seed, **settings).fit(source.battles, vectors)
    return partial(router_effects, router, source)


@dataclass
class HeadRouter(BertRouter):
    """The BERT classifier with its head alone trained, on vectors that are given in place of its encoder's."""

    train: str = "head"
    known: dict[str, np.ndarray] = field(default_factory=dict)

    def fit(self, battles: pd.DataFrame, embeddings: np.ndarray) -> Self:
        self.known = dict(zip(battles["prompt"], self._scaled(embeddings), strict=True))
        return super().fit(battles)

    @staticmethod
    def _scaled(vectors: np.ndarray) -> np.ndarray:
        return (vectors * vectors.shape[1] ** 0.5).astype(np.float32)

    def _load_backbone(self) -> nn.Module:
        unused = nn.Module()
        unused.config = SimpleNamespace(hidden_size=len(next(iter(self.known.values()))))
        return unused

    def _untrained_vectors(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.known[text] for text in texts]))

    def ratings(self, prompts: Prompts) -> np.ndarray:
        with torch.no_grad():
            outputs = self.model.head(torch.from_numpy(self._scaled(prompts))).double().numpy() + self.output_offset
        return self.leaderboard + outputs[:, self.model_tier]


def learn_head(source: Source, vectors: np.ndarray, seed: int) -> Predict:
    """Fit the BERT classifier's head, whose penalty is chosen by folds; it may be 0, which tells no prompts apart."""
    return partial(router_effects, HeadRouter(seed=seed).fit(source.battles, vectors), source)


def choose_learners(profile: str) -> dict[str, Learner]:
    """Return the learners, the fast ones alone in "smoke"; on few simulated battles factorization learns faster."""
    rate = 3e-4 if profile == "full" else 3e-3
    fast = {"ridge": learn_ridge, "matrix_factorization": partial(learn_factorization, learning_rate=rate)}
    return fast if profile == "smoke" else fast | {"similarity_weighting": learn_similarity, "head": learn_head}


class Texts(NamedTuple):
    """All prompts of a study, what they are known by, and their vectors."""

    index: pd.Index  # distinct prompts
    key: np.ndarray  # (n_prompts,) int; equal for prompts that are one by `normalise_text`
    vectors: np.ndarray  # (n_prompts, width), unit rows

    @classmethod
    def of(cls, sources: Iterable[Source], encode: Encode) -> Self:
        """Encode the prompts of all sources, each once."""
        index = pd.Index(pd.unique(np.array([p for source in sources for p in source.prompts], dtype=object)))
        return cls(index, pd.factorize(index.map(normalise_text))[0], encode(index.tolist()))


def predict_effects(
    source: Source, tests: Mapping[str, Source], texts: Texts, learn: Learner, seed: int, fit: int = 0
) -> dict[str, np.ndarray]:
    """Return predicted effects of the prompts of each test source, up to a constant; none of them is learned from.

    Learned from are the source's prompts but those of the test source; where these are all, so on the diagonal, five
    folds are each predicted from the others. Fit 0 learns from all these prompts, others from a bootstrap resample.
    """
    learned = texts.index.get_indexer(source.battles["prompt"])
    fitted: dict[bytes, Predict] = {}
    effects = {}
    for name, test in tests.items():
        tested = texts.index.get_indexer(test.prompts)
        folds = np.zeros(len(tested), dtype=int)
        if np.isin(texts.key[learned], texts.key[tested]).all():
            folds = assign_folds(texts.key[tested], N_FOLDS, np.random.default_rng([seed, fit, 1]))
        effects[name] = np.empty(len(tested))
        for inside in (folds == fold for fold in np.unique(folds)):
            rows = np.flatnonzero(~np.isin(texts.key[learned], texts.key[tested[inside]]))
            if rows.tobytes() not in fitted:
                _, number = np.unique(learned[rows], return_inverse=True)
                drawn = np.random.default_rng([seed, fit, 2]).integers(number.max() + 1, size=number.max() + 1)
                chosen = np.repeat(rows, np.bincount(drawn, minlength=len(drawn))[number]) if fit else rows
                fitted[rows.tobytes()] = learn(source.learn_from(chosen), texts.vectors[learned[chosen]], fit)
            values = fitted[rows.tobytes()](texts.vectors[tested[inside]])
            effects[name][inside] = values - values.mean()
    return effects


def transfer_matrix(
    sources: Mapping[str, Source], encode: Encode, learners: Mapping[str, Learner], seed: int, n_resamples: int,
    n_fits: Mapping[str, int] = N_FITS["full"],
) -> pd.DataFrame:  # fmt: skip
    """Correlate predicted with observed effects of prompts, for each source learned from and each tested on.

    Intervals are over test prompts and training: learners are fitted anew to resampled training prompts, with other
    folds and seeds, as often as `n_fits` says by learner (or ""). The columns are learner, learned_from, tested_on,
    estimate, low, high (95 %), n (test prompts).
    """
    texts, rng, rows = Texts.of(sources.values(), encode), np.random.default_rng([seed, 4]), []
    for learner, learn in learners.items():
        for learned_from, source in sources.items():
            if source.battles is None:
                continue
            fits = range(n_fits.get(learner, n_fits[""]) + 1)
            predicted = [predict_effects(source, sources, texts, learn, seed, fit) for fit in fits]
            for tested_on, test in sources.items():
                observed, (first, *others) = test.effects.to_numpy(), [effects[tested_on] for effects in predicted]
                mean, interval = bootstrap_fits(
                    lambda counts, fit, to=observed, of=others: correlation(of[fit], to, counts),
                    len(others), len(observed), n_resamples, rng,
                )  # fmt: skip
                estimate = correlation(first, observed)
                ends = [estimate + end - mean for end in interval[:2]]
                rows.append((learner, learned_from, tested_on, estimate, *ends, len(observed)))
    return pd.DataFrame(rows, columns=["learner", "learned_from", "tested_on", "estimate", "low", "high", "n"])


def plot_matrix(table: pd.DataFrame) -> Figure:
    """Draw the correlations of `transfer_matrix`, one row per source learned from and learner; starred: not 0."""
    star = np.where((table["low"] > 0) | (table["high"] < 0), "*", "")
    shown = table.assign(text=table["estimate"].map("{:z.2f}".format) + star)
    keys = ["learned_from", "learner"]
    columns = table["tested_on"].unique()
    order = pd.MultiIndex.from_product([table[key].unique() for key in keys])
    values, texts = (
        shown.pivot(index=keys, columns="tested_on", values=value).loc[order, columns] for value in ("estimate", "text")
    )
    values.index = [f"{source}: {spell(learner)}" for source, learner in order]
    other = table[table["learned_from"] != table["tested_on"]]
    title = f"Learned elsewhere, {(other['low'] > 0).mean():.0%} of the correlations are significantly above zero"
    scale = {
        "annot": texts.to_numpy(),
        "fmt": "",
        "cmap": "RdBu_r",
        "vmin": -0.4,
        "vmax": 0.4,
        "linewidths": 0.5,
    }
    return plot_heatmaps({"": values}, "correlation of predicted with observed effects", title, **scale)


def summarise(table: pd.DataFrame, sources: Mapping[str, Source]) -> pd.DataFrame:
    """Summarise a matrix by learner and what was tested on: "itself", "another source" or "a benchmark".

    The columns are learner, tested_on, mean (of the estimates), significant (intervals above 0), cells.
    """
    benchmark = table["tested_on"].map(lambda name: sources[name].battles is None)
    itself = table["tested_on"] == table["learned_from"]
    kind = np.select([itself, benchmark], ["itself", "a benchmark"], "another source")
    groups = table.assign(above=table["low"] > 0).groupby(["learner", kind], sort=False)
    summary = groups.agg(mean=("estimate", "mean"), significant=("above", "sum"), cells=("above", "size"))
    return summary.rename_axis(["learner", "tested_on"]).reset_index()


def conclude(summary: pd.DataFrame) -> str:
    """Return the conclusion of a matrix in one sentence, from its `summarise`."""
    weighted = summary.assign(total=summary["mean"] * summary["cells"]).groupby("tested_on", sort=False)
    sums = weighted[["total", "significant", "cells"]].sum()
    parts = [
        f"{row.total / row.cells:.2f} on {name} ({row.significant} of {row.cells} significantly above zero)"
        for name, row in zip(sums.index, sums.itertuples(), strict=True)
    ]
    return f"Predicted and observed effects of prompts have a mean correlation of {', '.join(parts)}."
