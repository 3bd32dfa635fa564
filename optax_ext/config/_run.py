"""The run of a recipe, and what durations and rates for a batch are in it."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import Any, TypeVar, cast

import pydantic

from optax_ext._core.durations import Duration
from optax_ext._core.errors import ConfigError, Problem, join_keys, shorten
from optax_ext._core.field_types import INT32_MAX, LargePositiveInteger, PositiveInteger, PositiveNumber, Steps
from optax_ext._core.frozen_mapping import FrozenMapping
from optax_ext._core.public import public
from optax_ext._core.relative import Relative, children, is_relative, relative_values
from optax_ext._core.schema import Schema, as_config_error, construct, explain, plain_numbers, problem
from optax_ext.schedules import RatePerBatch


@dataclasses.dataclass(frozen=True)
class Run(Schema):
    """How much is trained, and in what batches: what durations and rates for a batch are taken of.

    One step is one update of the parameters, from ``batch_size`` examples.

    ```text
    steps_per_epoch = examples / batch_size, unless it is given
    1 epoch         = steps_per_epoch steps
    1 example       = 1 / batch_size steps
    100 %           = steps, or epochs * steps_per_epoch rounded to whole steps
    ```

    Each is exact; a duration is rounded once, to the nearest whole number of steps, a half to the even one, and to at
    least 1 step for any duration of more than 0.

    Args:
      examples: The number of examples in an epoch, at least 1.
      batch_size: The number of examples of an update, of all devices and of all accumulated gradients together.
      epochs: The length of the run in epochs, positive; may be fractional. Not with ``steps``.
      steps: The length of the run in steps, at least 1.
      steps_per_epoch: The number of steps in an epoch, at least 1, where the last batch of an epoch is dropped or not
        full: one of the two whole numbers beside ``examples / batch_size``, if both are given.

    Raises:
      ConfigError: If an argument is out of its range, or contradicts another one.

    Examples:
      >>> from optax_ext import config
      >>> run = config.Run(examples=1_281_167, batch_size=4096, epochs=90)
      >>> run.total_steps(), run.in_steps("5 epochs"), run.in_steps("10%"), run.in_steps("100% - 5 epochs")
      (28151, 1564, 2815, 26587)

      With the last batch of each epoch dropped:

      >>> config.Run(examples=1_281_167, batch_size=4096, epochs=90, steps_per_epoch=312).total_steps()
      28080
    """

    examples: LargePositiveInteger | None = None
    batch_size: PositiveInteger | None = None
    epochs: PositiveNumber | None = None
    steps: PositiveInteger | None = None
    steps_per_epoch: PositiveInteger | None = dataclasses.field(default=None, kw_only=True)

    @pydantic.field_validator("steps")
    @classmethod
    def _one_length(cls, steps: int | None, info: pydantic.ValidationInfo) -> int | None:
        if steps is not None and info.data.get("epochs") is not None:
            raise problem(f"must not be given with epochs, got {steps} with {info.data['epochs']:.10g} epochs")
        return steps

    @pydantic.field_validator("steps_per_epoch")
    @classmethod
    def _whole_batches(cls, steps_per_epoch: int | None, info: pydantic.ValidationInfo) -> int | None:
        examples, batch_size = info.data.get("examples"), info.data.get("batch_size")
        if steps_per_epoch is not None and examples is not None and batch_size is not None:
            full = examples // batch_size
            if steps_per_epoch not in (full, full + (examples % batch_size > 0)):
                batches = f"{full} or {full + 1}, the batches of {batch_size} in {examples} examples"
                raise problem(f"must be {batches}, got {steps_per_epoch}")
        return steps_per_epoch

    @pydantic.model_validator(mode="after")
    def _counts_in_int32(self) -> "Run":
        total = self.total_steps()
        if total is not None and total > INT32_MAX:
            raise problem(
                f"must be a run of at most {INT32_MAX} steps, got {self.epochs!r}, which are {total:.10g}", "epochs"
            )
        return self

    def total_steps(self) -> int | None:
        """Return the length of the run in steps; None if it is not known."""
        total = self._steps_in(Fraction(100), "%")
        return None if total is None else int(total)

    def in_steps(self, duration: int | str) -> int:
        """Return what a duration is in this run, in whole steps.

        Args:
          duration: A number of steps, or one in words such as ``"5 epochs"``, ``"10%"``, ``"300k examples"``,
            ``"500 steps"``, or a sum of such terms: ``"100% - 5 epochs"``.

        Returns:
          The sum of the terms, each rounded by itself.

        Raises:
          ValueError: If it is not a duration, or the run lacks what it is taken of.
        """
        wrong = explain(Steps, plain_numbers(duration))
        if wrong is not None:
            raise ValueError(f"duration {wrong}")
        return self.resolve(Duration(duration)) if isinstance(duration, str) else int(duration)

    def resolve(self, value: Any) -> Any:
        """Return what a value that depends on the run is in this one; any other value as it is.

        Args:
          value: A value of a field.

        Returns:
          A number of steps for a duration, a rate for a [`RatePerBatch`][optax_ext.schedules.RatePerBatch].

        Raises:
          ValueError: If the run lacks what the value is taken of.
        """
        if isinstance(value, Duration):
            missing = {name: None for _, unit in value.terms for name in self._missing(unit)}
            if missing:
                raise ValueError(f"{shorten(str(value))} needs {_listed(missing)} of the run, got {self!r}")
            return value.steps(lambda amount, unit: cast(Fraction, self._steps_in(amount, unit)))
        if isinstance(value, RatePerBatch):
            if self.batch_size is None:
                raise ValueError(f"{value!r} needs batch_size of the run, got {self!r}")
            return value.for_batch(self.batch_size)
        return value

    def _steps_in(self, amount: Fraction, unit: str) -> Fraction | None:
        """Return exactly how many steps so many of a unit are; None if the run lacks what that takes."""
        if unit == "steps":
            return amount
        if unit == "examples":
            return None if self.batch_size is None else amount / self.batch_size
        per_epoch = self._steps_per_epoch()
        if unit == "epochs":
            return None if per_epoch is None else amount * per_epoch
        if self.steps is not None:
            return amount * self.steps / 100
        if self.epochs is None or per_epoch is None:
            return None
        return amount * max(round(Fraction(repr(self.epochs)) * per_epoch), 1) / 100

    def _steps_per_epoch(self) -> Fraction | None:
        if self.steps_per_epoch is not None:
            return Fraction(self.steps_per_epoch)
        return None if self.examples is None or self.batch_size is None else Fraction(self.examples, self.batch_size)

    def _missing(self, unit: str) -> list[str]:
        """Return what a unit needs of the fields, and is not given."""
        if self._steps_in(Fraction(1), unit) is not None:
            return []
        if unit == "%" and self.epochs is None:
            return [_LENGTH]
        wanted = ["batch_size"] if unit == "examples" else ["examples", "batch_size"]
        return [name for name in wanted if getattr(self, name) is None]


_LENGTH = "epochs or steps"


def _listed(missing: Collection[str]) -> str:
    fields = " and ".join(name for name in missing if name != _LENGTH)
    return fields if _LENGTH not in missing else f"{fields}, and {_LENGTH}," if fields else _LENGTH


_Config = TypeVar("_Config", bound=Schema)


@public
def resolve(recipe: _Config, run: Run | Mapping[str, Any] | None = None) -> _Config:
    """Return a recipe with plain steps in place of durations, and plain numbers in place of rates for a batch.

    Args:
      recipe: Any config, or part of one.
      run: The run, or a mapping of its fields; None for the ``run`` of the recipe, an
        [`OptimizationConfig`][optax_ext.config.OptimizationConfig].

    Returns:
      A recipe of the same kind, equal to it if nothing in it depends on the run. An ``OptimizationConfig`` keeps the
      run that it was resolved for.

    Raises:
      ConfigError: If the run, or a part of it, is missing, with every field that needs it; if a resolved value is out
        of its field's range.

    Examples:
      >>> from optax_ext import config
      >>> recipe = config.from_dict({
      ...     "run": {"examples": 1_281_167, "batch_size": 4096, "epochs": 90},
      ...     "optimizer": {
      ...         "type": "sgd",
      ...         "learning_rate": {
      ...             "type": "linear_warmup",
      ...             "warmup_steps": "5 epochs",
      ...             "after": {
      ...                 "type": "cosine_decay",
      ...                 "initial_learning_rate": {"value": 0.1, "per_batch": 256, "rule": "linear"},
      ...                 "decay_steps": "100% - 5 epochs",
      ...                 "offset": "5 epochs",
      ...             },
      ...         },
      ...     },
      ... })
      >>> config.resolve(recipe).optimizer.learning_rate
      LinearWarmup(after=CosineDecay(initial_learning_rate=1.6, decay_steps=26587, offset=1564), warmup_steps=1564)
    """
    given = _as_run(run)
    if not is_relative(recipe):
        return recipe
    subject = type(recipe).__name__
    of_recipe: Run | None = getattr(recipe, "run", None) if given is None else given
    if of_recipe is None:
        raise ConfigError(subject, _without_run(recipe))
    problems: list[Problem] = []
    resolved = _resolve(recipe, of_recipe, (), problems)
    if problems:
        raise ConfigError(subject, problems)
    return resolved


def _as_run(run: Any) -> Run | None:
    if isinstance(run, Mapping):
        try:
            return construct(Run, (), cast(Mapping[str, Any], run))
        except pydantic.ValidationError as error:
            raise as_config_error("run", error) from None
    if run is not None and not isinstance(run, Run):
        raise ConfigError("run", [Problem("", f"must be a config.Run, or a mapping of its fields, got {shorten(run)}")])
    return run


def _without_run(recipe: Schema) -> Iterator[Problem]:
    values = [*relative_values(recipe)]
    for index, (path, value) in enumerate(values, 1):
        hint = (
            "" if index < len(values) else f": give {_hint(recipe)} a run of examples, batch_size and epochs or steps"
        )
        yield Problem(join_keys(path), f"{shorten(value)} depends on the run, and there is none{hint}")


def _hint(recipe: Schema) -> str:
    """Say what takes a run: a part of a recipe has no field for one."""
    if hasattr(recipe, "run"):
        return "the recipe"
    return "make or config.resolve" if hasattr(recipe, "make") else "config.resolve"


def _resolve(value: Any, run: Run, path: tuple[str, ...], problems: list[Problem]) -> Any:
    """Return a value of a config in a run, and add to the problems what cannot be resolved."""
    if isinstance(value, Relative):
        try:
            return run.resolve(value)
        except ValueError as error:
            problems.append(Problem(join_keys(path), str(error)))
            return value
    if not is_relative(value):
        return value
    before = len(problems)
    items = {key: _resolve(item, run, (*path, key), problems) for key, item in children(value)}
    if isinstance(value, tuple):
        return tuple(items.values())
    if isinstance(value, FrozenMapping):
        return FrozenMapping(items)
    if len(problems) > before:
        return value
    try:
        return construct(type(value), (), {**items, "run": run} if "run" in items else items)
    except pydantic.ValidationError as error:
        for below, message in as_config_error("", error).problems:
            problems.append(Problem(join_keys([*path, below] if below else path), f"{message}, in this run"))
        return value
