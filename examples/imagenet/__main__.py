"""Train ResNet-50 on ImageNet by a recipe of MLPerf, on one host or several.

    python -m examples.imagenet --data DIR --recipe examples/configs/mlperf_resnet50_lars_4096.yaml --output DIR

The same command again goes on from the last checkpoint of --output.
"""

import argparse
import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tensorboardX import SummaryWriter
from tqdm import tqdm

import optax_ext
from examples.imagenet.checkpoints import open_checkpoints, preemption, restore, save
from examples.imagenet.data import Batch, Folder, Source, Synthetic, training_batches, validation_batches
from examples.imagenet.model import ResNet
from examples.imagenet.training import State, Trainer, load_recipe
from optax_ext import config


def positive(text: str) -> int:
    """Read a positive whole number."""
    if (number := int(text)) < 1:
        raise ValueError(number)
    return number


RECIPE = Path(__file__).parents[1] / "configs" / "mlperf_resnet50_lars_4096.yaml"

PARSER = argparse.ArgumentParser(
    prog="python -m examples.imagenet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
add = PARSER.add_argument
images = PARSER.add_mutually_exclusive_group(required=True)
images.add_argument("--data", type=Path, metavar="DIR", help="a folder with train/CLASS/IMAGE and val/CLASS/IMAGE")
images.add_argument("--synthetic", type=positive, metavar="CLASSES", help="make images of so many classes instead")
add("--recipe", type=Path, default=RECIPE, metavar="FILE", help="the optimizer and the run (%(default)s)")
add("--set", action="append", default=[], metavar="FIELD=VALUE", help="change the recipe: run.batch_size=256")
add("--output", type=Path, default=Path("outputs/imagenet"), metavar="DIR", help="(%(default)s)")
add("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16", help="to compute in (%(default)s)")
add("--distributed", nargs="*", metavar="HOST:PORT COUNT INDEX", help="one process of several; alone on TPU and Slurm")
add("--workers", type=int, default=8, metavar="N", help="processes of this host that read images (%(default)s)")
add("--image-size", type=positive, default=224, metavar="PIXELS", help="(%(default)s)")
add("--blocks", type=positive, nargs="+", default=[3, 4, 6, 3], metavar="N", help="of each stage (3 4 6 3)")
add("--width", type=positive, default=64, metavar="N", help="channels of the first stage (%(default)s)")
add("--log-every", type=positive, default=50, metavar="STEPS", help="(%(default)s)")
add("--checkpoint-every", type=positive, default=500, metavar="STEPS", help="(%(default)s)")
add("--evaluate-every", type=positive, default=4, metavar="EPOCHS", help="(%(default)s)")
add("--seed", type=int, default=0, help="of the parameters and the order of the images (%(default)s)")


def load(arguments: argparse.Namespace) -> tuple[config.OptimizationConfig, Source, Source]:
    """Return the recipe, the images to train on and those to validate on, which fit each other."""
    try:
        recipe = load_recipe(arguments.recipe, arguments.set, arguments.dtype)
    except config.ConfigError as error:
        PARSER.error(str(error))
    if recipe.ema is not None:  # which would need averages of the batch statistics, as in examples/ema.py
        PARSER.error("this program evaluates the parameters, not the average of them that `ema` keeps: --set ema=null")
    run = recipe.run
    if run is None or run.examples is None or run.batch_size is None or run.total_steps() is None:
        PARSER.error(f"{arguments.recipe} must have a run with examples, batch_size, and epochs or steps, got {run}")
    if run.batch_size % (recipe.accumulate_steps * jax.device_count()):
        devices = f"{jax.device_count()} devices and {recipe.accumulate_steps} accumulated gradients"
        PARSER.error(f"run.batch_size must be a multiple of {devices} together, got {run.batch_size}")

    train: Source
    validation: Source
    if arguments.synthetic:
        size, classes = arguments.image_size, arguments.synthetic
        train, validation = (Synthetic(images, size, classes) for images in (run.examples, run.batch_size + 1))
    else:
        try:
            train, validation = Folder(arguments.data / "train"), Folder(arguments.data / "val")
        except OSError as error:
            PARSER.error(f"--data {arguments.data}: {error}")
    if train.classes != validation.classes:
        PARSER.error(f"the classes of {arguments.data}/train and {arguments.data}/val must be the same")
    if len(train) != run.examples:
        PARSER.error(f"the recipe is for {run.examples} images, found {len(train)}: --set run.examples={len(train)}")
    saved = arguments.output / "recipe.yaml"
    if saved.exists() and config.load(saved) != recipe:
        PARSER.error(f"{saved} is another recipe: set another --output, or delete {saved} to go on with this recipe")
    return recipe, train, validation


def main(argv: Sequence[str] | None = None) -> State:
    """Run the command line."""
    arguments = PARSER.parse_args(argv)
    flags.FLAGS.mark_as_parsed()  # or the workers of Grain 0.2.18 fail: github.com/google/grain/issues/1355
    if arguments.distributed is not None:
        if len(arguments.distributed) not in {0, 3}:
            PARSER.error("--distributed takes HOST:PORT, COUNT and INDEX, or nothing")
        address, count, index = arguments.distributed or (None, None, None)
        jax.distributed.initialize(address, count and int(count), index and int(index))
    recipe, train, validation = load(arguments)
    run: Any = recipe.run
    parts = recipe.accumulate_steps  # a step here is the gradient of such a part of a batch
    steps, evaluation_steps = (parts * run.in_steps(each) for each in ("100%", f"{arguments.evaluate_every} epochs"))
    size: dict[str, int] = {"batch_size": run.batch_size // parts, "size": arguments.image_size}
    size["workers"] = arguments.workers

    mesh = Mesh(np.array(jax.devices()), ("data",))
    on_all, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))

    def put(batch: Batch) -> dict[str, jax.Array]:
        return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, split), batch)

    def evaluate(state: State) -> float:
        counts = [trainer.evaluate(state, put(batch)) for batch in validation_batches(validation, **size)]
        correct, images = np.sum(jax.device_get(counts), axis=0)
        return correct / images

    network = ResNet(tuple(arguments.blocks), arguments.width, len(train.classes), arguments.dtype)
    trainer = Trainer(network, recipe)
    batches = training_batches(train, **size, seed=arguments.seed)
    manager = open_checkpoints(arguments.output / "checkpoints")
    state = trainer.init(jax.random.key(arguments.seed), arguments.image_size, on_all)
    state, start = restore(manager, state, batches)
    if jax.process_index() == 0:
        config.save(recipe, arguments.output / "recipe.yaml")

    with contextlib.ExitStack() as stack:
        is_preempted = stack.enter_context(preemption(manager))
        stack.callback(batches.close)
        stack.enter_context(manager)  # waits for the last save
        is_first = jax.process_index() == 0
        progress = stack.enter_context(tqdm(total=steps, initial=start, unit="step", disable=not is_first))
        writer = SummaryWriter(str(arguments.output), purge_step=start + 1, write_to_disk=is_first)
        stack.enter_context(writer)
        say = progress.write if is_first else lambda text: None
        if start >= steps:
            say(f"step {start} is saved in {arguments.output}, and the recipe has {steps}: nothing is left to train")
        for step in range(start + 1, steps + 1):
            state, metrics = trainer.step(state, put(next(batches)))
            if step % arguments.log_every == 0:
                metrics = jax.device_get(metrics)  # waits for the step
                for name, value in metrics.items():
                    writer.add_scalar(name, value, step)
                progress.set_postfix_str(f"loss {metrics['loss']:.3f}, learning rate {metrics['learning_rate']:.3f}")
                optax_ext.raise_if_stalled(state.opt_state)
            progress.update()
            if step % evaluation_steps == 0 or step == steps:
                accuracy = evaluate(state)
                writer.add_scalar("validation/accuracy", accuracy, step)
                say(f"step {step}: accuracy {accuracy:.2%} on the validation images")
            stop = is_preempted(step)
            if stop or step == steps or step % arguments.checkpoint_every == 0:
                save(manager, step, state, batches)
            if stop:
                say(f"stopped after step {step}: the same command goes on from there")
                break
    return state


if __name__ == "__main__":
    main()
