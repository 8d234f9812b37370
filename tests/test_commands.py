"""The commands on a user's own battles: what they print and what they refuse."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest

from routing.__main__ import main
from routing.commands import read_prices
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


# -- route ------------------------------------------------------------------------------------------------------------


def test_one_prompt_gets_a_table_of_the_models_with_the_choice(folder, capsys):
    lines = route(capsys, "--budget", "0.005", "Say hello.").splitlines()
    assert lines[0].split() == ["model", "rating", "win_probability", "price_usd", "choice"]
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
    assert len(lines) == 5 and lines[3].lstrip().startswith("A long long") and "..." in lines[3]
    assert lines[-1].startswith("mean: win probability") and lines[-1].endswith("dollars a call")
    assert float(lines[-1].split()[-4]) <= 0.005


def test_json_has_every_number(folder, capsys):
    (line,) = route(capsys, "--lambda", "0", "--json", "Grüße!").splitlines()
    answer = json.loads(line)
    assert answer["prompt"] == "Grüße!" and answer["choice"] == "large"
    assert answer["models"]["medium"]["price_usd"] == 0.004
    router = load_router("my_router")
    ratings = pd.DataFrame([router.constant_ratings], columns=router.models)
    share = win_share(ratings, router.nu)
    assert {m: v["win_probability"] for m, v in answer["models"].items()} == pytest.approx(share.loc[0].to_dict())
    (line,) = route(capsys, "--lambda", "1e6", "--json", "--reference", "small", "x").splitlines()
    answer = json.loads(line)
    assert answer["choice"] == "small" and answer["models"]["small"]["win_probability"] == pytest.approx(0.5)


def test_prices_per_token_depend_on_the_lengths(folder):
    path = folder / "tokens.csv"
    path.write_text("model,usd_per_million_input,usd_per_million_output\na,10,30\nb,1,0\n")
    prices = read_prices(path, ["x" * 400, ""], output_tokens=100)
    assert prices["a"].tolist() == pytest.approx([0.004, 0.003]) and prices["b"].tolist() == pytest.approx([1e-4, 0])


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        (PRICES.replace("medium,0.004\n", ""), "no price of medium; the router rates them"),
        (PRICES.replace("usd_per_call", "price"), "prices.csv: needs column usd_per_call, or usd_per_million_input"),
        (PRICES.replace("model,", "name,"), "prices.csv: lacks model; it has name, usd_per_call"),
        (PRICES.replace("0.004", "cheap"), "prices.csv, model medium, column usd_per_call: cheap is no price"),
        (PRICES.replace("0.004", "-1"), "prices.csv, model medium, column usd_per_call: -1.0 is no price"),
        (PRICES.replace("0.004", ""), "prices.csv, model medium, column usd_per_call: nan is no price"),
        (PRICES.replace("medium", "large"), "prices.csv, row 1, column model: large (missing, or named before)"),
    ],
)
def test_bad_prices_name_the_model(folder, capsys, prices, message):
    (folder / "prices.csv").write_text(prices)
    assert message in refuse(capsys, "route", "my_router", "--prices", "prices.csv", "--budget", "1", "x")


def test_wishes_that_cannot_be_met_are_refused(folder, capsys, monkeypatch):
    command = ["route", "my_router", "--prices", "prices.csv"]
    message = "the budget is 0.0001 dollars a call; the cheapest models cost 0.001"
    assert message in refuse(capsys, *command, "--budget", "0.0001", "x")
    assert "no reference 'huge'" in refuse(capsys, *command, "--budget", "1", "--reference", "huge", "x")
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
