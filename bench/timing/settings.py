"""The constants of a measurement, in one place. A sweep file may override any of them under `measure:`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Longer or more than anybody waits for, and less than a clock or a counter can hold.
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Share = Annotated[float, Field(gt=0, le=1e6)]  # of a half width, of a time

# By level, where a sweep does not say: a layer of 60 us fills 0.1 s with 1672 samples, each behind a flush of L2, a
# wait and a sleep of 1 ms, which is 2 to 4 s on the wall for a median that 24 samples may settle. With 0.02 s and
# 0.2 ms they are 336 samples, and the sleep is 0.07 s of the wall in place of 1.7. (Arithmetic, not measured.)
LEAST_TIME_S = {"linear": 0.02, "block": 0.1, "model": 0.1}
BACKLOG_S = {"linear": 0.0002, "block": 0.001, "model": 0.001}


class MeasureSettings(BaseModel):
    """When to stop measuring, how to warm up, and when to give a worker up. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    min_samples: Count = 24
    min_time_s: Seconds | None = None  # of measured time at least, so that fast kernels get enough samples; see above
    budget_s: Seconds = 3.0  # of measured time at levels linear and block
    model_budget_s: Seconds = 6.0  # of measured time at level model
    wall_s: Seconds = 15.0  # of wall time; wins over everything once wall_min_samples exist
    wall_min_samples: Count = 6  # fewer do not carry an interval of the median
    max_samples: Count = 5000
    check_every: Count = 8
    look_s: Seconds = 0.05  # between two looks at the GPU's state while a case is measured alone
    target: Share = 0.005  # half width of the interval over the median at which a median has converged
    noisy: Share = 0.02  # half width above which a row is flagged
    warmup_calls: Count = 5
    warmup_s: Seconds = 0.2  # 25 ms, triton's default, is up to 30 % off while clocks ramp
    warmup_max_s: Seconds = 2.0
    # Rounds: the cases of a comparison in turns.
    block_s: Seconds = 0.075  # of each case in a round; at least one sample
    min_rounds: Count = 12
    max_rounds: Count = 400
    ratio_target: Share = 0.005  # half width of the interval over the ratio at which it has converged
    max_waiting: Share = 0.05  # share of a block's wall time that a CPU process may wait for a core
    # Clock device: a sleep kernel before a call, so that all of it is queued before the first launch runs.
    backlog_s: Seconds | None = None  # at least; see above
    backlog_factor: Share = 1.5  # times the 95th percentile of the host's time in warm-up
    backlog_doublings: int = Field(default=2, ge=0, le=20)  # of too short a sleep; then the call is unsupported
    queue_share: float = Field(default=0.8, gt=0, le=1)  # of the launch queue's depth that one call may fill
    # Clock graph.
    graph_warmups: Count = 3  # eager calls on the stream of the capture
    graph_batch_s: Seconds = 0.001  # shorter calls are captured several at a time, where the L2 cache is warm
    graph_max_calls: Count = 256  # in one graph, so that capturing a tiny call stays short
    energy: bool = False  # of blocks and models under clock eager: 3 s more for each case, on a GPU that counts it
    # A throttled GPU is left to itself before the block of samples is taken again.
    rest_s: Seconds = 0.05
    rest_growth: float = Field(default=1.5, ge=1, le=10)
    rest_max_s: Seconds = 0.5
    max_rests: int = Field(default=10, ge=0, le=300)
    timeout_s: Seconds = 300.0  # silence of a worker after which it is taken for hung
    compile_timeout_s: Seconds = 1800.0  # the same where torch.compile may be at work

    def budget(self, level: str) -> float:
        """Measured seconds after which a case at this level stops, converged or not."""
        return self.model_budget_s if level == "model" else self.budget_s

    def least_time(self, level: str) -> float:
        """Measured seconds before which no case at this level stops as converged."""
        return LEAST_TIME_S[level] if self.min_time_s is None else self.min_time_s

    def backlog(self, level: str) -> float:
        """Seconds that the GPU sleeps at least before a call that must be queued whole."""
        return BACKLOG_S[level] if self.backlog_s is None else self.backlog_s
