"""The numbers of an evaluation: by subject, by category and on the whole, as accuracy.json and as Table 2's row."""

from collections.abc import Iterable
from math import sqrt
from typing import Any

from rich.table import Table

from bench.accuracy.categories import CATEGORIES, category_table
from bench.accuracy.partial import Count
from bench.terminal import plain_table

HEADS = ("Hums.", "STEM", "Social", "Other", "Avg.")  # Table 2's words for the categories, and the average


def summary(counts: Iterable[Count]) -> dict[str, Any]:
    """items, correct, average, categories, category_mean, stderr and subjects of accuracy.json; in percent.

    `average` is over all items, which is what the paper's Avg. column is: weighting its four categories by MMLU's 4705,
    3153, 3077 and 3107 items gives 52.14, 52.06, 47.11 and 52.01 where it prints 52.15, 52.04, 47.10 and 52.02 (LoRA,
    PaCA, Upper Half, Three Quarters). Its untuned row alone fits no definition: 46.09 where it prints 45.9.
    `category_mean`, the plain mean of the four, would be 52.48 for LoRA. `stderr` is a share's standard error for
    independent items, sqrt(p (1 - p) / n). A category without items is None.
    """
    tally: dict[str, tuple[int, int]] = {}
    cut = 0
    for c in counts:
        correct, items = tally.get(c.subject, (0, 0))
        tally[c.subject] = (correct + c.correct, items + c.items)
        cut += c.cut
    grouped = {g: _sum(tally[s] for s in subjects if s in tally) for g, subjects in category_table().items()}
    whole = _sum(tally.values())
    shares = {g: _percent(*of) for g, of in grouped.items()}
    there = [s for s in shares.values() if s is not None]
    return {
        "items": whole[1],
        "correct": whole[0],
        "average": _percent(*whole),
        "categories": shares,
        "category_mean": sum(there) / len(there),
        "stderr": {"average": _stderr(*whole), **{g: _stderr(*of) for g, of in grouped.items()}},
        "subjects": {s: {"correct": k, "items": n, "accuracy": _percent(k, n)} for s, (k, n) in sorted(tally.items())},
        "cut": cut,
    }


def _sum(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    pairs = list(pairs)
    return sum(k for k, _ in pairs), sum(n for _, n in pairs)


def _percent(correct: int, items: int) -> float | None:
    return 100 * correct / items if items else None


def _stderr(correct: int, items: int) -> float | None:
    share = correct / items if items else 0.0
    return 100 * sqrt(share * (1 - share) / items) if items else None


def table_row(result: dict[str, Any]) -> Table:
    """One row as in Table 2, each share with its standard error."""
    table = plain_table(("Strategy", "Model", *HEADS), right=HEADS)
    shares = [result["categories"][c] for c in CATEGORIES] + [result["average"]]
    errors = [result["stderr"][c] for c in (*CATEGORIES, "average")]
    cells = ["" if s is None else f"{s:.2f} ± {e:.2f}" for s, e in zip(shares, errors, strict=True)]
    table.add_row(*(str(result[key] or "") for key in ("strategy", "model")), *cells)
    return table
