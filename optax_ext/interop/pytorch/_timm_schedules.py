"""timm's schedulers as schedules: constant over each epoch, or smooth where timm changes the rate at each update."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.interop._report import PLACEHOLDER_RATE
from optax_ext.interop.pytorch._arguments import Arguments, is_finite
from optax_ext.interop.pytorch._timm_rates import CYCLIC, DECAYS, KINDS, Scheduler
from optax_ext.schedules import CosineDecay, LinearWarmup, PiecewiseConstantDecay, PolynomialDecay, Schedule

_MAX_EPOCHS = 10_000  # each of which may have a rate of its own


def read_schedule(args: Arguments, base: float, steps_per_epoch: int | None) -> float | Schedule:
    """Return the rate or the schedule; a placeholder where there was a problem."""
    kind = args.text("sched").lower()
    if kind == "none":
        return base
    if kind not in KINDS:
        reason = f"is not one of timm{did_you_mean(kind, KINDS)}"
        if kind == "plateau":
            reason = "gives a rate that depends on the evaluation, which no function of the step can"
        args.problem("sched", f"{shorten(kind)} {reason}, accepted: {join_words([*KINDS, 'none'])}")
        return PLACEHOLDER_RATE
    if args.value("lr_noise") is not None:
        args.problem("lr_noise", "is drawn by PyTorch's generator, whose numbers are not to be had here: remove it")
    on_updates = args.flag("sched_on_updates")
    if steps_per_epoch is None:
        where = "'sched_on_updates' is set" if on_updates else "the rate changes once an epoch"
        text = f"is in epochs, and {where}: give steps_per_epoch, the number of updates of the optimizer in one"
        args.problem("epochs", f"{text}, batches per epoch / grad_accum_steps rounded up")
    scheduler = _scheduler(args, kind, base, (steps_per_epoch or 1) if on_updates else 1)
    if args.report.problems or scheduler is None:
        return PLACEHOLDER_RATE
    if on_updates:
        return _smooth(args, scheduler)
    return _by_epoch(args, scheduler, steps_per_epoch or 1)


def _scheduler(args: Arguments, kind: str, base: float, unit: int) -> Scheduler | None:
    """Return the scheduler in epochs, or in updates, of which `unit` are an epoch."""
    epochs, warmup, decay = args.number("epochs"), args.number("warmup_epochs"), args.number("decay_epochs")
    prefix, timescale = args.flag("warmup_prefix"), args.number("lr_stable_timescale")
    shape = args.text("lr_decay_fn") if args.given("lr_decay_fn") else None
    for name, lowest in {"epochs": 1, "warmup_epochs": 0, "cooldown_epochs": 0, "lr_cycle_limit": 1}.items():
        if args.number(name) < lowest:
            args.problem(name, f"must be at least {lowest}, got {args.number(name)}")
    for name in ("decay_epochs", "lr_k_decay", "lr_cycle_mul"):
        if args.number(name) <= 0:
            args.problem(name, f"must be greater than 0, got {args.number(name)}")
    length = epochs * unit
    if kind in ("wsd", "rsqrt"):
        length -= 0 if prefix else warmup * unit
        decay = decay * length / unit if 0 < decay < 1 else decay
        if not 0 < round(decay * unit) <= length:
            text = f"must be between 0 and the {length / unit:g} epochs after the warm-up, got {decay:g}"
            args.problem("decay_epochs", text)
        shape = shape or ("linear" if kind == "rsqrt" else "1-sqrt")
        if shape not in DECAYS:
            args.problem("lr_decay_fn", f"must be one of {join_words(DECAYS)}, got {shorten(shape)}")
        timescale = warmup if timescale is None else timescale
        if kind == "rsqrt" and timescale <= 0:
            text = f"must be greater than 0, as warmup_epochs is where it is not set, got {timescale}"
            args.problem("lr_stable_timescale", text)
    if args.report.problems:
        return None
    return Scheduler(
        kind,
        base,
        length,
        warmup * unit,
        args.number("warmup_lr"),
        prefix,
        args.number("min_lr"),
        round(decay * unit) if kind in ("wsd", "rsqrt") else decay * unit,
        tuple(milestone * unit for milestone in args.numbers("decay_milestones")),
        args.number("decay_rate"),
        args.number("lr_cycle_mul"),
        args.number("lr_cycle_decay"),
        args.integer("lr_cycle_limit"),
        args.number("lr_k_decay"),
        shape or "linear",
        timescale and timescale * unit,
    )


def _by_epoch(args: Arguments, scheduler: Scheduler, steps_per_epoch: int) -> float | Schedule:
    try:
        epochs = scheduler.total() + args.number("cooldown_epochs")
    except ArithmeticError:  # cycles that grow without end
        epochs = math.inf
    if not 0 < epochs <= _MAX_EPOCHS:
        args.problem("epochs", f"the schedule may have {_MAX_EPOCHS} epochs, got {epochs}")
        return PLACEHOLDER_RATE
    rates = _rates(args, scheduler, range(math.ceil(epochs)))
    return PLACEHOLDER_RATE if rates is None else _piecewise(args, rates, steps_per_epoch)


def _rates(args: Arguments, scheduler: Scheduler, times: Iterable[float]) -> list[float] | None:
    """Return the rates at some times; None if there was a problem."""
    try:
        rates = [scheduler.rate(time) for time in times]
    except (ArithmeticError, ValueError) as error:
        args.problem("sched", f"gives a rate that cannot be computed: {error}")
        return None
    for rate in rates:
        if not is_finite(rate) or rate < 0:
            args.problem("sched", f"gives a rate that is no number of at least 0, got {rate}")
            return None
    return rates


def _piecewise(args: Arguments, rates: list[float], steps: int) -> float | Schedule:
    """Return the schedule of a rate for each run of `steps` steps."""
    changes = [index for index in range(1, len(rates)) if rates[index] != rates[index - 1]]
    if not changes:
        return rates[0]
    fields = {
        "boundaries": [change * steps - 1 for change in changes],
        "values": [rates[0], *(rates[change] for change in changes)],
    }
    return args.report.build(PiecewiseConstantDecay, fields, "sched", {}) or PLACEHOLDER_RATE


def _smooth(args: Arguments, scheduler: Scheduler) -> float | Schedule:
    after = _after_warmup(args, scheduler)
    if after is None:
        return PLACEHOLDER_RATE
    if scheduler.warmup == 0:
        return after
    fields = {
        "after": after,
        "warmup_steps": scheduler.warmup,
        "warmup_learning_rate": scheduler.warmup_start,
    }
    rates = _rates(args, scheduler, [int(scheduler.warmup)])  # a whole number, or refused below
    if rates and not math.isclose(rates[0], scheduler.base, rel_tol=1e-12):
        fields["warmup_target"] = scheduler.base
    names = {"warmup_steps": "warmup_epochs", "warmup_learning_rate": "warmup_lr"}
    return args.report.build(LinearWarmup, fields, "", names) or PLACEHOLDER_RATE


def _after_warmup(args: Arguments, scheduler: Scheduler) -> Any:
    """Return what comes after the warm-up of a scheduler that changes the rate at each update."""
    kind, base, lowest, offset = scheduler.kind, scheduler.base, scheduler.lowest, -scheduler.since_start(0)
    if kind in CYCLIC and (scheduler.cycles != 1 or scheduler.k != 1):
        text = "must be 1 with sched_on_updates: no schedule here has such cycles at each update"
        args.problem("lr_cycle_limit" if scheduler.cycles != 1 else "lr_k_decay", text)
    elif kind in ("tanh", "rsqrt") or (kind == "wsd" and scheduler.decay_shape not in ("linear", "cosine")):
        what = f"a {scheduler.decay_shape!r} decay of 'wsd'" if kind == "wsd" else repr(kind)
        args.problem("sched_on_updates", f"no schedule here is {what} at each update: set it to false")
    elif kind in ("step", "multistep"):
        return _drops(args, scheduler)
    if args.report.problems or kind == "constant":
        return None if args.report.problems else base
    names = {"alpha": "min_lr", "end_learning_rate": "min_lr", "power": "decay_rate", "decay_steps": "epochs"}
    fields: dict[str, Any] = {"initial_learning_rate": base, "decay_steps": scheduler.length, "offset": offset}
    if kind == "wsd":
        start = offset + scheduler.length - scheduler.decay_every
        fields |= {"decay_steps": scheduler.decay_every, "offset": start, "before_offset": "hold"}
    if kind == "cosine" or (kind == "wsd" and scheduler.decay_shape == "cosine"):
        if lowest > base:
            args.problem("min_lr", f"must be at most the learning rate, {base:g}, got {lowest:g}")
            return None
        return args.report.build(CosineDecay, fields | {"alpha": lowest / base if base else 0.0}, "", names)
    fields |= {"end_learning_rate": lowest, "power": scheduler.decay_rate if kind == "poly" else 1.0}
    return args.report.build(PolynomialDecay, fields, "", names)


def _drops(args: Arguments, scheduler: Scheduler) -> float | Schedule | None:
    """Return the schedule of a rate that drops now and then, without its warm-up."""
    offset, length = -scheduler.since_start(0), scheduler.length
    drops = length / scheduler.decay_every if scheduler.kind == "step" else len(scheduler.milestones)
    if drops > _MAX_EPOCHS:
        args.problem("decay_epochs", f"the rate may drop {_MAX_EPOCHS} times, got {drops:g}")
        return None
    if scheduler.kind == "step":
        times = [math.ceil(n * scheduler.decay_every) for n in range(1, int(drops) + 1)]
    else:
        times = [math.ceil(milestone) - 1 for milestone in scheduler.milestones]
    times = sorted({max(time, 1) for time in times if time < length})
    rates = _rates(args, dataclasses.replace(scheduler, warmup=0), [0, *times])
    if rates is None:
        return None
    fields = {"boundaries": [time - 1 for time in times], "values": rates, "offset": offset}
    return args.report.build(PiecewiseConstantDecay, fields, "sched", {}) if times else scheduler.base
