"""Write the small files of real software in ``data/files``, each with one Dense layer.

Run it once in each environment, from the root of the repository::

    python tests/interop/generate_files.py keras3 tf_keras more cards   # tensorflow 2.21, keras 3.15, tf_keras 2.21,
                                                                   # transformers 4.46, huggingface_hub 0.36
    python tests/interop/generate_files.py tf214                   # tensorflow 2.14

A file's name says who wrote it and what is in it; ``test_from_file.py`` says what each is read as.
"""

import importlib
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", TF_USE_LEGACY_KERAS="1")
FOLDER = Path(__file__).parent / "data" / "files"


def model(keras, optimizer):
    built = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    if optimizer is not None:
        built.compile(optimizer=optimizer, loss="mse")
    return built


def sgd(keras):
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100), momentum=0.9)


def write_keras3():
    import keras

    compiled = model(keras, sgd(keras))
    compiled.save(FOLDER / "keras3.keras")
    compiled.save(FOLDER / "keras3.h5")
    model(keras, None).save(FOLDER / "keras3_uncompiled.keras")
    compiled.save_weights(FOLDER / "keras3.weights.h5")
    model(keras, None).save(FOLDER / "keras3_uncompiled.h5")
    keras.mixed_precision.set_global_policy("mixed_float16")
    model(keras, keras.optimizers.Adam(0.001)).save(FOLDER / "keras3_mixed.keras")
    keras.mixed_precision.set_global_policy("float32")


def write_tf_keras(module, name):
    keras = importlib.import_module(module)
    compiled = model(keras, sgd(keras))
    compiled.save(FOLDER / f"{name}.keras")
    compiled.save(FOLDER / f"{name}.h5")
    with tempfile.TemporaryDirectory() as folder:
        compiled.save(folder, save_format="tf")
        (FOLDER / f"{name}_saved_model").mkdir(exist_ok=True)
        shutil.copy(f"{folder}/keras_metadata.pb", FOLDER / f"{name}_saved_model")


def write_more_of_tf_keras():
    import tf_keras as keras

    model(keras, None).save(FOLDER / "tf_keras_uncompiled.keras")
    model(keras, "adam").save(FOLDER / "tf_keras_name.keras")
    model(keras, keras.optimizers.legacy.Adam(0.001)).save(FOLDER / "tf_keras_legacy.h5")
    keras.mixed_precision.set_global_policy("mixed_float16")
    model(keras, keras.optimizers.Adam(0.001)).save(FOLDER / "tf_keras_mixed.keras")
    keras.mixed_precision.set_global_policy("float32")


def write_cards():
    import numpy as np
    import tf_keras

    # huggingface_hub imports it, and it imports torch, which is not needed for a card.
    sys.modules["safetensors.torch"] = types.SimpleNamespace(load_model=None, save_model=None, save_file=None)
    from huggingface_hub import keras_mixin
    from transformers import create_optimizer
    from transformers.modelcard import TrainingSummary

    def write(name, optimizer):
        compiled = model(tf_keras, optimizer)
        summary = TrainingSummary.from_keras(compiled, model_name="model", finetuned_from="none")
        (FOLDER / f"card_{name}.md").write_text(summary.to_model_card())

    write("warmup", create_optimizer(2e-5, num_train_steps=100, num_warmup_steps=10, weight_decay_rate=0.01)[0])
    write("numpy", tf_keras.optimizers.Adam(np.float32(3e-5)))
    write("uncompiled", None)
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    write("mixed", tf_keras.optimizers.legacy.SGD(0.1))
    tf_keras.mixed_precision.set_global_policy("float32")
    keras_mixin.keras = tf_keras
    table = keras_mixin._create_hyperparameter_table(model(tf_keras, sgd(tf_keras)))
    text = f"### Training hyperparameters\n\nThe following hyperparameters were used during training:\n\n{table}\n"
    (FOLDER / "card_table.md").write_text(text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for which in sys.argv[1:]:
        {
            "keras3": write_keras3,
            "tf_keras": lambda: write_tf_keras("tf_keras", "tf_keras"),
            "more": write_more_of_tf_keras,
            "tf214": lambda: write_tf_keras("tensorflow.keras", "tf214"),
            "cards": write_cards,
        }[which]()
