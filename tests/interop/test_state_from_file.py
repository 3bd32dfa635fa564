"""A run of the real Keras, split in the middle, goes on here from its file and ends where it ends there."""

import contextlib
import gzip
import io
import json
import warnings
import zipfile

import chex
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config, interop
from optax_ext.interop.states import _hdf5_heaps
from tests.interop.generate_states import DATA, END, SAVED
from tests.parity import golden_data, translation

CONTENT = golden_data.loads((DATA / "runs.json").read_text())
RUNS = {run["file"]: run for runs in CONTENT["runs"].values() for run in runs}
ORDER = list(CONTENT["grads"])
SCALED = "loss_scale: is not in the file"


@pytest.fixture
def unpack(tmp_path):
    """Return a function that writes a file as Keras wrote it, and returns its path."""

    def write(name):
        path = tmp_path / name
        path.write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
        return path

    return write


def read(path, *arguments):
    """Return the state of a file, without the warnings that are expected of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        return interop.state_from_file(path, ORDER, *arguments)


def recipe_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        return interop.from_file(path)


def parameters(variables):
    return translation.nest({path: jnp.asarray(value) for path, value in variables.items()})


def go_on(tx, state, params):
    """Take the last steps, with gradients that are scaled where the state has a scale."""
    update = jax.jit(tx.update)
    for step in range(SAVED, END):
        scale = getattr(state, "loss_scale", 1)
        grads = {name: jnp.asarray(grad[step]) * scale for name, grad in CONTENT["grads"].items()}
        updates, state = update(translation.nest(grads), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on(name, unpack):
    run, path = RUNS[name], unpack(name)
    tx, params = recipe_of(path).make(), parameters(run["saved"])
    state = read(path, tx.init(params))
    chex.assert_trees_all_equal(read(path), state)
    params, state = go_on(tx, state, params)
    for path, end in translation.flatten(params).items():
        moved = np.abs(run["end"][path] - run["saved"][path]).max()
        assert np.abs(end - run["end"][path]).max() <= 1e-5 * moved + 1e-7, path
    for field, value in run.get("scale_at_end", {}).items():
        assert getattr(state, field) == value
    for path, average in run.get("averages_at_end", {}).items():
        np.testing.assert_allclose(
            translation.flatten(optax_ext.ema_params(state))[path], average, rtol=1e-5, atol=1e-6
        )


def write_sgd(path, names, arrays, **fields):
    """Write an .h5 file as older Keras does, by default of an SGD with momentum."""
    settings = {"class_name": "SGD", "config": {"learning_rate": 0.1, "momentum": 0.9}, **fields}
    with h5py.File(path, "w") as file:
        file.attrs["training_config"] = json.dumps({"optimizer_config": settings})
        group = file.create_group("optimizer_weights")
        group.attrs["weight_names"] = names
        for name, array in zip(names, arrays, strict=True):
            group[name] = array
    return path


ITER, MOMENTUM = ["SGD/iter:0"], ["SGD/a/kernel/momentum:0", "SGD/b/kernel/momentum:0"]
SGD_ARRAYS = [np.int64(7), np.ones(2, np.float32), np.full(2, 2, np.float32)]
PARAMS = {"a": {"kernel": jnp.zeros(2)}, "b": {"kernel": jnp.zeros(2)}}
AB = ["a/kernel", "b/kernel"]


@pytest.fixture
def sgd(tmp_path):
    return write_sgd(tmp_path / "model.h5", ITER + MOMENTUM, SGD_ARRAYS)


def test_a_state_at_any_depth_of_a_chain_in_its_own_dtype_and_structure(sgd):
    rate = optax_ext.CosineDecay(0.1, 10)
    inner = optax.chain(optax.clip(1.0), config.SGD(rate, momentum=0.9).make())
    tx = optax_ext.dynamic_loss_scaling(inner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = interop.state_from_file(sgd, AB, tx.init(PARAMS))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(PARAMS))
    assert optax.tree.get(state, "trace")["b"]["kernel"].tolist() == [2, 2]
    assert optax.tree.get(state, "count") == 7
    narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    state = interop.state_from_file(sgd, AB, config.SGD(0.1, momentum=0.9).make().init(narrow))
    assert optax.tree.get(state, "trace")["a"]["kernel"].dtype == jnp.bfloat16


def test_a_state_on_its_own_device(sgd):
    state = jax.device_put(config.SGD(0.1, momentum=0.9).make().init(PARAMS), jax.devices()[3])
    state = interop.state_from_file(sgd, AB, state)
    assert optax.tree.get(state, "trace")["a"]["kernel"].devices() == {jax.devices()[3]}


def test_numbers_in_the_other_byte_order(tmp_path):
    path = write_sgd(
        tmp_path / "model.h5", ITER + MOMENTUM, [array.astype(array.dtype.newbyteorder(">")) for array in SGD_ARRAYS]
    )
    assert optax.tree.get(interop.state_from_file(path, AB), "trace")["b"]["kernel"].tolist() == [2, 2]


def test_the_other_order_contradicts_the_names(sgd):
    with pytest.raises(ValueError, match="has 'b/kernel' at 0, where the file has 'SGD/a/kernel'"):
        interop.state_from_file(sgd, AB[::-1])


def test_the_other_order_of_other_shapes_contradicts_the_names(unpack):
    with pytest.raises(ValueError, match="has 'dense/bias' at 0, where the file has 'Adam/dense/kernel'"):
        interop.state_from_file(unpack("older_adam.h5"), ["dense/bias", "dense/kernel", *ORDER[2:]])


def test_slots_in_different_orders(tmp_path):
    names = ["Adam/iter:0", "Adam/a/kernel/m:0", "Adam/b/kernel/m:0", "Adam/b/kernel/v:0", "Adam/a/kernel/v:0"]
    adam = {"class_name": "Adam", "config": {"learning_rate": 0.1}}
    refused(write_sgd(tmp_path / "model.h5", names, SGD_ARRAYS + SGD_ARRAYS[1:], **adam), "every slot in one order", AB)


def test_names_of_other_models_contradict_nothing(tmp_path):
    names = ["SGD/dense_1/kernel/momentum:0", "SGD/dense_2/kernel/momentum:0"]
    path = write_sgd(tmp_path / "model.h5", ITER + names, SGD_ARRAYS)
    state = interop.state_from_file(path, ["Dense_0/kernel", "Dense_1/kernel"])
    assert optax.tree.get(state, "trace")["Dense_1"]["kernel"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("names", "order", "is_right"),
    [
        (["conv2d/kernel", "conv2d_1/kernel"], ["Conv_0/kernel", "Conv_1/kernel"], True),
        (["conv2d/kernel", "conv2d_1/kernel"], ["Conv_1/kernel", "Conv_0/kernel"], False),
        (["sequential_dense_kernel", "sequential_dense_1_kernel"], ["Dense_1/kernel", "Dense_0/kernel"], False),
        (["batch_normalization_3/gamma", "batch_normalization_3/beta"], ["bn/scale", "bn/bias"], True),
        (["batch_normalization_3/gamma", "batch_normalization_3/beta"], ["bn/bias", "bn/scale"], False),
        (["norm/gamma", "norm/beta"], ["norm/beta", "norm/gamma"], False),
        (
            ["layer_normalization/gamma", "layer_normalization_1/gamma"],
            ["LayerNorm_1/scale", "LayerNorm_0/scale"],
            False,
        ),
        (["embedding/embeddings", "embedding_1/embeddings"], ["Embed_1/embedding", "Embed_0/embedding"], False),
        (["embedding/embeddings", "head/kernel"], ["embed/kernel", "head/kernel"], True),
        (["a_0/w", "a_1/w"], ["encoder/x", "decoder/y"], True),
    ],
)
def test_names_of_keras_and_flax(names, order, is_right, tmp_path):
    path = write_sgd(tmp_path / "model.h5", [*ITER, *(f"SGD/{name}/momentum:0" for name in names)], SGD_ARRAYS)
    with contextlib.nullcontext() if is_right else pytest.raises(ValueError, match="order must be that of the file"):
        interop.state_from_file(path, order)


def test_names_of_tensorflow_1(tmp_path):
    path = write_sgd(tmp_path / "model.h5", ["SGD/iter:0", *(f"training/{name}" for name in MOMENTUM)], SGD_ARRAYS)
    assert optax.tree.get(interop.state_from_file(path, AB), "trace")["b"]["kernel"].tolist() == [2, 2]
    with pytest.raises(ValueError, match="has 'b/kernel' at 0, where the file has 'training/SGD/a/kernel'"):
        interop.state_from_file(path, AB[::-1])


def test_a_momentum_of_one_variable_that_is_not_used(unpack):
    """Newer tf_keras keeps it for an SGD without momentum."""
    path = unpack("newer_sgd_plain.keras")

    def keep_one(content):
        file = io.BytesIO(content)
        with h5py.File(file, "r+") as opened:
            for place in "234":
                del opened[f"optimizer/vars/{place}"]
        return file.getvalue()

    rewrite(path, "model.weights.h5", keep_one)
    assert optax.tree.get(interop.state_from_file(path, ["dense/kernel"]), "count") == SAVED


def test_names_in_several_attributes(tmp_path):
    """As Keras writes them where they are longer than one attribute may be."""
    path = write_sgd(tmp_path / "model.h5", ITER + MOMENTUM, SGD_ARRAYS)
    with h5py.File(path, "r+") as file:
        attributes = file["optimizer_weights"].attrs
        attributes["weight_names0"], attributes["weight_names1"] = ITER, MOMENTUM
        del attributes["weight_names"]
    assert optax.tree.get(interop.state_from_file(path, AB), "trace")["b"]["kernel"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["a/kernel"], "got 1 paths, and the file has 2: 'SGD/a/kernel', 'SGD/b/kernel'"),
        (["a/kernel", "a/kernel"], "each parameter once"),
        ("ab", "must be a list of paths"),
        (["a", "a/kernel"], "below another"),
        (["a/kernel", "a"], "above another"),
    ],
)
def test_a_wrong_order(order, message, sgd):
    with pytest.raises(ValueError, match=message):
        interop.state_from_file(sgd, order)


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (optax.sgd(0.1, momentum=0.9), "learning rate before the momentum, .* optax.sgd is not"),
        (config.LARS(0.1, classic_momentum=False).make(), "learning rate before the momentum"),
        (config.SGD(0.1).make(), "one TraceState, for the m in the file, found 0"),
        (config.RMSprop(0.1, momentum=0.9).make(), "a ScaleByRmsState with nu, which the file's SGD does not keep"),
        (optax.chain(config.SGD(0.1, momentum=0.9).make(), optax_ext.params_ema()), "the file has no averages"),
    ],
    ids=["optax.sgd", "lars", "sgd", "rmsprop", "ema"],
)
def test_a_state_of_another_optimizer(tx, message, sgd):
    with pytest.raises(ValueError, match=message):
        interop.state_from_file(sgd, AB, tx.init(PARAMS))


def test_a_state_of_other_shapes(sgd):
    state = config.SGD(0.1, momentum=0.9).make().init({"a": {"kernel": jnp.zeros(3)}, "b": {"kernel": jnp.zeros(2)}})
    with pytest.raises(ValueError, match="'a/kernel' has shape .3,., and the variable at its place, .* has .2,."):
        interop.state_from_file(sgd, AB, state)
    with pytest.raises(TypeError, match="must be an optimizer state"):
        interop.state_from_file(sgd, AB, PARAMS)


def test_a_rate_that_a_callback_left(unpack):
    path = unpack("keras_adamw.keras")
    rewrite(path, "model.weights.h5", lambda content: change(content, "optimizer/vars/1", np.float32(0.025)))
    with pytest.warns(
        interop.TranslationWarning, match="is 0.025 in the file, .* and 0.1 in its config: give .*=0.025"
    ):
        interop.state_from_file(path, ORDER)


def test_a_loss_scale_without_a_place(unpack):
    path, tx = unpack("keras_adam_scaled.keras"), config.Adam(0.1).make()
    state = tx.init(parameters(RUNS["keras_adam_scaled.keras"]["saved"]))
    with pytest.warns(interop.TranslationWarning, match="of 2048 has no place in the state"):
        interop.state_from_file(path, ORDER, state)
    with pytest.warns(interop.TranslationWarning, match="is not in the file, .* starts at 1024"):
        interop.state_from_file(unpack("newer_adam_scaled.h5"), ORDER)


def test_iterations_that_keras_2_leaves_out(unpack):
    with pytest.warns(interop.TranslationWarning, match="iterations: are not in the file"):
        interop.state_from_file(unpack("keras_2_rmsprop.h5"), ORDER)


# ---------------------------------------------------------------------------------------------------------
# Files that are damaged, hostile or of another kind


def rewrite(path, member, change):
    """Change one file in a zip."""
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    contents[member] = change(contents[member])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def change(content, place, value):
    """Change one array in an HDF5 file."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        del opened[place]
        opened[place] = value
    return file.getvalue()


def refused(path, match, order=ORDER):
    with pytest.raises(config.ConfigError, match=match) as error:
        interop.state_from_file(path, order)
    assert error.value.subject == str(path)


@pytest.mark.parametrize(
    "kind", ["external", "soft", "virtual", "sparse", "object", "text", "filter", "missing", "group"]
)
def test_a_variable_that_is_not_plain_numbers_in_the_file(kind, tmp_path):
    path = write_sgd(tmp_path / "model.h5", ITER + MOMENTUM, SGD_ARRAYS)
    other = write_sgd(tmp_path / "other.h5", ITER + MOMENTUM, SGD_ARRAYS)
    place = f"optimizer_weights/{MOMENTUM[0]}"
    with h5py.File(path, "r+") as file:
        del file[place]
        if kind == "external":
            file[place] = h5py.ExternalLink(str(other), place)
        elif kind == "soft":
            file[place] = h5py.SoftLink(f"/optimizer_weights/{MOMENTUM[1]}")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2,), "f4")
            layout[:] = h5py.VirtualSource(str(other), place, (2,))
            file.create_virtual_dataset(place, layout)
        elif kind == "sparse":  # terabytes in a few bytes
            file.create_dataset(place, (2**20, 2**20), "f4", chunks=(2**10, 2**10))
        elif kind == "object":
            file.create_dataset(place, (2,), h5py.vlen_dtype(np.float32))
        elif kind == "text":
            file[place] = np.array([b"a", b"b"])
        elif kind == "filter":
            file.create_dataset(place, data=np.ones(2, np.float32), compression="lzf")
        elif kind == "group":
            file.create_group(place)
    refused(path, "is damaged" if kind == "virtual" else f"optimizer_weights/{MOMENTUM[0]} (must|of shape)", AB)


@pytest.mark.parametrize(
    ("names", "arrays", "fields", "message"),
    [
        (ITER, [0], {}, "holds no m"),
        (["SGD/iter:0", "SGD/a/the_spin:0"], [0, np.ones(2)], {}, "'SGD/a/the_spin:0', which is none that Keras keeps"),
        (ITER + MOMENTUM, [-1, *SGD_ARRAYS[1:]], {}, "iterations must be in"),
        (ITER + MOMENTUM, [2**40, *SGD_ARRAYS[1:]], {}, "iterations must be in"),
        (ITER + MOMENTUM, [1, np.ones(2, int), np.ones(2)], {}, "floating-point"),
        (ITER + MOMENTUM, SGD_ARRAYS, {"class_name": "LAMB", "config": {}}, "state of LAMB cannot be read, accepted"),
        (
            ITER + MOMENTUM,
            SGD_ARRAYS,
            {"class_name": "CosineDecay", "config": {"decay_steps": 1, "initial_learning_rate": 1}},
            "must hold an optimizer",
        ),
    ],
)
def test_an_h5_file_that_does_not_fit(names, arrays, fields, message, tmp_path):
    refused(write_sgd(tmp_path / "model.h5", names, arrays, **fields), message, AB)


def test_other_files(unpack, tmp_path):
    (tmp_path / "saved").mkdir()
    refused(tmp_path / "saved", "only TensorFlow reads: .*tf_keras.models.load_model.*save.'model.h5'")
    refused(tmp_path / "none.h5", "No such file")
    (tmp_path / "text.h5").write_text("learning_rate: 0.1")
    refused(tmp_path / "text.h5", "must be a .keras file, which is a zip")
    path = unpack("keras_adamw.keras")
    rewrite(path, "model.weights.h5", lambda content: b"")
    refused(path, "is damaged")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(tmp_path / "empty.keras", "must hold model.weights.h5, .*, got .'config.json'")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.weights.h5", bytes(2**27))
    refused(path, "unpacks to 134217728 bytes")
    path = unpack("keras_sgd.keras")
    rewrite(path, "config.json", lambda content: content.replace(b'"optimizer"', b'"other"'))
    refused(path, "without an optimizer")


@pytest.mark.parametrize("damage", ["length of a text", "size of an object"])
def test_damage_at_which_the_hdf5_library_would_not_return(damage, sgd):
    content = bytearray(sgd.read_bytes())
    heap = content.index(b"GCOL")
    if damage == "length of a text":
        with h5py.File(sgd) as file:
            length = len(file.attrs["training_config"])
        place = content.index(length.to_bytes(4, "little") + heap.to_bytes(8, "little"))
        content[place : place + 4] = b"\xff\xff\xff\xff"
    else:
        free = heap + 16
        while content[free : free + 2] != b"\0\0":
            free += 16 + (int.from_bytes(content[free + 8 : free + 16], "little") + 7) // 8 * 8
        content[free + 8 : free + 16] = bytes(8)
    sgd.write_bytes(content)
    refused(sgd, "is damaged: the (text|global heap) at byte", AB)


def test_very_many_heaps(sgd, monkeypatch):
    """Each is looked for in the whole file."""
    monkeypatch.setattr(_hdf5_heaps, "_MAX_SEARCH", 2**16)
    with h5py.File(sgd, "r+") as file:
        file["heaps"] = np.frombuffer((b"GCOL\1\0\0\0" + (16).to_bytes(8, "little")) * 100, np.uint8)
    refused(sgd, "has more than 64 global heaps", AB)


def test_weights_that_do_not_begin_with_hdf5(unpack):
    path = unpack("keras_sgd.keras")
    rewrite(path, "model.weights.h5", lambda content: bytes(512) + content)  # where heaps are not found by address
    refused(path, "with addresses of 8 bytes from the start of the file")


@pytest.mark.parametrize("name", ["keras_rmsprop.keras", "older_adam.h5"])
def test_damaged_bytes(name, unpack):
    """A file with any byte changed is read, or refused as a ValueError."""
    path = unpack(name)
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    for place in rng.integers(len(content), size=40):
        damaged = content.copy()
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interop.state_from_file(path, ORDER)
