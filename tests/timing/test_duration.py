"""How long a measurement is expected to take follows the sampler and the rounds, on clocks that only simulate."""

import numpy as np
import pytest

from bench.runner.rounds import Rounds
from bench.timing.clocks import make_clock
from bench.timing.duration import Pace, alone_s, rounds_s
from bench.timing.measurement import Samples
from bench.timing.sampler import Sampler
from bench.timing.settings import MeasureSettings
from tests.fakecuda import FakeCuda
from tests.timing.fake_work import CPU, FakeWork

SETTINGS = MeasureSettings()
JITTER = 0.003


@pytest.mark.parametrize("ms", [0.06, 1.0, 20.0])
def test_the_simulation_follows_the_sampler(cuda: FakeCuda, ms: float) -> None:
    """A layer on the simulated GPU with the jitter of a replay, where 24 samples are enough or 0.02 s are due."""
    work = FakeWork(cuda, forward=1, backward=1, gpu=ms / 2e3)
    rng, run = np.random.default_rng(3), work.run

    def jittering(launches: list[tuple[float, float]]) -> None:
        run([(gpu * (1 + JITTER * 2**0.5 * rng.standard_normal()), host) for gpu, host in launches])

    work.run = jittering  # type: ignore[method-assign]
    clock = make_clock("eager", CPU, False, SETTINGS, cuda)
    found = Sampler(work, clock, ("forward-backward",), "linear", SETTINGS, now=cuda.now).alone()
    assert found.status == "ok" and set(found.stop.values()) == {"converged"}
    predicted = alone_s(Pace((ms / 1e3,), 10e-6), SETTINGS, "linear", JITTER)
    assert predicted == pytest.approx(cuda.now(), rel=0.25)


class Turn:
    """A case whose blocks take as long as its samples, on a clock that they share."""

    def __init__(self, pace: Pace, time: list[float]) -> None:
        self.pace, self.time = pace, time

    def block(self, number: int, seconds: float) -> Samples:
        each = self.pace.first + self.pace.beside
        self.time[0] += each
        begun, samples = self.time[0], []
        while not samples or self.time[0] - begun < seconds:
            self.time[0] += each
            samples.append(1e3 * self.pace.first * (1 + 0.02 * ((7 * number + 3 * len(samples)) % 11 - 5)))
        return {("forward-backward", "eager"): samples}


@pytest.mark.parametrize(("ms", "cases"), [(12.0, 6), (60.0, 6), (400.0, 2)])
def test_the_simulation_follows_the_rounds(ms: float, cases: int) -> None:
    """Where samples never settle, rounds end at a budget: there the simulation is at most what was taken."""
    paces, time = [Pace((ms / 1e3,), 1e-4)] * cases, [0.0]
    rounds = Rounds([Turn(p, time) for p in paces], [("forward-backward", "eager")], "model", SETTINGS, lambda: time[0])
    reason = rounds.run()
    predicted = sum(rounds_s(paces, SETTINGS, "model", 0.01, 0.03))
    least = SETTINGS.min_rounds * time[0] / rounds.done
    most = SETTINGS.wall_s * cases + time[0] / rounds.done + 3.0 * cases  # a round, warm-up and what lies between
    assert reason in ("converged", "budget", "wall") and least <= predicted <= most
