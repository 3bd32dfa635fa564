"""The moving average of parameters as data."""

import dataclasses
from typing import Literal

from optax_ext import transforms
from optax_ext._core.field_types import Fraction, NonNegativeInteger
from optax_ext._core.lazy import optax
from optax_ext._core.schema import Schema
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class ParamsEma(Schema):
    """A moving average of parameters; ``make`` returns [`optax_ext.params_ema`][].

    Args:
      average_decay: The fraction of the average that a step keeps, in [0, 1].
      start_step: The first step that is averaged, at least 0; before it, the average is the newest parameters.
      dynamic_decay: Whether the decay increases from 0.1 to ``average_decay``.
      initial: The initial average: ``"zeros"``, as in TensorFlow, or ``"params"``.
      trainable_weights_only: Whether only parameters are to be averaged. False asks the training loop to average
        batch statistics too, with a second ``make()`` over their tree and zero updates. ``make`` is the same for
        both, since an optimizer does not see batch statistics.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import config
      >>> ema = config.ParamsEma(average_decay=0.9999, trainable_weights_only=False)
      >>> batch_stats, zero = {"mean": jnp.ones(3)}, {"mean": jnp.zeros(3)}
      >>> tx = ema.make()
      >>> _, state = tx.update(zero, tx.init(batch_stats), batch_stats)
    """

    average_decay: Fraction = 0.99
    start_step: NonNegativeInteger = 0
    dynamic_decay: bool = True
    initial: Literal["zeros", "params"] = "zeros"
    trainable_weights_only: bool = True

    def make(self) -> "optax.GradientTransformationExtraArgs":
        """Return the transformation, for the end of a chain."""
        return transforms.params_ema(
            self.average_decay, start_step=self.start_step, dynamic_decay=self.dynamic_decay, initial=self.initial
        )

    def stage(self) -> Stage:
        """Return the average as the last stage of a recipe."""
        at_first = ", lower at first" if self.dynamic_decay else ""
        start = f", from step {self.start_step} on" if self.start_step > 0 else ""
        first = "0" if self.initial == "zeros" else "the first parameters"
        effect = f"average the parameters, decay {self.average_decay:.10g}{at_first}, starting at {first}{start}"
        return Stage("ema", effect, self.make())
