"""The slots of Keras's optimizers: their names and order in all generations, and what each is here.

| | all of the first slot, then all of the next | per variable |
|---|---|---|
| older than TensorFlow 2.11, and ``legacy`` | all slots | none |
| newer tf_keras, and Keras 3 | all other slots | the moments of Adam, ``m`` and ``v`` |

Before the slots come the iterations and, in Keras 3, the learning rate where it is a number; then, with ``use_ema``,
the averages, and with ``gradient_accumulation_steps`` the sums of gradients.
"""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import optax

from optax_ext._core.errors import ConfigError, Problem, join_words
from optax_ext._core.files import file_error
from optax_ext.config import LARS, SGD, Adagrad, Adam, AdamW, OptimizationConfig, RMSprop, UpdateRule
from optax_ext.interop.states._saved_variables import SavedOptimizer, SavedVariable
from optax_ext.transforms import ParamsEmaState


class Slot(NamedTuple):
    """What Keras keeps for each variable, and where it is here.

    Args:
      names: What Keras calls it, in all generations.
      states: The types of state that hold it here.
      field: Their field.
      sign: -1 where Keras keeps the negative.
    """

    names: tuple[str, ...]
    states: tuple[type[Any], ...]
    field: str
    sign: int = 1


class Slots(NamedTuple):
    """What a file holds of an optimizer.

    Args:
      iterations: The number of steps; None where the file does not say.
      learning_rate: The rate at the end, where the file has it.
      variables: Of each slot, the variables in the order of the parameters.
      names: What Keras called the parameters, in the same order; empty where the file does not say.
    """

    iterations: SavedVariable | None
    learning_rate: SavedVariable | None
    variables: Mapping[Slot, Sequence[SavedVariable]]
    names: Sequence[str] = ()


AVERAGE = Slot(("average",), (ParamsEmaState,), "ema")
ACCUMULATOR = Slot(("gradient_accumulator",), (optax.MultiStepsState,), "acc_grads")  # a sum, and a mean here
_ADAM_STATES = (optax.ScaleByAdamState, optax.ScaleByAmsgradState)
_RMS_STATES = (optax.ScaleByRmsState, optax.ScaleByRStdDevState)
_MOMENTUM = Slot(("momentum", "m"), (optax.TraceState,), "trace")  # which is of steps already, downhill as ours
_FIRST = Slot(("m", "momentum"), _ADAM_STATES, "mu")
_SECOND = Slot(("v", "velocity"), _ADAM_STATES, "nu")
_LARGEST = Slot(("vhat", "velocity_hat"), (optax.ScaleByAmsgradState,), "nu_max")
_SQUARE = Slot(("rms", "velocity"), _RMS_STATES, "nu")
_MEAN = Slot(("mg", "average_gradient"), (optax.ScaleByRStdDevState,), "mu")
_SUM = Slot(("accumulator",), (optax.ScaleByRssState,), "sum_of_squares")
SLOTS = (AVERAGE, ACCUMULATOR, _MOMENTUM, _FIRST, _SECOND, _LARGEST, _SQUARE, _MEAN, _SUM)

_ACCEPTED = ("LARS", "SGD", "Adam", "AdamW", "AdamWeightDecay", "RMSprop", "Adagrad")
_ITERATIONS = frozenset({"iter", "iteration", "iterations"})
_RATES = frozenset({"learning_rate", "current_learning_rate"})


def find_slots(saved: SavedOptimizer, recipe: OptimizationConfig, count: int) -> Slots:
    """Find which variable of a file is which slot of which parameter.

    Args:
      saved: The variables.
      recipe: The optimizer that the file says it is.
      count: The number of parameters.

    Returns:
      The slots, whose variables have equal shapes for the same parameter.

    Raises:
      ConfigError: If the optimizer is none of those whose slots are known.
      ValueError: If the variables do not fit the number of parameters.
    """
    around = [*([AVERAGE] if recipe.ema is not None else []), *([ACCUMULATOR] if recipe.accumulate_steps > 1 else [])]
    slots = [*around, *_slots_of(recipe.optimizer, saved.path)]
    found = _by_name(saved, recipe.optimizer, slots) or _by_position(saved, recipe.optimizer, slots, count)
    for slot, variables in found.variables.items():
        if not variables:
            name = type(recipe.optimizer).__name__
            raise file_error(saved.path, f"holds no {slot.names[-1]}, which Keras keeps for the {name} of its config")
        if len(variables) != count:
            names = f": {join_words(found.names)}" if found.names else ""
            text = (
                f"order must list all trainable variables, got {count} paths, and the file has {len(variables)}{names}"
            )
            raise ValueError(text)
        for variable, first in zip(variables, next(iter(found.variables.values())), strict=True):
            if variable.shape != first.shape:
                both = f"got {first.shape} and, of {slot.names[-1]}, {variable.shape}"
                raise file_error(saved.path, f"the slots of one variable must have one shape, {both}")
            if variable.dtype.kind not in "fV":
                raise file_error(
                    saved.path, f"a {slot.names[-1]} must be of floating-point numbers, got {variable.dtype}"
                )
    return found


def _slots_of(optimizer: UpdateRule, path: str) -> list[Slot]:
    """Return the slots of an optimizer in the order in which Keras creates them."""
    if type(optimizer) is SGD:
        return [_MOMENTUM] if optimizer.momentum > 0 else []
    if type(optimizer) is LARS:  # whose classic form keeps the steps uphill
        return [_MOMENTUM._replace(sign=-1 if optimizer.classic_momentum else 1)]
    if type(optimizer) in (Adam, AdamW):
        return [_FIRST, _SECOND, *([_LARGEST] if getattr(optimizer, "amsgrad", False) else [])]
    if type(optimizer) is RMSprop:
        momentum = [_MOMENTUM._replace(names=("momentum",), sign=-1)] if optimizer.momentum > 0 else []
        return [_SQUARE, *momentum, *([_MEAN] if optimizer.centered else [])]
    if type(optimizer) is Adagrad:
        return [_SUM]
    text = f"the state of {type(optimizer).__name__} cannot be read, accepted: {join_words(_ACCEPTED)}"
    raise ConfigError(path, [Problem("", text)])


# ---------------------------------------------------------------------------------------------------------
# By name


def _of_older(parts: Sequence[str], known: Collection[str]) -> tuple[str, str] | None:
    """Split ``Adam/dense/kernel/m``, or ``training/Adam/dense/kernel/m`` of TensorFlow 1."""
    return (parts[-1], "/".join(parts[:-1])) if parts[-1] in known else None


def _of_newer(parts: Sequence[str], known: Collection[str]) -> tuple[str, str] | None:
    """Split ``Adam/m/dense/kernel``, or ``m/dense/kernel``."""
    place = next((place for place in (1, 0) if len(parts) > place + 1 and parts[place] in known), None)
    return None if place is None else (parts[place], "/".join(parts[place + 1 :]))


def _of_keras_3(parts: Sequence[str], known: Collection[str]) -> tuple[str, str] | None:
    """Split ``adam/sequential_dense_kernel_momentum``."""
    name = next((name for name in known if parts[-1].endswith(f"_{name}")), None)
    return None if name is None else (name, parts[-1][: -len(name) - 1])


def _by_name(saved: SavedOptimizer, optimizer: UpdateRule, slots: Sequence[Slot]) -> Slots | None:
    """Find slots by the names of the variables; None if these say too little, as in Keras before 2.4."""
    known = {name: slot for slot in slots for name in slot.names}
    if type(optimizer) is SGD and optimizer.momentum == 0:
        known |= dict.fromkeys(_MOMENTUM.names, _UNUSED)
    found: dict[Slot, list[SavedVariable]] = {}
    for split in (_of_older, _of_newer, _of_keras_3):
        scalars: dict[str, SavedVariable] = {}
        found, names = {slot: [] for slot in (*slots, _UNUSED)}, {slot: list[str]() for slot in (*slots, _UNUSED)}
        for variable in saved.variables:
            parts = (variable.name or "").removesuffix(":0").split("/")
            parsed = split(parts, known)
            if parts[-1] in _ITERATIONS | _RATES and variable.shape == ():
                scalars["iterations" if parts[-1] in _ITERATIONS else "rate"] = variable
            elif parsed is None:
                break
            else:
                found[known[parsed[0]]].append(variable)
                names[known[parsed[0]]].append(parsed[1])
        else:
            order = names[slots[0]] if slots else []
            if any(names[slot] != order for slot in slots):
                raise file_error(
                    saved.path, "must list the variables of every slot in one order, which they are not in"
                )
            found.pop(_UNUSED)
            return Slots(scalars.get("iterations"), scalars.get("rate"), found, order)
    return None


_UNUSED = Slot((), (), "")  # that of an SGD without momentum, which newer tf_keras keeps all the same

# ---------------------------------------------------------------------------------------------------------
# By position


def _by_position(saved: SavedOptimizer, optimizer: UpdateRule, slots: Sequence[Slot], count: int) -> Slots:
    """Find slots by the order in which Keras creates them."""
    name = type(optimizer).__name__
    has_names = any(variable.name is not None for variable in saved.variables)
    for variable in saved.variables if has_names else ():
        if not _OF_KERAS_2.fullmatch(variable.name or ""):
            text = f"has a variable {variable.name!r}, which is none that Keras keeps for the {name} of its config"
            raise file_error(saved.path, text)
    variables = saved.variables[: len(saved.variables) - _unused(saved.variables, optimizer, slots, count)]
    scalars = len(variables) - len(slots) * count
    least = 0 if has_names and type(optimizer) in (RMSprop, Adagrad) else 1  # whose iterations Keras 2.2 leaves out
    if not least <= scalars <= 2:
        raise ValueError(
            f"order must list all trainable variables: for {count} of them Keras's {name} keeps {len(slots) * count} "
            f"variables besides 1 or 2 numbers, and the file has {len(saved.variables)}"
        )
    numbers, rest = variables[:scalars], iter(variables[scalars:])
    kinds = [variable.dtype.kind in kinds for variable, kinds in zip(numbers, ("iu", "fV"), strict=False)]
    if not all(kinds) or any(variable.shape != () for variable in numbers):
        text = "must begin with the iterations, an integer, and perhaps the learning rate: order may lack variables"
        raise file_error(saved.path, f"the optimizer's variables {text}")
    found: dict[Slot, list[SavedVariable]] = {slot: [] for slot in slots}
    for block in _blocks(slots, is_old=has_names):
        for _, slot in itertools.product(range(count), block):
            found[slot].append(next(rest))
    iterations, learning_rate = (*numbers, None, None)[:2]
    return Slots(iterations, learning_rate, found)


_OF_KERAS_2 = re.compile(
    r"(training(_\d+)?/)?\w+/[a-zA-Z]+(_\d+)?:0"
)  # "training/Adam/Variable_3:0", which says nothing


def _unused(variables: Sequence[SavedVariable], optimizer: UpdateRule, slots: Sequence[Slot], count: int) -> int:
    """Return how many variables at the end stand for what the optimizer does not use."""
    rest = variables[1 + len(slots) * count :]
    if type(optimizer) is Adam and not optimizer.amsgrad and len(rest) == count:
        return count if all(variable.shape == (1,) for variable in rest) else 0  # the largest moments of Keras 2
    if type(optimizer) is SGD and optimizer.momentum == 0 and len(rest) >= count:
        return count if len(rest) > 1 or rest[0].shape != () else 0  # a momentum that is 0; one number may be the rate
    return 0


def _blocks(slots: Sequence[Slot], *, is_old: bool) -> list[list[Slot]]:
    """Return slots in the order in which they are created; those of a block are created together for each variable."""
    if is_old or _FIRST not in slots:
        return [[slot] for slot in slots]
    return [[_FIRST, _SECOND] if slot == _FIRST else [slot] for slot in slots if slot != _SECOND]
