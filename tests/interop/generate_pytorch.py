"""Compute `data/pytorch.json` again: what transformers' Trainer and timm make of their arguments.

They want an environment of their own:

    python3.11 -m venv /tmp/timm
    /tmp/timm/bin/pip install torch==2.14.1 timm==1.0.31 transformers==5.24.0 accelerate bitsandbytes
    /tmp/timm/bin/python -m tests.interop.generate_pytorch

Each case has the arguments, the rates of all steps, and, where it has `steps`, the parameters after each of them.
"""

import argparse
import copy
import importlib
import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import golden_data

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
timm: Any = importlib.import_module("timm")
timm_optim: Any = importlib.import_module("timm.optim")
timm_scheduler: Any = importlib.import_module("timm.scheduler")
timm_utils: Any = importlib.import_module("timm.utils")

FILE = Path(__file__).parent / "data" / "pytorch.json"
STEPS = 6
# Among the parameters are a bias with two axes, and a matrix that has `bias` in its name.
SHAPES = {
    "dense.weight": (2, 3),
    "dense.bias": (2,),
    "norm.weight": (2,),
    "norm.bias": (2,),
    "heads.bias": (2, 2),
    "relative_attention_bias.weight": (3, 2),
}

WARM = {"learning_rate": 2e-3, "warmup_steps": 4}
TRAINER_RATES: list[dict[str, Any]] = [
    {"lr_scheduler_type": "linear", **WARM},
    {"lr_scheduler_type": "linear", "warmup_steps": 0.15},
    {"lr_scheduler_type": "linear", "warmup_steps": 40},
    {"lr_scheduler_type": "cosine", **WARM},
    {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.5}},
    {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 0.25}},
    {"lr_scheduler_type": "cosine_with_restarts", **WARM},
    {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 4}, **WARM},
    {"lr_scheduler_type": "polynomial", **WARM},
    {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1e-4, "power": 2.5}, **WARM},
    {"lr_scheduler_type": "constant", **WARM},
    {"lr_scheduler_type": "constant_with_warmup", **WARM},
    {"lr_scheduler_type": "inverse_sqrt", **WARM},
    {"lr_scheduler_type": "inverse_sqrt"},
    {"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 2}, **WARM},
    {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 2e-4}, **WARM},
    {
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.25, "num_cycles": 1.0},
        **WARM,
    },
    {"lr_scheduler_type": "cosine_warmup_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, **WARM},
    {"lr_scheduler_type": "cosine_warmup_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
    {
        "lr_scheduler_type": "cosine_warmup_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.3},
        **WARM,
    },
    {
        "lr_scheduler_type": "cosine_warmup_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 1e-4, "warmup_lr_rate": 0.3},
        "learning_rate": 2e-3,
        "warmup_steps": 1,
    },
    {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 8}, **WARM},
    {
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": 8, "decay_type": "linear", "min_lr_ratio": 0.2},
        **WARM,
    },
    {
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {
            "num_decay_steps": 6,
            "num_stable_steps": 5,
            "warmup_type": "cosine",
            "min_lr_ratio": 0.1,
        },
        **WARM,
    },
    {
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": 7, "decay_type": "1-sqrt"},
        **WARM,
    },
]
TRAINER_STEPS: list[dict[str, Any]] = [
    {"weight_decay": 0.1, "learning_rate": 0.01, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-3},
    {"weight_decay": 0.1, "learning_rate": 0.01, "max_grad_norm": 0.0, "lr_scheduler_type": "cosine"},
    {"optim": "sgd", "learning_rate": 0.1, "weight_decay": 0.05, "max_grad_norm": 2.0},
    {"optim": "sgd", "learning_rate": 0.1, "optim_args": "momentum=0.9, nesterov=True", "max_grad_norm": None},
    {"optim": "rmsprop", "learning_rate": 0.01, "weight_decay": 0.05, "optim_args": "alpha=0.8,centered=True"},
    {"optim": "rmsprop", "learning_rate": 0.01, "weight_decay": 0.05, "optim_args": "momentum=0.8"},
    {"optim": "adagrad", "learning_rate": 0.1, "weight_decay": 0.05, "optim_args": "lr_decay=0.1,eps=1e-4"},
    {"optim": "lion_32bit", "learning_rate": 0.01, "weight_decay": 0.05},
    {"optim": "paged_adamw_32bit", "learning_rate": 1e-4, "weight_decay": 0.05},
]

# All that train.py reads of the optimizer and the schedule, with its defaults.
TIMM: dict[str, Any] = {
    "opt": "sgd",
    "opt_eps": None,
    "opt_betas": None,
    "momentum": 0.9,
    "weight_decay": 2e-5,
    "clip_grad": None,
    "clip_mode": "norm",
    "opt_kwargs": {},
    "sched": "cosine",
    "sched_on_updates": False,
    "lr": 0.5,
    "lr_noise": None,
    "lr_cycle_mul": 1.0,
    "lr_cycle_decay": 0.5,
    "lr_cycle_limit": 1,
    "lr_k_decay": 1.0,
    "warmup_lr": 1e-5,
    "min_lr": 0.0,
    "epochs": 12,
    "decay_milestones": [4, 7],
    "decay_epochs": 3.0,
    "warmup_epochs": 3,
    "warmup_prefix": False,
    "cooldown_epochs": 0,
    "decay_rate": 0.1,
    "model_ema": False,
    "model_ema_decay": 0.9998,
    "grad_accum_steps": 1,
}
_UPDATES = {"sched_on_updates": True}
_CYCLES = {"lr_cycle_limit": 3, "lr_cycle_decay": 0.6, "epochs": 5, "min_lr": 0.01, "cooldown_epochs": 2}
TIMM_RATES: list[dict[str, Any]] = [
    {},
    {"min_lr": 0.05, "warmup_prefix": True, "cooldown_epochs": 2},
    {"warmup_epochs": 0, "lr_k_decay": 1.5},
    {**_CYCLES, "warmup_epochs": 2},
    {**_CYCLES, "lr_cycle_mul": 1.5, "warmup_prefix": True},
    {"sched": "tanh", "min_lr": 0.01},
    {"sched": "tanh", **_CYCLES},
    {"sched": "poly", "decay_rate": 1.5, "lr_k_decay": 0.5, "min_lr": 0.01},
    {"sched": "step", "decay_epochs": 2.4, "decay_rate": 0.97},
    {"sched": "step", "warmup_prefix": True, "decay_rate": 0.5},
    {"sched": "multistep", "warmup_epochs": 0},
    {"sched": "multistep", "warmup_prefix": True},
    {"sched": "constant"},
    {"sched": "none"},
    {"sched": "wsd", "decay_epochs": 0.25, "min_lr": 0.01},
    {"sched": "wsd", "decay_epochs": 4, "lr_decay_fn": "exp", "warmup_prefix": True},
    {"sched": "wsd", "decay_epochs": 4, "lr_decay_fn": "power", "warmup_epochs": 0},
    {"sched": "rsqrt", "decay_epochs": 4, "min_lr": 0.2},
    {"sched": "rsqrt", "decay_epochs": 4, "lr_stable_timescale": 2, "lr_decay_fn": "cosine"},
    {**_UPDATES, "min_lr": 0.05},
    {**_UPDATES, "min_lr": 0.05, "warmup_prefix": True},
    {**_UPDATES, "warmup_epochs": 0, "cooldown_epochs": 2},
    {**_UPDATES, "sched": "poly", "decay_rate": 2.0, "min_lr": 0.01},
    {**_UPDATES, "sched": "step", "decay_epochs": 2.4, "decay_rate": 0.97},
    {**_UPDATES, "sched": "step", "decay_epochs": 2.0, "warmup_prefix": True, "warmup_epochs": 1},
    {**_UPDATES, "sched": "multistep"},
    {**_UPDATES, "sched": "multistep", "warmup_epochs": 1, "warmup_prefix": True},
    {**_UPDATES, "sched": "constant"},
    {**_UPDATES, "sched": "wsd", "decay_epochs": 4, "lr_decay_fn": "linear", "min_lr": 0.01},
    {**_UPDATES, "sched": "wsd", "decay_epochs": 0.5, "lr_decay_fn": "cosine", "warmup_prefix": True},
]
_MOVING = {"sched_on_updates": True, "epochs": 2, "warmup_epochs": 1, "warmup_lr": 0.05, "weight_decay": 0.05}
TIMM_STEPS: list[dict[str, Any]] = [
    {**_MOVING, "lr": 0.2, "model_ema": True, "model_ema_decay": 0.7},
    {**_MOVING, "opt": "momentum", "momentum": 0.8, "clip_grad": 1.0, "warmup_prefix": True},
    {
        **_MOVING,
        "opt": "sgd",
        "opt_kwargs": {"nesterov": False},
        "momentum": 0.0,
        "clip_grad": 0.3,
        "clip_mode": "value",
    },
    {**_MOVING, "opt": "adamw", "lr": 0.02, "opt_eps": 1e-3, "opt_betas": [0.8, 0.95], "clip_grad": 2.0},
    {**_MOVING, "opt": "adam", "lr": 0.02, "weight_decay": 0.0},
    {**_MOVING, "opt": "lamb", "lr": 0.02, "clip_grad": 0.3},
    {**_MOVING, "opt": "lambc", "lr": 0.02, "weight_decay": 0.0, "opt_kwargs": {"max_grad_norm": None}},
    {**_MOVING, "opt": "lamb", "lr": 0.02, "opt_kwargs": {"always_adapt": True, "trust_clip": True}},
    {**_MOVING, "opt": "nlars", "sched": "none"},
    {**_MOVING, "opt": "lars", "momentum": 0.0},
    {**_MOVING, "opt": "rmsprop", "lr": 0.01, "momentum": 0.0},
    {**_MOVING, "opt": "rmsprop", "lr": 0.01, "opt_kwargs": {"centered": True}},
    {**_MOVING, "opt": "rmsproptf", "lr": 0.01, "opt_eps": 1e-3},
    {**_MOVING, "opt": "rmsproptfw", "lr": 0.01, "opt_kwargs": {"centered": True, "lr_in_momentum": False}},
    {**_MOVING, "opt": "nadam", "lr": 0.01},
    {**_MOVING, "opt": "lion", "lr": 0.01},
    {**_MOVING, "opt": "adadelta", "lr": 0.5},
    {**_MOVING, "opt": "adagrad", "lr": 0.1},
]
STEPS_PER_EPOCH = 5


def make_data() -> dict[str, Any]:
    """Draw parameters and gradients, of which some are large enough to be clipped."""
    random = np.random.default_rng(0)
    sizes = np.array([1.0, 0.2, 3.0, 0.05, 1.0, 0.5])
    grads = {
        name: random.normal(size=(STEPS, *shape)) * sizes.reshape(-1, *[1] * len(shape))
        for name, shape in SHAPES.items()
    }
    params = {name: random.normal(size=shape) for name, shape in SHAPES.items()}
    return {
        "params": {name: param.astype(np.float32) for name, param in params.items()},
        "grads": {name: grad.astype(np.float32) for name, grad in grads.items()},
    }


def make_model(data: dict[str, Any]) -> Any:
    class Heads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(2, 2))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(3, 2)
            self.norm = torch.nn.LayerNorm(2)
            self.heads = Heads()
            self.relative_attention_bias = torch.nn.Embedding(3, 2)

    model = Model()
    for name, param in model.named_parameters():
        param.data = torch.tensor(data["params"][name])
    return model


def set_gradients(model: Any, data: dict[str, Any], step: int) -> None:
    for name, param in model.named_parameters():
        param.grad = torch.tensor(data["grads"][name][step])


def stack(series: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([params[name] for params in series]) for name in SHAPES}


def values_of(model: Any) -> dict[str, np.ndarray]:
    return {name: param.detach().numpy().copy() for name, param in model.named_parameters()}


def run_trainer(arguments: dict[str, Any], total: int, steps: int, data: dict[str, Any]) -> dict[str, Any]:
    model = make_model(data)
    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(output_dir=folder, use_cpu=True, report_to=[], **arguments)
        trainer = transformers.Trainer(model=model, args=args)
        trainer.create_optimizer_and_scheduler(num_training_steps=total)
    rates, series = [], []
    for step in range(steps or total):
        rates.append(np.float32(trainer.optimizer.param_groups[0]["lr"]))
        if steps:
            set_gradients(model, data, step)
        if steps and args.max_grad_norm is not None and args.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        series.append(values_of(model))
    case = {"arguments": arguments, "num_training_steps": total, "rates": rates}
    return case | ({"params": stack(series)} if steps else {})


def run_timm(changes: dict[str, Any], steps: int, data: dict[str, Any]) -> dict[str, Any]:
    model, args = make_model(data), argparse.Namespace(**(TIMM | changes))
    kwargs = timm_optim.optimizer_kwargs(cfg=args)
    optimizer = timm_optim.create_optimizer_v2(model, **kwargs, **args.opt_kwargs)
    scheduler, epochs = timm_scheduler.create_scheduler_v2(
        optimizer, **timm_scheduler.scheduler_kwargs(args), updates_per_epoch=STEPS_PER_EPOCH
    )
    ema = timm_utils.ModelEmaV3(model, decay=args.model_ema_decay) if args.model_ema else None
    rates: list[Any] = []
    series: list[Any] = []
    averages: list[Any] = []
    updates = 0
    for epoch in range(int(epochs)):
        for _ in range(STEPS_PER_EPOCH):
            rates.append(np.float32(optimizer.param_groups[0]["lr"]))
            if updates < steps:
                set_gradients(model, data, updates)
                if args.clip_grad is not None:
                    timm_utils.dispatch_clip_grad(model.parameters(), args.clip_grad, mode=args.clip_mode)
                optimizer.step()
                series.append(values_of(model))
            updates += 1
            if updates <= steps and ema is not None:
                ema.update(model, step=updates)
                averages.append(copy.deepcopy(values_of(ema.module)))
            if scheduler is not None:
                scheduler.step_update(num_updates=updates)
        if scheduler is not None:
            scheduler.step(epoch + 1, None)
    case: dict[str, Any] = {"arguments": changes, "steps_per_epoch": STEPS_PER_EPOCH, "rates": rates}
    case |= {"params": stack(series)} if steps else {}
    return case | ({"averages": stack(averages)} if averages else {})


def main() -> None:
    data = make_data()
    scaler = torch.amp.GradScaler(device="cpu")
    content = {
        "notes": "Made by tests/interop/generate_pytorch.py: see there. The numbers of grad_scaler are its defaults.",
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "timm", "transformers", "accelerate")
        },
        "grad_scaler": {
            "initial_scale": scaler.get_scale(),
            "growth_steps": scaler.get_growth_interval(),
            "multiplier": scaler.get_growth_factor(),
            "backoff": scaler.get_backoff_factor(),
        },
        "schedulers": sorted(kind.value for kind in transformers.trainer_utils.SchedulerType),
        "optimizers": sorted(kind.value for kind in transformers.training_args.OptimizerNames),
        "timm_optimizers": sorted(timm_optim.list_optimizers()),
        "timm_defaults": TIMM,
        "data": data,
        "trainer_rates": [run_trainer(arguments, 24, 0, data) for arguments in TRAINER_RATES],
        "trainer_steps": [run_trainer(arguments, 10, STEPS, data) for arguments in TRAINER_STEPS],
        "timm_rates": [run_timm(changes, 0, data) for changes in TIMM_RATES],
        "timm_steps": [run_timm(changes, STEPS, data) for changes in TIMM_STEPS],
    }
    FILE.write_text(golden_data.dumps(content))


if __name__ == "__main__":
    main()
