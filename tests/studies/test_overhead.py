"""Timings count what they say they count: text in to choice out, apart from what the encoder takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from routing import embeddings
from routing.embeddings import PromptEncoder
from routing.policy.budget import route_pair
from routing.routers.base import BradleyTerryRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.overhead import requests
from routing.studies.overhead.costs import (
    cost_table,
    latency_table,
    plot_cost,
    plot_latency,
    plot_throughput,
    throughput_table,
    usd_per_million,
)
from routing.studies.overhead.growth import VOTES, plot_cluster_growth, plot_growth, random_battles, time_growth
from routing.studies.overhead.requests import Workload, measure_routers, route, split_request, time_requests
from routing.studies.overhead.timing import peak_memory_mib, peak_memory_of, run_on_one_core
from routing.studies.paper import PAPER_OVERHEAD, USD_PER_CORE_HOUR

PAIR = ("model 0000", "model 0001")
PROMPTS = [f"question {number}" for number in range(8)]


def slow_encoder(texts: list[str]) -> np.ndarray:
    """3 ms a text."""
    time.sleep(0.003 * len(texts))
    return np.array([[len(text), 1.0, hash(text) % 7] for text in texts])


@pytest.fixture
def battles(rng) -> pd.DataFrame:
    return random_battles(300, 4, 3, rng)[0]


# -- a process of its own -------------------------------------------------------------------------------------------


def test_memory_of_the_process_that_starts_another_is_not_counted():
    held = np.ones(40_000_000)  # 305 MiB
    assert peak_memory_mib() > held.nbytes / 2**20
    assert run_on_one_core(peak_memory_mib) < 200


def test_memory_that_was_held_and_given_back_counts():
    before = peak_memory_mib()
    held = np.ones(int((before + 100) * 2**17))  # more than ever before
    del held
    assert peak_memory_mib() > before + 90


def test_what_a_function_holds_is_measured_there():
    assert run_on_one_core(peak_memory_of, np.ones, 40_000_000) > 40_000_000 * 8 / 2**20


def test_what_measures_a_router_loads_no_library_that_only_others_need():
    code = "import sys, routing.studies.overhead.requests; print({'torch', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_numerical_libraries_have_one_thread_there(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert run_on_one_core(os.getenv, "OMP_NUM_THREADS") == "1"


def test_an_error_there_is_told_here():
    with pytest.raises(RuntimeError, match=r"unit_rows in its own process failed \(1\): ValueError: row 1 is zero"):
        run_on_one_core(embeddings.unit_rows, np.array([[1.0], [0.0]]))


# -- requests -------------------------------------------------------------------------------------------------------


def test_a_workload_is_of_different_prompts_and_fills_its_largest_batch():
    with pytest.raises(ValueError, match="twice"):
        Workload([*PROMPTS, PROMPTS[0]], (1,), 1, 1)
    with pytest.raises(ValueError, match="8 prompts for batches of 16"):
        Workload(PROMPTS, (1, 16), 1, 1)


def test_route_gives_the_choice_of_the_policy(battles):
    router = SimilarityRouter(encoder=PromptEncoder(slow_encoder), prior_strength=1.0).fit(battles)
    expected = route_pair(router.win_probability(PROMPTS, *PAIR), 0.5, *PAIR)
    assert route(router, PROMPTS, PAIR).tolist() == expected.tolist()


def test_every_batch_is_timed_and_what_the_encoder_takes(battles):
    router = SimilarityRouter(encoder=PromptEncoder(slow_encoder), prior_strength=1.0).fit(battles)
    timings = time_requests(router, Workload(PROMPTS, (1, 4), 2, 6, PAIR))
    assert timings.groupby(["run", "batch"]).size().to_dict() == {(0, 1): 6, (0, 4): 2, (1, 1): 6, (1, 4): 2}
    assert (timings["encoding_s"] >= 0.003 * timings["batch"]).all()
    assert (timings["encoding_s"] < timings["seconds"]).all()
    assert "_vectors" not in vars(router)  # measured no longer


class Transformer:
    def vectors(self) -> np.ndarray:
        time.sleep(0.004)
        return np.zeros((1, 2))


class TextRouter(BradleyTerryRouter):
    """Takes the steps of a classifier: tokens, vectors of the transformer, and what it does with these."""

    model = Transformer()

    def _tokenize(self, prompts: list[str]) -> list[str]:
        time.sleep(0.002)
        return prompts

    def ratings(self, prompts: list[str]) -> np.ndarray:
        self.model.vectors()
        time.sleep(0.05)
        return super().ratings(self._tokenize(prompts))


def test_of_a_classifier_tokenizer_and_transformer_are_encoding(battles):
    router = TextRouter().fit(battles)
    timings = time_requests(router, Workload(PROMPTS, (2,), 1, 6, PAIR))
    assert (timings["encoding_s"] >= 0.006).all()
    assert (timings["encoding_s"] <= timings["seconds"] - 0.05).all()
    assert not vars(router.model)


def test_a_router_that_encodes_nothing_has_no_encoding_time(battles):
    timings = time_requests(BradleyTerryRouter().fit(battles), Workload(PROMPTS, (2,), 2, 4, PAIR))
    assert (timings["encoding_s"] == 0).all() and (timings["seconds"] > 0).all()


def test_saved_routers_are_measured_without_a_cache(battles, monkeypatch, tmp_path):
    """In this process; that memory is a fresh process's own is tested above and by notebook 09."""
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path))
    monkeypatch.setattr(requests, "run_on_one_core", lambda function, *arguments: function(*arguments))
    router = SimilarityRouter(prior_strength=1.0).fit(battles, random_battles(300, 4, 384, np.random.default_rng(1))[1])
    routers = {"bradley_terry": BradleyTerryRouter().fit(battles), "similarity_weighting": router}
    timings, memory = measure_routers(routers, Workload(PROMPTS, (1, 4), 1, 4, PAIR))
    assert not list(tmp_path.iterdir()), "a cache was made"
    encoding = timings.groupby("router")["encoding_s"].min()
    assert encoding["bradley_terry"] == 0 and encoding["similarity_weighting"] > 0
    saved, resident = (memory.set_index("router")[column] for column in ("saved_mib", "resident_mib"))
    assert saved["similarity_weighting"] > 300 * 384 * 4 / 2**20 > saved["bradley_terry"]
    weights_mib = 22_713_216 * 4 / 2**20  # of all-MiniLM-L6-v2
    assert resident["similarity_weighting"] > weights_mib and (resident > 0).all()


# -- tables ---------------------------------------------------------------------------------------------------------

SINGLE = [(0, 0.5, 0.25), (0, 1.5, 0.75), (1, 1.0, 0.1), (1, 1.0, 0.3), (2, 2.0, 1.0), (2, 2.0, 3.0)]
TIMINGS = pd.DataFrame(
    [*((1, *row) for row in SINGLE), (4, 0, 2.0, 1.0)], columns=["batch", "run", "seconds", "encoding_s"]
).assign(router="bert")


def test_throughput_is_requests_over_all_seconds_of_a_run():
    single, batched = throughput_table(TIMINGS).to_dict("records")
    assert single == {
        "router": "bert",
        "batch": 1,
        "requests_per_s": 1.0,  # of 1, 1 and 1/2
        "low": 0.5,
        "high": 1.0,
        "encoding_share": pytest.approx(5.4 / 8),
    }
    assert batched["batch"] == 4 and batched["requests_per_s"] == 2.0


def test_latency_is_of_single_requests_and_its_interval_covers(rng):
    draws = 1e-3 * rng.exponential(size=(200, 500))
    covered = np.zeros(2)
    truth = np.array([np.log(2), np.log(100)])  # ms
    for number, draw in enumerate(draws):
        timings = pd.DataFrame({"router": "bert", "batch": [1] * 500 + [16], "seconds": [*draw, 99.0]})
        table = latency_table(timings)
        covered += (table["low"] <= truth) & (truth <= table["high"])
        if not number:
            np.testing.assert_allclose(table["latency_ms"], 1e3 * np.quantile(draw, [0.5, 0.99]))
    assert (covered / len(draws) >= 0.92).all(), covered


def test_too_few_requests_leave_the_upper_end_open():
    table = latency_table(pd.DataFrame({"router": "bert", "batch": 1, "seconds": np.arange(1, 51) / 1e3}))
    assert table["high"].isna().tolist() == [False, True]


def test_dollars_follow_from_the_price_of_an_hour():
    assert usd_per_million(1e6 / 3600, 3.0) == pytest.approx(3.0)  # a million in an hour
    row = PAPER_OVERHEAD.set_index("router").loc["similarity_weighting"]
    assert usd_per_million(row["requests_per_s"], 8 * USD_PER_CORE_HOUR) == pytest.approx(row["usd_per_million"])


# -- growth ---------------------------------------------------------------------------------------------------------


def test_random_battles_are_of_different_models_on_unit_vectors(rng):
    battles, vectors = random_battles(500, 3, 5, rng)
    assert (battles["model_a"] != battles["model_b"]).all() and battles["prompt"].is_unique
    assert battles.groupby(["model_a", "model_b"]).size().min() > 40  # of about 83 each
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_growth_is_timed_at_each_size_for_each_router():
    table = time_growth({"battles": (100, 4_000), "models": (3,)}, {"battles": 60, "models": 4, "width": 6}, 3, 0)
    routers = table.groupby(["grows", "size"])["router"].nunique().to_dict()
    assert routers == {("battles", 100): 3, ("battles", 4000): 3, ("models", 3): 4}
    assert ((table["low"] <= table["seconds"]) & (table["seconds"] <= table["high"]) & (table["low"] > 0)).all()
    figure = plot_growth(table, 1e-3)
    assert len(figure.axes) == 4 and "40 times the battles" in figure.get_suptitle()


def test_the_growth_of_the_cluster_is_that_of_the_committed_measurement():
    table = pd.read_csv(VOTES)
    figure = plot_cluster_growth(table)
    assert figure.get_suptitle().startswith(f"2 workers turn {table['battles'].max():,} votes into ratings")


def test_one_request_is_split_into_its_steps(battles):
    calls = []

    def encode(texts: list[str]) -> np.ndarray:
        calls.append(texts)
        time.sleep(0.02)
        return np.array([[len(text), 1.0] for text in texts])

    router = SimilarityRouter(prior_strength=1.0, encoder=PromptEncoder(encode)).fit(battles)
    calls.clear()
    steps = split_request(router, "a prompt", PAIR, 3).set_index("step")["ms"]
    assert calls == [["a prompt"]] * 7  # one to load, and two per run
    assert steps["encode the text"] >= 20 > steps["compare with the threshold"] > 0
    assert steps["the whole request"] >= steps["encode the text"] - 5


# -- figures of requests ----------------------------------------------------------------------------------------------


def test_costs_of_both_batch_sizes_and_the_paper_are_shown():
    speed = throughput_table(TIMINGS)
    cost = cost_table(speed, 3.6)
    here = cost[cost["series"] != "the paper"]
    assert here["usd_per_million"].tolist() == [1000.0, 500.0] and here["high"].tolist() == [2000.0, 500.0]
    assert len(cost) == 2 + len(PAPER_OVERHEAD)
    assert "of the price of the GPT-4 calls" in plot_cost(cost).get_suptitle()
    assert "1 single requests per second" in plot_throughput(speed).get_suptitle()
    assert "within 2,000 ms" in plot_latency(latency_table(TIMINGS)).get_suptitle()
