"""Each claim is judged by the intervals in its CSV, and a changed CSV changes finding, verdict and report."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from routing.data.sources import datasets
from routing.studies import claims, report
from routing.upstream.collection import expected_tables

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def folder(tmp_path):
    """The committed CSVs of the claims in a folder of their own."""
    for path in RESULTS.glob("*/*.csv"):
        if path.parent.name[:2] in ("02", "07", "08", "09", "ta"):
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / path.parent.name)
    return tmp_path


def write(folder: Path, file: str, table: pd.DataFrame) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    table.to_csv(folder / file, index=False)


def write_areas(folder: Path, *rows: tuple) -> None:
    columns = ["benchmark", "training_data", "router", "paper", "low", "estimate", "high"]
    write(folder, "tables/paper_vs_ours.csv", pd.DataFrame(rows, columns=columns).assign(metric="apgr_trapezoid"))


def test_votes_are_judged_by_intervals_above_and_below_one_half(tmp_path):
    above, below = ("arena", "a", 0.6, 0.51, 0.55, 0.6), ("arena", "b", 0.4, 0.3, 0.4, 0.49)
    level = ("arena", "c", 0.5, 0.4, 0.5, 0.6)
    write_areas(tmp_path, *((name, *row) for name in ("MT-Bench", "MMLU") for row in (above, below, level)))
    ours = "1 of 3 above random order, 1 below; best 0.550 [0.510, 0.600]; the paper's 0.400 to 0.600"
    assert claims.judge_votes(tmp_path, "MT-Bench") == (ours, "in part: 1 of 3", "prompts")
    assert claims.judge_votes(tmp_path, "MMLU") == (ours, "1 of 3 above it, 1 below", "prompts")
    write_areas(tmp_path, ("MT-Bench", *below), ("MMLU", *level))
    assert claims.judge_votes(tmp_path, "MT-Bench").verdict == "not reproduced"
    assert claims.judge_votes(tmp_path, "MMLU").verdict == "reproduced"
    write_areas(tmp_path, ("MT-Bench", *above))
    assert claims.judge_votes(tmp_path, "MT-Bench").verdict == "reproduced"


@pytest.mark.parametrize(("low", "verdict"), [(0.61, "reproduced"), (0.59, "not reproduced")])
def test_a_router_is_raised_where_its_intervals_do_not_meet(tmp_path, low, verdict):
    write_areas(tmp_path, ("MMLU", "arena", "a", 0.5, 0.4, 0.5, 0.6), ("MMLU", "arena+gold", "a", 0.7, low, 0.7, 0.8))
    found = claims.judge_added(tmp_path, "MMLU", "arena+gold")
    assert found.verdict == verdict and found.ours.endswith(
        "on votes alone 0.500 [0.400, 0.600]; the paper's best 0.700"
    )


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ((0.1, 0.12, 0.13), "above the paper"),
        ((0.1, 0.2, 0.4), "inside the interval"),
        ((0.4, 0.5, 0.6), "below the paper"),
    ],
)
def test_a_saving_is_random_calls_over_the_routers(tmp_path, shares, verdict):
    low, share, high = shares
    row = {"benchmark": "MT-Bench", "router": "a", "pgr": 0.5, "strong_share": share, "low": low, "high": high}
    random = {**row, "router": "random", "saving": 9.0}
    write(tmp_path, "07_two_models/costs.csv", pd.DataFrame([{**row, "saving": 0.5 / share}, random]))
    ours, found, _ = claims.judge_saving(tmp_path, "MT-Bench")
    assert found == verdict
    assert ours == f"{0.5 / share:.2f} [{0.5 / high:.2f}, {0.5 / low:.2f}]; the paper's 3.66"


def test_order_holds_only_without_any_change(tmp_path):
    audit = pd.DataFrame({"kind": ["fixed", "fixed"], "swap": ["all rows", "half"], "largest_change": [0.0, 0.0]})
    rows = {"kind": "RouteLLM", "benchmark": "MMLU", "strong_share": 0.5, "estimate": 0.05, "low": 0.04, "high": 0.06}
    write(tmp_path, "02_order_swap/decisions.csv", pd.DataFrame([rows]))
    moved = {"kind": "RouteLLM", "order": ["all rows", "half", "pair swapped"], "difference": [0.01, -0.02, 0.5]}
    write(tmp_path, "02_order_swap/consequences.csv", pd.DataFrame(moved))
    write(tmp_path, "02_order_swap/exchanges.csv", audit)
    ours, verdict, _ = claims.judge_order(tmp_path)
    assert (
        verdict == "holds" and "5.0% [4.0%, 6.0%]" in ours and "by more than 0.020" in ours and "2 swaps is 0" in ours
    )
    write(tmp_path, "02_order_swap/exchanges.csv", audit.assign(largest_change=[0.0, 1e-9]))
    assert claims.judge_order(tmp_path).verdict == "fails"


def test_routing_pays_where_the_interval_is_above_zero(tmp_path):
    rows = [("ARC", 0.0, 0.0, 0.0), ("DC", 0.04, 0.03, 0.05)]
    table = pd.DataFrame(rows, columns=["task", "estimate", "low", "high"]).assign(measure="over_constant")
    write(tmp_path, "08_many_models/when_routing_pays.csv", table)
    ours, verdict, _ = claims.judge_many(tmp_path)
    assert verdict == "in part: 1 of 2" and ours.endswith("best DC +0.040 [+0.030, +0.050]")


def test_what_an_interval_covers_is_read_where_the_csv_says_so(tmp_path):
    rows = [("MT-Bench", "arena", name, 0.6, 0.51, 0.55, 0.6) for name in "abc"]
    write_areas(tmp_path, *rows)
    assert claims.judge_claims(tmp_path).loc[0, "covers"] == "prompts"
    table = pd.read_csv(tmp_path / "tables" / "paper_vs_ours.csv")
    both = "prompts and training"
    write(tmp_path, "tables/paper_vs_ours.csv", table.assign(interval_over=[both, both, "prompts"]))
    assert claims.judge_claims(tmp_path).loc[0, "covers"] == f"{both} (2 of 3), prompts (1 of 3)"
    write(tmp_path, "tables/paper_vs_ours.csv", table.assign(interval_over=both))
    assert claims.judge_claims(tmp_path).loc[0, "covers"] == both


def test_a_claim_whose_csv_is_missing_or_of_another_form_says_so(tmp_path):
    found = claims.judge_claims(tmp_path)
    assert set(found["ours"]) == set(found["verdict"]) == {claims.NOT_RUN}
    write(tmp_path, "tables/paper_vs_ours.csv", pd.DataFrame({"metric": ["apgr_trapezoid"]}))
    assert set(claims.judge_claims(tmp_path)["verdict"]) == {claims.NOT_RUN}


def test_the_savings_are_the_papers():
    """The paper's saving ratio: random CPT50 over the best router's, in its tables of the figures' training sets."""
    paper = claims.read_paper_tables()
    paper = paper[paper["strong"] == "gpt-4-1106-preview"]
    best = paper[paper["router"] != "random"].groupby("benchmark")["cpt50"].min()
    random = paper[paper["router"] == "random"].set_index("benchmark")["cpt50"]
    for benchmark, saving in claims.SAVINGS.items():
        assert random[benchmark] / best[benchmark] == pytest.approx(saving, abs=0.006)


# -- the report -----------------------------------------------------------------------------------------------------


def test_the_report_is_the_committed_one_twice():
    text = report.write_report(RESULTS)
    assert text == report.write_report(RESULTS)
    assert text == (RESULTS / "REPORT.md").read_text(encoding="utf-8"), "run: python -m routing.studies.readme"


def test_every_decimal_of_the_report_is_of_a_finding_a_minute_or_a_card(folder):
    words = report.INTRODUCTION + report.EASY + str(report.CHECKLIST)
    assert re.findall(r"\d+\.\d+", words) == []
    assert report.list_claims(folder).count(claims.NOT_RUN) >= len(claims.CLAIMS)  # no manifest there: no minutes


@pytest.mark.parametrize(
    "file", ["tables/paper_vs_ours.csv", "07_two_models/costs.csv", "08_many_models/when_routing_pays.csv"]
)
def test_a_changed_csv_changes_the_report(folder, file):
    before = report.list_claims(folder)
    table = pd.read_csv(folder / file)
    numbers = [name for name in ("estimate", "low", "high", "saving") if name in table]
    write(folder, file, table.assign(**{name: table[name] / 3 for name in numbers}))
    assert report.list_claims(folder) != before


def test_every_dataset_has_a_card_and_its_rows_are_those_of_the_tables():
    cards = report.read_data_cards().set_index("dataset")
    assert list(cards.index) == list(datasets())
    assert (cards != "").all(axis=None) and not cards.isna().any(axis=None)
    tables = expected_tables().groupby("dataset")["rows"].max()
    assert {name: cards.loc[name, "rows"] for name in tables.index} == {name: f"{n:,}" for name, n in tables.items()}


def test_every_shared_router_is_listed():
    table = report.list_router_cards(RESULTS)
    assert all(f"(routers/{path.name}/README.md)" in table for path in (RESULTS / "routers").iterdir() if path.is_dir())
