"""The likelihood of battles whose ratings are linear in a vector of the prompt, and its best linear head.

    rating[m](q) = leaderboard[m] + (W (h(q) - mean of h))[tier of m]

h(q) is what a transformer makes of the prompt. The leaderboard, a Bradley-Terry fit to all battles, stays as it is;
the head's outputs are what a prompt adds to it, one output for each tier of models (or each model).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from routing.routers.lessons import Lessons

LossOfOutputs = Callable[[torch.Tensor], torch.Tensor]
LossOfBattles = Callable[[torch.Tensor, Lessons], torch.Tensor]
N_FOLDS = 5
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # from stiff to free, for vectors of numbers of size 1


def pair_leads(outputs: torch.Tensor, lessons: Lessons) -> torch.Tensor:
    """Rating of the first model less that of the second in each battle, (n_battles,); outputs: (n_prompts, n_tiers)."""
    added = outputs[lessons.prompt[:, None], lessons.tiers]  # (n_battles, 2)
    return lessons.offset + added[:, 0] - added[:, 1]


def davidson_losses(outputs: torch.Tensor, log_nu: torch.Tensor, lessons: Lessons) -> torch.Tensor:
    """Negative log-likelihood of each battle's outcome, (n_battles,), in nats [Davidson70].

    Parameters
    ----------
    outputs : tensor, shape (n_prompts, n_tiers)
        What each prompt adds to the leaderboard.
    log_nu : tensor, shape ()
        Of the tie parameter; minus infinity where no battle was tied.
    """
    lead = pair_leads(outputs, lessons)
    logits = torch.stack([lead / 2, log_nu.expand_as(lead), -lead / 2], dim=1)
    return functional.cross_entropy(logits, lessons.outcome, reduction="none")


def score_losses(outputs: torch.Tensor, log_nu: torch.Tensor, lessons: Lessons) -> torch.Tensor:
    """Cross-entropy of each battle's score (win 1, tie one half) and the one that Davidson's model expects, in nats.

    The expected score is P(win) + P(tie) / 2, with nu as it is on the whole. Ties are rarer on some prompts than on
    others; the leads that minimise this loss give the right expected score nonetheless, and that is what a choice
    between two models turns on. Arguments as `davidson_losses`.
    """
    lead = pair_leads(outputs, lessons)
    half_tie = (log_nu - np.log(2)).expand_as(lead)
    logit = torch.logaddexp(lead / 2, half_tie) - torch.logaddexp(-lead / 2, half_tie)
    return functional.binary_cross_entropy_with_logits(logit, 1 - lessons.outcome.to(lead) / 2, reduction="none")


def fit_head(
    vectors: torch.Tensor, n_outputs: int, loss: LossOfOutputs, penalty: float, start: torch.Tensor | None = None
) -> torch.Tensor:
    """The W that minimises ``loss(vectors @ W.T) + penalty / 2 * |W|^2``: (n_outputs, width) float64.

    Found by L-BFGS in double precision. Of a loss that is convex in the outputs, as `davidson_losses`, it is the one
    minimum.

    Parameters
    ----------
    vectors : tensor, shape (n_prompts, width)
    loss : function
        From outputs, (n_prompts, n_outputs), to a mean loss.
    start : tensor, shape (n_outputs, width), optional
        Where to start; by default at 0.

    Raises
    ------
    RuntimeError
        The loss is not finite.
    """
    vectors = vectors.double()
    weight = torch.zeros(n_outputs, vectors.shape[1], dtype=torch.float64) if start is None else start.clone()
    weight.requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=300, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(vectors @ weight.T) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    value = optimizer.step(closure)
    if not (torch.isfinite(value) and torch.isfinite(weight).all()):
        raise RuntimeError("the loss of the head is not finite; look for prompts whose vectors are not")
    return weight.detach()


def choose_head(
    vectors: torch.Tensor, lessons: Lessons, loss: LossOfBattles, n_outputs: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The head with the penalty that does best over folds of the prompts; one that knows nothing, if none does better.

    Penalties are tried from stiff to free, until two in a row do worse.

    Parameters
    ----------
    vectors : tensor, shape (n_prompts, width)
        Of any size: penalties are of vectors centred and scaled.
    lessons : Lessons
        Of those prompts.
    loss : function (outputs, lessons) -> losses
        Of each battle.
    rng : Generator
        Of the folds.

    Returns
    -------
    weight : tensor, shape (n_outputs, width)
    constant : tensor, shape (n_outputs,)
        Outputs are ``vectors @ weight.T + constant``.
    """
    n_prompts = len(lessons.prompts)
    fold = rng.permutation(np.arange(n_prompts) % min(N_FOLDS, n_prompts))
    chosen = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]
    parts = [(lessons.part(learned), lessons.part(judged)) for learned, judged in chosen]
    centre, scale = vectors.mean(dim=0), vectors.square().mean().sqrt()
    scaled = (vectors - centre).double() / scale
    weights = [torch.zeros(n_outputs, vectors.shape[1], dtype=torch.float64)] * len(parts)

    def judged_loss() -> float:
        pairs = zip(chosen, parts, weights, strict=True)
        return sum(float(loss(scaled[rows[1]] @ weight.T, part[1]).sum()) for rows, part, weight in pairs)

    best, penalty, n_worse = judged_loss(), None, 0
    for tried in PENALTIES:
        weights = [
            fit_head(scaled[rows[0]], n_outputs, lambda out, part=part: loss(out, part[0]).mean(), tried, weight)
            for rows, part, weight in zip(chosen, parts, weights, strict=True)
        ]
        value = judged_loss()
        n_worse = 0 if value < best else n_worse + 1
        if value < best:
            best, penalty = value, tried
        if n_worse == 2:
            break
    weight = torch.zeros_like(weights[0])
    if penalty is not None:
        weight = fit_head(scaled, n_outputs, lambda out: loss(out, lessons).mean(), penalty)
    weight = weight / scale
    return weight, -(weight @ centre.double())
