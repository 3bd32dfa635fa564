"""What a translation returns: the config, and notes on what reads differently from what was written."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from optax_ext._core.public import public

Writer: TypeAlias = Literal["keras", "transformers", "model_garden", "tensorflow_addons", "training_arguments", "timm"]
ConfigT = TypeVar("ConfigT", covariant=True)


@public
class TranslationWarning(UserWarning):
    """A recipe was read as what it means, but TensorFlow does something else with it, or it may have lost something.

    Examples:
      >>> import warnings
      >>> from optax_ext import interop
      >>> warnings.simplefilter("ignore", interop.TranslationWarning)
    """


@public
class Note(NamedTuple):
    """One thing that a translation changed, or that reads differently from what was written.

    Args:
      path: The place in what was read, with dots between the keys; empty for the whole.
      text: What was changed, or what the place means.
      surprising: Whether the simple importers, such as [`from_keras`][optax_ext.interop.from_keras], warn about it.

    Examples:
      >>> from optax_ext import interop
      >>> note = interop.Note("optimizer.lamb.epsilon", "0 means 1e-07, as in TensorFlow", surprising=False)
      >>> print(note)
      optimizer.lamb.epsilon: 0 means 1e-07, as in TensorFlow
    """

    path: str
    text: str
    surprising: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@public
@dataclasses.dataclass(frozen=True)
class Translation(Generic[ConfigT]):
    """A config of ours with everything that its translation has to say.

    Args:
      config: A schedule, an optimizer or a whole [`OptimizationConfig`][optax_ext.config.OptimizationConfig].
      notes: One [`Note`][optax_ext.interop.Note] for each thing that reads differently from what was written, in the
        order in which they were found.
      written_by: Who wrote it: ``"keras"``, ``"model_garden"``, ``"training_arguments"``, ``"timm"``, or, in the format
        of Keras, ``"transformers"`` or ``"tensorflow_addons"``.

    Examples:
      >>> from optax_ext import interop
      >>> translation = interop.translate({"class_name": "LAMB", "config": {"learning_rate": 0.1, "epsilon": 0}})
      >>> translation.written_by, translation.config.epsilon
      ('keras', 1e-07)
      >>> print(translation.notes[0])
      config.epsilon: 0 means 1e-07, as in TensorFlow
    """

    config: ConfigT
    notes: tuple[Note, ...]
    written_by: Writer


def warn_about(notes: Sequence[Note], stacklevel: int) -> None:
    """Warn about every surprising note, at the caller `stacklevel` frames up."""
    for note in notes:
        if note.surprising:
            warnings.warn(str(note), TranslationWarning, stacklevel=stacklevel + 1)
