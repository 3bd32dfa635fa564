"""What the momentum and the moments of optimizers mean, which states of one type do not tell."""

from collections.abc import Iterator

from optax_ext._core.relative import children
from optax_ext.config._recipe import OptimizationConfig
from optax_ext.config._update_rule import UpdateRule

_ADAM = ("adam", "adamw", "lamb", "muon")  # of all that is in Muon's state, the moments of what is no matrix
_OPTAX_ADAM = ("adam", "adamw", "lamb", "nadam", "nadamw")


def meanings_of(
    old: OptimizationConfig, new: OptimizationConfig
) -> Iterator[tuple[str, frozenset[str], frozenset[str]]]:
    """Return, for each type of state that means different things, what it means in each of two recipes.

    Momentum after the learning rate is in units of updates, and before it in units of gradients: the wrong one would be
    off by the rate. Adamax keeps the largest gradient where Adam keeps the mean square. Parameters trained without a
    schedule are an average with the weight ``b1``, which the state keeps, so that another one would have no effect.
    """
    meanings = {"TraceState": _momentum, "ScaleByAdamState": _moments, "ScheduleFreeState": _average}
    for kind, meaning in meanings.items():
        of_old, of_new = (
            frozenset(word for rule in _rules(recipe.optimizer) if (word := meaning(rule))) for recipe in (old, new)
        )
        if of_old and of_new:  # else one of them has no such state
            yield kind, of_old, of_new


def _rules(value: object) -> list[UpdateRule]:
    """Return the optimizers in a part of a recipe; what combines several is none itself."""
    inside = [rule for _, child in children(value) for rule in _rules(child)]
    return inside or ([value] if isinstance(value, UpdateRule) else [])


def _momentum(rule: UpdateRule) -> str | None:
    if _is_foreign(rule) or rule.type == "muon":
        return _name(rule)
    names = [stage.name for stage in rule.stages()]
    if "momentum" not in names or "learning rate" not in names:
        return None
    is_after = names.index("learning rate") < names.index("momentum")
    return f"updates, {'after' if is_after else 'before'} the learning rate"


def _moments(rule: UpdateRule) -> str | None:
    name = str(getattr(rule, "name", "")) if rule.type == "optax" else ""
    if rule.type in _ADAM or name in _OPTAX_ADAM:
        return "adam"
    return _name(rule) if _is_foreign(rule) or rule.type == "adamax" else None


def _average(rule: UpdateRule) -> str | None:
    """Say by what the average goes on: Optax's by a sum of weights, ours by the count of steps."""
    if rule.type != "schedule_free_adamw" and not _name(rule).startswith("optax.schedule_free"):
        return None
    arguments: dict[str, object] = {**vars(rule)}
    b1 = arguments.get("b1", arguments.get("beta_1"))
    return f"{_name(rule)} with {b1} for b1"


def _name(rule: UpdateRule) -> str:
    return f"optax.{getattr(rule, 'name', '')}" if rule.type == "optax" else rule.type


def _is_foreign(rule: UpdateRule) -> bool:
    """Whether the states of an optimizer are not ours to know: those of Optax, and optimizers of users."""
    return rule.type == "optax" or not type(rule).__module__.startswith("optax_ext.")
