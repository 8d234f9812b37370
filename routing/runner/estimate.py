"""What a run would take: minutes as earlier runs took them, and what an accelerator or an API would cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from routing.runner.provenance import MANIFEST

# Battles learned from: of people, of a judge, with gold labels.
BATTLES = {"full": 9_998 + 64_390 + 1_500, "paper": 57_477 + 109_101 + 1_500}
BENCHMARK_CHARACTERS = 6_885_757  # of the 15,441 prompts of MT-Bench, MMLU and GSM8K
CHARACTERS_PER_TOKEN = 4
USD_PER_MILLION_TOKENS = 0.02  # text-embedding-3-small, in 2024
LLAMA_WEIGHTS = 8.0e9
LLAMA_TOKENS = 100 * BATTLES["paper"]  # each battle once, with the template about 100 tokens a prompt
LLAMA_BYTES = 16_060_000_000  # weights in bfloat16
OPERATIONS_PER_S = 1e14  # a tenth of what an H100 is sold with, in bfloat16
USD_PER_HOUR = 2.5  # of one H100, rented


def estimate_run(profile: str, names: Sequence[str], results: Path = Path("results")) -> pd.DataFrame:
    """Return what the notebooks of a profile would take: columns item, bytes, minutes, usd, how.

    `names` are those of the notebooks. Minutes are those in the manifests below `results`, made by profile "full"; for
    profile "paper" notebooks that learn from battles take as many times as long as there are more of them. Of the
    quick profiles, and of a notebook without a manifest, they are missing. Bytes are those beyond the datasets.
    """
    rows = []
    for name in names:
        manifest, minutes, how = results / name / MANIFEST, None, "no earlier run"
        if profile in BATTLES and manifest.is_file():
            earlier = json.loads(manifest.read_text(encoding="utf-8"))
            learns = any(entry.startswith("arena55k") for entry in _names(earlier["inputs"]))
            ratio = BATTLES[profile] / BATTLES["full"] if learns else 1.0
            minutes, how = (
                earlier["seconds"] / 60 * ratio,
                f"{ratio:.2f} times the {earlier['seconds']:.0f} s of {manifest}",
            )
        rows.append((name, 0, minutes, 0.0, how))
    if profile == "paper":
        tokens = BENCHMARK_CHARACTERS / CHARACTERS_PER_TOKEN
        how = f"{tokens:,.0f} tokens of benchmark prompts at {USD_PER_MILLION_TOKENS} dollars a million"
        rows.append(("text-embedding-3-small, where asked", 0, 1.0, tokens / 1e6 * USD_PER_MILLION_TOKENS, how))
        rated = 3 * BENCHMARK_CHARACTERS / CHARACTERS_PER_TOKEN
        operations = LLAMA_WEIGHTS * (6 * LLAMA_TOKENS + 2 * rated)  # forward and backward; forward
        minutes = operations / OPERATIONS_PER_S / 60
        how = f"{operations:.1e} operations at {OPERATIONS_PER_S:.0e} a second, {USD_PER_HOUR} dollars an hour"
        usd = minutes / 60 * USD_PER_HOUR
        rows.append(("Llama 3 8B in place of the causal LLM, where an accelerator is", LLAMA_BYTES, minutes, usd, how))
    return pd.DataFrame(rows, columns=["item", "bytes", "minutes", "usd", "how"])


def _names(inputs: dict | list) -> list[str]:
    return list(inputs) if isinstance(inputs, dict) else [entry["name"] for entry in inputs]
