"""Train ResNet-50 on ImageNet in large batches by a recipe of MLPerf: `python -m examples.imagenet --help`."""
