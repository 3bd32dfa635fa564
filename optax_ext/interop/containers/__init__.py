"""What Keras saves models in, and model cards: each reader returns the data in which the optimizer stands."""

from optax_ext.interop.containers._container import read_container
from optax_ext.interop.containers._contents import MAX_BYTES, Contents

__all__ = ["MAX_BYTES", "Contents", "read_container"]
