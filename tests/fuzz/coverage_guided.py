"""A coverage-guided fuzzer of everything that reads a config: atheris, with the real recipes as its first corpus.

It is a script, for a Python that has atheris, and no part of the test suite; README.md has the command and what the
last run found. The first byte of an input chooses what reads the rest.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["optax_ext._core", "optax_ext.config", "optax_ext.interop", "yaml"]):
    import yaml

    from optax_ext import config, interop

import optax

from optax_ext import path_mask

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRATCH = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", f"optax_ext_fuzz_{os.getpid()}")
PARAMS = {"conv": {"kernel": 1.0, "bias": 0.0}, "a" * 200: 1.0}  # where a slow pattern takes long


def from_file(read, suffix):
    def target(text):
        path = SCRATCH.with_suffix(suffix)
        path.write_bytes(text)
        return read(path)

    return target


def from_data(read, parse):
    def target(text):
        try:
            data = parse(text)
        except (ValueError, RecursionError, yaml.YAMLError):
            return None
        except (KeyError, AttributeError, TypeError):  # PyYAML's own, of tags that it trusts
            return None
        return read(data)

    return target


def over_itself(data):
    return interop.from_model_garden(data, base=data)


TARGETS = [
    from_file(config.load, ".yaml"),
    from_file(config.load, ".json"),
    from_data(config.from_dict, json.loads),
    from_data(config.from_dict, yaml.safe_load),
    from_data(interop.from_keras, json.loads),
    from_data(interop.from_keras, yaml.safe_load),
    from_data(interop.from_model_garden, yaml.safe_load),
    from_data(over_itself, yaml.safe_load),
    from_file(interop.from_model_garden, ".yaml"),
    from_file(interop.from_model_garden, ".json"),
]


def check(read):
    """What was read is written and read back equal, as data and as a file, and is made and initialised."""
    data = config.to_dict(read)
    assert config.from_dict(data) == read, data
    path = SCRATCH.with_suffix(".out.yaml")
    config.save(read, path)
    assert config.load(path) == read, data
    for name in ("exclude_from_weight_decay", "exclude_from_layer_adaptation", "include_in_weight_decay"):
        if patterns := getattr(getattr(read, "optimizer", read), name, None):
            path_mask(exclude=patterns, allow_unmatched=True)(PARAMS)
    if hasattr(read, "make"):
        assert isinstance(read.make(), optax.GradientTransformation)


def test_one_input(data):
    if not data:
        return
    try:
        read = TARGETS[data[0] % len(TARGETS)](data[1:])
        if read is not None:
            check(read)
    except config.ConfigError as error:
        assert error.problems
        assert all(problem.message and problem.path.isprintable() for problem in error.problems), error.problems


def seeds(folder):
    """Write the real recipes, each for the targets that read its like."""
    recipes = [path.read_bytes() for path in sorted((ROOT / "examples" / "configs").glob("*.yaml"))]
    written = [(0, text) for text in recipes] + [(3, text) for text in recipes]
    written += [(1, config_json(text)) for text in recipes] + [(2, config_json(text)) for text in recipes]
    data = ROOT / "tests" / "interop" / "data"
    for record in json.loads((data / "model_garden.json").read_text())["records"]:
        runtime = {key: record[key] for key in ("mixed_precision_dtype", "loss_scale") if key in record}
        own = {"runtime": runtime, "trainer": {"optimizer_config": record["optimizer_config"]}}
        text = json.dumps(own).encode()
        written += [(target, text) for target in (6, 7, 8, 9)] if len(text) < 2000 else []
    for case in json.loads((data / "configs.json").read_text())["cases"]:
        text = json.dumps(case["serialized"]).encode()
        written += [(4, text), (5, text)]
    for index, (target, text) in enumerate(written):
        (folder / f"seed_{index}").write_bytes(bytes([target]) + text)
    words = {word for _, text in written for word in text.decode().replace('"', " ").replace(":", " ").split()}
    entries = (f'"{word}"' for word in sorted(words) if word.replace("_", "").isalnum())
    (folder.parent / "words.dict").write_text("\n".join(entries) + "\n")


def config_json(text):
    return json.dumps(config.to_dict(config.from_dict(yaml.safe_load(text)))).encode()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "seeds":  # coverage_guided.py seeds FOLDER
        target = Path(sys.argv[2])
        target.mkdir(parents=True, exist_ok=True)
        seeds(target)
    else:
        atheris.Setup(sys.argv, test_one_input)
        atheris.Fuzz()
