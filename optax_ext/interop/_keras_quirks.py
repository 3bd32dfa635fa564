"""How TensorFlow reads arguments of optimizers that mean something else than they say.

`QUIRKS` is an ordered table. `build_optimizer` goes through it from the first row to the last, applies each row that
applies to the arguments, and then constructs the schema. Recipes of Model Garden come here under Keras's names, so that
each quirk is told once.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import shorten
from optax_ext.config import AdamW, LossScale, OptimizationConfig, Optimizer, ParamsEma, UpdateRule
from optax_ext.interop._betas import rounding_is_seen
from optax_ext.interop._keras_classes import Package, optimizer_class
from optax_ext.interop._patterns import PATTERN_FIELDS, read_patterns
from optax_ext.interop._report import Report, is_number, join

_BACKEND_EPSILON = 1e-7
_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")  # newer optimizers apply the first of these that is positive


@dataclasses.dataclass
class Arguments:
    """The arguments of an optimizer as they were written.

    Args:
      class_name: Keras's name of the class.
      package: Whose class it is.
      values: The arguments under Keras's names, the learning rate as ours.
      path: Where they were written.
      report: What collects problems and notes.
      newer: Whether the class is of Keras's newer generation.
      in_recipe: Whether a recipe of Model Garden has them, rather than a config of Keras.
      translate_patterns: Whether patterns are translated to match JAX parameter paths.
    """

    class_name: str
    package: Package
    values: dict[str, Any]
    path: str
    report: Report
    _: dataclasses.KW_ONLY
    newer: bool = False
    in_recipe: bool = False
    translate_patterns: bool = True
    written: Mapping[str, Any] = dataclasses.field(init=False)  # the values before any quirk
    arithmetic: dict[str, Any] = dataclasses.field(init=False)  # fields of ours that are no argument of the class

    def __post_init__(self) -> None:
        self.written, self.arithmetic = dict(self.values), {}

    def note(self, field: str, text: str, *, surprising: bool = False) -> None:
        """Say something about one argument."""
        self.report.note(join(self.path, field), text, surprising=surprising)

    def number(self, field: str) -> float | None:
        """Return an argument if it is a number."""
        value = self.values.get(field)
        return value if is_number(value) else None


class Quirk(NamedTuple):
    """What TensorFlow does, to which arguments, and the change to them that makes ours do the same."""

    text: str
    applies: Callable[[Arguments], bool]
    apply: Callable[[Arguments], None]


def build_optimizer(arguments: Arguments) -> Optimizer | None:
    """Construct the schema of an optimizer from its arguments in Keras's names.

    Args:
      arguments: What was written; every name must be one of the class.

    Returns:
      The optimizer, or None if the report has a new problem.
    """
    for quirk in QUIRKS:
        if quirk.applies(arguments):
            quirk.apply(arguments)
    known = optimizer_class(arguments.class_name, arguments.package, newer=arguments.newer)
    known = known._replace(defaults={**known.defaults, **arguments.arithmetic})
    return known.build(arguments.values, arguments.path, arguments.report)


def build_recipe(
    optimizer: UpdateRule,
    loss_scale: LossScale | None,
    ema: ParamsEma | None,
    path: str,
    report: Report,
    *,
    accumulate_steps: int = 1,
) -> OptimizationConfig:
    """Put an optimizer that was written at `path` into a whole recipe.

    Args:
      optimizer: The optimizer.
      loss_scale: What wraps it, or None.
      ema: The moving average of its parameters, or None.
      path: Where the optimizer was written.
      report: What collects notes.
      accumulate_steps: How many steps of gradients an update is made of.

    Returns:
      The recipe. AdamW's own clipping also applies inside loss scaling, which is noted: TensorFlow's does not.
    """
    if loss_scale is not None and isinstance(optimizer, AdamW) and optimizer.gradient_clip_norm > 0:
        text = "also applies inside loss scaling, where TensorFlow skips it by mistake; 0 gives TensorFlow's numbers"
        report.note(join(path, "gradient_clip_norm"), text, surprising=True)
    return OptimizationConfig(optimizer, loss_scale=loss_scale, ema=ema, accumulate_steps=accumulate_steps)


# ---------------------------------------------------------------------------------------------------------
# The quirks, in the order of the table


def _ignore_negative_norms(arguments: Arguments) -> None:
    for field in ("clipnorm", "global_clipnorm", "gradient_clip_norm"):
        norm = arguments.number(field)
        if norm is not None and norm < 0:
            arguments.note(field, f"{shorten(norm)} means no clipping")
            arguments.values[field] = 0.0 if field == "gradient_clip_norm" else None


def _clip_once(arguments: Arguments) -> None:
    values = arguments.values
    for field in _CLIPS:
        limit = arguments.number(field)
        if limit is not None and limit <= 0:
            arguments.note(field, f"{shorten(limit)} means no clipping")
            values[field] = None
    norm = next((field for field in _CLIPS[:2] if values.get(field) is not None), None)
    if norm and values.get("clipvalue") is not None:  # two norms are for the schema to refuse
        text = f"is ignored because {norm} is set, as in TensorFlow's newer optimizers"
        arguments.note("clipvalue", text, surprising=True)
        values["clipvalue"] = None


def _use_the_epsilon_of_the_backend(arguments: Arguments) -> None:
    epsilon = arguments.values["epsilon"]
    if epsilon is None or arguments.number("epsilon") == 0:
        arguments.note("epsilon", f"{shorten(epsilon)} means {_BACKEND_EPSILON}, as in TensorFlow")
        arguments.values["epsilon"] = _BACKEND_EPSILON


def _note_that_adamw_clips(arguments: Arguments) -> None:
    if arguments.number("gradient_clip_norm") == 1:
        arguments.note("gradient_clip_norm", "is 1.0, the default of adamw: gradients are clipped")


def _drop_no_weight_decay(arguments: Arguments) -> None:
    for field in ("weight_decay", "adam_weight_decay"):
        if arguments.values.get(field, 0) is None:
            arguments.values[field] = 0.0


def _require_weight_decay(arguments: Arguments) -> None:
    if "weight_decay" not in arguments.values:
        arguments.report.problem(join(arguments.path, "weight_decay"), "is required")


def _update_rows_without_gradients(arguments: Arguments) -> None:
    text = "is read as Adam, which updates every row of an embedding, also those that have no gradient"
    arguments.note("", text, surprising=True)


def _average_as_with_jax(arguments: Arguments) -> None:
    text = "is read as Keras computes it with JAX; with TensorFlow, Keras 3.15 computes what beta_1 = 1 gives"
    arguments.note("", text, surprising=True)


def _round_after_subtraction(arguments: Arguments) -> None:
    if rounding_is_seen(arguments.values.get("beta_1", 0.9), arguments.values.get("beta_2", 0.999)):
        text = "is subtracted from 1 before it is rounded to float32, as in Keras's newer Adam: round_betas is false"
        arguments.note("beta_2", text)
        arguments.arithmetic["round_betas"] = False


def _read_empty_lists_as_none(arguments: Arguments) -> None:
    # In a config of Keras the other lists stay as they are, since `to_keras` and back must not change a config.
    fields = PATTERN_FIELDS if arguments.in_recipe else {"exclude_from_layer_adaptation"}
    for field in fields & arguments.values.keys():
        if arguments.values[field] == []:
            arguments.values[field] = None


def _drop_null_exclusions(arguments: Arguments) -> None:
    if arguments.values.get("exclude_from_weight_decay", ()) is None:
        del arguments.values["exclude_from_weight_decay"]


def _read_patterns(arguments: Arguments) -> None:
    for field, value in arguments.values.items():
        if field in PATTERN_FIELDS:
            place = join(arguments.path, field)
            translate = arguments.translate_patterns
            arguments.values[field] = read_patterns(value, place, arguments.report, translate=translate)


def _read_inclusions_without_exclusions(arguments: Arguments) -> None:
    field = "include_in_weight_decay"
    if arguments.values.get(field) is None or arguments.values.get("exclude_from_weight_decay"):
        return
    if isinstance(arguments.written[field], str):  # whose letters are surely not meant as patterns
        text = "no other parameter decays: '.*' is added to exclude_from_weight_decay; in TensorFlow all of them decay"
        arguments.values["exclude_from_weight_decay"] = [".*"]
    else:
        text = "has no effect, as in TensorFlow: all parameters decay, because exclude_from_weight_decay is empty"
    arguments.note(field, text, surprising=True)


QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        "ScheduleFreeAdamW computes something else with TensorFlow than with JAX.",
        lambda arguments: arguments.class_name == "ScheduleFreeAdamW",
        _average_as_with_jax,
    ),
    Quirk(
        "AdamW and SGDW of tensorflow_addons have no default of weight_decay.",
        lambda arguments: arguments.package == "tensorflow_addons" and arguments.class_name in ("AdamW", "SGDW"),
        _require_weight_decay,
    ),
    Quirk(
        "LazyAdam leaves rows of embeddings alone that have no gradient.",
        lambda arguments: arguments.class_name == "LazyAdam",
        _update_rows_without_gradients,
    ),
    Quirk(
        "In a recipe of Model Garden, a negative norm turns off the clipping of an older optimizer.",
        lambda arguments: arguments.in_recipe and not arguments.newer,
        _ignore_negative_norms,
    ),
    Quirk(
        "Newer optimizers clip once: by the first positive norm, or else by value.",
        lambda arguments: arguments.newer,
        _clip_once,
    ),
    Quirk(
        "Newer optimizers do not decay parameters by a weight_decay of None.",
        lambda arguments: arguments.newer,
        _drop_no_weight_decay,
    ),
    Quirk(
        "Older optimizers replace an epsilon of 0 or None by the backend's, 1e-7; newer ones do not.",
        lambda arguments: not arguments.newer and "epsilon" in arguments.values,
        _use_the_epsilon_of_the_backend,
    ),
    Quirk(
        "Model Garden's adamw clips gradients by default.",
        lambda arguments: arguments.in_recipe and arguments.class_name == "AdamWeightDecay",
        _note_that_adamw_clips,
    ),
    Quirk(
        "An empty list of patterns is the same as None.",
        lambda arguments: True,
        _read_empty_lists_as_none,
    ),
    Quirk(
        "LARS, LAMB and SGDW read an exclude_from_weight_decay of None as an empty list.",
        lambda arguments: arguments.class_name in ("LARS", "LAMB", "SGDW"),
        _drop_null_exclusions,
    ),
    Quirk(
        "Patterns are searched in the names of TensorFlow's variables, and a text is a list of its letters.",
        lambda arguments: True,
        _read_patterns,
    ),
    Quirk(
        "include_in_weight_decay only overrides exclude_from_weight_decay; alone it has no effect.",
        lambda arguments: arguments.in_recipe and arguments.class_name == "AdamWeightDecay",
        _read_inclusions_without_exclusions,
    ),
    Quirk(
        "Newer Adam and AdamW subtract betas from 1 before they round them.",
        lambda arguments: arguments.newer and arguments.class_name in ("Adam", "AdamW"),
        _round_after_subtraction,
    ),
)
