"""Record what big_vision, timm and Composer make of durations in words, in data/units.json.

Run in an environment with timm, from the repository's root, with a checkout of big_vision and an unpacked wheel of
mosaicml:

    python tests/config/generate_units.py --big-vision FOLDER --composer FOLDER
"""

import argparse
import ast
import importlib.util
import json
import sys
import types
from pathlib import Path

import timm
import torch
from timm.scheduler import create_scheduler_v2

RUNS = [(1_281_167, 4096, 90), (1_281_167, 2048, 300), (50_000, 128, 10), (60_000, 256, 3), (1000, 3, 7), (10, 4, 1)]
WORDS = [
    *("0 epochs", "0.001 epochs", "0.5 epochs", "1 epochs", "1.5 epochs", "2.4 epochs", "5 epochs"),
    *("0%", "0.001%", "5%", "10%", "12.5%", "33%", "100%"),
    *("0 examples", "1 examples", "300000 examples", "1280000 examples"),
]


def only(path: Path, function: str, names: dict) -> types.FunctionType:
    """Return one function of a file, whose module imports what need not be installed."""
    (found,) = (node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) == function)
    found.returns, found.args.defaults = None, found.args.defaults
    for argument in found.args.args:
        argument.annotation = None
    exec(compile(ast.Module([found], []), str(path), "exec"), names)
    return names[function]


def load_composer(folder: Path):
    """Return Composer's `_convert_time` and what it takes, without the rest of the package."""
    for name in ("composer", "composer.core", "composer.utils"):
        sys.modules[name] = package = types.ModuleType(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]

    def load(name: str):
        spec = importlib.util.spec_from_file_location(name, folder / f"{name.replace('.', '/')}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    sys.modules["composer.utils"].StringEnum = load("composer.utils.string_enum").StringEnum
    load("composer.core.serializable")
    time = load("composer.core.time")
    convert = only(
        folder / "composer/optim/scheduler.py", "_convert_time", {"Time": time.Time, "TimeUnit": time.TimeUnit}
    )
    return time.Time, convert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--big-vision", type=Path, required=True)
    parser.add_argument("--composer", type=Path, required=True)
    arguments = parser.parse_args()
    steps = only(arguments.big_vision / "big_vision/utils.py", "steps", {})
    time, convert = load_composer(arguments.composer)
    cases = []
    for examples, batch_size, epochs in RUNS:
        total = steps("total", {"total_epochs": epochs}, examples, batch_size)
        batches = examples // batch_size  # with the last, smaller one dropped
        for words in WORDS:
            case = {"examples": examples, "batch_size": batch_size, "epochs": epochs, "words": words}
            amount, unit = (words[:-1], "%") if words.endswith("%") else words.split()
            key, value = ("x_percent", float(amount) / 100) if unit == "%" else (f"x_{unit}", json.loads(amount))
            case["big_vision"] = steps("x", {key: value}, examples, batch_size, total)
            if unit == "epochs":
                optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
                scheduler, _ = create_scheduler_v2(
                    optimizer,
                    num_epochs=epochs,
                    warmup_epochs=json.loads(amount),
                    step_on_epochs=False,
                    updates_per_epoch=batches,
                )
                case["timm"] = scheduler.warmup_t
            if unit == "%" or (unit == "epochs" and float(amount).is_integer()):
                state = types.SimpleNamespace(max_duration=time(epochs, "ep"), dataloader_len=batches)
                text = f"{float(amount) / 100}dur" if unit == "%" else f"{int(float(amount))}ep"
                case["composer"] = convert(text, state).value
            cases.append(case)
    notes = {
        "big_vision": "big_vision.utils.steps, an epoch of examples / batch_size steps",
        "timm": f"warmup_t of timm {timm.__version__}'s create_scheduler_v2 with step_on_epochs=False, full batches",
        "composer": "composer.optim.scheduler._convert_time of mosaicml 0.32.1, full batches",
    }
    path = Path(__file__).parent / "data" / "units.json"
    lines = ",\n".join(f"  {json.dumps(case)}" for case in cases)
    path.write_text(f'{{\n "notes": {json.dumps(notes)},\n "cases": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
