"""The table of comparisons is the one that the committed CSVs give."""

from __future__ import annotations

import importlib.util
import shutil

import pandas as pd
import pytest

from tests.test_layers import ROOT

FOLDER = ROOT / "results" / "benchmarks"


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_table_is_that_of_the_committed_numbers(table):
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == table.render(FOLDER)


def test_every_row_is_a_measured_ratio(table):
    page = table.render(FOLDER)
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    assert {"evalica", "arena-rank", "choix", "scikit-learn", "RouteLLM, one prompt"} <= {row[1] for row in rows}
    for _, _, ours, peer, ratio, *_ in rows:
        assert float(peer) / float(ours) == pytest.approx(float(ratio), rel=0.02, abs=0.01)
    peers = pd.read_csv(FOLDER / "bradley_terry_peers.csv").set_index(["stage", "name"])
    assert f"| {peers.loc[('table to ratings', 'evalica'), 'times_ours']:.2f} |" in page


def test_a_comparison_without_numbers_is_said_not_to_have_been_run(table, tmp_path):
    shutil.copy(FOLDER / "similarity_throughput.csv", tmp_path)
    page = table.render(tmp_path)
    assert "Not run here: evalica" in page and "sentence-transformers (" in page
    assert "| choix |" not in page and "RouteLLM, one prompt" in page
