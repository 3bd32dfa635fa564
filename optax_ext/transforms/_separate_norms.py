"""Weight decay and the trust ratio in one stage, for a ratio that takes the norms of gradient and decay apart."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import optax

from optax_ext._core.arguments import Mask
from optax_ext.transforms._weight_decay import add_decayed_weights


def add_decay_and_scale(
    weight_decay: optax.ScalarOrSchedule,
    weight_decay_mask: Mask,
    scale_by_trust: optax.GradientTransformation,
    trust_ratio_mask: Mask,
) -> optax.GradientTransformation:
    """Add weight decay, and scale the sum by what `scale_by_trust` makes of the gradient and the decay rate.

    Two stages cannot do this: after the first, the norm of the gradient is lost. The state is a pair, of those that the
    two stages have otherwise.
    """
    decay = add_decayed_weights(weight_decay, weight_decay_mask)
    takes_norms = optax.GradientTransformationExtraArgs(scale_by_trust.init, scale_by_trust.update)
    scale = optax.masked(takes_norms, trust_ratio_mask, mask_compatible_extra_args=True)

    def init_fn(params: optax.Params) -> optax.OptState:
        return decay.init(params), scale.init(params)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        decay_state, trust_state = state
        rate = weight_decay(decay_state.inner_state.count) if callable(weight_decay) else weight_decay
        mask = weight_decay_mask(updates) if callable(weight_decay_mask) else weight_decay_mask

        def rate_of(decays: bool, below: Any) -> Any:
            return jax.tree.map(lambda _: rate if decays else 0.0, below)

        decay_rates = jax.tree.map(rate_of, mask, updates)
        decayed, decay_state = decay.update(updates, decay_state, params)
        scaled, trust_state = scale.update(decayed, trust_state, params, gradients=updates, decay_rates=decay_rates)
        return scaled, (decay_state, trust_state)

    return optax.GradientTransformation(init_fn, update_fn)
