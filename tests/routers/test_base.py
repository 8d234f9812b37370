"""What holds for every router: mirrored pairs, order-free fitting, saving, errors."""

from __future__ import annotations

import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.battles import encode_battles, swap_battles
from routing.embeddings import BUNDLED_MODEL, PromptEncoder, hash_folder
from routing.evaluation.calibration import outcome_log_loss
from routing.files import hash_file
from routing.ratings.ties import outcome_probability
from routing.routers import base
from routing.routers.base import BradleyTerryRouter, RandomRouter, load_router
from routing.routers.bert import BertRouter
from routing.routers.factorization import MatrixFactorizationRouter
from routing.routers.similarity import SimilarityRouter
from routing.studies.simulated.arena import simulate_arena
from tests.conftest import QUESTIONS, battle_tables, embed, link_bundled_model
from tests.test_battles import exchanged_and_shuffled

ENCODER = PromptEncoder(embed, cache=False)
MAKERS = {
    "bradley_terry": lambda: BradleyTerryRouter(prior_strength=0.1),
    "random": lambda: RandomRouter(seed=1),
    "similarity over tiers": lambda: SimilarityRouter(n_tiers=2, prior_strength=0.1, encoder=ENCODER),
    "similarity over models": lambda: SimilarityRouter(n_tiers=None, prior_strength=0.1, encoder=ENCODER),
    "similarity, half wins": lambda: SimilarityRouter(n_tiers=3, prior_strength=0.1, ties="half", encoder=ENCODER),
    "factorization": lambda: MatrixFactorizationRouter(
        dimension=4, n_epochs=2, n_seeds=2, batch_size=8, learning_rate=0.01, prior_strength=0.1, encoder=ENCODER
    ),
    "factorization, released form": lambda: MatrixFactorizationRouter(
        dimension=4, n_epochs=1, n_seeds=1, batch_size=8, reference=True, prior_strength=0.1, encoder=ENCODER
    ),
}
every_router = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def with_another_prompt(battles: pd.DataFrame) -> pd.DataFrame:
    """Matrix factorization holds out a prompt and learns from the others."""
    return pd.concat([battles, battles.iloc[-1:].assign(prompt="another")], ignore_index=True)


@pytest.fixture(scope="module")
def battles() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    names = np.array(["ant", "bee", "cat", "dog"])
    first = rng.integers(4, size=300)
    second = (first + rng.integers(1, 4, size=300)) % 4
    return pd.DataFrame(
        {
            "prompt": [f"question {n}" for n in rng.integers(40, size=300)],
            "model_a": names[first],
            "model_b": names[second],
            "winner": rng.choice(["model_a", "tie", "model_b"], size=300, p=[0.4, 0.3, 0.3]),
        }
    )


@every_router
def test_naming_the_pair_the_other_way_round_mirrors_the_answer(make, battles):
    router = make().fit(battles)
    p, mirrored = (router.win_probability(QUESTIONS, *pair) for pair in (("ant", "bee"), ("bee", "ant")))
    np.testing.assert_allclose(p, 1 - mirrored, atol=1e-12)
    q, mirrored = (router.outcome_probability(QUESTIONS, *pair) for pair in (("ant", "bee"), ("bee", "ant")))
    np.testing.assert_array_equal(q, mirrored[:, ::-1])
    np.testing.assert_allclose(q.sum(axis=1), 1, atol=1e-12)


@every_router
@settings(max_examples=10)
@given(table=battle_tables(max_rows=12), data=st.data())
def test_fitting_does_not_see_exchange_or_order(make, table, data):
    table = with_another_prompt(table)
    other, _ = exchanged_and_shuffled(data, table)
    first, second = make().fit(table), make().fit(other)
    assert first.models == second.models and first.nu == second.nu
    assert first.ratings(QUESTIONS).tobytes() == second.ratings(QUESTIONS).tobytes()


@every_router
def test_given_embeddings_equal_the_encoder_s(make, battles):
    shuffled = battles.sample(frac=1, random_state=1)  # its index is out of order, and embeddings follow rows
    fitted, given_vectors = make().fit(shuffled), make().fit(shuffled, embed(shuffled["prompt"].tolist()))
    if hasattr(fitted, "encoder"):
        np.testing.assert_array_equal(fitted.ratings(QUESTIONS), given_vectors.ratings(embed(QUESTIONS)))
    else:
        np.testing.assert_array_equal(fitted.ratings(QUESTIONS), given_vectors.ratings(QUESTIONS))


@every_router
def test_ratings_of_a_prompt_do_not_depend_on_the_others(make, battles):
    router = make().fit(battles)
    together = router.ratings(QUESTIONS)
    alone = np.concatenate([router.ratings([question]) for question in QUESTIONS])
    np.testing.assert_allclose(together, alone, atol=2e-6)  # similarities are float32, summed in blocks
    assert together.shape == (4, 4) and router.models == ("ant", "bee", "cat", "dog")


def test_what_cannot_be_asked_is_named(battles):
    router = SimilarityRouter(n_tiers=2, encoder=ENCODER)
    with pytest.raises(RuntimeError, match="SimilarityRouter has not been fitted"):
        router.win_probability(QUESTIONS, "ant", "bee")
    router.fit(battles)
    with pytest.raises(ValueError, match="no rating for 'elk'.* ant, bee, cat, dog"):
        router.win_probability(QUESTIONS, "ant", "elk")
    with pytest.raises(ValueError, match="'ant' against itself"):
        router.outcome_probability(QUESTIONS, "ant", "ant")
    with pytest.raises(ValueError, match="one string"):
        BradleyTerryRouter().fit(battles).ratings("What?")
    with pytest.raises(ValueError, match="one string"):
        SimilarityRouter(n_tiers=2, encoder=ENCODER).fit(battles).ratings("What?")
    with pytest.raises(ValueError, match="width 3; this router learned on width 8"):
        router.ratings(np.ones((2, 3)))
    with pytest.raises(ValueError, match="lacks column prompt"):
        SimilarityRouter(encoder=ENCODER).fit(battles.drop(columns="prompt"))
    with pytest.raises(ValueError, match="2 embeddings for 300 battles"):
        SimilarityRouter(encoder=ENCODER).fit(battles, np.ones((2, 3)))


@every_router
def test_each_battle_is_predicted_for_its_own_pair(make, battles):
    router = make().fit(battles)
    predicted = router.battle_probability(battles[:20])
    for row, battle in enumerate(battles[:20].itertuples()):
        alone = router.outcome_probability([battle.prompt], battle.model_a, battle.model_b)[0]
        np.testing.assert_allclose(predicted[row], alone, atol=1e-6)
    np.testing.assert_array_equal(router.battle_probability(swap_battles(battles[:20])), predicted[:, ::-1])
    with pytest.raises(ValueError, match="no rating for elk"):
        router.battle_probability(battles.assign(model_a="elk"))


# --- saving

SAVED = {
    "bradley_terry": BradleyTerryRouter,
    "random": lambda: RandomRouter(seed=3),
    "similarity": lambda: SimilarityRouter(gamma=20.0, n_tiers=2),
    "factorization": lambda: MatrixFactorizationRouter(dimension=4, n_epochs=1, n_seeds=1),
}


@pytest.mark.parametrize("make", SAVED.values(), ids=SAVED)
def test_a_saved_router_comes_back_bit_for_bit(make, battles, tmp_path):
    vectors = embed(battles["prompt"].tolist())
    router = make().fit(battles, vectors)
    router.save(tmp_path / "router")
    again = load_router(tmp_path / "router")
    assert type(again) is type(router)
    queries = embed(QUESTIONS)
    assert again.outcome_probability(queries, "ant", "cat").tobytes() == (
        router.outcome_probability(queries, "ant", "cat").tobytes()
    )
    assert again == router  # the settings, the encoder's among them
    with pytest.raises(FileExistsError, match="is there already"):
        router.save(tmp_path / "router")


@pytest.fixture
def saved(battles, tmp_path):
    BradleyTerryRouter().fit(battles).save(tmp_path / "router")
    return tmp_path / "router"


def rewrite(saved, **changes) -> None:
    """Change what router.json says, with a checksum that is right again."""
    content = json.loads((saved / "router.json").read_text()) | changes
    content.pop("checksum", None)
    (saved / "router.json").write_text(json.dumps(content | {"checksum": base._checksum(content)}))


def relist(saved) -> None:
    """Write down the hashes and sizes that the files of a router have now."""
    files = [path for path in saved.iterdir() if path.name != "router.json"]
    rewrite(saved, sha256={p.name: hash_file(p) for p in files}, bytes={p.name: p.stat().st_size for p in files})


def test_a_folder_that_is_not_what_was_saved_is_refused(saved, battles, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no saved router"):
        load_router(tmp_path / "elsewhere")
    rewrite(saved, format_version=99)
    with pytest.raises(ValueError, match="format version 99, this package reads 2 and 3"):
        load_router(saved)
    rewrite(saved, format_version=3, router="os.system")
    with pytest.raises(ValueError, match="unknown router 'os.system'"):
        load_router(saved)
    rewrite(saved, router="BradleyTerryRouter")
    np.savez(saved / "arrays.npz", constant_ratings=np.zeros(4))
    with pytest.raises(ValueError, match="sha256 differs"):
        load_router(saved)
    for text in ("{", "[" * 100_000, "[]", '{"format_version": 3}', '{"format_version": true}'):
        (saved / "router.json").write_text(text)
        with pytest.raises(ValueError, match="router.json"):
            load_router(saved)


def test_no_flipped_bit_changes_a_router_unnoticed(saved):
    """A bit of every byte of router.json: the folder is refused, or the router is the one that was saved."""
    path, expected = saved / "router.json", load_router(saved)
    content, refused = path.read_bytes(), 0
    for place in range(0, 8 * len(content), 7):  # each place in a byte as often as the others
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            router = load_router(saved)
        except (ValueError, FileNotFoundError):
            refused += 1
            continue
        assert router == expected and router.models == expected.models and router.nu == expected.nu, flipped
        np.testing.assert_array_equal(router.ratings(["a"]), expected.ratings(["a"]))
    assert refused > len(content)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"models": ["bee", "ant", "cat", "dog"]}, "models"),
        ({"models": ["ant", "ant", "bee", "cat"]}, "models"),
        ({"models": ["ant", "bee", "cat", 7]}, "models"),
        ({"nu": -1.0}, "nu"),
        ({"nu": float("nan")}, "nu"),
        ({"nu": True}, "nu"),
        ({"settings": {"prior_strength": "1"}}, "prior_strength"),
        ({"settings": {"prior_strength": -1.0}}, "prior_strength"),
        ({"settings": {"ratings": 1.0}}, "ratings"),
        ({"settings": []}, "settings"),
        ({"surprise": 1}, "surprise"),
        ({"sha256": {}, "bytes": {}}, "arrays"),
        ({"sha256": {"../arrays.npz": "0" * 64}, "bytes": {"../arrays.npz": 1}}, r"\.\./arrays.npz"),
        ({"sha256": {"/etc/passwd": "0" * 64}, "bytes": {"/etc/passwd": 1}}, "/etc/passwd"),
        ({"sha256": {"arrays.npz": "0"}}, "sha256"),
        ({"bytes": {"arrays.npz": 5}}, "size"),
    ],
)
def test_what_a_description_may_not_say_is_named(saved, changes, named):
    rewrite(saved, **changes)
    with pytest.raises(ValueError, match=named):
        load_router(saved)


@pytest.mark.parametrize("name", ["constant_ratings", "leaderboard", "model_tier"])
def test_arrays_and_models_are_equally_many(saved, name):
    for array in (np.zeros(3), np.zeros((4, 1)), np.zeros(())):
        np.savez(saved / "arrays.npz", **{name: array})
        relist(saved)
        with pytest.raises(ValueError, match=f"arrays.npz.*{name}.*4 models"):
            load_router(saved)


def test_files_of_a_router_do_not_lead_elsewhere(saved, tmp_path):
    load_router(saved)
    (saved / "arrays.npz").rename(tmp_path / "elsewhere.npz")
    (saved / "arrays.npz").symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(ValueError, match="arrays.npz is a link"):
        load_router(saved)


class Trap:
    def __reduce__(self):
        return exit, ("code of a stranger ran",)


def test_arrays_are_no_larger_than_their_file_and_run_nothing(saved):
    ratings = np.zeros(4)
    for arrays in ({"constant_ratings": np.array([Trap()])}, {"ratings": ratings}, {"models": ratings}):
        np.savez(saved / "arrays.npz", **arrays)
        relist(saved)
        with pytest.raises(ValueError, match="arrays.npz"):
            load_router(saved)
    np.savez_compressed(saved / "arrays.npz", constant_ratings=np.zeros(10**7))
    relist(saved)
    with pytest.raises(ValueError, match="arrays.npz holds no arrays .* is compressed"):
        load_router(saved)
    with zipfile.ZipFile(saved / "arrays.npz", "w") as archive, archive.open("constant_ratings.npy", "w") as stream:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(stream, header)
    relist(saved)
    with pytest.raises(ValueError, match="arrays.npz holds no arrays"):
        load_router(saved)


def test_racing_saves_leave_one_whole_router_and_nothing_else(battles, tmp_path):
    router, start = BradleyTerryRouter().fit(battles), threading.Barrier(4)

    def save(number: int) -> str:
        start.wait()
        try:
            router.save(tmp_path / "router")
        except FileExistsError as error:
            return str(error)
        return "saved"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(save, range(4)))
    assert outcomes.count("saved") == 1 and all(str(tmp_path) in text for text in outcomes if text != "saved")
    np.testing.assert_array_equal(load_router(tmp_path / "router").ratings(["a"]), router.ratings(["a"]))
    assert [path.name for path in tmp_path.iterdir()] == ["router"]


def test_what_a_killed_save_left_is_removed_by_the_next(saved, battles):
    (left := saved.with_name(".another.0123abcd.partial")).mkdir()
    (left / "arrays.npz").touch()
    BradleyTerryRouter().fit(battles).save(saved.with_name("another"))
    assert not left.exists()


@pytest.fixture(scope="module")
def own_encoder(tmp_path_factory):
    """A folder with a small encoder, whose path is given as relative to its parent."""
    return link_bundled_model(tmp_path_factory.mktemp("models") / "enc")


def test_a_changed_encoder_is_refused_with_both_hashes(own_encoder, battles, tmp_path, monkeypatch):
    monkeypatch.chdir(own_encoder.parent)
    encoder = PromptEncoder("enc", cache=False)
    router = SimilarityRouter(n_tiers=2, encoder=encoder).fit(battles, embed(battles["prompt"].tolist()))
    router.save(tmp_path / "router")
    monkeypatch.chdir(tmp_path)
    assert load_router("router").encoder.name == str(own_encoder)
    was = hash_folder(own_encoder)
    (own_encoder / "vocab.txt").unlink()
    (own_encoder / "vocab.txt").write_text("[PAD]")
    with pytest.raises(ValueError, match=f"enc has changed.*{hash_folder(own_encoder)}.*{was}"):
        load_router("router")
    content = json.loads((tmp_path / "router" / "router.json").read_text())
    rewrite(tmp_path / "router", settings=content["settings"] | {"encoder": {"name": "enc", "max_length": "8"}})
    with pytest.raises(ValueError, match="max_length = '8'"):
        load_router("router")


def test_an_encoder_on_a_hub_is_saved_with_its_commit(battles, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr("routing.embeddings.model_revision", lambda name, revision: commit)
    encoder = PromptEncoder("nobody/encoder", cache=False)
    SimilarityRouter(n_tiers=2, encoder=encoder).fit(battles, embed(battles["prompt"].tolist())).save(tmp_path / "r")
    assert load_router(tmp_path / "r").encoder == PromptEncoder("nobody/encoder", revision=commit)


def test_a_router_that_cannot_be_written_leaves_nothing(battles, tmp_path):
    with pytest.raises(ValueError, match="encoder is a function"):
        SimilarityRouter(n_tiers=2, encoder=ENCODER).fit(battles).save(tmp_path / "router")
    assert list(tmp_path.iterdir()) == []


# --- baselines


def test_random_ratings_depend_on_text_and_seed_alone(battles):
    router = RandomRouter(seed=1).fit(battles)
    np.testing.assert_array_equal(router.ratings(QUESTIONS), router.ratings(QUESTIONS[::-1])[::-1])
    assert not np.array_equal(router.ratings(QUESTIONS), RandomRouter(seed=2).fit(battles).ratings(QUESTIONS))
    drawn = router.ratings([f"prompt {n}" for n in range(2000)])
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.05


UNBEATEN = pd.DataFrame(
    [("q", "new", "old", "model_a")] * 2 + [("r", "old", "new", "tie")] * 3,
    columns=["prompt", "model_a", "model_b", "winner"],
)
DEFAULTS = {
    "bradley_terry": BradleyTerryRouter,
    "similarity": lambda **s: SimilarityRouter(encoder=ENCODER, **s),
    "factorization": lambda **s: MatrixFactorizationRouter(n_epochs=1, n_seeds=1, encoder=ENCODER, **s),
}


@pytest.mark.parametrize("make", DEFAULTS.values(), ids=DEFAULTS)
@pytest.mark.parametrize(
    ("table", "named"),
    [(UNBEATEN, "new never lost and old never won"), (UNBEATEN[:2], "new|old"), (UNBEATEN[2:], "all battles are ties")],
    ids=["no loss", "wins alone", "ties alone"],
)
def test_battles_without_a_finite_estimate_are_refused_but_for_a_prior(make, table, named):
    table = with_another_prompt(table)
    with pytest.raises(ValueError, match=rf"({named}).*prior_strength"):
        make().fit(table)
    router = make(prior_strength=1.0).fit(table)
    assert np.abs(router.ratings(QUESTIONS)).max() < 3 and 0 < router.nu < 20


def test_a_random_router_needs_no_estimate():
    for table, nu in ((UNBEATEN[:2], 1 / 4), (UNBEATEN[2:], 10)):
        assert RandomRouter().fit(table).nu == pytest.approx(nu)


@every_router
def test_win_probability_and_expected_score_agree_with_the_outcomes(make, battles):
    router = make().fit(battles)
    win, tie, loss = router.outcome_probability(QUESTIONS, "ant", "bee").T
    np.testing.assert_allclose(router.win_probability(QUESTIONS, "ant", "bee"), win / (win + loss), atol=1e-12)
    np.testing.assert_allclose(router.expected_score(QUESTIONS, "ant", "bee"), win + tie / 2, atol=1e-12)
    margin = router.margin(QUESTIONS, "ant", "bee")  # log-odds of a win, but where ties were half wins of the score
    odds = router.expected_score if getattr(router, "ties", "") == "half" else router.win_probability
    np.testing.assert_allclose(odds(QUESTIONS, "ant", "bee"), 1 / (1 + np.exp(-margin)), atol=1e-12)


# --- recovery of a known truth


@pytest.mark.parametrize(
    "make",
    [
        lambda: SimilarityRouter(gamma=1e4, n_tiers=None, prior_strength=5.0),
        lambda: MatrixFactorizationRouter(dimension=16, learning_rate=3e-3, n_epochs=12, n_seeds=2),
    ],
    ids=["similarity", "factorization"],
)
def test_a_prompt_helps_where_the_truth_says_so(make, rng):
    """Topic and difficulty are seen through noise; held-out log-loss lies between Bradley-Terry's and the truth's."""
    arena = simulate_arena(0, n_models=6)
    prompts = arena.sample_prompts(2400, rng)
    kinds = pd.get_dummies(prompts["topic"] + prompts["difficulty"]).to_numpy(dtype=float)
    seen = np.hstack([kinds + 0.2 * rng.normal(size=kinds.shape), np.full((len(kinds), 1), 0.3)])
    vector_of = dict(zip(prompts["prompt"], seen, strict=True))
    train = arena.sample_battles(prompts[:1600], 6000, rng)
    test = arena.sample_battles(prompts[1600:], 3000, rng)
    codes = encode_battles(test)
    rows = np.arange(len(test))

    def loss(ratings: np.ndarray, tie: float) -> float:
        delta = ratings[rows, codes.model_a] - ratings[rows, codes.model_b]
        return outcome_log_loss(outcome_probability(delta, "davidson", tie), codes.outcome).mean

    router = make().fit(train, np.stack([vector_of[prompt] for prompt in train["prompt"]]))
    leaderboard = BradleyTerryRouter().fit(train)
    ours = loss(router.ratings(np.stack([vector_of[prompt] for prompt in test["prompt"]])), router.nu)
    constant = loss(leaderboard.ratings(test["prompt"].tolist()), leaderboard.nu)
    truth = loss(arena.ratings(prompts.set_index("prompt").loc[test["prompt"]].reset_index()), arena.nu)
    assert truth < ours < constant - 0.3 * (constant - truth)


# -- saved by an earlier version --------------------------------------------------------------------------------------

SAVED = Path(__file__).parents[1] / "data" / "saved_routers"  # version 0.1.0, before the package had sub-packages


@pytest.mark.parametrize("kind", ["sw", "mf"])
def test_a_router_saved_by_an_earlier_version_gives_the_same_ratings(kind):
    expected = json.loads((SAVED / "expected.json").read_text())[kind]
    router = load_router(SAVED / kind)
    assert list(router.models) == expected["models"]
    vectors = np.random.default_rng(5).normal(size=(3, 384))
    np.testing.assert_allclose(router.ratings(vectors), expected["ratings"], atol=1e-5)


def test_settings_that_an_earlier_version_named_otherwise_are_known():
    saved = {"held_out_share": 0.2, "accumulation": 2}
    known = {"validation_share": 0.2, "encoder_precision": "float32"}
    assert base._checked_settings(BertRouter, saved, Path()) == known


def test_a_saved_router_keeps_the_precision_of_its_vectors():
    saved = [{"encoder": {"name": BUNDLED_MODEL} | given} for given in ({"precision": "bfloat16"}, {})]
    encoders = [base._checked_settings(SimilarityRouter, some, Path())["encoder"] for some in saved]
    assert [encoder.precision for encoder in encoders] == ["bfloat16", "float32"]
    router = SimilarityRouter(encoder=PromptEncoder(precision="bfloat16", cache=False))
    assert router._settings()["encoder"]["precision"] == "bfloat16"
