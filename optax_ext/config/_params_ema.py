"""The moving average of parameters as data."""

import dataclasses
from typing import Literal

import pydantic

from optax_ext import transforms
from optax_ext._core.field_types import NonNegativeSteps
from optax_ext._core.lazy import jax, optax
from optax_ext._core.relative import is_relative, resolved
from optax_ext._core.schema import Schema, problem
from optax_ext.config._stage import Stage
from optax_ext.schedules import FractionOrSchedule, Schedule, evaluate, values_in_words


@dataclasses.dataclass(frozen=True)
class ParamsEma(Schema):
    """A moving average of parameters; ``make`` returns [`optax_ext.params_ema`][].

    Args:
      average_decay: The fraction of the average that a step keeps, in [0, 1], or a schedule that starts there and whose
        values are held there.
      start_step: The first step that is averaged, at least 0; before it, the average is the newest parameters.
      dynamic_decay: Whether the decay increases from 0.1 to ``average_decay``.
      initial: The initial average: ``"zeros"``, as in TensorFlow, or ``"params"``.
      trainable_weights_only: Whether only parameters are to be averaged. False asks the training loop to average
        batch statistics too, with a second ``make()`` over their tree and zero updates. ``make`` is the same for
        both, since an optimizer does not see batch statistics.
      debias: Whether to remove the bias of an average that starts at zeros; without effect on one that starts at the
        parameters.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import config
      >>> ema = config.ParamsEma(average_decay=0.9999, trainable_weights_only=False)
      >>> batch_stats, zero = {"mean": jnp.ones(3)}, {"mean": jnp.zeros(3)}
      >>> tx = ema.make()
      >>> _, state = tx.update(zero, tx.init(batch_stats), batch_stats)

      A decay that rises from 0.996 to 1 by half a cosine, as for the target network of BYOL; in YAML ``average_decay:
      {type: step_cosine_decay, boundaries: [0, 1000], values: [0.996, 1.0]}``.

      >>> rising = {"type": "step_cosine_decay", "boundaries": [0, 1000], "values": [0.996, 1.0]}
      >>> ema = config.from_dict({"average_decay": rising, "dynamic_decay": False}, config.ParamsEma)
      >>> print(ema.stage().effect)
      average the parameters, decay by step_cosine_decay (0.996 at step 0, 1 at step 1000), starting at 0
    """

    average_decay: FractionOrSchedule = 0.99
    start_step: NonNegativeSteps = 0
    dynamic_decay: bool = True
    initial: Literal["zeros", "params"] = "zeros"
    trainable_weights_only: bool = True
    debias: bool = False

    @pydantic.field_validator("average_decay")
    @classmethod
    def _is_in_range(cls, average_decay: float | Schedule) -> float | Schedule:
        if isinstance(average_decay, Schedule) and not is_relative(average_decay):  # the one recipe that waits for JAX
            for step in sorted({0, *(max(step, 0) for step, _ in average_decay.milestones())}):
                value = evaluate(average_decay, step)
                if not isinstance(value, jax.core.Tracer) and not 0 <= value <= 1 + 1e-6:
                    raise problem(f"must be in [0, 1], got a schedule that is {float(value):g} at step {step}")
        return average_decay

    def make(self) -> "optax.GradientTransformationExtraArgs":
        """Return the transformation, for the end of a chain."""
        return transforms.params_ema(
            self.average_decay,
            start_step=resolved(self.start_step),
            dynamic_decay=self.dynamic_decay,
            initial=self.initial,
            debias=self.debias,
        )

    def stage(self) -> Stage:
        """Return the average as the last stage of a recipe."""
        at_first = ", lower at first" if self.dynamic_decay else ""
        start = f", from step {self.start_step} on" if self.start_step != 0 else ""
        first = "the first parameters" if self.initial == "params" else "0, debiased" if self.debias else "0"
        by = "by " if isinstance(self.average_decay, Schedule) else ""
        decay = f"{by}{values_in_words(self.average_decay)}{at_first}"
        effect = f"average the parameters, decay {decay}, starting at {first}{start}"
        return Stage("ema", effect, self.make())
