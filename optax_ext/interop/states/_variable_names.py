"""Whether the names of Keras's variables contradict the order in which parameters are given."""

import re
from collections.abc import Sequence


def check_names(order: Sequence[str], names: Sequence[str]) -> None:
    """Raise ValueError if names say that parameters are in another order.

    Names need not be those of the parameters: ``Dense_0`` is often Keras's ``dense``, or its ``dense_7``. What chance
    does not explain is a circle: names of other parameters, each at the place of another. Nor does it explain two
    places of which each has the kind of parameter that the other's name says, such as a scale where Keras has a beta
    and a bias where it has a gamma.

    Args:
      order: The paths of the parameters.
      names: What Keras called them, ``"dense/kernel"`` or ``"sequential_dense_kernel"``, perhaps below other names;
        empty if that is not known.
    """
    words = [_words(path) for path in order]
    meant: dict[int, int] = {}  # by position, the position of the parameter that has the name there
    for position, name in enumerate(names):
        fits = [other for other, path in enumerate(words) if _ends_alike(path, _words(name))]
        if len(fits) == 1:
            meant[position] = fits[0]
    for position in meant:
        circle = [position]
        while (following := meant.get(circle[-1])) not in (None, *circle):
            circle.append(following)  # pyright: ignore[reportArgumentType] # it is not None
        if len(circle) > 1 and meant.get(circle[-1]) == position:
            right = ", ".join(f"{order[meant[place]]!r} at {place}" for place in sorted(circle))
            raise ValueError(
                f"order must be that of the file: it has {order[position]!r} at {position}, where the file has "
                f"{names[position]!r}; by the names of the file, {right}"
            )
    _check_kinds(order, words, names)


def _check_kinds(order: Sequence[str], words: Sequence[list[str]], names: Sequence[str]) -> None:
    wrong: dict[tuple[str, str], int] = {}  # by the kinds that a path and the name at its place have, the place
    for position, (path, name) in enumerate(zip(words, names, strict=False)):
        kinds = path[-1] if path else "", (_words(name) or [""])[-1]
        if kinds[0] != kinds[1] and set(kinds) <= _KINDS:
            wrong.setdefault(kinds, position)
            if (other := wrong.get((kinds[1], kinds[0]))) is not None:
                both = " and ".join(
                    f"{order[place]!r} where the file has {names[place]!r}" for place in (other, position)
                )
                raise ValueError(f"order must be that of the file: it has {both}")


_KINDS = {"kernel", "bias", "scale", "embed"}
# What Keras and Flax call the same thing, by the word of Flax.
_SAME = {
    r"(batch|layer|group)_?norm(?:alization)?": r"\1norm",
    r"conv[123]d(?=_|/|$)": "conv",
    r"embed(?:dings?)?(?=_|/|$)": "embed",
    r"(?<![a-z])gamma$": "scale",
    r"(?<![a-z])beta$": "bias",
}


def _words(name: str) -> list[str]:
    """Return the words and numbers of a name; without 0, which Flax's first layer of a kind has and Keras's has not."""
    name = name.lower()
    for pattern, word in _SAME.items():
        name = re.sub(pattern, word, name)
    return [word for word in re.split(r"[^a-z0-9]+", name) if word not in ("", "0")]


def _ends_alike(path: list[str], name: list[str]) -> bool:
    """Return whether one is the end of the other, which may have the names of models and scopes before it."""
    shorter = min(len(path), len(name))
    return shorter > 0 and path[-shorter:] == name[-shorter:]
