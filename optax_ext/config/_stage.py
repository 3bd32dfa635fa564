"""The stages of a recipe: what it does, in words and as a transformation, said once for both."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from optax_ext._core.public import public

if TYPE_CHECKING:
    import optax
else:
    optax = SimpleNamespace(GradientTransformation=Any)  # reading a recipe need not import Optax


@public
class Stage(NamedTuple):
    """One step on the way from gradients to updates.

    ``make()`` of an [`UpdateRule`][optax_ext.config.UpdateRule] chains the transformations of its ``stages()``.

    Attributes:
      name: What it is called; no two stages of an optimizer have the same name.
      effect: What it does, in words and with the numbers of the recipe; where these make it do nothing, ``"nothing: "``
        and why.
      transformation: What does it; None for a stage that is part of a transformation around the others, as
        unscaling and adapting the loss scale are.

    Examples:
      >>> from optax_ext import config
      >>> for name, effect, _ in config.SGD(0.1, momentum=0.9, clipvalue=1.0).stages():
      ...     print(f"{name}: {effect}")
      clip by value: each number to at most 1 either way
      learning rate: times minus the rate: a constant 0.1
      momentum: add 0.9 x the momentum so far
    """

    name: str
    effect: str
    transformation: optax.GradientTransformation | None

    @property
    def does_nothing(self) -> bool:
        """Whether the recipe makes the stage do nothing, as a ``weight_decay_rate`` of 0 does."""
        return self.effect.startswith("nothing: ")
