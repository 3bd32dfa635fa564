"""float16 and bfloat16 against float32: which gradients underflow, what the loss scale does, and what accuracy becomes.

    python -m studies.float16

A loss that is a mean over more terms has smaller gradients. So that arms differ only in what float16 loses, the mean of
a batch is divided by `parts`, as if the batch were one of so many, and the optimizer multiplies gradients by `parts`.

A run that was cut short goes on where it stopped. `python -m docs.draw study_float16` draws the picture.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_ext
from studies import network, results
from studies.data import Data, Examples, make_data


class Size(NamedTuple):
    """How much is trained."""

    train: int = 16_384
    test: int = 8_192
    batch_size: int = 256
    epochs: int = 12
    seeds: int = 8
    growth_steps: int = 32


QUICK = Size(train=128, test=64, batch_size=64, epochs=2, seeds=2)
CHANNELS, STRIDES = (8, 16, 16, 16, 16), (2, 2, 1, 2, 1)
LAYERS = ("conv0", "conv1", "conv2", "conv3", "conv4", "head")
PARTS = (1, 2**8, 2**12, 2**16, 2**20)
LEARNING_RATE, WEIGHT_DECAY, INITIAL_SCALE = 5e-3, 1e-2, 2.0**15
SMALLEST_NORMAL = 2.0**-14  # of float16; below it digits are lost one by one, and what is at most 2**-25 becomes 0


class Arm(NamedTuple):
    """A way to train: the dtypes of what is computed and of the parameters, and what guards them."""

    compute: str
    params: str = "float32"
    scaled: bool = False
    master: bool = False
    parts: int = 2**12

    @property
    def name(self) -> str:
        """What the arm is called in the results."""
        guards = ", master weights" * self.master + ", loss scaling" * self.scaled
        return f"{self.compute}, {self.params} parameters{guards}, {self.parts} parts"


ARMS = [
    Arm("float32", parts=1),
    Arm("bfloat16"),
    Arm("bfloat16", "bfloat16"),
    Arm("bfloat16", "bfloat16", master=True),
    *(Arm("float16", parts=parts) for parts in PARTS),
    *(Arm("float16", scaled=True, parts=parts) for parts in (2**12, 2**20)),
    *(Arm("float16", "float16", scaled, master) for master in (False, True) for scaled in (False, True)),
]


def make_optimizer(arm: Arm, size: Size, parts: jax.Array) -> optax.GradientTransformation:
    """Return AdamW with warm-up and cosine decay, and what the arm puts around it."""
    steps = size.epochs * (size.train // size.batch_size)
    warmup = max(1, steps // 10)
    decay = optax_ext.CosineDecay(LEARNING_RATE, decay_steps=steps - warmup, offset=warmup)
    rate = optax_ext.LinearWarmup(decay, warmup_steps=warmup)
    multiply = optax.stateless(lambda grads, _: jax.tree.map(lambda grad: grad * parts.astype(grad.dtype), grads))
    tx = optax.chain(multiply, optax.adamw(rate, weight_decay=WEIGHT_DECAY))
    if arm.master:
        tx = optax_ext.master_weights(tx)
    if arm.scaled:
        tx = optax_ext.dynamic_loss_scaling(tx, initial_scale=INITIAL_SCALE, growth_steps=size.growth_steps)
    return tx


def cast(tree: Any, dtype: Any) -> Any:
    """Return a tree in another dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def train(
    seed: jax.Array, parts: jax.Array, train: Examples, test: Examples, arm: Arm, size: Size
) -> dict[str, jax.Array]:
    """Train from scratch; return the parameters after each epoch, what the scale did, and the test accuracy."""
    init_key, shuffle_key = jax.random.split(jax.random.key(seed))
    tx = make_optimizer(arm, size, parts)
    params = cast(network.init_params(init_key, CHANNELS, STRIDES), arm.params)

    def train_epoch(state: Any, epoch: jax.Array) -> Any:
        shuffled = jax.random.permutation(jax.random.fold_in(shuffle_key, epoch), len(train.labels))
        kept = size.train // size.batch_size * size.batch_size
        state, history = jax.lax.scan(train_step, state, shuffled[:kept].reshape(-1, size.batch_size))
        return state, history | {"params": state[0]}

    def train_step(state: Any, chosen: jax.Array) -> Any:
        params, opt_state = state

        def loss_fn(params: Any) -> jax.Array:
            logits = network.apply(cast(params, arm.compute), train.signals[chosen], STRIDES)
            return network.cross_entropy(logits, train.labels[chosen]) / parts

        loss, grads = optax_ext.value_and_grad(loss_fn, opt_state, missing_ok=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        scale = optax.tree.get(opt_state, "loss_scale", 1.0)
        skipped = optax.tree.get(opt_state, "skipped_steps", 0)
        history = {"loss": loss * parts, "loss_scale": jnp.float32(scale), "skipped_steps": jnp.int32(skipped)}
        return (optax.apply_updates(params, updates), opt_state), history

    (last, _), history = jax.lax.scan(train_epoch, (params, tx.init(params)), jnp.arange(size.epochs))
    logits = network.apply(cast(last, arm.compute), test.signals, STRIDES)
    history["params"] = jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest]), params, history["params"]
    )
    return history | {"test": jnp.mean(logits.argmax(-1) == test.labels)}


@functools.cache
def make_train_seeds(arm: Arm, size: Size) -> Callable[..., Any]:
    """Return `train` for several seeds, compiled."""
    return jax.jit(lambda seeds, *inputs: jax.lax.map(lambda seed: train(seed, *inputs, arm, size), seeds))


def run_arm(arm: Arm, size: Size, data: Data) -> tuple[dict[str, Any], Any]:
    """Train an arm from several seeds; return what is kept in the file, and the parameters."""
    start = time.process_time()
    train_seeds = make_train_seeds(arm._replace(parts=1), size)  # so that arms that differ in it share a program
    history = jax.device_get(train_seeds(jnp.arange(size.seeds), jnp.float32(arm.parts), data.train, data.test))
    kept: dict[str, Any] = {"arm": arm._asdict(), "test": [round(float(value), 6) for value in history["test"]]}
    kept["last_loss"] = [
        None if value != value else round(float(value), 4) for value in history["loss"][:, -1].mean(-1)
    ]
    if arm.scaled:
        kept["loss_scale"] = [changes(scales.ravel()) for scales in history["loss_scale"]]
        kept["skipped_steps"] = history["skipped_steps"][:, -1, -1].tolist()
    return kept | {"cpu_seconds": round(time.process_time() - start, 1)}, history["params"]


def changes(scales: np.ndarray) -> list[tuple[int, int]]:
    """Return the steps after which the loss scale was another, with its exponent."""
    steps = np.flatnonzero(np.diff(scales, prepend=0))
    return [(int(step), int(np.log2(scales[step]))) for step in steps]


def make_table_of_underflow(found: dict[str, Any]) -> str:
    """Return the shares at the end of training as a table in Markdown: ranges over the layers, in percent."""
    lines = [
        "| terms | loss scale | outputs: zero | outputs: subnormal | kernels: zero | kernels: subnormal |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    size = found["size"]
    for row in found["underflow"]:
        if row["epoch"] == size["epochs"]:
            is_scaled = row["factor"] > 1
            terms = round(size["batch_size"] / row["factor"]) if not is_scaled else size["batch_size"]
            cells = [f"2^{terms.bit_length() - 1}", f"2^{round(np.log2(row['factor']))}" if is_scaled else "none"]
            for kind in ("outputs", "kernel"):
                for share in ("zero", "subnormal"):
                    shares = [100 * layer[kind][share] for layer in row["layers"].values()]
                    cells.append(f"{min(shares):.1f} to {max(shares):.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measure_underflow(params: Any, examples: Examples, factor: float) -> Any:
    """Return, of each layer's outputs and kernel, the shares of gradients that float16 makes 0 and subnormal.

    They are shares of the gradients that are not 0 in float32. The loss is multiplied by `factor`, which in float32 is
    done afterwards.
    """

    def loss_fn(params: Any, probes: Any, factor: float) -> jax.Array:
        return network.cross_entropy(network.apply(params, examples.signals, STRIDES, probes), examples.labels) * factor

    def grad(dtype: Any, factor: float) -> Any:
        shapes, length = [], 40
        for channels, stride in zip(CHANNELS, STRIDES, strict=True):
            length //= stride
            shapes.append((len(examples.labels), length, channels))
        probes = [jnp.zeros(shape, dtype) for shape in [*shapes, (len(examples.labels), 10)]]
        kernels, outputs = jax.grad(loss_fn, argnums=(0, 1))(cast(params, dtype), probes, factor)
        return {
            layer: {"outputs": output, "kernel": kernels[f"{layer}/kernel"]}
            for layer, output in zip(LAYERS, outputs, strict=True)
        }

    def compare(exact: jax.Array, narrow: jax.Array) -> dict[str, jax.Array]:
        counted, size = exact != 0, jnp.abs(narrow.astype(jnp.float32))
        shares = {"zero": size == 0, "subnormal": (size > 0) & (size < SMALLEST_NORMAL)}
        return {name: jnp.sum(counted & kind) / jnp.sum(counted) for name, kind in shares.items()}

    return jax.tree.map(compare, grad(jnp.float32, 1.0), grad(jnp.float16, factor))


def study_underflow(params: Any, size: Size, data: Data) -> list[dict[str, Any]]:
    """Return the shares along the run in float32, as means over the seeds, for each factor of the loss."""
    batch = Examples(data.train.signals[: size.batch_size], data.train.labels[: size.batch_size])
    measure = jax.jit(
        lambda params, batch, factor: jax.lax.map(lambda params: measure_underflow(params, batch, factor), params)
    )
    rows = []
    for epoch in (0, size.epochs // 4, size.epochs):
        for factor in (*(1 / parts for parts in PARTS), INITIAL_SCALE):
            of_epoch = jax.tree.map(lambda leaf: leaf[:, epoch], params)  # noqa: B023
            shares = jax.tree.map(lambda share: round(float(share.mean()), 4), measure(of_epoch, batch, factor))
            rows.append({"epoch": epoch, "factor": factor, "layers": shares})
    return rows


def make_table(found: dict[str, Any]) -> str:
    """Return the test accuracies as a table in Markdown, and what each seed lost against float32, on average."""
    lines = [
        "| computed in | parameters | master weights | loss scaling | terms | test accuracy | minus float32 |",
        "|---|---|---|---|--:|--:|--:|",
    ]
    exact = found["arms"][ARMS[0].name]["test"]
    for kept in found["arms"].values():
        arm, terms = Arm(**kept["arm"]), kept["arm"]["parts"] * found["size"]["batch_size"]
        guards = ["yes" if guard else "no" for guard in (arm.master, arm.scaled)]
        difference = results.in_words(np.subtract(kept["test"], exact), signed=True) if arm != ARMS[0] else ""
        accuracy = results.in_words(kept["test"])
        cells = [arm.compute, arm.params, *guards, f"2^{terms.bit_length() - 1}", accuracy, difference]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = results.read_arguments("float16", __doc__.splitlines()[0], argv)
    size = QUICK if arguments.quick else Size()
    found = results.load(arguments.output) or {
        "machine": results.describe_machine(),
        "size": size._asdict(),
        "arms": {},
    }
    data = make_data(size.train, 0, size.test)
    for arm in ARMS[:: len(ARMS) - 1] if arguments.quick else ARMS:
        if arm.name not in found["arms"]:
            found["arms"][arm.name], params = run_arm(arm, size, data)
            if arm == ARMS[0]:
                found["underflow"] = study_underflow(params, size, data)
            results.save(found, arguments.output)
        print(f"{arm.name}: {results.in_words(found['arms'][arm.name]['test'])} %", flush=True)


if __name__ == "__main__":
    main()
