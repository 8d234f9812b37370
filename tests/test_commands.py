"""The commands on a user's own battles: what they print and what they refuse."""

from __future__ import annotations

import io
import json
import sqlite3

import numpy as np
import pandas as pd
import pytest

import routing
from routing.__main__ import main
from routing.policy.quality import win_share
from routing.routers.base import load_router
from routing.studies.simulated.arena import simulate_arena

PRICES = "model,usd_per_call\nlarge,0.01\nmedium,0.004\nsmall,0.001\n"
# "large" lost no battle and "small" won none, as happens where there are few.
BATTLES = """prompt,model_a,model_b,winner
Prove it.,large,medium,model_a
Prove it.,small,large,model_b
Say hello.,medium,small,model_a
Say hello.,large,small,tie
Tell a joke.,medium,small,model_a
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with battles, prices and a trained router of constant ratings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "battles.csv").write_text(BATTLES)
    (tmp_path / "prices.csv").write_text(PRICES)
    assert main(["train", "battles.csv", "--router", "bt", "--out", "my_router"]) == 0
    return tmp_path


def route(capsys, *options: str) -> str:
    capsys.readouterr()
    assert main(["route", "my_router", "--prices", "prices.csv", *options]) == 0
    return capsys.readouterr().out


def refuse(capsys, *arguments: str) -> str:
    """The one line on standard error with which a command ends in exit code 2."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


# -- train ------------------------------------------------------------------------------------------------------------


def test_few_battles_train_because_of_the_prior(folder, capsys):
    capsys.readouterr()
    assert main(["train", "battles.csv", "--router", "bt", "--out", "again"]) == 0
    assert capsys.readouterr().out == "again: a BradleyTerryRouter of 3 models: large, medium, small\n"
    ratings = load_router("again").constant_ratings
    assert np.isfinite(ratings).all() and ratings[0] > ratings[1] > ratings[2]
    (folder / "battles.csv").write_text(BATTLES.replace("large,small,tie", "large,small,model_a"))
    message = refuse(capsys, "train", "battles.csv", "--router", "bt", "--out", "other", "--prior-strength", "0")
    assert message.startswith("routing: error: battles.csv: ") and "large" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("model_a,", "first,"), "battles.csv: lacks model_a; it has prompt, first, model_b, winner"),
        (("joke.,medium,small,model_a", "joke.,medium,small,A"), "battles.csv: battle table, row 4, column winner"),
        (
            ("hello.,large,small", "hello.,small,small"),
            "battles.csv: battle table, row 3, column model_a: 'small' meets",
        ),
        ((BATTLES, ""), "battles.csv: cannot be read as CSV"),
    ],
)
def test_bad_battles_name_the_file_the_column_and_the_row(folder, capsys, change, message):
    (folder / "battles.csv").write_text(BATTLES.replace(*change))
    assert message in refuse(capsys, "train", "battles.csv", "--router", "bt", "--out", "other")
    assert not (folder / "other").exists()


def test_a_router_of_prompts_needs_prompts_and_an_empty_place(folder, capsys):
    (folder / "battles.csv").write_text(BATTLES.replace("prompt,", "text,", 1))
    assert "battles.csv: lacks prompt" in refuse(capsys, "train", "battles.csv", "--router", "mf", "--out", "other")
    assert "my_router is there already" in refuse(
        capsys, "train", "battles.csv", "--router", "bt", "--out", "my_router"
    )
    assert "none.csv" in refuse(capsys, "train", "none.csv", "--router", "bt", "--out", "other")


def test_the_leaderboard_needs_no_prompts_and_files_may_have_other_names_and_formats(folder, capsys):
    ratings = load_router("my_router").constant_ratings
    table = pd.read_csv("battles.csv")
    table.assign(prompt="").to_csv("empty.csv", index=False)
    table.to_json("lines.jsonl", orient="records", lines=True)
    other = table.rename(columns={"model_a": "left", "winner": "verdict"})
    other.assign(verdict=other["verdict"].map({"model_a": 1, "tie": 0.5, "model_b": 0})).to_csv(
        "other.tsv.gz", sep="\t"
    )
    for file, *options in (
        ["empty.csv"],
        ["lines.jsonl"],
        ["other.tsv.gz", "--columns", "model_a=left,winner=verdict"],
    ):
        assert main(["train", file, "--router", "bt", "--out", file.split(".")[0], *options]) == 0
        np.testing.assert_array_equal(load_router(file.split(".")[0]).constant_ratings, ratings)
    assert "row 0, column prompt" in refuse(capsys, "train", "empty.csv", "--router", "mf", "--out", "other2")
    for wrong in ("prompt", "text=prompt", "model_a=left,model_b=left"):
        with pytest.raises(SystemExit, match="2"):
            main(["train", "other.tsv.gz", "--router", "bt", "--out", "other2", "--columns", wrong])


def test_a_comma_without_quotes_is_refused(folder, capsys):
    (folder / "battles.csv").write_text(
        BATTLES.replace("it.", "it, please").replace("hello.", "hi, you").replace("jo", ",")
    )
    for router in ("bt", "sw"):
        message = refuse(capsys, "train", "battles.csv", "--router", router, "--out", "other")
        assert "battles.csv" in message and "row 0" in message


@pytest.mark.filterwarnings("default")
def test_names_are_text_and_those_that_differ_in_case_are_told(folder, capsys):
    (folder / "battles.csv").write_text(
        BATTLES.replace("large", "7").replace("small", "None ").replace("e.,None", "e.,7")
    )
    assert main(["train", "battles.csv", "--router", "bt", "--out", "other"]) == 0
    assert load_router("other").models == ("7", "None", "medium")
    assert "warning" not in capsys.readouterr().err
    (folder / "battles.csv").write_text(BATTLES.replace("joke.,medium", "joke.,Medium"))
    assert main(["train", "battles.csv", "--router", "bt", "--out", "two"]) == 0
    message = capsys.readouterr().err
    assert message.startswith("routing: warning: ") and "'Medium'" in message and "'medium'" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "-1"), ("--seed", str(2**63)), ("--prior-strength", "nan"), ("--prior-strength", "-1")],
)
def test_a_wrong_option_is_not_blamed_on_the_file(folder, capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "battles.csv", "--router", "mf", "--out", "other", option, value])
    message = capsys.readouterr().err
    assert option in message and value in message and "battles.csv: " not in message


@pytest.mark.parametrize(
    "error", [RuntimeError("no convergence"), sqlite3.DatabaseError("no convergence"), MemoryError(), ImportError("no")]
)
def test_what_a_user_can_cause_is_one_line(folder, capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("routing.routers.base.BradleyTerryRouter.fit", fail)
    message = refuse(capsys, "train", "battles.csv", "--router", "bt", "--out", "other", "--prior-strength", "1e-12")
    assert (str(error) or "MemoryError") in message


# -- route ------------------------------------------------------------------------------------------------------------


def test_one_prompt_gets_a_table_of_the_models_with_the_choice(folder, capsys):
    lines = route(capsys, "--budget", "0.005", "Say hello.").splitlines()
    assert lines[0].split() == ["model", "rating", "win_share", "price_usd", "choice"]
    assert [line.split()[0] for line in lines[1:]] == ["large", "medium", "small"]
    assert [line.endswith("<-") for line in lines[1:]] == [False, True, False]
    assert "0.004000" in lines[2]


def test_the_prompt_may_stand_anywhere(folder, capsys):
    printed = route(capsys, "--budget", "0.005", "Say hello.")
    capsys.readouterr()
    main(["route", "my_router", "Say hello.", "--prices", "prices.csv", "--budget", "0.005"])
    assert capsys.readouterr().out == printed
    with pytest.raises(SystemExit, match="2"):
        main(["route", "my_router", "--prices", "prices.csv", "--budget", "1", "one", "two"])


def test_many_prompts_share_the_budget(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Prove it.\n\nSay hello.\nA " + "long " * 30 + "prompt\n"))
    lines = route(capsys, "--budget", "0.005").splitlines()
    assert len(lines) == 6 and lines[2].strip() == ""  # a row per line of input, so that they can be put together
    assert lines[4].lstrip().startswith("A long long") and "..." in lines[4]
    assert lines[-1].startswith("mean: win share") and lines[-1].endswith("dollars a call")
    assert float(lines[-1].split()[-4]) <= 0.005


def feed(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("wish", [["--budget", "0.005"], ["--lambda", "1"]])
def test_each_line_of_input_has_one_of_output(folder, capsys, monkeypatch, wish):
    lines = ["\ufefffirst\u2028still\x0cthe\x85first\x1b[2J\r", " ", "", "- last \u202e\x9b"]
    for end in ("", "\n"):
        feed(monkeypatch, ("\n".join(lines) + end).encode())
        printed = route(capsys, *wish, "--json")
        answers = [json.loads(line) for line in printed.splitlines()]
        assert [answer["prompt"] for answer in answers] == [lines[0][1:-1], " ", "", lines[3]]
        assert [answer["choice"] is None for answer in answers] == [False, True, True, False]
        assert answers[1]["models"] == {} and len(answers[0]["models"]) == 3
        assert printed.replace("\n", "").isprintable()
        feed(monkeypatch, ("\n".join(lines) + end).encode())
        table = route(capsys, *wish)
        assert len(table.splitlines()) == 6 and table.replace("\n", "").isprintable()
    feed(monkeypatch, b"fine\ncaf\xe9\n")
    assert "standard input, line 2" in refuse(capsys, "route", "my_router", "--prices", "prices.csv", "--budget", "1")


def test_json_at_a_trade_off_answers_while_lines_come(folder, capsys, monkeypatch):
    chunks, printed = [b"one\ntw", b"o", b"\n\nfo", b"ur", b""], []

    class Pipe(io.TextIOWrapper):
        buffer = property(lambda self: self)

        def read1(self, _):
            printed.append(capsys.readouterr().out.count("\n"))
            return chunks[len(printed) - 1]

    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", Pipe(io.BytesIO()))
    assert main("route my_router --prices prices.csv --lambda 1 --json".split()) == 0
    assert printed == [0, 1, 0, 2, 0] and json.loads(capsys.readouterr().out)["prompt"] == "four"


def test_prompts_of_many_lines_come_as_json_lines(folder, capsys, monkeypatch):
    prompts = ["def f():\n    return 1\n", "-x", "", "caf\u00e9"]
    content = "".join(json.dumps({"prompt": prompt, "id": 1}) + "\r\n" for prompt in prompts)
    feed(monkeypatch, content.encode())
    answers = [json.loads(line) for line in route(capsys, "--budget", "1", "--json", "--jsonl").splitlines()]
    assert [answer["prompt"] for answer in answers] == prompts and answers[2]["choice"] is None
    for wrong in ("no JSON", '"text"', '{"prompt": 7}', "{}"):
        feed(monkeypatch, b'{"prompt": "x"}\n' + wrong.encode())
        command = "route my_router --prices prices.csv --budget 1 --jsonl".split()
        assert "standard input, line 2" in refuse(capsys, *command)


def test_a_prompt_may_begin_with_a_dash(folder, capsys):
    for words in (["- list the planets"], ["--", "-x"], ["--", "- list"], ["--", "-5"]):
        answer = json.loads(route(capsys, "--budget", "1", "--json", *words))
        assert answer["prompt"] == words[-1]
    capsys.readouterr()
    assert main(["route", "--prices", "prices.csv", "--budget", "1", "--json", "--", "my_router", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "--json"
    with pytest.raises(SystemExit, match="2"):
        main(["route", "my_router", "--prices", "prices.csv", "--budget", "1", "-x\x1b" + "y" * 1_000])
    message = capsys.readouterr().err
    assert " -- " in message.replace("\n", " ") and "\x1b" not in message and len(message) < 1_500


def test_standard_input_that_is_closed_or_a_terminal_is_told(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert "closed" in refuse(capsys, "route", "my_router", "--prices", "prices.csv", "--budget", "1")
    terminal = io.StringIO("x\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert main("route my_router --prices prices.csv --budget 1 --json".split()) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1 and "waiting for prompts" in printed.err


def test_a_reader_that_leaves_is_no_error(folder, capsys, monkeypatch):
    class Closed(io.StringIO):
        def write(self, _):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Closed())
    assert main(["route", "my_router", "--prices", "prices.csv", "--budget", "1", "--json", "x"]) == 141
    assert capsys.readouterr().err == ""


def test_prices_of_candidates_only(folder, capsys):
    (folder / "prices.csv").write_text("model,usd_per_call\nLarge,1\nsmall ,0.001\nmedium,0.004\n")
    message = refuse(capsys, "route", "my_router", "--prices", "prices.csv", "--budget", "1", "x")
    assert "prices.csv" in message and "large" in message and "'Large'" in message
    answer = json.loads(route(capsys, "--budget", "1", "--json", "--models", "small,medium", "x"))
    assert answer["choice"] == "medium" and list(answer["models"]) == ["medium", "small"]
    assert "smal" in (
        message := refuse(
            capsys, "route", "my_router", "--prices", "prices.csv", "--lambda", "1", "--models", "smal", "x"
        )
    )
    assert "--models" in message and "'small'" in message


@pytest.mark.parametrize("command", [[], ["run"], ["data"], ["train"], ["route"]])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert " ".join(["usage: routing", *command]) in capsys.readouterr().out
    for words in ([], ["one", "two", "three"]):
        with pytest.raises(SystemExit, match="2"):
            main(["route", "--prices", "p.csv", "--budget", "1", *words])


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.split()[-1] == routing.__version__


def test_json_has_every_number(folder, capsys):
    (line,) = route(capsys, "--lambda", "0", "--json", "Grüße!").splitlines()
    answer = json.loads(line)
    assert answer["prompt"] == "Grüße!" and answer["choice"] == "large"
    assert answer["models"]["medium"]["price_usd"] == 0.004
    router = load_router("my_router")
    ratings = pd.DataFrame([router.constant_ratings], columns=router.models)
    share = win_share(ratings, router.nu)
    assert {m: v["win_share"] for m, v in answer["models"].items()} == pytest.approx(share.loc[0].to_dict())
    (line,) = route(capsys, "--lambda", "1e6", "--json", "--reference", "small", "x").splitlines()
    answer = json.loads(line)
    assert answer["choice"] == "small" and answer["models"]["small"]["win_share"] == pytest.approx(0.5)


def test_prices_per_token_depend_on_the_lengths(folder, capsys, monkeypatch):
    path = folder / "tokens.csv"
    path.write_text("model,usd_per_million_input,usd_per_million_output\nlarge,10,30\nsmall,1,0\nmedium,0,0\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * 400 + "\nx\n"))
    capsys.readouterr()
    main("route my_router --prices tokens.csv --lambda 0 --json --output-tokens 100".split())
    first, second = (json.loads(line)["models"] for line in capsys.readouterr().out.splitlines())
    assert first["large"]["price_usd"] == pytest.approx(0.004) and first["small"]["price_usd"] == pytest.approx(1e-4)
    assert second["large"]["price_usd"] == pytest.approx(0.003 + 10 / 4e6)


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        (PRICES.replace("medium,0.004\n", ""), "prices.csv: no price for medium"),
        (PRICES.replace("usd_per_call", "price"), "prices.csv: needs column usd_per_call, or usd_per_million_input"),
        (PRICES.replace("model,", "name,"), "prices.csv: lacks model; it has name, usd_per_call"),
        (PRICES.replace("0.004", "cheap"), "prices.csv, model medium, column usd_per_call: cheap is no price"),
        (PRICES.replace("0.004", "-1"), "prices.csv, model medium, column usd_per_call: -1 is no price"),
        (PRICES.replace("0.004", ""), "prices.csv, model medium, column usd_per_call: nan is no price"),
        (PRICES.replace("medium", "large"), "prices.csv, row 1, column model: 'large'"),
    ],
)
def test_bad_prices_name_the_model(folder, capsys, prices, message):
    (folder / "prices.csv").write_text(prices)
    assert message in refuse(capsys, "route", "my_router", "--prices", "prices.csv", "--budget", "1", "x")


def test_wishes_that_cannot_be_met_are_refused(folder, capsys, monkeypatch):
    command = ["route", "my_router", "--prices", "prices.csv"]
    message = "the budget is 0.0001 dollars a call; the cheapest models cost 0.001"
    assert message in refuse(capsys, *command, "--budget", "0.0001", "x")
    assert "--reference: the router has no rating for 'huge'" in refuse(
        capsys, *command, "--budget", "1", "--reference", "huge", "x"
    )
    assert "none holds no saved router" in refuse(capsys, "route", "none", *command[2:], "--budget", "1", "x")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n \n"))
    assert "no prompt: give one" in refuse(capsys, *command, "--budget", "1")
    for wrong in (["x"], ["x", "--budget", "1", "--lambda", "1"], ["x", "--budget", "much"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *wrong])


# -- routers that see the prompt --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sw", "mf"])
def test_a_router_that_sees_prompts_trains_and_routes(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    arena, rng = simulate_arena(0, 3), np.random.default_rng(0)
    arena.sample_battles(arena.sample_prompts(30, rng), 150, rng).to_csv("battles.csv", index=False)
    pd.DataFrame({"model": arena.models, "usd_per_call": [0.001, 0.01, 0.0005]}).to_csv("prices.csv", index=False)
    assert main(["train", "battles.csv", "--router", kind, "--out", "my_router"]) == 0
    prompts = "Write a haiku about rain.\nProve that the square root of two is irrational.\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(prompts))
    answers = [json.loads(line) for line in route(capsys, "--budget", "0.002", "--json").splitlines()]
    ratings = [[models["rating"] for models in answer["models"].values()] for answer in answers]
    assert len(answers) == 2 and ratings[0] != ratings[1]
    assert np.mean([answer["models"][answer["choice"]]["price_usd"] for answer in answers]) <= 0.002
