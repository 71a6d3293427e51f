"""Accuracy by lm-evaluation-harness: its prompts and its scoring of its mmlu tasks, over items already read.

The harness's tasks load their data from the Hub. Here each keeps its own configuration, template and metric, and takes
the items from memory, so that local files are evaluated without a network.
"""

import logging
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.accuracy.question import Outcome, Piece, Scorer
from bench.errors import UserError, install
from bench.train.data import Item


def harness_scorer(model: Any, tokenizer: Any, batch: int) -> Scorer:
    """Answers a piece as the harness's task mmlu_<subject> does.

    batch: prompts per forward pass. The softmax is in fp32, where the harness's default is the model's own dtype: in
    bf16 close answers would tie.
    """
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer has neither a bos_token nor an eos_token, and the harness begins"
            " prompts with one. Copy the checkpoint again, or name one in its tokenizer_config.json"
        )
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    _hush()
    longest = window(model, tokenizer)

    class Loaded(HFLM):
        """The harness's own model class, without its progress bars; keeps which prompts were cut."""

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: Any = None) -> Any:
            self.too_long = {text for (text, _), before, after in requests if len(before) + len(after) > longest + 1}
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    harness = Loaded(model, tokenizer=tokenizer, batch_size=batch, max_length=longest, softmax_dtype="float32")

    def score(piece: Piece) -> list[Outcome]:
        name = f"mmlu_{piece.subject}"
        result = evaluate(harness, {name: _task(piece)}, bootstrap_iters=0)
        samples = sorted(result["samples"][name], key=lambda s: s["doc_id"])
        return [
            Outcome(
                tuple(float(answer[0]) for answer in s["filtered_resps"]),
                bool(s["acc"]),
                s["arguments"][0][0] in harness.too_long,
            )
            for s in samples
        ]

    return score


def window(model: Any, tokenizer: Any) -> int:
    """How many tokens the model can see at once, from its config, else its tokenizer's limit, else 2048."""
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if value := getattr(model.config, name, None):
            return int(value)
    told = tokenizer.model_max_length
    return int(told) if told < 10**9 else 2048  # a tokenizer without a limit says 1e30


def _hush() -> None:
    """No warnings, task by task, of what is meant here, and no bars of the harness's own under ours."""
    import lm_eval.api.task as module

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if hasattr(module, "tqdm"):
        module.tqdm = partial(module.tqdm, disable=True)


def _task(piece: Piece) -> Any:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    splits = {"test": _rows(piece.items), "dev": _rows(piece.examples)}

    def data(**_: object) -> dict[str, Any]:
        return {name: Dataset.from_list(rows) for name, rows in splits.items()}

    config = {**task_config(piece.subject), "custom_dataset": data, "num_fewshot": len(piece.examples)}
    if not piece.examples:
        del config["fewshot_split"]
    return ConfigurableTask(config=config)


def _rows(items: tuple[Item, ...]) -> list[dict[str, Any]]:
    """The columns of the Hub's cais/mmlu."""
    return [
        {"question": i.question, "subject": i.subject, "choices": list(i.choices), "answer": i.answer} for i in items
    ]


def task_config(subject: str) -> dict[str, Any]:
    """The installed harness's configuration of mmlu_<subject>, without the place of its data."""
    config = {**_read("_default_template_yaml"), **_read(f"mmlu_{subject}.yaml")}
    return {k: v for k, v in config.items() if k != "include" and not k.startswith("dataset_")}


@cache
def _read(name: str) -> dict[str, Any]:
    import lm_eval.tasks
    import yaml

    path = Path(lm_eval.tasks.__path__[0]) / "mmlu" / "default" / name
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path}: not in this version of lm_eval. Install another: {install('accuracy')}") from None
