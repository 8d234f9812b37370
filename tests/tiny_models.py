"""Transformers of a few thousand parameters, made from a configuration, for the tests of the classifiers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
WORDS = [*SPECIAL.values(), *"what why is a prime poem proof who wrote it best answer by the : number".split()]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **SPECIAL)


def save_tiny_model(kind: str, folder: Path) -> str:
    """The folder, as a string, with a tiny "bert" or "llama" and its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "bert":
            model = BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SIZE))
        else:
            model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), num_key_value_heads=2, **SIZE))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def worded_battles(n: int = 96) -> pd.DataFrame:
    """Battles that a word decides: "ant" wins on poems, "bee" on proofs; "cat" is as good as the other."""
    rows = []
    for number in range(n):
        poem = number % 2 == 0
        prompt = f"{'what why who is'.split()[number % 4]} {'poem' if poem else 'proof'} " + "it " * (number % 7) + "?"
        pair = ("ant", "bee") if number % 3 else ("cat", "ant") if number % 2 else ("bee", "cat")
        good = "ant" if poem else "bee"
        winner = "tie" if number % 5 == 0 or good not in pair else "model_a" if pair[0] == good else "model_b"
        rows.append((f"{prompt} {number // 16}", *pair, winner))
    return pd.DataFrame(rows, columns=["prompt", "model_a", "model_b", "winner"])
