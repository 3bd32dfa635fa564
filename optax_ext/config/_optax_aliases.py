"""The optimizers of the installed Optax, with their arguments, and why a recipe cannot name its other functions."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from optax_ext._core.errors import did_you_mean, shorten
from optax_ext._core.lazy import optax
from optax_ext.config._optax_arguments import Argument, is_made_of_transformations, read_argument
from optax_ext.config._update_rule import UpdateRule

_RESERVED = ("name", "type", *UpdateRule.__dataclass_fields__)
# Optimizers that look at a parameter as a whole, for which a stack of layers is not what its layers are.
_OF_WHOLE_PARAMETERS = ("adafactor", "fromage", "galore", "lamb", "lars", "muon", "novograd", "sm3")
# Optimizers whose updates are not proportional to the learning rate: at all, or once the argument is given.
_NOT_PROPORTIONAL = dict.fromkeys(
    (
        *(
            "cocob",
            "dadapt_adamw",
            "fromage",
            "lbfgs",
            "madgrad",
            "momo",
            "momo_adam",
            "polyak_sgd",
            "prodigy",
            "rprop",
        ),
        *("schedule_free_adamw", "schedule_free_sgd"),
    ),
    "",
) | {"adafactor": "weight_decay_rate", "optimistic_adam": "optimism"}
# Arguments that Optax evaluates at the count of something else, such as that of a bias correction.
_SHARE_A_COUNT = {
    "ademamix": ("b3", "alpha"),
    "dadapt_adamw": ("learning_rate",),
    "madgrad": ("learning_rate",),
    "momo": ("learning_rate",),
    "momo_adam": ("learning_rate",),
    "prodigy": ("learning_rate",),
    "schedule_free_adamw": ("warmup_steps",),
    "schedule_free_sgd": ("warmup_steps",),
    "simplified_ademamix": ("alpha",),
}
# Arguments that Optax's annotations say may be schedules, and that its functions cannot evaluate.
_NUMBERS_ALONE = {"novograd": ("weight_decay",), "optimistic_gradient_descent": ("alpha", "beta")}
# Functions of all parameters that `update` needs, which the parameters of a group are not.
_OF_ALL_PARAMETERS = {"lbfgs": "value_fn", "sophia": "obj_fn"}


class Alias(NamedTuple):
    """An optimizer of Optax that a recipe can name.

    Attributes:
      name: What Optax calls it.
      full_name: The same with its module, as in ``"optax.contrib.muon"``.
      function: The function that makes it.
      arguments: Its arguments, in order.
    """

    name: str
    full_name: str
    function: Callable[..., Any]
    arguments: tuple[Argument, ...]

    @property
    def sees_whole_parameters(self) -> bool:
        """Whether a stack of layers in one parameter is updated in another way than the layers apart."""
        return self.name in _OF_WHOLE_PARAMETERS

    @property
    def not_proportional_with(self) -> str | None:
        """The argument with which updates are not proportional to the learning rate; "" if they never are."""
        return _NOT_PROPORTIONAL.get(self.name)

    @property
    def sharing_a_count(self) -> tuple[str, ...]:
        """The arguments whose schedules have no count of steps of their own."""
        return _SHARE_A_COUNT.get(self.name, ())

    @property
    def function_of_all_parameters(self) -> str | None:
        """The function of all parameters that ``update`` needs."""
        return _OF_ALL_PARAMETERS.get(self.name)


@functools.cache
def _read() -> tuple[Mapping[str, Alias], Mapping[str, str]]:
    """Return the optimizers of Optax, and of its other transformations why a recipe cannot name them."""
    found: dict[str, Alias] = {}
    others: dict[str, str] = {}
    for module in ("optax", "optax.contrib"):
        for name, value in sorted(vars(importlib.import_module(module)).items()):
            if name.startswith("_") or not callable(value) or isinstance(value, type):
                continue
            try:
                signature = inspect.signature(value, eval_str=True)
            except (TypeError, ValueError, NameError):  # an alias of a type, and what tells nothing of its arguments
                continue
            full_name, parameters = f"{module}.{name}", signature.parameters
            if not (_has_rate(signature) or is_made_of_transformations(signature.return_annotation)):
                continue
            arguments = tuple(
                read_argument(parameter, _RESERVED, schedules=parameter.name not in _NUMBERS_ALONE.get(name, ()))
                for parameter in parameters.values()
            )
            reason = _why_not(name, signature, arguments)
            if reason is not None:
                others.setdefault(name, f"{full_name} {reason}")
            elif name not in found:
                found[name] = Alias(name, full_name, value, _without_deprecated(arguments))
    return dict(sorted(found.items())), others


def _has_rate(signature: inspect.Signature) -> bool:
    return any(name.endswith("learning_rate") for name in signature.parameters)


def _why_not(name: str, signature: inspect.Signature, arguments: Sequence[Argument]) -> str | None:
    """Return why a recipe cannot name a transformation as its optimizer; None if it can."""
    required = [parameter for parameter in signature.parameters.values() if parameter.default is parameter.empty]
    if name.startswith("scale_by_"):
        return "is a part of optimizers, not an optimizer"
    if any(is_made_of_transformations(parameter.annotation) for parameter in required):
        return "wraps other transformations, which cannot stand in a recipe: wrap what make() returns"
    if not _has_rate(signature):
        return "has no learning rate: it is a part of optimizers, to be chained with what make() returns"
    missing = next((argument for argument in arguments if argument.is_required and argument.accepted is None), None)
    return None if missing is None else f"needs {missing.name}, {missing.reason}"


def _without_deprecated(arguments: tuple[Argument, ...]) -> tuple[Argument, ...]:
    """Leave the `seed` out that Optax keeps beside the `key` that took its place."""
    names = [argument.name for argument in arguments]
    if "key" not in names or "seed" not in names:
        return arguments
    left_out = arguments[names.index("seed")]._replace(accepted=None, reason="deprecated by Optax: write key")
    return tuple(left_out if argument.name == "seed" else argument for argument in arguments)


def aliases() -> Mapping[str, Alias]:
    """Return the optimizers of the installed Optax that a recipe can name."""
    return _read()[0]


def others() -> Mapping[str, str]:
    """Return why a recipe cannot name the other transformations of the installed Optax, by their names."""
    return _read()[1]


def find_alias(name: object) -> Alias:
    """Return the optimizer of a name; raise LookupError with what to say of another name."""
    known = aliases()
    if isinstance(name, str) and name in known:
        return known[name]
    if isinstance(name, str) and name in others():
        raise LookupError(f"must be an optimizer of Optax, got {name!r}: {others()[name]}")
    last = name.rpartition(".")[2] if isinstance(name, str) else name
    hint = did_you_mean(last, known)
    names = ", ".join(map(repr, known))
    raise LookupError(f"unknown optimizer of Optax {optax.__version__}, got {shorten(name)}{hint}, accepted: {names}")
