"""The rates of docs/zoo.md, by optax-ext plot."""

import functools
from pathlib import Path

from docs.draw.style import optax_ext

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
RECIPES = {
    "zoo_mlperf_resnet50": [f"mlperf_resnet50_lars_{batch}" for batch in (4096, 8192, 32768, 65536)],
    "zoo_resnet50_baselines": ["goyal_resnet50_nesterov_8192", "mlperf_resnet50_sgd_1920", "mlperf_resnet50_sgd_2560"],
    "zoo_mlperf_bert": [f"mlperf_bert_lamb_{batch}" for batch in (1536, 3072, 4096, 8192, 16384)],
    "zoo_self_supervised": [f"imagenet_{name}_lars_4096" for name in ("simclr", "byol", "moco_v3_resnet50")],
    "zoo_mae": [
        "imagenet_mae_finetune_base_adamw_1024",
        "imagenet_mae_finetune_large_adamw_1024",
        "imagenet_mae_pretrain_adamw_4096",
    ],
    "zoo_resnet50_rsb": [f"imagenet_resnet50_rsb_{name}_lamb_2048" for name in ("a1", "a2", "a3")],
    "zoo_vit": ["imagenet21k_vit_adamw_4096", "imagenet21k_vit_augreg_adamw_4096", "imagenet_vit_adamw_4096"],
}


def _draw(dark: bool, *, recipes: list[str]) -> object:
    return optax_ext("plot", *(f"{CONFIGS}/{recipe}.yaml" for recipe in recipes), dark=dark)


PICTURES = {name: functools.partial(_draw, recipes=recipes) for name, recipes in RECIPES.items()}
