"""Numbers of an optimizer that its transformation keeps in the state, where they can be changed while it trains."""

import copy
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from optax_ext._core.errors import ConfigError, Problem, join_words, shorten
from optax_ext._core.lazy import jax, jnp, optax
from optax_ext._core.schema import init_fields
from optax_ext._core.synonyms import suggest
from optax_ext.schedules import is_zero

_Number = TypeVar("_Number")


class Rule(Protocol):
    """What has the fields, and makes the transformation."""

    def make(self) -> "optax.GradientTransformationExtraArgs": ...


def inject(rule: Rule, names: Sequence[str], accepted: Sequence[str]) -> "optax.GradientTransformationExtraArgs":
    """Return the transformation of a rule, with fields in the state by `optax.inject_hyperparams`.

    Args:
      rule: The recipe.
      names: The fields to keep in the state.
      accepted: The fields that may be.

    Raises:
      ConfigError: If a name is none of these, or what it names is not a number, or a number that may have no stage.
    """
    _check(rule, names, accepted)

    def build(**values: "jax.Array") -> "optax.GradientTransformationExtraArgs":
        injected = copy.copy(rule)
        for name, value in values.items():
            initial = getattr(rule, name)
            object.__setattr__(injected, name, Hyperparameter(value, initial if isinstance(initial, float) else 1.0))
        return injected.make()

    # Optax reads the names of what it injects from the signature.
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    cast(Any, build).__signature__ = inspect.Signature(parameters)
    values = {name: getattr(rule, name) for name in names}
    # In float32 where parameters are narrower: a rate that is rounded to bfloat16 is off by up to 0.4 percent.
    return optax.inject_hyperparams(build, hyperparam_dtype=jnp.float32)(**values)


def _check(rule: Rule, names: Sequence[str], accepted: Sequence[str]) -> None:
    where = f"{type(rule).__name__}.make"
    if isinstance(names, str) or not isinstance(names, Sequence):
        text = f"must be a list of names of fields, such as ['learning_rate'], got {shorten(names)}"
        raise ConfigError(where, [Problem("hyperparameters", text)])
    problems = [Problem("hyperparameters", text) for name in names if (text := _what_is_wrong(rule, name, accepted))]
    if len(set(names)) < len(names):
        problems.append(Problem("hyperparameters", f"must name each field once, got {shorten(list(names))}"))
    if problems:
        raise ConfigError(where, problems)


def _what_is_wrong(rule: Rule, name: object, accepted: Sequence[str]) -> str | None:
    can = f"those that can are {join_words(accepted)}"
    fields = [field.name for field in init_fields(type(rule))]
    if name not in fields:
        return f"{shorten(name)} is no field of {type(rule).__name__}{suggest(name, accepted)}; {can}"
    if name not in accepted:
        return f"{name} is fixed when the transformation is made; {can}"
    value = getattr(rule, str(name))
    if value is None:
        return f"{name} is null, and so there is nothing that it could change: give the recipe a number"
    if is_zero(value) and name != "learning_rate":
        return (
            f"{name} is 0, for which there may be no stage that it could change: give the recipe a positive number, and"
            " set it to 0 in the state"
        )
    return None


def _binary(operation: Callable[[Any, Any], Any], *, reflected: bool = False) -> Any:
    def compute(self: "Hyperparameter", other: Any) -> Any:
        def apply(own: Any, other: Any) -> Any:
            return operation(other, own) if reflected else operation(own, other)

        value = apply(self.value, value_of(other))
        if isinstance(other, int | float):
            return Hyperparameter(value, apply(self.initial, other))
        return value

    return compute


def _comparison(operation: Callable[[float, Any], bool]) -> Any:
    def compare(self: "Hyperparameter", other: Any) -> bool:
        return operation(self.initial, other)

    return compare


class Hyperparameter:
    """A number in a recipe whose value is known at run time only, and which is not 0 when the transformation is made.

    Words have the number of the recipe, and so have comparisons, which decide which stages there are. Whatever computes
    takes its `value`.
    """

    def __init__(self, value: "jax.Array", initial: float) -> None:
        self.value = value
        self.initial = initial

    def __format__(self, spec: str) -> str:
        return format(self.initial, spec)

    def __repr__(self) -> str:
        return f"Hyperparameter({self.initial!r})"

    def __jax_array__(self) -> "jax.Array":
        return self.value

    def __neg__(self) -> "Hyperparameter":
        return Hyperparameter(-self.value, -self.initial)

    __hash__ = None  # pyright: ignore[reportAssignmentType] # as that of an array
    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __add__, __radd__ = _binary(operator.add), _binary(operator.add, reflected=True)
    __sub__, __rsub__ = _binary(operator.sub), _binary(operator.sub, reflected=True)
    __mul__, __rmul__ = _binary(operator.mul), _binary(operator.mul, reflected=True)
    __truediv__, __rtruediv__ = _binary(operator.truediv), _binary(operator.truediv, reflected=True)
    __pow__, __rpow__ = _binary(operator.pow), _binary(operator.pow, reflected=True)


def clip_by_value(limit: float) -> "optax.GradientTransformation":
    """Return `optax.clip`, which keeps the dtype of updates only if the limit is a Python number."""
    if not isinstance(limit, Hyperparameter):
        return optax.clip(limit)
    value = limit.value

    def clip(update: Any, param: Any) -> Any:
        del param
        bound = value.astype(update.dtype)
        return jnp.clip(update, -bound, bound)

    return optax.stateless_with_tree_map(clip)


def value_of(number: _Number) -> _Number:
    """Return what to compute with: the value of a hyperparameter, and anything else as it is."""
    return cast(_Number, number.value) if isinstance(number, Hyperparameter) else number
