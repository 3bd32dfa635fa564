"""One small model in two forms: all layers in one leaf, run by a scan, and a leaf for each layer, run one by one.

Written as Flax NNX, Flax Linen and Equinox document it, with the boxes that each puts around parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from flax.core import meta

LAYERS, WIDTH, OUTPUTS = 3, 8, 4


class Twins(NamedTuple):
    """A scanned model and its unrolled twin, with the same numbers.

    `unstack` turns the scanned model's tree, of parameters or of what is like them, into the twin's.
    """

    params: Any
    loss: Callable[[Any, Any], jax.Array]
    twin_loss: Callable[[Any, Any], jax.Array]
    unstack: Callable[[Any], Any]
    axis: int = 0


def _mean_squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(outputs.astype(targets.dtype) - targets))


def _draw(shapes: Any) -> Any:
    """Return parameters of the shapes, as wide as initializers make kernels; nothing is compiled for them."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(0, WIDTH**-0.5, leaf.shape).astype(np.float32), shapes)


class _NnxLayer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + jnp.tanh(self.linear(x))


class _NnxScanned(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=LAYERS)
        @nnx.vmap
        def make(rngs: nnx.Rngs) -> _NnxLayer:
            return _NnxLayer(rngs)

        self.layers = make(rngs)
        self.head = nnx.Linear(WIDTH, OUTPUTS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        @nnx.scan
        def run(x: jax.Array, layer: _NnxLayer) -> tuple[jax.Array, None]:
            return layer(x), None

        return self.head(run(x, self.layers)[0])


class _NnxUnrolled(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([_NnxLayer(rngs) for _ in range(LAYERS)])
        self.head = nnx.Linear(WIDTH, OUTPUTS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def make_nnx() -> Twins:
    """Make the model with `nnx.vmap` and `nnx.scan`; its parameters are `nnx.Param`s."""
    graph, params = nnx.split(nnx.eval_shape(lambda: _NnxScanned(nnx.Rngs(0))))
    twin_graph, twin_params = nnx.split(nnx.eval_shape(lambda: _NnxUnrolled(nnx.Rngs(0))))

    def loss(params: Any, batch: Any) -> jax.Array:
        return _mean_squared_error(nnx.merge(graph, params)(batch[0]), batch[1])

    def twin_loss(params: Any, batch: Any) -> jax.Array:
        return _mean_squared_error(nnx.merge(twin_graph, params)(batch[0]), batch[1])

    def unstack(tree: Any) -> Any:
        layers = [jax.tree.leaves(jax.tree.map(lambda leaf, i=i: leaf[i], tree["layers"])) for i in range(LAYERS)]
        leaves = [*jax.tree.leaves(tree["head"]), *(leaf for layer in layers for leaf in layer)]
        return jax.tree.unflatten(jax.tree.structure(twin_params), leaves)

    return Twins(_draw(params), loss, twin_loss, unstack)


class _LinenLayer(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: None = None) -> tuple[jax.Array, None]:
        init = nn.with_partitioning(nn.initializers.lecun_normal(), ("embed", "hidden"))
        return x + jnp.tanh(nn.Dense(WIDTH, kernel_init=init, name="dense")(x)), None


class _LinenScanned(nn.Module):
    axis: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scanned = nn.scan(
            _LinenLayer,
            variable_axes={"params": self.axis},
            split_rngs={"params": True},
            length=LAYERS,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = scanned(name="layers")(x, None)
        return nn.Dense(OUTPUTS, name="head")(x)


class _LinenUnrolled(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(LAYERS):
            x, _ = _LinenLayer(name=f"layers_{i}")(x)
        return nn.Dense(OUTPUTS, name="head")(x)


def make_linen(axis: int) -> Twins:
    """Make the model with `nn.scan`, with layers along an axis; kernels are in boxes that name their axes."""
    model, twin = _LinenScanned(axis), _LinenUnrolled()
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, WIDTH)))["params"]

    def loss(params: Any, batch: Any) -> jax.Array:
        return _mean_squared_error(model.apply({"params": params}, batch[0]), batch[1])

    def twin_loss(params: Any, batch: Any) -> jax.Array:
        return _mean_squared_error(twin.apply({"params": params}, batch[0]), batch[1])

    def unstack(tree: Any) -> Any:
        unstacked = {"head": tree["head"]}
        for i in range(LAYERS):
            layer = jax.tree.map(lambda leaf, i=i: leaf.take(i, axis), tree["layers"])
            unstacked[f"layers_{i}"] = meta.remove_axis(layer, axis, {nn.PARTITION_NAME: "layers"})
        return unstacked

    return Twins(_draw(params), loss, twin_loss, unstack, axis)


class _EquinoxLayer(eqx.Module):
    linear: eqx.nn.Linear
    activation: Callable[[jax.Array], jax.Array]

    def __init__(self, key: jax.Array):
        self.linear = eqx.nn.Linear(WIDTH, WIDTH, key=key)
        self.activation = jnp.tanh

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.activation(self.linear(x))


class _EquinoxScanned(eqx.Module):
    layers: _EquinoxLayer
    head: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        arrays, rest = eqx.partition(self.layers, eqx.is_array)
        x, _ = jax.lax.scan(lambda x, layer: (eqx.combine(layer, rest)(x), None), x, arrays)
        return self.head(x)


class _EquinoxUnrolled(eqx.Module):
    layers: list[_EquinoxLayer]
    head: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def make_equinox() -> Twins:
    """Make the model with `eqx.filter_vmap` and `jax.lax.scan`; parameters are modules with None for functions."""

    def make(key: jax.Array) -> _EquinoxScanned:
        head_key, *keys = jax.random.split(key, LAYERS + 1)
        return _EquinoxScanned(
            eqx.filter_vmap(_EquinoxLayer)(jnp.stack(keys)), eqx.nn.Linear(WIDTH, OUTPUTS, key=head_key)
        )

    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    params, rest = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def loss(params: Any, batch: Any) -> jax.Array:
        return _mean_squared_error(jax.vmap(eqx.combine(params, rest))(batch[0]), batch[1])

    def twin_loss(params: Any, batch: Any) -> jax.Array:
        twin = _EquinoxUnrolled([eqx.combine(layer, rest.layers) for layer in params.layers], params.head)
        return _mean_squared_error(jax.vmap(twin)(batch[0]), batch[1])

    def unstack(tree: Any) -> Any:
        layers = [jax.tree.map(lambda leaf, i=i: leaf[i], tree.layers) for i in range(LAYERS)]
        return _EquinoxUnrolled(layers, tree.head)

    return Twins(_draw(params), loss, twin_loss, unstack)


FRAMEWORKS: dict[str, Callable[[], Twins]] = {
    "nnx": make_nnx,
    "linen": lambda: make_linen(0),
    "linen, layers at axis 1": lambda: make_linen(1),
    "equinox": make_equinox,
}
