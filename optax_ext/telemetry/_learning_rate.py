"""The learning rate that the last step used, by the count in the state that the rate goes by."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import check_rate
from optax_ext._core.opt_states import places_of
from optax_ext.loss_scaling import LossScaleState, SkipBadStepsState
from optax_ext.telemetry._scalar import scalar

_INJECTED = (optax.InjectStatefulHyperparamsState, optax.InjectHyperparamsState)
# Not in every step do these call what is inside them. The rate that was used last is then that of the last call.
_OCCASIONAL = (optax.MultiStepsState, optax.ConditionallyTransformState, optax.ConditionallyMaskState)
# These call what is inside them in every step, and keep its old state if the step is skipped.
_SKIPPING = (LossScaleState, SkipBadStepsState, optax.ApplyIfFiniteState)
_CYCLIC = (optax.ApplyEvery,)  # its count starts over


def learning_rate_metrics(opt_state: optax.OptState, learning_rate: Any) -> dict[str, jax.Array]:
    """Return the rate that the last step used, by its name; nothing where neither argument nor state tells."""
    if learning_rate is None:
        return _injected_rates(opt_state)
    learning_rate = _with_injected_rate(learning_rate, opt_state)
    if isinstance(learning_rate, type) or not hasattr(learning_rate, "learning_rates"):
        check_rate("learning_rate", learning_rate)
        rate = learning_rate(_last_step(opt_state)) if callable(learning_rate) else learning_rate
        return {"learning_rate": scalar("learning_rate", rate, jnp.float32)}
    rates = learning_rate.learning_rates()
    step = 0 if not rates or _is_constant(learning_rate) else _last_step(opt_state)
    names = {group: f"learning_rate/{group}" if group else "learning_rate" for group in rates}
    return {names[group]: scalar(names[group], rate(step), jnp.float32) for group, rate in rates.items()}


def _with_injected_rate(learning_rate: Any, opt_state: optax.OptState) -> Any:
    """Return the optimizer of a recipe with the rate that `make(hyperparameters=...)` keeps, which may differ."""
    optimizer = getattr(learning_rate, "optimizer", learning_rate)
    nodes = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=_has_rate)
    rates = [(_groups_in(path), node.hyperparams["learning_rate"]) for path, node in nodes if _has_rate(node)]
    if len(rates) == 1 and hasattr(optimizer, "learning_rate"):
        rates = [((), rates[0][1])]  # wherever the state is
    if not rates or len(rates) > len(dict(rates)) or not hasattr(optimizer, "has_constant_rate"):
        return learning_rate
    return _with_rates(optimizer, dict(rates), ())


def _with_rates(rule: Any, rates: Mapping[tuple[str, ...], Any], groups: tuple[str, ...]) -> Any:
    """Return an optimizer with other rates, by the groups that lead to each."""
    changed = copy.copy(rule)
    if groups in rates and hasattr(rule, "learning_rate"):
        object.__setattr__(changed, "learning_rate", rates[groups])
    if hasattr(rule, "rules"):
        inner = {name: _with_rates(inside, rates, (*groups, name)) for name, inside in rule.rules().items()}
        object.__setattr__(changed, "rules", lambda: inner)
    return changed


def _groups_in(path: Any) -> tuple[str, ...]:
    """Return the groups of `optax.partition` on the way to a state."""
    return tuple(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def _injected_rates(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """Return the rate that `optax.inject_hyperparams` keeps, if there is one; of several, each by its group."""
    nodes = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=_has_rate)
    rates = [(path, node.hyperparams["learning_rate"]) for path, node in nodes if _has_rate(node)]
    if len(rates) == 1:
        return {"learning_rate": scalar("learning_rate", rates[0][1], jnp.float32)}
    found: dict[str, jax.Array] = {}
    for path, rate in rates:
        name = "/".join(["learning_rate", *_groups_in(path)])
        if name in found:
            raise ValueError(
                f"opt_state must hold one injected learning_rate, or one in each group, got several of {name!r}: give "
                "the part of the state with the one to read, or a learning_rate"
            )
        found[name] = scalar(name, rate, jnp.float32)
    return found


def _has_rate(node: Any) -> bool:
    return isinstance(node, _INJECTED) and "learning_rate" in node.hyperparams


def _is_constant(recipe: Any) -> bool:
    """Whether a recipe's rate is a number, which its transformation applies without a count."""
    return getattr(recipe, "optimizer", recipe).has_constant_rate()


class _Count(NamedTuple):
    """A state that counts steps, and the wrappers around it that do not let every step through, outermost first."""

    state: Any
    wrappers: tuple[Any, ...]


def _last_step(opt_state: optax.OptState) -> jax.Array:
    """Return the count that the last step computed its rate with.

    Raises:
      ValueError: If there is no count, or counts of different steps, such as inside and outside of `optax.MultiSteps`.
    """
    counts = list(_counts([opt_state], ()))
    # The count of the rate itself, if it has one of its own: others may stand elsewhere.
    kinds = (_has_rate, lambda state: isinstance(state, optax.ScaleByScheduleState), lambda state: True)
    counts = next((some for kind in kinds if (some := [count for count in counts if kind(count.state)])), [])
    if not counts:
        raise ValueError(
            "opt_state must hold a step count for a schedule, got none, as of an optimizer whose learning rate is a "
            "number: give that number, or schedule(step) with a step count of yours"
        )
    if len({tuple(map(id, count.wrappers)) for count in counts}) > 1:
        places = [place for kind in {type(count.state) for count in counts} for place in places_of(opt_state, kind)]
        raise ValueError(
            f"opt_state must hold one step count for a schedule, got several, at {', '.join(sorted(places))}, and not "
            f"every step reaches each of them: give the part of the state with the one that the schedule goes by"
        )
    state, wrappers = counts[0]
    count = scalar("count", state.count, jnp.int32)
    return jnp.maximum(count - _advanced(wrappers), 0)


def _counts(node: Any, wrappers: tuple[Any, ...]) -> Iterator[_Count]:
    """Yield the states below a node that count steps."""
    for below in jax.tree.leaves(node, is_leaf=lambda child: child is not node and _matters(child)):
        if isinstance(below, _OCCASIONAL + _SKIPPING):
            yield from _counts(below, (*wrappers, below))
        elif _matters(below):
            yield _Count(below, wrappers)
            yield from _counts(below, wrappers)


def _matters(node: Any) -> bool:
    if isinstance(node, _OCCASIONAL + _SKIPPING):
        return True
    fields: Any = getattr(node, "_fields", ()) if isinstance(node, tuple) and not isinstance(node, _CYCLIC) else ()
    leaves = jax.tree.leaves(node.count) if "count" in fields else []
    return len(leaves) == 1 and jnp.issubdtype(jnp.result_type(leaves[0]), jnp.integer)


def _advanced(wrappers: tuple[Any, ...]) -> jax.Array:
    """Return whether the last step that called what is inside all wrappers advanced its counts: 1, or 0 for a skip."""
    advanced = jnp.ones([], jnp.bool_)
    for wrapper in reversed(wrappers):
        if isinstance(wrapper, _OCCASIONAL):
            break
        if isinstance(wrapper, optax.ApplyIfFiniteState):  # which does not say whether it has lost its patience
            advanced &= scalar("last_finite", wrapper.last_finite, jnp.bool_)
            continue
        applied = scalar("consecutive_skips", wrapper.consecutive_skips, jnp.int32) == 0
        counted = isinstance(wrapper, LossScaleState) and scalar(
            "last_step_counted", wrapper.last_step_counted, jnp.bool_
        )
        # A step that this wrapper skips does not reach those inside, which then tell of an earlier one.
        advanced = jnp.where(applied, advanced, counted)
    return advanced.astype(jnp.int32)
