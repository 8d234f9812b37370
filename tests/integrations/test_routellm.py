"""RouteLLM's published checkpoints: small files of the same formats, worked by hand and by RouteLLM's own code."""

from __future__ import annotations

import json
import re
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import expit, softmax
from transformers import LlamaConfig, LlamaForCausalLM, XLMRobertaConfig, XLMRobertaForSequenceClassification

from routing.integrations import routellm as checkpoints
from routing.integrations.routellm import (
    FACTORIZATION_MODELS,
    PAIR,
    RouteLLMBertRouter,
    RouteLLMCausalRouter,
    RouteLLMFactorizationRouter,
)
from tests.tiny_models import SIZE, WORDS, tiny_tokenizer

STRONG, WEAK = PAIR
QUESTIONS = ["what is a prime ?", "who wrote it", "", "why why why why", "proof " * 60, "poem"]


def save_factorization(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rng = torch.Generator().manual_seed(0)
    shapes = {"P.weight": (64, 128), "text_proj.0.weight": (128, 1536), "classifier.0.weight": (1, 128)}
    save_file({name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}, folder / "model.safetensors")
    return folder


def save_bert(folder: Path, n_labels: int = 3) -> Path:
    size = {"vocab_size": len(WORDS), "max_position_embeddings": 35, "pad_token_id": 0, "num_labels": n_labels, **SIZE}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = XLMRobertaForSequenceClassification(XLMRobertaConfig(**size, initializer_range=0.5))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_causal(folder: Path, scores: bool = True, n_rows: int = len(WORDS) + 5) -> Path:
    """A Llama that writes "answer by" and then a score (or "number" for ever), each word because of the one before."""
    size = {"vocab_size": n_rows, "num_key_value_heads": 2, "max_position_embeddings": 128, **SIZE}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForCausalLM(LlamaConfig(**size, initializer_range=0.15, eos_token_id=3, bos_token_id=2))
        enters, leaves = torch.randn(n_rows, 16), torch.zeros(n_rows, 16)
        noise = torch.randn(n_rows, 16)
    chain = [WORDS.index("[SEP]"), WORDS.index("answer"), WORDS.index("by"), WORDS.index("number")]
    enters[:, :4] = 0
    for place, (word, following) in enumerate(zip(chain, [*chain[1:], chain[-1]], strict=True)):
        enters[word] = 12 * torch.eye(16)[place]
        leaves[following, place] = 3
    if scores:
        leaves[chain[-1]] = 0
        leaves[-5:] = noise[-5:]
        leaves[-5:, 2] = 3
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(enters)
        model.lm_head.weight.copy_(leaves)
    model.save_pretrained(folder)
    (folder / "system_ft_v5.txt").write_text("the best answer is by number\n")
    (folder / "classifier_ft_v5.txt").write_text("what is the answer : {question} ?\n")
    tiny_tokenizer().save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def factorization(tmp_path_factory) -> Path:
    return save_factorization(tmp_path_factory.mktemp("mf"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def causal(tmp_path_factory) -> Path:
    return save_causal(tmp_path_factory.mktemp("causal"))


def load_causal(folder: Path, **settings) -> RouteLLMCausalRouter:
    return RouteLLMCausalRouter(folder, folder / "tokenizer", device="cpu", **settings)


@pytest.fixture
def embeddings(rng) -> np.ndarray:
    vectors = rng.standard_normal((5, 1536))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- the arithmetic, by hand -----------------------------------------------------------------------------------------


def test_the_factorization_is_its_formula(factorization, embeddings):
    router = RouteLLMFactorizationRouter(factorization)
    tensors = {name: value.double().numpy() for name, value in load_file(factorization / "model.safetensors").items()}
    for model_a, model_b in [PAIR, ("RWKV-4-Raven-14B", "zephyr-7b-beta")]:
        a, b = (tensors["P.weight"][FACTORIZATION_MODELS.index(model)] for model in (model_a, model_b))
        difference = a / np.linalg.norm(a) - b / np.linalg.norm(b)
        expected = [expit(tensors["classifier.0.weight"][0] @ (difference * (tensors["text_proj.0.weight"] @ e)))
                    for e in embeddings]  # fmt: skip
        np.testing.assert_allclose(router.win_probability(embeddings, model_a, model_b), expected, atol=1e-12)


def test_the_models_of_the_factorization_are_in_the_order_of_its_rows():
    assert len(FACTORIZATION_MODELS) == len(set(FACTORIZATION_MODELS)) == 64
    assert list(FACTORIZATION_MODELS) == sorted(FACTORIZATION_MODELS)
    assert (FACTORIZATION_MODELS.index(STRONG), FACTORIZATION_MODELS.index(WEAK)) == (24, 36)


def test_bert_counts_ties_for_the_weak_model(bert):
    router = RouteLLMBertRouter(bert)
    model, tokenizer = XLMRobertaForSequenceClassification.from_pretrained(bert), tiny_tokenizer()
    for question in QUESTIONS:
        with torch.no_grad():
            inputs = tokenizer(question, return_tensors="pt", truncation=True, max_length=32)
            labels = softmax(model(**inputs).logits[0].double().numpy())
        assert router.win_probability([question], STRONG, WEAK)[0] == pytest.approx(labels[0], abs=1e-6)
        np.testing.assert_allclose(router.outcome_probability([question], STRONG, WEAK)[0], labels, atol=1e-6)
        score = router.expected_score([question], STRONG, WEAK)[0]
        assert score == pytest.approx(labels[0] + labels[1] / 2, abs=1e-6)


def test_the_causal_llm_sums_the_scores_below_four(causal):
    router = load_causal(causal)
    logits = router._label_logits(QUESTIONS)
    assert np.isfinite(logits).all()
    expected = softmax(logits, axis=1)[:, :3].sum(axis=1)
    np.testing.assert_allclose(router.win_probability(QUESTIONS, STRONG, WEAK), expected, atol=1e-12)
    assert np.ptp(expected) > 0.01


# --- against RouteLLM's own code, where it is installed --------------------------------------------------------------


@pytest.fixture
def routellm(monkeypatch):
    """RouteLLM's modules; a dummy key is enough, since nothing is sent."""
    pytest.importorskip("routellm")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from routellm.routers import routers
        from routellm.routers.matrix_factorization import model
    return types.SimpleNamespace(routers=routers, factorization=model)


@pytest.mark.filterwarnings("ignore")
def test_routellm_s_factorization_agrees(routellm, factorization, embeddings, monkeypatch):
    assert tuple(routellm.factorization.MODEL_IDS) == FACTORIZATION_MODELS
    answers = {f"prompt {row}": vector for row, vector in enumerate(embeddings)}

    def create(input, model):
        return types.SimpleNamespace(data=[types.SimpleNamespace(embedding=answers[input[0]].tolist())])

    client = types.SimpleNamespace(embeddings=types.SimpleNamespace(create=create))
    monkeypatch.setattr(routellm.factorization, "OPENAI_CLIENT", client)
    original = routellm.routers.MatrixFactorizationRouter(str(factorization))
    expected = [original.calculate_strong_win_rate(prompt) for prompt in answers]
    router = RouteLLMFactorizationRouter(factorization, encoder=lambda texts: np.array([answers[t] for t in texts]))
    np.testing.assert_allclose(router.win_probability(list(answers), *PAIR), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.filterwarnings("ignore")
def test_routellm_s_bert_agrees(routellm, bert):
    original = routellm.routers.BERTRouter(str(bert))
    expected = [original.calculate_strong_win_rate(question) for question in QUESTIONS]
    np.testing.assert_allclose(RouteLLMBertRouter(bert).win_probability(QUESTIONS, *PAIR), expected, atol=1e-5)
    assert np.ptp(expected) > 0.01


@pytest.mark.filterwarnings("ignore")
def test_routellm_s_causal_llm_agrees(routellm, causal, tmp_path, monkeypatch):
    from routellm.routers.causal_llm import llm_utils

    for kind in (torch.Tensor, torch.nn.Module):  # RouteLLM names cuda outright
        move = kind.to
        monkeypatch.setattr(
            kind, "to", lambda self, *a, move=move, **k: self if a[:1] == ("cuda",) else move(self, *a, **k)
        )
    real = llm_utils.AutoTokenizer.from_pretrained
    local = types.SimpleNamespace(from_pretrained=lambda name, **k: real(causal / "tokenizer", **k))
    monkeypatch.setattr(llm_utils, "AutoTokenizer", local)
    monkeypatch.setattr(routellm.routers, "hf_hub_download", lambda repo_id, filename: str(Path(repo_id) / filename))
    for folder in (causal, save_causal(tmp_path / "never", scores=False)):
        original = routellm.routers.CausalLLMRouter(str(folder), model_id="meta-llama/Meta-Llama-3-8B")
        questions = [question for question in QUESTIONS if len(question.split()) < 30]  # RouteLLM cuts none
        expected = [original.calculate_strong_win_rate(question) for question in questions]
        np.testing.assert_allclose(load_causal(folder).win_probability(questions, *PAIR), expected, atol=1e-5)
    assert expected == [1] * len(questions)


# --- the face of a router --------------------------------------------------------------------------------------------

EACH = ["bert", "causal"]


def load(kind: str, folder: Path, **settings):
    return RouteLLMBertRouter(folder, **settings) if kind == "bert" else load_causal(folder, **settings)


@pytest.mark.parametrize("kind", EACH)
def test_the_pair_named_the_other_way_round_mirrors_exactly(kind, request):
    questions = QUESTIONS[: 6 if kind == "bert" else 2]
    router = load(kind, request.getfixturevalue(kind), pair=("zebra", "ant"))
    assert router.models == ("ant", "zebra") and router.ratings(questions).shape == (len(questions), 2)
    margin = router.margin(questions, "zebra", "ant")
    np.testing.assert_array_equal(margin, -router.margin(questions, "ant", "zebra"))
    outcome = router.outcome_probability(questions, "zebra", "ant")
    np.testing.assert_array_equal(outcome, router.outcome_probability(questions, "ant", "zebra")[:, ::-1])
    np.testing.assert_allclose(outcome.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(expit(margin), outcome[:, 0], atol=1e-12)
    other = load(kind, request.getfixturevalue(kind), pair=("ant", "zebra"))
    np.testing.assert_array_equal(other.margin(questions, "ant", "zebra"), margin)  # names are the caller's
    assert (outcome[:, 1] > 0).all() == (kind == "bert")


def test_the_factorization_mirrors_and_has_no_ties(factorization, embeddings):
    router = RouteLLMFactorizationRouter(factorization)
    assert router.ratings(embeddings).shape == (5, 64)
    np.testing.assert_array_equal(router.margin(embeddings, *PAIR), -router.margin(embeddings, WEAK, STRONG))
    outcome = router.outcome_probability(embeddings, *PAIR)
    np.testing.assert_allclose(outcome[:, 0], router.win_probability(embeddings, *PAIR), atol=1e-12)
    assert (outcome[:, 1] == 0).all()


@pytest.mark.parametrize("kind", EACH)
def test_battles_get_the_labels_in_their_own_order(kind, request):
    router = load(kind, request.getfixturevalue(kind))
    battles = pd.DataFrame(
        {
            "prompt": QUESTIONS[:2] * 2,
            "model_a": [STRONG] * 2 + [WEAK] * 2,
            "model_b": [WEAK] * 2 + [STRONG] * 2,
            "winner": ["model_a", "tie", "model_b", "tie"],
        },
        index=[3, 1, 2, 0],
    )
    expected = router.outcome_probability(QUESTIONS[:2], *PAIR)
    np.testing.assert_allclose(
        router.battle_probability(battles), np.concatenate([expected, expected[:, ::-1]]), atol=1e-7
    )
    with pytest.raises(ValueError, match="koala-13b"):
        router.battle_probability(battles.assign(model_a="koala-13b"))


def test_a_batch_and_its_order_change_nothing_but_rounding(bert):
    router = RouteLLMBertRouter(bert)
    together = router.ratings(QUESTIONS)
    alone = np.concatenate([router.ratings([question]) for question in QUESTIONS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert router.ratings([]).shape == (0, 2)


def test_a_causal_llm_that_writes_no_score_routes_to_the_strong_model_and_warns(tmp_path):
    router = load_causal(save_causal(tmp_path / "never", scores=False))
    with pytest.warns(UserWarning, match=r"\[0, 1\]"):
        p = router.win_probability(QUESTIONS[:2], STRONG, WEAK)
    with pytest.warns(UserWarning):
        outcome = router.outcome_probability(QUESTIONS[:1], WEAK, STRONG)
    np.testing.assert_array_equal(p, 1)
    np.testing.assert_array_equal(outcome, [[0, 0, 1]])


def test_long_prompts_are_cut_to_the_model(bert, causal):
    long = "why " * 100_000
    assert np.isfinite(RouteLLMBertRouter(bert).ratings([long])).all()
    router = load_causal(causal)
    tokens = router._tokenize(long)
    assert len(tokens) == 128 - 6 and tokens[-1] == router._tokenize("why")[-1]


def test_prompts_of_another_kind_are_refused(factorization, bert, embeddings):
    router = RouteLLMFactorizationRouter(factorization)
    with pytest.raises(ValueError, match="encoder"):
        router.ratings(["what"])
    with pytest.raises(ValueError, match="1536"):
        router.ratings(embeddings[:, :384])
    with pytest.raises(ValueError, match="finite"):
        router.ratings(np.where(np.arange(1536) == 7, np.nan, embeddings))
    with pytest.raises(ValueError, match=r"\(3, 1536\)"):
        RouteLLMFactorizationRouter(factorization, lambda texts: embeddings[:2]).ratings(["what", "why", "who"])
    with pytest.raises(ValueError, match="one string|list of strings"):
        RouteLLMBertRouter(bert).ratings("what")
    with pytest.raises(ValueError, match="1"):
        RouteLLMBertRouter(bert).ratings(["what", 7])
    with pytest.raises(ValueError, match="koala"):
        RouteLLMBertRouter(bert).margin(["what"], "koala", WEAK)
    with pytest.raises(ValueError, match="ant"):
        RouteLLMBertRouter(bert, ("ant", "ant"))
    for use in (lambda: router.fit(pd.DataFrame()), lambda: router.save("folder")):
        with pytest.raises(TypeError, match="RouteLLMFactorizationRouter"):
            use()


# --- files that are something else -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("P.weight", lambda t: t[:63]),
        ("P.weight", lambda t: t.double()),
        ("text_proj.0.weight", lambda t: t.T.contiguous()),
        ("classifier.0.weight", lambda t: t[:, :64].contiguous()),
        ("classifier.0.weight", lambda t: t * float("nan")),
        ("classifier.0.weight", None),
    ],
)
def test_tensors_of_another_format_are_named(factorization, tmp_path, name, change):
    tensors = load_file(factorization / "model.safetensors")
    value = tensors.pop(name)
    save_file(tensors if change is None else tensors | {name: change(value)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=re.escape(name)):
        RouteLLMFactorizationRouter(tmp_path)


def test_damaged_and_missing_files_are_named(factorization, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        RouteLLMFactorizationRouter(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((factorization / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        RouteLLMFactorizationRouter(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        RouteLLMBertRouter(tmp_path / "nothing")


def test_a_bert_of_another_format_is_refused_not_completed_at_random(bert, tmp_path):
    with pytest.raises(ValueError, match="2 labels"):
        RouteLLMBertRouter(save_bert(tmp_path / "two", 2))
    folder = save_bert(tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("classifier.out_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"classifier\.out_proj\.weight"):
        RouteLLMBertRouter(folder)
    save_file(
        weights | {"classifier.out_proj.weight": head * float("nan")}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match="prompt 0"):
        RouteLLMBertRouter(folder).ratings(["what"])
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")  # a pickle is not opened
    with pytest.raises(ValueError, match="XLMRoberta"):
        RouteLLMBertRouter(folder)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    folder = save_bert(tmp_path / "stranger")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    RouteLLMBertRouter(folder).ratings(["what"])
    assert not (tmp_path / "ran").exists()


def test_a_causal_llm_of_another_format_is_refused(causal, tmp_path):
    with pytest.raises(ValueError, match=str(len(WORDS) + 4)):
        load_causal(save_causal(tmp_path / "rows", n_rows=len(WORDS) + 4))
    folder = save_causal(tmp_path / "messages")
    for text in ["no field", "{question} {question}", "{0}", "{question} {other}", "{question.a}"]:
        (folder / "classifier_ft_v5.txt").write_text(text)
        with pytest.raises(ValueError, match=r"classifier_ft_v5\.txt"):
            load_causal(folder)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="cpu"):
            RouteLLMCausalRouter(causal, causal / "tokenizer")


# --- from a hub, and the documented command --------------------------------------------------------------------------


def test_a_hub_name_is_fetched_at_its_revision_and_a_folder_never_is(factorization, bert, monkeypatch):
    asked = []
    monkeypatch.setattr(
        checkpoints, "fetch_files", lambda name, patterns: asked.append((name, patterns)) or factorization
    )
    RouteLLMFactorizationRouter(factorization)
    RouteLLMBertRouter(str(bert))
    assert asked == []
    RouteLLMFactorizationRouter("hub:routellm/mf_gpt4_augmented@main")
    assert asked == [("hub:routellm/mf_gpt4_augmented@main", ("model.safetensors",))]


def test_the_documented_check_runs(factorization, bert, monkeypatch, capsys):
    prompts = [f"{QUESTIONS[row % 2]} {'why ' * (row % 5)}" for row in range(300)]
    long = [len(prompt.strip()) >= 16 for prompt in prompts]
    vectors = np.random.default_rng(0).standard_normal((sum(long), 1536)).astype(np.float32)
    mf = np.full(300, np.nan)
    mf[long] = RouteLLMFactorizationRouter(factorization).win_probability(vectors, *PAIR)
    ids = np.arange(300) + 1000
    published = pd.DataFrame({"id": ids, "bert": RouteLLMBertRouter(bert).win_probability(prompts, *PAIR), "mf": mf})
    tables = {
        "lmsys/lmsys-arena-human-preference-55k": pd.DataFrame(
            {"id": ids, "prompt": [json.dumps([p, 1]) for p in prompts]}
        ),
        "routellm/lmsys-arena-human-preference-55k-thresholds": published.sample(frac=1, random_state=0),
        "routellm/arena_battles_embeddings": pd.DataFrame({"embeddings": list(vectors)}),
    }
    datasets = types.ModuleType("datasets")
    datasets.load_dataset = lambda name, split: types.SimpleNamespace(to_pandas=lambda: tables[name])
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.setattr(checkpoints, "fetch_files", lambda name, patterns: bert if "bert" in name else factorization)
    (command,) = re.findall(r"<<'END'\n(.*?)\n    END", checkpoints.__doc__, re.S)
    exec(re.sub("^    ", "", command, flags=re.M), {})
    differences = [float(number) for number in re.findall(r"difference (\S+)", capsys.readouterr().out)]
    assert len(differences) == 2 and max(differences) < 1e-6
