"""What is imported when it is first used, so that reading a recipe need not wait for JAX, Optax and NumPy.

Modules that a recipe needs before it computes anything import these three from here, and others import them as usual.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["jax", "jnp", "lazy_names", "loaded", "np", "optax"]


class _LazyModule(ModuleType):
    """Stands for a module until an attribute of it is read, and is then replaced by it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and self.__name__ not in sys.modules:
            raise AttributeError(name)  # such as doctest and `inspect.unwrap` look for in whatever they meet
        module = importlib.import_module(self.__name__)
        package = f"{__name__.partition('.')[0]}."
        for user in [user for key, user in sys.modules.copy().items() if key.startswith(package)]:
            for key, value in vars(user).copy().items():
                if value is self:
                    setattr(user, key, module)  # so that the next access there costs what it does anywhere
        return getattr(module, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


if TYPE_CHECKING:
    import jax
    import jax.core  # pyright: ignore[reportUnusedImport] # an attribute of jax
    import jax.numpy as jnp
    import numpy as np
    import optax
else:
    jax, jnp, np, optax = map(_LazyModule, ("jax", "jax.numpy", "numpy", "optax"))


def loaded(module: str, *names: str) -> tuple[type, ...]:
    """Return classes of a module, for `isinstance`: none while it is not imported, when there are no instances."""
    found = (getattr(sys.modules.get(module), name, None) for name in names)
    return tuple(cls for cls in found if cls is not None)


def lazy_names(
    package: str, names: Sequence[str], modules: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package whose names are imported when they are first used.

    Args:
      package: The name of the package.
      names: The public names, its ``__all__``.
      modules: The modules of the package that define them, those that take longest to import last.
    """

    def import_name(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        for module in modules if name in names else ():
            home = importlib.import_module(f"{package}.{module}")
            if name in getattr(home, "__all__", vars(home)):
                return vars(sys.modules[package]).setdefault(name, getattr(home, name))
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def list_names() -> list[str]:
        dunder = (name for name in vars(sys.modules[package]) if name.startswith("__"))
        return sorted({*dunder, *names, *(name for name in modules if not name.startswith("_"))})

    return import_name, list_names
