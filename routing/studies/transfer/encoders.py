"""Compare encoders by how well effects of prompts, and gold labels, follow from their vectors: notebook 10."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from routing.data.benchmarks import BenchmarkTable
from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import call_curve
from routing.evaluation.resampling import bootstrap_fits
from routing.studies.inputs import PAIR
from routing.studies.transfer.matrix import Texts, learn_ridge, predict_effects
from routing.studies.transfer.sources import Source, correlation, source_of_battles

MPNET = "sentence-transformers/all-mpnet-base-v2"
N_TIMED = 64  # prompts on which encoders are timed


def static_encoder() -> PromptEncoder:
    """Return wordllama's static encoder, the mean of its tokens' vectors; ModuleNotFoundError: it is not installed."""
    package = importlib.import_module("wordllama")
    logging.getLogger().setLevel(logging.WARNING)  # as before: it turns on what all libraries log
    folder = Path(package.__file__).parent  # its weights and tokenizer are here
    model = package.WordLlama.load(cache_dir=folder, disable_download=True)
    return PromptEncoder(model.embed, revision=f"wordllama {package.__version__}")


def find_encoders(mpnet: str = "") -> tuple[dict[str, PromptEncoder], list[str]]:
    """Return the encoders whose weights are here, by name, and a line on each that is missing.

    `mpnet` is the folder of sentence-transformers/all-mpnet-base-v2; without it, the weights are looked for in the
    cache of the Hugging Face Hub.
    """
    makers = {
        "MiniLM, layer 6 of 6": PromptEncoder,
        "MiniLM, layer 4 of 6": partial(PromptEncoder, n_layers=4),
        "wordllama (static)": static_encoder,
        "all-mpnet-base-v2": partial(PromptEncoder, mpnet or MPNET),
    }
    found, missing = {}, []
    for name, make in makers.items():
        try:
            found[name] = make()
            found[name].encode(["Is it here?"])
        except (ModuleNotFoundError, FileNotFoundError) as error:
            found.pop(name, None)
            missing.append(f"{name}: skipped, as its weights are missing ({str(error).splitlines()[0][:80]})")
    return found, missing


def compare_encoders(
    encoders: Mapping[str, PromptEncoder], sources: Mapping[str, Source], gaps: Mapping[str, pd.Series], seed: int,
    n_resamples: int, n_fits: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """Predict effects by five folds from the vectors of each encoder, by ridge regression; intervals as the matrix's.

    Parameters
    ----------
    gaps : by name of a source, the score gap of two models by prompt
        Of sources that are gold labels; these have an APGR too.

    Returns
    -------
    DataFrame
        encoder, source, measure ("correlation" or "APGR"), estimate, low, high (95 %), n, prompts_per_s (on one core;
        of fresh prompts, without a cache).
    """
    rows, rng = [], np.random.default_rng([seed, 8])
    for name, encoder in encoders.items():
        fresh = [f"{number}: {text}" for number, text in enumerate(next(iter(sources.values())).prompts[:N_TIMED])]
        uncached = replace(encoder, cache=False)
        uncached.encode(["one", "and two"])  # loads the model, which one alone does not need
        begin = time.process_time()
        uncached.encode(fresh)
        rate = len(fresh) / (time.process_time() - begin)
        for kind, source in sources.items():
            texts, observed = Texts.of([source], encoder.encode), source.effects.to_numpy()
            predicted = [
                predict_effects(source, {kind: source}, texts, learn_ridge, [seed, fit], 0)[kind]
                for fit in range(n_fits)
            ]
            measures = {"correlation": lambda of, counts, to=observed: correlation(of, to, counts)}
            if kind in gaps:
                gap = gaps[kind].loc[source.prompts].to_numpy()
                measures["APGR"] = lambda of, counts, gap=gap: recovered_area(of, gap, counts)
            for measure, value in measures.items():
                mean, (low, high, _) = bootstrap_fits(
                    lambda counts, fit, of=predicted, value=value: value(of[fit], counts),
                    n_fits, len(observed), n_resamples, rng,
                )  # fmt: skip
                rows.append((name, kind, measure, mean, low, high, len(observed), rate))
    return pd.DataFrame(rows, columns=["encoder", "source", "measure", "estimate", "low", "high", "n", "prompts_per_s"])


def recovered_area(margin: np.ndarray, gap: np.ndarray, counts: np.ndarray) -> float:
    """Return the APGR of a router with these margins, each prompt with its gap repeated `counts` times."""
    repeated = np.repeat(gap, counts)
    return call_curve(np.repeat(margin, counts), repeated, np.zeros(len(repeated))).apgr("exact")


def encoder_sources(
    sources: Mapping[str, Source], benchmarks: Mapping[str, BenchmarkTable]
) -> tuple[dict[str, Source], dict[str, pd.Series]]:
    """Return what encoders are compared on, AlpacaEval and the gold labels of MMLU and GSM8K, and the labels' gaps."""
    tested, gaps = {"AlpacaEval": sources["AlpacaEval"]}, {}
    for name in ("MMLU", "GSM8K"):
        table = benchmarks[name]
        tested[name] = source_of_battles(table.battles(*PAIR), PAIR[:1])
        gaps[name] = sources[name].effects + (table.quality[PAIR[0]] - table.quality[PAIR[1]]).mean()
    return tested, gaps
