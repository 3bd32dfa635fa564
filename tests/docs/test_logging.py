"""docs/logging.md: its code runs, each logger takes the dict by the line given, and it speaks of every metric."""

import re
from pathlib import Path
from unittest.mock import MagicMock

import jax.numpy as jnp
import optax
import pytest

import optax_ext

PAGE = Path(__file__).parents[2] / "docs" / "logging.md"
TEXT = PAGE.read_text()
ROWS = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]
LOGGERS = {name: code.strip("`") for name, code in (row for row in ROWS if len(row) == 2 and row[1].startswith("`"))}


@pytest.fixture(scope="module")
def namespace():
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    return names


def test_the_code_trains_and_logs_floats(namespace, capsys):
    assert namespace["schedule"](9) > 0
    logged = {name: float(value) for name, value in namespace["logged"].items()}
    assert logged["learning_rate"] == pytest.approx(namespace["schedule"](19))
    assert logged["loss"] < 0.5


@pytest.mark.parametrize("logger", LOGGERS)
def test_each_logger_takes_it_in_one_line(logger, namespace):
    names = {name: MagicMock() for name in ("writer", "wandb", "mlflow")}
    exec(LOGGERS[logger], {"logged": {"loss": 0.5, "trust_ratio/min": 1.0}, "step": 3} | names)
    (used,) = [mock for mock in names.values() if mock.mock_calls]
    assert 3 in (*used.mock_calls[0].args, *used.mock_calls[0].kwargs.values())


def test_four_loggers():
    assert len(LOGGERS) == 4


def test_every_metric_is_explained():
    tx = optax_ext.dynamic_loss_scaling(optax_ext.skip_bad_steps(optax_ext.lars(0.1, record=True)))
    explained = {name for row in ROWS if len(row) == 3 for name in re.findall(r"`([\w/]+)`", row[0])}
    explained |= {f"{name.split('/')[0]}{rest}" for name in explained if "/" in name for rest in ("/median", "/max")}
    assert set(optax_ext.metrics(tx.init(jnp.ones(2)), 0.1)) <= explained


def test_what_it_says_of_ratios_without_gradients():
    tx = optax.chain(optax_ext.lars(0.1, weight_decay=1e-4, record=True))
    params = {"small": jnp.full(4, 2.0), "zero": jnp.zeros(2)}
    grads = {"small": jnp.full(4, 1e-12), "zero": jnp.ones(2)}
    found = optax_ext.metrics(tx.update(grads, tx.init(params), params)[1], per_layer=True)
    assert found["trust_ratio/small"] == pytest.approx(10)
    assert found["trust_ratio/zero"] == 1


def test_links_and_pictures_are_there():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", TEXT)
    for target in targets:
        assert "://" in target or (PAGE.parent / target).exists(), target
