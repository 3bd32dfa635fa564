"""plot: the data behind it, the picture and the text."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import optax_ext
from optax_ext import config
from optax_ext.cli import main
from optax_ext.cli._curves import Curve, curve
from optax_ext.cli._picture import draw_curves
from optax_ext.cli._rate import by_group, rate_of, rates
from optax_ext.cli._scale import number_in_words, scale_of
from optax_ext.cli._steps import horizon
from optax_ext.cli._text_plot import text_plot

ROOT = Path(optax_ext.__file__).parents[1]
EXAMPLES = [ROOT / "examples" / "digits.yaml", *sorted((ROOT / "examples" / "configs").glob("*.yaml"))]
SCHEDULES = [
    optax_ext.Constant(0.1),
    optax_ext.PiecewiseConstantDecay((100, 200), (1.0, 0.5, 0.1), offset=7),
    optax_ext.CosineDecay(0.1, 500, 0.1, warmup_target=1.0, warmup_steps=50, offset=20),
    optax_ext.CosineDecayRestarts(0.1, 100, 1.5, 0.8),
    optax_ext.ExponentialDecay(0.1, 33.5, 0.5),
    optax_ext.PolynomialWarmup(optax_ext.PolynomialDecay(0.1, 100, power=0.5, cycle=True), 30, 2.0),
    optax_ext.PowerAndLinearDecay(0.1, 300, -0.5),
]


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    config.save(config.LARS(optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 900, offset=100), 100)), "a.yaml")
    config.save(optax_ext.CosineDecay(3.2, 500), "b.json")


# ---------------------------------------------------------------------------------------------------------
# The data


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_what_is_plotted_is_the_schedule_of_the_recipe(example):
    for of_group in by_group(config.resolve(config.load(example))).values():
        schedule = rate_of(of_group)
        plotted = curve("", of_group, horizon(of_group))
        assert plotted.steps[0] == 0
        assert plotted.steps[-1] == horizon(of_group) - 1
        assert (np.diff(plotted.steps) > 0).all()
        some = slice(None, None, 199)
        assert plotted.rates.dtype == np.float32
        expected = [schedule(int(step)) for step in plotted.steps[some]]
        np.testing.assert_allclose(plotted.rates[some], expected, rtol=1e-6, atol=1e-7 * plotted.peak)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.type)
def test_what_is_plotted_is_the_schedule(schedule):
    plotted = curve("", schedule, 600)
    assert plotted.steps.tolist() == list(range(600))
    some = slice(None, None, 11)
    expected = [schedule(int(step)) for step in plotted.steps[some]]
    np.testing.assert_allclose(plotted.rates[some], expected, rtol=1e-6, atol=1e-7 * plotted.peak)


def test_a_jump_is_plotted_where_it_is():
    plotted = curve("", optax_ext.PiecewiseConstantDecay((33_333,), (1.0, 0.5)), 100_000)
    assert plotted.steps[np.flatnonzero(np.diff(plotted.rates))].tolist() == [33_333]
    assert {33_333, 33_334} <= set(plotted.steps.tolist())


def test_what_is_plotted_is_what_an_optimizer_with_decay_steps_by():
    sgd = config.SGD(optax_ext.CosineDecay(0.5, 10), decay=0.25)
    optimizer = sgd.make()
    state, steps = optimizer.init(jnp.zeros(())), []
    for _ in range(10):
        update, state = optimizer.update(jnp.ones(()), state)
        steps.append(-update)
    np.testing.assert_allclose(rates(sgd, np.arange(10)), steps, rtol=1e-6)


def test_the_largest_steps_do_not_wrap():
    late = optax_ext.CosineDecay(1.0, 2**31 - 1, offset=2**31 - 1)
    plotted = curve("", late, horizon(late))
    assert (np.diff(plotted.steps) > 0).all()
    assert np.isfinite(plotted.rates).all()


def test_a_hundred_restarts_are_all_as_high():
    schedule = optax_ext.CosineDecayRestarts(0.1, 100, 1.0)
    plotted = curve("", schedule, 10_000)
    highest = [plotted.rates[plotted.steps // 100 == period].max() for period in range(100)]
    np.testing.assert_allclose(highest, 0.1, rtol=2e-3)


def test_a_loss_scale_has_no_rates():
    with pytest.raises(ValueError, match="learning rate"):
        rates(config.DynamicLossScale(), np.arange(2))


# ---------------------------------------------------------------------------------------------------------
# The axis

STAIRS = optax_ext.PiecewiseConstantDecay((300, 600, 800), (0.1, 0.01, 0.001, 0.0001))


def curves_of(*schedules):
    return [curve(str(number), schedule, horizon(schedule)) for number, schedule in enumerate(schedules)]


@pytest.mark.parametrize(
    ("schedules", "low"),
    [
        ([optax_ext.LinearWarmup(optax_ext.CosineDecay(0.1, 900, offset=100), 100)], None),
        ([optax_ext.Constant(0.0)], None),
        ([optax_ext.Constant(0.1), optax_ext.Constant(0.01)], None),
        ([optax_ext.Constant(0.1), optax_ext.Constant(0.001)], 1e-3),
        ([STAIRS], 1e-4),
        ([optax_ext.ExponentialDecay(0.1, 100, 0.1)], 1e-6),
        ([optax_ext.ExponentialDecay(0.1, 100, 0.9)], None),
    ],
    ids=["cosine", "zero", "a factor of ten", "a factor of a hundred", "stairs", "far", "near"],
)
def test_the_axis_is_logarithmic_where_much_is_low(schedules, low):
    assert scale_of(curves_of(*schedules)).low == (None if low is None else pytest.approx(low))


def test_every_curve_is_whole_on_either_axis():
    for schedules in ([STAIRS, optax_ext.CosineDecay(0.1, 500)], SCHEDULES):
        drawn = curves_of(*schedules)
        (axes,) = draw_curves(drawn).axes
        for line, of in zip(axes.lines, drawn, strict=True):
            x, y = axes.transData.transform(np.stack([line.get_xdata(), line.get_ydata()], -1)).T
            box = axes.bbox
            assert (x >= box.x0 - 1).all()
            assert (x <= box.x1 + 1).all()
            assert (y >= box.y0 - 1).all()
            assert (y <= box.y1 + 1).all()
            assert line.get_xdata()[-1] == of.steps[-1]


def test_the_axis_ends_with_the_run():
    config.save(
        config.OptimizationConfig(config.SGD(optax_ext.CosineDecay(0.1, 800)), run=config.Run(steps=1000)), "c.yaml"
    )
    loaded = config.load("c.yaml")
    (axes,) = draw_curves([curve("c", loaded, 1000)]).axes
    assert axes.get_xlim() == (0, 1000)
    assert [tick for tick in axes.get_xticks() if 0 <= tick <= 1000] == [0, 200, 400, 600, 800, 1000]
    assert axes.xaxis.get_major_formatter()(1000) == "1,000"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (np.float32(1e-3), "0.001"),
        (5e-5, "5e-5"),
        (0.00025, "2.5e-4"),
        (24.7, "24.7"),
        (13000, "13,000"),
        (1e6, "1e6"),
        (-0.1, "-0.1"),
    ],
)
def test_numbers_are_those_of_recipes(number, words):
    assert number_in_words(float(number)) == words


# ---------------------------------------------------------------------------------------------------------
# The picture


def lines_in_the_picture(monkeypatch):
    """Record what is saved, for the test to look at."""
    from matplotlib.figure import Figure

    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, output: (saved.append(figure), save(figure, output)))
    return saved


def test_a_picture_of_one_file(monkeypatch):
    saved = lines_in_the_picture(monkeypatch)
    assert main(["plot", "a.yaml", "-o", "a.png", "--steps", "200"]) == 0
    picture = Path("a.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    (axes,) = saved[0].axes
    (line,) = axes.lines
    expected = curve("a", config.load("a.yaml"), 200)
    np.testing.assert_array_equal(line.get_xdata(), expected.steps)
    np.testing.assert_array_equal(line.get_ydata(), expected.rates)
    assert axes.get_legend() is None
    assert axes.get_title(loc="left") == "a, peak 6.4"


def test_several_files_lie_over_each_other(monkeypatch):
    saved = lines_in_the_picture(monkeypatch)
    assert main(["plot", "a.yaml", "b.json", "-o", "both.png"]) == 0
    (axes,) = saved[0].axes
    assert [text.get_text() for text in saved[0].legends[0].get_texts()] == ["a, peak 6.4", "b, peak 3.2"]
    assert [line.get_xdata()[-1] for line in axes.lines] == [1050, 525]


def test_names_of_many_files_stand_beside_the_curves(monkeypatch):
    saved = lines_in_the_picture(monkeypatch)
    for number in range(30):
        config.save(optax_ext.Constant(0.5 + number), f"constant_{number}.yaml")
    assert main(["plot", *map(str, sorted(Path().glob("constant_*.yaml"))), "-o", "many.png"]) == 0
    (axes,) = saved[0].axes
    legend, whole = axes.get_legend().get_window_extent(), saved[0].bbox
    assert legend.x0 >= axes.get_window_extent().x1
    assert legend.x1 <= whole.x1
    assert 0 <= legend.y0 < legend.y1 <= whole.y1
    assert axes.get_window_extent().width > whole.width / 3


@pytest.mark.parametrize("count", [2, 5, 8])
@pytest.mark.parametrize("name", ["a", "a_name_that_is_so_long_that_only_one_fits_in_a_row"])
def test_names_stand_above_the_curves(count, name):
    drawn = [Curve(f"{name}_{number}", np.arange(3), np.float32([0, 1, number])) for number in range(count)]
    figure = draw_curves(drawn)
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    box = legend.get_window_extent()
    assert box.y0 >= axes.bbox.y1
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert axes.bbox.height > figure.bbox.height / 2
    assert len(legend.get_texts()) == count


def test_a_curve_on_another_one_lets_it_be_seen():
    same, other = optax_ext.CosineDecay(0.1, 500), optax_ext.CosineDecay(0.1, 1000)
    (axes,) = draw_curves(curves_of(same, other, same)).axes
    assert [line.is_dashed() for line in axes.lines] == [False, False, True]


def test_a_run_of_one_step_is_a_dot():
    (axes,) = draw_curves([curve("a", optax_ext.Constant(0.1), 1)]).axes
    assert axes.lines[0].get_marker() == "o"
    assert axes.get_xlim() == (0, 1)


def test_a_picture_for_a_dark_page(monkeypatch, capsys):
    saved = lines_in_the_picture(monkeypatch)
    assert main(["plot", "a.yaml", "-o", "a.png", "--dark"]) == 0
    assert main(["plot", "a.yaml", "-o", "a.png"]) == 0
    assert capsys.readouterr().out == "a.png: the learning rate of a.yaml from step 0 to 1,050\n" * 2
    light, dark = (sum(figure.get_facecolor()[:3]) / 3 for figure in reversed(saved))
    assert light == 1
    assert dark < 0.1
    for command in (["plot", "a.yaml"], ["replan", "a.yaml", "a.yaml", "--at", "5"]):
        assert main([*command, "--dark"]) == 2
        assert "--dark is for a picture: give -o as well" in capsys.readouterr().err


def test_files_of_one_name_keep_their_folders(monkeypatch):
    saved = lines_in_the_picture(monkeypatch)
    Path("more").mkdir()
    config.save(optax_ext.Constant(0.5), "more/a.yaml")
    assert main(["plot", "a.yaml", "more/a.yaml", "a.yaml", "-o", "both.png"]) == 0
    labels = [text.get_text() for text in saved[0].legends[0].get_texts()]
    assert labels == ["a.yaml, peak 6.4", "more/a.yaml, peak 0.5"]


@pytest.mark.parametrize(("output", "status"), [("nowhere/a.png", 1), ("a.exe", 2)])
def test_a_picture_that_cannot_be_saved(output, status, capsys):
    assert main(["plot", "a.yaml", "-o", output]) == status
    assert capsys.readouterr().err.startswith(f"{output}: ")


def test_without_matplotlib_there_is_one_line_and_the_terminal(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", "a.yaml", "-o", "a.png"]) == 1
    assert capsys.readouterr() == ("", 'plot -o needs matplotlib: pip install "optax_ext[plot]"\n')
    assert main(["plot", "a.yaml"]) == 0


def test_a_package_that_is_there_but_broken_is_not_called_missing(monkeypatch, tmp_path):
    from optax_ext.cli._errors import need

    monkeypatch.syspath_prepend(tmp_path)
    Path("package_without_its_own.py").write_text("import no_such_package")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        need("plot", "package_without_its_own")


# ---------------------------------------------------------------------------------------------------------
# The text


def test_text_of_one_file(capsys):
    assert main(["plot", "a.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert max(map(len, lines)) <= 80
    assert lines[0].strip() == "a: learning rate over steps"
    assert lines[1].startswith("6.4 |")
    assert lines[-1].split() == ["0", "1,050"]


def test_text_of_rates_that_span_decades(capsys):
    config.save(STAIRS, "stairs.yaml")
    assert main(["plot", "stairs.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "stairs: learning rate over steps, logarithmic"
    rows = [line.split("|") for line in lines if "*" in line]
    assert [label.strip() for label, marks in rows if label.strip() and "****" in marks] == [
        "0.1",
        "0.01",
        "0.001",
        "1e-4",
    ]


def test_text_of_several_files_has_a_legend(capsys):
    assert main(["plot", "a.yaml", "b.json", "--steps", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-2:]] == [["*", "a"], ["o", "b"]]
    assert all(mark in "".join(lines[:-2]) for mark in "*o")


def test_text_draws_the_values():
    steps = np.arange(5)
    text = text_plot([Curve("up", steps, np.float32(steps / 4))], width=100)
    lines = text.splitlines()[1:18]
    assert [line.split("|")[1].find("*") for line in (lines[0], lines[-1])] == [4, 0]
    assert all("*" in line for line in lines)  # also between the points
    assert [line.split("|")[0].strip() for line in lines if line.split("|")[0].strip()] == ["1", "0.5", "0"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.inf, 1.0], [np.nan, np.nan], [0.3]], ids=str)
def test_text_of_odd_values(values):
    text = text_plot([Curve("odd", np.arange(len(values)), np.float32(values))], width=10)
    assert len(text.splitlines()) == 20


def test_a_rate_that_is_infinite_at_its_end_can_be_plotted(capsys):
    config.save(optax_ext.PolynomialDecay(1.0, 10, power=-1.0), "infinite.json")
    assert main(["plot", "infinite.json"]) == 0
    assert main(["plot", "infinite.json", "-o", "infinite.png"]) == 0
    assert main(["describe", "infinite.json"]) == 0
    assert "inf" in capsys.readouterr().out


def test_a_loss_scale_alone_cannot_be_plotted(capsys):
    config.save(config.DynamicLossScale(), "scale.json")
    assert main(["plot", "a.yaml", "scale.json", "none.json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("scale.json: a loss scale alone has no learning rate\nnone.json: 1 problem\n")


def test_a_folder_is_no_picture(tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    config.save(config.SGD(0.1), recipe)
    assert main(["plot", str(recipe), "-o", str(tmp_path)]) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err
    assert not [*tmp_path.parent.glob("*.png"), *tmp_path.glob("*.png")]
