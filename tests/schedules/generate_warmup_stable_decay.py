"""Compute `data/warmup_stable_decay.json` again: the rates of transformers' `get_wsd_schedule`.

They want an environment of their own:

    python3.11 -m venv /tmp/timm
    /tmp/timm/bin/pip install torch==2.14.1 transformers==5.24.0
    /tmp/timm/bin/python -m tests.schedules.generate_warmup_stable_decay

Each case has the arguments of our schedule, and the rates of all steps and some more.
"""

import importlib
import importlib.metadata
import itertools
from pathlib import Path
from typing import Any

from tests.parity import golden_data

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")

FILE = Path(__file__).parent / "data" / "warmup_stable_decay.json"
PEAK = 0.003
PARTS = [(5, 8, 9), (0, 6, 7), (4, 0, 10), (3, 5, 1)]


def run(parts: tuple[int, int, int], decay_type: str, min_lr_ratio: float) -> dict[str, Any]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    warmup_steps, stable_steps, decay_steps = parts
    scheduler = transformers.get_wsd_schedule(
        optimizer,
        num_warmup_steps=warmup_steps,
        num_stable_steps=stable_steps,
        num_decay_steps=decay_steps,
        decay_type=decay_type,
        min_lr_ratio=min_lr_ratio,
    )
    rates: list[float] = []
    for _ in range(sum(parts) + 3):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    arguments = {
        "learning_rate": PEAK,
        "warmup_steps": warmup_steps,
        "stable_steps": stable_steps,
        "decay_steps": decay_steps,
        "decay_type": decay_type,
        "warmup_learning_rate": PEAK * min_lr_ratio,
        "end_learning_rate": PEAK * min_lr_ratio,
    }
    return {"arguments": arguments, "rates": rates}


def main() -> None:
    kinds = itertools.product(PARTS, ("linear", "cosine", "1-sqrt"), (0.0, 0.15))
    content = {
        "notes": "Made by tests/schedules/generate_warmup_stable_decay.py: see there.",
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        "cases": [run(*case) for case in kinds],
    }
    FILE.write_text(golden_data.dumps(content))


if __name__ == "__main__":
    main()
