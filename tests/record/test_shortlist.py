"""The rule by which an answer is given: ranked, ties called ties, nothing where the intervals carry nothing."""

from dataclasses import replace

from bench.case import Case
from bench.record.shortlist import Option, leaders, sentence, shortlist, verdicts
from bench.record.stats import Estimate

FULL = Case("model", "tinyllama", None, "full", "eager", "all", None, None, None, None, None, "bf16", 4, 512)

NAMES = {"full": "Full-FT", "lora": "LoRA", "paca": "PaCA", "bitfit": "BitFit", "dora": "DoRA"}


def option(method: str, impl: str, ratio: float, half: float = 0.01, gib: float | None = None) -> Option:
    case = replace(FULL, method=method, impl=impl)
    ms = Estimate(100 * ratio, 100 * ratio * (1 - half), 100 * ratio * (1 + half))
    over = None if (method, impl) == ("full", "eager") else Estimate(ratio, ratio * (1 - half), ratio * (1 + half))
    return Option(case, f"{NAMES[method]} {impl}", ms, over, gib)


def told(*options: Option, half: float = 0.01) -> tuple[str, list[str], list[str]]:
    """Sentence, names of the leaders, verdicts by rank, where every ratio has that half of an interval."""
    ms = {o.case: o.ms.value for o in options}

    def over(a: Case, b: Case) -> Estimate:
        value = ms[a] / ms[b]
        return Estimate(value, value * (1 - half), value * (1 + half))

    ranked = shortlist(options)
    first = [o.name for o in leaders(options, over)]
    said = [f"{o.name}: {v}" for o, v in zip(ranked, verdicts(ranked, over), strict=True)]
    return sentence(options, over), first, said


def test_the_winner_what_people_have_and_memory_are_named() -> None:
    said, first, ranked = told(
        option("full", "eager", 1, gib=24), option("lora", "eager", 1.4), option("lora", "peft-fp32", 1.5, gib=14),
        option("lora", "triton", 0.95, gib=12), option("paca", "triton", 0.8, gib=11),
    )  # fmt: skip
    assert first == ["PaCA triton"]
    assert said == (
        "PaCA triton is the fastest: 0.8000 [0.7920, 0.8080] times Full-FT eager's forward-backward. "
        "LoRA peft-fp32, which most people have, took 1.875 [1.856, 1.894] times as long as PaCA triton. "
        "LoRA triton, the fastest LoRA, took 0.9500 [0.9405, 0.9595] times Full-FT eager's. "
        "Peak memory: PaCA triton 11 GiB, Full-FT eager 24 GiB and LoRA peft-fp32 14 GiB."
    )
    assert ranked == [
        "PaCA triton: fastest", "LoRA triton: faster than Full-FT", "Full-FT eager: the baseline",
        "LoRA eager: slower than Full-FT", "LoRA peft-fp32: slower than Full-FT",
    ]  # fmt: skip


def test_a_tie_is_called_one() -> None:
    said, first, ranked = told(
        option("full", "eager", 1), option("lora", "triton", 0.903), option("paca", "triton", 0.9)
    )
    assert first == ["PaCA triton", "LoRA triton"] and "PaCA triton and LoRA triton tie for the fastest: 0.9" in said
    assert ranked[:2] == ["PaCA triton: ties for the fastest", "LoRA triton: ties for the fastest"]
    said, first, _ = told(option("full", "eager", 1), option("lora", "eager", 1.005))
    assert first == ["Full-FT eager", "LoRA eager"] and "Full-FT eager and LoRA eager tie for the fastest" in said


def test_the_floor_is_listed_and_never_what_to_use() -> None:
    said, first, ranked = told(
        option("full", "eager", 1), option("bitfit", "eager", 0.5), option("lora", "eager", 0.7),
        option("dora", "eager", 0.9),
    )  # fmt: skip
    assert first == ["LoRA eager"] and "BitFit" not in said
    assert ranked[0] == "BitFit eager: the floor: what trains next to nothing"
    assert ranked[1] == "LoRA eager: fastest" and "DoRA eager, the fastest DoRA, took 0.9" in said
    said, first, _ = told(option("bitfit", "eager", 0.5))
    assert (said, first) == ("", [])


def test_disjoint_ratios_to_full_ft_are_no_tie_though_the_unpaired_one_is_wide() -> None:
    _, first, _ = told(option("full", "eager", 1), option("lora", "eager", 1.3), option("paca", "eager", 0.8), half=0.9)
    assert first == ["PaCA eager"]


def test_nothing_is_said_of_what_is_too_wide() -> None:
    said, first, ranked = told(option("full", "eager", 1), option("paca", "eager", 0.7, half=0.5))
    assert first == ["Full-FT eager"] and "PaCA" not in said and ranked[0] == "PaCA eager: too noisy to tell"
    said, first, _ = told(option("paca", "eager", 0.7, half=0.5))
    assert said == "" and first == []


def test_it_is_said_that_peft_cannot_be_compared() -> None:
    said, first, _ = told(
        option("full", "eager", 1), option("paca", "eager", 0.7), option("lora", "peft", 1.2, half=0.4)
    )
    assert first == ["PaCA eager"] and "LoRA peft, which most people have, is too noisy to compare." in said


def test_the_list_keeps_each_method_full_ft_and_peft() -> None:
    many = [option("paca", name, 0.5 + i / 100) for i, name in enumerate(("triton", "swap", "official", "eager", "e2"))]
    kept = shortlist([*many, option("full", "eager", 1), option("lora", "triton", 0.9), option("lora", "peft", 2)], 4)
    assert [o.name for o in kept] == ["PaCA triton", "LoRA triton", "Full-FT eager", "LoRA peft"]


def test_what_cannot_be_used_is_not_the_answer() -> None:
    best = replace(option("paca", "triton", 0.8), bar="does not fit in 2 GiB")
    said, first, ranked = told(option("full", "eager", 1), option("lora", "triton", 0.9), best)
    assert first == ["LoRA triton"] and said.startswith("LoRA triton is the fastest") and "PaCA" not in said
    assert ranked[0] == "PaCA triton: does not fit in 2 GiB"
    assert told(best) == ("", [], ["PaCA triton: does not fit in 2 GiB"])
