"""The constants of a measurement, in one place. A sweep file may override any of them under `measure:`."""

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class MeasureSettings(BaseModel):
    """When to stop measuring, how to warm up, and when to give a worker up. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    min_samples: PositiveInt = 24
    min_time_s: PositiveFloat = 0.1  # of measured time, so that fast kernels get enough samples
    budget_s: PositiveFloat = 3.0  # of measured time at levels linear and block
    model_budget_s: PositiveFloat = 6.0  # of measured time at level model
    wall_s: PositiveFloat = 15.0  # of wall time; wins over everything once wall_min_samples exist
    wall_min_samples: PositiveInt = 6  # fewer do not carry an interval of the median
    max_samples: PositiveInt = 5000
    check_every: PositiveInt = 8
    target: PositiveFloat = 0.005  # half width of the interval over the median at which a median has converged
    noisy: PositiveFloat = 0.02  # half width above which a row is flagged
    warmup_calls: PositiveInt = 5
    warmup_s: PositiveFloat = 0.2  # 25 ms, triton's default, is up to 30 % off while clocks ramp
    warmup_max_s: PositiveFloat = 2.0
    # Rounds: the cases of a comparison in turns.
    block_s: PositiveFloat = 0.075  # of each case in a round; at least one sample
    min_rounds: PositiveInt = 12
    max_rounds: PositiveInt = 400
    ratio_target: PositiveFloat = 0.005  # half width of the interval over the ratio at which it has converged
    max_waiting: PositiveFloat = 0.05  # share of a block's wall time that a CPU process may wait for a core
    # Clock device: a sleep kernel before a call, so that all of it is queued before the first launch runs.
    backlog_s: PositiveFloat = 0.001  # at least
    backlog_factor: PositiveFloat = 1.5  # times the 95th percentile of the host's time in warm-up
    backlog_doublings: int = Field(default=2, ge=0)  # of a sleep that was too short; then the call is unsupported
    queue_share: float = Field(default=0.8, gt=0, le=1)  # of the launch queue's depth that one call may fill
    # Clock graph.
    graph_warmups: PositiveInt = 3  # eager calls on the stream of the capture
    graph_batch_s: PositiveFloat = 0.001  # shorter calls are captured several at a time, where the L2 cache is warm
    graph_max_calls: PositiveInt = 256  # in one graph, so that capturing a tiny call stays short
    # A throttled GPU is left to itself before the block of samples is taken again.
    rest_s: PositiveFloat = 0.05
    rest_growth: float = Field(default=1.5, ge=1)
    rest_max_s: PositiveFloat = 0.5
    max_rests: int = Field(default=10, ge=0)
    timeout_s: float = Field(default=300.0, gt=0)  # silence of a worker after which it is taken for hung
    compile_timeout_s: float = Field(default=1800.0, gt=0)  # the same where torch.compile may be at work

    def budget(self, level: str) -> float:
        """Measured seconds after which a case at this level stops, converged or not."""
        return self.model_budget_s if level == "model" else self.budget_s
