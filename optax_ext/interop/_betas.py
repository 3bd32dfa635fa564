"""Where it is seen that Keras's newer Adam subtracts betas from 1 before it rounds them, and the older one after."""

import struct

_SEEN = 8e-6  # of an update; it is 6.4e-6 with the defaults, of which a recipe need not speak


def rounding_is_seen(beta_1: object, beta_2: object) -> bool:
    """Return whether the first update of the two generations differs by more than float32 lets a parameter show.

    Args:
      beta_1: The decay of the first moment, in which an update is linear.
      beta_2: The decay of the second moment, of whose root it is the inverse.
    """
    return _change(beta_1) + _change(beta_2) / 2 > _SEEN


def _change(beta: object) -> float:
    """Return by which part ``1 - beta`` changes where the beta is rounded first."""
    if not isinstance(beta, int | float) or not 0 <= beta < 1:
        return 0.0
    rounded: float = struct.unpack("f", struct.pack("f", beta))[0]
    return abs(beta - rounded) / (1 - beta)
