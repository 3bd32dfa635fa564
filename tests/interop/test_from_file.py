"""The optimizer is found in whatever real software saved, and errors lead to its place there."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from optax_ext import CosineDecay, LinearWarmup, PolynomialDecay, cli, config, interop
from optax_ext.cli._numbers import short_numbers
from optax_ext.interop._source import locate, read_contents

FILES = Path(__file__).parent / "data" / "files"  # written by generate_files.py
COSINE_SGD = config.SGD(CosineDecay(0.1, 100), momentum=0.9)
SCALED = config.OptimizationConfig(config.Adam(0.0010000000474974513), config.DynamicLossScale())
ADAM = {"class_name": "Adam", "config": {"learning_rate": 0.25}}
WRONG = {"class_name": "SGD", "config": {"learning_rate": -1}}
LAYERS = {"name": "sequential", "layers": [{"class_name": "Dense", "config": {"units": 1}}]}

READ = {
    "keras3.keras": COSINE_SGD,
    "keras3.h5": COSINE_SGD,
    "keras3_mixed.keras": SCALED,
    "tf_keras.keras": COSINE_SGD,
    "tf_keras_legacy.h5": config.Adam(0.001),
    "tf_keras_mixed.keras": SCALED,
    "tf214.keras": COSINE_SGD,
    "tf214.h5": COSINE_SGD,
    "tf214_saved_model": COSINE_SGD,
    "tf_keras.h5": COSINE_SGD,
    "tf_keras_saved_model": COSINE_SGD,
    "tf_keras_name.keras": config.Adam(0.001),
    "card_warmup.md": config.AdamW(
        LinearWarmup(PolynomialDecay(2e-5, 90, 0.0, offset=10), 10),
        epsilon=1e-8,
        weight_decay_rate=0.01,
        gradient_clip_norm=0.0,
    ),
    "card_numpy.md": config.Adam(2.9999999242136255e-05),
    "card_mixed.md": config.OptimizationConfig(config.SGD(0.1), config.DynamicLossScale()),
    "card_table.md": COSINE_SGD,
}
# What stands where in each file: the class or, in a `get_config`, the name.
PLACES = {
    "keras3.keras": ("compile_config.optimizer", "SGD"),
    "keras3.h5": ("training_config.optimizer_config", "SGD"),
    "keras3_mixed.keras": ("compile_config.optimizer", "Adam"),
    "tf_keras.keras": ("compile_config.optimizer", "SGD"),
    "tf_keras.h5": ("training_config.optimizer_config", "Custom>SGD"),
    "tf_keras_legacy.h5": ("training_config.optimizer_config", "Adam"),
    "tf_keras_name.keras": ("compile_config.optimizer", "adam"),
    "tf_keras_saved_model": ("training_config.optimizer_config", "Custom>SGD"),
    "tf214.keras": ("compile_config.optimizer", "SGD"),
    "tf214.h5": ("training_config.optimizer_config", "Custom>SGD"),
    "tf214_saved_model": ("training_config.optimizer_config", "Custom>SGD"),
    "tf214_saved_model/keras_metadata.pb": ("training_config.optimizer_config", "Custom>SGD"),
    "card_warmup.md": ("optimizer", "AdamWeightDecay"),
    "card_numpy.md": ("optimizer", "Adam"),
    "card_mixed.md": ("optimizer", None),
    "card_table.md": ("optimizer", "SGD"),
}
REFUSED = {
    "keras3.weights.h5": "holds weights alone, as model.save_weights writes them: the config of the optimizer is not",
    "keras3_uncompiled.h5": "has no attribute training_config: the model was saved without being compiled",
    "keras3_uncompiled.keras": "is a model of Keras without an optimizer: it was saved without being compiled; ",
    "tf_keras_uncompiled.keras": "is a model of Keras without an optimizer: it was saved without being compiled",
    "card_uncompiled.md": "has no optimizer: line 37 says None, since the model was not compiled",
}


def found_in(path):
    return locate(read_contents(path, "path"))


def as_json(data, folder, name="model.json"):
    (folder / name).write_text(json.dumps(data))
    return folder / name


@pytest.mark.filterwarnings("ignore::optax_ext.interop.TranslationWarning")
@pytest.mark.parametrize("name", READ)
def test_files_of_real_software(name, tmp_path, capsys):
    assert interop.from_file(FILES / name) == READ[name]
    assert interop.identify_writer(FILES / name) == "keras"
    assert cli.main(["convert", str(FILES / name), "-o", f"{tmp_path}/ours.yaml"]) == 0, capsys.readouterr().err
    written = short_numbers(config.to_dict(READ[name]), {})
    assert config.load(tmp_path / "ours.yaml") == config.from_dict(written)


@pytest.mark.parametrize("name", PLACES)
def test_the_place_in_files_of_real_software(name):
    place, expected = PLACES[name]
    source = found_in(FILES / name)
    data = source.data if isinstance(source.data, str) else source.data.get("class_name", source.data.get("name"))
    assert (source.place, data) == (place, expected)
    assert interop.identify_writer(FILES / name) == "keras"


@pytest.mark.parametrize("name", REFUSED)
def test_files_without_an_optimizer_say_so(name):
    with pytest.raises(config.ConfigError) as caught:
        interop.from_file(FILES / name)
    assert caught.value.subject == str(FILES / name)
    assert REFUSED[name] in str(caught.value)


def test_every_file_is_tested():
    tested = {name.partition("/")[0] for name in (*READ, *PLACES, *REFUSED)}
    assert tested == {path.name for path in FILES.iterdir()}


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"optimizer_config": ADAM, "loss": "mse", "metrics": ["mae"], "sample_weight_mode": None}, "optimizer_config"),
        ({"optimizer": ADAM, "loss": "mse", "run_eagerly": False}, "optimizer"),
        ({"training_config": {"optimizer_config": ADAM, "loss": "mse"}}, "training_config.optimizer_config"),
        ({"compile_config": {"optimizer": ADAM}}, "compile_config.optimizer"),
        (
            {
                "format": "layers-model",
                "generatedBy": "keras v2.15.0",
                "convertedBy": "TensorFlow.js Converter v4.22.0",
                "modelTopology": {
                    "keras_version": "2.15.0",
                    "backend": "tensorflow",
                    "model_config": {"class_name": "Sequential", "config": LAYERS},
                    "training_config": {"loss": "mse", "metrics": ["mae"], "optimizer_config": ADAM},
                },
                "weightsManifest": [{"paths": ["group1-shard1of1.bin"], "weights": [{"name": "dense/kernel"}]}],
            },
            "modelTopology.training_config.optimizer_config",
        ),
        (
            {"class_name": "Sequential", "config": LAYERS, "training_config": {"optimizer_config": ADAM}},
            "training_config.optimizer_config",
        ),
        ({"training_config": json.dumps({"optimizer_config": ADAM})}, "training_config.optimizer_config"),
        (
            {"training": {"compile": {"optimizer": ADAM, "loss": "mse"}, "fit": {"epochs": 5}}},
            "training.compile.optimizer",
        ),
        ({"compile_config": {"optimizer": {"name": "Adam", "learning_rate": 0.25}}}, "compile_config.optimizer"),
        # The model within the model was compiled on its own, and is trained by the optimizer of the whole.
        (
            {
                "class_name": "Wrapped",
                "config": {
                    "inner": {"class_name": "Sequential", "config": LAYERS, "compile_config": {"optimizer": WRONG}}
                },
                "compile_config": {"optimizer": ADAM},
            },
            "compile_config.optimizer",
        ),
        (ADAM, ""),
        ({"name": "Adam", "learning_rate": 0.25}, ""),
    ],
)
def test_json_and_yaml_that_hold_one(data, place, tmp_path):
    for source in (data, as_json(data, tmp_path), as_json(data, tmp_path, "config.yaml")):
        translation = interop.translate(source)
        assert translation.config == config.Adam(0.25)
        assert translation.written_by == interop.identify_writer(source) == "keras"
        assert locate(read_contents(source, "source")).place == place


def test_problems_and_notes_lead_to_the_place(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": LAYERS, "compile_config": {"optimizer": WRONG}}))
    with pytest.raises(config.ConfigError) as caught:
        interop.from_file(path)
    assert caught.value.subject == str(path)
    assert [problem.path for problem in caught.value.problems] == ["compile_config.optimizer.config.learning_rate"]
    lamb = {"class_name": "LAMB", "config": {"learning_rate": 0.1, "epsilon": 0}}
    translation = interop.translate(as_json({"optimizer_config": lamb}, tmp_path))
    assert [note.path for note in translation.notes] == ["optimizer_config.config.epsilon"]


@pytest.mark.parametrize(
    ("data", "places", "message"),
    [
        (
            {"compile_config": {"g_optimizer": ADAM, "d_optimizer": ADAM, "loss": "mse"}},
            ["compile_config.g_optimizer", "compile_config.d_optimizer"],
            "is one of 2 optimizers",
        ),
        (
            {"compile_config": {"optimizer": {"generator": ADAM, "critic": ADAM}}},
            ["compile_config.optimizer.generator", "compile_config.optimizer.critic"],
            "is one of 2 optimizers",
        ),
        ({"optimizer": [ADAM, ADAM]}, ["optimizer.0", "optimizer.1"], "is one of 2 optimizers"),
        (
            {
                "optimizer_config": {
                    "class_name": "Addons>MultiOptimizer",
                    "config": {
                        "optimizer_specs": [{"optimizer": ADAM, "weights": []}, {"optimizer": ADAM, "weights": []}]
                    },
                }
            },
            [f"optimizer_config.config.optimizer_specs.{index}.optimizer" for index in (0, 1)],
            "is one of 2 optimizers",
        ),
        # What stands beside it may change the rate, and would be dropped.
        (
            {"optimizer": ADAM, "learning_rate": 0.1},
            ["learning_rate"],
            "may change what the optimizer at optimizer does",
        ),
        ({"optimizer": ADAM, "lr_schedule": {}}, ["lr_schedule"], "may change"),
        ({"compile": {"optimizer": ADAM}, "weightDecay": 0.1}, ["weightDecay"], "may change"),
        ({"compile_config": {"optimizer": ADAM, "ema": 0.1}}, ["compile_config.ema"], "may change"),
        ({"compile_config": {"optimizer": None, "loss": "mse"}}, [""], "is a model of Keras without an optimizer"),
        ({"modelTopology": {"model_config": {"config": LAYERS}}}, [""], "is a model of Keras without an optimizer"),
        ({"class_name": "Sequential", "config": LAYERS}, [""], "is a model of Keras without an optimizer"),
    ],
)
def test_what_is_not_one_optimizer_names_its_places(data, places, message, tmp_path):
    path = as_json(data, tmp_path)
    with pytest.raises(config.ConfigError) as caught:
        interop.from_file(path)
    assert [problem.path for problem in caught.value.problems] == places
    assert message in str(caught.value)
    with pytest.raises(config.ConfigError, match=r"with interop.from_keras|without the config of an optimizer"):
        config.load(path)


@pytest.mark.parametrize(
    "data",
    [
        {"optimizer": {"name": "adam", "lr": 0.1}, "epochs": 5},  # as files of PyTorch projects have it
        {"training": {"optimizer": "adam"}},
        {"optimizer": {"type": "sgd", "learning_rate": 0.1}},
        {"model": {"class_name": "Dense", "config": {"optimizer": ADAM}}},
    ],
)
def test_what_need_not_be_of_keras(data, tmp_path):
    assert interop.identify_writer(data) is None
    with pytest.raises(config.ConfigError, match="must have the keys of Keras"):
        interop.translate(as_json(data, tmp_path))


def test_a_model_within_one_that_was_not_compiled(tmp_path):
    inner = {"class_name": "Sequential", "config": LAYERS, "compile_config": {"optimizer": ADAM}}
    outer = {"class_name": "Functional", "config": {"layers": [inner]}, "build_config": {}, "compile_config": {}}
    with pytest.raises(config.ConfigError, match="is a model of Keras without an optimizer"):
        interop.from_file(as_json(outer, tmp_path))


def test_a_name_is_passed_on(tmp_path):
    path = tmp_path / "name.yaml"
    path.write_text("adam\n")
    assert found_in(path).data == "adam"
    assert interop.identify_writer(path) == "keras"
    assert found_in(as_json({"optimizer": "adam", "loss": "mse"}, tmp_path)).data == "adam"
    with pytest.raises(config.ConfigError, match="must hold a mapping, got 'adamant'"):
        interop.translate(as_json("adamant", tmp_path))


def test_loss_scales_around_the_optimizer_of_a_mixed_model():
    policy = {"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
    other = {"class_name": "DTypePolicy", "config": {"name": "mixed_bfloat16"}}
    inside = {
        "class_name": "LossScaleOptimizer",
        "config": {"inner_optimizer": ADAM, "initial_scale": 4.0, "dynamic": True},
    }

    def read(dtype, optimizer=ADAM, **training):
        model = {"class_name": "Functional", "config": {**LAYERS, "dtype": dtype}}
        return interop.translate({**model, "compile_config": {"optimizer": optimizer, **training}}).config

    assert read(policy) == config.OptimizationConfig(config.Adam(0.25), config.DynamicLossScale())
    assert read("mixed_float16", auto_scale_loss=True) == read(policy)
    assert read(policy, auto_scale_loss=False) == read(other) == read("float32") == config.Adam(0.25)
    assert read(policy, inside).loss_scale.initial_scale == 4.0


def test_a_recipe_of_ours_and_of_model_garden(tmp_path):
    recipe = config.OptimizationConfig(config.LARS(0.1), config.FixedLossScale(128))
    config.save(recipe, tmp_path / "ours.yaml")
    assert interop.from_file(tmp_path / "ours.yaml") == recipe
    base = {"optimizer": {"type": "sgd"}, "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}}}
    over = as_json({"learning_rate": {"constant": {"learning_rate": 0.5}}}, tmp_path)
    assert interop.from_file(over, base=base).optimizer == config.SGD(0.5)
    assert interop.from_file(over, base=as_json(base, tmp_path, "base.json")).optimizer == config.SGD(0.5)
    with pytest.raises(config.ConfigError, match="must have an 'optimizer', or a 'type'"):
        interop.from_file(as_json({"learning_rate": 0.1}, tmp_path))


def test_surprises_are_warned_about(tmp_path):
    lars = as_json({"optimizer_config": {"class_name": "LARS", "config": {"name": "LARS"}}}, tmp_path)
    with pytest.warns(interop.TranslationWarning, match="^optimizer_config.config: exclude_from_weight") as caught:
        interop.from_file(lars)
    assert {warning.filename for warning in caught} == {__file__}


# ---------------------------------------------------------------------------------------------------------
# Model cards

ROW = "| name | learning_rate | decay | momentum | nesterov | training_precision |"
VALUES = "|SGD|0.5|0.0|0.875|False|float32|"
CARDS = {
    f"{ROW}\n|----|---|---|---|---|---|\n{VALUES}\n": config.SGD(0.5, momentum=0.875),
    "- optimizer: {'name': 'SGD', 'learning_rate': 0.5}\n- training_precision: float32\n": config.SGD(0.5),
    '* optimizer: {"name": "SGD", "learning_rate": 0.5, "nesterov": false}\r\n': config.SGD(0.5),
    "- optimizer: {'name': 'SGD', 'learning_rate': np.float16(0.1), }": config.SGD(0.0999755859375),
    "- optimizer: {'name': \"SGD\", 'learning_rate': float32(0.5), 'clipnorm': None}": config.SGD(0.5),
    "- optimizer: {'name': 'SGD', 'learning_rate': {'class_name': 'PiecewiseConstantDecay', 'config':"
    " {'boundaries': (5,), 'values': [1.0, 0.5], 'name': None}}}": None,
}


@pytest.mark.parametrize("card", CARDS)
def test_what_cards_hold(card, tmp_path):
    (tmp_path / "README.md").write_text(f"---\nlibrary_name: keras\n---\n# A model\n\n{card}")
    loaded = interop.from_file(tmp_path / "README.md")
    if CARDS[card] is not None:
        assert loaded == CARDS[card]
    else:
        assert loaded.learning_rate.boundaries == (5,)
    if card[0] in "-*":  # the block alone is YAML too, in which None is text
        (tmp_path / "block.yaml").write_text(card)
        assert interop.from_file(tmp_path / "block.yaml") == loaded
        (tmp_path / "dict.txt").write_text(card.splitlines()[0].partition(": ")[2])
        assert interop.from_file(tmp_path / "dict.txt") == loaded


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("# A model\n", "names no optimizer of Keras: a model card must have a line"),
        (
            "- optimizer: Adam with betas=(0.9,0.999) and epsilon=1e-08\n",
            "transformers' PyTorch Trainer writes such a line",
        ),
        (
            "- optimizer: {'name': 'SGD', 'learning_rate': <tf.Variable 'x:0'>}\n",
            "line 1: optimizer: is no dict that can be",
        ),
        ("- optimizer: {'name': 'SGD', 'learning_rate': exec(1)}\n", "line 1: optimizer: is no dict that can be"),
        ("- optimizer: {'name': '\\x41'}\n", "is no escape that is read"),
        ("- optimizer: {'name': 'SGD', 'learning_rate': np.float16(1e9)}\n", "is out of the range of float16"),
        ("- optimizer: {'lr': " + "[" * 5000 + "\n", "is no dict that can be read"),
        ("- optimizer: {'lr': 1}\n- optimizer: {'lr': 2}\n", "names 2 optimizers, in line 1, line 2"),
        (f"{ROW}\n|--|--|\n|SGD|0.5|\n", "line 1: must have a value for each of its 6 columns"),
        ("| Hyperparameters | Value |\n|--|--|\n| learning_rate | 1 | 2 |\n", "line 3: must have two columns, got 3"),
        (
            "| Hyperparameters | Value |\n|--|--|\n| learning_rate | 1 |\n| learning_rate.config | 2 |\n",
            "the table has a value for 'learning_rate.config' twice",
        ),
    ],
)
def test_cards_that_are_refused(card, message, tmp_path):
    (tmp_path / "README.md").write_text(card)
    with pytest.raises(config.ConfigError, match="README.md") as caught:
        interop.from_file(tmp_path / "README.md")
    assert message in str(caught.value)


# ---------------------------------------------------------------------------------------------------------
# SavedModels


def field(number, content):
    """Return a field of a protocol buffer that has a length."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def metadata(path, data):
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return field(1, b"\x10\x05" + field(3, path.encode()) + field(4, b"_tf_keras_model") + field(5, text))


COMPILED = {"name": "model", "training_config": {"loss": "mse", "optimizer_config": ADAM}}


def test_saved_models_before_tensorflow_2_5(tmp_path):
    objects = field(1, field(4, field(1, b"_tf_keras_model") + field(3, json.dumps(COMPILED).encode())))
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01" + field(2, field(2, b"graph") + field(7, objects)))
    assert interop.from_file(tmp_path) == interop.from_file(tmp_path / "saved_model.pb") == config.Adam(0.25)


def test_the_metadata_beside_saved_model_pb(tmp_path):
    shutil.copy(FILES / "tf214_saved_model" / "keras_metadata.pb", tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    for path in (tmp_path, tmp_path / "saved_model.pb"):
        assert found_in(path).name == str(tmp_path / "keras_metadata.pb")
    with pytest.raises(config.ConfigError, match=r"must be a file, got a directory: .*`optax-ext convert FILE`"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("nodes", "place"),
    [
        ([metadata("root", COMPILED), metadata("root.teacher", COMPILED)], "training_config.optimizer_config"),
        ([metadata("root", {"name": "module"}), metadata("root.model", COMPILED)], "root.model.training_config"),
        ([metadata("root.a", COMPILED), metadata("root.b", COMPILED)], None),
        ([metadata("root", {"training_config": None})], None),
        ([metadata("root", b'{"training_config": ')], None),
        ([], None),
    ],
)
def test_nodes_of_saved_models(nodes, place, tmp_path):
    (tmp_path / "keras_metadata.pb").write_bytes(b"".join(nodes))
    if place is not None:
        assert found_in(tmp_path).place.startswith(place)
    else:
        with pytest.raises(config.ConfigError, match=r"keras_metadata.pb.*: [12] problem"):
            found_in(tmp_path)


def test_a_saved_model_without_metadata_says_what_to_do(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(config.ConfigError, match=r"has no optimizer.*keras.optimizers.serialize\(model.optimizer\)"):
        interop.from_file(tmp_path)


# ---------------------------------------------------------------------------------------------------------
# Other ways in


def test_a_directory(tmp_path):
    with pytest.raises(
        config.ConfigError, match="must be a file, or the directory of a saved model, which holds one of"
    ):
        interop.from_file(tmp_path)
    as_json({"compile_config": {"optimizer": ADAM}}, tmp_path, "config.json")  # as model.keras unpacked
    assert interop.from_file(tmp_path) == config.Adam(0.25)


def test_hdf5_under_the_name_of_an_archive(tmp_path):  # as TensorFlow before 2.12 saved it
    shutil.copy(FILES / "keras3.h5", tmp_path / "model.keras")
    assert interop.from_file(tmp_path / "model.keras") == COSINE_SGD


@pytest.mark.parametrize("name", ["keras3.keras", "keras3.h5", "card_table.md", "tf214_saved_model/keras_metadata.pb"])
def test_config_load_names_the_command(name):
    with pytest.raises(config.ConfigError, match=r"`optax-ext convert FILE`, or in Python by interop.from_file"):
        config.load(FILES / name)


# ---------------------------------------------------------------------------------------------------------
# HDF5, which is read without its library


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize("as_type", [str, np.bytes_])
@pytest.mark.parametrize("others", [0, 7, 300])
def test_versions_of_hdf5(libver, as_type, others, tmp_path):
    text = json.dumps({"optimizer_config": ADAM, "loss": "ä" * 20_000}, ensure_ascii=False)
    with h5py.File(tmp_path / "model.h5", "w", libver=libver) as file:
        for index in range(others):  # more than the first block of the header holds
            file.attrs[f"before_{index}"] = f"value {index}"
        file.attrs["training_config"] = text if as_type is str else np.bytes_(text.encode())
        file.create_group("model_weights")
    if libver != "earliest" and others == 300:  # newer versions move very many to another place
        with pytest.raises(config.ConfigError, match="in a heap, which is not read: write .* to a JSON file, or save"):
            interop.from_file(tmp_path / "model.h5")
    else:
        assert interop.from_file(tmp_path / "model.h5") == config.Adam(0.25)


def test_hdf5_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert interop.from_file(FILES / "keras3.h5") == COSINE_SGD
