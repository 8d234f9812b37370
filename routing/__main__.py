"""The command line: ``python -m routing``."""

from __future__ import annotations

import argparse
import difflib
import io
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
from typing import TYPE_CHECKING, Any, TextIO

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
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of every selected notebook; may be repeated",
    )
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
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("status", help="what is here, what is missing").set_defaults(command=_show_data)
    fetch = actions.add_parser("fetch", help="download what is missing, checked by sha256")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    fetch.set_defaults(command=_fetch_data)


def _show_data(options: argparse.Namespace) -> int:
    from routing.data import sources

    print(sources.status().to_string(index=False))
    return 0


def _fetch_data(options: argparse.Namespace) -> int:
    from routing.data import sources

    print(sources.fetch(options.names or None, progress=True).to_string(index=False))
    return 0


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("train", help="learn a router from your battles", description="Battles to a router.")
    parser.add_argument(
        "battles",
        type=Path,
        metavar="battles.csv",
        help="columns prompt, model_a, model_b, winner; also .tsv, .jsonl, .parquet",
    )
    parser.add_argument(
        "--router",
        required=True,
        choices=ROUTERS,
        help=", ".join(f"{kind}: {name}" for kind, name in ROUTERS.items()),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the router is written")
    parser.add_argument(
        "--columns",
        type=_parse_columns,
        default={},
        metavar="prompt=question,...",
        help="columns that have another name in the file",
    )
    parser.add_argument(
        "--prior-strength",
        type=_not_negative,
        default=1.0,
        metavar="X",
        help="of a normal prior on ratings; 0 needs every model to have won and lost (default: 1)",
    )
    parser.add_argument("--seed", type=_parse_seed, default=0, help="of what is drawn in training (default: 0)")
    parser.set_defaults(command=_train)


def _not_negative(text: str) -> float:
    number = float(text)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError
    return number


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


def _train(options: argparse.Namespace) -> int:
    from dataclasses import fields

    from routing.battles import quote, validate_battles
    from routing.data.tables import NAME_COLUMNS, read_table
    from routing.routers.base import router_class

    if options.out.exists():  # before a training that may take minutes
        raise FileExistsError(f"{options.out} is there already; remove it or choose another name")
    kind = router_class(ROUTERS[options.router])
    settings = {"prior_strength": options.prior_strength, "seed": options.seed}
    router = kind(**{field.name: settings[field.name] for field in fields(kind) if field.name in settings})
    wanted = list(NAME_COLUMNS) if options.router == "bt" else ["prompt", *NAME_COLUMNS]
    battles = read_table(options.battles, wanted, options.columns)[wanted]
    try:
        router.fit(validate_battles(battles))
    except ValueError as error:
        raise ValueError(f"{options.battles}: {error}") from error
    router.save(options.out)
    names = ", ".join(map(quote, router.models))
    print(f"{options.out}: a {kind.__name__} of {len(router.models)} models: {names}")
    return 0


def _add_route(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("route", help="choose a model for prompts", description="Prompts to models.")
    # Both may be missing as far as argparse knows: before Python 3.12 it overlooks what stands behind the options.
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="what train wrote")
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="behind -- where it begins with a dash (default: one prompt a line from standard input)",
    )
    parser.add_argument(
        "--prices",
        type=Path,
        required=True,
        metavar="prices.csv",
        help="columns model, usd_per_call; or model, usd_per_million_input, usd_per_million_output",
    )
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--budget", type=_not_negative, metavar="USD", help="dollars a call, on average over the prompts")
    wish.add_argument(
        "--lambda",
        dest="quality_per_usd",
        type=_not_negative,
        metavar="X",
        help="win probability that a dollar has to buy; 0 takes the best model at any price",
    )
    parser.add_argument("--models", metavar="A,B,...", help="those to choose from (default: all that the router rates)")
    parser.add_argument(
        "--output-tokens",
        type=_not_negative,
        default=264.0,
        metavar="N",
        help="expected length of an answer, for prices per token (default: 264)",
    )
    parser.add_argument(
        "--reference",
        default="pool",
        metavar="MODEL",
        help="whom win probabilities are against (default: the mean over the other models)",
    )
    parser.add_argument("--jsonl", action="store_true", help='standard input has a JSON object a line: {"prompt": ...}')
    parser.add_argument("--json", action="store_true", help="print a JSON object a line for each prompt")
    parser.set_defaults(command=_route, route_parser=parser)


def _route(options: argparse.Namespace) -> int:
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
    n_asked = 0
    for prompts in blocks:
        asked = [row for row, prompt in enumerate(prompts) if prompt.strip()]
        n_asked += len(asked)
        if not asked and not options.json:
            break
        rated, chosen = {}, [None] * len(prompts)
        if asked:
            rated, models = _choose(router, [prompts[row] for row in asked], candidates, prices, options)
            for row, model in zip(asked, models, strict=True):
                chosen[row] = model
        if options.json:
            _print_json(prompts, chosen, rated, candidates)
        else:
            print(_format_table(prompts, chosen, rated, candidates))
    if not n_asked:
        raise ValueError(NO_PROMPT)
    return 0


def _known_model(name: str, known: Sequence[str], where: str) -> str:
    from routing.battles import clean_name, quote

    if clean_name(name) not in known:
        raise ValueError(
            f"{where}: the router has no rating for '{quote(name)}'{_near(name, known)}; it rates"
            f" {quote(', '.join(known))}"
        )
    return clean_name(name)


def _near(name: str, known: Iterable[str]) -> str:
    """Return a hint at the most similar of the known names, or nothing."""
    from routing.battles import quote

    by_case = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_case, 1)
    return f" (but for '{quote(by_case[found[0]])}')" if found else ""


def read_prices(path: Path, models: Sequence[str]) -> pd.DataFrame:
    """Read the prices of these models: a row per model, in dollars.

    Columns ``usd_per_call``, or ``usd_per_million_input`` and ``usd_per_million_output``; the file names the models in
    column ``model``. What it has of other models is passed over.

    Raises
    ------
    ValueError, OSError
        Other columns, a model named twice or not at all, or a price that is no number of at least 0.
    """
    import numpy as np
    import pandas as pd

    from routing.battles import clean_name, quote, warn_of_case
    from routing.data.tables import PRICE_COLUMNS, read_table

    table = read_table(path, ["model"])
    wanted = list(PRICE_COLUMNS[:1] if "usd_per_call" in table.columns else PRICE_COLUMNS[1:])
    if not set(wanted) <= set(table.columns):
        raise ValueError(
            f"{path}: needs column usd_per_call, or usd_per_million_input and usd_per_million_output; it has"
            f" {quote(', '.join(table.columns))}"
        )
    names = table["model"].fillna("").map(clean_name)
    at_fault = (names == "") | names.duplicated()
    if at_fault.any():
        row = int(np.argmax(at_fault))
        reason = f"'{quote(names[row])}' is named twice" if names[row] else "no model name"
        raise ValueError(f"{path}, row {row}, column model: {reason}")
    warn_of_case(names)
    unpriced = [name for name in models if name not in set(names)]
    if unpriced:
        listed = quote(", ".join(f"{name}{_near(name, names)}" for name in unpriced))
        raise ValueError(f"{path}: no price for {listed}; add them, or name those to choose from with --models")
    table = table[wanted].set_axis(names).loc[list(models)]
    for column in wanted:
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        at_fault = ~(np.isfinite(numbers) & (numbers >= 0))
        if at_fault.any():
            model = at_fault.idxmax()
            found = quote(table.loc[model, column])
            raise ValueError(f"{path}, model {quote(model)}, column {column}: {found} is no price in dollars")
        table[column] = numbers
    return table


def _read_prompts(stream: TextIO | None, as_json: bool) -> Iterator[list[str]]:
    r"""Yield the prompts of standard input in blocks, as they come; a line ends at \n alone."""
    if stream is None:
        raise ValueError(f"{NO_PROMPT} (which is closed)")
    if stream.isatty():
        print("routing: waiting for prompts, one a line; Ctrl-D ends them", file=sys.stderr)
    binary = stream.buffer if hasattr(stream, "buffer") else io.BytesIO(stream.read().encode())
    parts: list[bytes] = []
    number = 0
    while True:
        chunk = binary.read1(1 << 16)
        parts.append(chunk)
        if chunk and b"\n" not in chunk:
            continue
        *lines, rest = b"".join(parts).split(b"\n")
        lines += [rest] if rest and not chunk else []
        if lines:
            yield [_read_line(line, number + place, as_json) for place, line in enumerate(lines, start=1)]
        if not chunk:
            return
        number, parts = number + len(lines), [rest]


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
    """Return rating, win probability and price, (n_prompts, n_candidates) each, and the name chosen for each prompt."""
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
    tables = {"rating": ratings[candidates], "win_probability": quality, "price_usd": price}
    return {name: np.broadcast_to(table.to_numpy(), quality.shape) for name, table in tables.items()}, chosen


def _print_json(
    prompts: list[str], chosen: list[str | None], rated: dict[str, np.ndarray], candidates: list[str]
) -> None:
    numbers = zip(*(table.tolist() for table in rated.values()), strict=True)
    for prompt, choice in zip(prompts, chosen, strict=True):
        models: dict[str, Any] = {}
        if choice is not None:
            cells = zip(*next(numbers), strict=True)
            models = {name: dict(zip(rated, cell, strict=True)) for name, cell in zip(candidates, cells, strict=True)}
        line = json.dumps({"prompt": prompt, "choice": choice, "models": models}, ensure_ascii=False)
        if not line.isprintable():  # control characters, and those that some readers take for the end of a line
            line = re.sub(r"[^ -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], line)
        print(line, flush=True)


def _format_table(
    prompts: list[str], chosen: list[str | None], rated: dict[str, np.ndarray], candidates: list[str]
) -> str:
    """Return a row per model for one prompt; for several a row per prompt with the model that it goes to."""
    import numpy as np
    import pandas as pd

    from routing.battles import quote

    formats = {"rating": "{:+.2f}", "win_probability": "{:.3f}", "price_usd": "{:.6f}"}
    shown = [quote(name) for name in candidates]
    if len(prompts) == 1:
        table = pd.DataFrame({"model": shown} | {name: values[0] for name, values in rated.items()})
        table["choice"] = ["<-" if name == chosen[0] else "" for name in candidates]
        table = table.sort_values("rating", ascending=False, kind="stable")
        return table.to_string(index=False, formatters={name: form.format for name, form in formats.items()})
    place = {name: index for index, name in enumerate(candidates)}
    models = [None if name is None else place[name] for name in chosen]
    columns = np.array([index for index in models if index is not None])
    picked = {name: values[np.arange(len(columns)), columns] for name, values in rated.items()}
    cells = {name: map(formats[name].format, values.tolist()) for name, values in picked.items()}
    table = {
        "prompt": [quote(" ".join(prompt[: 10 * PROMPT_WIDTH].split()), PROMPT_WIDTH) for prompt in prompts],
        "model": ["" if index is None else shown[index] for index in models],
    } | {name: ["" if index is None else next(texts) for index in models] for name, texts in cells.items()}
    means = picked["win_probability"].mean(), picked["price_usd"].mean()
    text = pd.DataFrame(table).to_string(index=False)
    return text + "\nmean: win probability {:.3f}, price {:.6f} dollars a call".format(*means)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        from routing.battles import quote

        super().error(quote(message, 400))


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
        from routing.battles import quote

        parser.error(f"unrecognized arguments: {quote(' '.join(rest))}{hint}")
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
            code = 0 if options is None else options.command(options)
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
        _drop_output()


def _say(kind: str, message: object) -> None:
    from routing.battles import quote

    print(f"routing: {kind}: {quote(message, 1_000)}", file=sys.stderr)


def _drop_output() -> None:
    """Write out what was printed; where that fails, forget it, so that Python does not complain of it at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    if sys.stderr is None or not sys.stderr.isatty():  # no bars in a log
        os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    sys.exit(main())
