from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.studies import classifiers
from tests.studies.conftest import title


@pytest.mark.parametrize("profile", classifiers.SETTINGS)
@pytest.mark.parametrize("kind", classifiers.KINDS)
def test_a_profile_makes_a_classifier_of_each_kind_that_keeps_the_last_step(kind, profile):
    router = classifiers.make_classifier(kind, profile, 3, "last_layer")
    assert type(router) is classifiers.KINDS[kind]
    assert (router.seed, router.train, router.early_stopping) == (3, "last_layer", False)


def test_training_sets_are_drawn_next_to_the_paper_where_it_has_a_number():
    areas = pd.DataFrame(
        {
            "benchmark": ["MMLU", "MMLU", "GSM8K"],
            "training_data": ["arena", "arena+gold", "arena"],
            "router": "bert",
            "estimate": [0.6, 0.55, 0.4],
            "low": [0.51, 0.45, 0.3],
            "high": [0.7, 0.65, 0.45],
            "paper": [0.5, np.nan, 0.48],
        }
    )
    figure = classifiers.plot_training_sets(areas)
    assert title(figure).startswith("1 of 3")
    black = [line.get_xdata()[0] for axis in figure.axes for line in axis.lines if line.get_marker() == "|"]
    assert black == [0.5, 0.48]


def test_titles_are_made_from_the_tables():
    part = {"step": [0, 5], "battles": "validation", "loss": [0.5, 0.4875], "line": "a"}
    curve = pd.concat([pd.DataFrame(part | {"trained": name}) for name in ("last layer", "all layers")])
    assert "-0.0125 nats" in title(classifiers.plot_loss_curve(curve))
    heads = pd.DataFrame({"benchmark": ["MMLU", "GSM8K"], "chosen": "layer 4", "estimate": [0.61, 0.52]})
    assert "0.610 (MMLU)" in title(classifiers.plot_gold_heads(heads.assign(low=0.4, high=0.7)))
