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
            arguments = tuple(read_argument(parameter, _RESERVED) for parameter in parameters.values())
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
