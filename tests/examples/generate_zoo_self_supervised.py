"""Compute the recordings of self-supervised recipes, `data/zoo/imagenet_*.json`, again from the code of their sources.

It takes functions and classes out of the sources' files, parses the published command with the source's own parser, and
runs its schedule and its optimizer on five gradients. The sources are clones in one folder, of which it reads the files
at the commits below:

    git -C /tmp/sources clone https://github.com/google-research/simclr  # and the other repositories below

They want three environments: TensorFlow 2.21 for SimCLR; jax 0.4.25, optax 0.2.1, dm-tree and numpy below 2 for BYOL;
PyTorch 2.14 for the others:

    /tmp/tensorflow/bin/python -m tests.examples.generate_zoo_self_supervised /tmp/sources simclr simclr_older
    /tmp/jax/bin/python -m tests.examples.generate_zoo_self_supervised /tmp/sources byol
    /tmp/torch/bin/python -m tests.examples.generate_zoo_self_supervised /tmp/sources barlow_twins vicreg swav \
        moco_v3_resnet50 moco_v3_vit_base
"""

import argparse
import enum
import functools
import importlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.examples.zoo_sources import Sources, Tree, draw, telling_steps, write

IMAGES = 1_281_167
SIMCLR = "google-research/simclr@383d4143fd8cf7879ae10f1046a9baeb753ff438"
SIMCLR_OLDER = "google-research/simclr@85e8552d31e52fbfeb3d5d5ec30a1e9e1a0bf2a3"  # the last before 17 June 2020
BYOL = "google-deepmind/deepmind-research@f5de0ede8430809180254ee957abf36ed62579ef"
BARLOW_TWINS = "facebookresearch/barlowtwins@8e8d284ca0bc02f88b92328e53f9b901e86b4a3c"
VICREG = "facebookresearch/vicreg@4e12602fd495af83efd1631fbe82523e6db092e0"
SWAV = "facebookresearch/swav@06b1b7cbaf6ba2a792300d79c7299db98b93b7f9"
APEX = (
    "NVIDIA/apex@2ec84ebdca59278eaf15e8ddf32476d9d6d8b904"  # the last that changed LARC, which apex has since removed
)
MOCO_V3 = "facebookresearch/moco-v3@c349e6e24f40d3fedb22d973f92defa4cedf37a7"
RESNET = {
    "conv_init/kernel": (2, 3),
    "bn_init/scale": (3,),
    "bn_init/bias": (3,),
    "head/kernel": (3, 2),
    "head/bias": (2,),
}
RESNET_OF_SIMCLR = {name.replace("head/", "head_supervised/"): shape for name, shape in RESNET.items()}
VIT = {
    "embedding/kernel": (2, 3),
    "embedding/bias": (3,),
    "block/kernel": (3, 2),
    "block/bias": (2,),
    "norm/scale": (3,),
}


def simclr(folder: Path, recipe: str, source: str, command: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Run TensorFlow 1's code, whose momentum is float32; what it subtracts from a parameter is its momentum."""
    tf: Any = importlib.import_module("tensorflow").compat.v1
    absl: Any = importlib.import_module("absl.flags")
    sources = Sources(folder, source)
    flags = absl.FlagValues()
    define = {name: functools.partial(getattr(absl, name), flag_values=flags) for name in dir(absl) if "DEFINE" in name}
    sources.run_statements("run.py", "flags.DEFINE", {"flags": SimpleNamespace(**define)})
    flags(["run.py", *command.split()])
    lars = sources.take("lars_optimizer.py", ["EETA_DEFAULT", "LARSOptimizer"], tf=tf, re=re)
    world = {"tf": tf, "math": math, "FLAGS": flags}
    rule = sources.take("model_util.py", ["get_train_steps", "learning_rate_schedule"], **world)
    names = {name: name.replace("bn_init/scale", "batch_normalization/gamma") for name in shapes}
    names = {name: theirs.replace("bn_init/bias", "batch_normalization/beta") for name, theirs in names.items()}
    params, grads = draw(shapes, 1e-4)
    with tf.Graph().as_default(), tf.Session() as session:
        step, total = tf.train.get_or_create_global_step(), rule.get_train_steps(IMAGES)
        warmup = 10 * IMAGES // flags.train_batch_size
        rate = rule.learning_rate_schedule(flags.learning_rate, IMAGES)
        variables = {n: tf.get_variable(names[n], initializer=p.astype(np.float32)) for n, p in params.items()}
        gradients = {name: tf.placeholder(tf.float32, shape) for name, shape in shapes.items()}
        made_in = "model.py" if source == SIMCLR_OLDER else "model_util.py"
        world |= {"LARSOptimizer": lars.LARSOptimizer, "learning_rate": rate}
        optimizer = sources.call(made_in, "LARSOptimizer", **world)
        pairs = [(gradients[name], variables[name]) for name in shapes]
        train = optimizer.apply_gradients(pairs, global_step=step)
        momenta = {n: v for n in names for v in tf.global_variables() if v.op.name == f"{names[n]}/Momentum"}
        session.run(tf.global_variables_initializer())
        updates = []
        for grad in grads:
            before = session.run(rate)  # else the step that `train` counts may come before its rate
            session.run(train, {rate: before} | {gradients[name]: grad[name] for name in shapes})
            updates.append({name: 0 - value for name, value in session.run(momenta).items()})
        rates = []
        for number in telling_steps(warmup, total):
            session.run(step.assign(number))
            rates.append((number, session.run(rate)))
    content = {"rates": {"learning_rate": rates}, "params": params, "grads": grads, "start_step": 0}
    write(recipe, sources.words(), content | {"updates": updates})


def byol(folder: Path, recipe: str) -> None:
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    optax: Any = importlib.import_module("optax")
    sources = Sources(folder, BYOL)
    world: dict[str, Any] = {}
    exec(sources.text("byol/utils/optimizers.py"), world)
    exec(sources.text("byol/utils/schedules.py"), world)
    optimizers, schedules = SimpleNamespace(**world), SimpleNamespace(**world)
    dataset = sources.take("byol/utils/dataset.py", ["Split"], enum=enum, Text=str)
    presets = ["_LR_PRESETS", "_WD_PRESETS", "_EMA_PRESETS"]
    config = sources.take("byol/configs/byol.py", [*presets, "get_config"], dataset=dataset).get_config(1000, 4096)
    sources.read_files.append("byol/byol_experiment.py")  # its _update_fn is what follows
    total, warmup = config["max_steps"], config["lr_schedule_config"]["warmup_steps"]

    def rate_at(step: int) -> Any:
        settings = {"batch_size": 4096, "total_steps": total, **config["lr_schedule_config"]}
        return schedules.learning_schedule(jax.numpy.asarray(step), **settings)

    def ema_at(step: int) -> Any:
        return schedules.target_ema(jax.numpy.asarray(step), base_ema=config["base_target_ema"], max_steps=total)

    def make(rate: Any) -> Any:
        keep = optimizers.exclude_bias_and_norm
        filters = {"weight_decay_filter": keep, "lars_adaptation_filter": keep}
        return optimizers.lars(rate, **filters, **config["optimizer_config"])

    names = {  # of Haiku, by which the source excludes
        "conv_init/kernel": ("res_net50/~/initial_conv", "w"),
        "bn_init/scale": ("res_net50/~/initial_batchnorm", "scale"),
        "bn_init/bias": ("res_net50/~/initial_batchnorm", "offset"),
        "head/kernel": ("classifier", "w"),
        "head/bias": ("classifier", "b"),
    }

    def nest(tree: Tree) -> dict[str, Tree]:
        nested: dict[str, Tree] = {}
        for name, value in tree.items():
            nested.setdefault(names[name][0], {})[names[name][1]] = jax.numpy.asarray(value)
        return nested

    params, grads = draw(RESNET, 1e-4)
    online = target = nest(params)
    state, updates = make(0).init(online), []
    for step, grad in enumerate(grads, start=warmup // 2):  # where an update moves the average
        changes, state = make(rate_at(step)).update(nest(grad), state, online)
        online = optax.apply_updates(online, changes)
        tau = ema_at(step)
        target = jax.tree_map(lambda x, y, tau=tau: x + (1 - tau) * (y - x), target, online)
        updates.append({name: changes[module][leaf] for name, (module, leaf) in names.items()})
    average = {name: target[module][leaf] for name, (module, leaf) in names.items()}
    steps = telling_steps(warmup, total)
    rates = {"learning_rate": [(s, rate_at(s)) for s in steps], "ema_decay": [(s, ema_at(s)) for s in steps]}
    content = {"rates": rates, "params": params, "grads": grads, "start_step": warmup // 2}
    write(recipe, sources.words(), content | {"updates": updates, "average": average})


class Torch:
    """Parameters that an optimizer of PyTorch steps, and a source's schedule."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], size: float) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.params, self.grads = draw(shapes, size)
        self.parameters = {n: self.torch.nn.Parameter(self.torch.tensor(p)) for n, p in self.params.items()}
        self.model = SimpleNamespace(
            parameters=self.parameters.values, named_parameters=lambda: list(self.parameters.items())
        )

    def loader(self, batch_size: int, processes: int, *, drop_last: bool) -> Any:
        """Return the loader of one of several processes, for the number of its batches."""
        data, images = self.torch.utils.data, range(IMAGES)
        sampler = data.distributed.DistributedSampler(images, num_replicas=processes, rank=0)
        return data.DataLoader(images, batch_size=batch_size // processes, sampler=sampler, drop_last=drop_last)

    def update(self, optimizer: Any, grad: Tree, edit_grads: Callable[[], None] = lambda: None) -> Tree:
        """Take a step, and return new parameters minus old ones."""
        before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.grad = self.torch.tensor(grad[name]) if parameter.requires_grad else None
        edit_grads()
        optimizer.step()
        return {n: (parameter.detach() - before[n]).numpy() for n, parameter in self.parameters.items()}

    def content(self, start_step: int = 0) -> dict[str, Any]:
        return {"params": self.params, "grads": self.grads, "start_step": start_step}


def barlow_twins(folder: Path, recipe: str) -> None:
    case, sources = Torch(RESNET, 1e-4), Sources(folder, BARLOW_TWINS)
    torch = case.torch
    args = sources.arguments("main.py", "/path/to/imagenet/")
    code = sources.take("main.py", ["LARS", "adjust_learning_rate"], torch=torch, optim=torch.optim, math=math)
    loader = case.loader(args.batch_size, 16, drop_last=False)
    weights = [param for param in case.parameters.values() if param.ndim != 1]
    biases = [param for param in case.parameters.values() if param.ndim == 1]
    parameters = [{"params": weights}, {"params": biases}]
    optimizer = sources.call("main.py", "LARS", LARS=code.LARS, parameters=parameters, args=args)

    def rates_at(step: int) -> list[float]:
        code.adjust_learning_rate(args, optimizer, loader, step)
        return [group["lr"] for group in optimizer.param_groups]

    updates = []
    for step, grad in enumerate(case.grads):
        rates_at(step)
        updates.append(case.update(optimizer, grad))
    steps = telling_steps(10 * len(loader), args.epochs * len(loader))
    names = {"learning_rate/rest": 0, "learning_rate/biases": 1}
    rates = {name: [(step, rates_at(step)[index]) for step in steps] for name, index in names.items()}
    write(recipe, sources.words(), {"rates": rates, **case.content(), "updates": updates})


def vicreg(folder: Path, recipe: str) -> None:
    case, sources = Torch(RESNET, 1e-4), Sources(folder, VICREG)
    torch = case.torch
    command = "--data-dir /path/to/imagenet --arch resnet50 --epochs 1000 --batch-size 2048 --base-lr 0.2"
    args = sources.arguments("main_vicreg.py", command)
    names = ["LARS", "adjust_learning_rate", "exclude_bias_and_norm"]
    code = sources.take("main_vicreg.py", names, torch=torch, optim=torch.optim, math=math)
    loader = case.loader(args.batch_size, 4 * 8, drop_last=False)
    optimizer = sources.call("main_vicreg.py", "LARS", model=case.model, args=args, **vars(code))

    def rate_at(step: int) -> float:
        return code.adjust_learning_rate(args, optimizer, loader, step)

    updates = []
    for step, grad in enumerate(case.grads):
        rate_at(step)
        updates.append(case.update(optimizer, grad))
    steps = telling_steps(10 * len(loader), args.epochs * len(loader))
    rates = {"learning_rate": [(step, rate_at(step)) for step in steps]}
    write(recipe, sources.words(), {"rates": rates, **case.content(), "updates": updates})


def swav(folder: Path, recipe: str) -> None:
    """Start two steps before the prototypes thaw."""
    case, sources = Torch(RESNET | {"prototypes/kernel": (2, 3)}, 1e-2), Sources(folder, SWAV)
    apex, torch = Sources(folder, APEX), case.torch
    command = sources.text("scripts/swav_800ep_pretrain.sh").split("main_swav.py")[1].replace("\\\n", " ")
    args = sources.arguments("main_swav.py", command, bool_flag=str)
    larc = apex.take("apex/parallel/LARC.py", ["LARC"], torch=torch).LARC
    loader = case.loader(64 * args.batch_size, 64, drop_last=True)
    sgd = sources.call("main_swav.py", "torch.optim.SGD", torch=torch, model=case.model, args=args)
    optimizer = sources.call("main_swav.py", "LARC", LARC=larc, optimizer=sgd)
    names = ["warmup_lr_schedule", "iters", "cosine_lr_schedule", "lr_schedule"]
    schedule = sources.take("main_swav.py", names, np=np, math=math, args=args, train_loader=loader).lr_schedule
    start, updates = args.freeze_prototypes_niters - 2, []
    with torch.no_grad():
        case.parameters["bn_init/bias"].zero_()  # as a network starts
    case.params["bn_init/bias"][:] = 0
    for iteration, grad in enumerate(case.grads, start=start):
        for group in optimizer.param_groups:
            group["lr"] = schedule[iteration]

        def freeze(iteration: int = iteration) -> None:  # main_swav.py, line 325
            if iteration < args.freeze_prototypes_niters:
                case.parameters["prototypes/kernel"].grad = None

        updates.append(case.update(optimizer, grad, freeze))
    steps = telling_steps(args.warmup_epochs * len(loader), args.epochs * len(loader))
    moving = {"learning_rate/rest": 0, "learning_rate/prototypes": args.freeze_prototypes_niters}
    rates = {name: [(step, schedule[step]) for step in steps if step >= first] for name, first in moving.items()}
    words = f"{sources.words()}; {apex.words()}"
    write(recipe, words, {"rates": rates, **case.content(start), "updates": updates})


def moco_v3(folder: Path, recipe: str, command: str, shapes: Mapping[str, tuple[int, ...]], processes: int) -> None:
    """Record as the average after a step what the next step takes: the source averages before it steps."""
    case, sources = Torch(shapes, 1e-4), Sources(folder, MOCO_V3)
    torch = case.torch
    args = sources.arguments("main_moco.py", f"{command} /path/to/imagenet", model_names=["resnet50", "vit_base"])
    code = sources.take("main_moco.py", ["adjust_learning_rate", "adjust_moco_momentum"], math=math)
    average = sources.take("moco/builder.py", ["_update_momentum_encoder"], torch=torch)._update_momentum_encoder
    epoch_steps = len(case.loader(args.batch_size, processes, drop_last=True))
    args.lr = args.lr * args.batch_size / 256  # main_moco.py, line 190
    if args.stop_grad_conv1:  # vits.py, line 50
        for name in ("embedding/kernel", "embedding/bias"):
            case.parameters[name].requires_grad = False
    lars = sources.take("moco/optimizer.py", ["LARS"], torch=torch)
    world = {"torch": torch, "moco": SimpleNamespace(optimizer=lars), "model": case.model, "args": args}
    function = {"lars": "moco.optimizer.LARS", "adamw": "torch.optim.AdamW"}[args.optimizer]
    optimizer = sources.call("main_moco.py", function, **world)

    def epoch_of(step: int) -> float:  # main_moco.py, line 342
        return step // epoch_steps + step % epoch_steps / epoch_steps

    def rate_at(step: int) -> float:
        return code.adjust_learning_rate(optimizer, epoch_of(step), args)

    def ema_at(step: int) -> float:
        return code.adjust_moco_momentum(epoch_of(step), args)

    encoder = [torch.nn.Parameter(parameter.detach().clone()) for parameter in case.parameters.values()]
    both = SimpleNamespace(base_encoder=case.model, momentum_encoder=SimpleNamespace(parameters=lambda: encoder))
    # Half way up, an update moves the average; but AdamW's first steps are those of its bias correction.
    updates, start = [], args.warmup_epochs * epoch_steps // 2 if args.optimizer == "lars" else 0
    average(both, ema_at(start))
    for step, grad in enumerate(case.grads, start=start):
        rate_at(step)
        updates.append(case.update(optimizer, grad))
        average(both, ema_at(step + 1))
    means = {name: mean.detach().numpy() for name, mean in zip(shapes, encoder, strict=True)}
    steps = telling_steps(args.warmup_epochs * epoch_steps, args.epochs * epoch_steps)
    rates = {
        "learning_rate": [(step, rate_at(step)) for step in steps],
        "ema_decay": [(step, ema_at(step + 1)) for step in steps],
    }
    content = {"rates": rates, **case.content(start), "updates": updates, "average": means}
    write(recipe, sources.words(), content)


RECIPES: dict[str, tuple[str, Callable[..., None], dict[str, Any]]] = {
    "simclr": (
        "imagenet_simclr_lars_4096",
        simclr,
        {
            "source": SIMCLR,
            "command": "--train_mode=pretrain --train_batch_size=4096 --train_epochs=100 --temperature=0.1 "
            "--learning_rate=0.075 --learning_rate_scaling=sqrt --weight_decay=1e-4",
            "shapes": RESNET_OF_SIMCLR,
        },
    ),
    "simclr_older": (
        "imagenet_simclr_lars_4096_older",
        simclr,
        {
            "source": SIMCLR_OLDER,
            "command": "--train_mode=pretrain --train_batch_size=4096 --train_epochs=100 "
            "--learning_rate=0.3 --weight_decay=1e-6 --temperature=0.1",
            "shapes": RESNET,
        },
    ),
    "byol": ("imagenet_byol_lars_4096", byol, {}),
    "barlow_twins": ("imagenet_barlow_twins_lars_2048", barlow_twins, {}),
    "vicreg": ("imagenet_vicreg_lars_2048", vicreg, {}),
    "swav": ("imagenet_swav_larc_4096", swav, {}),
    "moco_v3_resnet50": (
        "imagenet_moco_v3_resnet50_lars_4096",
        moco_v3,
        {"command": "--moco-m-cos --crop-min=.2", "shapes": RESNET, "processes": 16},
    ),
    "moco_v3_vit_base": (
        "imagenet_moco_v3_vit_base_adamw_4096",
        moco_v3,
        {
            "command": "-a vit_base --optimizer=adamw --lr=1.5e-4 --weight-decay=.1 --epochs=300 --warmup-epochs=40 "
            "--stop-grad-conv1 --moco-m-cos --moco-t=.2",
            "shapes": VIT,
            "processes": 64,
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="the folder of the clones")
    parser.add_argument("methods", nargs="+", choices=list(RECIPES))
    arguments = parser.parse_args()
    for method in arguments.methods:
        recipe, record, settings = RECIPES[method]
        record(arguments.sources, recipe, **settings)


if __name__ == "__main__":
    main()
