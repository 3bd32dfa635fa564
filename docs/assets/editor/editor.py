"""What the page of the editor shows of a recipe, computed by optax_ext where JAX is the stand-in."""

import json
import math
import warnings
from pathlib import Path

import stand_in

from optax_ext import config, schedules

POINTS = 160  # of a curve, and those at and beside its milestones
LAST_STEP = 2**31 - 1


def show(text):
    """Return as JSON what a file of this text is: its problems, or its words, its milestones and its curves."""
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            shown = describe(config.resolve(config.load("recipe.yaml")))
        except config.ConfigError as error:
            shown = {"problems": str(error)}
        except ModuleNotFoundError as error:
            shown = {
                "problems": f"recipe.yaml: cannot be checked here, since it needs {error.name}, as type: optax does"
            }
    return json.dumps({**shown, "warnings": [str(warning.message) for warning in caught]})


def describe(loaded):
    """Return what a config is in words, and its learning rates."""
    if isinstance(loaded, schedules.Schedule):
        return {"words": schedules.rate_in_words(loaded), **draw(loaded.milestones(), {"": loaded}, None)}
    if isinstance(loaded, config.LossScale):
        return {"words": loaded.type, **draw((), {}, None)}
    recipe = loaded if isinstance(loaded, config.OptimizationConfig) else config.OptimizationConfig(loaded)
    return {
        "words": recipe.optimizer.in_words(),
        **draw(recipe.milestones(), recipe.learning_rates(), recipe.run and recipe.run.total_steps()),
    }


def draw(milestones, learning_rates, run_steps):
    """Return the points of each curve, and the milestones with the rates there."""
    last = max((step for step, _ in milestones), default=1000)
    end = run_steps - 1 if run_steps else min(math.ceil(max(last, 1) * 1.05), LAST_STEP)
    named = {0: "first step", end: "last step" if run_steps else ""}
    for step, reason in milestones:
        if 0 <= step <= end:
            named[step] = ", ".join(filter(None, (named.get(step), reason)))
    evenly = (round(end * point / POINTS) for point in range(POINTS + 1))
    beside = (step + way for step in named for way in (-1, 1) if 0 <= step + way <= end)
    steps = sorted({*evenly, *named, *beside})
    curves = [
        {"group": group, "points": [(step, rate_at(rate, step)) for step in steps]}
        for group, rate in learning_rates.items()
    ]
    rows = [
        {"step": step, "reason": reason, "rates": [rate_at(rate, step) for rate in learning_rates.values()]}
        for step, reason in sorted(named.items())
    ]
    return {"curves": curves, "rows": rows, "run_steps": run_steps}


def rate_at(rate, step):
    """Return the rate that a step takes; None if it is not finite."""
    value = float(rate(stand_in.Array(step)))
    return value if math.isfinite(value) else None
