"""The values in an optimizer state by what they are: the state they are in, its field, and the parameter."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from optax_ext._core.lazy import jax, jnp, np
from optax_ext._core.trees import children_of, join_path

# Adam with and without amsgrad keeps the same moments.
_ALIKE = {"ScaleByAmsgradState": "ScaleByAdamState"}


class Owner(NamedTuple):
    """A state, such as that of ``optax.trace``, among those in the state of a whole recipe.

    Attributes:
      labels: The groups of ``optax.partition`` that it is in, outermost first.
      kind: What it is, the name of its class.
      number: How many of its kind come before it in its group.
      state: The state itself.
    """

    labels: tuple[str, ...]
    kind: str
    number: int
    state: Any

    @property
    def place(self) -> tuple[tuple[str, ...], str, int]:
        """What tells it from others, also in the state of another recipe."""
        return self[:3]


class Entry(NamedTuple):
    """A value in a state.

    Attributes:
      owner: The innermost state that it is in.
      field: The field of that state.
      path: The path of the parameter that it is of, as ``path_mask`` writes paths; "" where the field is one value.
      value: An array, or the shape of one.
    """

    owner: Owner
    field: str
    path: str
    value: Any

    @property
    def name(self) -> str:
        """The state and its field, as Optax calls them."""
        return f"{self.owner.kind}.{self.field}"

    @property
    def is_scalar(self) -> bool:
        """Whether it is a number of the state, such as a count or a scale, rather than of a parameter."""
        return self.path == "" and jnp.ndim(self.value) == 0


def entries_of(opt_state: Any, params: Any) -> list[Entry]:
    """Return the values in a state, in the order of `jax.tree.leaves`.

    A named tuple is a state, unless the parameters have such named tuples themselves.
    """
    containers = set(_named_tuples(params))
    numbers: Counter[tuple[tuple[str, ...], str]] = Counter()
    found: list[Entry] = []

    def walk(node: Any, owner: Owner, field: str, keys: tuple[Any, ...]) -> None:
        if _is_named_tuple(node) and type(node) not in containers:
            labels = owner.labels
            if owner.kind == "PartitionState":
                labels = (*labels, *(join_path((key,)) for key in keys))
            kind = _ALIKE.get(type(node).__name__, type(node).__name__)
            owner = Owner(labels, kind, numbers[labels, kind], node)
            numbers[labels, kind] += 1
            for name, child in zip(node._fields, node, strict=True):
                walk(child, owner, name, ())
        elif jax.tree_util.all_leaves([node]):
            found.append(Entry(owner, field, join_path(keys), node))
        else:
            for key, child in children_of(node)[0]:
                walk(child, owner, field, (*keys, *key))

    walk(opt_state, Owner((), "", 0, None), "", ())
    return found


def is_known(*values: Any) -> bool:
    """Whether values can be read: they are neither traced nor shapes."""
    known = (jax.Array, np.ndarray, np.generic, int, float)
    return all(isinstance(value, known) and not isinstance(value, jax.core.Tracer) for value in values)


def _named_tuples(tree: Any) -> Iterator[type]:
    if _is_named_tuple(tree):
        yield type(tree)
    if tree is not None and not jax.tree_util.all_leaves([tree]):
        for _, child in children_of(tree)[0]:
            yield from _named_tuples(child)


def _is_named_tuple(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")
