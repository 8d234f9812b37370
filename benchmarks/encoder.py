"""Encoding of prompts: ours beside sentence-transformers in float32, in one run.

    python benchmarks/encoder.py [--prompts 200] [--repeats 3] [--threads 1]

The physical limit beside them is the matrix products of the transformer's dense layers alone, on as many tokens.
Writes results/benchmarks/encoder.csv.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sentence_transformers import SentenceTransformer
from timing import describe_machine

from routing.data.benchmarks import read_mmlu
from routing.data.votes import read_arena55k
from routing.devices import processor_has_bfloat16
from routing.embeddings import BUNDLED_LAYERS, TOKENS_ON_CPU, PromptEncoder, bundled_model_folder

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"
MAX_LENGTH = 128
DENSE_LAYERS = ((384, 384), (384, 384), (384, 384), (384, 384), (384, 1536), (1536, 384))  # of MiniLM, widths


def sample_prompts(n_prompts: int) -> list[str]:
    """Return as many prompts of MMLU as of the Arena."""
    questions, battles = read_mmlu().prompts["prompt"], read_arena55k()["prompt"].drop_duplicates()
    return [text for table in (questions, battles) for text in table.sample(n_prompts // 2, random_state=0)]


def multiply_alone(n_tokens: int) -> None:
    """Multiply matrices as the dense layers do for a number of tokens, in parts as large as the encoder's batches."""
    weights = [torch.ones(widths) for widths in DENSE_LAYERS]
    for size in [TOKENS_ON_CPU] * (n_tokens // TOKENS_ON_CPU) + [n_tokens % TOKENS_ON_CPU]:
        states = {width: torch.ones(size, width) for width in (384, 1536)}
        for weight in weights * BUNDLED_LAYERS:
            states[weight.shape[0]] @ weight


def time_processor(competitors: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return processor seconds of each competitor in each round; in every round each runs once, the first untimed."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for number in range(repeats + 1):
        for name, function in competitors.items():
            begin = time.process_time()
            function()
            if number:
                seconds[name].append(time.process_time() - begin)
    return seconds


def measure(n_prompts: int, repeats: int, threads: int) -> pd.DataFrame:
    """Time the encoders, one row each; processor seconds divided by the threads, so that other load weighs little."""
    torch.set_num_threads(threads)
    prompts = sample_prompts(n_prompts)
    peer = SentenceTransformer(str(bundled_model_folder()), device="cpu", local_files_only=True)
    peer.max_seq_length = MAX_LENGTH
    precisions = ["float32", *(["bfloat16"] if processor_has_bfloat16() else [])]
    ours = {
        name: PromptEncoder(max_length=MAX_LENGTH, device="cpu", cache=False, precision=name) for name in precisions
    }
    n_tokens = sum(map(len, peer.tokenizer(prompts, truncation=True, max_length=MAX_LENGTH)["input_ids"]))
    one = prompts[:1]
    competitors = {"sentence-transformers, float32": lambda: peer.encode(prompts, normalize_embeddings=True)}
    for name, encoder in ours.items():
        competitors[f"ours, {name}"] = lambda encoder=encoder: encoder.encode(prompts, progress=False)
    competitors["matrix products alone, float32"] = lambda: multiply_alone(n_tokens)
    competitors["sentence-transformers, one prompt"] = lambda: peer.encode(one, normalize_embeddings=True)
    competitors["ours, one prompt"] = lambda: ours["float32"].encode(one, progress=False)
    with torch.inference_mode():
        seconds = time_processor(competitors, repeats)
        expected = peer.encode(prompts, normalize_embeddings=True)
        cosine = {
            f"ours, {name}": (encoder.encode(prompts, progress=False) * expected).sum(axis=1).min()
            for name, encoder in ours.items()
        }
    rows = []
    for name, values in seconds.items():
        alone = name.endswith("one prompt")
        median = float(np.median(values)) / threads
        number, tokens = (1, len(peer.tokenizer(one[0])["input_ids"])) if alone else (n_prompts, n_tokens)
        rows.append({"name": name, "median_s": median, "runs": repeats, "threads": threads, "prompts": number})
        rows[-1] |= {"prompts_per_s": number / median, "tokens_per_s": min(tokens, number * MAX_LENGTH) / median}
        rows[-1] |= {"lowest_cosine": cosine.get(name)}
    table = pd.DataFrame(rows)
    speed = table.set_index("name")["prompts_per_s"]
    peer_of = table["name"].str.contains("one prompt").map({True: "sentence-transformers, one prompt"})
    table["times_peer"] = table["prompts_per_s"] / peer_of.fillna("sentence-transformers, float32").map(speed)
    return table.assign(machine=describe_machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("prompts", 200), ("repeats", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    table = measure(options.prompts, options.repeats, options.threads)
    print(table.to_string(index=False))
    table.to_csv(FOLDER / "encoder.csv", index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
