"""From ratings to a choice: a threshold for two models, a price trade-off or a budget for any number."""

from routing.policy.budget import MultiModelPolicy, calibrate_threshold, price_per_call, route_pair
from routing.policy.quality import POOL, QualityMap, win_share

__all__ = ["POOL", "MultiModelPolicy", "QualityMap", "calibrate_threshold", "price_per_call", "route_pair", "win_share"]
