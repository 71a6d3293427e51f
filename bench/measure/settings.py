"""The constants of a measurement, in one place. A sweep file may override any of them under `measure:`."""

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class MeasureSettings(BaseModel):
    """When to stop measuring, how to warm up, and when to give a child up. Times in seconds."""

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
    timeout_s: float = Field(default=300.0, gt=0)  # silence of a child after which it is taken for hung

    def budget(self, level: str) -> float:
        """Measured seconds after which a case at this level stops, converged or not."""
        return self.model_budget_s if level == "model" else self.budget_s
