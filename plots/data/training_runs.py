"""What Table 2 is made of: the published one, real training runs, and a measured step projected to an epoch."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.reading import Count, Number, Text, number, read_json_lines, read_object, shape_of
from plots.data.load import ROW_FILES, text

PAPER = Path(__file__).resolve().parents[2] / "results" / "paper" / "table2.csv"
MODEL = "llama2-7b"  # the paper's
LENGTH = 512  # the paper's: a step at another length says nothing about its epoch

# Examples of MMLU's auxiliary_train (its data set card, cais/mmlu), which PaCA's public scripts train on. The paper
# does not say how many it trained on; with these its LoRA took 8.40 s for a step of 32 examples.
EXAMPLES = 99_842

# The paper's four categories as accuracy.json names them.
CATEGORIES = (("humanities", "hums"), ("stem", "stem"), ("social sciences", "social"), ("other", "other"))
# Keys of train.json: what a step is, and on how many devices. The last two are null for AdamW and for none.
CONDITIONS = ("batch", "accumulation", "length", "precision", "world_size", "optimizer", "gradient_checkpointing")
SCORES = (*(ours for ours, _ in CATEGORIES), "average")


_Percent: Any = number(0, 100)


# What is read of train.json and of accuracy.json.
_TRAIN = shape_of({
    **dict.fromkeys(("strategy", "method", "trainable_layers", "model", "gpu", "device", "precision",
                     "scaling", "optimizer", "gradient_checkpointing"), Text),
    **dict.fromkeys(("steps", "examples", "batch", "accumulation", "length", "world_size"), Count),
    **dict.fromkeys(("wall_s", "final_loss", "tokens_per_s", "peak_mib"), number(0, 1e9)), "peak_of": Text,
})  # fmt: skip
_ACCURACY = shape_of({
    **dict.fromkeys(("strategy", "model", "by"), Text),
    **dict.fromkeys(("items", "shots"), Count),
    "categories": dict[Text, _Percent | None], "average": _Percent, "stderr": dict[Text, _Percent | None],
})  # fmt: skip
_STEP = shape_of({"loss": Number, "elapsed_s": number(0, 1e9), "step_s": number(0, 1e9)}, ("loss", "elapsed_s"))


@dataclass(frozen=True)
class Published:
    """A line of the paper's Table 2."""

    strategy: str
    method: str
    layers: str
    gpu: str
    seconds: float | None  # of one epoch
    scores: dict[str, float]  # percent, by SCORES

    @property
    def slug(self) -> str:
        return self.strategy.lower().replace(" ", "-")


@dataclass(frozen=True)
class Run:
    """A folder of `bench train` or of `bench evaluate`; None or empty for what it does not hold."""

    path: Path
    strategy: str | None
    method: str | None
    layers: str | None
    model: str
    device: str | None  # the GPU's name where it is known
    conditions: tuple[object, ...]  # what must be equal for two trainings' steps to be compared, beside the model
    seconds: float | None  # wall clock of the training
    steps: int | None
    examples: int | None
    scores: dict[str, float]  # percent, by SCORES
    by: str  # what the scores come from: '14042 items, 5 shots, lm-eval'
    subject: str  # the model as tables name it: the paper's by one name, wherever it lies; any other without its path
    errors: dict[str, float] = field(default_factory=dict)  # standard errors of the scores, in percent
    final_loss: float | None = None
    tokens_per_s: float | None = None
    peak_mib: float | None = None
    peak_of: str = ""  # what that is the peak of
    clock: tuple[float, ...] = ()  # seconds of training after each step
    losses: tuple[float, ...] = ()  # of each step
    steps_s: tuple[float, ...] = ()  # what each step took
    scaling: str | None = None  # of a LoRA branch, where it is not the usual one

    @property
    def name(self) -> str:
        """What a line or a point is called: the strategy, and the folder where it is called otherwise."""
        folder = self.path.resolve().name
        return folder if self.strategy in (None, folder) else f"{self.strategy} ({folder})"

    @property
    def paper(self) -> Published | None:
        """The paper's line for what trained; the paper has no rsLoRA."""
        return None if self.scaling else line_of(self.strategy, self.method, self.layers)

    @property
    def later_steps(self) -> tuple[float, ...]:
        """Seconds of each step without the first tenth of them, at least one and at most ten: they warm up."""
        return self.steps_s[min(max(len(self.steps_s) // 10, 1), 10) :]


@cache
def published() -> tuple[Published, ...]:
    """The paper's lines in its order; none where the file is not there."""
    if not PAPER.exists():
        return ()
    with PAPER.open(newline="", encoding="utf-8") as file:
        return tuple(_published(line) for line in csv.DictReader(file))


def _published(line: dict[str, str]) -> Published:
    hours, _, rest = line["training_time"].partition(":")
    minutes, _, seconds = rest.partition(":")
    took = 3600 * int(hours) + 60 * int(minutes) + float(seconds) if hours else None
    scores = {ours: float(line[theirs]) for ours, theirs in (*CATEGORIES, ("average", "avg"))}
    return Published(line["strategy"], line["method"], line["trainable_layers"], line["gpu"], took, scores)


def paper_ratio(line: Published) -> float | None:
    """The paper's training time over its LoRA's."""
    lora = next((p.seconds for p in published() if p.method == "lora"), None)
    return line.seconds / lora if line.seconds and lora else None


def is_papers(model: str) -> bool:
    """Whether a model's name or path is that of the paper's model, as the Hub spells it too."""
    plain = re.sub(r"[^a-z0-9]", "", model.lower())
    return "llama27b" in plain and "chat" not in plain


def steps_of(examples: int, batch: int, accumulation: int) -> int:
    """Optimizer steps of one epoch: ceil(examples / (batch x accumulation)); the last may be a smaller one."""
    return math.ceil(examples / (batch * accumulation))


def duration_word(seconds: float) -> str:
    """'1.24 s', '12 min 05 s' or '7 h 17 min'."""
    if seconds < 59.95:
        return f"{seconds:#.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{round(seconds / 60) // 60} h {round(seconds / 60) % 60:02} min"


def clock_word(seconds: float) -> str:
    """26221.79 -> '7:17:02', as the paper writes it, to the second."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def is_run(path: Path) -> bool:
    """A folder that training or evaluation wrote, and no results folder of a sweep."""
    files = (path / "train.json", path / "accuracy.json")
    return any(f.exists() for f in files) and not any((path / name).exists() for name in ROW_FILES)


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Reads folders of runs. Models of one name that are not the same one keep their paths. Raises UserError."""
    runs = [load_run(path) for path in paths]
    several = {run.subject for run in runs if any(o.subject == run.subject and o.model != run.model for o in runs)}
    return [replace(r, subject=r.model) if r.subject in several - {MODEL} else r for r in runs]


def load_run(path: Path) -> Run:
    """Reads train.json, accuracy.json and metrics.jsonl, whichever are there. Raises UserError where one is damaged."""
    train, accuracy = (
        read_object(file, shape) if file.exists() else {}
        for file, shape in ((path / "train.json", _TRAIN), (path / "accuracy.json", _ACCURACY))
    )
    both = accuracy | train
    given = {**(accuracy.get("categories") or {}), "average": accuracy.get("average")}
    scores = {name: value for name in SCORES if (value := given.get(name)) is not None}
    errors = {name: value for name, value in (accuracy.get("stderr") or {}).items() if value is not None}
    model = text(both.get("model")) or "unnamed"
    lines = read_json_lines(path / "metrics.jsonl", _STEP)[0] if train else []
    clock = tuple(line["elapsed_s"] for line in lines)
    steps = (
        now - before if took is None else took
        for took, now, before in zip((line.get("step_s") for line in lines), clock, (0.0, *clock), strict=False)
    )
    shots = text(accuracy.get("shots"))
    told = [f"{text(accuracy.get('items'))} items" if accuracy.get("items") else "", shots and f"{shots} shots"]
    told.append(text(accuracy.get("by")))
    device = text(train.get("gpu")) or text(train.get("device"))
    conditions = (device, *(train.get(key) for key in CONDITIONS))
    return Run(
        path, text(both.get("strategy")), text(both.get("method")), text(both.get("trainable_layers")),
        model, device, conditions, train.get("wall_s"),
        train.get("steps"), train.get("examples"), scores,
        ", ".join(filter(None, told)) if scores else "",
        MODEL if is_papers(model) else model.replace("\\", "/").rstrip("/").rpartition("/")[2] or model,
        errors, train.get("final_loss"), train.get("tokens_per_s"), train.get("peak_mib"),
        text(train.get("peak_of")) or "", clock, tuple(line["loss"] for line in lines), tuple(steps),
        text(train.get("scaling")),
    )  # fmt: skip


def line_of(strategy: str | None, method: str | None, layers: str | None) -> Published | None:
    """The paper's line of a strategy, by its name, where what trains is not another, or by what trains in it."""
    slug = (strategy or "").lower().replace(" ", "-").replace("_", "-")
    by_name = next((p for p in published() if p.slug == slug and method in (None, p.method)), None)
    return by_name or next((p for p in published() if (p.method, p.layers) == (method, layers)), None)
