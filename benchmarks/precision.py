"""What bfloat16 changes: APGR of the embedding routers in profile "full", from vectors of either precision.

    python benchmarks/precision.py [--mmlu]

Routers learn from people's votes alone. MMLU, with ten times as many prompts as the others together, is left out unless
asked for: a processor without instructions for bfloat16 takes minutes for a thousand prompts. Both sets of vectors are
cached as usual. Writes results/benchmarks/precision.csv.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from timing import describe_machine

from routing.embeddings import PromptEncoder
from routing.evaluation.call_curve import call_curve
from routing.studies.inputs import load_study, training_sets
from routing.studies.two_models.pairs import embedding_margins, fit_embedding_routers, pair_quality

FOLDER = Path(__file__).parents[1] / "results" / "benchmarks"


def measure(with_mmlu: bool) -> pd.DataFrame:
    """Return APGR (exact) by router and benchmark for either precision, and the lowest cosine between the vectors."""
    study = load_study("full", 0)
    sets = training_sets(study, 0)
    sets = replace(sets, battles={"arena": sets.battles["arena"]})
    tables = {name: table for name, table in study.benchmarks.items() if with_mmlu or name != "MMLU"}
    areas, vectors = {}, {}
    for precision in ("float32", "bfloat16"):
        encoder = PromptEncoder(precision=precision)
        margins = embedding_margins(fit_embedding_routers("full", 0, sets, encoder), tables, encoder)
        areas[precision] = pd.Series({
            (key.router, key.benchmark): call_curve(margin, *pair_quality(tables[key.benchmark])).apgr()
            for key, margin in margins.items()
        })  # fmt: skip
        vectors[precision] = {name: encoder.encode(table.prompts["prompt"].tolist()) for name, table in tables.items()}
    result = pd.DataFrame(areas).rename_axis(["router", "benchmark"]).reset_index()
    cosine = {
        name: (vectors["float32"][name] * vectors["bfloat16"][name]).sum(axis=1, dtype=float).min() for name in tables
    }
    result["difference"] = result["bfloat16"] - result["float32"]
    return result.assign(lowest_cosine=result["benchmark"].map(cosine), machine=describe_machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mmlu", action="store_true")
    table = measure(parser.parse_args().mmlu)
    print(table.to_string(index=False))
    table.to_csv(FOLDER / "precision.csv", index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
