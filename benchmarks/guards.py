"""Compare what skips bad steps, on one small training with injected faults: `python -m benchmarks.guards`.

A network with one hidden layer learns another one with Adam. In some steps the loss is multiplied by a fault, and so
are its gradients. From step 700 on it is multiplied by a factor that rises slowly from 1 to 300, which is no fault,
since Adam does not depend on it. All rules see the same batches.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_ext

STEPS = 1000
FAULTS = {5: np.nan, 200: np.nan, **dict.fromkeys(range(300, 307), np.nan), 400: np.inf, 500: 1e3, 600: 1e6}
LATE_FAULTS = {step: fault for step, fault in FAULTS.items() if step > 5}  # after every window has filled
DRIFT = range(700, 900)  # over which the loss grows by a factor of 300, and stays there
WINDOW, SIGMAS = 128, 6.0  # the defaults of both rules below

Update = tuple[optax.Updates, Any]


class _History(NamedTuple):
    """What a rule with a rolling window remembers: the last losses and norms, and how many there were."""

    inner: Any
    losses: jax.Array
    norms: jax.Array
    count: jax.Array


def _in_window(
    inner: optax.GradientTransformation,
    is_typical: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    warmup_steps: int,
    combine: Callable[[jax.Array, Update, Update], Update],
) -> optax.GradientTransformationExtraArgs:
    """Make a rule that judges the loss and the norm against those of the window, which every step enters."""

    def init_fn(params: Any) -> _History:
        return _History(inner.init(params), jnp.zeros(WINDOW), jnp.zeros(WINDOW), jnp.zeros([], jnp.int32))

    def update_fn(grads: Any, state: _History, params: Any = None, *, loss: jax.Array, **extra_args: Any) -> Update:
        del extra_args
        norm = optax.tree.norm(grads)
        in_use = jnp.arange(WINDOW) < state.count
        typical = is_typical(loss, state.losses, in_use) & is_typical(norm, state.norms, in_use)
        skipped = jax.tree.map(jnp.zeros_like, grads), state.inner
        updates, new_inner = combine(
            typical | (state.count < warmup_steps), inner.update(grads, state.inner, params), skipped
        )
        place = state.count % WINDOW
        return updates, _History(
            new_inner, state.losses.at[place].set(loss), state.norms.at[place].set(norm), state.count + 1
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def spike_rule_of_maxtext(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Skip a step whose loss or norm is six unbiased standard deviations above the mean; from the 63rd on.

    Derived from `skip_step_on_spikes` of AI-Hypercomputer/maxtext, src/maxtext/optimizers/optimizers.py at 02e796a.
    """

    def is_typical(number: jax.Array, window: jax.Array, in_use: jax.Array) -> jax.Array:
        count = jnp.maximum(jnp.sum(in_use), 1)
        mean = jnp.sum(jnp.where(in_use, window, 0)) / count
        variance = jnp.sum(jnp.where(in_use, (window - mean) ** 2, 0)) / jnp.maximum(count - 1, 1)
        return number - mean <= SIGMAS * jnp.sqrt(variance)

    def select(applied: jax.Array, new: Update, old: Update) -> Update:
        return jax.tree.map(functools.partial(jnp.where, applied), new, old)

    return _in_window(inner, is_typical, WINDOW // 2 - 1, select)


def skip_rule_of_levanter(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Skip a step whose loss or norm is six standard deviations above the mean, multiplying it by 0; from the 65th on.

    Derived from `SkipStepConfig` of stanford-crfm/levanter, src/levanter/optim/skipstep.py at 9af9cf8.
    """

    def is_typical(number: jax.Array, window: jax.Array, in_use: jax.Array) -> jax.Array:
        deviation = jnp.maximum(jnp.std(window, where=in_use), 1e-6)
        return number <= jnp.mean(window, where=in_use) + SIGMAS * deviation

    def multiply(applied: jax.Array, new: Update, old: Update) -> Update:
        updates = jax.tree.map(lambda update: update * applied, new[0])
        return updates, jax.tree.map(functools.partial(jnp.where, applied), new[1], old[1])

    return _in_window(inner, is_typical, WINDOW // 2, multiply)


def _skip_large(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    # Ten times the norms of the undisturbed training at their largest, which nobody knows beforehand.
    should_skip = functools.partial(optax.skip_large_updates, max_squared_norm=(10 * LARGEST_NORM) ** 2)
    steps = optax.MultiSteps(inner, 1, should_skip_update_fn=should_skip)
    return optax.with_extra_args_support(steps.gradient_transformation())


LARGEST_NORM = 4.0
INNER = optax.adam(3e-3)
RULES: dict[str, optax.GradientTransformation] = {
    "nothing": INNER,
    "`optax.apply_if_finite`, 5 errors": optax.apply_if_finite(INNER, 5),
    "`optax.skip_large_updates` in `MultiSteps`": _skip_large(INNER),
    "MaxText's spike rule": spike_rule_of_maxtext(INNER),
    "levanter's skip": skip_rule_of_levanter(INNER),
    "`skip_bad_steps`": optax_ext.skip_bad_steps(INNER),
    "`skip_bad_steps`, ratio 10": optax_ext.skip_bad_steps(INNER, max_norm_ratio=10.0),
}


class Outcome(NamedTuple):
    """What became of a training.

    Attributes:
      good_skipped: Steps without a fault that moved no parameter.
      bad_applied: Steps with a fault that moved one.
      nonfinite: Parameters that are non-finite at the end, of all.
      loss: The loss at the end, on other data.
      norms: The norm of the gradients in each step.
    """

    good_skipped: int
    bad_applied: int
    nonfinite: int
    loss: float
    norms: np.ndarray


def _predict(params: Any, inputs: jax.Array) -> jax.Array:
    return jnp.tanh(inputs @ params["hidden"]) @ params["out"]


def _make_params(seed: int) -> Any:
    hidden, out = jax.random.split(jax.random.key(seed))
    return {"hidden": jax.random.normal(hidden, (8, 32)), "out": jax.random.normal(out, (32, 4)) / 4}


def train(tx: optax.GradientTransformation, faults: dict[int, float], drift: range = DRIFT) -> Outcome:
    """Train for `STEPS` steps, with a factor on the loss of some."""
    tx = optax.with_extra_args_support(tx)
    factors = np.ones(STEPS, np.float32)
    if drift:
        factors[drift.start :] = 300
        factors[drift.start : drift.stop] = np.geomspace(1, 300, len(drift))
    for step, fault in faults.items():
        factors[step] = fault
    teacher, params = _make_params(0), _make_params(1)

    def mean_squared_error(params: Any, key: jax.Array) -> jax.Array:
        inputs = jax.random.normal(key, (64, 8))
        return jnp.mean((_predict(params, inputs) - _predict(teacher, inputs)) ** 2)

    def step(carry: Any, factor_and_key: Any) -> Any:
        params, state = carry
        factor, key = factor_and_key
        loss, grads = jax.value_and_grad(lambda params: factor * mean_squared_error(params, key))(params)
        updates, state = tx.update(grads, state, params, loss=loss)
        new_params = optax.apply_updates(params, updates)
        moved = jnp.stack([jnp.any(new_params[name] != params[name]) for name in params]).any()
        return (new_params, state), (moved, optax.tree.norm(grads))

    keys = jax.random.split(jax.random.key(2), STEPS)
    (params, _), (moved, norms) = jax.jit(lambda carry: jax.lax.scan(step, carry, (factors, keys)))(
        (params, tx.init(params))
    )
    bad = np.isin(np.arange(STEPS), list(faults))
    return Outcome(
        good_skipped=int(np.sum(~np.asarray(moved) & ~bad)),
        bad_applied=int(np.sum(np.asarray(moved) & bad)),
        nonfinite=int(sum(jnp.sum(~jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params))),
        loss=float(mean_squared_error(params, jax.random.key(3))),
        norms=np.asarray(norms),
    )


def main() -> None:
    """Print the table: with all faults, and with all but the first, which comes before any window is full."""
    print(f"without faults, the loss is {train(INNER, {}).loss:.1e} in the end")
    print("| rule | good steps skipped | bad steps applied | non-finite parameters | final loss |")
    print("|---|--:|--:|--:|--:|")
    for faults, note in ((FAULTS, ""), (LATE_FAULTS, ", no early NaN")):
        for name, tx in RULES.items():
            outcome = train(tx, faults)
            loss = f"{outcome.loss:.1e}" if np.isfinite(outcome.loss) else "NaN"
            print(f"| {name}{note} | {outcome.good_skipped} | {outcome.bad_applied} | {outcome.nonfinite} | {loss} |")


if __name__ == "__main__":
    main()
