"""The example of logging: TensorBoard's file has every metric of every step, and the picture shows each layer."""

from typing import Any

import numpy as np
import pytest
from tensorboardX import SummaryWriter

from examples import log_training

STEPS = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("outputs")
    written: list[tuple[str, float, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_training, "STEPS", STEPS)
        add_scalar = SummaryWriter.add_scalar

        def spy(self: Any, name: str, value: Any, step: int) -> None:
            written.append((name, float(value), step))
            add_scalar(self, name, value, step)

        patch.setattr(SummaryWriter, "add_scalar", spy)
        log_training.main(["--output", str(output)])
    return output, written


def test_it_learns_and_every_metric_is_written(run: Any) -> None:
    _, written = run
    history: dict[str, list[float]] = {}
    for name, value, step in written:
        assert step == len(history.setdefault(name, []))
        history[name].append(value)
    assert {len(values) for values in history.values()} == {STEPS}
    assert np.mean(history["loss"][-5:]) < 0.5 * history["loss"][0]
    assert history["learning_rate"][:2] == pytest.approx([0, 8.0 / 50])
    assert {f"trust_ratio/{name}" for name in log_training.LAYERS} < set(history)
    deep, shallow = (np.array(history[f"trust_ratio/blocks/kernel/{index}"]) for index in (7, 0))
    assert np.mean(deep > shallow) > 0.9  # which the documentation says of its picture


def test_files(run: Any) -> None:
    output, _ = run
    assert {file.suffix for file in output.iterdir()} > {".png"}
    for name in ("layers.png", "layers_dark.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_the_picture() -> None:
    names = ["loss", "grad_norm", "learning_rate", *(f"trust_ratio/{name}" for name in log_training.LAYERS)]
    history = {name: np.linspace(1.0, 2.0, 8) for name in names}
    history |= {"skipped_steps": np.array([0, 0, 1, 1, 1, 2, 2, 2]), "grads_finite": np.arange(8) % 3 != 2}
    figure = log_training.plot(history)
    ratio, norm, _ = figure.axes
    assert [line.get_label() for line in ratio.lines[: len(log_training.LAYERS)]] == log_training.LAYERS
    assert norm.lines[1].get_xdata().tolist() == [2, 5]
