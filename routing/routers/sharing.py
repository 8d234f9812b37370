"""Share saved routers through the Hugging Face Hub: write a model card, push a folder.

`load_router` takes the name that `push_router` returns. Nothing is sent unless a hub is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from routing.files import write_atomically
from routing.routers.base import Router, load_router
from routing.routers.hub import client, explained, parse_hub_name, read_shared

CARD = """---
{front}
---
# {kind}
Ratings of {n_models} language models for each prompt, in log-odds: a `{kind}` of the package `routing`.

## Intended use
Choose, for each prompt, which of the models below is called. The router does not answer prompts itself.

## How to load
```python
from routing import load_router

router = load_router("hub:OWNER/NAME@COMMIT")  # or the folder that holds this file
router.win_probability(["What is a prime?"], {first}, {second})
```
Loading runs no code from the repository: arrays and weights are read without pickle and checked against the sha256
in `router.json`.

## Models
{models}

## Data
{data}

## Measurements
{measured}

## Limits
The router rates only the models above, as they were when the battles were judged. It learned what the judges of its
battles preferred, which need not be what is correct. Measure it on prompts of your own before you use it, above all
where they differ from its battles in language, subject or length, and choose the threshold there.

## Licence
`{licence}`
"""


def write_model_card(
    router: Router,
    folder: str | Path,
    *,
    licence: str,
    data: str,
    intervals: pd.DataFrame | None = None,
    datasets: Sequence[str] = (),
) -> Path:
    """Write ``README.md``, as the Hugging Face Hub reads it, into the folder of a saved router; return its path.

    `licence` is an identifier of the Hub ("apache-2.0", "cc-by-4.0", "other"); `data` says what the router learned from
    (source, number of battles, dates, licence), `datasets` what that is called on the Hub, and `intervals` what was
    measured, for instance metric, estimate, low, high. Raises FileNotFoundError or ValueError where `folder` holds no
    or another router, `data` is empty, or `licence` is no identifier.
    """
    from huggingface_hub import ModelCardData

    path, kind = Path(folder) / "README.md", type(router).__name__
    saved, _ = read_shared(path.parent, folder)
    if (saved.get("router"), saved.get("models")) != (kind, list(router.models)):
        raise ValueError(f"{folder} holds another router than this {kind}; save this one first")
    if not data.strip():
        raise ValueError("data is empty; say what the router learned from, and under which licence")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise ValueError(f"licence is {licence!r}; give an identifier in lower case, such as 'apache-2.0'")
    tags = ["llm-routing", "bradley-terry"]
    front = ModelCardData(license=licence, library_name="routing", tags=tags, datasets=list(datasets) or None)
    first, second = (json.dumps(model, ensure_ascii=False) for model in router.models[:2])
    models = "\n".join(f"- `{model}`" for model in router.models)
    measured = "None were given for this card." if intervals is None else _markdown_table(intervals)
    values = dict(kind=kind, n_models=len(router.models), first=first, second=second, models=models, licence=licence)
    write_atomically(path, CARD.format(front=front.to_yaml().strip(), data=data.strip(), measured=measured, **values))
    return path


def _markdown_table(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *table.itertuples(index=False)]
    texts = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in texts)


def push_router(folder: str | Path, name: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload a saved router to the Hugging Face Hub; return the name of this version, ``hub:owner/name@commit``.

    Only ``router.json``, the files it lists (with similarity weighting, vectors of training prompts) and the card are
    sent to ``owner/name``, made where it is missing. Raises FileNotFoundError or ValueError where `load_router` refuses
    the folder, there is no card, or the router's encoder or base model is a local folder, and ConnectionError.
    """
    folder, repository = Path(folder), parse_hub_name(f"hub:{name}")[0]
    router = load_router(folder)
    for model in (getattr(getattr(router, "encoder", None), "name", None), getattr(router, "name", None)):
        if model is not None and (Path(model).is_absolute() or Path(model).is_dir()):
            raise ValueError(f"{folder} needs the model in {model}, a folder that others lack; train on one from a hub")
    if not (folder / "README.md").is_file():
        raise FileNotFoundError(
            f"{folder / 'README.md'} is missing; write it with write_model_card, or push --licence ... --data ..."
        )
    _, files = read_shared(folder, folder)
    hub = client(token)
    with explained(ConnectionError, f"{folder} could not be sent to {repository}", "the token's right to write"):
        hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=files)
    return f"hub:{repository}@{commit.oid}"
