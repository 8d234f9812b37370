"""The LiteLLM plugin on contexts of LiteLLM's shape, without LiteLLM (`litellm_mock.py` runs the real one)."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import sys
import threading
import time
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routing.integrations import litellm as integration
from routing.integrations.litellm import NARROWED, LiteLLMPlugin, read_text
from routing.routers.base import BradleyTerryRouter, Router
from tests.integrations.hard_and_easy import EASY, HARD, PRICES, QUALITY_PER_USD, fit_router

ROUTER = fit_router()


@dataclass
class Context:
    """What a plugin is given: the fields of LiteLLM's ``RoutingContext``."""

    structured_messages: list[dict[str, Any]]
    candidate_models: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)
    signals: dict[str, Any] = field(default_factory=dict)


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def run(plugin: LiteLLMPlugin, messages: list[dict], candidates=("large", "small"), metadata=None) -> Context:
    return asyncio.run(plugin.run(Context(messages, list(candidates), metadata or {})))


def make_plugin(router: Any = ROUTER, prices=PRICES, quality_per_usd=QUALITY_PER_USD, **settings) -> LiteLLMPlugin:
    return LiteLLMPlugin(router, prices, quality_per_usd, **settings)


def test_hard_and_easy_prompts_go_to_different_models():
    plugin = make_plugin()
    assert run(plugin, user(HARD)).candidate_models == ["large"]
    assert run(plugin, user(EASY)).candidate_models == ["small"]


def test_signals_hold_ratings_probabilities_and_expected_cost():
    signals = run(make_plugin(), user(HARD)).signals["routing"]
    assert signals["choice"] == "large" and signals["tried"] == ["large"]
    large, small = (signals["models"][name] for name in ("large", "small"))
    assert [large["rating"], small["rating"]] == ROUTER.ratings([HARD])[0].tolist()
    assert large["win_share"] + small["win_share"] == pytest.approx(1)
    outcomes = ROUTER.outcome_probability([HARD], "large", "small")[0]
    assert large["win_share"] == pytest.approx(outcomes[0] + outcomes[1] / 2)
    assert (large["price_usd"], small["price_usd"]) == (0.01, 0.001)
    json.dumps(signals)  # plain numbers, so that a logger can write them


def test_prices_per_token_count_all_messages():
    prices = {"large": (10.0, 30.0), "small": 0.001}
    messages = [{"role": "system", "content": "x" * 400}, *user(HARD + " " * (400 - len(HARD)))]
    models = run(make_plugin(prices=prices, output_tokens=100), messages).signals["routing"]["models"]
    assert models["large"]["price_usd"] == pytest.approx((200 * 10 + 100 * 30) / 1e6)
    assert models["small"]["price_usd"] == 0.001


def test_names_of_litellm_are_mapped_and_equal_deployments_stay_together():
    names = {"openai/big": "large", "azure/big": "large", "local/tiny": "small"}
    candidates = ["openai/big", "local/tiny", "azure/big", "openai/big"]
    plugin = make_plugin(names=names)
    assert run(plugin, user(HARD), candidates).candidate_models == ["openai/big", "azure/big", "openai/big"]
    assert run(plugin, user(EASY), candidates).candidate_models == ["local/tiny"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}}, "b"], "a\nb"),
        ([{"type": "text", "text": None}], ""),
    ],
)
def test_parts_of_a_message_are_joined(content, text):
    assert read_text({"role": "user", "content": content}) == text


def test_which_turn_is_routed():
    messages = [*user(HARD), {"role": "assistant", "content": "Suppose not."}, *user(EASY)]
    messages += [{"role": "tool", "content": "Prove that this is not read."}]
    assert run(make_plugin(), messages).candidate_models == ["small"]
    assert run(make_plugin(turn="conversation"), messages).candidate_models == ["large"]
    assert run(make_plugin(turn="conversation"), messages[1:]).candidate_models == ["small"]


class BrokenRouter(BradleyTerryRouter):
    models, nu = ("large", "small"), 1.0

    def ratings(self, prompts):
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("router", "messages", "candidates", "named"),
    [
        (ROUTER, user(HARD), ["other", "another"], "another"),
        (ROUTER, user(HARD), ["large", "other"], "other"),
        (ROUTER, user(HARD), [], "large"),
        (ROUTER, [], ["large", "small"], "0 messages"),
        (ROUTER, user([{"type": "image_url", "image_url": {"url": "data:"}}]), ["large", "small"], "1 messages"),
        (BrokenRouter(), user(HARD), ["large", "small"], "out of memory"),
        (ROUTER, [None], ["large", "small"], "NoneType"),
    ],
)
def test_whatever_goes_wrong_leaves_all_candidates_with_a_warning(router, messages, candidates, named, caplog):
    context = run(make_plugin(router), messages, candidates)
    assert context.candidate_models == candidates and context.signals == {}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and named in record.getMessage()


def test_a_choice_among_some_known_models_reports_each_unknown_one_once(caplog):
    plugin = make_plugin(prices={**PRICES, "priced": 0.1})
    for prompt, choice in ((HARD, "large"), (EASY, "small")):
        assert run(plugin, user(prompt), ["large", "priced", "small", "other"]).candidate_models == [choice]
    (record,) = caplog.records
    assert "other" in record.getMessage() and "priced" in record.getMessage() and "large" not in record.getMessage()


def test_a_group_of_one_model_is_left_alone(caplog):
    plugin = make_plugin(names={"azure/text": "openai/text"})
    for candidates in (["openai/text", "azure/text"], ["large"]):
        assert run(plugin, [], candidates).candidate_models == candidates
    assert caplog.records == []


def test_a_retry_goes_to_the_best_model_not_tried():
    first = run(make_plugin(), user(HARD))
    metadata = {
        "previous_models": [{"exception_type": "RateLimitError"}],
        NARROWED: first.candidate_models,
        "routing_plugin_signals": first.signals,
    }
    second = run(make_plugin(), user(HARD), metadata=metadata)
    assert second.candidate_models == ["small"]
    assert second.signals["routing"]["tried"] == ["large", "small"]
    third = run(make_plugin(), user(HARD), metadata=metadata | {"routing_plugin_signals": second.signals})
    assert third.candidate_models == ["large", "small"]
    # The same dict given to another request says nothing about that one.
    del metadata["previous_models"]
    assert run(make_plugin(), user(HARD), metadata=metadata).candidate_models == ["large"]


def test_an_earlier_narrowing_does_not_bind_a_fallback_to_another_group():
    narrowed = ["large"]
    run(make_plugin(), user(HARD), ["backup"], {NARROWED: narrowed})
    assert narrowed == ["backup"]


def test_concurrent_first_requests_load_the_router_once_and_never_block_the_loop(tmp_path, monkeypatch):
    BradleyTerryRouter.save(_leaderboard(), tmp_path / "saved")
    loads, threads = [], set()

    def load_slowly(folder) -> Router:
        loads.append(folder)
        threads.add(threading.current_thread())
        time.sleep(0.1)
        return ROUTER

    monkeypatch.setattr(integration, "load_router", load_slowly)
    plugin = make_plugin(tmp_path / "saved")

    async def burst() -> tuple[list[Context], int]:
        beats, done = 0, asyncio.Event()

        async def beat() -> None:
            nonlocal beats
            while not done.is_set():
                beats += 1
                await asyncio.sleep(0.005)

        heart = asyncio.create_task(beat())
        requests = (plugin.run(Context(user(HARD if i % 2 else EASY), ["large", "small"])) for i in range(50))
        answered = await asyncio.gather(*requests)
        done.set()
        await heart
        return answered, beats

    before = threading.active_count()
    answered, beats = asyncio.run(burst())
    assert [context.candidate_models for context in answered] == [["small"], ["large"]] * 25
    assert loads == [tmp_path / "saved"] and threading.main_thread() not in threads
    assert beats >= 5  # a loop that is blocked for 0.1 s would beat once or twice
    assert threading.active_count() <= before + 1


def test_a_plugin_has_one_thread_which_ends_with_it():
    before = set(threading.enumerate())
    plugin = make_plugin()
    for prompt in (HARD, EASY):
        run(plugin, user(prompt))
    (thread,) = set(threading.enumerate()) - before
    del plugin
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_saved_router_is_loaded_by_the_first_request(tmp_path):
    router = _leaderboard()
    router.save(tmp_path / "saved")
    context = run(make_plugin(str(tmp_path / "saved"), quality_per_usd=0.0), user(EASY))
    assert context.candidate_models == [router.models[int(np.argmax(router.constant_ratings))]]


def _leaderboard() -> BradleyTerryRouter:
    router = BradleyTerryRouter()
    router.models, router.nu, router.constant_ratings = ("large", "small"), 1.0, np.array([1.0, -1.0])
    return router


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"router": "no/such/folder"}, FileNotFoundError, "no/such/folder"),
        ({"turn": "first"}, ValueError, "first"),
        ({"prices": {"large": -1.0, "small": 0.0}}, ValueError, "large"),
        ({"prices": {"large": (-1.0, 30.0), "small": 0.0}}, ValueError, "large"),
        ({"prices": {"large": (1.0, float("nan")), "small": 0.0}}, ValueError, "large"),
        ({"quality_per_usd": float("inf")}, ValueError, "inf"),
    ],
)
def test_wrong_settings_raise_when_the_plugin_is_made(settings, error, named):
    with pytest.raises(error, match=named):
        make_plugin(**settings)


def test_the_plugin_of_the_readme_routes(tmp_path, monkeypatch):
    """Its first lines, which are also the proxy's ``my_plugin.py``; `litellm_mock.py` runs the whole section."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## In an application\n")[1].split("\n## ")[0].strip()
    assert len(section.splitlines()) < 25
    monkeypatch.chdir(tmp_path)
    _leaderboard().save("my_router")
    made: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "litellm", types.ModuleType("litellm"))
    exec(section.split("```python\n")[1].split("group = ")[0], made)
    assert run(made["plugin"], user(HARD), ["openai/small", "openai/large"]).candidate_models == ["openai/large"]


def test_no_module_of_the_package_imports_litellm_or_openai():
    imports = re.compile(r"^\s*(?:import|from) (?:litellm|openai)\b", re.MULTILINE)
    modules = Path(integration.__file__).parents[1].rglob("*.py")
    assert [path.name for path in modules if imports.search(path.read_text(encoding="utf-8"))] == []
