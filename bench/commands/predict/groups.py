"""What every part of `predict --check` returns and needs: a group of predictions beside what was measured; the host."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.case import Case
from bench.predict.judged import Interval, Judged
from bench.predict.ops import Trace
from bench.predict.predicted import Host, Predicted, Ratio

Tracer = Callable[[Case], Trace]

# What an operator costs the host, in microseconds: the range of what is published, from one bare torch.add
# (flagos-ai/Torch-FL issue 27) to a Hugging Face model with Python's stacks recorded (AMD-AGI/TraceLens, traces/h100).
HOSTS_US = (8.0, 62.0)
# The median time between launches of the one eager language model among those traces, Qwen1.5-0.5B. Nothing separate is
# published of a backward.
TYPICAL = Host(19.0, 19.0, "AMD-AGI/TraceLens, Qwen1.5-0.5B by Hugging Face on an H100: 19 us between launches")


@dataclass(frozen=True)
class Group:
    """Predictions of one kind. target: the mean error aimed at; fitted: something was chosen by these very rows."""

    name: str
    judged: list[Judged]
    target: float | None = None
    fitted: bool = False
    note: str = ""
    section: str = ""
    of: str = field(default="time", kw_only=True)  # or ratio


def judge(subject: str, predicted: Predicted, measured_ms: float) -> Judged:
    """A predicted time beside a measured one, both in ms."""
    return Judged(subject, predicted.ms, measured_ms, (predicted.interval(80), predicted.interval(90)))


def judge_ratio(subject: str, predicted: Ratio, measured: float) -> Judged:
    """A predicted ratio beside a measured one."""
    return Judged(subject, predicted.value, measured, (predicted.interval(80), predicted.interval(90)))


def spanning(judged: list[Judged]) -> Judged:
    """Predictions of one thing under several hosts as one: the first one's value, intervals that span all of theirs."""
    first = judged[0]
    spans: list[Interval] = [
        (min(j.intervals[i][0] for j in judged), max(j.intervals[i][1] for j in judged)) for i in (0, 1)
    ]
    return Judged(first.subject, first.predicted, first.measured, (spans[0], spans[1]))
