"""Whether a state of one recipe fits another, and what to do if not."""

import dataclasses
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from optax_ext import config
from optax_ext._core.schema import Schema, init_fields
from optax_ext.cli._params import Shapes
from optax_ext.config import ConfigError, OptimizationConfig, UpdateRule

_MOST_PARTS = 6  # in which states differ; more are only counted
_SMALL: Shapes = {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.bfloat16)}  # narrow, so that master weights show

Recipe = OptimizationConfig | UpdateRule


def fit_in_words(old: Recipe, new: Recipe, names: tuple[str, str], at: int, shapes: Shapes | None) -> list[str]:
    """Say whether a state of the old recipe is one of the new, and if not, where they differ and what to do.

    Args:
      old: The recipe of the state, resolved.
      new: The recipe to go on with, resolved.
      names: What they are called.
      at: The first step of the new recipe.
      shapes: The shapes of the parameters; None for those of a small kernel.
    """
    if shapes is None:
        old, new, shapes = _for_any_parameters(old), _for_any_parameters(new), _SMALL
    try:
        state, other = (jax.eval_shape(recipe.make().init, shapes) for recipe in (old, new))
    except ValueError as error:
        return [f"not known for these parameters: {error}", "give their shapes by --params SHAPES.json"]
    parts = _differences(state, other, names)
    call = "config.carry_over(state, old, new, params)"
    wrong = _why_not(old, new, state, shapes, None)
    if not parts:
        if wrong is None:
            return [f"a state of {names[0]} is one of {names[1]} as it is: restore it, and go on"]
        return [f"a state of {names[0]} has the structure of one of {names[1]}, but not its meaning: {wrong}"]
    lines = [f"a state of {names[0]} is not one of {names[1]}:", *(f"  {part}" for part in parts[:_MOST_PARTS])]
    if len(parts) > _MOST_PARTS:
        lines.append(f"  and {len(parts) - _MOST_PARTS} more")
    if wrong is not None and "give step=" in wrong:
        call = f"config.carry_over(state, old, new, params, step={at})"
        wrong = _why_not(old, new, state, shapes, at)
    lines.append(f"{call} makes one of {names[1]} of it" if wrong is None else f"{call} says: {wrong}")
    if _counts_no_steps(new) and not _counts_no_steps(old):
        schedule = "{type: constant, learning_rate: ...}"
        lines.append(f"or write the rate of {names[1]} as a schedule, {schedule}: a number counts no steps")
    return lines


def _why_not(old: Recipe, new: Recipe, state: Any, shapes: Shapes, step: int | None) -> str | None:
    """Return why a state cannot be carried over; None if it can."""
    carry = functools.partial(config.carry_over, old=old, new=new, step=step)
    try:
        jax.eval_shape(lambda state, params: carry(state, params=params), state, shapes)
    except ValueError as error:
        return str(error)
    return None


def _counts_no_steps(recipe: Recipe) -> bool:
    rule = recipe.optimizer if isinstance(recipe, OptimizationConfig) else recipe
    return isinstance(rule, config.Optimizer) and rule.has_constant_rate()


def _differences(old: Any, new: Any, names: tuple[str, str]) -> list[str]:
    """Say in which parts two states differ."""
    olds, news = (
        {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
        for state in (old, new)
    )
    found: list[str] = []
    for place in dict.fromkeys([*olds, *news]):
        if place not in news:
            found.append(f"only {names[0]} has {place}, {_shape(olds[place])}")
        elif place not in olds:
            found.append(f"only {names[1]} has {place}, {_shape(news[place])}")
        elif (was := _shape(olds[place])) != (is_now := _shape(news[place])):
            found.append(f"{place} is {was} in {names[0]}, {is_now} in {names[1]}")
    if not found and jax.tree.structure(old) != jax.tree.structure(new):
        found.append("the same arrays in states of other types")
    return found


def _shape(leaf: Any) -> str:
    return f"{leaf.dtype.name}{list(leaf.shape) if leaf.shape else ''}"


def _for_any_parameters(value: Any) -> Any:
    """Return a recipe whose patterns need not match, since the parameters are not its own."""
    if isinstance(value, tuple):
        return tuple(map(_for_any_parameters, value))
    if not isinstance(value, Schema):
        return value
    fields = {field.name: _for_any_parameters(getattr(value, field.name)) for field in init_fields(type(value))}
    if isinstance(value, UpdateRule):
        fields["allow_unmatched"] = True
    try:
        with warnings.catch_warnings(action="ignore"):  # they were said when the file was read
            return dataclasses.replace(value, **fields)
    except ConfigError:  # of what is frozen, which has no patterns, and takes no fields
        return value
