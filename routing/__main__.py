"""The command line: ``python -m routing``."""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
# What a user can cause, by an option, a file or a machine. Others are faults of ours, and show where they are.
ERRORS = (ValueError, OSError, RuntimeError, ImportError, EOFError, ArithmeticError, MemoryError, sqlite3.Error)


def _add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("run", help="run the notebooks headless", description="Run the notebooks headless.")
    parser.add_argument(
        "--profile", default="quick", choices=("smoke", "quick", "full", "paper"), help="default: quick"
    )
    parser.add_argument("--only", default="", metavar="01,03", help="numbers of the notebooks to run (default: all)")
    setting, words = "set a parameter of every selected notebook; may be repeated", ("NAME", "VALUE")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=words, help=setting)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at a time (default: 1)")
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), metavar="FOLDER", help="where they are")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: runs/<profile>")
    dry = "print downloads, bytes, minutes and dollars, and how they are estimated; run nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry)
    parser.add_argument("--resume", action="store_true", help="skip what ran well with the same code and parameters")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        from routing.runner.run import find_notebooks, run_notebooks, stop_on_signals
    except ModuleNotFoundError as error:
        raise ValueError(f'run needs {error.name}, which is not installed: pip install "routing[notebooks]"') from None
    only = [number.strip().zfill(2) for number in options.only.split(",") if number.strip()]
    if options.dry_run:
        return _print_estimate(options.profile, [path.stem for path in find_notebooks(options.notebooks, only)])
    stop_on_signals()
    outcomes = run_notebooks(
        options.profile,
        folder=options.notebooks,
        only=only,
        parameters=dict(options.parameters),
        jobs=options.jobs,
        output=options.output,
        resume=options.resume,
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        print("routing:", outcome.failure, file=sys.stderr)
    return 1 if failed else 0


def _print_estimate(profile: str, notebooks: list[str]) -> int:
    from routing.data import paper
    from routing.runner.estimate import estimate_run
    from routing.upstream import collection

    names = {"full": None, "paper": [*paper.DATASETS, *paper.EMBEDDINGS]}.get(profile, ["votes"])
    downloads = _print_plan(collection.plan(names))
    table = estimate_run(profile, notebooks)
    print("\n" + table.to_string(index=False, formatters={"minutes": "{:.1f}".format, "usd": "{:.2f}".format}))
    unknown = f" and those of {n} notebooks that no run has timed" if (n := table["minutes"].isna().sum()) else ""
    print(
        f"in all: {downloads + table['bytes'].sum():,} bytes, {table['minutes'].sum():,.0f} minutes{unknown},"
        f" {table['usd'].sum():.2f} dollars; downloads cost nothing"
    )
    return 0


def _print_plan(plan: pd.DataFrame) -> int:
    """Print the files of a download; return the bytes that are not here."""
    print(plan.to_string(index=False))
    missing = plan[plan["found"].isin(["missing", "damaged"])]
    print(f"{len(missing):,} files of {missing['bytes'].sum():,} bytes are to be downloaded")
    return missing["bytes"].sum()


def _add_data(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("data", help="list or download the published data", description="Published data.")
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    actions.add_parser("status", help="what is here, what is missing and how to get it")
    fetch = actions.add_parser("fetch", help="download what is missing, checked by sha256, and build tables from it")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="default: all that profile full reads")
    fetch.add_argument("--dry-run", action="store_true", help="list every address, size and licence, download nothing")
    parser.set_defaults(command=_data)


def _data(options: argparse.Namespace) -> None:
    from routing.upstream import collection

    names = getattr(options, "names", None) or None
    if options.action == "fetch" and options.dry_run:
        _print_plan(collection.plan(names))
    else:
        print((collection.status if options.action == "status" else collection.fetch)(names).to_string(index=False))


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
    parser.add_argument("--seed", type=_seed, default=0, help="of what is drawn in training (default: 0)")
    parser.set_defaults(command=_train)


def _number(name: str, low: float = 0, high: float = sys.float_info.max, kind: type = float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if not low <= kind(text) <= high:
            raise ValueError
        return kind(text)

    parse.__name__ = name  # argparse says "invalid ... value" by it
    return parse


_not_negative, _share = _number("number (0 or more)"), _number("share (0 to 1)", high=1)
_seed = _number("seed (0 or more)", high=2**63 - 1, kind=int)


def _parse_columns(text: str) -> dict[str, str]:
    renamed = {ours.strip(): theirs.strip() for ours, theirs in (part.split("=", 1) for part in text.split(","))}
    known = {"prompt", "model_a", "model_b", "winner"}
    if not renamed.keys() <= known or len({*renamed.values()}) < len(renamed):
        raise ValueError
    return renamed


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


def _add_choice(parser: argparse.ArgumentParser, prices_needed: bool) -> argparse._MutuallyExclusiveGroup:
    """Add what `route` and `evaluate` share; return the group of wishes."""
    columns = "columns model, usd_per_call; or model, usd_per_million_input, usd_per_million_output"
    parser.add_argument("--prices", type=Path, required=prices_needed, metavar="prices.csv", help=columns)
    parser.add_argument("--models", metavar="A,B,...", help="those to choose from (default: all that the router rates)")
    length = "expected length of an answer, for prices per token (default: 264)"
    parser.add_argument("--output-tokens", type=_not_negative, default=264.0, metavar="N", help=length)
    reference = "whom win shares are against (default: the mean over the other models)"
    parser.add_argument("--reference", default="pool", metavar="MODEL", help=reference)
    wish = parser.add_mutually_exclusive_group(required=prices_needed)
    wish.add_argument("--budget", type=_not_negative, metavar="USD", help="dollars a call, on average over the prompts")
    worth = "win share (a tie counts half) that a dollar has to buy; 0 takes the best model at any price"
    wish.add_argument("--lambda", dest="quality_per_usd", type=_not_negative, metavar="X", help=worth)
    above = "of two models, take the more expensive one where P(it wins, no tie) is at least P"
    wish.add_argument("--threshold", type=_not_negative, metavar="P", help=above)
    share = "share of calls that the most expensive model gets at most"
    wish.add_argument("--strong-share", type=_share, metavar="S", help=share)
    return wish


def _add_route(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("route", help="choose a model for prompts", description="Prompts to models.")
    # Both may be missing as far as argparse knows: before Python 3.12 it overlooks what stands behind the options.
    parser.add_argument("folder", nargs="?", metavar="ROUTER", help="folder that train wrote, or hub:owner/name")
    prompt = "behind -- where it begins with a dash (default: one prompt a line from standard input)"
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help=prompt)
    _add_choice(parser, prices_needed=True)
    sample = "prompts (a table's column prompt; .txt: one a line) on which --budget or --strong-share is kept"
    parser.add_argument("--calibrate", type=Path, metavar="prompts.csv", help=sample)
    parser.add_argument("--jsonl", action="store_true", help='standard input has a JSON object a line: {"prompt": ...}')
    parser.add_argument("--json", action="store_true", help="print a JSON object a line for each prompt")
    lines = "answer each line by itself, as it comes: the model's name, or with --json an object; faults are warned of"
    parser.add_argument("--stdin-lines", action="store_true", help=lines)
    parser.set_defaults(command=_route, parser=parser)


def _route(options: argparse.Namespace) -> None:
    """Print a table, or with --json an object a line, as soon as it is known; a blank line is answered by no model."""
    from routing.commands.choice import rate_prompts
    from routing.commands.own_files import NO_PROMPT, read_lines, read_prices
    from routing.routers.base import load_router

    fault = None
    if options.prompt is not None and (options.jsonl or options.stdin_lines):
        fault = "--jsonl and --stdin-lines are about standard input; leave out the prompt"
    elif options.calibrate is None and options.strong_share is not None:
        fault = "--strong-share is kept on a sample of your prompts: name its file with --calibrate"
    elif options.calibrate is None and options.budget is not None and options.stdin_lines:
        fault = "a --budget is shared by all prompts; with --stdin-lines name a sample of them with --calibrate"
    elif options.calibrate is not None and options.budget is None and options.strong_share is None:
        fault = "--calibrate goes with --budget or --strong-share"
    if fault:
        options.parser.error(fault)
    router = load_router(options.folder)
    candidates = _candidates(router, options)
    prices = read_prices(options.prices, candidates)
    option, value = _wish(options, prices)
    if options.calibrate is not None:
        option, value = _calibrate(router, prices, option, value, options)
    blocks = [[options.prompt]]
    if options.prompt is None:
        faulty = functools.partial(_say, "warning") if options.stdin_lines else None
        blocks = read_lines(sys.stdin, options.jsonl, faulty)
    if options.stdin_lines:
        blocks = ([prompt] for block in blocks for prompt in block)
    elif not options.json or option == "budget":
        blocks = [[prompt for block in blocks for prompt in block]]  # they share a table or a budget
    any_asked = False
    for prompts in blocks:
        asked = [prompt for prompt in prompts if prompt.strip()]
        any_asked |= bool(asked)
        numbers, models = {}, [None] * len(asked)
        try:
            if asked:
                rated = rate_prompts(router, asked, prices, options.reference, options.output_tokens)
                models, numbers = rated.choose(option, value), rated.numbers(option)
        except ERRORS as error:
            if not options.stdin_lines:
                raise
            _say("warning", error)
        queue = iter(models)
        chosen = [next(queue) if prompt.strip() else None for prompt in prompts]
        if options.json:
            _print_json(prompts, chosen, numbers, candidates)
        elif options.stdin_lines:
            print(_quote(chosen[0] or ""), flush=True)
        elif asked:
            _print_table(prompts, chosen, numbers, candidates)
    if not any_asked and not options.stdin_lines:
        raise ValueError(NO_PROMPT)


def _wish(options: argparse.Namespace, prices: pd.DataFrame) -> tuple[str, float] | None:
    """Return name and value of the wish that was given, None where none was."""
    from routing.commands.choice import find_pair

    named = {"lambda": options.quality_per_usd, "quality": getattr(options, "quality", None)}
    named |= {name: getattr(options, name) for name in ("threshold", "budget", "strong_share")}
    if options.threshold is not None and find_pair(prices) is None:
        names = _quote(", ".join(prices.index))
        raise ValueError(f"--threshold is for two models, one more expensive; name two with --models, of {names}")
    return next(((name, value) for name, value in named.items() if value is not None), None)


def _candidates(router: Router, options: argparse.Namespace, scored: Iterable[str] | None = None) -> list[str]:
    """Return the models to choose from, checked as the reference is; by default all, or all that are scored."""
    if options.reference != "pool":
        options.reference = _known_model(options.reference, router.models, "--reference")
    if options.models is None:
        return list(router.models if scored is None else scored)
    return sorted({_known_model(name, router.models, "--models") for name in options.models.split(",")})


def _calibrate(
    router: Router, prices: pd.DataFrame, wish: str, limit: float, options: argparse.Namespace
) -> tuple[str, float]:
    """Return the option, and its value, that keeps to the budget or share of calls on a sample of prompts; say them."""
    from routing.commands.choice import rate_prompts
    from routing.commands.own_files import read_prompts
    from routing.commands.own_prompts import find_options

    prompts = read_prompts(options.calibrate)
    rated = rate_prompts(router, prompts, prices, options.reference, options.output_tokens)
    option, value = next(iter(find_options(rated, rated.price_usd, None, wish, limit).items()))
    name = wish.replace("_", " ")
    _say("note", f"{name} {limit:g} on {len(prompts)} prompts of {options.calibrate}: --{option} {value!r}")
    return option, value


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    about = (
        "Evaluate a router on your own prompts, and find the --lambda or --threshold for a wish. The table has a column"
        " prompt and one per model with the score of its answer; columns MODEL|total_cost may hold what each answer"
        " cost in dollars. Without --prices their means are the prices that the router knows."
    )
    parser = commands.add_parser("evaluate", help="measure a router on your own prompts", description=about)
    parser.add_argument("folder", metavar="ROUTER", help="folder that train wrote, or hub:owner/name")
    parser.add_argument("scores", type=Path, metavar="scores.csv", help="prompts and scores; .tsv, .jsonl, .parquet")
    wish = _add_choice(parser, prices_needed=False)
    wish.add_argument("--quality", type=_number("number", -sys.float_info.max), metavar="Q", help="mean score to reach")
    split = "share of the prompts to choose on; all is measured on the others"
    parser.add_argument("--split", type=_share, metavar="S", help=split)
    renamed = "another name of that column in the file"
    parser.add_argument("--columns", type=_parse_columns, default={}, metavar="prompt=question", help=renamed)
    parser.add_argument("--seed", type=_seed, default=0, help="of the split and of the intervals (default: 0)")
    out = "writes NAME.csv, and NAME.png if matplotlib is installed (default: evaluation)"
    parser.add_argument("--out", type=Path, default=Path("evaluation"), metavar="NAME", help=out)
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    import numpy as np

    from routing.commands import own_prompts
    from routing.commands.choice import rate_prompts
    from routing.commands.own_files import read_prices, read_scores
    from routing.routers.base import find_learned, load_router

    files = [options.out.with_name(options.out.name + end) for end in (".csv", ".png")]
    for path in (options.scores, options.prices):
        if path is not None and path.resolve() in [file.resolve() for file in files]:
            raise ValueError(f"{path} would be overwritten; choose another name with --out")
    router = load_router(options.folder)
    scores = read_scores(options.scores, router.models, options.columns)
    candidates = _candidates(router, options, scores.models)
    if len(candidates) < 2 or not set(candidates) <= set(scores.models):
        raise ValueError(f"--models: name two or more of the models with scores: {_quote(', '.join(scores.models))}")
    prompts, to_choose = scores.prompts["prompt"].tolist(), np.ones(len(scores.prompts), dtype=bool)
    if options.split is not None:
        to_choose = own_prompts.split_prompts(prompts, options.split, options.seed)
    if options.prices is not None:
        prices = read_prices(options.prices, candidates)
    elif scores.cost_usd is not None:
        prices = scores.cost_usd.loc[to_choose, candidates].mean().to_frame("usd_per_call")
    else:
        raise ValueError(f"{options.scores} has no columns of costs (MODEL|total_cost); name a file with --prices")
    wish = _wish(options, prices)
    rated = rate_prompts(router, prompts, prices, options.reference, options.output_tokens)
    cost = rated.price_usd if scores.cost_usd is None else scores.cost_usd[candidates]
    own = own_prompts.OwnPrompts(rated, scores.quality[candidates], cost)
    unit = "win share" if options.reference == "pool" else f"win share against {_quote(options.reference)}"
    numbers, lines = own_prompts.report(own, to_choose, wish, unit, np.random.default_rng(options.seed))
    learned = find_learned(router, prompts)
    print("\n".join([*own_prompts.describe(prompts, candidates, to_choose, learned), *lines]))
    print("written:", ", ".join(map(str, own_prompts.save(numbers, candidates, *files))))


def _add_push(commands: argparse._SubParsersAction) -> None:
    about = "Write a router's model card and upload both to the Hugging Face Hub. Nothing is sent without a repository."
    parser = commands.add_parser("push", help="share a router on the Hugging Face Hub", description=about)
    parser.add_argument("folder", type=Path, metavar="ROUTER", help="folder that train wrote")
    parser.add_argument(
        "repository", nargs="?", metavar="OWNER/NAME", help="where to; without it only the card is written"
    )
    parser.add_argument(
        "--licence", metavar="ID", help="of the router, as the Hub calls it: apache-2.0, cc-by-4.0, other"
    )
    parser.add_argument(
        "--data", metavar="TEXT", help="what it learned from: source, number of battles, dates, licence"
    )
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="ID", help="its name on the Hub; may be repeated"
    )
    parser.add_argument("--measured", type=Path, metavar="CSV", help="what was measured, a table for the card")
    parser.add_argument("--public", action="store_true", help="make a new repository public (default: private)")
    parser.set_defaults(command=_push, parser=parser)


def _push(options: argparse.Namespace) -> None:
    from routing.routers.base import load_router
    from routing.routers.sharing import push_router, write_model_card

    wanted = options.licence, options.data, options.measured, *options.dataset
    if any(wanted) and not (options.licence and options.data) or not (any(wanted) or options.repository):
        options.parser.error("a card needs --licence and --data; to send a router that has a card name OWNER/NAME")
    if options.data:
        import pandas as pd

        table = None if options.measured is None else pd.read_csv(options.measured)
        card = {"licence": options.licence, "data": options.data, "datasets": options.dataset, "intervals": table}
        print(write_model_card(load_router(options.folder), options.folder, **card))
    if options.repository is None:
        print("nothing was sent: no repository was named")
    else:
        print(push_router(options.folder, options.repository, private=not options.public))


def _known_model(name: str, known: Sequence[str], where: str) -> str:
    from routing.battles import clean_name
    from routing.commands.own_files import near

    if clean_name(name) not in known:
        rated = _quote(", ".join(known))
        raise ValueError(f"{where}: the router has no rating for '{_quote(name)}'{near(name, known)}; it rates {rated}")
    return clean_name(name)


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
    formats |= {"win_probability": "{:.3f}".format} if "win_probability" in rated else {}
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
    for add_command in (_add_run, _add_data, _add_train, _add_route, _add_evaluate, _add_push):
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
            options.parser.error("give one FOLDER and at most one PROMPT, in quotes")
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
