"""The plugin inside the real LiteLLM, with mock responses and no network: ``make test-litellm`` runs it.

It has an environment of its own, since LiteLLM pins older versions of packages that the lock pins too.
"""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # read when litellm is imported: no download of prices

import asyncio
import re
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from unittest import TestCase

import litellm
import numpy as np
import openai
import yaml

from routing.integrations.litellm import LiteLLMPlugin
from routing.routers.base import BradleyTerryRouter
from tests.integrations.hard_and_easy import EASY, HARD, PRICES, QUALITY_PER_USD, fit_router

PROJECT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?:sh|python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = {"openai/large": "large", "openai/small": "small"}
FAILURE = "litellm.InternalServerError"  # a mock response that LiteLLM raises
N_REQUESTS = 50
OVERHEAD_MS = 2.0
START_S = 180.0  # of the proxy


def make_plugin(router=None) -> LiteLLMPlugin:
    return LiteLLMPlugin(router or fit_router(), PRICES, QUALITY_PER_USD, names=NAMES)


def make_router(plugin: LiteLLMPlugin, large: str = "large", **settings) -> litellm.Router:
    """Two deployments in group auto, which answer with their names, and one in group backup."""
    answers = {("auto", "openai/large"): large, ("auto", "openai/small"): "small", ("backup", "openai/other"): "other"}
    group = [
        {"model_name": name, "litellm_params": {"model": model, "api_key": "none", "mock_response": answer}}
        for (name, model), answer in answers.items()
    ]
    return litellm.Router(model_list=group, plugins=[plugin], **settings)


async def ask(router: litellm.Router, content, **settings) -> str:
    messages = [{"role": "user", "content": content}]
    answer = await router.acompletion(model="auto", messages=messages, **settings)
    if settings.get("stream"):
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
    return answer.choices[0].message.content


async def check_choices() -> None:
    router = make_router(make_plugin())
    for stream in (False, True):
        for prompt, choice in ((HARD, "large"), (EASY, "small")):
            assert await ask(router, prompt, stream=stream) == choice
            assert await ask(router, [{"type": "text", "text": prompt}], stream=stream) == choice
    metadata: dict = {}
    await ask(router, HARD, metadata=metadata)
    signals = metadata["routing_plugin_signals"]["routing"]
    assert signals["choice"] == "large" and signals["models"]["small"]["price_usd"] == PRICES["small"]
    try:
        router.completion(model="auto", messages=[{"role": "user", "content": HARD}])
    except ValueError as error:
        assert "synchronous" in str(error)
    else:
        raise AssertionError("a synchronous call was answered without the plugin")
    print("hard and easy prompts go to different models, streaming too; signals are in the request's metadata")


async def check_failures() -> None:
    assert await ask(make_router(make_plugin(), FAILURE, num_retries=1), HARD) == "small"
    with_backup = make_router(make_plugin(), FAILURE, num_retries=0, fallbacks=[{"auto": ["backup"]}])
    assert await ask(with_backup, HARD) == "other"
    broken = BradleyTerryRouter()
    broken.models = ("large", "small")  # and no ratings
    nameless = LiteLLMPlugin(fit_router(), PRICES, QUALITY_PER_USD)
    for plugin in (make_plugin(broken), nameless):
        with TestCase().assertLogs("routing.integrations.litellm", "WARNING"):
            assert await ask(make_router(plugin), HARD) in ("large", "small")
    print("a failing model's request goes to the next best or to the fallback; a failing plugin leaves all candidates")


async def check_threads() -> None:
    router = make_router(make_plugin())
    before = count_threads()
    prompts = [HARD if number % 2 else EASY for number in range(N_REQUESTS)]
    for stream in (False, True, False, True):
        answers = await asyncio.gather(*(ask(router, prompt, stream=stream) for prompt in prompts))
        assert answers == ["large" if prompt == HARD else "small" for prompt in prompts]
        assert count_threads() - before == {"routing_0": 1}, (before, count_threads())
    print(f"{N_REQUESTS} concurrent requests, four times: one thread more than before the first")


def count_threads() -> Counter[str]:
    """Threads by name, without those of the two pools that LiteLLM answers from, with a plugin or without."""
    names = [thread.name for thread in threading.enumerate()]
    return Counter(name for name in names if not name.startswith(("AnyIO", "asyncio")))


async def measure_overhead() -> None:
    """Processor time of the plugin per request, without the router's ratings, in the best of some rounds.

    Processor time, as other programs' work would count in any other; the ratings are timed where the plugin asks.
    """
    fitted, leaderboard, messages = fit_router(), BradleyTerryRouter(), [{"role": "user", "content": HARD}]
    leaderboard.models, leaderboard.nu, leaderboard.constant_ratings = fitted.models, fitted.nu, np.array([1.0, -1.0])
    for router in (leaderboard, fitted):
        rate, spent, rounds = router.ratings, [], []

        def timed(prompts, rate=rate, spent=spent):
            begin = time.thread_time()
            ratings = rate(prompts)
            spent.append(time.thread_time() - begin)
            return ratings

        router.ratings = timed
        plugin = make_plugin(router)
        for _ in range(10):
            fields = {"raw_messages": messages, "structured_messages": messages, "candidate_models": list(NAMES)}
            contexts = [litellm.types.router.RoutingContext(**fields) for _ in range(30)]
            spent.clear()
            begin = time.process_time()
            for context in contexts:
                assert (await plugin.run(context)).candidate_models == ["openai/large"]
            rounds.append((time.process_time() - begin - sum(spent), sum(spent)))
        overhead, ratings = np.min(rounds, axis=0) / len(contexts) * 1e3
        print(f"{type(router).__name__}: overhead {overhead:.2f} ms per request, besides {ratings:.2f} ms for ratings")
        assert overhead <= OVERHEAD_MS


def check_readme(folder: Path) -> None:
    """The README's router is trained, its application answers, and its proxy serves OpenAI's client."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    train, *_ = BLOCK.findall(text.split("\n## Use it on your own models\n")[1])
    application, proxy = BLOCK.findall(text.split("\n## In an application\n")[1].split("\n## ")[0])
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "ROUTING_CACHE": str(folder / "cache")}
    settings = {"cwd": folder, "env": environment}
    train = train.replace(".venv/bin/python", shlex.quote(sys.executable))
    subprocess.run(["sh", "-e", "-c", train], check=True, stdout=subprocess.DEVNULL, **settings)
    done = subprocess.run(
        [sys.executable, "-c", application], check=True, stdout=subprocess.PIPE, text=True, **settings
    )
    assert done.stdout.strip() == "large", done.stdout
    print("README's application answers:", done.stdout.strip())
    (folder / "my_plugin.py").write_text(application.split("group = ")[0])
    config = yaml.safe_load(proxy)
    for deployment in config["model_list"]:
        parameters = deployment["litellm_params"]
        parameters |= {"api_key": "none", "mock_response": f"I am {parameters['model']}."}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    serve(folder, settings)


def serve(folder: Path, settings: dict) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    key = "sk-" + secrets.token_hex(32)
    settings["env"] |= {"LITELLM_MASTER_KEY": key}
    command = [str(Path(sys.executable).with_name("litellm")), "--config", "config.yaml", "--host", "127.0.0.1"]
    with open(folder / "proxy.log", "w") as log:
        proxy = subprocess.Popen([*command, "--port", port], stdout=log, stderr=log, **settings)
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}", api_key=key, timeout=60, max_retries=0)
        deadline = time.monotonic() + START_S
        while True:
            try:
                client.models.list()
                break
            except openai.APIConnectionError:
                assert proxy.poll() is None and time.monotonic() < deadline, (folder / "proxy.log").read_text()[-3000:]
                time.sleep(0.5)
        for prompt, answer in ((HARD, "I am openai/large."), (EASY, "I am openai/medium.")):
            request = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
            assert client.chat.completions.create(**request).choices[0].message.content == answer
            chunks = client.chat.completions.create(**request, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer
        print("the proxy with README's YAML routes OpenAI's client, streaming too")
    finally:
        proxy.terminate()
        try:
            proxy.wait(30)
        except subprocess.TimeoutExpired:
            proxy.kill()


async def check_in_one_process() -> None:
    await check_threads()
    await check_choices()
    await check_failures()
    await measure_overhead()


if __name__ == "__main__":
    print("litellm", version("litellm"))
    asyncio.run(check_in_one_process())
    with tempfile.TemporaryDirectory() as temporary:
        check_readme(Path(temporary))
