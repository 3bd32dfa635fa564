"""What a config builds, step by step, in words."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from optax_ext._core.field_types import FLOAT32_MAX
from optax_ext._core.schema import Schema, init_fields
from optax_ext.config import LARS, SGD, DynamicLossScale, FixedLossScale, OptimizationConfig, Optimizer, to_dict
from optax_ext.schedules import Schedule


class Stage(NamedTuple):
    """One stage that turns gradients into updates."""

    name: str
    effect: str


def title(loaded: Schema) -> str:
    """Return what a config is, in one line."""
    if isinstance(loaded, OptimizationConfig):
        around = f", inside {loaded.loss_scale.type} loss scaling" if loaded.loss_scale else ""
        return f"a recipe: {title(loaded.optimizer).removeprefix('an optimizer: ')}{around}"
    if isinstance(loaded, Optimizer):
        return f"an optimizer: {type(loaded).__name__} with {rate_words(loaded.learning_rate)}"
    if isinstance(loaded, Schedule):
        return f"a schedule: {rate_words(loaded)}"
    return f"a loss scale: {type(loaded).__name__}"


def rate_words(rate: float | Schedule) -> str:
    """Return a learning rate in words, with inner schedules after outer ones, which is their order in time."""
    if not isinstance(rate, Schedule):
        return f"a constant {rate:g}"
    after = getattr(rate, "after", None)
    return rate.type if after is None else f"{rate.type}, then {rate_words(after)}"


def chain(loaded: Schema) -> list[Stage]:
    """Return the stages of the transformation that a config makes, in order."""
    if isinstance(loaded, Schedule):
        return []
    if not isinstance(loaded, OptimizationConfig):
        return list(_optimizer(loaded) if isinstance(loaded, Optimizer) else _around([], loaded))
    stages = list(_optimizer(loaded.optimizer))
    for field in init_fields(type(loaded)):  # other parts come after the optimizer, inside loss scaling
        value = getattr(loaded, field.name)
        if isinstance(value, Schema) and field.name not in ("optimizer", "loss_scale"):
            stages.append(Stage(field.name, _fields(value)))
    if loaded.master_weights:
        stages = [
            Stage("master weights", "all that follows is in float32, with a copy of each narrower parameter"),
            *stages,
        ]
    return stages if loaded.loss_scale is None else list(_around(stages, loaded.loss_scale))


def _optimizer(optimizer: Optimizer) -> Iterator[Stage]:
    if optimizer.clipvalue is not None:
        yield Stage("clip by value", f"each number to at most {optimizer.clipvalue:g} either way")
    if optimizer.clipnorm is not None:
        yield Stage("clip by norm", f"each gradient by itself to a norm of at most {optimizer.clipnorm:g}")
    if optimizer.global_clipnorm is not None:
        yield Stage("clip by global norm", f"all together to a norm of at most {optimizer.global_clipnorm:g}")
    yield from _own(optimizer)


@functools.singledispatch
def _own(optimizer: Optimizer) -> Iterator[Stage]:
    """Return the stages after clipping; without better words, the optimizer and its fields."""
    shared = ("learning_rate", "decay", "clipvalue", "clipnorm", "global_clipnorm")
    yield Stage(type(optimizer).__name__, _fields(optimizer, shared))
    yield _learning_rate(optimizer)


@_own.register
def _(optimizer: SGD) -> Iterator[Stage]:
    yield _learning_rate(optimizer)
    yield from _momentum(optimizer.momentum, optimizer.nesterov)


@_own.register
def _(optimizer: LARS) -> Iterator[Stage]:
    not_decaying, not_adapting = optimizer.exclude_from_weight_decay, optimizer.exclude_from_layer_adaptation
    if optimizer.weight_decay_rate > 0:
        yield Stage("weight decay", f"add {optimizer.weight_decay_rate:g} x parameter{_except(not_decaying)}")
    of = "gradient" if optimizer.classic_momentum else "momentum"
    effect = f"scale each layer by {optimizer.eeta:g} x norm of parameter / norm of {of}"
    trust_ratio = Stage("trust ratio", effect + _except(not_decaying if not_adapting is None else not_adapting))
    momentum = _momentum(optimizer.momentum, optimizer.nesterov)
    if optimizer.classic_momentum:
        yield from (trust_ratio, _learning_rate(optimizer), *momentum)
    else:
        yield from (*momentum, trust_ratio, _learning_rate(optimizer))


def _learning_rate(optimizer: Optimizer) -> Stage:
    decayed = f", divided by 1 + {optimizer.decay:g} x step" if optimizer.decay > 0 else ""
    return Stage("learning rate", f"times minus the rate: {rate_words(optimizer.learning_rate)}{decayed}")


def _momentum(momentum: float, nesterov: bool) -> Iterator[Stage]:
    if momentum > 0:
        yield Stage("momentum", f"add {momentum:g} x the momentum so far" + (", Nesterov's way" if nesterov else ""))


def _except(patterns: Sequence[str]) -> str:
    return f", except where a path has {' or '.join(map(repr, patterns))}" if patterns else ""


def _around(stages: list[Stage], scale: Schema) -> Iterator[Stage]:
    """Put loss scaling, which is outermost, around the stages."""
    counted = "; it counts as a step nevertheless" if getattr(scale, "count_skipped_steps", False) else ""
    checked = "gradient or new parameter" if getattr(scale, "check_updates", False) else "gradient"
    skip = f"skip the step if any {checked} is not finite{counted}"
    match scale:
        case DynamicLossScale():
            yield Stage("unscale", f"divide by the loss scale, at first {scale.initial_scale:.10g}; {skip}")
            yield from stages
            limit = f", up to {scale.max_scale:.10g}" if scale.max_scale < FLOAT32_MAX else ""
            within = "in a row" if scale.consecutive_hysteresis else "since it last grew"
            patience = f", from number {scale.hysteresis} {within} on" if scale.hysteresis > 1 else ""
            yield Stage(
                "adapt loss scale",
                f"x {scale.multiplier:g} after {scale.growth_steps} finite steps in a row{limit}; "
                f"/ {scale.multiplier:g} at each skip{patience}, down to {scale.min_scale:g}",
            )
        case FixedLossScale():
            skip = skip if scale.skip_nonfinite else "whether finite or not"
            yield Stage("unscale", f"divide by the loss scale, always {scale.scale:.10g}; {skip}")
            yield from stages
        case _:
            yield Stage(type(scale).__name__, _fields(scale))
            yield from stages


def _fields(schema: Schema, without: Sequence[str] = ()) -> str:
    """Return the fields of a schema as text, for lack of better words."""
    data = to_dict(schema)
    return ", ".join(f"{name}={value}" for name, value in data.items() if name not in ("type", *without))
