"""The command line: ``python -m routing``."""

from __future__ import annotations

import argparse
import difflib
import io
import itertools
import json
import math
import os
import re
import sqlite3
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from routing import __version__

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from routing.routers.base import Router

# Each command imports what it needs when it runs: help and mistyped options answer at once.

ROUTERS = {  # what --router names: a class of `routing.routers.base.ROUTERS`
    "bt": "BradleyTerryRouter",
    "sw": "SimilarityRouter",
    "mf": "MatrixFactorizationRouter",
    "bert": "BertRouter",
    "causal": "CausalLMRouter",
}
PROMPT_WIDTH = 48  # characters of a prompt that a table shows
NO_PROMPT = "no prompt: give one as an argument, or one a line on standard input"
# What a user can cause, by an option, a file or a machine. Others are faults of ours, and show where they are.
ERRORS = (ValueError, OSError, RuntimeError, ImportError, EOFError, ArithmeticError, MemoryError, sqlite3.Error)


def _add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("run", help="run the notebooks headless", description="Run the notebooks headless.")
    parser.add_argument("--profile", default="quick", choices=("smoke", "quick", "full"), help="default: quick")
    parser.add_argument("--only", default="", metavar="01,03", help="numbers of the notebooks to run (default: all)")
    setting, words = "set a parameter of every selected notebook; may be repeated", ("NAME", "VALUE")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=words, help=setting)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at a time (default: 1)")
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), metavar="FOLDER", help="where they are")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: runs/<profile>")
    parser.add_argument("--resume", action="store_true", help="skip what ran well with the same code and parameters")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        from routing.runner.run import run_notebooks, stop_on_signals
    except ModuleNotFoundError as error:
        raise ValueError(f'run needs {error.name}, which is not installed: pip install "routing[notebooks]"') from None
    stop_on_signals()
    outcomes = run_notebooks(
        options.profile,
        folder=options.notebooks,
        only=[number.strip().zfill(2) for number in options.only.split(",") if number.strip()],
        parameters=dict(options.parameters),
        jobs=options.jobs,
        output=options.output,
        resume=options.resume,
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        print("routing:", outcome.failure, file=sys.stderr)
    return 1 if failed else 0


def _add_data(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("data", help="list or download the published data", description="Published data.")
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    actions.add_parser("status", help="what is here, what is missing")
    fetch = actions.add_parser("fetch", help="download what is missing, checked by sha256")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.set_defaults(command=_data)


def _data(options: argparse.Namespace) -> None:
    from routing.data import sources

    table = sources.status() if options.action == "status" else sources.fetch(options.names or None)
    print(table.to_string(index=False))


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("train", help="learn a router from your battles", description="Battles to a router.")
    columns = "columns prompt, model_a, model_b, winner; also .tsv, .jsonl, .parquet"
    parser.add_argument("battles", type=Path, metavar="battles.csv", help=columns)
    kinds = ", ".join(f"{kind}: {name}" for kind, name in ROUTERS.items())
    parser.add_argument("--router", required=True, choices=ROUTERS, help=kinds)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the router is written")
    renamed = "columns that have another name in the file"
    parser.add_argument("--columns", type=_parse_columns, default={}, metavar="prompt=question,...", help=renamed)
    prior = "of a normal prior on ratings; 0 needs every model to have won and lost (default: 1)"
    parser.add_argument("--prior-strength", type=_not_negative, default=1.0, metavar="X", help=prior)
    parser.add_argument("--seed", type=_parse_seed, default=0, help="of what is drawn in training (default: 0)")
    parser.set_defaults(command=_train)


def _not_negative(text: str) -> float:
    if not 0 <= float(text) < math.inf:
        raise ValueError
    return float(text)


def _parse_seed(text: str) -> int:
    if not 0 <= int(text) < 2**63:
        raise ValueError
    return int(text)


def _parse_columns(text: str) -> dict[str, str]:
    renamed = {ours.strip(): theirs.strip() for ours, theirs in (part.split("=", 1) for part in text.split(","))}
    known = {"prompt", "model_a", "model_b", "winner"}
    if not renamed.keys() <= known or len({*renamed.values()}) < len(renamed):
        raise ValueError
    return renamed


# argparse says "invalid ... value" by these names.
_not_negative.__name__, _parse_seed.__name__ = "number (0 or more)", "seed (0 or more)"
_parse_columns.__name__ = "prompt=...,model_a=...,model_b=...,winner=..."


def _train(options: argparse.Namespace) -> None:
    from dataclasses import fields

    from routing.battles import validate_battles
    from routing.data.tables import NAME_COLUMNS, blame, read_table
    from routing.routers.base import router_class

    if options.out.exists():  # before a training that may take minutes
        raise FileExistsError(f"{options.out} is there already; remove it or choose another name")
    kind = router_class(ROUTERS[options.router])
    settings = {"prior_strength": options.prior_strength, "seed": options.seed}
    router = kind(**{field.name: settings[field.name] for field in fields(kind) if field.name in settings})
    wanted = list(NAME_COLUMNS) if options.router == "bt" else ["prompt", *NAME_COLUMNS]
    battles = read_table(options.battles, wanted, options.columns)[wanted]
    with blame(options.battles):
        router.fit(validate_battles(battles))
    router.save(options.out)
    names = ", ".join(map(_quote, router.models))
    print(f"{options.out}: a {kind.__name__} of {len(router.models)} models: {names}")


def _add_route(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("route", help="choose a model for prompts", description="Prompts to models.")
    # Both may be missing as far as argparse knows: before Python 3.12 it overlooks what stands behind the options.
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="what train wrote")
    prompt = "behind -- where it begins with a dash (default: one prompt a line from standard input)"
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help=prompt)
    columns = "columns model, usd_per_call; or model, usd_per_million_input, usd_per_million_output"
    parser.add_argument("--prices", type=Path, required=True, metavar="prices.csv", help=columns)
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--budget", type=_not_negative, metavar="USD", help="dollars a call, on average over the prompts")
    worth = "win share (a tie counts half) that a dollar has to buy; 0 takes the best model at any price"
    wish.add_argument("--lambda", dest="quality_per_usd", type=_not_negative, metavar="X", help=worth)
    parser.add_argument("--models", metavar="A,B,...", help="those to choose from (default: all that the router rates)")
    length = "expected length of an answer, for prices per token (default: 264)"
    parser.add_argument("--output-tokens", type=_not_negative, default=264.0, metavar="N", help=length)
    reference = "whom win shares are against (default: the mean over the other models)"
    parser.add_argument("--reference", default="pool", metavar="MODEL", help=reference)
    parser.add_argument("--jsonl", action="store_true", help='standard input has a JSON object a line: {"prompt": ...}')
    parser.add_argument("--json", action="store_true", help="print a JSON object a line for each prompt")
    parser.set_defaults(command=_route, route_parser=parser)


def _route(options: argparse.Namespace) -> None:
    """Print a table, or with --json an object a line, as soon as it is known; a blank line is answered by no model."""
    from routing.routers.base import load_router

    if options.prompt is not None and options.jsonl:
        options.route_parser.error("--jsonl is about standard input; leave out the prompt")
    router = load_router(options.folder)
    candidates = list(router.models)
    if options.models is not None:
        candidates = sorted({_known_model(name, router.models, "--models") for name in options.models.split(",")})
    if options.reference != "pool":
        options.reference = _known_model(options.reference, router.models, "--reference")
    prices = read_prices(options.prices, candidates)
    blocks = _read_prompts(sys.stdin, options.jsonl) if options.prompt is None else [[options.prompt]]
    if not options.json or options.budget is not None:
        blocks = [[prompt for block in blocks for prompt in block]]  # they share a table or a budget
    any_asked = False
    for prompts in blocks:
        asked = [prompt for prompt in prompts if prompt.strip()]
        any_asked |= bool(asked)
        rated, models = _choose(router, asked, candidates, prices, options) if asked else ({}, [])
        queue = iter(models)
        chosen = [next(queue) if prompt.strip() else None for prompt in prompts]
        if options.json:
            _print_json(prompts, chosen, rated, candidates)
        elif asked:
            _print_table(prompts, chosen, rated, candidates)
    if not any_asked:
        raise ValueError(NO_PROMPT)


def _known_model(name: str, known: Sequence[str], where: str) -> str:
    from routing.battles import clean_name

    if clean_name(name) not in known:
        rated = _quote(", ".join(known))
        raise ValueError(
            f"{where}: the router has no rating for '{_quote(name)}'{_near(name, known)}; it rates {rated}"
        )
    return clean_name(name)


def _near(name: str, known: Iterable[str]) -> str:
    """Return a hint at the most similar of the known names, or nothing."""
    by_case = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_case, 1)
    return f" (but for '{_quote(by_case[found[0]])}')" if found else ""


def read_prices(path: Path, models: Sequence[str]) -> pd.DataFrame:
    """Read the prices of these models in dollars, a row per model; those of other models are passed over.

    Columns ``usd_per_call``, or ``usd_per_million_input`` and ``usd_per_million_output``; the file names the models in
    column ``model``. Raises ValueError or OSError for other columns, a model named twice or not at all, or a price that
    is no number of at least 0.
    """
    import numpy as np
    import pandas as pd

    from routing.battles import clean_name, warn_of_case
    from routing.data.tables import PRICE_COLUMNS, read_table

    table = read_table(path, ["model"])
    wanted = list(PRICE_COLUMNS[:1] if "usd_per_call" in table.columns else PRICE_COLUMNS[1:])
    if not set(wanted) <= set(table.columns):
        raise ValueError(
            f"{path}: needs column usd_per_call, or usd_per_million_input and usd_per_million_output; it has"
            f" {_quote(', '.join(table.columns))}"
        )
    names = table["model"].fillna("").map(clean_name)
    at_fault = (names == "") | names.duplicated()
    if at_fault.any():
        row = at_fault.idxmax()
        reason = f"'{_quote(names[row])}' is named twice" if names[row] else "no model name"
        raise ValueError(f"{path}, row {row}, column model: {reason}")
    warn_of_case(names)
    unpriced = [name + _near(name, names) for name in models if name not in set(names)]
    if unpriced:
        listed = _quote(", ".join(unpriced))
        raise ValueError(f"{path}: no price for {listed}; add them, or name those to choose from with --models")
    table = table[wanted].set_axis(names).loc[list(models)]
    prices = table.apply(pd.to_numeric, errors="coerce").astype(float)
    for model, column in np.argwhere(~(prices.ge(0) & np.isfinite(prices)).to_numpy())[:1]:
        where, found = f"model {_quote(models[model])}, column {wanted[column]}", _quote(table.iat[model, column])
        raise ValueError(f"{path}, {where}: {found} is no price in dollars")
    return prices


def _read_prompts(stream: TextIO | None, as_json: bool) -> Iterator[list[str]]:
    r"""Yield the prompts of standard input in blocks, as they come; a line ends at \n alone."""
    if stream is None:
        raise ValueError(f"{NO_PROMPT} (which is closed)")
    if stream.isatty():
        print("routing: waiting for prompts, one a line; Ctrl-D ends them", file=sys.stderr)
    binary = stream.buffer if hasattr(stream, "buffer") else io.BytesIO(stream.read().encode())
    parts, numbers = [], itertools.count(1)
    while chunk := binary.read1(1 << 16):
        parts.append(chunk)
        if b"\n" in chunk:
            *lines, rest = b"".join(parts).split(b"\n")
            yield [_read_line(line, next(numbers), as_json) for line in lines]
            parts = [rest]
    if rest := b"".join(parts):
        yield [_read_line(rest, next(numbers), as_json)]


def _read_line(line: bytes, number: int, as_json: bool) -> str:
    try:
        text = line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
        if not as_json or not text.strip():
            return text
        record = json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input, line {number}: it is not UTF-8 ({error.reason}); convert it") from error
    except ValueError as error:
        raise ValueError(f"standard input, line {number}: it is not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise ValueError(f'standard input, line {number}: expected an object {{"prompt": "..."}}')
    return record["prompt"]


def _choose(
    router: Router, prompts: list[str], candidates: list[str], prices: pd.DataFrame, options: argparse.Namespace
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return rating, win share and price, (n_prompts, n_candidates) each, and the name chosen for each prompt."""
    import numpy as np
    import pandas as pd

    from routing.policy.budget import CHARACTERS_PER_TOKEN, MultiModelPolicy, price_per_call
    from routing.policy.quality import win_share

    ratings = pd.DataFrame(router.ratings(prompts), columns=list(router.models))
    quality = win_share(ratings, router.nu, options.reference)[candidates]
    if "usd_per_call" in prices.columns:
        price = prices["usd_per_call"]
    else:
        lengths = np.array([len(prompt) for prompt in prompts]) / CHARACTERS_PER_TOKEN
        price = price_per_call(prices, options.output_tokens, lengths)
    policy = MultiModelPolicy(price, options.quality_per_usd or 0.0)
    within = options.budget is not None
    chosen = policy.best_within(quality, options.budget).models if within else policy.choose(quality)
    tables = {"rating": ratings[candidates], "win_share": quality, "price_usd": price}
    return {name: np.broadcast_to(table.to_numpy(), quality.shape) for name, table in tables.items()}, chosen


def _print_json(prompts: list[str], chosen: list[str | None], rated: dict[str, np.ndarray], names: list[str]) -> None:
    numbers = zip(*(table.tolist() for table in rated.values()), strict=True)
    for prompt, choice in zip(prompts, chosen, strict=True):
        cells = [] if choice is None else zip(names, *next(numbers), strict=True)
        models = {name: dict(zip(rated, values, strict=True)) for name, *values in cells}
        line = json.dumps({"prompt": prompt, "choice": choice, "models": models}, ensure_ascii=False)
        if not line.isprintable():  # control characters, and those that some readers take for the end of a line
            line = re.sub(r"[^ -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], line)
        print(line, flush=True)


def _print_table(prompts: list[str], chosen: list[str | None], rated: dict[str, np.ndarray], names: list[str]) -> None:
    """Print a row per model for one prompt; for several a row per prompt with the model that it goes to."""
    import numpy as np
    import pandas as pd

    formats = {"rating": "{:+.2f}".format, "win_share": "{:.3f}".format, "price_usd": "{:.6f}".format}
    if len(prompts) == 1:
        table = pd.DataFrame({"model": map(_quote, names)} | {column: values[0] for column, values in rated.items()})
        table["choice"] = ["<-" if name == chosen[0] else "" for name in names]
        table = table.sort_values("rating", ascending=False, kind="stable")
        return print(table.to_string(index=False, formatters=formats))
    rows = [row for row, name in enumerate(chosen) if name is not None]
    places = np.arange(len(rows)), [names.index(chosen[row]) for row in rows]
    picked = pd.DataFrame({column: values[places] for column, values in rated.items()}, index=rows)
    shown = [_quote(" ".join(prompt[: 10 * PROMPT_WIDTH].split()), PROMPT_WIDTH) for prompt in prompts]
    table = pd.DataFrame({"prompt": shown, "model": ["" if name is None else _quote(name) for name in chosen]})
    table = table.assign(**{column: picked[column].map(form) for column, form in formats.items()})
    print(table.to_string(index=False, na_rep=""))
    means = picked["win_share"].mean(), picked["price_usd"].mean()
    print("mean: win share {:.3f}, price {:.6f} dollars a call".format(*means))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        super().error(_quote(message, 400))


def _parse(arguments: list[str]) -> argparse.Namespace | None:
    """Return the options of a command, None where no command is named."""
    parser = _Parser(prog="routing", description="RouteLLM as notebooks over a thin package.")
    parser.add_argument("--version", action="version", version=f"routing {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for add_command in (_add_run, _add_data, _add_train, _add_route):
        add_command(commands)
    literal: list[str] = []
    if arguments[:1] == ["route"] and "--" in arguments:
        cut = arguments.index("--")
        arguments, literal = arguments[:cut], arguments[cut + 1 :]
    options, rest = parser.parse_known_args(arguments)
    if "prompt" in options:
        plain = [word for word in rest if not word.startswith("-") or " " in word]
        rest = [word for word in rest if word not in plain]
        words = [word for word in (options.folder, options.prompt) if word is not None] + plain + literal
        if not rest and not 1 <= len(words) <= 2:
            options.route_parser.error("give one FOLDER and at most one PROMPT, in quotes")
        options.folder, options.prompt = (*words, None)[:2] if words else (None, None)
    if rest:
        hint = "; put a prompt that begins with a dash behind --" if "prompt" in options else ""
        parser.error(f"unrecognized arguments: {_quote(' '.join(rest))}{hint}")
    if "command" not in options:
        parser.print_help()
        return None
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 a notebook failed, 2 wrong input, 130 stopped, 141 not read."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say("warning", message)
            options = _parse(list(sys.argv[1:] if arguments is None else arguments))
            code = options.command(options) or 0 if options else 0
        print(end="", flush=True)
        return code
    except BrokenPipeError:  # by `| head`
        return 141
    except KeyboardInterrupt:
        print("routing: stopped", file=sys.stderr)
        return 130
    except ERRORS as error:
        _say("error", str(error) or type(error).__name__)
        return 2
    finally:
        try:
            print(end="", flush=True)
        except OSError:  # forget what was printed, so that Python does not complain of it at its end
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(kind: str, message: object) -> None:
    print(f"routing: {kind}: {_quote(message, 1_000)}", file=sys.stderr)


def _quote(text: object, limit: int = 200) -> str:
    from routing.battles import quote

    return quote(text, limit)


if __name__ == "__main__":
    if sys.stderr is None or not sys.stderr.isatty():  # no bars in a log
        os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    sys.exit(main())
