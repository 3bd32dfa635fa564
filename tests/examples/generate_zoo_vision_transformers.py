"""Record the zoo's recipes of MAE, ResNet strikes back and ViT again, by running the code that they are from.

Each family wants a folder with its source, and an environment that runs it:

    git clone https://github.com/facebookresearch/mae /tmp/mae
    git clone https://github.com/google-research/big_vision /tmp/big_vision
    git clone https://github.com/google-research/vision_transformer /tmp/vit
    python3.11 -m venv /tmp/timm && /tmp/timm/bin/pip install torch==2.14.1 torchvision==0.29.1 timm==0.5.4
    /tmp/timm/bin/python -m tests.examples.generate_zoo_vision_transformers mae --source /tmp/mae
    /tmp/timm/bin/python -m tests.examples.generate_zoo_vision_transformers timm
    python -m tests.examples.generate_zoo_vision_transformers big_vision --source /tmp/big_vision
    python -m tests.examples.generate_zoo_vision_transformers vision_transformer --source /tmp/vit

The code runs in float64, so that updates, the differences of parameters, are exact to more digits than are kept.
MAE asks for timm 0.3.2, which no longer imports; timm 0.5.4 has the same function `add_weight_decay`.
"""

import argparse
import importlib
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import golden_data

DATA = Path(__file__).parent / "data" / "zoo"
MAE = "facebookresearch/mae@efb2a8062c206524e35e47d04501ed4f544c0ae8"
TIMM = "timm 0.5.4 (PyPI)"
BIG_VISION = "google-research/big_vision@0127fb6b337ee2a27bf4e54dea79cff176527356"
VIT = "google-research/vision_transformer@c6de1e5378c9831a8477feb30994971bdc409e46"
STEPS = 5

Arrays = Mapping[str, np.ndarray]

# ---------------------------------------------------------------------------------------------------------
# Parameters, by their paths in Flax. Biases of attention have two axes there and one in PyTorch.

VIT_SHAPES = {
    "cls": (1, 1, 2),
    "embedding/kernel": (1, 1, 1, 2),
    "Transformer/posembed_input/pos_embedding": (1, 2, 1),
    "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias": (1, 2),
    "Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel": (2, 1),
    "Transformer/encoder_norm/scale": (2,),
    "head/kernel": (2, 1),
    "head/bias": (1,),
}
MAE_SHAPES = {
    "cls": (1, 1, 2),
    "embedding/kernel": (1, 1, 1, 2),
    "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias": (1, 2),
    "Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel": (2, 1),
    "mask_token": (1, 1, 2),
    "decoder_norm/scale": (2,),
    "decoder_pred/kernel": (2, 1),
}
RESNET_SHAPES = {
    "conv_init/kernel": (1, 2, 2, 1),
    "bn_init/scale": (2,),
    "ResNetBlock_0/Conv_0/kernel": (1, 1, 2, 3),
    "ResNetBlock_0/BatchNorm_0/bias": (3,),
    "head/kernel": (3, 2),
    "head/bias": (2,),
}
TORCH_NAMES = [  # of MAE's modules, as expressions on paths in Flax
    (r"^cls$", "cls_token"),
    (r"^Transformer/posembed_input/pos_embedding$", "pos_embed"),
    (r"^embedding/", "patch_embed/proj/"),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks/\1/"),
    (r"^Transformer/encoder_norm/", "fc_norm/"),
    (r"/(kernel|scale)$", "/weight"),
]


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int) -> tuple[Arrays, list[Arrays]]:
    """Return parameters and gradients in float32 of two decimals, which are short as text.

    Gradients of `cls` are so small that Adam's epsilon counts.
    """
    random = np.random.default_rng(seed)

    def some(size: float) -> dict[str, np.ndarray]:
        return {path: np.round(size * random.normal(size=shape), 2) for path, shape in shapes.items()}

    params, grads = some(0.5), [some(size) for size in (0.5, 0.2, 1.0, 0.05, 0.5)]
    for grad in grads:
        grad |= {path: 1e-6 * grad[path] for path in grad if path == "cls"}
    return in_float32(params), list(map(in_float32, grads))


def in_float32(arrays: Arrays) -> Arrays:
    return {path: array.astype(np.float32) for path, array in arrays.items()}


def telling_steps(warmup: int, total: int) -> list[int]:
    quarters = [warmup + (total - warmup) * part // 4 for part in (1, 2, 3)]
    return [0, 1, warmup // 2, warmup - 1, warmup, warmup + 1, *quarters, total - 100, total - 1, total]


def write(
    stem: str, source: str, rates: Mapping[str, Any], params: Arrays, grads: list[Arrays], after: Iterator[Arrays]
) -> None:
    """Write a recording, given the parameters after each step as the code returns them."""
    before: Arrays = {path: param.astype(np.float64) for path, param in params.items()}
    updates: list[Arrays] = []
    for new in after:
        updates.append({path: new[path].reshape(param.shape) - before[path] for path, param in params.items()})
        before = {path: before[path] + update for path, update in updates[-1].items()}
    assert len(updates) == STEPS
    content = {
        "recipe": f"{stem}.yaml",
        "source": source,
        "made_by": "real code",
        "rates": {name: [[step, float(f"{rate:.9g}")] for step, rate in pairs] for name, pairs in rates.items()},
        "params": plain(params),
        "grads": list(map(plain, grads)),
        "start_step": 0,
        "updates": list(map(plain, updates)),
    }
    path, text = DATA / f"{stem}.json", golden_data.dumps(content)
    is_new = not path.exists() or path.read_text() != text
    path.write_text(text)
    print(f"{path.name}: {len(text)} characters, {'new' if is_new else 'as it was'}")


def plain(arrays: Arrays) -> dict[str, Any]:
    """Return arrays as lists of the shortest numbers: of two decimals, or of eight digits."""

    def shorten(value: Any, digits: int) -> Any:
        return [shorten(item, digits) for item in value] if isinstance(value, list) else float(f"{value:.{digits}g}")

    return {path: shorten(array.tolist(), 6 if array.dtype == np.float32 else 8) for path, array in arrays.items()}


# ---------------------------------------------------------------------------------------------------------
# PyTorch: MAE and ResNet strikes back


def torch_params(params: Arrays, torch_names: list[tuple[str, str]]) -> tuple[Any, dict[str, Any]]:
    """Return a model that has nothing but these parameters, under PyTorch's names, and the parameters by path."""
    torch: Any = importlib.import_module("torch")
    model, by_path = torch.nn.Module(), {}
    for path, param in params.items():
        flat = param.reshape(-1) if path.endswith("bias") else param
        name = path
        for pattern, replacement in torch_names:
            name = re.sub(pattern, replacement, name)
        *folders, last = name.split("/")
        node = model
        for folder in folders:
            if folder not in dict(node.named_children()):
                node.add_module(folder, torch.nn.ModuleList() if folder == "blocks" else torch.nn.Module())
            node = getattr(node, folder)
        by_path[path] = torch.nn.Parameter(torch.tensor(flat, dtype=torch.float64))
        node.register_parameter(last, by_path[path])
    return model, by_path


def torch_steps(
    optimizer: Any, by_path: Mapping[str, Any], grads: list[Arrays], set_rate: Callable[[int], Any]
) -> Iterator[Arrays]:
    torch: Any = importlib.import_module("torch")
    for step, grad in enumerate(grads):
        set_rate(step)
        for group in optimizer.param_groups:
            for param in group["params"]:
                path = next(path for path, other in by_path.items() if other is param)
                param.grad = torch.tensor(grad[path], dtype=torch.float64).reshape(param.shape)
        optimizer.step()
        yield {path: param.detach().numpy().copy() for path, param in by_path.items()}


def record_mae() -> None:
    torch: Any = importlib.import_module("torch")
    lr_sched, lr_decay = importlib.import_module("util.lr_sched"), importlib.import_module("util.lr_decay")
    lars: Any = importlib.import_module("util.lars")
    factory: Any = importlib.import_module("timm.optim.optim_factory")

    def schedule(blr: float, batch: int, batches: int, epochs: int, warmup_epochs: int, min_lr: float) -> Any:
        args = argparse.Namespace(
            lr=blr * batch / 256, epochs=epochs, warmup_epochs=warmup_epochs, min_lr=min_lr
        )  # main_*.py: "args.lr = args.blr * eff_batch_size / 256"

        def rate_at(step: int, optimizer: Any) -> float:
            # engine_*.py: "data_iter_step / len(data_loader) + epoch"
            return lr_sched.adjust_learning_rate(optimizer, step % batches / batches + step // batches, args)

        steps = telling_steps(warmup_epochs * batches, epochs * batches)
        return args, rate_at, [[step, rate_at(step, argparse.Namespace(param_groups=[]))] for step in steps]

    files = f"{MAE}: PRETRAIN.md, main_pretrain.py, engine_pretrain.py, util/lr_sched.py"
    params, grads = draw(MAE_SHAPES, seed=1)
    model, by_path = torch_params(params, TORCH_NAMES)
    args, rate_at, rates = schedule(1.5e-4, 4096, 312, epochs=800, warmup_epochs=40, min_lr=0.0)
    optimizer = torch.optim.AdamW(factory.add_weight_decay(model, 0.05), lr=args.lr, betas=(0.9, 0.95))
    after = torch_steps(optimizer, by_path, grads, lambda step: rate_at(step, optimizer))
    write(
        "imagenet_mae_pretrain_adamw_4096",
        f"{files}; torch.optim.AdamW",
        {"learning_rate": rates},
        params,
        grads,
        after,
    )

    files = f"{MAE}: FINETUNE.md, main_finetune.py, engine_finetune.py, util/lr_sched.py, util/lr_decay.py"
    for stem, blr, epochs, layer_decay in [
        ("imagenet_mae_finetune_base_adamw_1024", 5e-4, 100, 0.65),
        ("imagenet_mae_finetune_large_adamw_1024", 1e-3, 50, 0.75),
    ]:
        params, grads = draw(VIT_SHAPES, seed=2)
        model, by_path = torch_params(params, TORCH_NAMES)
        args, rate_at, rates = schedule(blr, 1024, 1251, epochs=epochs, warmup_epochs=5, min_lr=1e-6)
        without_decay = {"pos_embed", "cls_token", "dist_token"}  # timm's VisionTransformer.no_weight_decay
        groups = lr_decay.param_groups_lrd(model, 0.05, no_weight_decay_list=without_decay, layer_decay=layer_decay)
        optimizer = torch.optim.AdamW(groups, lr=args.lr)
        after = torch_steps(optimizer, by_path, grads, lambda step, o=optimizer, at=rate_at: at(step, o))
        write(stem, f"{files}; torch.optim.AdamW", {"learning_rate": rates}, params, grads, after)

    files = f"{MAE}: FINETUNE.md, main_linprobe.py, engine_finetune.py, util/lr_sched.py, util/lars.py"
    params, grads = draw(VIT_SHAPES, seed=3)
    model, by_path = torch_params(params, TORCH_NAMES)
    args, rate_at, rates = schedule(0.1, 16384, 78, epochs=90, warmup_epochs=10, min_lr=0.0)
    optimizer = lars.LARS(model.head.parameters(), lr=args.lr, weight_decay=0.0)
    after = torch_steps(optimizer, by_path, grads, lambda step: rate_at(step, optimizer))
    write("imagenet_mae_linear_probe_lars_16384", files, {"learning_rate/head": rates}, params, grads, after)


def record_timm() -> None:
    factory: Any = importlib.import_module("timm.optim.optim_factory")
    cosine: Any = importlib.import_module("timm.scheduler.cosine_lr")
    files = f"{TIMM}: timm/optim/lamb.py, timm/optim/optim_factory.py, timm/scheduler/cosine_lr.py"
    for name, rate, weight_decay, epochs in [("a1", 5e-3, 0.01, 600), ("a2", 5e-3, 0.02, 300), ("a3", 8e-3, 0.02, 100)]:
        params, grads = draw(RESNET_SHAPES, seed=4)
        model, by_path = torch_params(params, [(r"/(kernel|scale)$", "/weight")])
        optimizer = factory.create_optimizer_v2(model, "lamb", lr=rate, weight_decay=weight_decay)
        shared = {"lr_min": 1e-6, "warmup_lr_init": 1e-4}
        by_epoch = cosine.CosineLRScheduler(optimizer, t_initial=epochs, warmup_t=5, **shared)
        by_update = cosine.CosineLRScheduler(
            optimizer, t_initial=625 * epochs, warmup_t=625 * 5, t_in_epochs=False, **shared
        )

        def rate_at(step: int, by_update: Any = by_update) -> float:
            return by_update.get_update_values(step)[0]

        for epoch in range(epochs + 1):  # timm of that time changed the rate once an epoch
            np.testing.assert_allclose(rate_at(625 * epoch), by_epoch.get_epoch_values(epoch)[0], rtol=1e-12)
        rates = [[step, rate_at(step)] for step in telling_steps(5 * 625, epochs * 625)]
        after = torch_steps(optimizer, by_path, grads, by_update.step_update)
        source = f"arXiv:2110.00476, table 2; {files}"
        write(f"imagenet_resnet50_rsb_{name}_lamb_2048", source, {"learning_rate": rates}, params, grads, after)


# ---------------------------------------------------------------------------------------------------------
# JAX: ViT's pre-training, as big_vision makes optimizers, and its fine-tuning


def jax_steps(tx: Any, params: Arrays, grads: list[Arrays]) -> Iterator[Arrays]:
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
    nested: Any = jax.tree.map(np.float64, unflatten(params))
    state = tx.init(nested)
    for grad in grads:
        updates, state = tx.update(jax.tree.map(np.float64, unflatten(grad)), state, nested)
        nested = jax.tree.map(np.asarray, optax.apply_updates(nested, updates))
        yield flatten(nested)


def unflatten(arrays: Arrays) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, array in arrays.items():
        node = nested
        *folders, last = path.split("/")
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = array
    return nested


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return flat


def use_float64_without_tensorflow() -> None:
    """Compute in float64, and let modules import what nothing here calls."""
    importlib.import_module("jax").config.update("jax_enable_x64", True)
    for name in ("tensorflow", "tensorflow.io", "tensorflow.io.gfile", "einops"):
        sys.modules.setdefault(name, types.ModuleType(name))


def record_big_vision() -> None:
    use_float64_without_tensorflow()
    bv_optax: Any = importlib.import_module("big_vision.optax")
    mlc: Any = importlib.import_module("ml_collections")
    optimizer = {"optax_name": "scale_by_adam", "optax": {}}
    cosine, linear = {"decay_type": "cosine"}, {"decay_type": "linear", "linear_end": 1e-5 / 1e-3}
    paper = f"arXiv:2010.11929, table 3; {BIG_VISION}: big_vision/optax.py, big_vision/utils.py"
    augreg = f"{BIG_VISION}: big_vision/configs/vit_i21k.py, big_vision/optax.py, big_vision/utils.py"
    for stem, source, settings, schedule, examples, epochs in [
        ("imagenet21k_vit_adamw_4096", paper, {"lr": 1e-3, "wd": 1e-3 * 0.03}, linear, 14_197_122, 90),
        (
            "imagenet_vit_adamw_4096",
            paper,
            {"lr": 3e-3, "wd": 3e-3 * 0.3, "grad_clip_norm": 1.0},
            cosine,
            1_281_167,
            300,
        ),
        (
            "imagenet21k_vit_augreg_adamw_4096",
            augreg,
            {"lr": 1e-3, "wd": 1e-4, "grad_clip_norm": 1.0},
            cosine,
            14_145_922,
            300,
        ),
    ]:
        params, grads = draw(VIT_SHAPES, seed=5)
        config = mlc.ConfigDict(optimizer | settings | {"schedule": {"warmup_steps": 10_000, **schedule}})
        total = max(1, round(epochs * (examples / 4096)))  # big_vision.utils.steps
        known = {"total_steps": total, "batch_size": 4096, "data_size": examples}
        tx, (rate_at,) = bv_optax.make(config, unflatten(params), sched_kw=known)
        rates = [[step, config.lr * float(rate_at(step))] for step in telling_steps(10_000, total)]
        write(stem, source, {"learning_rate": rates}, params, grads, jax_steps(tx, params, grads))


def record_vision_transformer() -> None:
    use_float64_without_tensorflow()
    utils, optax = importlib.import_module("vit_jax.utils"), importlib.import_module("optax")
    configs: Any = importlib.import_module("vit_jax.configs.vit")
    files = f"{VIT}: vit_jax/configs/vit.py, vit_jax/configs/common.py, vit_jax/train.py, vit_jax/utils.py"
    for stem, dataset in [
        ("imagenet_vit_finetune_sgd_512", "imagenet2012"),
        ("cifar10_vit_finetune_sgd_512", "cifar10"),
    ]:
        params, grads = draw(VIT_SHAPES, seed=6)
        config = configs.get_config(f"b16,{dataset}")
        rate_at = utils.create_learning_rate_schedule(
            config.total_steps, config.base_lr, config.decay_type, config.warmup_steps
        )
        tx = optax.chain(  # train.py, lines 138 to 145, but for the momentum's dtype, which is bfloat16 there
            optax.clip_by_global_norm(config.grad_norm_clip), optax.sgd(learning_rate=rate_at, momentum=0.9)
        )
        rates = [[step, float(rate_at(step))] for step in telling_steps(config.warmup_steps, config.total_steps)]
        write(stem, files, {"learning_rate": rates}, params, grads, jax_steps(tx, params, grads))


FAMILIES = {
    "mae": record_mae,
    "timm": record_timm,
    "big_vision": record_big_vision,
    "vision_transformer": record_vision_transformer,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.examples.generate_zoo_vision_transformers")
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument(
        "--source", type=Path, help="the folder of the source; timm is taken from where it is installed"
    )
    arguments = parser.parse_args()
    if arguments.source is not None:
        sys.path.insert(0, str(arguments.source))
    FAMILIES[arguments.family]()


if __name__ == "__main__":
    main()
