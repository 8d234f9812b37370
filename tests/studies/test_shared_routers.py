"""The routers in ``results/routers/``: small, with a card, without text of others, and rating as written down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from routing.routers.base import find_learned, load_router

FOLDER = Path(__file__).parents[2] / "results" / "routers"
WRITTEN = json.loads((FOLDER / "ratings.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["bt", "sw", "mf"])
def test_a_shared_router_is_small_and_rates_as_written(name):
    router = load_router(FOLDER / name)
    ratings = router.ratings(WRITTEN["prompts"])
    np.testing.assert_allclose(ratings, WRITTEN["ratings"][name], atol=1e-4)  # embeddings differ by processor
    assert (ratings[0] == ratings[1]).all() == (name == "bt")
    files = {path.name: path.read_bytes() for path in (FOLDER / name).iterdir()}
    assert set(files) == {"router.json", "arrays.npz", "README.md"}
    assert sum(map(len, files.values())) < 1_000_000
    assert not re.search(rb"[A-Za-z]{3,} [A-Za-z]{3,} [A-Za-z]{3,}", files["arrays.npz"])  # no text
    card = files["README.md"].decode()
    assert "Arena" in card and "| mf |" in card and "license: " in card
    learned = find_learned(router, WRITTEN["prompts"])
    assert learned is None if name == "bt" else not learned.any()
