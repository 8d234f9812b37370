"""Choose what "arena+judge" is: the rule of `routing.studies.mixtures` on all that is learned from, no benchmark in it.

    python benchmarks/mixtures.py       (with the real data; some minutes once the prompts are encoded)

Writes results/benchmarks/mixtures.{png,csv}.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from routing.embeddings import PromptEncoder
from routing.studies.inputs import load_study, training_sets
from routing.studies.mixtures import best_candidate, choose_mixture, plot_mixtures
from routing.studies.plotting import save_figure, set_style

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
SEED = 0


def main() -> None:
    matplotlib.use("Agg")
    set_style()
    sources = training_sets(load_study("full", SEED), SEED).sources
    tried = choose_mixture(sources, PromptEncoder(), np.random.default_rng(np.random.SeedSequence([SEED, 16])))
    save_figure(plot_mixtures(tried), tried, "mixtures", FOLDER, data="real")
    print(tried.drop_duplicates(["mixture", "gamma", "tiers"]).drop(columns=["left_out", "estimate"]).to_string())
    print("the rule takes: {}, gamma {:g}, {} tiers".format(*best_candidate(tried)))


if __name__ == "__main__":
    main()
