from __future__ import annotations

import numpy as np
import pytest
import torch

from routing.battles import count_pairs
from routing.ratings.bradley_terry import fit_bradley_terry
from routing.ratings.ties import davidson_terms
from routing.routers.factorization import MatrixFactorizationRouter, _Bilinear
from tests.routers.test_base import ENCODER, battles  # noqa: F401 (battles is a fixture)


def bilinear(reference: bool = False) -> _Bilinear:
    form = _Bilinear(np.array([0.5, 0.0, -0.5]), 0.8, (6, 4), reference, torch.Generator().manual_seed(0))
    with torch.no_grad():
        form.projection.normal_(generator=form.generator)
    return form


def some_battles() -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(0)
    first = rng.integers(3, size=50)
    models = np.stack([first, (first + rng.integers(1, 3, size=50)) % 3], axis=1)
    vectors = torch.tensor(rng.normal(size=(50, 4)), dtype=torch.float32)
    return vectors, torch.from_numpy(models), torch.from_numpy(rng.integers(3, size=50))


@pytest.mark.parametrize("reference", [False, True])
def test_the_collapsed_matrix_gives_the_formula(reference):
    form, vectors = bilinear(reference), some_battles()[0]
    with torch.no_grad():
        v = form.model_vectors / form.model_vectors.norm(dim=1, keepdim=True) if reference else form.model_vectors
        prompt = vectors @ form.projection.T + form.bias
        expected = torch.stack([(form.combination * (v_m * prompt)).sum(dim=1) for v_m in v], dim=1)
    product, constant = form.collapse()
    ratings = vectors.numpy() @ product + constant
    np.testing.assert_allclose(ratings, expected - expected.mean(dim=1, keepdim=True), atol=1e-5)


def test_the_loss_is_davidson_s_and_its_gradient_right():
    form, (vectors, models, outcome) = bilinear(), some_battles()
    product, constant = form.collapse()
    ratings = vectors.numpy() @ product + constant
    n = np.arange(50)
    delta = ratings[n, models[:, 0]] - ratings[n, models[:, 1]]
    expected = -davidson_terms(delta, np.log(0.8)).log_probability[outcome.numpy(), n].mean()
    assert form.loss(vectors, models, outcome).item() == pytest.approx(expected, rel=1e-5)
    form = form.double()
    rows = vectors.double(), models, outcome
    form.loss(*rows).backward()
    for parameter in form.parameters():
        flat = parameter.detach().view(-1)
        for index in range(0, flat.numel(), 5):
            flat[index] += 1e-6
            up = form.loss(*rows).item()
            flat[index] -= 2e-6
            down = form.loss(*rows).item()
            flat[index] += 1e-6
            assert parameter.grad.view(-1)[index].item() == pytest.approx((up - down) / 2e-6, abs=1e-7)


def test_training_starts_at_the_leaderboard(battles):  # noqa: F811
    router = MatrixFactorizationRouter(n_epochs=1, n_seeds=1, learning_rate=1e-12, encoder=ENCODER).fit(battles)
    leaderboard = fit_bradley_terry(count_pairs(battles), "davidson")
    np.testing.assert_allclose(router.ratings(["any", "prompt"]), np.tile(leaderboard.ratings, (2, 1)), atol=1e-5)
    assert router.nu == pytest.approx(leaderboard.tie_parameter, rel=1e-4)


def test_the_best_epoch_on_held_out_prompts_is_kept(battles):  # noqa: F811
    """With a rate that overfits at once, no epoch beats the start."""
    router = MatrixFactorizationRouter(n_epochs=8, n_seeds=1, learning_rate=0.5, encoder=ENCODER).fit(battles)
    curve = router.learning_curve.set_index("epoch")
    assert curve["held_out"].idxmin() == 0 and curve["held_out"].iloc[-1] > curve["held_out"].iloc[0]
    leaderboard = fit_bradley_terry(count_pairs(battles), "davidson").ratings
    np.testing.assert_allclose(router.ratings(["any"])[0], leaderboard, atol=1e-5)


def test_without_early_stopping_the_last_epoch_is_kept(battles):  # noqa: F811
    settings = {"n_seeds": 1, "learning_rate": 0.05, "encoder": ENCODER}
    last = MatrixFactorizationRouter(n_epochs=3, early_stopping=False, **settings).fit(battles)
    stopped = MatrixFactorizationRouter(n_epochs=3, **settings).fit(battles)
    np.testing.assert_array_equal(last.learning_curve, stopped.learning_curve)
    assert stopped.learning_curve["held_out"].idxmin() < 3
    assert not np.allclose(last.ratings(["any"]), stopped.ratings(["any"]))


def test_seeds_are_averaged_and_reproducible(battles):  # noqa: F811
    settings = {"dimension": 4, "n_epochs": 2, "learning_rate": 0.01, "encoder": ENCODER, "reference": True}
    one = MatrixFactorizationRouter(n_seeds=1, **settings).fit(battles)
    two = MatrixFactorizationRouter(n_seeds=2, **settings).fit(battles)
    again = MatrixFactorizationRouter(n_seeds=2, **settings).fit(battles)
    assert two.prompt_product.tobytes() == again.prompt_product.tobytes()
    assert not np.allclose(one.prompt_product, two.prompt_product)
    assert set(two.learning_curve["seed"]) == {0, 1}


def test_prediction_has_no_training_noise(battles):  # noqa: F811
    router = MatrixFactorizationRouter(n_epochs=1, n_seeds=1, reference=True, encoder=ENCODER).fit(battles)
    assert router.ratings(["q"]).tobytes() == router.ratings(["q"]).tobytes()


def test_fitting_leaves_torch_as_it_was(battles):  # noqa: F811
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    MatrixFactorizationRouter(n_epochs=1, n_seeds=1, encoder=ENCODER).fit(battles)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_what_cannot_be_trained_is_explained(battles):  # noqa: F811
    with pytest.raises(ValueError, match="all battles are on one prompt"):
        MatrixFactorizationRouter(encoder=ENCODER).fit(battles.assign(prompt="same"))
    with pytest.raises(ValueError, match="n_epochs is 0"):
        MatrixFactorizationRouter(n_epochs=0)
    with pytest.raises(ValueError, match="held_out_share is 1"):
        MatrixFactorizationRouter(held_out_share=1)
    with pytest.raises(RuntimeError, match="the loss of epoch .* lower the learning rate"):
        MatrixFactorizationRouter(n_seeds=1, learning_rate=1e30, encoder=ENCODER).fit(battles)
