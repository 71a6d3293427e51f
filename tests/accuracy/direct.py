"""The oracle of the harness: the same accuracy from log-likelihoods alone, with no package but transformers."""

from collections.abc import Sequence
from typing import Any

import torch

from bench.accuracy.harness import window
from bench.accuracy.question import Outcome, Piece, Scorer
from bench.train.data import LETTERS, Item, prompt, target

Encoded = tuple[tuple[int, ...], tuple[int, ...]]  # tokens of a context and of its continuation


def description(subject: str) -> str:
    """The line that opens a subject's prompt, as MMLU's authors and lm-evaluation-harness have it."""
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"


def context(piece: Piece, item: Item) -> str:
    """The whole text before the answer: description, solved examples, question."""
    solved = "".join(f"{prompt(e)}{target(e)}\n\n" for e in piece.examples)
    return f"{description(piece.subject)}{solved}{prompt(item)}"


def continuations() -> tuple[str, ...]:
    """What may follow: the letters, each after a space."""
    return tuple(f" {letter}" for letter in LETTERS)


def direct_scorer(model: Any, tokenizer: Any, batch: int) -> Scorer:
    """Answers a piece by the letter whose continuation of the prompt is likeliest; a tie goes to the first letter.

    batch: prompts per forward pass. The model is in eval mode and on its device.
    """
    longest = window(model, tokenizer)

    def score(piece: Piece) -> list[Outcome]:
        pairs = [encode(tokenizer, context(piece, i), c) for i in piece.items for c in continuations()]
        found = log_likelihoods(model, pairs, batch, longest)
        n = len(continuations())
        outcomes = []
        for at, item in enumerate(piece.items):
            mine = tuple(found[at * n : (at + 1) * n])
            cut = any(len(before) + len(after) > longest + 1 for before, after in pairs[at * n : (at + 1) * n])
            outcomes.append(Outcome(mine, mine.index(max(mine)) == item.answer, cut))
        return outcomes

    return score


def encode(tokenizer: Any, before: str, after: str) -> Encoded:
    """Tokens of a context and its continuation: split where the context's own tokens end, as the harness does, since a
    tokenizer may join the continuation's first letter to the context."""
    start = tokenizer.encode(before)
    whole = tokenizer.encode(before + after)
    return tuple(start), tuple(whole[len(start) :])


@torch.inference_mode()
def log_likelihoods(model: Any, pairs: Sequence[Encoded], batch: int, longest: int) -> list[float]:
    """log p(continuation | context) of each pair, in nats: the sum over its tokens, the softmax in fp32.

    Prompts of more than `longest` tokens lose their beginning. Continuations of one token share the forward pass of
    their context.
    """
    inputs = [((before + after)[-(longest + 1) :])[:-1] for before, after in pairs]
    distinct = sorted(set(inputs), key=len, reverse=True)  # the longest first: a lack of memory shows at once
    wanted: dict[tuple[int, ...], list[int]] = {i: [] for i in distinct}
    for at, tokens in enumerate(inputs):
        wanted[tokens].append(at)
    found = [0.0] * len(pairs)
    for first in range(0, len(distinct), batch):
        rows = distinct[first : first + batch]
        ids = torch.zeros(len(rows), len(rows[0]), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        for row, tokens in enumerate(rows):
            for at in wanted[tokens]:
                after = torch.tensor(pairs[at][1], device=logits.device)
                last = logits[row, len(tokens) - len(after) : len(tokens)].float().log_softmax(-1)
                found[at] = last.gather(1, after[:, None]).sum().item()
    return found
