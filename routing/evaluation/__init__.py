"""How good a router is: call-performance curves of a pair, cost-quality frontiers of many, calibration."""

from routing.evaluation.calibration import calibration_table, compare_log_loss, outcome_log_loss
from routing.evaluation.call_curve import CallCurve, bootstrap_metrics, call_curve, oracle_scores
from routing.evaluation.frontier import cost_quality_frontier

__all__ = [
    "CallCurve",
    "bootstrap_metrics",
    "calibration_table",
    "call_curve",
    "compare_log_loss",
    "cost_quality_frontier",
    "oracle_scores",
    "outcome_log_loss",
]
