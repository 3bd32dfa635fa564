"""Losses multiplied by the scale where gradients are taken, and gradients divided by it."""

from __future__ import annotations  # so that `help` shows types as they are written

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal, ParamSpec, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.precision import widen
from optax_ext._core.public import public
from optax_ext.loss_scaling._differentiated import check_differentiated
from optax_ext.loss_scaling._find_scaler import find_scaler
from optax_ext.loss_scaling._precision import unscale_by
from optax_ext.loss_scaling._state import LossScaleState

_P = ParamSpec("_P")
_Loss = TypeVar("_Loss")
_Aux = TypeVar("_Aux")
Grads = Any  # in the structure of what is differentiated


@public
def scale_loss(loss: jax.Array, opt_state: optax.OptState, *, missing_ok: bool = False) -> jax.Array:
    """Multiply a loss by the loss scale in an optimizer state.

    Use this where [`value_and_grad`][optax_ext.value_and_grad] does not fit. Gradients of the result are scaled, as
    ``tx.update`` takes them.

    Args:
      loss: A floating-point array, of any shape.
      opt_state: An optimizer state that holds one [`LossScaleState`][optax_ext.LossScaleState], at any depth:
        what ``tx.init`` and ``tx.update`` return, or ``optimizer.opt_state`` of Flax NNX.
      missing_ok: Whether a state without one is accepted, for a scale of 1.

    Returns:
      The scaled loss, in at least float32, since a float16 loss would overflow at a scale of 65536. The backward pass
      still starts in the dtype of the given loss, so let a model return its loss in float32.

    Raises:
      TypeError: If ``opt_state`` is a transformation or parameters.
      ValueError: If it holds no loss scale, or several, or one that covers only some of the scaled gradients: in one
        group of ``optax.partition``, or inside ``optax.apply_if_finite``. Also inside a loss that ``value_and_grad``
        already scales with the same state; use another ``value_and_grad`` for gradients that are taken inside it.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 2.0**16)
      >>> print(optax_ext.scale_loss(jnp.float16(4.0), tx.init(jnp.ones(2))))
      262144.0
    """
    scaler = find_scaler(opt_state, missing_ok)
    if scaler is not None and _is_same(scaler, _SCALING.get()):
        raise ValueError(
            "scale_loss must not be called in a loss that value_and_grad scales with the same opt_state: "
            "the gradients would be scaled twice. Return the loss as it is"
        )
    return _multiply(loss, _scale_of(scaler))


@public
def unscale(tree: Any, opt_state: optax.OptState, *, missing_ok: bool = False) -> Any:
    """Divide the inexact leaves of a tree by the loss scale in an optimizer state.

    Use this to look at gradients, for example to log their norm. ``tx.update`` takes them scaled.

    Args:
      tree: Scaled gradients or losses. Integer leaves, None and masked nodes are left as they are.
      opt_state: The optimizer state that the loss was scaled with.
      missing_ok: Whether a state without a loss scale is accepted, for a scale of 1.

    Returns:
      The tree, with leaves in at least float32.

    Raises:
      TypeError: If ``opt_state`` is a transformation or parameters.
      ValueError: If it holds no loss scale, or several, as for [`scale_loss`][optax_ext.scale_loss].

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 8.0)
      >>> print(optax_ext.unscale(jnp.array([16.0, 24.0]), tx.init(jnp.ones(2))))
      [2. 3.]
    """
    return unscale_by(_scale_of(find_scaler(opt_state, missing_ok)), tree)


@overload
def value_and_grad(
    fun: Callable[_P, _Loss],
    opt_state: optax.OptState,
    argnums: Any = 0,
    has_aux: Literal[False] = False,
    *,
    transform: Callable[..., Callable[..., Any]] = jax.value_and_grad,
    missing_ok: bool = False,
) -> Callable[_P, tuple[_Loss, Grads]]: ...
@overload
def value_and_grad(
    fun: Callable[_P, tuple[_Loss, _Aux]],
    opt_state: optax.OptState,
    argnums: Any = 0,
    *,
    has_aux: Literal[True],
    transform: Callable[..., Callable[..., Any]] = jax.value_and_grad,
    missing_ok: bool = False,
) -> Callable[_P, tuple[tuple[_Loss, _Aux], Grads]]: ...
@overload
def value_and_grad(
    fun: Callable[_P, tuple[_Loss, _Aux]],
    opt_state: optax.OptState,
    argnums: Any,
    has_aux: Literal[True],
    *,
    transform: Callable[..., Callable[..., Any]] = jax.value_and_grad,
    missing_ok: bool = False,
) -> Callable[_P, tuple[tuple[_Loss, _Aux], Grads]]: ...
@overload
def value_and_grad(
    fun: Callable[_P, _Loss],
    opt_state: optax.OptState,
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    transform: Callable[..., Callable[..., Any]] = jax.value_and_grad,
    missing_ok: bool = False,
) -> Callable[_P, tuple[_Loss, Grads]]: ...
@public
def value_and_grad(
    fun: Callable[..., Any],
    opt_state: optax.OptState,
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    transform: Callable[..., Callable[..., Any]] = jax.value_and_grad,
    missing_ok: bool = False,
) -> Callable[..., tuple[Any, Grads]]:
    """Make a function that returns the unscaled loss and its scaled gradients, as ``tx.update`` takes them.

    This is ``jax.value_and_grad`` of the loss multiplied by the loss scale. It reads the scale from ``opt_state`` when
    it is called, so call it inside the training step.

    Args:
      fun: A function that returns a scalar loss, or with ``has_aux`` a pair of the loss and anything else.
      opt_state: An optimizer state that holds one [`LossScaleState`][optax_ext.LossScaleState], at any depth:
        what ``tx.init`` and ``tx.update`` return, or ``optimizer.opt_state`` of Flax NNX.
      argnums: The argument, or arguments, to differentiate with respect to, as ``transform`` takes it.
      has_aux: Whether ``fun`` returns a pair.
      transform: The function that differentiates: ``nnx.value_and_grad`` for modules of Flax NNX,
        ``eqx.filter_value_and_grad`` for modules of Equinox, or a partial of one of them, such as
        ``functools.partial(nnx.value_and_grad, argnums=nnx.DiffState(0, nnx.Param))``. It is called as
        ``transform(function, has_aux=True)``, and with ``argnums`` unless that is 0.
      missing_ok: Whether a state without a loss scale is accepted, for a scale of 1.

    Returns:
      A function with the arguments of ``fun`` that returns ``(loss, grads)``, or ``((loss, aux), grads)``.

    Raises:
      TypeError: If ``opt_state`` is a transformation or parameters. When the returned function is called: if ``fun``
        does not return what ``has_aux`` says, or if ``jax.value_and_grad`` would differentiate a module of Flax NNX,
        whose state it would not update, or a module of Equinox that holds more than arrays.
      ValueError: If ``opt_state`` holds no loss scale, or several, as for [`scale_loss`][optax_ext.scale_loss].

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 8.0)
      >>> params = jnp.array([3.0])
      >>> state = tx.init(params)
      >>> print(*optax_ext.value_and_grad(lambda p: jnp.sum(p**2), state)(params))
      9.0 [48.]
    """
    scaler = find_scaler(opt_state, missing_ok)
    scale = _scale_of(scaler)

    @functools.wraps(fun)
    def scaled(*args: Any, **kwargs: Any) -> tuple[jax.Array, Any]:
        token = _SCALING.set(scaler)
        try:
            out = fun(*args, **kwargs)
        finally:
            _SCALING.reset(token)
        return _multiply(_loss_of(out, has_aux), scale), out

    # The default is not passed on: a partial may have its own, and Equinox takes none.
    arguments = {} if isinstance(argnums, int) and argnums == 0 else {"argnums": argnums}
    scaled_value_and_grad = transform(scaled, **arguments, has_aux=True)

    @functools.wraps(fun)
    def unscaled_value_and_scaled_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        check_differentiated(transform, argnums, args)
        (_, out), grads = scaled_value_and_grad(*args, **kwargs)
        return out, grads

    return unscaled_value_and_scaled_grad


# The state whose scale `value_and_grad` is applying; a ContextVar, since each thread traces its own losses.
_SCALING: ContextVar[LossScaleState | None] = ContextVar("scaling", default=None)


def _is_same(scaler: LossScaleState, other: LossScaleState | None) -> bool:
    """Whether two states are the same one, even if JAX has flattened and unflattened it under a transform.

    Equal values do not tell: the two loss scales of a GAN start equal.
    """
    if other is None:
        return False
    scale, other_scale = jax.tree.leaves(scaler.loss_scale), jax.tree.leaves(other.loss_scale)  # Flax boxes them
    is_one_array = isinstance(scale[0], jax.Array | np.ndarray) and scale[0] is other_scale[0]
    return scaler is other or is_one_array


def _scale_of(scaler: LossScaleState | None) -> jax.Array:
    return jnp.asarray(1 if scaler is None else scaler.loss_scale, jnp.float32)


def _multiply(loss: Any, scale: jax.Array) -> jax.Array:
    loss = widen(jnp.asarray(loss))
    return loss * scale.astype(loss.dtype)


def _loss_of(out: Any, has_aux: bool) -> Any:
    if has_aux:
        if not isinstance(out, tuple | list) or len(out) != 2:
            raise TypeError(f"with has_aux=True, fun must return a pair (loss, aux), got {_outline(out)}")
        out, where = out[0], "the first item of the pair that fun returns"
    else:
        where = "what fun returns"
    if isinstance(out, tuple | list):
        hint = ": pass has_aux=True for a function that returns a pair (loss, aux)" if not has_aux else ""
        raise TypeError(f"{where} must be the loss, a scalar array, got {_outline(out)}{hint}")
    if out is None or isinstance(out, dict | str):
        raise TypeError(f"{where} must be the loss, a scalar array, got {_outline(out)}")
    return out


def _outline(out: Any) -> str:
    if isinstance(out, tuple | list):
        return f"{type(out).__name__} of {len(out)} ({', '.join(map(_outline, out))})"
    return "array" if isinstance(out, jax.Array) else "None" if out is None else type(out).__name__
