"""Items as tokens: where the loss lies, what a long one loses, how a batch is padded."""

from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from bench.train.data import prompt, target
from bench.train.tokens import IGNORED, collator, encode
from tests.mcq import make_items, make_tokenizer


def test_the_loss_lies_on_the_answer_alone_or_on_all(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    items = make_items(5)
    encoded = encode(items, tokenizer, 512, "answer")
    for item, example in zip(items, encoded.examples, strict=True):
        assert example["input_ids"] == tokenizer(prompt(item) + target(item))["input_ids"]
        assert example["labels"][:-1] == [IGNORED] * (len(example["input_ids"]) - 1)
        assert tokenizer.decode(example["labels"][-1:]) == "ABCD"[item.answer]
    assert encoded.shortened == 0
    for example in encode(items, tokenizer, 512, "all").examples:
        assert example["labels"] == example["input_ids"]


def test_a_long_example_loses_its_beginning_but_not_its_first_token(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    items = make_items(3)
    plain = encode(items, tokenizer, 9, "answer")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    marked = encode(items, tokenizer, 10, "answer")
    assert plain.shortened == marked.shortened == 3
    for item, short, with_bos in zip(items, plain.examples, marked.examples, strict=True):
        assert len(short["input_ids"]) == len(short["labels"]) == 9
        assert tokenizer.decode(short["input_ids"]).endswith(f"Answer : {'ABCD'[item.answer]}")
        assert short["labels"][-1] == short["input_ids"][-1] and set(short["labels"][:-1]) == {IGNORED}
        assert with_bos["input_ids"] == [tokenizer.bos_token_id, *short["input_ids"]]
        assert with_bos["labels"] == [IGNORED, *short["labels"]]


@pytest.mark.parametrize(("length", "width"), [(512, 8), (7, 7)])
def test_a_batch_is_padded_on_the_right_without_loss(length: int, width: int) -> None:
    examples = [{"input_ids": [5, 6, 7], "labels": [IGNORED, IGNORED, 7]}, {"input_ids": [8] * 6, "labels": [8] * 6}]
    batch = collator(1, length)(examples)
    assert batch["input_ids"].tolist() == [[5, 6, 7] + [1] * (width - 3), [8] * 6 + [1] * (width - 6)]
    assert batch["attention_mask"].sum(1).tolist() == [3, 6]
    assert torch.equal(
        batch["labels"] != IGNORED, torch.tensor([[i == 2 for i in range(width)], [i < 6 for i in range(width)]])
    )
