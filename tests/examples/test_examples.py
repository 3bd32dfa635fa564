"""The examples run, and show what they are there to show."""

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import train_digits

EXAMPLES = Path(__file__).parents[2] / "examples"


train_digits.load_optimizer = functools.cache(train_digits.load_optimizer)  # so that all trainings share one program


def as_numpy(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)  # copies, which outlive donation


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def both(output: Path) -> Any:
    return train_digits.main(["--output", str(output)])


@pytest.fixture(scope="module")
def result(both: Any) -> Any:
    return both[0]


def test_the_default_run_learns(result: Any) -> None:
    assert result.test_accuracies[-1] >= 0.975


def test_the_default_run_shows_growth_an_overflow_and_a_batch_of_nan(result: Any) -> None:
    (bad,) = train_digits.NAN_STEPS
    assert result.growths >= 3
    assert result.overflow_skips.size >= 1
    assert result.nan_skips.tolist() == [bad]
    assert np.flatnonzero(np.isnan(result.history.loss)).tolist() == [bad]
    assert result.broken_at is None


def test_without_skipping_the_same_run_is_lost(both: Any) -> None:
    result, unguarded = both
    (bad,) = train_digits.NAN_STEPS
    first = slice(None, result.overflow_skips[0])  # where the loss scale is all that differs
    np.testing.assert_allclose(unguarded.history.loss[first], result.history.loss[first], rtol=0.1)
    assert not unguarded.history.skipped.any()
    assert unguarded.broken_at == bad
    assert unguarded.test_accuracies[bad // 11 - 1] >= 0.9
    assert unguarded.test_accuracies[-1] == pytest.approx(0.1, abs=0.01)  # all are taken for one digit
    assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(as_numpy(unguarded.state.params)))


def test_a_skipped_step_halves_the_loss_scale(result: Any) -> None:
    scales, skipped = result.history.loss_scale, result.history.skipped[:-1]
    np.testing.assert_array_equal(scales[1:][skipped], scales[:-1][skipped] / 2)


def test_a_skipped_step_does_not_count_for_the_learning_rate(result: Any) -> None:
    rates, skipped = result.history.learning_rate, result.history.skipped[:-1]
    np.testing.assert_array_equal(rates[1:][skipped], rates[:-1][skipped])


def test_the_plot_is_written(result: Any, output: Path) -> None:
    del result
    picture = (output / "digits.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 50_000


def test_the_picture_shows_the_last_percent_and_keeps_names_off_the_curves(both: Any) -> None:
    figure = train_digits.plot(*both)
    figure.draw_without_rendering()
    for panel in figure.axes:
        legend = panel.get_legend()
        assert legend is None or legend.get_window_extent().y0 >= panel.bbox.y1 - 2
    error = figure.axes[1]
    height = [error.transAxes.inverted().transform(error.transData.transform((0, y)))[1] for y in (0, 0.01, 1)]
    assert height[0] == pytest.approx(0)
    assert height[1] > 0.15
    assert height[2] == pytest.approx(1)
    theirs, ours = error.lines[:2]
    assert theirs.get_ydata()[-1] == pytest.approx(0.9, abs=0.01)
    assert ours.get_ydata()[-1] <= 0.025


def test_nan_in_a_batch_is_survived(result: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disturbed, _ = train_digits.main(["--inject-nan", "30", "150", "--output", str(tmp_path)])

    assert disturbed.nan_skips.tolist() == [30, 150]
    assert np.isnan(disturbed.history.loss[[30, 150]]).all()
    assert np.isfinite(np.delete(disturbed.history.loss, [30, 150])).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(as_numpy(disturbed.state)))
    assert disturbed.test_accuracies[-1] >= 0.975
    assert disturbed.test_accuracies[-1] == pytest.approx(result.test_accuracies[-1], abs=0.015)
    assert re.search(r"NaN in the batch.*30, 150", capsys.readouterr().out)


def test_without_a_bad_batch_nothing_is_compared(tmp_path: Path) -> None:
    result, unguarded = train_digits.main(["--inject-nan", "--epochs", "1", "--output", str(tmp_path)])
    assert unguarded is None
    assert np.isfinite(result.history.loss).all()
    assert (tmp_path / "digits.png").stat().st_size > 10_000


def test_a_skipped_step_changes_nothing_but_the_loss_scaling(result: Any) -> None:
    optimizer, schedule = train_digits.load_optimizer(train_digits.RECIPE)
    data = train_digits.load_data()
    before = as_numpy(result.state)
    state = jax.tree.map(jnp.copy, result.state)  # a step donates its state

    images = np.full_like(data.images[: train_digits.BATCH_SIZE], np.nan)
    after, metrics = train_digits.train_step(state, images, data.labels[: train_digits.BATCH_SIZE], optimizer, schedule)

    assert metrics.skipped
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state.inner_state, before.opt_state.inner_state)


def test_training_is_deterministic(result: Any) -> None:
    optimizer, schedule = train_digits.load_optimizer(train_digits.RECIPE)
    again = train_digits.train(train_digits.load_data(), optimizer, schedule, epochs=2)
    np.testing.assert_array_equal(again.history.loss, result.history.loss[: len(again.history.loss)])


def test_the_recipe_is_as_long_as_the_default_run() -> None:
    _, schedule = train_digits.load_optimizer(train_digits.RECIPE)
    steps = train_digits.EPOCHS * train_digits.load_data().steps_per_epoch
    assert schedule(steps - 1) > 0
    assert schedule(steps) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--epochs", "1", "--inject-nan", "11"], "--inject-nan must be a step from 0 to 10, got 11"),
        (["--recipe", "missing.yaml"], "missing.yaml: 1 problem"),
        (["--recipe", __file__], "must end in .json, .yaml or .yml"),
        (["--output", __file__], "--output"),
    ],
)
def test_mistakes_on_the_command_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_digits.main(argv)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("optimizer:", "optimiser:", "did you mean 'optimizer'?"),
        ("loss_scale:", "---", "expected a single document"),
        ("momentum: 0.9", "momentun: 0.9", "optimizer.momentun: unknown field (did you mean 'momentum'?)"),
        ("type: cosine_decay", "type: cosine", "optimizer.learning_rate.after.type: unknown type 'cosine'"),
        ("growth_steps: 20", "growth_steps: 0", "loss_scale.growth_steps: must be greater than 0, got 0"),
    ],
)
def test_mistakes_in_the_recipe(
    old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(train_digits.RECIPE.read_text().replace(old, new))
    with pytest.raises(SystemExit):
        train_digits.main(["--recipe", str(recipe)])
    assert message in capsys.readouterr().err


def test_a_recipe_needs_a_loss_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(train_digits.RECIPE.read_text().partition("loss_scale:")[0])
    with pytest.raises(SystemExit):
        train_digits.main(["--recipe", str(recipe)])
    assert "loss_scale: is required by this script" in capsys.readouterr().err


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--no-such-argument", 2)])
def test_arguments_are_parsed_before_the_imports_that_take_seconds(argument: str, status: int) -> None:
    script = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "except SystemExit as ended: print(ended.code, *(name in sys.modules for name in ('jax', 'flax', 'sklearn')))"
    )
    command = [sys.executable, "-c", script, str(EXAMPLES / "train_digits.py"), argument]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.stdout.splitlines()[-1] == f"{status} False False False", finished.stderr
