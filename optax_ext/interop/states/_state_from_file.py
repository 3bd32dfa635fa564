"""The state of an optimizer in a file that Keras saved, as the state of ours."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.errors import shorten
from optax_ext._core.files import file_error
from optax_ext._core.opt_states import check_opt_state, find_one
from optax_ext._core.public import public
from optax_ext._core.relative import resolved
from optax_ext._core.trees import find_nodes
from optax_ext.config import LARS, DynamicLossScale, OptimizationConfig, Optimizer, UpdateRule
from optax_ext.interop._translate import translate
from optax_ext.interop._translation import Note, warn_about
from optax_ext.interop.states._fill_state import (
    check_place_of_momentum,
    fill_tree,
    leaves_by_path,
    like,
    map_nodes,
    set_counts,
)
from optax_ext.interop.states._keras_slots import ACCUMULATOR, AVERAGE, SLOTS, Slot, Slots, find_slots
from optax_ext.interop.states._saved_variables import SavedOptimizer, SavedVariable, open_saved
from optax_ext.interop.states._variable_names import check_names
from optax_ext.loss_scaling import LossScaleState
from optax_ext.schedules import Schedule

_INT32_MAX = 2**31 - 1


@public
def state_from_file(
    path: str | os.PathLike[str],
    order: Sequence[str],
    state: optax.OptState | None = None,
    *,
    translate_patterns: bool = True,
) -> optax.OptState:
    """Read the state of an optimizer from a file that Keras saved, so that a run goes on where Keras stopped.

    The optimizer may be Keras's ``SGD``, ``Adam``, ``AdamW``, ``RMSprop`` or ``Adagrad``, of either generation, Model
    Garden's ``LARS``, or the ``AdamWeightDecay`` of Model Garden or transformers, with or without a
    ``LossScaleOptimizer`` or moving averages around it.

    Args:
      path: A ``.keras`` or ``.h5`` file with a whole model, as ``model.save`` writes it.
      order: The paths of the parameters, such as ``"dense/kernel"``, in the order of Keras's
        ``model.trainable_variables``. A parameter must have the shape that the variable has. Only an ``.h5`` file has
        names, so that only there two parameters of one shape that are swapped are noticed.
      state: What ``tx.init(params)`` returned, of the optimizer that the file's config describes, at any depth of a
        chain. None for the state of ``from_file(path).make()`` for parameters in a nested dict of the paths.
      translate_patterns: As [`from_file`][optax_ext.interop.from_file] takes it. Only with ``state=None``.

    Returns:
      The state, with Keras's slots in our fields and signs, in the dtypes of the state; the iterations in every
      ``count``; and where the file has them, averages, accumulated gradients, the loss scale and its counter. The
      parameters themselves are the model's, not the optimizer's: take them from ``model.trainable_variables``.

    Raises:
      ConfigError: If the file is of another kind or damaged, holds no state, or holds that of another optimizer, or if
        h5py is not installed: ``pip install 'optax_ext[keras]'``.
      ValueError: If ``order`` does not fit the file, contradicts the names in it, or does not fit ``state``, or if
        ``state`` lacks a slot.

    Warns:
      TranslationWarning: If the file's learning rate is not that of its config, as a callback leaves it; if the
        loss scale is not in the file or has no place in the state; or, with ``state=None``, about the config.

    Examples:
      An ``.h5`` file as Keras saves it: names, values and the config of the optimizer.

      >>> import json, tempfile
      >>> import h5py
      >>> from optax_ext import interop
      >>> sgd = {"class_name": "SGD", "config": {"learning_rate": 0.1, "momentum": 0.9}}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with h5py.File(f"{folder}/model.h5", "w") as file:
      ...         file.attrs["training_config"] = json.dumps({"optimizer_config": sgd})
      ...         weights = file.create_group("optimizer_weights")
      ...         weights.attrs["weight_names"] = ["SGD/iter:0", "SGD/dense/bias/momentum:0"]
      ...         weights["SGD/iter:0"] = 500
      ...         weights["SGD/dense/bias/momentum:0"] = [0.5, -0.25]
      ...     state = interop.state_from_file(f"{folder}/model.h5", ["dense/bias"])
      >>> tx = interop.from_keras(sgd).make()
      >>> print(state[1].trace["dense"]["bias"])
      [ 0.5  -0.25]

    Differs from TensorFlow:
      ``load_model`` of tf_keras starts the loss scale afresh, since the file does not have it. So does this function,
      and warns.
    """
    _check_order(order)
    if state is not None:
        check_opt_state(state)
    with open_saved(path) as saved:
        translation = translate(path, translate_patterns=translate_patterns)
        recipe = translation.config
        if isinstance(recipe, Schedule):
            raise file_error(saved.path, f"must hold an optimizer, got {type(recipe).__name__}")
        recipe = OptimizationConfig(recipe) if isinstance(recipe, Optimizer) else recipe
        slots = find_slots(saved, recipe, len(order))
        check_names(order, slots.names)
        notes: list[Note] = []
        if state is None:
            notes += translation.notes
            state = recipe.make().init(_params(order, slots))
        state = _fill(state, order, saved, slots, recipe, notes)
    warn_about(notes, stacklevel=2)
    return state


def _check_order(order: Sequence[str]) -> None:
    if isinstance(order, str) or not all(isinstance(path, str) for path in order):
        raise ValueError(f"order must be a list of paths such as 'dense/kernel', got {shorten(order)}")
    if not order or len(set(order)) < len(order):
        raise ValueError(f"order must name each parameter once, got {shorten(order)}")


def _params(order: Sequence[str], slots: Slots) -> dict[str, Any]:
    """Return zeros in a nested dict, in the shapes and dtypes of the file, which needs none without slots."""
    variables = next(iter(slots.variables.values()), [None] * len(order))
    params: dict[str, Any] = {}
    for path, variable in zip(order, variables, strict=True):
        *folders, name = path.split("/")
        place = params
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise ValueError(f"order must name parameters, got {path!r} below another one")
        if name in place:
            raise ValueError(f"order must name parameters, got {path!r} above another one")
        shape, dtype = (variable.shape, variable.dtype) if variable else ((), jnp.float32)
        place[name] = jnp.zeros(shape, jax.dtypes.canonicalize_dtype(np.dtype(dtype).newbyteorder("=")))
    return params


def _fill(
    state: optax.OptState,
    order: Sequence[str],
    saved: SavedOptimizer,
    slots: Slots,
    recipe: OptimizationConfig,
    notes: list[Note],
) -> optax.OptState:
    iterations = 0 if slots.iterations is None else int(slots.iterations.read())
    if not 0 <= iterations <= _INT32_MAX:
        raise file_error(saved.path, f"the iterations must be in [0, {_INT32_MAX}], got {iterations}")
    steps, mini_step = divmod(iterations, recipe.accumulate_steps)
    for slot, variables in slots.variables.items():
        factor = 1 / max(mini_step, 1) if slot is ACCUMULATOR else slot.sign
        state = _fill_slot(state, order, slot, variables, factor)
    _check_that_all_is_filled(state, slots, type(recipe.optimizer).__name__)
    if find_nodes(state, optax.TraceState):
        is_popular = isinstance(recipe.optimizer, LARS) and not recipe.optimizer.classic_momentum
        check_place_of_momentum(state, before_learning_rate=is_popular)
    state = _fill_loss_scale(state, saved, recipe, notes)
    _note_learning_rate(slots, recipe.optimizer, notes)
    if slots.iterations is None:
        text = "are not in the file, as Keras 2.2 leaves them out: every count starts at 0, as there"
        notes.append(Note("iterations", text, surprising=True))

    def set_steps(node: Any) -> Any:
        fields = {"mini_step": mini_step, "gradient_step": steps}
        return node._replace(**{field: like(getattr(node, field), value) for field, value in fields.items()})

    return set_counts(map_nodes(set_steps, state, optax.MultiStepsState), steps)


def _fill_slot(
    state: optax.OptState, order: Sequence[str], slot: Slot, variables: Sequence[SavedVariable], factor: float
) -> optax.OptState:
    nodes = [node for kind in slot.states for node in find_nodes(state, kind)]
    if len(nodes) != 1:
        kinds = " or ".join(kind.__name__ for kind in slot.states)
        raise ValueError(f"state must hold one {kinds}, for the {slot.names[-1]} in the file, found {len(nodes)}")
    leaves = leaves_by_path(getattr(nodes[0], slot.field), order)
    values: dict[str, np.ndarray] = {}
    for path, variable in zip(order, variables, strict=True):
        if variable.shape != jnp.shape(leaves[path]):
            named = f", {variable.name!r}," if variable.name else ""
            raise ValueError(
                f"order must fit the file: {path!r} has shape {jnp.shape(leaves[path])}, and the variable at its place"
                f"{named} has {variable.shape}"
            )
        values[path] = factor * variable.read()
    return map_nodes(
        lambda node: node._replace(**{slot.field: fill_tree(getattr(node, slot.field), values)}), state, *slot.states
    )


def _check_that_all_is_filled(state: optax.OptState, slots: Slots, name: str) -> None:
    """Raise ValueError if the state has a slot that the file has not, which would start at zeros."""
    filled = {(kind, slot.field) for slot in slots.variables for kind in slot.states}
    for slot in SLOTS:
        for kind in slot.states:
            if (kind, slot.field) not in filled and find_nodes(state, kind):
                text = (
                    f"which the file's {name} does not keep" if slot is not AVERAGE else "and the file has no averages"
                )
                raise ValueError(
                    f"state must hold what the file holds, got a {kind.__name__} with {slot.field}, {text}: take the "
                    "state of the recipe that from_keras returns"
                )


def _fill_loss_scale(
    state: optax.OptState, saved: SavedOptimizer, recipe: OptimizationConfig, notes: list[Note]
) -> optax.OptState:
    node = find_one(state, LossScaleState)
    if not saved.of_loss_scale:
        if node is not None and isinstance(recipe.loss_scale, DynamicLossScale):
            text = (
                f"is not in the file, as tf_keras leaves it out: it starts at {float(node.loss_scale):.10g}, as there"
            )
            notes.append(Note("loss_scale", text, surprising=True))
        return state
    counter, scale = saved.of_loss_scale[-2:] if len(saved.of_loss_scale) > 1 else 2 * [saved.of_loss_scale[0]]
    if counter.shape or scale.shape or counter.dtype.kind not in "iu" or scale.dtype.kind != "f":
        raise file_error(
            saved.path, "must have a step_counter, an integer, and a dynamic_scale, a number, of the loss scale"
        )
    values = {"loss_scale": float(scale.read()), "counter": int(counter.read())}
    if not 0 < values["loss_scale"] < np.inf or not 0 <= values["counter"] <= _INT32_MAX:
        raise file_error(saved.path, f"the loss scale and its counter must be finite and positive, got {values}")
    if node is None:
        text = f"of {values['loss_scale']:.10g} has no place in the state: gradients must arrive unscaled"
        notes.append(Note("loss_scale", text, surprising=True))
        return state
    fields = {field: like(getattr(node, field), value) for field, value in values.items()}
    return map_nodes(lambda node: node._replace(**fields), state, LossScaleState)


def _note_learning_rate(slots: Slots, optimizer: UpdateRule, notes: list[Note]) -> None:
    """Say if a callback has changed the rate since the config was written."""
    if (
        slots.learning_rate is None
        or not isinstance(optimizer, Optimizer)
        or isinstance(optimizer.learning_rate, Schedule)
    ):
        return
    rate, of_config = float(slots.learning_rate.read()), resolved(optimizer.learning_rate)
    if not np.isclose(rate, of_config, rtol=1e-6, atol=0):
        text = (
            f"is {rate:.7g} in the file, as a callback left it, and {of_config:.7g} in its config: "
            f"give the recipe learning_rate={rate:.7g}"
        )
        notes.append(Note("learning_rate", text, surprising=True))
