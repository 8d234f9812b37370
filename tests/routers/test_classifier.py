"""What holds for both classifiers, on models of a few thousand parameters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from routing.battles import count_pairs, swap_battles
from routing.files import lock_folder
from routing.order_audit import audit_order
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.routers import training
from routing.routers.base import load_router
from routing.routers.bert import BertRouter
from routing.routers.causal import CausalLMRouter
from routing.routers.classifier import TRAINED_PARTS
from routing.studies.order.original import ScoreTokenRouter, ThreeLabelRouter
from tests.tiny_models import save_tiny_model, worded_battles

BATTLES = worded_battles()
PROMPTS = BATTLES["prompt"].head(12).tolist() + ["", "a poem is a proof " * 20]
FAST = {
    "n_tiers": None,
    "max_length": 16,
    "batch_size": 8,
    "checkpoint_steps": 8,
    "learning_rate": 3e-3,
    "head_learning_rate": 1e-2,
}
FEWER = {"N_FOLDS": 2, "PENALTIES": (100.0, 1.0, 0.01)}  # to choose the first head by; `test_rating_head` has all


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, str]:
    return {kind: save_tiny_model(kind, tmp_path_factory.mktemp(kind)) for kind in ("bert", "llama")}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name, value in FEWER.items():
        monkeypatch.setattr(training, name, value)


KINDS = {
    "bert": (BertRouter, "bert"),
    "llama": (CausalLMRouter, "llama"),
    "bert as decoder": (CausalLMRouter, "bert"),
}


def make(kind: str, folders: dict[str, str], **settings):
    router, model = KINDS[kind]
    return router(name=folders[model], **(FAST | settings))


@cache
def _fitted(kind: str, model: str, train: str):
    router, _ = KINDS[kind]
    return router(name=model, train=train, **FAST).fit(BATTLES)


def fitted(kind: str, folders: dict[str, str], train: str = "all"):
    """A router to look at, not to change; trained once for all tests."""
    return _fitted(kind, folders[KINDS[kind][1]], train)


cases = pytest.mark.parametrize(
    ("kind", "train"),
    [("bert", "head"), ("bert", "last_layer"), ("llama", "all"), ("bert as decoder", "head")],
)


@cases
def test_neither_the_way_rows_are_written_nor_the_naming_of_a_pair_changes_anything(kind, train, folders, rng):
    router = fitted(kind, folders, train)
    other = swap_battles(BATTLES, rng.random(len(BATTLES)) < 0.5).iloc[rng.permutation(len(BATTLES))]
    again = make(kind, folders, train=train).fit(other)
    ratings = router.ratings(PROMPTS)
    assert ratings.tobytes() == again.ratings(PROMPTS).tobytes()
    weights = again.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in router.model.state_dict().items())
    assert ratings.shape == (14, 3) and np.isfinite(ratings).all()
    mirrored = router.outcome_probability(PROMPTS, "bee", "ant")[:, ::-1]
    np.testing.assert_array_equal(router.outcome_probability(PROMPTS, "ant", "bee"), mirrored)


@cases
def test_a_saved_classifier_comes_back_bit_for_bit(kind, train, folders, tmp_path):
    router = fitted(kind, folders, train)
    router.save(tmp_path / "router")
    again = load_router(tmp_path / "router")
    assert again == router and again.models == router.models and again.nu == router.nu
    assert again.ratings(PROMPTS).tobytes() == router.ratings(PROMPTS).tobytes()
    assert again.learning_curve.equals(router.learning_curve) and again.n_trained == router.n_trained
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("routing.routers.classifier.model_revision", lambda *_: "changed")
        with pytest.raises(ValueError, match=f"{router.base_revision}.*changed"):
            load_router(tmp_path / "router")
    with (tmp_path / "router" / "weights.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(ValueError, match="weights.safetensors is not the file that was saved"):
        load_router(tmp_path / "router")


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_prompt_is_rated_alike_whatever_stands_beside_it(kind, folders):
    router = fitted(kind, folders)
    alone = np.concatenate([router.ratings([prompt]) for prompt in PROMPTS])
    np.testing.assert_allclose(router.ratings(PROMPTS), alone, atol=0.02)  # bfloat16, where the device has it
    assert router.ratings([]).shape == (0, 3)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_training_finds_the_word_that_decides(kind, folders):
    """From random weights; the head alone starts it, and the rest goes on."""
    router = make(kind, folders, n_epochs=5, checkpoint_steps=30).fit(BATTLES)
    poems = BATTLES["prompt"].str.contains("poem").to_numpy()
    lead = router.margin(BATTLES["prompt"].tolist(), "ant", "bee")
    assert ((lead > 0) == poems).mean() > 0.95
    curve = router.learning_curve
    assert curve["step"].iloc[0] == 0 and curve["validation"].min() < curve["validation"].iloc[0]


@pytest.mark.parametrize("train", ["last_layer", "all"])
def test_the_start_stays_where_training_does_not_help(train, folders):
    """Rates that spoil everything end where rates too small to move anything do."""
    rates = [{"learning_rate": rate, "head_learning_rate": rate} for rate in (5.0, 1e-30)]
    wild, still = (make("bert", folders, train=train, weight_decay=0.0, **some).fit(BATTLES) for some in rates)
    assert wild.learning_curve["validation"].iloc[1:].min() > wild.learning_curve["validation"].iloc[0]
    np.testing.assert_array_equal(wild.ratings(PROMPTS), still.ratings(PROMPTS))


def test_without_early_stopping_the_last_step_stays(folders):
    """However bad: the same training with and without differs in what is kept alone."""
    wild = {"learning_rate": 0.3, "head_learning_rate": 0.3, "n_epochs": 2}
    last, best = (make("bert", folders, early_stopping=stops, **wild).fit(BATTLES) for stops in (False, True))
    pd.testing.assert_frame_equal(last.learning_curve, best.learning_curve)
    validation = last.learning_curve["validation"].dropna()
    assert validation.iloc[-1] > validation.min()
    assert not np.array_equal(last.ratings(PROMPTS), best.ratings(PROMPTS))


def test_without_a_word_to_go_by_ratings_stay_near_the_leaderboard(folders, rng):
    """Outcomes shuffled over the prompts: penalties that do best over folds are stiff, and ratings hardly move."""
    noise = BATTLES.assign(prompt=rng.permutation(BATTLES["prompt"].to_numpy()))
    routers = fitted("bert", folders, "head"), make("bert", folders, train="head").fit(noise)
    spread, noise_spread = (router.ratings(PROMPTS).std(axis=0).max() for router in routers)
    assert noise_spread < spread / 2


def test_what_is_trained_is_what_was_asked(folders):
    n_head = 3 * 16
    keep_last = {"early_stopping": False}
    routers = {part: make("bert", folders, train=part, **keep_last).fit(BATTLES) for part in TRAINED_PARTS}
    last = sum(p.numel() for p in routers["all"].model.backbone.encoder.layer[-1].parameters())
    whole = sum(p.numel() for p in routers["all"].model.backbone.parameters())
    assert [r.n_trained for r in routers.values()] == [n_head, n_head + last, n_head + whole]
    untrained = make("bert", folders)._load_backbone().encoder.layer[0].attention.self.query.weight
    below = {
        part: routers[part].model.backbone.encoder.layer[0].attention.self.query.weight for part in list(routers)[1:]
    }
    assert torch.equal(untrained, below["last_layer"]) and not torch.equal(untrained, below["all"])
    likelihood = make("bert", folders, train="last_layer", ties="davidson").fit(BATTLES)
    assert likelihood.n_trained == n_head + last + 1  # the tie parameter
    assert len(make("bert", folders, n_layers=1).fit(BATTLES).model.backbone.encoder.layer) == 1


# -- breaking off ----------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import torch
from routing.routers import training
from tests.routers.test_classifier import BATTLES, FEWER, make

vars(training).update(FEWER)
take_step, taken = torch.optim.AdamW.step, []

def step(optimizer, *arguments):
    taken.append(take_step(optimizer, *arguments))
    if len(taken) == 13:
        os.kill(os.getpid(), signal.SIGKILL)

torch.optim.AdamW.step = step
make("bert", {"bert": sys.argv[1]}, n_epochs=2, checkpoint_steps=5).fit(BATTLES, checkpoints=sys.argv[2])
"""


def test_a_training_that_was_killed_ends_in_the_same_weights(folders, tmp_path, monkeypatch):
    checkpoints = tmp_path / "checkpoints"
    command = [sys.executable, "-c", KILLED, folders["bert"], str(checkpoints)]
    root = str(Path(__file__).parents[2])
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stderr == "", "no bar and no report in a log"
    assert {path.name for path in checkpoints.iterdir()} <= {"step-5", "step-10", ".lock"}
    (checkpoints / "partial").mkdir()  # as of a kill while a checkpoint was written
    (checkpoints / "partial" / "model.safetensors").write_text("half")
    seen = []
    take_step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *some: seen.append(take_step(*some)))
    resumed = make("bert", folders, n_epochs=2, checkpoint_steps=5).fit(BATTLES, checkpoints=checkpoints)
    assert not checkpoints.exists()
    resumed_steps = len(seen)
    whole = make("bert", folders, n_epochs=2, checkpoint_steps=5).fit(BATTLES)
    assert resumed_steps == len(seen) - resumed_steps - 10, "at most one interval is lost"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert whole.learning_curve.equals(resumed.learning_curve)


def test_checkpoints_of_another_training_are_not_gone_on_from(folders, tmp_path):
    progress = tmp_path / "step-8" / "progress.json"
    progress.parent.mkdir()
    progress.write_text('{"training": "another"}')
    with pytest.raises(ValueError, match=f"{tmp_path} holds checkpoints of another training"):
        make("bert", folders).fit(BATTLES, checkpoints=tmp_path)
    with lock_folder(tmp_path), pytest.raises(ValueError, match=f"process {os.getpid()} is writing into {tmp_path}"):
        make("bert", folders).fit(BATTLES, checkpoints=tmp_path)
    assert progress.exists()


@pytest.mark.parametrize("train", ["last_layer", "all"])
def test_a_loss_that_is_not_finite_stops_everything(train, folders, tmp_path):
    router = make("llama", folders, train=train, learning_rate=1e30, head_learning_rate=1e30, max_grad_norm=1e30)
    with pytest.raises(RuntimeError, match="the loss is (nan|inf) after .* steps; lower learning_rate"):
        router.fit(BATTLES)


def test_training_leaves_the_random_state_as_it_was(folders):
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    make("llama", folders).fit(BATTLES)
    assert torch.equal(torch.get_rng_state(), states[0]) and np.random.get_state()[1].tolist() == states[1]


# -- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["head", "all"])
def test_going_on_keeps_the_tiers_and_learns_what_is_new(train, folders):
    start = make("llama", folders, train=train, n_tiers=2).fit(BATTLES)
    more = BATTLES.head(40).replace({"model_a": {"bee": "dog"}, "model_b": {"bee": "dog"}})
    more = more.assign(prompt="new " + more["prompt"])
    both = make("llama", folders, train=train, n_tiers=2).fit(pd.concat([BATTLES, more]), start=start)
    assert both.models == ("ant", "bee", "cat", "dog")
    np.testing.assert_array_equal(both.model_tier[:3], start.model_tier)
    ratings = dict(zip(both.models, both.leaderboard, strict=True))
    means = [
        np.mean([ratings[m] for m, t in zip(start.models, start.model_tier, strict=True) if t == tier])
        for tier in (0, 1)
    ]
    assert both.model_tier[3] == np.argmin(np.abs(np.array(means) - ratings["dog"]))
    assert len(both.learned_prompts) == BATTLES["prompt"].nunique() + more["prompt"].nunique()
    with pytest.raises(ValueError, match="start is a CausalLMRouter of .*same class and model"):
        make("bert", folders).fit(BATTLES, start=start)


def test_going_on_does_not_change_the_router_it_starts_from(folders):
    start = fitted("bert", folders)
    before = start.ratings(PROMPTS)
    make("bert", folders).fit(BATTLES.assign(prompt="why " + BATTLES["prompt"]), start=start)
    np.testing.assert_array_equal(start.ratings(PROMPTS), before)


# -- what cannot be done ---------------------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_explained(folders, monkeypatch):
    with pytest.raises(ValueError, match="train is 'most'; use one of head, last_layer, all"):
        BertRouter(train="most")
    with pytest.raises(ValueError, match="ties is 'drop'"):
        BertRouter(ties="drop")
    with pytest.raises(ValueError, match="n_epochs is 0"):
        BertRouter(n_epochs=0)
    with pytest.raises(ValueError, match="validation_share is 1"):
        BertRouter(validation_share=1)
    with pytest.raises(ValueError, match="lacks column prompt"):
        make("bert", folders).fit(BATTLES.drop(columns="prompt"))
    with pytest.raises(ValueError, match="encodes the prompts itself"):
        make("bert", folders).fit(BATTLES, np.ones((len(BATTLES), 3)))
    with pytest.raises(ValueError, match="all battles are on one prompt"):
        make("bert", folders).fit(BATTLES.assign(prompt="same"))
    with pytest.raises(RuntimeError, match="BertRouter has not been fitted"):
        make("bert", folders).ratings(["what"])
    with pytest.raises(ValueError, match="n_layers is 9; .* has 3 layers"):
        make("llama", folders, n_layers=9).fit(BATTLES)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for router in (BertRouter, CausalLMRouter):
        with pytest.raises(FileNotFoundError, match="nowhere/none: .*hf download nowhere/none"):
            router(name="nowhere/none").fit(BATTLES)


# -- the released forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "released", "model"), [(BertRouter, ThreeLabelRouter, "bert"), (CausalLMRouter, ScoreTokenRouter, "llama")]
)
def test_the_audit_clears_ours_and_finds_the_released_form(ours, released, model, folders):
    settings = FAST | {"name": folders[model], "train": "head"}
    pair = tuple(BATTLES[["model_a", "model_b"]].iloc[0])
    audits = [
        audit_order(lambda *_, kind=kind: kind(**settings), BATTLES, PROMPTS, pair).set_index("swap")
        for kind in (ours, released)
    ]
    assert (audits[0]["largest_change"] == 0).all() and (audits[0]["raised"] == "").all()
    assert audits[1].loc["pair when asked", "largest_change"] > 1e-3


@pytest.mark.parametrize(("router", "model"), [(ThreeLabelRouter, "bert"), (ScoreTokenRouter, "llama")])
def test_the_released_form_gives_ties_to_whoever_is_called_weak(router, model, folders):
    released = router(name=folders[model], **FAST).fit(BATTLES)
    p, exchanged = (released.win_probability(PROMPTS, *pair) for pair in (("ant", "bee"), ("bee", "ant")))
    np.testing.assert_array_equal(p, exchanged)  # the pair asked about is ignored
    fair = fitted("bert", folders)
    fair_p, fair_exchanged = (fair.win_probability(PROMPTS, *pair) for pair in (("ant", "bee"), ("bee", "ant")))
    np.testing.assert_allclose(fair_p + fair_exchanged, 1)
    outcome = released.outcome_probability(PROMPTS, "ant", "bee")
    assert (outcome[:, 1] == 0).all() and np.allclose(outcome.sum(axis=1), 1)
    with pytest.raises(TypeError, match="rates no models"):
        released.ratings(PROMPTS)
    # Ties are nobody's but the weak model's: on average P(strong) is the share of battles that it won outright.
    table = count_pairs(BATTLES)
    ratings = fit_bradley_terry(table, "davidson", 0.1).ratings.to_numpy()
    share = table.wins[ratings[:, None] > ratings].sum() / table.n_battles
    assert released.win_probability(BATTLES["prompt"].tolist(), "ant", "bee").mean() == pytest.approx(share, abs=0.1)
