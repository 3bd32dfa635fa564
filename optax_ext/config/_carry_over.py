"""A state of one recipe made into a state of another, for a run that goes on by a changed recipe."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from optax_ext import transforms
from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext._core.field_types import NonNegativeInteger
from optax_ext._core.lazy import jax, jnp, np, optax
from optax_ext._core.opt_states import counts_for_schedules
from optax_ext._core.public import public
from optax_ext._core.schema import explain, plain_numbers
from optax_ext.config._meanings import meanings_of
from optax_ext.config._recipe import OptimizationConfig
from optax_ext.config._run import resolve
from optax_ext.config._state_entries import Entry, Owner, entries_of, is_known
from optax_ext.config._update_rule import UpdateRule
from optax_ext.schedules import Schedule


@public
def carry_over(
    state: "optax.OptState",
    old: UpdateRule | OptimizationConfig,
    new: UpdateRule | OptimizationConfig,
    params: "optax.Params",
    *,
    step: int | None = None,
    discard: Sequence[str] = (),
    hyperparameters: Sequence[str] = (),
) -> "optax.OptState":
    """Return a state of a new recipe with what a state of the old one holds, for a run whose recipe changes.

    Where both recipes have states of one structure, as after most changes, a state of the old recipe *is* one of the
    new, and this is only needed for ``step``. Otherwise every value is carried over to where the new recipe keeps the
    same of the same parameter, in whatever wrappers and groups: momentum, moments, averages, master weights,
    accumulated gradients, the loss scale and its counters. What only the new recipe keeps starts as ``init`` starts it:

    - The count of a schedule that is new is the number of updates so far, which other counts tell.
    - A count that corrects the bias of moments starts with them, at 0.
    - An average of parameters that is new begins with its ``start_step``, or with the next update if that is 0.

    Args:
      state: A state of the old recipe, on the host or on devices.
      old: The recipe that made it.
      new: The recipe to go on with.
      params: The parameters as they are now.
      step: The step from which the schedules of the new recipe go on, such as an earlier one to rewind them; None to go
        on from the step of the state. Counts that correct the bias of moments or averages stay those of the state.
      discard: The fields of the old state that are not carried over, in Optax's words, such as ``["trace"]`` for
        momentum, ``["mu", "nu"]`` for Adam's moments, or ``["ema"]``.
      hyperparameters: What ``make`` is given for both recipes, the fields whose numbers are in the state. They take the
        numbers of the new recipe, whatever the old state has.

    Returns:
      A state with the structure, shapes and dtypes that ``new.make().init(params)`` returns. Values that are carried
      over are the arrays of ``state``, not copies of them.

    Raises:
      ValueError: If ``state`` is not one of the old recipe; if anything would be lost that ``discard`` does not name;
        if the momentum or the moments of both recipes mean different things; if a schedule needs the number of
        updates, and no count, or counts that differ, tell it; if a schedule of an optimizer of Optax goes by a count
        that has another meaning as well, and that is new or that ``step`` would set.

    Examples:
      A constant rate counts no steps; here the run goes on with a decay from step 100 on.

      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> from optax_ext import config
      >>> old = config.SGD(0.5, momentum=0.9)
      >>> new = config.SGD(optax_ext.PolynomialDecay(0.5, 50, 0.0, offset=100), momentum=0.9)
      >>> params = {"kernel": jnp.ones(2)}
      >>> updates, state = old.make().update(params, old.make().init(params), params)
      >>> state = config.carry_over(state, old, new, params, step=100)
      >>> print(optax.tree.get(state, "count"), optax.tree.get(state, "trace"))
      100 {'kernel': Array([-0.5, -0.5], dtype=float32)}
    """
    old, new = _as_recipe("old", old), _as_recipe("new", new)
    _check_step(step)
    _check_counts(old, new, step)
    _check_state(state, old.make(hyperparameters=hyperparameters), params)
    entries = entries_of(state, params)
    _check_discard(discard, entries)
    made = new.make(hyperparameters=hyperparameters).init(params)
    source = _Source([entry for entry in entries if entry.field not in (*discard, *_OF_RECIPES)], old, new)
    wanted = entries_of(made, params)
    matches = [None if entry.is_scalar else source.of_parameter(entry) for entry in wanted]
    _check_lost(entries, source, discard)
    filled = _fill(wanted, matches, source, new, step)
    return jax.tree.unflatten(jax.tree.structure(made), filled)


def _check_counts(old: OptimizationConfig, new: OptimizationConfig, step: int | None) -> None:
    """Raise ValueError for schedules that go by a count of something else, which starts with that, or stays."""
    why = new.optimizer.why_no_counts()
    if why and (step is not None or not old.optimizer.why_no_counts()):
        hint = "leave `step` out" if old.optimizer.why_no_counts() else "restore the state if its structure is the same"
        raise ValueError(f"new must have schedules whose counts can be set, got {why}: {hint}")


_COUNTS = ("count", "gradient_step")
_OF_RECIPES = ("hyperparams", "ns_coeffs")  # numbers of the recipe in the state, which those of the new recipe replace
_OF_LAST_STEP = ("TrustRatioState.trust_ratio", "TrustRatioState.update_norm")  # nothing that training goes on from


class _Source:
    """What a state holds, and which of it was found a place."""

    def __init__(self, entries: Sequence[Entry], old: OptimizationConfig, new: OptimizationConfig) -> None:
        self.entries = entries
        self.by_parameter: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            self.by_parameter.setdefault((entry.name, entry.path), []).append(entry)
        self.meanings = {kind: (of_old, of_new) for kind, of_old, of_new in meanings_of(old, new)}
        self.used: set[int] = set()
        self.reasons: dict[str, str] = {}

    def of_parameter(self, wanted: Entry) -> Entry | None:
        """Return the value of the same parameter with the same meaning, and of the same shape; None if none is."""
        found = self.by_parameter.get((wanted.name, wanted.path), [])
        of_old, of_new = self.meanings.get(wanted.owner.kind, (frozenset[str](), frozenset[str]()))
        if of_old != of_new:
            self.reasons[wanted.name] = f"it is that of {_listed(of_old)} there, and of {_listed(of_new)} here"
            return None
        if len(found) > 1 or len(of_old) > 1:
            found = [entry for entry in found if entry.owner.place == wanted.owner.place]
        if not found:
            return None
        entry = found[0]
        if jnp.shape(entry.value) != jnp.shape(wanted.value):
            self.reasons[wanted.name] = f"shapes {jnp.shape(entry.value)} there, and {jnp.shape(wanted.value)} here"
            return None
        self.used.add(id(entry))
        return entry

    def scalar(self, wanted: Entry, siblings: Sequence[Owner]) -> Any | None:
        """Return the number of the state in the same place, or of those from which the values beside it come."""
        places = [owner.place for owner in siblings] or [wanted.owner.place]
        found = [entry.value for entry in self.by_parameter.get((wanted.name, ""), []) if entry.owner.place in places]
        if is_known(*found) and len({np.asarray(value).item() for value in found}) > 1:
            numbers = ", ".join(str(np.asarray(value).item()) for value in found)
            raise ValueError(
                f"state must have one {wanted.name} for what becomes one group in the new recipe, got {numbers}: keep "
                "the groups apart"
            )
        return found[0] if found else None

    def steps(self) -> Any | None:
        """Return the number of updates so far, which schedules go by or else any other count; None if none tells."""
        kinds = (
            lambda entry: entry.field == "count" and counts_for_schedules(entry.owner.state),
            lambda entry: entry.field == "gradient_step",
            lambda entry: entry.field == "count",
        )
        for kind in kinds:
            counts = [entry.value for entry in self.entries if entry.is_scalar and kind(entry)]
            if is_known(*counts) and len({int(count) for count in counts}) > 1:
                numbers = ", ".join(str(int(count)) for count in counts)
                raise ValueError(f"state must tell the number of updates so far, got counts of {numbers}: give step=")
            if counts:
                return counts[0]
        return None


def _fill(
    wanted: Sequence[Entry],
    matches: Sequence[Entry | None],
    source: _Source,
    new: OptimizationConfig,
    step: int | None,
) -> list[Any]:
    """Return the leaves of the new state."""
    siblings: dict[Any, list[tuple[str, Entry | None]]] = {}
    for entry, match in zip(wanted, matches, strict=True):
        if not entry.is_scalar and entry.field not in _OF_RECIPES:
            siblings.setdefault(entry.owner.place, []).append((entry.path, match))
    taken: set[int] = set()
    leaves: list[Any] = []
    for entry, match in zip(wanted, matches, strict=True):
        if not entry.is_scalar:
            value = None if match is None else match.value
        else:
            value = _number(entry, siblings.get(entry.owner.place, []), source, new, step)
        leaves.append(entry.value if value is None else _like(entry.value, value, copy=id(value) in taken))
        taken.add(id(value))
    return leaves


def _number(
    wanted: Entry,
    siblings: Sequence[tuple[str, Entry | None]],
    source: _Source,
    new: OptimizationConfig,
    step: int | None,
) -> Any | None:
    """Return a number of the new state; None for that of ``init``."""
    owner = wanted.owner
    owners = list({match.owner.place: match.owner for _, match in siblings if match is not None}.values())
    is_of_schedule = wanted.field in _COUNTS and (wanted.field == "gradient_step" or counts_for_schedules(owner.state))
    if is_of_schedule:
        value = source.scalar(wanted, owners) if step is None else step
        value = source.steps() if value is None else value
        if value is None and wanted.field == "count":
            raise ValueError(
                "state must tell the number of updates so far, at which the schedules of the new recipe go on, and the"
                " old recipe counts none, as with a constant rate: give step="
            )
        return value
    if isinstance(owner.state, transforms.ParamsEmaState) and wanted.field == "count":
        return _count_of_average(new, source, step, source.scalar(wanted, owners) if owners else None)
    if not siblings:
        return source.scalar(wanted, [])
    if not owners:
        return None
    fresh = sorted({path for path, match in siblings if match is None} - {path for path, match in siblings if match})
    if fresh and wanted.field == "count":
        raise ValueError(
            f"state has no {owner.kind} of {join_words(fresh)}, which shares the count of the bias correction with "
            "parameters that have one: give these a group of their own, or discard what there is"
        )
    return source.scalar(wanted, owners)


def _count_of_average(new: OptimizationConfig, source: _Source, step: int | None, carried: Any) -> Any | None:
    """Return the count of an average of parameters, which its ``start_step`` and a schedule of its decay go by."""
    ema = new.ema
    assert ema is not None
    is_scheduled = isinstance(ema.average_decay, Schedule)
    if carried is not None:
        return step if is_scheduled and step is not None else carried
    if ema.start_step == 0 and not is_scheduled:
        return None
    steps = source.steps() if step is None else step
    if steps is None:
        raise ValueError("state must tell the number of updates so far, which start_step of ema goes by: give step=")
    if is_known(steps) and int(ema.start_step) <= int(steps):
        raise ValueError(
            f"start_step of ema must be after step {int(steps)}, at which the average is added, got {ema.start_step}: "
            f"write {int(steps) + 1}" + ("" if is_scheduled else ", or 0 to begin with the next update")
        )
    return steps


def _like(leaf: Any, value: Any, *, copy: bool) -> Any:
    """Return a value in the dtype of a leaf; a number that is new also on its devices."""
    if isinstance(value, int):
        number = jnp.asarray(value, leaf.dtype)
        is_placed = is_known(leaf) and isinstance(leaf, jax.Array) and leaf.committed
        return jax.device_put(number, leaf.sharding) if is_placed else number
    value = jnp.array(value, copy=True) if copy else jnp.asarray(value)  # two leaves with one buffer cannot be donated
    return value if value.dtype == leaf.dtype else value.astype(leaf.dtype)


class _Lost(NamedTuple):
    field: str
    paths: list[str]


def _check_lost(entries: Sequence[Entry], source: _Source, discard: Sequence[str]) -> None:
    lost: dict[str, _Lost] = {}
    for entry in entries:
        is_kept = id(entry) in source.used or entry.field in (*discard, *_OF_RECIPES) or entry.name in _OF_LAST_STEP
        if not (entry.is_scalar or is_kept or _is_empty(entry)):
            lost.setdefault(entry.name, _Lost(entry.field, [])).paths.append(entry.path)
    if lost:
        parts = [
            f"{name} of {join_words(paths)}" + (f" ({source.reasons[name]})" if name in source.reasons else "")
            for name, (_, paths) in lost.items()
        ]
        fields = list(dict.fromkeys(field for field, _ in lost.values()))
        raise ValueError(
            f"state has what has no place in the state of the new recipe: {'; '.join(parts)}. "
            f"If it may go, give discard={fields}"
        )


def _is_empty(entry: Entry) -> bool:
    """Whether a value is of gradients that are accumulated, and none are since the last update."""
    mini_step = getattr(entry.owner.state, "mini_step", None)
    return entry.field == "acc_grads" and is_known(mini_step) and int(np.asarray(mini_step)) == 0


def _check_discard(discard: Sequence[str], entries: Sequence[Entry]) -> None:
    if isinstance(discard, str):
        raise ValueError(f"discard must be a list of fields, got {discard!r}: write [{discard!r}]")
    known = sorted({entry.field for entry in entries if not entry.is_scalar and entry.field not in _OF_RECIPES})
    for field in discard:
        if field not in known:
            has = f"the fields of the old state that are of parameters: {join_words(known)}" if known else "none"
            raise ValueError(f"discard must name {has}, got {field!r}{did_you_mean(field, known)}")


def _check_step(step: Any) -> None:
    wrong = None if step is None else explain(NonNegativeInteger, plain_numbers(step))
    if wrong is not None:
        raise ValueError(f"step {wrong}")


def _check_state(state: Any, old: "optax.GradientTransformation", params: Any) -> None:
    expected = jax.eval_shape(old.init, params)
    is_injected = any(entry.field == "hyperparams" for entry in entries_of(state, params))
    hint = "; for one made with hyperparameters, give the same hyperparameters=[...]" if is_injected else ""
    for difference in _differences(state, expected):
        raise ValueError(f"state must be one of the old recipe for these parameters, {difference}{hint}")


def _differences(found: Any, expected: Any) -> Iterator[str]:
    """Say where two states differ in their structure or shapes."""
    ours, theirs = (
        {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (found, expected)
    )
    for place in dict.fromkeys([*theirs, *ours]):
        if place not in ours:
            yield f"got nothing at {place}, where that has a value of shape {theirs[place]}"
        elif place not in theirs:
            yield f"got a value of shape {ours[place]} at {place}, where that has nothing"
        elif ours[place] != theirs[place]:
            yield f"got shape {ours[place]} at {place}, where that has {theirs[place]}"
    if ours == theirs and jax.tree.structure(found) != jax.tree.structure(expected):
        yield f"got {shorten(jax.tree.structure(found))}, where that is {shorten(jax.tree.structure(expected))}"


def _as_recipe(name: str, recipe: Any) -> OptimizationConfig:
    if isinstance(recipe, UpdateRule):
        recipe = OptimizationConfig(recipe)
    if not isinstance(recipe, OptimizationConfig):
        raise TypeError(f"{name} must be a recipe, an OptimizationConfig or an optimizer of config, got {recipe!r}")
    return resolve(recipe)


def _listed(words: frozenset[str]) -> str:
    return " and ".join(sorted(words)) or "none"
