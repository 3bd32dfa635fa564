"""Code as a user writes it, every documented call once; type checkers read it, as a test has them do.

It is not run. `assert_type` says what the checkers must make of an expression.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

import optax_ext
from optax_ext import config, interop, masks, path_mask, transforms
from optax_ext.schedules import RatePerBatch

Params = dict[str, jax.Array]


# Schedules.


@dataclasses.dataclass(frozen=True)
class InverseSquareRoot(optax_ext.Schedule):
    initial_learning_rate: float
    knots: Sequence[int] = ()

    def __call__(self, step: ArrayLike) -> jax.Array:
        return self.initial_learning_rate / jnp.sqrt(jnp.maximum(jnp.float32(step), 1))


schedules: list[optax_ext.Schedule] = [
    optax_ext.Constant(0.1),
    optax_ext.Constant(1),
    optax_ext.PiecewiseConstantDecay([10, 20], [0.1, 0.01, 0.001]),
    optax_ext.PiecewiseConstantDecay(boundaries=(100, 200), values=(1.0, 0.5, 0.1), offset=5, before_offset="hold"),
    optax_ext.PiecewiseConstantDecay(range(1, 3), [1, 0.5, 0.1]),
    optax_ext.StepCosineDecay([0, 100, 200], [1.0, 0.5, 0.1]),
    optax_ext.CosineDecay(initial_learning_rate=0.5, decay_steps=100, alpha=0.1),
    optax_ext.CosineDecay(0.5, 100, 0.1, 1.0, 10, 0, "extrapolate"),
    optax_ext.CosineDecayRestarts(0.1, first_decay_steps=100, m_mul=0.5),
    optax_ext.ExponentialDecay(0.5, decay_steps=100, decay_rate=0.5, staircase=True),
    optax_ext.InverseTimeDecay(0.5, decay_steps=100.5, decay_rate=1.0),
    optax_ext.PolynomialDecay(1.0, decay_steps=100, end_learning_rate=0.0, power=2.0, cycle=True),
    optax_ext.DirectPowerDecay(0.5, power=-0.5),
    optax_ext.PowerDecay(0.5, power=-0.5, offset=100, pre_offset_learning_rate=0.4),
    optax_ext.PowerAndLinearDecay(1.0, total_decay_steps=100, power=-0.5, linear_decay_fraction=0.5),
    optax_ext.LinearWarmup(0.1, 5),
    optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 10_000, offset=500), warmup_steps=500, warmup_learning_rate=0.1),
    optax_ext.PolynomialWarmup(0.5, warmup_steps=8, power=2.0),
    optax_ext.LinearWarmup(InverseSquareRoot(0.5, [1, 2]), 5),
    optax_ext.WarmupStableDecay(0.5, warmup_steps=10, stable_steps=70, decay_steps=20, decay_type="1-sqrt"),
    optax_ext.JoinedSchedules([optax_ext.LinearWarmup(0.1, 5), InverseSquareRoot(0.5, [1, 2]), 0.1], [5, 10]),
    optax_ext.JoinedSchedules(schedules=(0.1, 0.2), boundaries=range(1, 2)),
]
schedule = optax_ext.CosineDecay(0.1, 5)
assert_type(schedule(3), jax.Array)
target: float | RatePerBatch | None = schedule.warmup_target
assert_type(schedule.decay_steps, int | str)
later = dataclasses.replace(schedule, decay_steps=50)
by_value: dict[optax_ext.Schedule, str] = {schedule: repr(later)}


# Masks and transformations.

no_biases = path_mask(exclude=["bias", "BatchNorm"])
assert_type(no_biases, masks.PathMask)
assert_type(no_biases.exclude, Sequence[str])
chosen = path_mask(include=("kernel",), allow_unmatched=True)({"kernel": jnp.float32(1)})

tx = optax_ext.lars(schedule, weight_decay=1e-4, weight_decay_mask=no_biases, trust_ratio_mask=no_biases)
tx = optax_ext.lars(0.5, momentum=0.9, eps=1e-8, nesterov=True, classic_momentum=False, weight_decay=schedule)
tx = optax_ext.lars(lambda step: 0.1, weight_decay_mask={"kernel": True, "bias": False}, trust_ratio_mask=None)
tx = optax_ext.lars(0.1, trust_coefficient=jnp.float32(0.1), accumulator_dtype=jnp.float32, axis_name=("data", "model"))
lamb = optax_ext.lamb(optax.cosine_decay_schedule(0.1, 5), b1=0.9, b2=0.99, weight_decay=0.1, axis_name="data")
stages = list(transforms.stages_of(lamb))
ratio = optax_ext.scale_by_trust_ratio(0.5, eps=1e-8)
axes = optax_ext.path_axes({"^blocks/": 0, "^experts/": (0, 1), "head": None})
assert_type(axes, masks.PathAxes)
outside = optax_ext.lars(schedule, learning_rate_in_momentum=False)
of_layers = optax_ext.lars(0.5, separate_norms=True, min_ratio=0.1, max_ratio=10, stacked_axes=axes, record=True)
chained = optax.chain(optax.clip_by_global_norm(1.0), lamb, optax_ext.params_ema(0.999, initial="params"))
scaled = optax_ext.dynamic_loss_scaling(
    optax_ext.master_weights(chained), initial_scale=2.0**15, growth_steps=2e3, hysteresis=2, check_updates=True
)
fixed = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 128, skip_nonfinite=False, count_skipped_steps=True)


# A training step.


def loss_fn(params: Params, batch: jax.Array, *, smoothing: float = 0.0) -> jax.Array:
    return jnp.mean((batch @ params["kernel"]) ** 2) + smoothing


def loss_and_logits(params: Params, batch: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    logits = batch @ params["kernel"]
    return jnp.mean(logits), {"logits": logits}


def train_step(params: Params, state: optax.OptState, batch: jax.Array) -> tuple[Params, optax.OptState, jax.Array]:
    loss, grads = optax_ext.value_and_grad(loss_fn, state)(params, batch, smoothing=0.1)
    updates, state = scaled.update(grads, state, params)
    new: Any = optax.apply_updates(params, updates)
    return new, state, loss


def other_transform(fun: Callable[..., Any], argnums: int = 0, *, has_aux: bool) -> Callable[..., Any]:
    return lambda *args: (fun(*args), args[argnums], has_aux)


params: Params = {"kernel": jnp.float32([[1.0, 0.0], [0.0, 1.0]])}
batch = jnp.float32([[1.0, 2.0]])
state: Any = scaled.init(params)

value_and_grad = optax_ext.value_and_grad(loss_fn, state)
loss, grads = value_and_grad(params, batch)
assert_type(loss, jax.Array)
(loss, aux), grads = optax_ext.value_and_grad(loss_and_logits, state, has_aux=True)(params, batch)
assert_type(aux, dict[str, jax.Array])
(loss, aux), grads = optax_ext.value_and_grad(loss_and_logits, state, (0, 1), True)(params, batch)
assert_type(aux, dict[str, jax.Array])
loss, grads = optax_ext.value_and_grad(loss_fn, state, missing_ok=True, transform=other_transform)(params, batch)
loss, grads = optax_ext.value_and_grad(functools.partial(loss_fn, batch=batch), state)(params)


def either(has_aux: bool, fun: Callable[[Params], Any]) -> Any:
    out, _ = optax_ext.value_and_grad(fun, state, has_aux=has_aux)(params)
    return out


value_and_grad(params)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
value_and_grad(params, batch, smooth=0.1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

scaled_loss = optax_ext.scale_loss(loss, state, missing_ok=True)
assert_type(scaled_loss, jax.Array)
unscaled = optax_ext.unscale(grads, state)
counts = optax_ext.nonfinite_leaves(grads)
assert_type(counts["kernel"].nan, int)
optax_ext.raise_if_stalled(state, grads, max_consecutive_skips=50)
averages = optax_ext.ema_params(state, params)
logged = optax_ext.metrics(state, schedule, per_layer=True) | optax_ext.metrics(state, 0.1)
assert_type(logged, dict[str, jax.Array])
if isinstance(state, optax_ext.LossScaleState):
    assert_type(state.loss_scale, jax.Array)
    assert_type(state.grads_finite, jax.Array)


# Recipes.

recipe = config.OptimizationConfig(
    optimizer=config.LARS(0.1, exclude_from_weight_decay=["bias"]),
    loss_scale=config.DynamicLossScale(growth_steps=1000),
    ema=config.ParamsEma(average_decay=0.9999, initial="params"),
    master_weights=True,
)
assert_type(recipe.optimizer, config.UpdateRule)
rate = recipe.learning_rate_at(0)
made = recipe.make()
logged = optax_ext.metrics(made.init(params), recipe) | optax_ext.metrics(state, recipe.optimizer)
optimizers: list[config.Optimizer] = [
    config.SGD(learning_rate=0.1, momentum=0.9, global_clipnorm=1.0),
    config.SGD(optax_ext.LinearWarmup(0.1, 5)),
    config.Adam(1e-3, epsilon=1e-8),
    config.AdamW(1e-4, weight_decay_rate=0.01, exclude_from_weight_decay=["LayerNorm", "bias"]),
    config.AdamW(1e-4, include_in_weight_decay=["kernel"], gradient_clip_norm=0),
    config.LAMB(0.01, weight_decay_rate=0.01, exclude_from_weight_decay=("bias",), exclude_from_layer_adaptation=[]),
    config.LARS(schedule, weight_decay_rate=1e-4, exclude_from_weight_decay=["bias"], clipnorm=1.0),
    config.LARS(schedule, weight_decay_rate=schedule),
    config.LARS(0.1, allow_unmatched=True, decay=0.1, clipvalue=1.0),
    config.LARS(0.1, separate_norms=True, min_ratio=0.1, max_ratio=10, stacked_axes={"^blocks/": 0, "head": None}),
    config.LAMB(0.1, max_ratio=None, stacked_axes=[0, 1]),
    config.SGD(0.1, clipnorm=1.0, stacked_axes=0),
    config.AdamW(0.1, stacked_axes={"^blocks/": [0, 1]}),
    config.RMSprop(0.01, momentum=0.9, centered=True, epsilon_in_root=True),
    config.Adagrad(0.1, initial_accumulator_value=0.2),
    config.Nadam(schedule, momentum_decay=0.004, weight_decay_rate=0.1, exclude_from_weight_decay=["bias"]),
    config.Ftrl(0.1, learning_rate_power=-0.5, weight_decay_times_learning_rate=False),
]
lion = config.Optax("lion", learning_rate=1e-4, b1=0.9, mask={"exclude": ["bias"]}, clipnorm=1.0)
rules: list[config.UpdateRule] = [lion, config.Optax(name="sgd", learning_rate=schedule), config.Optax("adan", 0.1)]
assert_type(lion.name, str)
b1: float = lion.b1
assert_type(config.LARS(0.1).eeta, float)
assert_type(config.LARS(0.1).exclude_from_weight_decay, Sequence[str])
words = [(stage.name, stage.effect) for stage in optimizers[0].stages()]
wrapped = config.FixedLossScale(128).wrap(optimizers[0].make())

data = config.to_dict(recipe, exclude_defaults=True)
again = config.from_dict(data, source="recipe")
config.save(recipe, "recipe.yaml", exclude_defaults=True)
loaded = config.load("recipe.yaml")
assert_type(config.load("recipe.yaml", config.LARS), config.LARS)
assert_type(config.load("recipe.yaml", config.LARS).eeta, float)
assert_type(config.load("recipe.yaml", config.LARS, overrides=["eeta=0.01"]), config.LARS)
assert_type(config.override(config.LARS(1.0), ["eeta=0.01"]), config.LARS)
assert_type(config.override(config.OptimizationConfig(config.SGD(1.0)), {"ema": None}), config.OptimizationConfig)


def replan(state: optax.OptState, params: Params) -> optax.OptState:
    old, new = config.SGD(1.0), config.OptimizationConfig(config.SGD(0.5))
    return config.carry_over(state, old, new, params, step=10, discard=["trace"], hyperparameters=("learning_rate",))


editor = config.json_schema()
try:
    config.from_dict({"type": "lars"})
except config.ConfigError as error:
    problems: list[tuple[str, str]] = [(problem.path, problem.message) for problem in error.problems]

from_keras = interop.from_keras({"class_name": "SGD", "config": {"learning_rate": 0.1}})
to_keras = interop.to_keras(from_keras)
from_garden = interop.from_model_garden({"optimizer": {"type": "lars"}}, base={"optimizer": {"type": "sgd"}})
assert_type(from_garden, config.OptimizationConfig)

for wrong in (
    lambda: optax_ext.CosineDecay("0.1", 5),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: config.LARS(0.1, trust=0.1),  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    lambda: optax_ext.CosineDecay(0.1, 5, before_offset="stay"),  # type: ignore  # pyright: ignore
):
    wrong()
