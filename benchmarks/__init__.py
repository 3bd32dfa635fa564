"""Step time, compile time and memory of optimizers, side by side: `python -m benchmarks`."""
