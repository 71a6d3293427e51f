"""Items as token ids and labels, and batches of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.train.data import Item, prompt, target

IGNORED = -100  # label of a token on which there is no loss, as torch's cross entropy has it

Example = dict[str, list[int]]


@dataclass(frozen=True)
class Encoded:
    """Examples with input_ids and labels (ids, equally long), and how many of them lost their beginning."""

    examples: list[Example]
    shortened: int


def encode(items: Sequence[Item], tokenizer: Any, length: int, loss_on: str) -> Encoded:
    """Prompt and answer of each item, at most `length` tokens of it, the last ones.

    The answer's tokens are those by which the tokenized whole differs from the tokenized prompt: " A" need not be a
    token of its own. loss_on: 'answer' or 'all' of the tokens. A leading BOS stays where the beginning is cut off.
    """
    examples, shortened = [], 0
    for start in range(0, len(items), 4096):
        part = items[start : start + 4096]
        prompts = [prompt(item) for item in part]
        wholes = tokenizer([p + target(item) for p, item in zip(prompts, part, strict=True)])["input_ids"]
        for asked, ids in zip(tokenizer(prompts)["input_ids"], wholes, strict=True):
            same = next((i for i, (a, b) in enumerate(zip(asked, ids, strict=False)) if a != b), len(asked))
            labels = [IGNORED] * same + ids[same:] if loss_on == "answer" else list(ids)
            if len(ids) > length:
                shortened += 1
                first = 1 if ids[0] == tokenizer.bos_token_id else 0
                ids, labels = ([*x[:first], *x[len(x) - length + first :]] for x in (ids, labels))
            examples.append({"input_ids": ids, "labels": labels})
    return Encoded(examples, shortened)


def collator(pad_id: int, length: int, multiple: int = 8) -> Callable[[Sequence[Example]], dict[str, torch.Tensor]]:
    """Makes batches of examples, padded on the right to the longest one, rounded up to a multiple within `length`.

    A batch has input_ids, attention_mask and labels, each (batch, tokens) int64.
    """

    def collate(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        longest = max(len(e["input_ids"]) for e in examples)
        width = max(longest, min(-(-longest // multiple) * multiple, length))

        def padded(key: str, filler: int) -> torch.Tensor:
            return torch.tensor([e[key] + [filler] * (width - len(e[key])) for e in examples])

        lengths = torch.tensor([len(e["input_ids"]) for e in examples])
        mask = (torch.arange(width) < lengths[:, None]).long()
        return {"input_ids": padded("input_ids", pad_id), "attention_mask": mask, "labels": padded("labels", IGNORED)}

    return collate
