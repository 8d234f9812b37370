"""A policy over many models: seconds and memory for prompts that are rated already, as prompts and models grow.

    make bench        (or: python benchmarks/many_models.py)

Writes results/benchmarks/many_models.{png,csv}.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from routing.policy import MultiModelPolicy

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
PROMPTS, MODELS = 100_000, 129  # the largest of each; the Arena has 129 models
SIZES = [(n, MODELS) for n in (1_000, 10_000, PROMPTS)] + [(PROMPTS, n) for n in (2, 9, 33)]
LIMIT_S, LIMIT_MIB = 0.5, 400


def make_qualities(n_prompts: int, n_models: int) -> tuple[pd.DataFrame, pd.Series]:
    """Return expected qualities that depend on model and prompt, and prices over two orders of magnitude."""
    rng = np.random.default_rng(0)
    skill = np.sort(rng.normal(size=n_models))
    quality = rng.normal(skill, 0.5, (n_prompts, n_models))
    names = [f"model {number:03d}" for number in range(n_models)]
    price = 1e-4 * np.exp(skill - skill[0] + rng.normal(0, 0.5, n_models))
    return pd.DataFrame(quality, columns=names, copy=False), pd.Series(price, names)


def run_policies(quality: pd.DataFrame, prices: pd.Series) -> dict:
    """Return what is timed: a trade-off, a budget, and a quality to be reached, each for all prompts."""
    policy = MultiModelPolicy(prices, quality_per_usd=100.0)
    budget = (prices.min() + prices.mean()) / 2
    wanted = (quality.mean().min() + quality.max(axis=1).mean()) / 2
    return {
        "trade-off": lambda: policy.choose(quality),
        "budget": lambda: policy.best_within(quality, budget),
        "least cost of a quality": lambda: policy.cheapest_reaching(quality, wanted),
    }


def run_all(n_prompts: int, n_models: int) -> None:
    """Run every policy once; for a process whose memory is measured."""
    for run in run_policies(*make_qualities(n_prompts, n_models)).values():
        run()


def main() -> None:
    import many_models  # by its name, under which another process finds it; plotting is not part of what is measured
    import matplotlib
    from timing import time_in_turn

    from routing.studies.overhead.timing import peak_memory_of, run_on_one_core
    from routing.studies.plotting import plot_lines, save_figure, set_style

    matplotlib.use("Agg")
    set_style()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in SIZES:
        times = time_in_turn(run_policies(*make_qualities(*size)), repeats=3)
        memory = run_on_one_core(peak_memory_of, many_models.run_all, *size)
        rows.append(times.assign(prompts=size[0], models=size[1], peak_mib=memory))
    table = pd.concat(rows, ignore_index=True)
    print(table.to_string(index=False))
    most = table[(table["prompts"] == PROMPTS) & (table["models"] == MODELS)]
    title = f"{PROMPTS:,} prompts and {MODELS} models take a policy at most {most['median_s'].max():.2f} s"
    shown = table.rename(columns={"least_s": "low", "greatest_s": "high"})
    sides = {f"by prompts, {MODELS} models": ("prompts", shown["models"] == MODELS)}
    sides[f"by models, {PROMPTS:,} prompts"] = "models", shown["prompts"] == PROMPTS
    parts = [shown[rows].assign(panel=name, size=shown[size]) for name, (size, rows) in sides.items()]
    shown, labels = pd.concat(parts).sort_values("size", kind="stable"), ("size", "seconds")
    limit = {f"{LIMIT_S:g} s": LIMIT_S}
    figure = plot_lines(
        shown, "size", "median_s", labels, title, by="name", panel="panel", log_x=True, log_y=True, reference=limit
    )
    save_figure(figure, table, "many_models", FOLDER, data="simulated")
    within = (most["median_s"] <= LIMIT_S).all() and (most["peak_mib"] <= LIMIT_MIB).all()
    print(f"at most {LIMIT_S:g} s and {LIMIT_MIB:,} MiB: {'kept' if within else 'NOT kept'}")


if __name__ == "__main__":
    main()
