"""The command line and recipes in epochs: both are shown, a run can be given, and one that is missing is named."""

import pytest

from optax_ext.cli import main

WITHOUT_RUN = """
type: sgd
learning_rate: {type: cosine_decay, initial_learning_rate: {value: 0.1, per_batch: 256}, decay_steps: 90 epochs}
"""
WITH_RUN = "run: {examples: 1000, batch_size: 64, epochs: 90}\noptimizer:" + WITHOUT_RUN.replace("\n", "\n  ")


@pytest.fixture
def files(tmp_path):
    for name, text in {"bare": WITHOUT_RUN, "whole": WITH_RUN}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return {name: str(tmp_path / f"{name}.yaml") for name in ("bare", "whole")}


def row_of(out, field):
    return " ".join(next(line for line in out.splitlines() if line.strip().startswith(field)).split())


def test_describe_shows_words_and_steps(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["describe", files["whole"]]) == 0
    out = capsys.readouterr().out
    assert row_of(out, "decay_steps") == "decay_steps 90 epochs = 1406 required"
    assert row_of(out, "initial_learning_rate").startswith(
        "initial_learning_rate 0.1 for each 256 examples of a batch = 0.025"
    )
    assert row_of(out, "1,405") == "1,405 3.12924e-08 last step"
    assert "1,406" not in out


def test_describe_takes_another_run(files, capsys):
    assert main(["describe", files["whole"], "--run", "steps=10,steps_per_epoch=2,batch_size=512"]) == 0
    out = capsys.readouterr().out
    assert "90 epochs = 180" in out
    assert row_of(out, "9 ") == "9 0.198769 last step"
    assert row_of(out, "batch_size") == "batch_size 512 None"  # of the run given
    assert "64" not in out


def test_plot_shows_the_run(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plot", files["whole"]]) == 0
    assert "1,405" in capsys.readouterr().out
    assert main(["plot", files["bare"], "--run", "steps=101,steps_per_epoch=2,batch_size=512"]) == 0
    assert " 100" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["describe", "plot"])
def test_what_needs_a_run_is_named(files, capsys, command):
    assert main([command, files["bare"]]) == 1
    error = capsys.readouterr().err
    assert "bare.yaml: 2 problems" in error
    assert "learning_rate.decay_steps: '90 epochs' depends on the run, and there is none" in error
    assert error.count("--run examples=1281167,batch_size=4096,epochs=90") == 1


def test_check_says_that_a_run_is_needed(files, capsys):
    assert main(["check", *files.values()]) == 0
    bare, whole = capsys.readouterr().out.splitlines()
    assert bare.endswith("bare.yaml: ok, given a run, on which learning_rate.initial_learning_rate and 1 more depend")
    assert whole.endswith("whole.yaml: ok")


def test_convert_keeps_the_words(files, capsys):
    assert main(["convert", files["whole"], "--to", "yaml"]) == 0
    assert "decay_steps: 90 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("run", ["", "steps", "steps=a", "steps=1e", "steps=1;epochs=2"])
def test_a_run_is_fields_and_numbers(files, capsys, run):
    with pytest.raises(SystemExit, match="2"):
        main(["describe", files["bare"], "--run", run])
    assert "must be fields and numbers, as in examples=1281167,batch_size=4096,epochs=90" in capsys.readouterr().err


def test_a_wrong_run_is_refused(files, capsys):
    assert main(["plot", files["bare"], "--run", "steps=10,epochs=2"]) == 1
    assert "must not be given with epochs" in capsys.readouterr().err
    assert main(["plot", files["bare"], "--run", "exmples=10"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("argument --run: 1 problem\n  exmples: unknown field (did you mean 'examples'?)")
