"""The figures that only the notebooks of the classifiers have."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from routing.studies.plotting import ROUTER_STYLES, set_title


def plot_training_data(table: pd.DataFrame, router: str, title: str) -> Figure:
    """Area under the call-performance curve after each training, a panel a benchmark, beside the paper's.

    Parameters
    ----------
    table : DataFrame
        benchmark, training_data, estimate, low, high, paper (missing where it prints none).
    router : str
        As in `ROUTER_STYLES`.
    """
    benchmarks = table["benchmark"].unique()
    figure, axes = plt.subplots(1, len(benchmarks), figsize=(3.1 * len(benchmarks) + 1.6, 3.4), squeeze=False)
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        part = table[table["benchmark"] == benchmark]
        place = np.arange(len(part))
        errors = [part["estimate"] - part["low"], part["high"] - part["estimate"]]
        axis.axhline(0.5, color="0.7", linewidth=1)
        axis.errorbar(
            place, part["estimate"], yerr=errors, **{**ROUTER_STYLES[router], "linestyle": "none"}, label="here"
        )
        if table["paper"].notna().any():
            axis.plot(place, part["paper"], linestyle="none", marker="_", markersize=16, color="black", label="paper")
        axis.set_xticks(place, part["training_data"])
        axis.set(xlim=(-0.5, len(part) - 0.5))
        axis.set_title(benchmark, fontsize=10)
        for number, row in enumerate(part.itertuples()):
            axis.annotate(f"{row.estimate:.3f}", (number, row.estimate), (6, 3), textcoords="offset points", fontsize=8)
    axes[0][0].set(ylabel="APGR (random: 0.5), 95 % interval")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    set_title(figure, title)
    return figure
