"""Write ``results/REPORT.md``: every claim with its verdict, what was easy and hard, cards, and a checklist.

The claims, minutes, machine and measurements come from the CSVs and manifests in ``results/``, the data from the
registry and ``data_cards.csv``, licences from where they are kept. The checklist follows the Machine Learning
Reproducibility Checklist, the sections the reports of reproducibility challenges.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pandas as pd

from routing.data.sources import datasets, registry
from routing.studies import claims
from routing.studies.paper import DATA_DIFFERENCES, MODEL_DIFFERENCES, write_markdown
from routing.studies.plotting import spell
from routing.upstream.collection import upstream

FRONT = re.compile(r"\A---\n(.*?)\n---\n# (\w+)", re.DOTALL)  # of a model card
DATA = re.compile(r"^## Data\n(.+)$", re.MULTILINE)
INTRODUCTION = """# Report

Written from the results by `python -m routing.studies.readme`; nothing here is typed by hand but the words. Intervals
hold 95 %, over what the last column says: none covers another training of the same router unless it says so. APGR
is the share of the gap between two models that a router recovers, averaged over all shares of strong calls: *trapezoid*
over 11 points, as RouteLLM's code and the paper's tables have it, or the *exact* area under the curve. (The paper's
text says a mean of ten points, which would give random order more than one half.)
"""
EASY = """## What was easy

- The benchmarks: RouteLLM publishes all answers and scores of both models, and its lists of contaminated prompts.
- The leaderboard: all votes lie in a package on PyPI, and ratings agree with other implementations.
- Both updates: a router that rates every model has no order to remember, and nothing to add for more models.

## What was hard

- The paper's training data: a part of the people's battles, and none of the judge's, could be downloaded here. What
  stands in differs in prompts, models and judges, and the verdicts on judged battles say so.
- Embeddings and base models: no key and no accelerator, so one encoder of 22 million parameters stands for all.
- MT-Bench: its intervals are so wide that one random router may look like a good or a bad one.
- Paper and code differ in the sign of a formula, the measure, the normaliser of similarities, and the training.

## Deviations

A router drawn in grey tells the pair apart on no prompt. Similarity weighting on *all* is one: the gold labels lift
Mixtral into GPT-4's tier of ten, and models of one tier have one rating. The speeds in notebook 10's table of encoders
are of one pass each, and differ by a third between passes; `benchmarks/README.md` has medians.

"""
CHECKLIST = [
    ("models and algorithms", "mathematical setting", "formulas in the notebooks and docstrings, with citation keys"),
    ("models and algorithms", "assumptions", "notebook 01 (Bradley-Terry, ties), limits in each model card"),
    (
        "models and algorithms",
        "complexity",
        "measured: time and memory against battles, models and prompts, notebook 09",
    ),
    ("theoretical claims", "statements and proofs", "none is made; invariants of order are tested for all inputs"),
    ("data", "statistics", "data cards above; counts in the notebooks"),
    ("data", "splits", "`routing.studies.inputs`: prompts are never in two parts; choices by inner folds alone"),
    ("data", "exclusions and preparation", "contaminated prompts by RouteLLM's lists and by text; `eval_overlap`"),
    ("data", "link to the data", "`python -m routing data status`; addresses with sha256 in the registry"),
    ("data", "collection of new data", "none"),
    ("code", "dependencies", "`requirements.lock`, `environment.yml`, `pyproject.toml`"),
    ("code", "training and evaluation code", "the package and notebooks; `make reproduce-full` runs all"),
    ("code", "trained models", "`results/routers`, with cards and sha256"),
    ("code", "README with results and commands", "README.md, filled from the same CSVs"),
    (
        "experiments",
        "hyperparameters and how they were chosen",
        "rules written in notebooks 03 and 07, never on test prompts",
    ),
    ("experiments", "number of trainings and evaluations", "in the parameters of each manifest, and in the notebooks"),
    ("experiments", "definition of the measures", "notebook 07; both APGRs next to each other in `measures.csv`"),
    ("experiments", "central tendency and variation", "an interval on every estimate; what it covers, in the claims"),
    ("experiments", "run time", "minutes in the claims, from the manifests"),
    ("experiments", "computing infrastructure", "below the claims; in every manifest"),
    ("communication", "with the authors", "none; remarks in their public issues are cited where used"),
]


def list_claims(folder: Path) -> str:
    """Return the claims with scope, command, minutes, finding, verdict and cover, and the machines, in Markdown."""
    found = claims.judge_claims(folder)
    manifests = {path.parent.name[:2]: json.loads(path.read_text("utf-8")) for path in folder.glob("*/manifest.json")}
    minutes = {number: f"{manifest['seconds'] / 60:.1f}" for number, manifest in manifests.items()}
    found["command"] = "`make reproduce-full`, or `run --profile full --only " + found["notebook"] + "`"
    found["minutes"] = [minutes.get(number, claims.NOT_RUN) for number in found["notebook"]]
    columns = {"claim": "claim", "scope": "scope", "command": "command", "minutes": "minutes", "ours": "found here"}
    columns |= {"verdict": "verdict", "covers": "interval over"}
    machines = {
        f"{about['platform']}, {about['cpu_count']} processors, {about['device']}"
        for about in (manifest["machine"] for manifest in manifests.values())
    }
    text = "## Claims of the paper and of the two updates\n\n"
    text += write_markdown(found[list(columns)].rename(columns=columns))
    return f"{text}\nMachine: {'; '.join(sorted(machines)) or claims.NOT_RUN}. `run` is `python -m routing run`.\n"


def list_deviations() -> str:
    """Return what is known to differ from the paper, by training set and router, as a list."""
    parts = {**DATA_DIFFERENCES, **MODEL_DIFFERENCES}
    return "".join(f"- *{spell(name)}*: {text}.\n" for name, text in parts.items())


def read_data_cards() -> pd.DataFrame:
    """Return a row per dataset: dataset, rows (text), holds, source, licence, trap."""
    with resources.files("routing.studies").joinpath("data_cards.csv").open(encoding="utf-8") as file:
        cards = pd.read_csv(file, dtype="str", keep_default_na=False)
    sources = pd.concat([registry(), upstream()]).groupby("dataset")["repository"].unique()
    links = {name: ", ".join(f"[{r}](https://github.com/{r})" for r in found[:3]) for name, found in sources.items()}
    links |= {name: f"{text} and others" for name, text in links.items() if len(sources[name]) > 3}
    known = datasets()
    addresses = {name: f"[{name}]({about['address']})" for name, about in known.items() if "address" in about}
    rows = cards["rows"].map(lambda text: f"{int(text):,}" if text else "several files")
    source, licence = cards["dataset"].map(addresses | links), cards["dataset"].map(lambda name: known[name]["licence"])
    return cards.assign(rows=rows, source=source, licence=licence)[
        ["dataset", "rows", "holds", "source", "licence", "trap"]
    ]


def list_router_cards(folder: Path) -> str:
    """Return a table of the shared routers: name, class, models, data, licence, each with a link to its card."""
    rows = []
    for card in sorted((folder / "routers").glob("*/README.md")):
        text = card.read_text(encoding="utf-8")
        front, router = FRONT.match(text).groups()
        licence = re.search(r"^license: (.+)$", front, re.MULTILINE)[1]
        n_models = len(json.loads((card.parent / "router.json").read_text(encoding="utf-8"))["models"])
        name = card.parent.name
        rows.append((f"[{name}](routers/{name}/README.md)", router, str(n_models), DATA.search(text)[1], licence))
    return write_markdown(pd.DataFrame(rows, columns=["card", "router", "models", "data", "licence"]))


def write_report(folder: Path) -> str:
    """Return the report on the results in `folder`, in Markdown."""
    parts = [INTRODUCTION, list_claims(folder), EASY + list_deviations()]
    parts.append("## Data\n\nNo data of others are committed; licences are those that the owners state.\n")
    parts.append(write_markdown(read_data_cards()))
    parts.append("## Shared routers\n\nThe cards say how to load them, what was measured, and their limits.\n")
    parts.append(list_router_cards(folder))
    parts.append("## Checklist\n")
    parts.append(write_markdown(pd.DataFrame(CHECKLIST, columns=["about", "point", "answer"])))
    return "\n".join(parts)
