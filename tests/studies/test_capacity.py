from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routing.studies.overhead.capacity import cluster_growth_title, plan_capacity
from routing.studies.overhead.figures import plot_cluster_growth


@pytest.fixture
def votes() -> pd.DataFrame:
    """A million votes a second and worker, one second of overhead; written as the benchmark writes it."""
    rows = [(size, workers) for size in (10**5, 10**8) for workers in (1, 2)]
    table = pd.DataFrame(rows, columns=["battles", "workers"])
    table["median_s"] = table["battles"] / table["workers"] / 1e6
    table["least_s"], table["greatest_s"] = table["median_s"] * 0.9, table["median_s"] * 1.2
    return table.assign(peak_mib_a_worker=[300.0, 310.0, 400.0, 465.0], disk_mib=table["battles"] / 2**20)


def test_the_plan_is_what_the_measurement_multiplies_to(votes):
    similarity = pd.DataFrame({"workers": [1, 2], "battles": 10**6, "prompts_per_s": [30.0, 50.0]})
    plan = plan_capacity(votes, similarity, n_votes=1e9, within_s=60, requests_per_s=1e4, n_battles=(55_000, 10**6))
    value = plan.set_index("quantity")["value"]
    assert value["votes counted a second and worker"] == pytest.approx(1e6)
    assert value["workers for 1e+09 votes in 60 s"] == 17  # 16.7 of them
    assert value["time for 1e+09 votes on 2 workers"] == pytest.approx(500)
    assert value["disk for 1e+09 votes"] == pytest.approx(1e9 / 2**30)
    assert value["memory a worker"] == 465
    assert value["cosines a second and worker"] == pytest.approx(25e6)
    assert value["workers for 1e+04 requests a second over 55,000 battles"] == 22
    assert value["workers for 1e+04 requests a second over 1,000,000 battles"] == 400
    assert plan["assumption"].str.len().min() > 10


def test_the_growth_figure_shows_the_table_and_says_its_numbers(votes):
    title = cluster_growth_title(votes)
    assert title.startswith("1,000 times the votes take 1,000 times the time on 2 workers (50 s for 100,000,000)")
    assert title.endswith("1.5 times the memory of each")
    figure = plot_cluster_growth(votes, title)
    left, right = figure.axes
    np.testing.assert_array_equal(right.lines[1].get_ydata(), [310, 465])
    np.testing.assert_array_equal(left.lines[0].get_xdata(), [1e5, 1e8])
    assert [text.get_text() for text in right.texts] == ["1 worker", "2 workers"]
