"""Strategy files: exactly the paper's Table 3, and mistakes told by file, line and key."""

import csv
from pathlib import Path

import pytest
import yaml

from bench.errors import UserError
from bench.train.strategy import STRATEGIES, Strategy, read_strategy, strategy_names
from plots.data.training_runs import line_of
from tests.conftest import ROOT

# Our key and our word for each line of results/paper/table3.csv.
KEYS = {
    "rank": "rank", "alpha": "alpha", "dropout": "dropout", "precision": "precision", "optimizer": "optimizer",
    "lr_scheduler": "schedule", "batch_size": "batch", "gradient_accumulation_steps": "accumulation",
    "sequence_length": "length", "warmup_steps": "warmup_steps", "epochs": "epochs", "target_modules": "targets",
}  # fmt: skip
WORDS = {"16-bit mixed": "amp-fp16", "AdamW": "adamw", "cosine": "cosine", "q,k,v,o,up,down,gate": "all-linear"}


NEWER = ("dora", "lora-fa", "rslora", "qlora", "qpaca", "bitfit", "lisa")  # than the paper, or beside it


def table3() -> dict[str, dict[str, str]]:
    """By the paper's name of a strategy, each hyperparameter that the table gives."""
    with (ROOT / "results" / "paper" / "table3.csv").open() as file:
        lines = list(csv.DictReader(file))
    return {
        name: {x["hyperparameter"]: x[name] for x in lines if x[name]} for name in lines[0] if name != "hyperparameter"
    }


@pytest.mark.parametrize("name", ["lora", "paca", "upper-half-paca", "three-quarters-paca"])
def test_strategies_are_table_3(name: str) -> None:
    _, strategy = read_strategy(name)
    published = table3()[strategy.description]
    assert KEYS.keys() >= published.keys()
    for hyperparameter, value in published.items():
        ours = getattr(strategy, KEYS[hyperparameter])
        assert ours == (WORDS[value] if value in WORDS else float(value)), hyperparameter
    if "dropout" not in published:
        assert strategy.dropout == 0


def test_what_table_3_leaves_out_is_said() -> None:
    with (ROOT / "results" / "paper" / "table2.csv").open() as file:
        lines = {x["strategy"]: x for x in csv.DictReader(file)}
    assert "full" in strategy_names(), "the yardstick, which is in no table of the paper"
    strategies = [read_strategy(name)[1] for name in strategy_names() if name not in ("full", *NEWER)]
    assert {s.description for s in strategies} == set(lines)
    for strategy in strategies:
        line = lines[strategy.description]
        if strategy.method != "none":
            assert (strategy.method, strategy.trainable_layers) == (line["method"], line["trainable_layers"])
            assert strategy.learning_rate == {"lora": 3e-4, "paca": 1e-4}[strategy.method]
    for name in ("paca", "upper-half-paca", "three-quarters-paca"):
        text = (STRATEGIES / f"{name}.yaml").read_text()
        assert "learning rates are lost" in text and "PaCA's public" in text


@pytest.mark.parametrize("name", NEWER)
def test_a_strategy_beside_the_paper_s_is_no_line_of_its_tables(name: str) -> None:
    path, (_, strategy) = STRATEGIES / f"{name}.yaml", read_strategy(name)
    assert strategy.method == "lora" or line_of(name, strategy.method, strategy.trainable_layers) is None
    assert strategy.description not in table3() and "learning rate" in path.read_text(), (
        "its source, or that it has none"
    )


def test_full_fine_tuning_has_the_schedule_of_table_3() -> None:
    """Nothing but what trains and its learning rate differs, so that its times compare."""
    full, lora = (read_strategy(name)[1].model_dump() for name in ("full", "lora"))
    differs = {key for key in full if full[key] != lora[key]}
    assert differs == {"description", "method", "rank", "alpha", "dropout", "learning_rate"}
    assert (full["method"], full["trainable_layers"], full["learning_rate"]) == ("full", "all", 2e-5)


NO_RANK = "description: mine\nmethod: paca\nlearning_rate: 3e-4\n"
GOOD = "description: mine\nmethod: paca\nrank: 4\nalpha: 8\nlearning_rate: 3e-4\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + "rnak: 8\n", ":6: rnak: unknown key. Did you mean 'rank'? Keys here: description, method, trai"),
        (GOOD.replace("rank: 4", "rank: four"), ":3: rank: 'four': Input should be a valid integer"),
        (GOOD.replace("rank: 4", "rank: 0"), ":3: rank: 0: Input should be greater than 0"),
        (
            GOOD.replace("paca", "dorra"),
            ":2: method: 'dorra': Input should be 'none', 'full', 'lora', 'dora', 'lora-fa'",
        ),
        (GOOD + "trainable_layers: lower-1/2\n", ":6: trainable_layers: 'lower-1/2'"),
        (GOOD + "trainable_layers: every-1st\n", ":6: trainable_layers: 'every-1st': every-2nd is the first"),
        (GOOD + "trainable_layers: lisa-0\n", ":6: trainable_layers: 'lisa-0': at least 1 block trains. Valid: "),
        (GOOD + "precision: int8\n", ":6: precision: 'int8': Input should be 'amp-fp16'"),
        (GOOD + "trainable_layers: every-0th\n", ":6: trainable_layers: 'every-0th'"),
        (GOOD + "lisa_every: 5\n", ": trainable_layers is all, which has no lisa_every. It is a key of lisa-G"),
        (GOOD + "trainable_layers: lisa-2\nlisa_every: 0\n", ":7: lisa_every: 0: Input should be greater than 0"),
        (GOOD + "dropout: 0.1\n", ": method paca has no dropout. It is a key of lora, dora, lora-fa and qlora."),
        (GOOD + "scaling: rslora\n", ": method paca has no scaling. It is a key of lora, dora, lora-fa and qlora."),
        (GOOD + "scaling: half\n", ":6: scaling: 'half': Input should be 'standard' or 'rslora'"),
        (GOOD.replace("paca", "bitfit"), ": method bitfit has no rank"),
        (GOOD.replace("paca", "qpaca") + "weight_decay: 0.1\n", ": method qpaca takes no weight_decay: it would pull"),
        (NO_RANK.replace("paca", "bitfit") + "weight_decay: 0.1\n", ": method bitfit takes no weight_decay: transf"),
        (NO_RANK.replace("paca", "full") + "targets: [q_proj]\n", ": method full has no targets. It is a key of lora"),
        (GOOD + "weight_decay: 0.1\n", ": method paca takes no weight_decay"),
        (GOOD.replace("rank: 4\n", ""), ": method paca needs a rank"),
        (GOOD.replace("learning_rate: 3e-4\n", ""), ": method paca needs a learning_rate"),
        (GOOD.replace("paca", "full"), ": method full has no rank"),
        (GOOD + "rank: 8\n", ":6: key 'rank' stands twice, first on line 3"),
        (GOOD.replace("method: paca\n", ""), ": method: Field required"),
        ("- lora\n", ":1: a strategy is a mapping with the keys description, method"),
    ],
)
def test_a_mistake_is_told_by_file_line_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_strategy(str(path))
    assert str(error.value).startswith(str(path)) and told in str(error.value)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + "targets: [q_proj, v_proj]\ntrainable_layers: 2\n")
    name, strategy = read_strategy(str(path), epochs=3, batch=None)
    assert (name, strategy.targets, strategy.trainable_layers) == ("mine", ["q_proj", "v_proj"], "2")
    assert (strategy.learning_rate, strategy.epochs, strategy.batch) == (3e-4, 3, 8)
    assert set(yaml.safe_load(path.read_text())) <= set(Strategy.model_fields)
    path.write_text(GOOD.replace("description: mine\n", ""))
    assert read_strategy(str(path))[1].description == "", "it may be left out"


def test_flags_are_held_to_the_same_values() -> None:
    with pytest.raises(UserError, match="--precision: 'int8': Input should be 'amp-fp16'"):
        read_strategy("lora", precision="int8")
    with pytest.raises(UserError, match="--warmup-steps: -1: Input should be greater than or equal to 0"):
        read_strategy("lora", warmup_steps=-1)
    assert read_strategy("lora", warmup_steps=0)[1].warmup_steps == 0
    with pytest.raises(
        UserError, match=r"--strategy dorra: no such .* Did you mean 'dora'\? Strategies: bitfit, dora, "
    ):
        read_strategy("dorra")
