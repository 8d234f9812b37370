"""The commands on a user's own prompts: evaluate, route by a threshold or a share of calls, line by line, and push."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from routing.__main__ import main
from routing.commands import own_prompts
from routing.policy import MultiModelPolicy, win_share
from routing.routers.base import RandomRouter, load_router

PRICES = pd.DataFrame({"model": ["large", "medium", "small"], "usd_per_call": [0.01, 0.004, 0.001]})
PROMPTS = [f"Question {number}" for number in range(60)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with prices, scores and a router whose ratings depend on the prompt and cost nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_prompts, "N_RESAMPLES", 5)
    router = RandomRouter()
    router.models, router.nu = ("large", "medium", "small"), 0.5
    router.save("my_router")
    PRICES.to_csv("prices.csv", index=False)
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.random((60, 3)) + [0.2, 0.1, 0.0], columns=router.models).assign(prompt=PROMPTS, id=1)
    scores.to_csv("scores.csv", index=False)
    for model, price in PRICES.itertuples(index=False):
        scores[f"{model}|total_cost"] = price * rng.choice([0.5, 1.5], 60)
    scores.to_csv("costs.csv", index=False)
    return tmp_path


def run(capsys, command: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(command.split()) == code
    return capsys.readouterr()


def option_value(line: str, option: str) -> float:
    return float(line.split(f"{option} ")[1].split()[0])


def test_evaluate_prints_about_ten_lines_and_writes_all_numbers(folder, capsys):
    out, err = run(capsys, "evaluate my_router scores.csv --prices prices.csv")
    lines = out.splitlines()
    assert 9 <= len(lines) <= 13 and err == ""
    assert lines[0].startswith("60 prompts") and "large, medium, small" in lines[0]
    assert lines[-1] == "written: evaluation.csv, evaluation.png"
    assert Path("evaluation.png").read_bytes()[:4] == b"\x89PNG"
    numbers = pd.read_csv("evaluation.csv")
    assert {"router", "oracle", "shuffled", "large", "medium", "small"} <= set(numbers["router"])
    assert {"quality", "apgr", "aiq", "cost_share", "over_shuffled", "over_best"} <= set(numbers["metric"])
    again, _ = run(capsys, "evaluate my_router scores.csv --prices prices.csv")
    assert again == out and numbers.equals(pd.read_csv("evaluation.csv"))
    rows = pd.read_csv("scores.csv").sample(frac=1, random_state=1)
    rows[rows.columns[::-1]].to_json("mixed.jsonl", orient="records", lines=True)
    other, _ = run(capsys, "evaluate my_router mixed.jsonl --prices prices.csv")
    wanted = [line for line in lines if line.startswith(("for ", "best", "cheapest"))]
    assert [line for line in other.splitlines() if line.startswith(("for ", "best", "cheapest"))] == wanted


@pytest.mark.parametrize("wish", ["--budget 0.005", "--quality 0.6", "--strong-share 0.3"])
@pytest.mark.parametrize("models", ["large,medium,small", "large,small"])
def test_what_evaluate_finds_route_takes(folder, capsys, monkeypatch, wish, models):
    out, _ = run(capsys, f"evaluate my_router scores.csv --prices prices.csv {wish} --models {models}")
    (line,) = [line for line in out.splitlines() if line.startswith("for ")]
    assert "win share per dollar" in line and ("--threshold" in line) == (models == "large,small")
    scores = pd.read_csv("scores.csv").set_index("prompt")
    cost = PRICES.set_index("model")["usd_per_call"]
    for option in ["--lambda", "--threshold"] if "--threshold" in line else ["--lambda"]:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(PROMPTS)))
        value = option_value(line, option)
        printed, _ = run(capsys, f"route my_router --prices prices.csv --models {models} {option} {value!r} --json")
        choices = [json.loads(answer)["choice"] for answer in printed.splitlines()]
        reached = {
            "--budget": np.mean([-cost[choice] for choice in choices]),
            "--quality": np.mean([scores.loc[prompt, choice] for prompt, choice in zip(PROMPTS, choices, strict=True)]),
            "--strong-share": -np.mean([choice == "large" for choice in choices]),
        }[wish.split()[0]]
        limit = float(wish.split()[1])
        assert reached >= (limit if "quality" in wish else -limit) - 1e-12
        assert abs(reached) == pytest.approx(limit, rel=0.1)


def test_a_threshold_reaches_what_no_lambda_does(folder, capsys):
    out, _ = run(capsys, "evaluate my_router scores.csv --prices prices.csv --quality 0.68 --models large,small")
    (line,) = [line for line in out.splitlines() if line.startswith("for ")]
    assert "--threshold" in line and "--lambda" not in line


def test_costs_may_be_columns(folder, capsys):
    run(capsys, "evaluate my_router costs.csv --out a --split 0.5")
    costs = pd.read_csv("costs.csv")
    numbers = pd.read_csv("a.csv").set_index("router")
    half = costs.loc[~own_prompts.split_prompts(PROMPTS, 0.5, 0), "large|total_cost"].mean()
    assert numbers.loc["large", "cost_usd"] == pytest.approx(half)
    out, _ = run(capsys, "evaluate my_router costs.csv --prices prices.csv --budget 0.005")
    assert "dollars a call 0.0" in out


def test_training_prompts_are_counted(folder, capsys):
    out, _ = run(capsys, "evaluate my_router scores.csv --prices prices.csv")
    assert "cannot be checked" in out
    # any router may carry the record
    from routing.battles import hash_texts
    from routing.routers.base import normalise_text

    router = load_router("my_router")
    router.learned_prompts = hash_texts(map(normalise_text, ["QUESTION 3!", "question  7", "other"]))
    router.save("knowing")
    out, _ = run(capsys, "evaluate knowing scores.csv --prices prices.csv")
    assert "2 of them are training prompts" in out


@pytest.mark.filterwarnings("default")
def test_without_matplotlib_there_are_numbers(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out, err = run(capsys, "evaluate my_router scores.csv --prices prices.csv")
    assert "written: evaluation.csv\n" in out and "routing[notebooks]" in err
    assert Path("evaluation.csv").is_file() and not Path("evaluation.png").exists()
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("evaluate my_router scores.csv", ["scores.csv", "total_cost", "--prices"]),
        ("evaluate my_router prices.csv --prices prices.csv", ["prices.csv", "prompt"]),
        ("evaluate my_router scores.csv --prices prices.csv --out prices", ["prices.csv", "--out"]),
        ("evaluate my_router scores.csv --prices prices.csv --models large", ["--models"]),
        ("evaluate my_router scores.csv --prices prices.csv --models large,smal", ["--models", "'small'"]),
        ("evaluate my_router scores.csv --prices prices.csv --threshold 0.5", ["--threshold", "two", "--models"]),
        ("evaluate my_router scores.csv --prices prices.csv --budget 0.0001", ["--budget", "0.001"]),
        ("evaluate my_router scores.csv --prices prices.csv --quality 5", ["--quality", "5"]),
        ("evaluate my_router scores.csv --prices prices.csv --split 0", ["split", "60"]),
        ("route my_router --prices prices.csv --threshold 0.5 x", ["--threshold", "two", "--models"]),
        ("route my_router --prices prices.csv --strong-share 0.5 --calibrate none.csv x", ["none.csv"]),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, capsys, command, named):
    out, err = run(capsys, command, code=2)
    assert out == "" and err.count("\n") == 1 and all(part in err for part in named), err


@pytest.mark.parametrize(
    "words",
    [
        "route my_router --prices prices.csv --strong-share 0.5 x",
        "route my_router --prices prices.csv --lambda 1 --calibrate scores.csv x",
        "route my_router --prices prices.csv --lambda 1 --stdin-lines x",
        "route my_router --prices prices.csv --budget 1 --stdin-lines",
        "route my_router --prices prices.csv --strong-share 1.5 --calibrate scores.csv x",
        "evaluate my_router scores.csv --prices prices.csv --budget 1 --lambda 1",
        "push my_router",
        "push my_router --licence other",
    ],
)
def test_options_that_do_not_go_together_are_told(folder, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert "--" in capsys.readouterr().err.splitlines()[-1]


def test_a_share_of_calls_is_kept_on_a_file(folder, capsys, monkeypatch):
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    for models in ("large,small", "large,medium,small"):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(PROMPTS)))
        command = (
            f"route my_router --prices prices.csv --models {models} --strong-share 0.25 --calibrate prompts.txt --json"
        )
        out, err = run(capsys, command)
        choices = [json.loads(line)["choice"] for line in out.splitlines()]
        assert choices.count("large") == 15 and ("--threshold" in err) == (models == "large,small")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(PROMPTS[:5])))
    out, err = run(capsys, "route my_router --prices prices.csv --budget 0.004 --calibrate scores.csv --json")
    router = load_router("my_router")
    share = win_share(pd.DataFrame(router.ratings(PROMPTS), columns=router.models), router.nu)
    policy = MultiModelPolicy(PRICES.set_index("model")["usd_per_call"]).with_budget(share, 0.004)
    assert [json.loads(line)["choice"] for line in out.splitlines()] == list(policy.choose(share[:5]))


def test_a_threshold_shows_the_probability_that_it_is_about(folder, capsys):
    command = "route my_router --prices prices.csv --models small,large --threshold"
    (answer,) = map(json.loads, run(capsys, f"{command} 0.5 --json Hello")[0].splitlines())
    router = load_router("my_router")
    p_strong = router.win_probability(["Hello"], "large", "small")[0]
    assert answer["models"]["large"]["win_probability"] == p_strong
    for threshold, choice in ((p_strong, "large"), (np.nextafter(p_strong, 2), "small")):
        out, _ = run(capsys, f"{command} {float(threshold)!r} Hello")
        assert [line.split()[0] for line in out.splitlines() if line.endswith("<-")] == [choice]


def test_lines_are_answered_one_by_one(folder):
    """A process that stays: an answer comes before the next prompt is sent, and a bad line ends nothing."""
    command = [sys.executable, "-m", "routing", "route", "my_router", "--prices", "prices.csv", "--lambda", "0"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--stdin-lines"], env=environment, **pipes) as process:
        answers = []
        for line in (b"Hello", b"", b"caf\xe9", b"Prove it."):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            answers.append(process.stdout.readline().decode().strip())
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert answers[1:3] == ["", ""] and {answers[0], answers[3]} <= {"large", "medium", "small"}
    assert b"line 3" in err and err.count(b"\n") == 1


def test_lines_that_a_router_cannot_rate_end_nothing(folder, capsys, monkeypatch):
    rate = RandomRouter.ratings

    def fail(self, prompts):
        if "bad" in prompts:
            raise ValueError("it resembles no battle")
        return rate(self, prompts)

    monkeypatch.setattr(RandomRouter, "ratings", fail)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"prompt": "a\\nb"}\n{"prompt": "bad"}\n{"prompt": "c"}'))
    out, err = run(capsys, "route my_router --prices prices.csv --lambda 0 --stdin-lines --json --jsonl")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["prompt"] for answer in answers] == ["a\nb", "bad", "c"]
    assert [answer["choice"] is None for answer in answers] == [False, True, False] and "resembles" in err


def test_push_writes_the_card_and_sends_nothing_unasked(folder, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda *_, **__: pytest.fail("asked the hub"))
    pd.DataFrame({"metric": ["apgr"], "estimate": [0.61]}).to_csv("measured.csv", index=False)
    words = [
        "--licence",
        "cc-by-4.0",
        "--data",
        "60 battles of ours.",
        "--dataset",
        "a/b",
        "--measured",
        "measured.csv",
    ]
    assert main(["push", "my_router", *words]) == 0
    out = capsys.readouterr().out
    card = Path("my_router/README.md").read_text()
    assert "nothing was sent" in out and "60 battles of ours." in card and "| apgr | 0.610 |" in card
    sent = []
    monkeypatch.setattr(
        "routing.routers.sharing.push_router",
        lambda *arguments, **settings: sent.append((arguments, settings)) or "hub:someone/mine@0",
    )
    assert main(["push", "my_router", "someone/mine", "--public"]) == 0
    assert capsys.readouterr().out == "hub:someone/mine@0\n"
    assert sent == [((Path("my_router"), "someone/mine"), {"private": False})]
