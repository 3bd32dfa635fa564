"""A run that goes on by another recipe equals, bit by bit, one that had the new schedules from the start."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import optax_ext
from optax_ext import config
from tests.restart.training import leaf_bytes

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3).astype(jnp.bfloat16), "bias": jnp.ones(3)}
SCALE = config.DynamicLossScale(initial_scale=4.0, growth_steps=3)
EMA = config.ParamsEma(0.9)
CONSTANT = optax_ext.PiecewiseConstantDecay((7,), (0.5, 0.25))
COOLED = optax_ext.LinearWarmup(optax_ext.PolynomialDecay(0.25, 10, 0.0, offset=10, before_offset="hold"), 2)
WARM = optax_ext.LinearWarmup(0.25, 2)
EXTENDED = optax_ext.PiecewiseConstantDecay((7, 14), (0.5, 0.25, 0.125))
HELD = optax_ext.PolynomialDecay(0.25, 10, 0.0, offset=10, before_offset="hold")  # 0.25 up to step 10


def recipe(optimizer: config.UpdateRule, **fields: Any) -> config.OptimizationConfig:
    return config.OptimizationConfig(optimizer, **{"loss_scale": SCALE, "ema": EMA, **fields})


@functools.cache
def train_step(made_by: config.OptimizationConfig) -> Any:
    tx = made_by.make()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, at: Any) -> tuple[Any, Any]:
        factor = jnp.where(at % 9 == 3, jnp.inf, 1.0 + at / 8)  # two bad steps in twenty
        scale = 1.0 if made_by.loss_scale is None else state.loss_scale
        grads = jax.tree.map(lambda param: jnp.sin(param) * (factor * scale).astype(param.dtype), params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def train(made_by: config.OptimizationConfig, start: tuple[Any, Any] | None, first: int, last: int) -> tuple[Any, Any]:
    params, state = (PARAMS, made_by.make().init(PARAMS)) if start is None else start
    params, state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (params, state))
    for at in range(first, last):
        params, state = train_step(made_by)(params, state, at)
    return params, state


def save_and_restore(path: Path, tree: Any, like: Any) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, jax.eval_shape(lambda: like))


# What is the old recipe, and a new one that does in the first ten steps what the old one does.
SAME_STRUCTURE = {
    "extend": (
        recipe(config.LARS(CONSTANT, trust_coefficient=0.5) if False else config.SGD(CONSTANT, momentum=0.9)),
        recipe(config.SGD(EXTENDED, momentum=0.9)),
    ),
}
