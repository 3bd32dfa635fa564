"""One way in for whatever Keras or Model Garden wrote, which returns all notes."""

import json
import warnings

import pytest

from optax_ext import config, interop

KERAS = {"class_name": "LAMB", "config": {"name": "LAMB", "learning_rate": 0.1, "epsilon": 0}}
RECIPE = {
    "optimizer": {"type": "lamb", "lamb": {"epsilon": 0, "exclude_from_weight_decay": ["gamma", "bias"]}},
    "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
}


def in_a_file(data, folder, name="written.json"):
    (folder / name).write_text(json.dumps(data))
    return folder / name


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_keras(tmp_path, as_file, told):
    source = in_a_file(KERAS, tmp_path) if as_file else KERAS
    translation = interop.translate(source, written_by="keras" if told else None)
    assert translation.written_by == "keras"
    assert translation.config == config.LAMB(0.1, epsilon=1e-7)
    lost, epsilon = translation.notes
    assert lost.surprising
    assert str(lost).startswith("config: exclude_from_weight_decay and exclude_from_layer_adaptation are left out")
    assert epsilon == interop.Note("config.epsilon", "0 means 1e-07, as in TensorFlow", False)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_model_garden(tmp_path, as_file, told):
    source = in_a_file(RECIPE, tmp_path) if as_file else RECIPE
    translation = interop.translate(source, written_by="model_garden" if told else None)
    assert translation.written_by == "model_garden"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert translation.config == interop.from_model_garden(RECIPE)
    assert [str(note) for note in translation.notes] == [
        "optimizer.lamb.epsilon: 0 means 1e-07, as in TensorFlow",
        "optimizer.lamb.exclude_from_weight_decay: 'gamma' became 'gamma|scale', which matches JAX parameter paths",
    ]
    assert interop.translate(source, translate_patterns=False).config.optimizer.exclude_from_weight_decay[0] == "gamma"


def test_a_base(tmp_path):
    over = {"learning_rate": {"constant": {"learning_rate": 0.2}}}
    for base in (RECIPE, in_a_file(RECIPE, tmp_path)):
        assert interop.translate(over, base).config.optimizer.learning_rate == 0.2


def test_a_bare_get_config_needs_its_writer():
    bare = {"learning_rate": 0.1, "momentum": 0.9}
    with pytest.raises(config.ConfigError, match=r"must have the keys of Keras .*: give written_by"):
        interop.translate(bare)
    assert interop.translate(bare, written_by="keras", class_name="SGD").config == config.SGD(0.1, 0.9)


def test_simple_importers_warn_about_what_is_surprising():
    with pytest.warns(interop.TranslationWarning) as caught:
        interop.from_keras(KERAS)
    surprising = [str(note) for note in interop.translate(KERAS).notes if note.surprising]
    assert [str(warning.message) for warning in caught] == surprising
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    ("data", "writer"),
    [
        ({"class_name": "SGD"}, "keras"),
        ({"class_name": "SGD", "optimizer_config": {}}, "keras"),
        ({"optimizer_config": {}}, "model_garden"),
        ({"optimizer": {"type": "sgd"}, "learning_rate": {}}, "model_garden"),
        ({"optimizer": {"type": "sgd"}}, None),
        ({"type": "sgd", "learning_rate": 0.1}, None),
        ({}, None),
    ],
)
def test_who_wrote_it(tmp_path, data, writer):
    assert interop.identify_writer(data) == writer
    assert interop.identify_writer(str(in_a_file(data, tmp_path))) == writer


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"source": KERAS, "written_by": "keras 3"}, "written_by must be one of 'keras', 'transformers', .* None, got"),
        (
            {"source": KERAS, "written_by": "timm"},
            "has the keys of configs of Keras, and written_by says 'timm': leave",
        ),
        (
            {"source": RECIPE, "written_by": "keras"},
            "has the keys of recipes of Model Garden, and written_by says 'ker",
        ),
        ({"source": KERAS, "base": RECIPE}, "base is for recipes of Model Garden, and the source is written by 'ker"),
        ({"source": RECIPE, "class_name": "SGD"}, "class_name is for configs of Keras, and the source is written by"),
        ({"source": 3}, "source: 1 problem\n  must be a mapping or the path of a file, got 3"),
        (
            {"source": {"type": "sgd"}},
            "config: 1 problem\n  must have the keys of Keras .*got .'type'.: give written_by",
        ),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        interop.translate(**kwargs)


def test_errors_name_the_file(tmp_path):
    keras = in_a_file({"class_name": "SGD", "config": {"momentum": 3}}, tmp_path, "keras.json")
    recipe = in_a_file({"learning_rate": 3}, tmp_path, "recipe.json")
    empty = tmp_path / "empty.yaml"
    empty.write_text("\n")
    for file in (keras, recipe, empty):
        with pytest.raises(config.ConfigError) as caught:
            interop.translate(file)
        assert caught.value.subject == str(file)
    with pytest.raises(config.ConfigError, match="is empty"):
        interop.from_model_garden(empty)


@pytest.mark.parametrize(
    ("read", "source"),
    [
        (interop.from_model_garden, {"optimizer": {"type": "lars"}, "learning_rate": {"type": "cosine"}}),
        (interop.from_keras, {"class_name": "SGD", "config": {"learning_rate": {"class_name": "Unknown"}}}),
    ],
)
def test_a_rate_with_a_problem_is_not_warned_about_as_one_of_0(read, source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(config.ConfigError, match=r"learning_rate.*: (is missing|unknown class)"):
            read(source)


@pytest.mark.parametrize("warmup", [{}, {"warmup": {"type": "linear", "linear": {"warmup_steps": 0}}}])
def test_a_rate_of_0_stays_0(warmup):
    rate = {"type": "constant", "constant": {"learning_rate": 0.0}}
    recipe = interop.from_model_garden({"optimizer": {"type": "sgd"}, "learning_rate": rate, **warmup})
    assert recipe.optimizer.learning_rate == 0.0


def test_the_rooms_of_the_importers_publish_importers_alone():
    assert interop.keras.__all__ == ["from_keras", "to_keras", "translate_keras"]
    assert interop.model_garden.__all__ == ["from_model_garden", "translate_model_garden"]
