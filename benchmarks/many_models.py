"""A policy over many models: seconds and memory for prompts that are rated already, as prompts and models grow.

    make bench        (or: python benchmarks/many_models.py)

Writes results/benchmarks/many_models.{png,csv}.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from timing import peak_memory_mib, time_in_turn

from routing.policy import MultiModelPolicy
from routing.studies.plotting import save_figure, set_style, set_title

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
PROMPTS, MODELS = 100_000, 129  # the greatest of each; the Arena has 129 models
SIZES = [(n, MODELS) for n in (1_000, 10_000, PROMPTS)] + [(PROMPTS, n) for n in (2, 9, 33)]
LIMIT_S, LIMIT_MIB = 2.0, 1024
MEMORY = """
from many_models import make_qualities, run_policies
quality, prices = make_qualities({n_prompts}, {n_models})
for run in run_policies(quality, prices).values():
    run()
"""


def make_qualities(n_prompts: int, n_models: int) -> tuple[pd.DataFrame, pd.Series]:
    """Expected qualities that depend on model and prompt, and prices over two orders of magnitude."""
    rng = np.random.default_rng(0)
    skill = np.sort(rng.normal(size=n_models))
    quality = rng.normal(skill, 0.5, (n_prompts, n_models))
    names = [f"model {number:03d}" for number in range(n_models)]
    price = 1e-4 * np.exp(skill - skill[0] + rng.normal(0, 0.5, n_models))
    return pd.DataFrame(quality, columns=names), pd.Series(price, names)


def run_policies(quality: pd.DataFrame, prices: pd.Series) -> dict:
    """What is timed: a trade-off, a budget, and a quality to be reached, each for all prompts."""
    policy = MultiModelPolicy(prices, quality_per_usd=100.0)
    budget = (prices.min() + prices.mean()) / 2
    wanted = (quality.mean().min() + quality.max(axis=1).mean()) / 2
    return {
        "trade-off": lambda: policy.choose(quality),
        "budget": lambda: policy.best_within(quality, budget),
        "least cost of a quality": lambda: policy.cheapest_reaching(quality, wanted),
    }


def measure(n_prompts: int, n_models: int) -> pd.DataFrame:
    times = time_in_turn(run_policies(*make_qualities(n_prompts, n_models)), repeats=3)
    memory = peak_memory_mib(MEMORY.format(n_prompts=n_prompts, n_models=n_models))
    return times.assign(prompts=n_prompts, models=n_models, peak_mib=memory)


def draw(table: pd.DataFrame) -> plt.Figure:
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    sides = {"prompts": table["models"] == MODELS, "models": table["prompts"] == PROMPTS}
    for axis, (size, rows) in zip(axes, sides.items(), strict=True):
        for number, (name, part) in enumerate(table[rows].sort_values(size).groupby("name", sort=False)):
            style = {"color": f"C{number}", "marker": "os^"[number], "linestyle": ["-", "--", ":"][number]}
            axis.plot(part[size], part["median_s"], label=name, **style)
            axis.fill_between(part[size], part["least_s"], part["greatest_s"], color=style["color"], alpha=0.15)
        axis.axhline(LIMIT_S, color="0.7", linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel=size)
    axes[0].set(ylabel="seconds (least to greatest of the runs)", title=f"{MODELS} models")
    axes[1].set(title=f"{PROMPTS:,} prompts")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    most = table[(table["prompts"] == PROMPTS) & (table["models"] == MODELS)]
    set_title(
        figure,
        f"{PROMPTS:,} prompts and {MODELS} models take a policy {most['median_s'].min():.2f} to"
        f" {most['median_s'].max():.2f} s and {most['peak_mib'].max():,.0f} MiB in all",
    )
    return figure


def main() -> None:
    matplotlib.use("Agg")
    set_style()
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]])
    table = pd.concat([measure(*size) for size in SIZES], ignore_index=True)
    print(table.to_string(index=False))
    save_figure(draw(table), table, "many_models", FOLDER, data="simulated")
    most = table[(table["prompts"] == PROMPTS) & (table["models"] == MODELS)]
    within = (most["median_s"] <= LIMIT_S).all() and (most["peak_mib"] <= LIMIT_MIB).all()
    print(f"at most {LIMIT_S:g} s and {LIMIT_MIB:,} MiB: {'kept' if within else 'NOT kept'}")


if __name__ == "__main__":
    main()
