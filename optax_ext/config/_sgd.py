"""Stochastic gradient descent as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import Fraction
from optax_ext._core.lazy import optax
from optax_ext.config._optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
    r"""Stochastic gradient descent with Keras's momentum: $v \leftarrow m v + \eta g$, $p \leftarrow p - v$.

    The learning rate enters the momentum, so that after a drop of the rate older gradients still move parameters
    at the old one. In ``optax.sgd`` it is the other way round; while the rate is constant the two are the same.

    Args:
      learning_rate: $\eta$: at least 0, or a schedule.
      momentum: $m$, in [0, 1].
      nesterov: Whether to use Nesterov's momentum: $p \leftarrow p - (m v + \eta g)$.
      clipnorm: Largest norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Largest magnitude of each number of a gradient, at least 0; None for no limit.
      global_clipnorm: Largest norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> sgd = config.SGD(learning_rate=0.1, momentum=0.9, global_clipnorm=1.0)
      >>> config.to_dict(sgd, exclude_defaults=True)
      {'type': 'sgd', 'learning_rate': 0.1, 'momentum': 0.9, 'global_clipnorm': 1.0}
      >>> tx = sgd.make()
    """

    type = "sgd"
    momentum: Fraction = 0.0
    nesterov: bool = False

    def _make_chain(self) -> "optax.GradientTransformation":
        scale_by_learning_rate = optax.scale_by_learning_rate(self._rate())
        if self.momentum == 0:
            return scale_by_learning_rate
        return optax.chain(scale_by_learning_rate, transforms.add_momentum(self.momentum, nesterov=self.nesterov))
