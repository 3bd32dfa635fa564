"""A training goes on from a copy bit by bit, scales change from fixed to dynamic and back, old layouts are errors."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import optax_ext
from tests.restart import training

Transformation = optax.GradientTransformationExtraArgs


def save(path: Path, tree: Any) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()


def restore(path: Path, like: Any = None) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, None if like is None else jax.eval_shape(lambda: like))


# ---------------------------------------------------------------------------------------------------------
# Copies of a whole training


def through_orbax(path: Path, state: Any, like: Any) -> Any:
    save(path, state)
    return restore(path, like)


def through_flax_state_dict(path: Path, state: Any, like: Any) -> Any:
    return flax.serialization.from_state_dict(like, flax.serialization.to_state_dict(state))


def through_flax_bytes(path: Path, state: Any, like: Any) -> Any:
    path.write_bytes(flax.serialization.to_bytes(state))
    return flax.serialization.from_bytes(like, path.read_bytes())


def through_pickle(path: Path, state: Any, like: Any) -> Any:
    path.write_bytes(pickle.dumps(state))
    return pickle.loads(path.read_bytes())


def train(state: Any, first: int, last: int) -> Any:
    state = jax.tree.map(jnp.array, state)  # a step donates its state
    for step in range(first, last + 1):
        state = training.train_step(state, *training.make_batch(step))
    return state


@pytest.fixture(scope="module")
def states() -> dict[int, Any]:
    """The states after a step that counts towards growth, after two skips in a row, and some steps later."""
    after_10 = train(training.init_state(), 1, 10)
    after_14 = train(after_10, 11, 14)
    assert (after_10["opt"].loss_scale, after_10["opt"].counter, after_10["opt"].skipped_steps) == (2.0**14, 1, 5)
    assert (after_14["opt"].grads_finite, after_14["opt"].consecutive_skips) == (False, 2)
    return {10: after_10, 14: after_14, 20: train(after_14, 15, 20)}


@pytest.mark.parametrize("copy", [through_orbax, through_flax_state_dict, through_flax_bytes, through_pickle])
@pytest.mark.parametrize("step", [10, 14])
def test_a_training_goes_on_from_a_copy(
    copy: Callable[..., Any], step: int, states: dict[int, Any], tmp_path: Path
) -> None:
    restored = copy(tmp_path / "copy", states[step], training.init_state())
    assert jax.tree.structure(restored) == jax.tree.structure(states[step])
    assert training.leaf_bytes(restored) == training.leaf_bytes(states[step])
    assert training.leaf_bytes(train(restored, step + 1, 20)) == training.leaf_bytes(states[20])


# ---------------------------------------------------------------------------------------------------------
# From one scale to the other

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "bias": jnp.ones(3)}


def make_inner() -> Transformation:
    mask = optax_ext.path_mask(exclude=["bias"])  # or a wrong scale would cancel out in the trust ratio
    return optax.chain(optax_ext.lars(0.1, trust_coefficient=0.5, trust_ratio_mask=mask), optax_ext.params_ema(0.9))


def dynamic() -> Transformation:
    return optax_ext.dynamic_loss_scaling(make_inner(), initial_scale=1024.0, growth_steps=2)


def fixed() -> Transformation:
    return optax_ext.fixed_loss_scaling(make_inner(), 64.0)


def sum_of_sines(params: Any) -> jax.Array:
    return jnp.sum(jnp.sin(params["kernel"])) + jnp.sum(jnp.sin(params["bias"]))


@pytest.mark.parametrize(("old", "new"), [(dynamic, fixed), (fixed, dynamic)])
def test_a_checkpoint_of_one_scale_restores_into_the_other(
    old: Callable[[], Transformation], new: Callable[[], Transformation], tmp_path: Path
) -> None:
    def take_step(update: Any, params: Any, state: Any, factor: float = 1.0) -> tuple[Any, Any]:
        _, grads = optax_ext.value_and_grad(lambda p: factor * sum_of_sines(p), state)(params)
        updates, state = update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state, update = PARAMS, old().init(PARAMS), jax.jit(old().update)
    for factor in (1.0, np.inf, 1.0):
        params, state = take_step(update, params, state, factor)
    save(tmp_path / "checkpoint", {"params": params, "opt": state})
    restored = restore(tmp_path / "checkpoint", {"params": PARAMS, "opt": new().init(PARAMS)})
    assert training.leaf_bytes(restored) == training.leaf_bytes({"params": params, "opt": state})
    params, state = restored["params"], restored["opt"]
    assert (state.loss_scale, state.counter, state.skipped_steps) == ((512, 1, 1) if old is dynamic else (64, 0, 1))

    # The scale in the checkpoint multiplies this step's loss and divides its gradients: as without any scale.
    updates, inner_state = jax.jit(make_inner().update)(jax.grad(sum_of_sines)(params), state.inner_state, params)
    expected = optax.apply_updates(params, updates), inner_state
    update, scales, counters = jax.jit(new().update), [], []
    for step in range(4):
        params, state = take_step(update, params, state)
        if step == 0:
            chex.assert_trees_all_close((params, state.inner_state), expected, rtol=1e-6)
        scales.append(float(state.loss_scale))
        counters.append(int(state.counter))
    # A fixed scale is its argument from the next step on. A dynamic one goes on from what the checkpoint holds,
    # not from its own initial scale, 1024.
    assert scales == ([64] * 4 if new is fixed else [64, 128, 128, 256])
    assert counters == ([0] * 4 if new is fixed else [1, 0, 1, 0])
    assert state.skipped_steps == 1


# ---------------------------------------------------------------------------------------------------------
# Older layouts of the state


class WithoutSkips(NamedTuple):
    loss_scale: Any
    counter: Any
    grads_finite: Any
    inner_state: Any


class WithOtherName(NamedTuple):
    loss_scale: Any
    good_steps: Any
    grads_finite: Any
    skipped_steps: Any
    consecutive_skips: Any
    inner_state: Any
    skips_since_growth: Any
    grad_norm: Any
    last_step_counted: Any


class WithOneMore(NamedTuple):
    loss_scale: Any
    counter: Any
    grads_finite: Any
    skipped_steps: Any
    consecutive_skips: Any
    inner_state: Any
    skips_since_growth: Any
    grad_norm: Any
    last_step_counted: Any
    last_loss: Any


STATE = dynamic().init(PARAMS)

# An old state, a name of each layout that an error must tell, and how `update` tells the old one.
LAYOUTS = {
    "field missing": (
        WithoutSkips(*STATE[:3], STATE.inner_state),
        ["skipped_steps|consecutive_skips", "inner_state"],
        "WithoutSkips(loss_scale, counter, grads_finite, inner_state):",
    ),
    "field renamed": (
        WithOtherName(*STATE),
        ["counter", "good_steps"],
        "WithOtherName(loss_scale, good_steps, grads_finite, skipped_steps, consecutive_skips, inner_state, "
        "skips_since_growth, grad_norm, last_step_counted):",
    ),
    "field more": (
        WithOneMore(*STATE, jnp.ones([])),
        ["last_loss"],
        "WithOneMore(loss_scale, counter, grads_finite, skipped_steps, consecutive_skips, inner_state, "
        "skips_since_growth, grad_norm, last_step_counted, last_loss):",
    ),
    "bare tuple": (
        tuple(STATE),
        ["loss_scale", "'6'"],
        "tuple(",  # and the types of its items, which for arrays are JAX's own business
    ),
    "bare dict": (
        {"inner": STATE.inner_state, "scale": STATE.loss_scale},
        ["loss_scale", "'inner'", "'scale'"],
        "dict(inner, scale):",
    ),
    "not wrapped": (STATE.inner_state, ["loss_scale", "'0'", "'1'"], "tuple(tuple, ParamsEmaState):"),
    "in a chain": (optax.chain(dynamic()).init(PARAMS), ["loss_scale", "'0'"], "tuple(LossScaleState):"),
}
every_layout = pytest.mark.parametrize(("old", "names", "outline"), LAYOUTS.values(), ids=LAYOUTS)


def check_names(message: str, names: list[str]) -> None:
    for alternatives in names:
        assert any(name in message for name in alternatives.split("|")), message


@every_layout
def test_an_older_layout_does_not_restore_from_orbax(old: Any, names: list[str], outline: str, tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", {"opt": old})
    with pytest.raises(ValueError, match="tructure") as error:
        restore(tmp_path / "checkpoint", {"opt": STATE})
    check_names(str(error.value), names)


@every_layout
def test_an_older_layout_does_not_restore_from_flax(old: Any, names: list[str], outline: str) -> None:
    with pytest.raises(ValueError, match="do not match") as error:
        flax.serialization.from_state_dict(STATE, flax.serialization.to_state_dict(old))
    check_names(str(error.value), names)
    with pytest.raises(ValueError, match="do not match") as error:
        flax.serialization.from_bytes(STATE, flax.serialization.to_bytes(old))
    check_names(str(error.value), names)


@every_layout
@pytest.mark.parametrize("tx", [dynamic(), fixed()], ids=["dynamic", "fixed"])
def test_an_older_layout_does_not_update(tx: Transformation, old: Any, names: list[str], outline: str) -> None:
    fields = ", ".join(optax_ext.LossScaleState._fields)
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(ValueError, match=r"tx\.init\(params\)") as error:
            update(PARAMS, old, PARAMS)
        message = str(error.value)
        assert message.startswith(f"state must be a LossScaleState({fields}), got ")
        assert f"got {outline}" in message


def test_a_checkpoint_restored_without_a_structure_does_not_update(tmp_path: Path) -> None:
    """Orbax gives dictionaries then, for all that their keys are the fields'."""
    save(tmp_path / "checkpoint", STATE)
    with pytest.raises(ValueError, match=r"got dict\(.*restore checkpoints into the structure of tx\.init\(params\)"):
        dynamic().update(PARAMS, restore(tmp_path / "checkpoint"), PARAMS)
    dynamic().update(PARAMS, restore(tmp_path / "checkpoint", STATE), PARAMS)
