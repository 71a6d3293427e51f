"""What TensorBoard has of a run for its HPARAMS tab, read back by TensorBoard's own reader."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from bench.commands.evaluate import evaluate
from bench.commands.train import train
from bench.train.plan import Request
from tests.accuracy.direct import direct_scorer
from tests.mcq import make_items, write_jsonl

NAMES = ("_hparams_/experiment", "_hparams_/session_start_info")


def read(out: Path) -> tuple[EventAccumulator, set[str], set[str], dict[str, Any]]:
    """The events; the columns of the tab, hyperparameters and results; and this run's hyperparameters."""
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    tags = events.PluginTagToContent("hparams")
    experiment, start = (HParamsPluginData.FromString(tags[name]) for name in NAMES)
    values = {k: getattr(v, v.WhichOneof("kind")) for k, v in start.session_start_info.hparams.items()}
    columns = {h.name for h in experiment.experiment.hparam_infos}
    return events, columns, {m.name.tag for m in experiment.experiment.metric_infos}, values


def test_runs_compare_in_tensorboard(
    checkpoint: Callable[[str], Path], few: Path, strategy_file: Callable[..., str], tmp_path: Path
) -> None:
    test = write_jsonl(make_items(24, split="test"), tmp_path / "test.jsonl")
    model, columns = str(checkpoint("gpt2")), []
    for name in ("lora", "full", "no-tuning"):
        out = tmp_path / name
        strategy = name if name == "no-tuning" else strategy_file(name, epochs=1)
        assert train(Request(strategy, model, None if name == "no-tuning" else str(few), out)) == 0
        for _ in range(2):
            assert evaluate(str(out), str(test), 0, 8, None, "cpu", None, direct_scorer) == 0
        told, found = (json.loads((out / file).read_text()) for file in ("train.json", "accuracy.json"))
        events, given, results, values = read(out)
        columns.append((given, results))
        assert (values["strategy"], values["method"], values["model"]) == (name, told["method"], model)
        assert values["rank"] == (8 if name == "lora" else 0) and values["learning_rate"] == (
            told["learning_rate"] or 0
        )
        once = {"accuracy/average": found["average"], "accuracy/stem": found["categories"]["stem"]}
        once |= {f"result/{key}": told[key] for key in ("final_loss", "tokens_per_s", "peak_mib") if key in told}
        for tag, value in once.items():
            if value is not None:
                (event,) = events.Scalars(tag)
                assert (event.step, event.value) == (told["steps"], pytest.approx(value))
        assert {"result/wall_s", "accuracy/average"} <= results
    assert columns[0] == columns[1] == columns[2], "TensorBoard takes the columns of one of them for all"
