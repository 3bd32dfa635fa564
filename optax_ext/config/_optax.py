"""Any optimizer of Optax as data."""

import builtins
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from optax_ext import masks
from optax_ext._core.errors import join_words
from optax_ext._core.lazy import jnp
from optax_ext._core.registry import original
from optax_ext._core.relative import Relative, resolved
from optax_ext._core.schema import Schema, problem, raise_below
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._optax_aliases import Alias, aliases, find_alias
from optax_ext.config._optax_arguments import is_mask
from optax_ext.config._optimizer import warn_of_zero
from optax_ext.config._patterns import PatternField, mask_in_words
from optax_ext.config._stage import Stage
from optax_ext.config._update_rule import RateAtStep, UpdateRule
from optax_ext.schedules import (
    LinearWarmup,
    Milestone,
    RatePerBatch,
    Schedule,
    evaluate,
    rate_in_words,
    values_in_words,
)


@dataclasses.dataclass(frozen=True, init=False)
class Optax(UpdateRule):
    """Any optimizer of Optax, as Optax computes it.

    The fields of each optimizer are the arguments of Optax's function, with Optax's names and defaults, read from the
    Optax that is installed. Wherever Optax takes a schedule, a recipe may have one.

    A mask is ``{"include": [...]}``, ``{"exclude": [...]}``, or both, the arguments of
    [`path_mask`][optax_ext.path_mask]. A dtype is ``"float32"``, ``"bfloat16"`` or ``"float16"``. Functions,
    transformations, arrays and trees cannot stand in a recipe: an argument that takes one keeps Optax's default, and an
    optimizer that needs one is not accepted.

    State is in the dtypes that Optax chooses, most often those of the parameters; a loss scale and ``master_weights``
    show float16 parameters to it as float32. Optax's norms are of whole parameters: an optimizer that takes norms or
    means of each, such as ``lamb``, does not accept ``stacked_axes``.

    What ``update`` of Optax's optimizer needs besides gradients, state and parameters, ``update`` of what ``make()``
    returns takes too, inside any wrapper: ``value``, the loss, for ``polyak_sgd``, ``momo`` and ``momo_adam``;
    ``value``, ``grad`` and ``value_fn`` for ``lbfgs``; ``obj_fn`` for ``sophia``. None of these is scaled by a loss
    scale. ``dpsgd`` takes the gradients of single examples, stacked along a first axis.

    Args:
      name: What Optax calls the optimizer, in ``optax`` or ``optax.contrib``, such as ``"lion"`` or ``"muon"``.
      positional: Arguments of Optax's function, in its order.
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. ``clipnorm`` and
        ranks in masks are then of each layer.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      arguments: Arguments of Optax's function, by their names.

    Raises:
      ConfigError: If Optax has no such optimizer, or an argument is unknown, missing, or not accepted.

    Warns:
      UserWarning: If the learning rate is 0 at every step.

    Examples:
      >>> from optax_ext import config
      >>> lion = config.Optax("lion", learning_rate=1e-4, b1=0.95, mask={"exclude": ["bias"]})
      >>> lion
      Optax(name='lion', learning_rate=0.0001, b1=0.95, mask={'exclude': ('bias',)})
      >>> config.to_dict(lion, exclude_defaults=True)
      {'type': 'optax', 'name': 'lion', 'learning_rate': 0.0001, 'b1': 0.95, 'mask': {'exclude': ['bias']}}
      >>> tx = lion.make()
      >>> config.Optax("loin", learning_rate=1e-4)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      optax_ext.config.ConfigError: Optax: 1 problem
        name: unknown optimizer of Optax ..., got 'loin' (did you mean 'lion'?), accepted: ...
    """

    type = "optax"
    name: str

    def __init__(self, name: str, *positional: Any, **arguments: Any) -> None:
        """Say what the arguments are; the class of an optimizer, which is constructed in place of this, takes them."""
        del name, positional, arguments

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # the arguments of Optax's function

    @classmethod
    def __variant__(cls, args: Sequence[object], kwargs: Mapping[str, object]) -> builtins.type[Schema]:
        """Return the class of the optimizer that the arguments name."""
        if "__variant_of__" in vars(cls):
            return cls
        if not args and "name" not in kwargs:
            raise_below("name", f"is required: one of {', '.join(map(repr, aliases()))}", dict(kwargs))
        name = args[0] if args else kwargs["name"]
        try:
            return _class_of(original(cls) or cls, find_alias(name))
        except LookupError as error:
            raise_below("name", str(error.args[0]), name)

    @classmethod
    def __variants__(cls) -> Mapping[str, builtins.type[Schema]]:
        """Return the classes of all optimizers of Optax."""
        return {f"{cls.type}.{name}": _class_of(cls, alias) for name, alias in aliases().items()}

    def __post_init__(self) -> None:
        """Warn if nothing ever moves."""
        if (rate := self._learning_rate()) is not None:
            warn_of_zero(self._alias().full_name, rate)

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild a copy from the fields, since the class of an optimizer is made anew in each process."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _rebuild, (vars(builtins.type(self))["__variant_of__"], fields)

    @pydantic.field_validator("stacked_axes")
    @classmethod
    def _of_layers(cls, stacked_axes: Any) -> Any:
        alias: Alias = vars(cls)["__alias__"]
        if stacked_axes is not None and alias.sees_whole_parameters:
            raise problem(f"must be null for {alias.full_name}, which knows parameters as a whole, not their layers")
        return stacked_axes

    @pydantic.field_validator("learning_rate_multipliers", "layer_decay")
    @classmethod
    def _of_proportional_updates(cls, factors: Any, info: pydantic.ValidationInfo) -> Any:
        why = _why_no_factors(vars(cls)["__alias__"], info.data)
        if factors is not None and why is not None:
            raise problem(f"must be null for {why}: give these parameters a group of their own in a partition")
        return factors

    def in_words(self) -> str:
        """Say which optimizer it is, and what its learning rate is."""
        rate = self._learning_rate()
        return self._alias().full_name if rate is None else f"{self._alias().full_name} with {rate_in_words(rate)}"

    def learning_rates(self) -> Mapping[str, RateAtStep]:
        """Return ``learning_rate`` under the name ``""``; nothing for an optimizer that has none, or leaves it out.

        Of ``schedule_free_adamw`` and ``schedule_free_sgd`` it is with the warm-up over their ``warmup_steps``.
        """
        rate = self._learning_rate()
        if rate is None:
            return {}
        warmup_steps: int | str | None = getattr(self, "warmup_steps", None)
        if warmup_steps is None:
            return {"": functools.partial(evaluate, value_of(rate))}
        return {"": LinearWarmup(rate, warmup_steps)}

    def has_constant_rate(self) -> bool:
        """Return whether every step takes the same rate, for which Optax then counts no steps."""
        return not isinstance(self._learning_rate(), Schedule) and getattr(self, "warmup_steps", None) is None

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the steps at which it is worth looking at the rate: the schedule's, and the end of a warm-up."""
        rate = self._learning_rate()
        warmup_steps: int | str | None = getattr(self, "warmup_steps", None)
        found = [*rate.milestones()] if isinstance(rate, Schedule) else []
        if warmup_steps is not None:
            found.append(Milestone(resolved(warmup_steps), "end of warmup_steps"))
        return tuple(sorted(found, key=lambda milestone: milestone.step))

    def pattern_fields(self) -> list[PatternField]:
        """Return the patterns of masks: ``mask.exclude`` of the stage ``mask``, which is a part of what Optax does."""
        return [
            PatternField(f"{name}.{key}", name, key == "include", patterns, None, self.allow_unmatched)
            for name, mask in self._masks().items()
            for key, patterns in mask.items()
        ]

    def masks(self, *, allow_unmatched: bool | None = None) -> dict[str, Callable[[Any], Any]]:
        """Return the masks that Optax's function is given, by the names of its arguments.

        Args:
          allow_unmatched: Whether a pattern that matches no parameter is accepted; None for what the rule says.

        Returns:
          Functions from parameters to a tree of bool.
        """
        allow_unmatched = self.allow_unmatched if allow_unmatched is None else allow_unmatched
        axes = self.layer_axes(allow_unmatched=allow_unmatched)
        return {
            name: masks.path_mask(**mask, allow_unmatched=allow_unmatched, stacked_axes=axes)
            for name, mask in self._masks().items()
        }

    def why_no_factors(self) -> str | None:
        return _why_no_factors(self._alias(), self._arguments())

    def why_no_counts(self) -> str | None:
        shared = self._alias().sharing_a_count
        scheduled = [name for name in shared if isinstance(getattr(self, name), Schedule)]
        scheduled += [name for name in shared if name == "warmup_steps" and self.warmup_steps is not None]
        if not scheduled:
            return None
        return f"{self._alias().full_name}, whose {join_words(scheduled)} has no count of steps of its own"

    def why_no_group(self) -> str | None:
        function = self._alias().function_of_all_parameters
        return function and f"{self._alias().full_name}, which needs {function}, a function of all parameters"

    def _hyperparameters(self) -> tuple[str, ...]:
        rate = () if self._learning_rate() is None else ("learning_rate",)
        return (*super()._hyperparameters(), *rate)

    def _stages(self) -> list[Stage]:
        alias, own_masks = self._alias(), self.masks()
        arguments: dict[str, Any] = {}
        for name, value in self._arguments().items():
            if name in own_masks:
                arguments[name] = own_masks[name]
            elif not _is_mask(self, name):  # without one, Optax's default is every parameter
                number = resolved(value) if isinstance(value, Relative) else value_of(value)
                arguments[name] = jnp.dtype(number) if isinstance(number, str) and "dtype" in name else number
        return [Stage(alias.full_name, self._effect(), alias.function(**arguments))]

    def _effect(self) -> str:
        """Say all that Optax's function is given."""
        is_stacked, said = self.stacked_axes is not None, list[str]()
        defaults = {argument.name: argument.default for argument in self._alias().arguments}
        for name, value in self._arguments().items():
            if isinstance(value, Mapping):
                include, exclude = value.get("include"), value.get("exclude", ())
                said.append(f"{name} {mask_in_words(include, exclude, is_stacked=is_stacked)}")
            elif name.endswith("learning_rate"):
                said.append(f"no {name}" if value is None else f"{name} {rate_in_words(value)}")
            elif isinstance(value, Schedule):
                said.append(f"{name} {values_in_words(value)}")
            elif value is None or value is False:
                said += [f"no {name}"] if defaults[name] not in (None, False) else []
            else:
                said.append(name if value is True else f"{name} {_in_words(value)}")
        return ", ".join(said) or "with Optax's defaults"

    def _alias(self) -> Alias:
        return vars(builtins.type(self))["__alias__"]

    def _arguments(self) -> dict[str, Any]:
        """Return what Optax's function is given, in its order."""
        return {
            argument.name: getattr(self, argument.name) for argument in self._alias().arguments if argument.accepted
        }

    def _masks(self) -> dict[str, Mapping[str, Sequence[str]]]:
        return {name: value for name, value in self._arguments().items() if isinstance(value, Mapping)}

    def _learning_rate(self) -> float | RatePerBatch | Schedule | None:
        return getattr(self, "learning_rate", None)


def _why_no_factors(alias: Alias, arguments: Mapping[str, Any]) -> str | None:
    argument = alias.not_proportional_with
    if argument is None or (argument and not arguments.get(argument)):
        return None
    given = f" with {argument}" if argument else ""
    return f"{alias.full_name}{given}, whose updates are not proportional to its learning rate"


def _is_mask(optimizer: Optax, name: str) -> bool:
    return is_mask(inspect.get_annotations(type(optimizer))[name])


def _in_words(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_in_words, value))})"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------------------------------------------
# The classes of optimizers.


@functools.cache
def _class_of(base: type[Optax], alias: Alias) -> type[Optax]:
    """Return the class of one optimizer of Optax: `base` with a field for each argument that a recipe can hold."""
    accepted = [argument for argument in alias.arguments if argument.accepted is not None]
    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": _doc(base, alias),
        "__annotations__": {"name": Literal[alias.name]} | {argument.name: argument.accepted for argument in accepted},
        "__variant_of__": base,
        "__alias__": alias,
        "__refused__": {
            argument.name: f"must be left out: it is {argument.reason}"
            for argument in alias.arguments
            if argument.accepted is None
        },
        "type": base.type,
    }
    for argument in accepted:
        default = dataclasses.MISSING if argument.is_required else argument.default
        if argument.by_keyword:
            namespace[argument.name] = dataclasses.field(default=default, kw_only=True)
        elif not argument.is_required:
            namespace[argument.name] = default
    metaclass: Any = type(base)
    return dataclasses.dataclass(frozen=True)(metaclass(base.__name__, (base,), namespace))


def _rebuild(base: type[Optax], fields: Mapping[str, Any]) -> Optax:
    return base(**fields)


def _doc(base: type[Optax], alias: Alias) -> str:
    """Return the docstring of an optimizer's class: what Optax says of its arguments, and what we say of ours."""
    doc = inspect.getdoc(alias.function) or alias.full_name
    doc = re.sub(r":\w+:`([^`]*)`", r"\1", doc)  # what only Sphinx reads
    first, _, rest = doc.partition("\n")
    ours = [f"  {argument.name}: {_OF_A_MASK}" for argument in alias.arguments if is_mask(argument.accepted)]
    return "\n".join([first, "", "Args:", *ours, rest, inspect.getdoc(base) or ""])


_OF_A_MASK = (
    "Patterns on paths of the parameters that it applies to: include, for those that match one alone, and exclude, for"
    " all but those that match one."
)
