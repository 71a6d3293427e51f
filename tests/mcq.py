"""A multiple-choice set with a rule that small models learn in seconds, with models and a tokenizer for it.

Each of the four subjects, one from each of MMLU's categories, has eight words. The word of a question decides the
letter of its answer; the choices say nothing. So chance is a quarter, and a model that learned the words is right
always.
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from bench.train.data import LETTERS, Item

WORDS = {
    "philosophy": ["mind", "virtue", "reason", "doubt", "truth", "form", "will", "duty"],
    "astronomy": ["moon", "comet", "orbit", "nova", "quasar", "dust", "planet", "star"],
    "sociology": ["class", "norm", "role", "group", "status", "kin", "town", "guild"],
    "nutrition": ["iron", "salt", "fibre", "sugar", "zinc", "fat", "starch", "water"],
}
CHOICES = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
_VOCABULARY = ["<unk>", "<pad>", "<s>", "</s>", *LETTERS, ".", ":", "?", "Answer", "What", "is", *CHOICES]


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Saves a tokenizer with one token for each word of the set into `folder`, and returns it."""
    words = [*_VOCABULARY, *(w for subject in WORDS.values() for w in subject)]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(kind: str, folder: Path, *, layers: int = 4, seed: int = 0) -> None:
    """Saves a random causal language model ('llama' or 'gpt2') into `folder`, as safetensors, in fp32."""
    size = len(_VOCABULARY) + sum(map(len, WORDS.values()))
    config: PretrainedConfig
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            pad_token_id=1,
            bos_token_id=2,
            eos_token_id=3,
            initializer_range=0.15,  # wide enough for a frozen head to tell the letters apart
        )
    else:
        config = GPT2Config(
            vocab_size=size,
            n_embd=64,
            n_layer=layers,
            n_head=4,
            n_positions=128,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            pad_token_id=1,
            bos_token_id=2,
            eos_token_id=3,
            initializer_range=0.15,
        )
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def make_items(n: int, seed: int = 0, split: str = "train") -> list[Item]:
    """n items, their words and choices drawn from seed and split."""
    draw = random.Random(f"{seed} {split}")
    items = []
    for _ in range(n):
        subject = draw.choice(list(WORDS))
        word = draw.choice(WORDS[subject])
        a, b, c, d = draw.sample(CHOICES, 4)
        items.append(Item(f"What is {word} ?", (a, b, c, d), WORDS[subject].index(word) % 4, subject))
    return items


def write_jsonl(items: Iterable[Item], path: Path) -> Path:
    """One item a line, in MMLU's layout; returns the path."""
    lines = (
        json.dumps({"question": i.question, "choices": i.choices, "answer": i.answer, "subject": i.subject})
        for i in items
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
