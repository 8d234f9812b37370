"""Choose what "arena+judge" is by the rule of `routing.studies.mixtures`, then show what each mixture would reach.

    python benchmarks/mixtures.py       (with the real data; about ten minutes on one core once the prompts are encoded)

Writes results/benchmarks/mixtures.{png,csv}, in which no benchmark takes part, and mixtures_tried.{png,csv}: the APGRs
of all mixtures, for reporting alone. `MOST_PROMPTS` prompts of a benchmark are enough for that.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from routing.embeddings import PromptEncoder
from routing.studies.inputs import load_study, training_sets
from routing.studies.mixtures import best_candidate, choose_mixture, plot_mixtures
from routing.studies.plotting import save_figure, set_style
from routing.studies.two_models.pairs import mixture_areas, plot_mixture_areas

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
SEED, N_DRAWS, N_RESAMPLES = 0, 3, 500
MOST_PROMPTS, N_BATTLES = 2_000, 30_000


def choose() -> None:
    """Apply the rule to all that is learned from, and write the table of what it tried."""
    sources = training_sets(load_study("full", SEED), SEED).sources
    tried = choose_mixture(sources, PromptEncoder(), np.random.default_rng(np.random.SeedSequence([SEED, 16])))
    save_figure(plot_mixtures(tried), tried, "mixtures", FOLDER, data="real")
    print("the rule takes: {}, gamma {:g}, {} tiers".format(*best_candidate(tried)))


def evaluate_all() -> None:
    """Write what every mixture would have reached on the benchmarks."""
    study, rng = load_study("full", SEED), np.random.default_rng(np.random.SeedSequence([SEED, 17]))
    tables = {name: table.select(rng.permutation(len(table.prompts)) < MOST_PROMPTS)
              for name, table in study.benchmarks.items()}  # fmt: skip
    sources = training_sets(study, SEED).sources
    areas = mixture_areas(sources, tables, PromptEncoder(), N_RESAMPLES, rng, N_DRAWS, N_BATTLES)
    save_figure(plot_mixture_areas(areas), areas, "mixtures_tried", FOLDER, data="real")
    print(areas.pivot(index="mixture", columns="benchmark", values="estimate").round(3).to_string())


if __name__ == "__main__":
    matplotlib.use("Agg")
    set_style()
    choose()
    evaluate_all()
