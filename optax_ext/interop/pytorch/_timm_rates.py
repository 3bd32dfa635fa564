"""The learning rates of timm's schedulers, as plain functions of the epoch or of the update.

timm changes the rate once an epoch unless ``sched_on_updates`` is set, so that these run in Python when a recipe is
read, and give the values of a piecewise constant schedule.
"""

import bisect
import dataclasses
import math
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """A scheduler of timm, in epochs or in updates.

    Args:
      kind: One of `KINDS`.
      base: The learning rate of the optimizer.
      length: The length of one cycle.
      warmup: The length of the warm-up.
      warmup_start: The rate at the start of the warm-up.
      prefix: Whether the warm-up comes before the first cycle, rather than in its place.
      lowest: The lowest rate.
      decay_every: The length between two drops, or that of the decay at the end.
      milestones: Where the rate drops.
      decay_rate: The factor of a drop, or the power of a polynomial.
      cycle_growth: The factor by which each cycle is longer than the one before.
      cycle_decay: The factor by which each cycle is higher than the one before.
      cycles: The number of cycles.
      k: The power of the progress in a cycle.
      decay_shape: The shape of the decay at the end.
      timescale: The timescale of the reciprocal root.
    """

    kind: str
    base: float
    length: float
    warmup: float = 0
    warmup_start: float = 0.0
    prefix: bool = False
    lowest: float = 0.0
    decay_every: float = 1
    milestones: tuple[float, ...] = ()
    decay_rate: float = 1.0
    cycle_growth: float = 1.0
    cycle_decay: float = 1.0
    cycles: int = 1
    k: float = 1.0
    decay_shape: str = "1-sqrt"
    timescale: float | None = None

    def rate(self, t: float) -> float:
        """Return the rate of an epoch or of an update, counted from 0."""
        if t < self.warmup:
            return self.warmup_start + t * ((self.target() - self.warmup_start) / self.warmup)
        return self.base if t == 0 else KINDS[self.kind](self, t)

    def target(self) -> float:
        """Return the rate to which the warm-up rises: the base even where the first cycle has begun to fall."""
        has_fallen = self.kind == "tanh" and not self.prefix
        return KINDS[self.kind](self, self.warmup) if has_fallen else self.base

    def total(self) -> float:
        """Return the length of the whole schedule, without the cooldown."""
        if self.kind in ("wsd", "rsqrt"):
            return self.warmup + self.length
        before = self.warmup if self.prefix else 0
        if self.kind not in CYCLIC or self.cycle_growth == 1:
            return before + self.length * (self.cycles if self.kind in CYCLIC else 1)
        grown = -self.length * (self.cycle_growth**self.cycles - 1) / (1 - self.cycle_growth)
        return before + math.floor(grown)

    def since_start(self, t: float) -> float:
        """Return how far a time is after the start of the first cycle."""
        return t - self.warmup if self.prefix or self.kind in ("wsd", "rsqrt") else t


def _in_cycle(self: Scheduler, t: float, fall: Callable[[float, float], float]) -> float:
    """Return the rate of a cyclic scheduler, where `fall` takes the time in a cycle and its length to [0, 1]."""
    t, growth = self.since_start(t), self.cycle_growth
    if growth == 1:
        cycle, length = t // self.length, self.length
        t -= cycle * length
    else:
        cycle = math.floor(math.log(1 - t / self.length * (1 - growth), growth))
        length = self.length * growth**cycle
        t -= (1 - growth**cycle) / (1 - growth) * self.length
    if cycle >= self.cycles:
        return self.lowest
    peak = self.base * self.cycle_decay**cycle
    return self.lowest + (peak - self.lowest) * fall(t, length)


def _cosine(self: Scheduler, t: float) -> float:
    return _in_cycle(self, t, lambda t, length: (1 + math.cos(math.pi * t**self.k / length**self.k)) / 2)


def _polynomial(self: Scheduler, t: float) -> float:
    return _in_cycle(self, t, lambda t, length: (1 - t**self.k / length**self.k) ** self.decay_rate)


def _tanh(self: Scheduler, t: float) -> float:
    return _in_cycle(self, t, lambda t, length: (1 - math.tanh(-7 * (1 - t / length) + 3 * (t / length))) / 2)


def _step(self: Scheduler, t: float) -> float:
    return self.base * self.decay_rate ** (self.since_start(t) // self.decay_every)


def _multistep(self: Scheduler, t: float) -> float:  # each milestone counts one epoch, or one update, before it
    return self.base * self.decay_rate ** bisect.bisect_right(self.milestones, self.since_start(t) + 1)


def _constant(self: Scheduler, t: float) -> float:
    return self.base


def _stable_then_decay(self: Scheduler, t: float) -> float:
    since = self.since_start(t)
    stable = self.base
    if self.kind == "rsqrt":
        stable *= (1 + since / (self.timescale or self.warmup)) ** -0.5
    stable = max(stable, self.lowest)
    progress = min((since - (self.length - self.decay_every)) / self.decay_every, 1.0)
    return stable if progress <= 0 else self.lowest + (stable - self.lowest) * DECAYS[self.decay_shape](progress)


DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: 1 - progress,
    "1-sqrt": lambda progress: 1 - math.sqrt(progress),
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "power": lambda progress: 1 - math.sqrt(progress),  # whose power of 0.5 train.py cannot change
    "exp": lambda progress: (0.1**progress - 0.1) / (1 - 0.1),
}
CYCLIC = frozenset({"cosine", "tanh", "poly"})
KINDS: dict[str, Callable[[Scheduler, float], float]] = {
    "cosine": _cosine,
    "tanh": _tanh,
    "poly": _polynomial,
    "step": _step,
    "multistep": _multistep,
    "constant": _constant,
    "wsd": _stable_then_decay,
    "rsqrt": _stable_then_decay,
}
