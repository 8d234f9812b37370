"""Routers: ratings of models that depend on the prompt. Each class is loaded when first used; some load torch."""

from __future__ import annotations

from typing import Any

from routing.routers.base import ROUTERS, Router, load_router, router_class

__all__ = ["Router", "load_router", "router_class", *ROUTERS]


def __getattr__(name: str) -> Any:
    if name not in ROUTERS:
        raise AttributeError(f"module 'routing.routers' has no attribute {name!r}")
    return router_class(name)
