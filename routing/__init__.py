"""Route each prompt to the model that answers well enough for the least money.

A router is a Bradley-Terry model whose ratings depend on the prompt. The names below can be imported from here,
``from routing import fit_bradley_terry``; each is loaded when first used, so that importing the package alone takes
no time, loads no torch, and has no side effect.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_MODULES = {
    "battles": "PairCounts canonical_order count_pairs swap_battles validate_battles",
    "embeddings": "PromptEncoder",
    "ratings": "BradleyTerryFit bootstrap_ratings fit_bradley_terry fit_position_effect rating_tiers",
    "routers": "BertRouter BradleyTerryRouter CausalLMRouter MatrixFactorizationRouter RandomRouter Router"
    " SimilarityRouter load_router",
    "policy": "MultiModelPolicy QualityMap calibrate_threshold price_per_call route_pair win_share",
    "evaluation": "CallCurve bootstrap_metrics call_curve cost_quality_frontier",
    "order_audit": "audit_order",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'routing' has no attribute {name!r}")
    return getattr(import_module(f"routing.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
