"""Which blocks train: every-Nth and lisa-G beside naive counts, and words that are refused."""

from collections import Counter
from statistics import mean

import pytest

from bench.case.shapes import (
    adapted_block_indices,
    layer_words,
    layers_text,
    lisa_stages,
    trainable_blocks,
    trained_block_indices,
)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 12, 22, 24, 32, 48])
def test_every_nth_and_what_was_there_before(blocks: int) -> None:
    naive: dict[str, list[int]] = {"all": list(range(blocks)), "1": [blocks - 1]}
    naive["upper-1/2"] = [i for i in range(blocks) if blocks - i <= (blocks + 1) // 2]
    for n, word in {2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 21: "21st", 22: "22nd", 23: "23rd"}.items():
        if n <= blocks:
            kept, i = [], blocks - 1
            while i >= 0:
                kept.append(i)
                i -= n
            naive[f"every-{word}"] = sorted(kept)
    for word, expected in naive.items():
        assert list(trained_block_indices(word, blocks)) == expected, word
        assert adapted_block_indices(word, blocks) == trained_block_indices(word, blocks)
        assert trainable_blocks(word, blocks) == len(expected)
        assert lisa_stages(word, blocks) == (tuple(expected),)


@pytest.mark.parametrize(
    ("blocks", "count"), [(n, g) for n in (1, 2, 3, 4, 12, 22, 24, 32, 48) for g in (1, 2, 3, 4, 7) if g <= n]
)
def test_in_a_cycle_of_lisa_all_blocks_train_equally_often(blocks: int, count: int) -> None:
    word = f"lisa-{count}"
    stages = lisa_stages(word, blocks)
    assert all(len(set(stage)) == count == trainable_blocks(word, blocks) for stage in stages)
    assert all(list(stage) == sorted(stage) for stage in stages)
    often = Counter(i for stage in stages for i in stage)
    assert sorted(often) == list(range(blocks)) and len(set(often.values())) == 1
    assert len(stages) <= blocks, "a sample is one of each"
    # The expected least of `count` numbers drawn from 0 to blocks - 1 without replacement.
    assert mean(stage[0] for stage in stages) == pytest.approx((blocks - count) / (count + 1), abs=0.2)
    assert trained_block_indices(word, blocks) == stages[0]
    assert adapted_block_indices(word, blocks) == tuple(range(blocks))


def test_the_order_of_lisa_is_part_of_what_was_measured() -> None:
    """It must be the same on every machine and in every version: times are compared."""
    assert lisa_stages("lisa-2", 4) == ((0, 3), (1, 2))
    assert lisa_stages("lisa-1", 4) == ((3,), (2,), (1,), (0,))
    assert lisa_stages("lisa-4", 12) == ((0, 3, 8, 9), (4, 5, 6, 11), (1, 2, 7, 10))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("every-0th", "every-2nd is the first of its kind"),
        ("every-1st", "every-2nd is the first of its kind"),
        ("every-99th", "the model has 22 blocks"),
        ("every-2th", "write every-2nd"),
        ("every-2", "there is no such word"),
        ("every-", "there is no such word"),
        ("lisa-0", "at least 1 block trains"),
        ("lisa-999", "the model has 22 blocks"),
        ("lisa-", "there is no such word"),
        ("lisa-1/2", "there is no such word"),
        ("lisa--1", "there is no such word"),
        ("lisa-\u0662", "there is no such word"),
        ("upper-1/0", "the fraction must be above 0 and at most 1"),
        ("upper", "there is no such word"),
        ("0", "at least 1 block trains"),
        ("23", "the model has 22 blocks"),
    ],
)
def test_other_words_are_refused(word: str, says: str) -> None:
    for ask in (trainable_blocks, trained_block_indices, lisa_stages):
        with pytest.raises(ValueError) as raised:
            ask(word, 22)
        assert str(raised.value) == f"{word!r}: {says}"


def test_a_model_of_one_block_has_none_to_leave_out() -> None:
    with pytest.raises(ValueError, match=r"'every-2nd': the model has 1 block$"):
        trainable_blocks("every-2nd", 1)


def test_words_for_people() -> None:
    assert [layers_text(w) for w in ("12", "every-3rd", "lisa-1", "lisa-2", "upper-1/2")] == [
        "the top 12 blocks", "every 3rd block", "1 block at a time (LISA)", "2 blocks at a time (LISA)", "upper-1/2",
    ]  # fmt: skip
    assert all(word in layer_words(22) for word in ("all", "upper-1/2", "every-2nd", "lisa-1", "up to 22"))
