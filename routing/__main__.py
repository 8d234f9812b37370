"""The command line: ``python -m routing``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

# Each command imports what it needs when it runs: help and mistyped options answer at once.

ROUTERS = {  # what --router names: a class of `routing.routers.base.ROUTERS`
    "bt": "BradleyTerryRouter",
    "sw": "SimilarityRouter",
    "mf": "MatrixFactorizationRouter",
    "bert": "BertRouter",
    "causal": "CausalLMRouter",
}


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
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=A,B,...",
        help="run with each of these values of a parameter; repeated: with every combination",
    )
    parser.add_argument("--cluster", metavar="ADDRESS|local:N", help="run on a Dask cluster, or on N local workers")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from routing.runner.grid import read_grid
    from routing.runner.run import run_notebooks

    grid = read_grid(options.grid)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's stop ends the kernels, as Ctrl-C does
    outcomes = run_notebooks(
        options.profile,
        folder=options.notebooks,
        only=[number.strip().zfill(2) for number in options.only.split(",") if number.strip()],
        parameters=dict(options.parameters),
        jobs=options.jobs,
        output=options.output,
        resume=options.resume,
        grid=grid,
        cluster=options.cluster,
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        point = ",".join(f"{name}={outcome.parameters[name]}" for name in grid)
        print("routing:", f"{point}: {outcome.failure}" if grid else outcome.failure, file=sys.stderr)
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
    parser.add_argument("battles", type=Path, metavar="battles.csv", help="columns prompt, model_a, model_b, winner")
    parser.add_argument(
        "--router",
        required=True,
        choices=ROUTERS,
        help=", ".join(f"{kind}: {name}" for kind, name in ROUTERS.items()),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the router is written")
    parser.add_argument(
        "--prior-strength",
        type=float,
        default=1.0,
        metavar="X",
        help="of a normal prior on ratings; 0 needs every model to have won and lost (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn in training (default: 0)")
    parser.set_defaults(command=_train)


def _train(options: argparse.Namespace) -> int:
    from routing.commands import train_router

    name = ROUTERS[options.router]
    router = train_router(options.battles, name, options.out, options.prior_strength, options.seed)
    print(f"{options.out}: a {name} of {len(router.models)} models: {', '.join(router.models)}")
    return 0


def _add_route(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("route", help="choose a model for prompts", description="Prompts to models.")
    parser.add_argument("router", type=Path, metavar="FOLDER", help="what train wrote")
    parser.add_argument("prompt", nargs="?", help="default: one prompt a line from standard input")
    parser.add_argument(
        "--prices",
        type=Path,
        required=True,
        metavar="prices.csv",
        help="columns model, usd_per_call; or model, usd_per_million_input, usd_per_million_output",
    )
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--budget", type=float, metavar="USD", help="dollars a call, on average over the prompts")
    wish.add_argument(
        "--lambda",
        dest="quality_per_usd",
        type=float,
        metavar="X",
        help="win probability that a dollar has to buy; 0 takes the best model at any price",
    )
    parser.add_argument(
        "--output-tokens",
        type=float,
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
    parser.add_argument("--json", action="store_true", help="a JSON object a line for each prompt")
    parser.set_defaults(command=_route)


def _route(options: argparse.Namespace) -> int:
    from routing.commands import route_prompts

    lines = sys.stdin.read().splitlines() if options.prompt is None else [options.prompt]
    print(
        route_prompts(
            options.router,
            [line for line in lines if line.strip()],
            options.prices,
            options.budget,
            options.quality_per_usd,
            options.output_tokens,
            options.reference,
            options.json,
        )
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 a notebook failed, 2 wrong input, 130 stopped."""
    parser = argparse.ArgumentParser(prog="routing", description="RouteLLM as notebooks over a thin package.")
    commands = parser.add_subparsers(metavar="COMMAND")
    for add_command in (_add_run, _add_data, _add_train, _add_route):
        add_command(commands)
    options, rest = parser.parse_known_args(arguments)
    # Before Python 3.12 argparse overlooks a prompt that stands behind the options.
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(options, "prompt", "") is None:
        options.prompt = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if "command" not in options:
        parser.print_help()
        return 0
    try:
        return options.command(options)
    except (ValueError, OSError) as error:
        print(f"routing: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("routing: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
