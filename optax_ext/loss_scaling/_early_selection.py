"""Early selection: select each leaf of a new state against the old one where it is computed, not at the end.

An optimizer computes updates from its new moments. If the moments are selected against the old ones only afterwards,
XLA on a CPU keeps both in memory until then: with Adam two copies of the parameters, and a step takes four times as
long. Here the update is traced to a jaxpr and evaluated with a selection right after each equation that computes a leaf
of the state. Later equations read the selected leaf: the same number if the step is applied; and if it is skipped, the
updates are zero in any case.

The jaxpr also tells which gradients the update reads: `optax.set_to_zero` reads none, so the gradients of frozen
parameters need not be finite.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from optax_ext._core.remat import by_platform

_NEEDS_NUMBERS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
Update = Callable[[Any, Any], tuple[Any, Any]]  # from gradients and a state to updates and the next state


class TracedUpdate(NamedTuple):
    """An update as a jaxpr of the leaves of its gradients, and then those of its state.

    Attributes:
      jaxpr: Its outputs are the leaves of the next state, and then those of the updates.
      arguments: The leaves that it was traced with.
      reads: For each leaf of the gradients, whether any output depends on it.
      state_structure: The structure of the state, before and after.
      updates_structure: The structure of the updates.
    """

    jaxpr: ClosedJaxpr
    arguments: list[Any]
    reads: list[bool]
    state_structure: Any
    updates_structure: Any

    def __call__(self, applied: jax.Array, kept: Any) -> tuple[Any, Any]:
        """Compute updates, and the next state if `applied`, else `kept`, in the types of the latter."""
        kept_leaves = self.state_structure.flatten_up_to(kept)
        olds = [*kept_leaves, *[None] * self.updates_structure.num_leaves]

        def select_early() -> list[Any]:
            return _evaluate(self.jaxpr, self.arguments, applied, olds)[1]

        def select_at_the_end() -> list[Any]:
            pairs = zip(jaxpr_as_fun(self.jaxpr)(*self.arguments), olds, strict=True)
            return [output if old is None else select_leaf(applied, output, old) for output, old in pairs]

        # Elsewhere XLA fuses the selection with the update either way, and norms need not wait for the check.
        outputs = by_platform(cpu=select_early, default=select_at_the_end)
        updates = self.updates_structure.unflatten(outputs[len(kept_leaves) :])
        return updates, self.state_structure.unflatten(outputs[: len(kept_leaves)])


def trace_update(update: Update, grads: Any, state: Any) -> TracedUpdate:
    """Trace `update(grads, state)`, which must return a state of the structure of the one it is given."""
    grad_leaves, grads_structure = jax.tree.flatten(grads)
    state_leaves, state_structure = jax.tree.flatten(state)
    arguments = [*map(jnp.asarray, grad_leaves), *state_leaves]
    count = len(grad_leaves)

    def program(*leaves: Any) -> tuple[list[Any], Any]:
        updates, new_state = update(
            grads_structure.unflatten(leaves[:count]), state_structure.unflatten(leaves[count:])
        )
        return state_structure.flatten_up_to(new_state), updates

    jaxpr, (_, shapes) = jax.make_jaxpr(program, return_shape=True)(*arguments)
    return TracedUpdate(jaxpr, arguments, _reads(jaxpr)[:count], state_structure, jax.tree.structure(shapes))


def read_gradients(update: Update, grads: Any, state: Any) -> list[bool]:
    """Return for each leaf of the gradients whether `update` reads it; all, if it runs on concrete numbers alone."""
    try:
        return trace_update(update, grads, state).reads
    except _NEEDS_NUMBERS:
        return [True] * len(jax.tree.leaves(grads))


def select_leaf(applied: jax.Array, new: Any, old: Any) -> Any:
    """Return the new leaf of a state if `applied`, else the old one; in the type of the old, which never changes."""
    if new is old:
        return old
    if not jnp.issubdtype(jnp.result_type(old), jax.dtypes.prng_key):
        new = jnp.asarray(new).astype(jnp.result_type(old))
    return jnp.where(applied, new, old)


def _evaluate(
    closed: ClosedJaxpr, arguments: Sequence[Any], applied: jax.Array, kept: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Evaluate a jaxpr; return its outputs for whatever reads them, and with those selected that have one in `kept`.

    The two are the same but where the selection changes a type, such as what varies over a mesh in `shard_map`.
    """
    jaxpr = closed.jaxpr
    values: dict[Var, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)
    selected: dict[Var, Any] = {}
    # One variable may be two leaves with different old ones: its readers then read what was selected for the first.
    # Where a state stores less than was computed, its readers must read all of it.
    early: dict[Var, Any] = {}
    for variable, old in zip(jaxpr.outvars, kept, strict=True):
        if old is not None and isinstance(variable, Var) and variable not in values and _same_type(variable, old):
            early.setdefault(variable, old)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs, outputs = [read(atom) for atom in equation.invars], equation.outvars
        olds = [early.get(variable) for variable in outputs]
        if any(old is not None for old in olds) and _is_plain_jit(equation):
            results, choices = _evaluate(equation.params["jaxpr"], inputs, applied, olds)
        else:
            results = [*_bind(equation, inputs)]
            choices = [*results]
            for index, old in enumerate(olds):
                if old is not None:
                    choices[index] = select_leaf(applied, results[index], old)
                    if jax.typeof(choices[index]) == jax.typeof(results[index]):
                        results[index] = choices[index]
        values |= zip(outputs, results, strict=True)
        selected |= zip(outputs, choices, strict=True)

    def select(variable: Any, old: Any) -> Any:
        is_selected = isinstance(variable, Var) and variable in early and early[variable] is old
        return selected[variable] if is_selected else select_leaf(applied, read(variable), old)

    pairs = [*zip(jaxpr.outvars, kept, strict=True)]
    outputs = [read(variable) for variable, _ in pairs]
    return outputs, [read(variable) if old is None else select(variable, old) for variable, old in pairs]


def _bind(equation: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any]:
    """Evaluate one equation, in the context that it was traced in."""
    primitive = equation.primitive
    params = primitive.get_bind_params(equation.params)
    functions, params = ((), params) if isinstance(params, dict) else params
    with equation.ctx.manager:
        results = primitive.bind(*functions, *inputs, **params)
    return results if primitive.multiple_results else [results]


def _is_plain_jit(equation: JaxprEqn) -> bool:
    """Whether an equation is a call of a jitted function, as many of `jax.numpy` are, that asks for no layout."""
    plain = _plain_jit()
    if equation.primitive is not plain.primitive:
        return False
    names = ("in_shardings", "out_shardings", "in_layouts", "out_layouts")
    return all(value == plain.params[name][0] for name in names for value in equation.params[name])


@functools.cache
def _plain_jit() -> JaxprEqn:
    with jax.disable_jit(False):
        (equation,) = jax.make_jaxpr(jax.jit(lambda x: x))(0.0).eqns
    return equation


def _same_type(variable: Var, old: Any) -> bool:
    aval: Any = variable.aval
    return (aval.shape, aval.dtype) == (jnp.shape(old), jnp.result_type(old))


def _reads(closed: ClosedJaxpr) -> list[bool]:
    """Return for each input whether an output or an effect depends on it, as far as whole equations tell."""
    needed = {variable for variable in closed.jaxpr.outvars if isinstance(variable, Var)}
    for equation in reversed(closed.jaxpr.eqns):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            needed |= {atom for atom in equation.invars if isinstance(atom, Var)}
    return [variable in needed for variable in closed.jaxpr.invars]
