"""Ratings of models from pair counts: one number per model, with its uncertainty."""

from routing.ratings.bradley_terry import (
    ELO_PER_LOG_ODDS,
    BradleyTerryFit,
    bootstrap_ratings,
    fit_bradley_terry,
    rating_tiers,
)
from routing.ratings.position_effect import PositionEffectFit, fit_position_effect
from routing.ratings.ties import TIE_MODELS, outcome_probability

__all__ = [
    "ELO_PER_LOG_ODDS",
    "TIE_MODELS",
    "BradleyTerryFit",
    "PositionEffectFit",
    "bootstrap_ratings",
    "fit_bradley_terry",
    "fit_position_effect",
    "outcome_probability",
    "rating_tiers",
]
