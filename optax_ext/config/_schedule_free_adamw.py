"""Schedule-free AdamW as data."""

import dataclasses
from typing import ClassVar

from optax_ext import transforms
from optax_ext._core.field_types import FractionBelowOne, NonNegativeSteps, PositiveFraction, PositiveNumber
from optax_ext._core.lazy import jax, jnp, np, optax
from optax_ext._core.relative import resolved
from optax_ext._core.steps import exact_step
from optax_ext.config._decaying import DecayingOptimizer, decay_of_a_step
from optax_ext.config._stage import Stage
from optax_ext.schedules import Milestone


@dataclasses.dataclass(frozen=True)
class ScheduleFreeAdamW(DecayingOptimizer):
    """Schedule-free AdamW as Keras computes it: an average of parameters takes the place of momentum and schedule.

    ```text
    v = beta_2 * v + (1 - beta_2) * g**2
    z = z - learning_rate * g / (sqrt(v / (1 - beta_2**t)) + epsilon)
    x = x + (z - x) / t
    p = (1 - beta_1) * z + beta_1 * x
    ```

    ``z`` and ``x`` begin at the parameters. During the first ``warmup_steps`` the learning rate of the second line is
    multiplied by ``t / warmup_steps``. Weight decay precedes each step, by the learning rate without warm-up:
    ``p = p - learning_rate * weight_decay_rate * p``, which ``z`` does not see and the average does.

    **Evaluate the average** ``x``, not the parameters ``p`` that are trained:
    [`schedule_free_eval_params`][optax_ext.transforms.schedule_free_eval_params] returns it.

    Args:
      learning_rate: At least 0, or a schedule.
      beta_1: The weight of the average in the parameters, above 0 and at most 1.
      beta_2: The decay of the second moment, in [0, 1).
      epsilon: Positive; added to the root of the corrected second moment.
      warmup_steps: Over how many steps the learning rate rises to its full size, at least 0.
      weight_decay_rate: At least 0, or a schedule.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      weight_decay_times_learning_rate: Whether ``weight_decay_rate`` is multiplied by the learning rate, as in Keras;
        if not, ``p = p - weight_decay_rate * p``, as in tensorflow_addons.
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. ``clipnorm`` is
        then of each layer.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.
      learning_rate_multipliers: Factors of the learning rate of parameters, by regular expressions on their paths, as
        in ``{"^head/": 10.0}``; each at least 0, and 0 for parameters that do not move. None for none.
      layer_decay: Factors of the learning rate that fall from the last layer to the first, a
        [`LayerDecay`][optax_ext.config.LayerDecay]; None for none.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import config, transforms
      >>> tx = config.ScheduleFreeAdamW(0.1, warmup_steps=2).make()
      >>> params = jnp.float32(1.0)
      >>> state = tx.init(params)
      >>> for _ in range(4):
      ...     updates, state = tx.update(2 * params, state, params)  # the gradient of the square
      ...     params = optax.apply_updates(params, updates)
      >>> average = transforms.schedule_free_eval_params(state, params)
      >>> print(f"trained {params:.3f}, evaluate {average:.3f}")
      trained 0.793, evaluate 0.807

    References:
      Defazio et al., [arXiv:2405.15682](https://arxiv.org/abs/2405.15682).

    Differs from Keras:
      Keras returns these numbers on JAX. On TensorFlow and PyTorch it reads ``z`` after it has changed it, and
      ``beta_1`` then has no effect: the parameters are the average itself, as here with ``beta_1=1``. Moments, ``z``
      and the arithmetic of averages are in at least float32.

    Differs from Optax:
      ``optax.contrib.schedule_free_adamw`` weighs each ``z`` by the square of the largest learning rate so far, and
      lets ``z`` decay.
    """

    type = "schedule_free_adamw"
    beta_1: PositiveFraction = 0.9
    beta_2: FractionBelowOne = 0.999
    epsilon: PositiveNumber = 1e-8
    warmup_steps: NonNegativeSteps = 0

    _reads_params: ClassVar[bool] = True

    def learning_rate_at(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        """Return the rate that a step takes: that of the number or the schedule, times that of the warm-up."""
        rate = super().learning_rate_at(step)
        if self.warmup_steps == 0:
            return rate
        return rate * jnp.minimum((exact_step(step).astype("float32") + 1) / resolved(self.warmup_steps), 1)

    def has_constant_rate(self) -> bool:
        """Return whether every step takes the same rate, without a warm-up too."""
        return self.warmup_steps == 0 and super().has_constant_rate()

    def milestones(self) -> tuple[Milestone, ...]:
        """Return those of every optimizer, and the first step after warm-up."""
        found = super().milestones()
        if self.warmup_steps == 0:
            return found
        warm = Milestone(resolved(self.warmup_steps), "end of warmup_steps")
        return tuple(sorted([*found, warm], key=lambda milestone: milestone.step))

    def _stages(self) -> list[Stage]:
        mean_square = (
            f"divide by the root of the corrected running mean square, decay {self.beta_2:.10g}, "
            f"epsilon {self.epsilon:.10g} outside the root"
        )
        decay = float(np.float32(self.beta_2))  # as Keras rounds it before it subtracts it from 1
        scale = transforms.scale_by_rms(decay, self.epsilon, eps_in_sqrt=False, centered=False, bias_correction=True)
        rate = self._learning_rate_in_words()
        rate += f", rising over {self.warmup_steps} steps" if self.warmup_steps != 0 else ""
        average = (
            "move a sequence by this, average it with equal weights, and set the parameters to "
            f"{self.beta_1:.10g} x the average + {1 - self.beta_1:.10g} x the sequence"
        )
        return [
            Stage("mean square", mean_square, scale),
            Stage("learning rate", rate, transforms.scale_by_learning_rate(self._rate())),
            Stage("average", average, transforms.schedule_free(self.beta_1)),
        ]

    def _decay_of_a_step(self) -> "optax.ScalarOrSchedule":
        """Return which part of a parameter decays in a step, by the rate without warm-up."""
        rate = self._rate_without_warmup()
        return decay_of_a_step(rate, self.weight_decay_rate, self.weight_decay_times_learning_rate)

    def _rate_without_warmup(self) -> "optax.ScalarOrSchedule":
        return self._number() if super().has_constant_rate() else super().learning_rate_at
