"""ResNet-50 on ImageNet, made small: it learns, resumes bit by bit, skips what it should and reads every image once."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from absl import flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image
from tensorboardX import SummaryWriter

import optax_ext
from examples.imagenet import __main__ as program
from examples.imagenet import data
from examples.imagenet.model import ResNet
from examples.imagenet.training import LABEL_SMOOTHING, State, Trainer, load_recipe

CLASSES, STEPS, PREEMPTED_AT = 10, 20, 7
PROCESS_STEPS = 150  # so many that a signal after the first checkpoint comes in time
ROOT = Path(program.__file__).parents[2]
CONFIGS = ROOT / "examples" / "configs"
RUN = {"examples": 200, "batch_size": 32, "steps_per_epoch": "null", "epochs": "null", "steps": STEPS}
RATE = {"learning_rate": 0.5, "eeta": 0.1}  # for as many steps
OVERRIDES = [f"run.{name}={value}" for name, value in RUN.items()]
OVERRIDES += [f"optimizer.{name}={value}" for name, value in RATE.items()]
ARGUMENTS = [
    *("--synthetic", str(CLASSES), "--blocks", "1", "--width", "8", "--image-size", "32", "--dtype", "float16"),
    *(argument for override in OVERRIDES for argument in ("--set", override)),
    *("--workers", "0", "--log-every", "1", "--checkpoint-every", "100", "--evaluate-every", "2"),
]


@pytest.fixture(scope="module", autouse=True)
def compile_quickly() -> Iterator[None]:
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


class Run(NamedTuple):
    state: State
    scalars: dict[str, dict[int, float]]


def train(output: Path, preempted_at: int | None = None) -> Run:
    """Train by the command, with SIGTERM in the midst of a step if it is to be preempted there."""
    scalars: dict[str, dict[int, float]] = {}
    add_scalar = SummaryWriter.add_scalar

    def spy(self: Any, name: str, value: Any, step: int) -> None:
        scalars.setdefault(name, {})[step] = float(value)
        add_scalar(self, name, value, step)
        if (name, step) == ("loss", preempted_at):
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SummaryWriter, "add_scalar", spy)
        state = program.main([*ARGUMENTS, "--output", str(output)])
    return Run(jax.device_get(state), scalars)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """What the command trains, and has compiled."""
    recipe = load_recipe(program.RECIPE, OVERRIDES, "float16")
    return Trainer(ResNet((1,), 8, CLASSES, "float16"), recipe)


def put(tree: Any, spec: PartitionSpec) -> Any:
    return jax.device_put(tree, NamedSharding(Mesh(np.array(jax.devices()), ("data",)), spec))


def make_batch(labels: Any = None) -> Any:
    images = data.Synthetic(RUN["examples"], 32, CLASSES)
    (batch,) = (next(data.training_batches(images, 32, 32)),)
    return put(batch if labels is None else {**batch, "label": np.int32(labels)}, PartitionSpec("data"))


def test_it_learns(undisturbed: Run) -> None:
    loss = np.array([undisturbed.scalars["loss"][step] for step in range(1, STEPS + 1)])
    assert loss[-3:].mean() < 0.8 * loss[:3].mean()
    assert set(undisturbed.scalars["validation/accuracy"]) == {
        12,
        STEPS,
    }  # after 2 of 3 epochs, 6.25 steps each, and at the end
    assert undisturbed.scalars["loss_scale"][1] == 2.0**15
    assert {name for name in undisturbed.scalars if name.startswith("trust_ratio/")} >= {
        "trust_ratio/median",
        "trust_ratio/conv/kernel",
        "trust_ratio/stage1_block1/conv3/kernel",
    }


def test_blocks_start_as_the_identity(trainer: Trainer) -> None:
    on_all = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec())
    block = trainer.init(jax.random.key(0), 32, on_all).params["stage1_block1"]
    assert {name: set(np.unique(block[name]["scale"])) for name in ("norm1", "norm2", "norm3", "projection_norm")} == {
        **{name: {1} for name in ("norm1", "norm2", "projection_norm")},
        "norm3": {0},
    }


def test_a_preempted_training_ends_as_an_undisturbed_one(undisturbed: Run, tmp_path: Path, capsys: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    first = train(tmp_path, PREEMPTED_AT)
    assert max(first.scalars["loss"]) == PREEMPTED_AT
    assert f"stopped after step {PREEMPTED_AT}" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before
    second = train(tmp_path)
    assert min(second.scalars["loss"]) == PREEMPTED_AT + 1
    assert first.scalars["loss"] | second.scalars["loss"] == undisturbed.scalars["loss"]
    jax.tree.map(np.testing.assert_array_equal, second.state, undisturbed.state)

    third = train(tmp_path)
    assert "nothing is left to train" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, third.state, undisturbed.state)
    with pytest.raises(SystemExit):
        program.main([*ARGUMENTS, "--output", str(tmp_path), "--set", "run.batch_size=40"])
    assert "recipe.yaml is another recipe" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["overflow", "nan"])
def test_a_bad_step_changes_nothing_but_the_scale(undisturbed: Run, trainer: Trainer, fault: str) -> None:
    state = undisturbed.state
    if fault == "overflow":  # the statistics of such a step are finite
        state = state._replace(opt_state=optax.tree.set(state.opt_state, loss_scale=np.float32(2.0**60)))
    else:
        kernel = state.params["conv"]["kernel"].copy()
        kernel[0, 0, 0, 0] = np.nan
        state = state._replace(params={**state.params, "conv": {"kernel": kernel}})
    after, metrics = jax.device_get(trainer.step(put(state, PartitionSpec()), make_batch()))
    assert metrics["consecutive_skips"] == 1
    jax.tree.map(np.testing.assert_array_equal, after[:2], state[:2])
    inner = "inner_state"
    jax.tree.map(np.testing.assert_array_equal, getattr(after.opt_state, inner), getattr(state.opt_state, inner))
    assert after.opt_state.loss_scale == state.opt_state.loss_scale / 2

    good, metrics = jax.device_get(trainer.step(put(undisturbed.state, PartitionSpec()), make_batch()))
    assert metrics["consecutive_skips"] == 0
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), good[:2], undisturbed.state[:2])
    assert all(jax.tree.leaves(moved))
    assert trainer.step._cache_size() == 1  # no test has had it compiled again


def test_labels_are_smoothed(undisturbed: Run, trainer: Trainer) -> None:
    bias, labels = np.arange(CLASSES, dtype=np.float32), np.arange(32) % CLASSES
    head = {"kernel": np.zeros_like(undisturbed.state.params["head"]["kernel"]), "bias": bias}  # logits are the bias
    state = undisturbed.state._replace(params={**undisturbed.state.params, "head": head})
    _, metrics = trainer.step(put(state, PartitionSpec()), make_batch(labels))
    log_probabilities = bias - np.log(np.exp(bias).sum())
    expected = (1 - LABEL_SMOOTHING) * log_probabilities[labels].mean() + LABEL_SMOOTHING * log_probabilities.mean()
    np.testing.assert_allclose(metrics["loss"], -expected, rtol=1e-5)


def test_evaluation_counts_each_image_once(undisturbed: Run, trainer: Trainer) -> None:
    images = data.Synthetic(33, 32, CLASSES)
    state, correct, counted = put(undisturbed.state, PartitionSpec()), [], []
    for batch in data.validation_batches(images, 32, 32):
        is_image = batch["label"] != data.PADDING
        for label in range(CLASSES):  # each image is of one class, whatever the network thinks
            labels = np.where(is_image, np.int32(label), batch["label"])
            counts = trainer.evaluate(state, put({**batch, "label": labels}, PartitionSpec("data")))
            correct.append(int(counts[0]))
            counted.append(int(counts[1]))
    assert sum(correct) == len(images)
    assert sum(counted) == CLASSES * len(images)


# ---------------------------------------------------------------------------------------------------------
# Images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images in three classes, each of one colour, which tells them apart however they are cropped."""
    root = tmp_path_factory.mktemp("images")
    for index in range(7):
        path = root / f"n{index % 3}" / f"{index}.JPEG"
        path.parent.mkdir(exist_ok=True)
        mode, color = ("L", 30 * index + 20) if index == 0 else ("RGB", (30 * index + 20,) * 3)
        Image.new(mode, (40 + 5 * index, 60 - 5 * index), color).save(path)
    (root / "n0" / "notes.txt").write_text("not an image")
    return root


def read(batches: Iterator[data.Batch], count: int) -> list[int]:
    """Return which images come, by their colour."""
    pixels = np.concatenate([next(batches)["image"] for _ in range(count)]).reshape(-1, 16 * 16 * 3)
    assert (pixels.max(1) - pixels.min(1) <= 4).all()
    return [round((mean - 20) / 30) for mean in pixels.mean(1)]


def as_host(patch: pytest.MonkeyPatch, index: int, count: int) -> None:
    options = grain.sharding.ShardOptions(index, count)
    patch.setattr(grain.sharding, "ShardByJaxProcess", lambda: options)


def test_each_epoch_has_each_image_once_over_the_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, per_host = data.Folder(folder), []
    assert (source.classes, len(source)) == (["n0", "n1", "n2"], 7)
    for index in range(2):
        as_host(monkeypatch, index, 2)
        per_host.append(read(data.training_batches(source, 2, 16), 14))
    as_host(monkeypatch, 0, 1)
    together = read(data.training_batches(source, 4, 16), 7)
    assert together == [image for pair in zip(*per_host, strict=True) for image in pair]
    epochs = [together[start : start + 7] for start in range(0, 28, 7)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4  # in another order each time


def test_augmentations_do_not_depend_on_the_number_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    source, parts = data.Synthetic(20, 32, CLASSES), []
    for index in range(2):
        as_host(monkeypatch, index, 2)
        parts.append(next(data.training_batches(source, 8, 16))["image"])
    as_host(monkeypatch, 0, 1)
    batches = data.training_batches(source, 8, 16)
    whole = next(batches)["image"]
    np.testing.assert_array_equal(whole[0::2], parts[0])
    np.testing.assert_array_equal(whole[1::2], parts[1])
    assert (
        len({image.tobytes() for _ in range(5) for image in next(batches)["image"]}) == 40
    )  # two epochs: no two alike


def test_a_worker_outlives_sigterm(folder: Path) -> None:
    flags.FLAGS.mark_as_parsed()
    batches = data.training_batches(data.Folder(folder), 2, 16, workers=1)
    images = read(batches, 7)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    images += read(batches, 21)  # more than are there already
    assert [sorted(images[start : start + 7]) for start in range(0, len(images), 7)] == [list(range(7))] * 8
    batches.close()


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "n0" / "0.JPEG"
    path.parent.mkdir()
    Image.effect_noise((64, 64), 50).save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not an image"):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match=r"n0.0\.JPEG cannot be read: "):
            data.Folder(tmp_path)[0]


def test_validation_has_each_image_once_over_the_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[int] = []
    for index in range(2):
        as_host(monkeypatch, index, 2)
        batches = list(data.validation_batches(data.Folder(folder), 4, 16))
        assert [batch["image"].shape for batch in batches] == [(2, 16, 16, 3)] * 2
        labels += [int(label) for batch in batches for label in batch["label"]]
    assert sorted(labels) == [data.PADDING, 0, 0, 0, 1, 1, 2, 2]


def test_boxes_are_in_the_image() -> None:
    random = np.random.default_rng(0)
    for width, height in [(500, 375), (375, 500), (30, 3000), (1, 1)]:
        for _ in range(50):
            left, top, right, bottom = data.random_box(width, height, random)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert 0.74 < (right - left) / (bottom - top) < 1.34
    assert data.central_box(256, 512) == (16, 144, 240, 368)  # 224 of 256 pixels


# ---------------------------------------------------------------------------------------------------------
# The network and its recipes


def test_resnet_50_and_the_patterns_of_the_recipes() -> None:
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: ResNet().init(jax.random.key(0), x, train=False), shape)
    params = variables["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 25_557_032
    for batch_size in (4096, 8192, 32768):
        recipe = load_recipe(CONFIGS / f"mlperf_resnet50_lars_{batch_size}.yaml", [], "bfloat16")
        mask = optax_ext.path_mask(exclude=recipe.optimizer.exclude_from_weight_decay)(params)
        kinds = {(path[-1].key, decays) for path, decays in jax.tree.leaves_with_path(mask)}
        assert kinds == {("kernel", True), ("scale", False), ("bias", False)}
        assert sum(jax.tree.leaves(mask)) == 54
        state = jax.eval_shape(Trainer(ResNet(), recipe).tx.init, params)
        assert {"skipped_steps", "trust_ratio/median"} <= set(jax.eval_shape(optax_ext.metrics, state))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--synthetic", "10", "--set", "run.batch_size=4095", "--set", "run.steps_per_epoch=null"], "8 devices"),
        (["--synthetic", "10", "--set", "optimizer.momentun=1"], "momentum"),
        (["--synthetic", "10", "--set", "run.epochs=null"], "run"),
        (["--data", "FOLDER"], "found 7: --set run.examples=7"),
        (["--data", "FOLDER", "--synthetic", "10"], "not allowed"),
        (["--data", "nowhere"], "nowhere/train"),
        (["--synthetic", "0"], "--synthetic"),
        (["--synthetic", "10", "--log-every", "0"], "--log-every"),
        (["--synthetic", "10", "--evaluate-every", "0"], "--evaluate-every"),
        (["--synthetic", "10", "--distributed", "localhost:1234"], "--distributed takes HOST:PORT, COUNT and INDEX"),
        (["--synthetic", "10", "--set", "ema={average_decay: 0.99}"], "--set ema=null"),
    ],
)
def test_wrong_arguments(folder: Path, tmp_path: Path, capsys: Any, arguments: list[str], message: str) -> None:
    for part in ("train", "val"):
        (tmp_path / part).symlink_to(folder)
    with pytest.raises(SystemExit):
        program.main([str(tmp_path) if argument == "FOLDER" else argument for argument in arguments])
    assert message in capsys.readouterr().err


PAGE = (ROOT / "docs" / "imagenet.md").read_text()


def test_the_page_says_how_long_the_runs_are() -> None:
    rows = re.findall(r"^\| \[.*\]\(\.\./(.*)\) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for path, *numbers in rows:
        run: Any = load_recipe(ROOT / path, [], "bfloat16").run
        expected = run.batch_size, run.total_steps(), run.in_steps("4 epochs")
        assert tuple(int(number.replace(",", "")) for number in numbers) == expected


@pytest.mark.parametrize("command", re.findall(r"python -m examples.imagenet (.*)", PAGE))
def test_the_commands_of_the_page(command: str) -> None:
    arguments = program.PARSER.parse_args(command.split())
    assert load_recipe(arguments.recipe, arguments.set, arguments.dtype).run is not None


# ---------------------------------------------------------------------------------------------------------
# Several processes


def run_processes(output: Path, folder: Path, preempt: bool = False) -> str:
    """Run two processes with two devices each, perhaps with SIGTERM to one of them; return what they say."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    run = {"examples": 7, "batch_size": 8, "steps_per_epoch": "null", "epochs": "null", "steps": PROCESS_STEPS}
    command = [sys.executable, "-m", "examples.imagenet", "--data", str(folder), "--output", str(output)]
    command += ["--blocks", "1", "--width", "8", "--image-size", "32", "--workers", "1", "--evaluate-every", "1000"]
    command += ["--checkpoint-every", "10", "--set", "optimizer.learning_rate=0.5"]
    command += [argument for name, value in run.items() for argument in ("--set", f"run.{name}={value}")]
    logs = [output.with_name(f"{output.name}_{index}_{preempt}.log") for index in range(2)]
    workers = []
    try:
        for index, log in enumerate(logs):
            with log.open("wb") as text:
                arguments = [*command, "--distributed", address, "2", str(index)]
                workers.append(subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=text, stderr=text))
        deadline = time.monotonic() + 900  # a minute is enough on a machine with nothing else to do
        while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
            if preempt and (output / "checkpoints" / "10").exists():
                workers[1].send_signal(signal.SIGTERM)  # to one alone
                preempt = False
            time.sleep(0.1)
        said = "\n".join(log.read_text(errors="replace") for log in logs)
        assert [worker.poll() for worker in workers] == [0, 0], said
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return said


@pytest.mark.slow
def test_two_processes_are_preempted_and_resume(folder: Path, tmp_path: Path) -> None:
    """Train in bfloat16 on a folder, with a process that reads images; SIGTERM goes to one of the two processes.

    `python -m pytest -m slow tests/examples/test_imagenet.py`, the last time with Python 3.11, JAX 0.10.2, Orbax 0.12.8
    and Grain 0.2.18 on two cores: every leaf of the last checkpoint equal.
    """
    for part in ("train", "val"):
        (tmp_path / "data" / part).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / part).symlink_to(folder)
    outputs = tmp_path / "undisturbed", tmp_path / "preempted"
    run_processes(outputs[0], tmp_path / "data")
    stopped = re.search(r"stopped after step (\d+)", run_processes(outputs[1], tmp_path / "data", preempt=True))
    assert stopped is not None
    assert 10 < int(stopped[1]) < PROCESS_STEPS
    run_processes(outputs[1], tmp_path / "data")
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # there are no four devices as there were
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        args = ocp.args.StandardRestore(fallback_sharding=one)
        ends = [
            checkpointer.restore(path / "checkpoints" / str(PROCESS_STEPS) / "state", args=args) for path in outputs
        ]
    assert ends[0]["opt_state"]["skipped_steps"] == 0
    jax.tree.map(np.testing.assert_array_equal, *ends)
