"""TensorFlow's Adam as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import FractionBelowOne, PositiveNumber
from optax_ext._core.lazy import np
from optax_ext.config._hyperparameters import Hyperparameter, value_of
from optax_ext.config._optimizer import Optimizer
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
    """Adam as TensorFlow computes it, with "epsilon hat".

    ```text
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    p = p - learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)
    ```

    ``optax.adam`` adds epsilon to the corrected ``sqrt(v / (1 - beta_2**t))``. The same epsilon therefore counts more
    here: more than 31 times as much in the first step, ``t = 1``, with the default ``beta_2``. ``epsilon_hat=False``
    adds it as ``optax.adam`` and PyTorch do.

    Args:
      learning_rate: At least 0, or a schedule.
      beta_1: The decay of the first moment, in [0, 1).
      beta_2: The decay of the second moment, in [0, 1).
      epsilon: Positive.
      amsgrad: Whether to use the largest ``v`` so far in place of ``v``.
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
      epsilon_hat: Whether epsilon is added to the uncorrected root, as in TensorFlow, rather than to the corrected one,
        as in PyTorch and Optax.
      round_betas: Whether ``1 - beta`` is that of a beta rounded to float32, as in TensorFlow's older Adam. Keras's
        newer one subtracts first, which makes its first updates larger by 8e-5 for a ``beta_2`` of 0.9999.

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
      replaces with 1e-7, is an error.
    """

    type = "adam"
    beta_1: FractionBelowOne = 0.9
    beta_2: FractionBelowOne = 0.999
    epsilon: PositiveNumber = 1e-7
    amsgrad: bool = False
    epsilon_hat: bool = dataclasses.field(default=True, kw_only=True)
    round_betas: bool = dataclasses.field(default=True, kw_only=True)

    def _hyperparameters(self) -> tuple[str, ...]:
        return (*super()._hyperparameters(), "epsilon", *(("beta_1", "beta_2") if self.round_betas else ()))

    def _stages(self) -> list[Stage]:
        moments = moments_stage(
            self.beta_1,
            self.beta_2,
            self.epsilon,
            amsgrad=self.amsgrad,
            epsilon_hat=self.epsilon_hat,
            round_betas=self.round_betas,
        )
        return [moments, self._learning_rate_stage()]


def moments_stage(
    beta_1: float, beta_2: float, epsilon: float, *, amsgrad: bool, epsilon_hat: bool, round_betas: bool
) -> Stage:
    """Return the scaling of Adam and of those that begin as it does."""
    b1, b2 = round_decays(beta_1, beta_2) if round_betas else (beta_1, beta_2)
    scale = transforms.scale_by_adam(b1, b2, value_of(epsilon), amsgrad=amsgrad, epsilon_hat=epsilon_hat)
    where = "TensorFlow's epsilon hat" if epsilon_hat else "beside the corrected root"
    where += "" if round_betas else ", betas subtracted from 1 before they are rounded"
    return Stage("moments", moments_in_words(beta_1, beta_2, epsilon, where, amsgrad), scale)


def moments_in_words(beta_1: float, beta_2: float, epsilon: float, where: str, amsgrad: bool = False) -> str:
    """Say what the moments do, and where epsilon stands."""
    largest = ", with the largest second moment so far (AMSGrad)" if amsgrad else ""
    decays = f"decays {beta_1:.10g} and {beta_2:.10g}"
    return f"scale by the moments of the gradient, {decays}, epsilon {epsilon:.10g} ({where}){largest}"


def round_decays(beta_1: float, beta_2: float) -> tuple[float, float]:
    """Round decays to float32, as TensorFlow does before it subtracts them from 1: 1 - 0.999 is then off by 1.3e-5."""
    b1, b2 = (
        value_of(beta) if isinstance(beta, Hyperparameter) else float(np.float32(beta)) for beta in (beta_1, beta_2)
    )
    return b1, b2
