"""The command line: ``python -m routing``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

# Each command imports what it needs when it runs: help and mistyped options answer at once.


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
    from routing.run import run_notebooks

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's stop ends the kernels, as Ctrl-C does
    outcomes = run_notebooks(
        options.profile,
        folder=options.notebooks,
        only=[number.strip().zfill(2) for number in options.only.split(",") if number.strip()],
        parameters=dict(options.parameters),
        jobs=options.jobs,
        output=options.output,
        resume=options.resume,
    )
    failures = [outcome.failure for outcome in outcomes if outcome.status == "failed"]
    for failure in failures:
        print(f"routing: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _add_data(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("data", help="list or download the published data", description="Published data.")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("status", help="what is here, what is missing").set_defaults(command=_show_data)
    fetch = actions.add_parser("fetch", help="download what is missing, checked by sha256")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    fetch.set_defaults(command=_fetch_data)


def _show_data(options: argparse.Namespace) -> int:
    from routing import sources

    print(sources.status().to_string(index=False))
    return 0


def _fetch_data(options: argparse.Namespace) -> int:
    from routing import sources

    print(sources.fetch(options.names or None, progress=True).to_string(index=False))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 a notebook failed, 2 wrong input, 130 stopped."""
    parser = argparse.ArgumentParser(prog="routing", description="RouteLLM as notebooks over a thin package.")
    commands = parser.add_subparsers(metavar="COMMAND")
    for add_command in (_add_run, _add_data):
        add_command(commands)
    options = parser.parse_args(arguments)
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
