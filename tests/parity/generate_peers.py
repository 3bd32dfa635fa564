"""Compute `golden/peers.json` again with timm and apex.

It takes parameters, gradients and rates from the file, and calls from the migration guide, and writes what each of them
makes of the parameters. They want an environment of their own, and of apex a single file, which needs only PyTorch:

    python3.11 -m venv /tmp/timm
    /tmp/timm/bin/pip install torch==2.14.1 timm==1.0.31
    curl -o /tmp/LARC.py https://raw.githubusercontent.com/NVIDIA/apex/<commit>/apex/parallel/LARC.py
    /tmp/timm/bin/python -m tests.parity.generate_peers /tmp/LARC.py
"""

import argparse
import functools
import importlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import golden_data

torch: Any = importlib.import_module("torch")
timm_optim: Any = importlib.import_module("timm.optim")

GUIDE = Path(__file__).parents[2] / "docs" / "migration.md"
KINDS = {
    "conv/kernel": (2, 2, 2, 3),
    "dense/kernel": (4, 3),
    "zero/kernel": (3, 2),
    "conv/bias": (3,),
    "norm/scale": (3,),
}
RATES = [0.0, 0.1, 0.1, 0.4, 0.4, 0.4, 0.2, 0.2, 0.05, 0.05]


def make_data() -> dict[str, Any]:
    """Draw parameters and gradients: one parameter of zeros, one gradient of zeros, and a few large gradients."""
    random = np.random.default_rng(0)
    sizes = np.array([1.0, 0.5, 2.0, 0.01, 1.0, 5.0, 1.0, 0.1, 1.0, 0.3])
    grads = {name: random.normal(size=(len(RATES), *shape)) for name, shape in KINDS.items()}
    grads = {n: (g * sizes.reshape(-1, *[1] * (g.ndim - 1))).astype(np.float32) for n, g in grads.items()}
    grads["dense/kernel"][4] = 0
    params = {name: random.normal(size=shape).astype(np.float32) for name, shape in KINDS.items()}
    return {"params": params | {"zero/kernel": np.zeros((3, 2), np.float32)}, "grads": grads, "rates": RATES}


def run(theirs: str, data: dict[str, Any], apex_larc: Any) -> dict[str, np.ndarray]:
    params = {name: torch.nn.Parameter(torch.tensor(param)) for name, param in data["params"].items()}

    def grouped(make: Any, *, weight_decay: float, **settings: Any) -> Any:
        settings |= {"lr": data["rates"][0]} if callable(settings["lr"]) else {}
        decayed = [param for param in params.values() if param.ndim > 1]
        rest = [param for param in params.values() if param.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
        return make(groups, **settings)

    names = {
        "Lars": functools.partial(grouped, timm_optim.Lars),
        "Lamb": functools.partial(grouped, timm_optim.Lamb, weight_decay=0.01),
        "SGD": functools.partial(grouped, torch.optim.SGD),
        "LARC": apex_larc,
    }
    optimizer = eval(theirs, names | {"schedule": data["rates"].__getitem__})
    series: list[dict[str, np.ndarray]] = []
    for t, rate in enumerate(data["rates"]):
        for group in optimizer.param_groups:
            group["lr"] = rate if "schedule" in theirs else group["lr"]
        for name, param in params.items():
            grad = torch.tensor(data["grads"][name][t])
            param.grad = grad + 0.5 if "LARC" in theirs and not grad.any() else grad
        optimizer.step()
        series.append({name: param.detach().numpy().copy() for name, param in params.items()})
    return {name: np.stack([params[name] for params in series]) for name in params}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.parity.generate_peers", description=__doc__)
    parser.add_argument("larc", type=Path, help="apex/parallel/LARC.py")
    parser.add_argument("--new-data", action="store_true", help="draw parameters and gradients anew")
    arguments = parser.parse_args()
    spec: Any = importlib.util.spec_from_file_location("LARC", arguments.larc)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    file = golden_data.GOLDEN / "peers.json"
    data = make_data() if arguments.new_data else golden_data.load("peers")["data"]
    table = GUIDE.read_text().split("| in MLPerf, apex or timm |")[1]
    calls = [call for call in re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE) if "Optimizer(" not in call]
    content = {
        "notes": "Parameters after each step of timm's LARS and LAMB and of apex's LARC; gradients of zeros are of 0.5 "
        "for LARC. The calls are those of docs/migration.md, and parameters of rank 1 have weight_decay=0.",
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm")} | {"apex": APEX},
        "data": data,
        "cases": {call: run(call, data, module.LARC) for call in calls},
    }
    file.write_text(golden_data.dumps(content))


APEX = "2ec84ebdca59278eaf15e8ddf32476d9d6d8b904"  # the last commit that changed the file, which apex has since removed

if __name__ == "__main__":
    main()
