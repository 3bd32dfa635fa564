"""TensorFlow's Adam as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import FractionBelowOne, PositiveNumber
from optax_ext._core.lazy import np, optax
from optax_ext.config._optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
    r"""Adam as TensorFlow computes it, with "epsilon hat".

    $$p \leftarrow p - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \cdot \frac{m}{\sqrt{v} + \epsilon}$$

    In ``optax.adam`` epsilon is added to the corrected $\sqrt{v}$, which makes it up to 31 times as large.

    Args:
      learning_rate: $\eta$: at least 0, or a schedule.
      beta_1: The decay of the first moment, in [0, 1).
      beta_2: The decay of the second moment, in [0, 1).
      epsilon: More than 0.
      amsgrad: Whether the largest $v$ so far takes the place of $v$.
      clipnorm: Largest norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Largest magnitude of each number of a gradient, at least 0; None for no limit.
      global_clipnorm: Largest norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> adam = config.Adam(1e-3, epsilon=1e-8)
      >>> config.to_dict(adam, exclude_defaults=True)
      {'type': 'adam', 'learning_rate': 0.001, 'epsilon': 1e-08}
      >>> tx = adam.make()

    References:
      Kingma and Ba, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), end of section 2.
      Reddi et al., AMSGrad, [arXiv:1904.09237](https://arxiv.org/abs/1904.09237), algorithm 2.

    Differs from TensorFlow:
      Moments are in at least float32, whatever the dtype of the parameters. An epsilon of 0, which TensorFlow silently
      takes for 1e-7, is an error.
    """

    type = "adam"
    beta_1: FractionBelowOne = 0.9
    beta_2: FractionBelowOne = 0.999
    epsilon: PositiveNumber = 1e-7
    amsgrad: bool = False

    def _make_chain(self) -> "optax.GradientTransformation":
        return optax.chain(
            transforms.scale_by_adam(*round_decays(self.beta_1, self.beta_2), self.epsilon, amsgrad=self.amsgrad),
            optax.scale_by_learning_rate(self._rate()),
        )


def round_decays(beta_1: float, beta_2: float) -> tuple[float, float]:
    """Return decays in float32: TensorFlow subtracts those from 1, and 1 - float32(0.999) is off by 1.3e-5."""
    return float(np.float32(beta_1)), float(np.float32(beta_2))
