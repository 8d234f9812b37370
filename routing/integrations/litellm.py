"""A plugin for ``litellm.Router(plugins=[...])`` that sends each request to one model of its group.

LiteLLM (1.94 or newer) runs plugins before it picks a deployment of the model group that a request names. This one
narrows the group's models (``litellm_params.model`` of each deployment) to one; the rest stays LiteLLM's. Only its
asynchronous methods run plugins: ``await router.acompletion(...)`` and the proxy; ``router.completion(...)`` raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from routing.policy import MultiModelPolicy, price_per_call, win_share
from routing.routers.base import Router, load_router

logger = logging.getLogger(__name__)

CHARACTERS_PER_TOKEN = 4.0  # English
TURNS = {"last": ("user",), "conversation": ("user", "assistant")}  # roles of the messages that are routed on
NARROWED = "_routing_plugin_candidate_models"  # where a request's metadata hold what an earlier attempt was narrowed to
_index = lru_cache(pd.Index)  # making one takes longer than a choice


@dataclass(eq=False)
class LiteLLMPlugin:
    """Choose for each request the model of highest expected win share minus `quality_per_usd` times price.

    Where that fails, for want of known models, of text or by any exception, all candidates stay, with a warning of
    the logger ``routing.integrations.litellm``. A retry of a request goes to the best model that was not tried yet.

    Parameters
    ----------
    router : Router, str or Path
        A fitted router, or the folder of a saved one, which the first request loads.
    prices : mapping of model to float or pair of floats
        By the router's names: dollars per call, or dollars per million tokens of input and of output.
    quality_per_usd : float
        lambda, the expected win share that a dollar has to buy. Requests that come one by one share no budget: find
        it on a sample, by ``python -m routing evaluate`` or `MultiModelPolicy.with_budget`.
    names : mapping of str to str
        From LiteLLM's names of models (``openai/gpt-4o``) to the router's, where they differ.
    turn : {"last", "conversation"}
        Route on the last user turn, or on all user and assistant turns, of which an encoder reads the first
        `max_length` tokens. The price counts the text of all messages either way, 4 characters per token.
    output_tokens : float
        Expected length of an answer, for prices per token.

    Raises
    ------
    FileNotFoundError
        `router` is no folder.
    ValueError
        A price that is negative or not finite, or an unknown `turn`.
    """

    router: Router | str | Path
    prices: Mapping[str, float | tuple[float, float]]
    quality_per_usd: float
    names: Mapping[str, str] = field(default_factory=dict)
    turn: Literal["last", "conversation"] = "last"
    output_tokens: float = 264.0

    def __post_init__(self) -> None:
        if self.turn not in TURNS:
            raise ValueError(f"unknown turn {self.turn!r}; use one of {', '.join(TURNS)}")
        if not isinstance(self.router, Router) and not Path(self.router).is_dir():
            raise FileNotFoundError(f"{self.router} is no folder; give that of a saved router")
        rows = {model: (0, *price) if np.ndim(price) else (price, 0, 0) for model, price in self.prices.items()}
        columns = ["usd_per_call", "usd_per_million_input", "usd_per_million_output"]
        prices = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
        MultiModelPolicy(prices.T, self.quality_per_usd)  # raises if a number is wrong
        self._without_input = (prices["usd_per_call"] + price_per_call(prices, self.output_tokens, 0)).to_dict()
        self._per_input_token = price_per_call(prices, 0, 1).to_dict()
        # One thread, so that the router is loaded once; tokenizers do not stand calls from several.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="routing")
        self._reported: set[str] = set()

    @cached_property
    def _loaded(self) -> Router:
        return self.router if isinstance(self.router, Router) else load_router(self.router)

    async def run(self, context: Any) -> Any:
        """Narrow ``context.candidate_models`` to the choice, and return the context.

        ``context.signals["routing"]`` gets ``choice`` (the router's name), ``tried`` (the choices of all attempts at
        this request) and ``models`` (of each: rating, win_share, price_usd). LiteLLM writes the signals into the
        request's metadata as ``routing_plugin_signals``.
        """
        try:
            candidates, metadata = context.candidate_models, context.metadata
            if NARROWED in metadata:  # without a new narrowing it binds a retry, and even a fallback to another group
                metadata[NARROWED][:] = candidates
            if len({self.names.get(model, model) for model in candidates}) == 1:
                return context
            last = metadata.get("routing_plugin_signals") if metadata.get("previous_models") else None  # on a retry
            work = self._decide, candidates, context.structured_messages, (last or {}).get("routing", {})
            decision = await asyncio.get_running_loop().run_in_executor(self._worker, *work)
            kept = [model for model in candidates if self.names.get(model, model) == decision["choice"]]
            context.candidate_models, context.signals["routing"] = kept, decision
        except Exception as error:  # a message of ours says all, of other errors the traceback is shown
            message = "not routed, all candidates stay (%s): %s"
            logger.warning(message, context.candidate_models, error, exc_info=not isinstance(error, ValueError))
        return context

    def _decide(self, candidates: Sequence[str], messages: Sequence[Mapping], last: Mapping) -> dict[str, Any]:
        """What `run` writes into the signals; `last` is what it wrote at the request's last attempt."""
        router, names = self._loaded, {self.names.get(model, model): model for model in candidates}
        known = sorted(names.keys() & set(router.models) & self._per_input_token.keys())
        if len(known) < 2:
            rated, priced = ", ".join(router.models), ", ".join(self._per_input_token)
            raise ValueError(f"a choice needs two models that the router rates ({rated}) and with prices ({priced})")
        if unknown := {names[name] for name in names.keys() - set(known)} - self._reported:
            logger.warning("never chosen, for want of a rating or a price: %s", ", ".join(sorted(unknown)))
            self._reported |= unknown
        tried = last.get("tried", [])
        if not (left := [name for name in known if name not in tried]):
            raise ValueError(f"each was tried: {', '.join(tried)}")
        texts = [(message.get("role"), read_text(message)) for message in messages]
        turns = [text for role, text in texts if role in TURNS[self.turn]]
        prompt = "\n\n".join(turns[-1:] if self.turn == "last" else turns)
        if not prompt.strip():
            raise ValueError(f"no text in what is routed on, turn={self.turn!r} of {len(messages)} messages")
        tokens = sum(len(text) for _, text in texts) / CHARACTERS_PER_TOKEN
        price = {name: self._without_input[name] + tokens * self._per_input_token[name] for name in known}
        ratings = pd.DataFrame(router.ratings([prompt]), columns=_index(tuple(router.models)))
        rows = (table.to_numpy()[0].tolist() for table in (ratings, win_share(ratings, router.nu)))
        rating, share = (dict(zip(router.models, row, strict=True)) for row in rows)
        columns, costs = _index(tuple(left)), np.array([price[name] for name in left])
        policy = MultiModelPolicy(pd.Series(costs, columns), self.quality_per_usd)
        choice = str(policy.choose(pd.DataFrame(np.array([[share[name] for name in left]]), columns=columns))[0])
        parts = {"rating": rating, "win_share": share, "price_usd": price}
        models = {name: {part: values[name] for part, values in parts.items()} for name in known}
        return {"choice": choice, "tried": [*tried, choice], "models": models}


def read_text(message: Mapping) -> str:
    """Return the text of a chat message: its content, or the text parts of it joined by line ends."""
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else content
    return "\n".join(filter(None, (part if isinstance(part, str) else part.get("text") for part in parts)))
