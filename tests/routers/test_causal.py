from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from routing.embeddings import BUNDLED_MODEL
from routing.routers.causal import CausalLMRouter
from routing.routers.classifier import load_pretrained
from routing.routers.training import pad_rows
from tests.routers.test_classifier import BATTLES, FAST, PROMPTS, fitted, folders, own_cache  # noqa: F401 (fixtures)


@pytest.mark.parametrize("model", ["llama", "bert", BUNDLED_MODEL])
def test_later_tokens_do_not_change_what_was_read_before(model, folders):  # noqa: F811
    """The bundled MiniLM reads both ways as an encoder, and left to right as this router's decoder."""
    router = CausalLMRouter(name=folders.get(model, model))
    router.model_tier = np.arange(2)
    backbone = router._load_backbone().eval()
    tokens = torch.randint(5, 17, (1, 9), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 6:] = 5 + (tokens[0, 6:] - 4) % 12
    with torch.no_grad():
        states = [backbone(input_ids=some).last_hidden_state[0] for some in (tokens, changed)]
    np.testing.assert_allclose(states[0][:6], states[1][:6], atol=1e-5)
    assert (states[0][6:] - states[1][6:]).abs().max() > 1e-2


def test_the_bundled_model_as_an_encoder_is_not_causal():
    from transformers import AutoModel

    backbone = load_pretrained(AutoModel, BUNDLED_MODEL)
    tokens = torch.tensor([[101, 2054, 2003, 102]])
    with torch.no_grad():
        states = [
            backbone(input_ids=some).last_hidden_state[0] for some in (tokens, tokens + torch.tensor([0, 0, 0, 9]))
        ]
    assert (states[0][0] - states[1][0]).abs().max() > 1e-2


def test_ratings_are_the_language_model_s_logits_of_the_labels(folders):  # noqa: F811
    """The whole model, run as anyone would run it, unpadded; only differences are ratings."""
    router = fitted("llama", folders)
    numbers = router._tokenizer.convert_tokens_to_ids(["[[tier 0]]", "[[tier 1]]", "[[tier 2]]"])
    model = AutoModelForCausalLM.from_pretrained(router.name).eval()
    model.resize_token_embeddings(len(router._tokenizer))
    model.base_model.load_state_dict(router.model.backbone.state_dict())
    with torch.no_grad():
        model.get_output_embeddings().weight[numbers] = router.model.head.weight
        logits = [model(input_ids=row[None]).logits[0, -1, numbers] for row in router._tokenize(PROMPTS)]
    expected = torch.stack(logits).numpy() + router.output_offset + router.leaderboard
    np.testing.assert_allclose(router.ratings(PROMPTS), expected, atol=0.02)


@pytest.mark.parametrize(("kind", "train"), [("llama", "all"), ("bert as decoder", "head")])
def test_padding_is_not_read(kind, train, folders):  # noqa: F811
    router = fitted(kind, folders, train)
    rows = router._tokenize(PROMPTS)
    with torch.no_grad():
        together = router.model(**pad_rows(rows, left=True))
        alone = torch.cat([router.model(**pad_rows([row], left=True)) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_long_prompt_is_cut_and_the_template_is_not(folders):  # noqa: F811
    router = CausalLMRouter(name=folders["llama"], max_length=12, template="a : {prompt} best answer by")
    (row,) = router._tokenize(["what poem is it " * 30])
    assert len(row) == 12
    words = router._tokenizer.convert_ids_to_tokens(row.tolist())
    assert words == ["[CLS]", "a", ":", "what", "poem", "is", "it", "what", "poem", "best", "answer", "by"]
    with pytest.raises(ValueError, match="max_length is 5, but the template alone takes 6"):
        CausalLMRouter(name=folders["llama"], max_length=5, template="a : {prompt} best answer by")._tokenize(["what"])
    with pytest.raises(ValueError, match="no place for it.*hold {prompt} once"):
        CausalLMRouter(template="no place for it")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_low_rank_matrices_are_trained_and_merged(folders):  # noqa: F811
    pytest.importorskip("peft")
    router = CausalLMRouter(name=folders["llama"], lora_rank=2, **FAST).fit(BATTLES)
    whole = CausalLMRouter(name=folders["llama"], **FAST).fit(BATTLES)
    assert router.n_trained < whole.n_trained / 2
    assert set(router.model.state_dict()) == set(whole.model.state_dict())
    curve = router.learning_curve["validation"]
    assert curve.min() < curve.iloc[0]


def test_low_rank_needs_the_whole_model():
    with pytest.raises(ValueError, match="lora_rank is 4, but only the head is trained"):
        CausalLMRouter(train="head", lora_rank=4)
