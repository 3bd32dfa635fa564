"""Optimizers of other projects, derived again in float64 NumPy from their papers and formulas.

Arguments have the names and defaults that each project gives them. Parameters are dicts of arrays by name; a rate may
be a schedule. PyTorch's optimizers take groups of parameters with settings of their own, and recipes put parameters of
rank 1 and below into a group with `weight_decay=0`, which is done here for all.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Params = Mapping[str, np.ndarray]
Rate = float | Callable[[int], Any]


def _rate(rate: Rate, step: int) -> float:
    return float(rate(step)) if callable(rate) else rate


def _decay(weight_decay: float, param: np.ndarray) -> float:
    return weight_decay if param.ndim > 1 else 0.0


def _norm(x: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(x))))


def _local_rate(coefficient: float, param: np.ndarray, grad: np.ndarray, decay: float, eps: float) -> float | None:
    """Return equation 6 of arXiv:1708.03888, with the norms of gradient and decay apart; None where a norm is 0."""
    if not (_norm(param) > 0 and _norm(grad) > 0):
        return None
    return coefficient * _norm(param) / (_norm(grad) + decay * _norm(param) + eps)


def _clip(local: float, rate: float) -> float:
    """Return what the rate is multiplied by so that a layer's rate is the smaller of both; a rate of 0 stays."""
    return local / rate if local < rate else 1.0


class LARSOptimizer:
    """MLPerf's reference for ResNet: algorithm 1 of the paper, with the rate inside the momentum.

    What `skip_list` names has neither a local rate nor weight decay. An epsilon of 0 becomes Keras's, 1e-7.
    """

    def __init__(
        self,
        learning_rate: Rate,
        momentum: float = 0.9,
        weight_decay: float = 0.0001,
        eeta: float = 0.001,
        epsilon: float = 0.0,
        skip_list: Sequence[str] | None = None,
        use_nesterov: bool = False,
    ):
        self.learning_rate, self.momentum, self.weight_decay, self.eeta = learning_rate, momentum, weight_decay, eeta
        self.epsilon = epsilon if epsilon else 1e-7
        self.skip_list, self.use_nesterov = skip_list or (), use_nesterov
        self.velocity: dict[str, np.ndarray] = {}

    def step(self, step: int, params: Params, grads: Params) -> Params:
        new: dict[str, np.ndarray] = {}
        for name, w in params.items():
            rate, g = _rate(self.learning_rate, step), grads[name]
            if not any(part in name for part in self.skip_list):
                local = _local_rate(self.eeta, w, g, self.weight_decay, self.epsilon)
                rate, g = rate * (1.0 if local is None else local), g + self.weight_decay * w
            v = self.momentum * self.velocity.get(name, 0.0) + rate * g
            new[name] = w - (self.momentum * v + rate * g if self.use_nesterov else v)
            self.velocity[name] = v
        return new


class SGD:
    """PyTorch's SGD: the rate stands outside the momentum, so that a new rate counts for old gradients too."""

    def __init__(self, lr: Rate, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False):
        self.lr, self.momentum, self.weight_decay, self.nesterov = lr, momentum, weight_decay, nesterov
        self.buffer: dict[str, np.ndarray] = {}

    def apply(self, step: int, params: Params, grads: Params) -> Params:
        new: dict[str, np.ndarray] = {}
        for name, w in params.items():
            b = self.buffer[name] = self.momentum * self.buffer.get(name, 0.0) + grads[name]
            new[name] = w - _rate(self.lr, step) * (grads[name] + self.momentum * b if self.nesterov else b)
        return new


class LARC:
    """apex's LARC around SGD: with `clip`, no layer moves faster than by the rate itself.

    A parameter whose norm, or whose gradient's, is 0 does not decay either.
    """

    def __init__(self, optimizer: SGD, trust_coefficient: float = 0.02, clip: bool = True, eps: float = 1e-8):
        self.optimizer, self.trust_coefficient, self.clip, self.eps = optimizer, trust_coefficient, clip, eps

    def step(self, step: int, params: Params, grads: Params) -> Params:
        scaled = dict(grads)
        for name, w in params.items():
            decay = _decay(self.optimizer.weight_decay, w)
            local = _local_rate(self.trust_coefficient, w, grads[name], decay, self.eps)
            if local is not None:
                factor = _clip(local, _rate(self.optimizer.lr, step)) if self.clip else local
                scaled[name] = factor * (grads[name] + decay * w)
        return self.optimizer.apply(step, params, scaled)


class Lars:
    """timm's LARS: SGD with a local rate for what decays, or with `always_adapt` for all."""

    def __init__(
        self,
        lr: Rate = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        trust_coeff: float = 0.001,
        eps: float = 1e-8,
        trust_clip: bool = False,
        always_adapt: bool = False,
    ):
        self.sgd = SGD(lr, momentum, nesterov=nesterov)
        self.weight_decay, self.trust_coeff, self.eps = weight_decay, trust_coeff, eps
        self.trust_clip, self.always_adapt = trust_clip, always_adapt

    def step(self, step: int, params: Params, grads: Params) -> Params:
        scaled = dict(grads)
        for name, w in params.items():
            decay = _decay(self.weight_decay, w)
            if decay or self.always_adapt:
                local = _local_rate(self.trust_coeff, w, grads[name], decay, self.eps)
                factor = 1.0 if local is None else local
                factor = _clip(factor, _rate(self.sgd.lr, step)) if self.trust_clip else factor
                scaled[name] = factor * (grads[name] + decay * w)
        return self.sgd.apply(step, params, scaled)


class Lamb:
    """timm's LAMB: algorithm 2 of arXiv:1904.00962, after a clip by the global norm."""

    def __init__(
        self,
        lr: Rate = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        grad_averaging: bool = True,
        max_grad_norm: float | None = 1.0,
        trust_clip: bool = False,
        always_adapt: bool = False,
    ):
        self.lr, self.bias_correction, self.betas, self.eps = lr, bias_correction, betas, eps
        self.weight_decay, self.grad_averaging, self.max_grad_norm = weight_decay, grad_averaging, max_grad_norm
        self.trust_clip, self.always_adapt = trust_clip, always_adapt
        self.moments: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def step(self, step: int, params: Params, grads: Params) -> Params:
        new: dict[str, np.ndarray] = {}
        b1, b2 = self.betas
        corrections = (1 - b1 ** (step + 1), 1 - b2 ** (step + 1)) if self.bias_correction else (1.0, 1.0)
        total = np.sqrt(sum(_norm(grad) ** 2 for grad in grads.values()))
        excess = 1.0 if self.max_grad_norm is None else max(float(total) / self.max_grad_norm, 1.0)
        for name, w in params.items():
            g = grads[name] / excess
            m, v = self.moments.get(name, (np.zeros_like(w), np.zeros_like(w)))
            m, v = b1 * m + (1 - b1 if self.grad_averaging else 1.0) * g, b2 * v + (1 - b2) * g**2
            self.moments[name] = m, v
            decay = _decay(self.weight_decay, w)
            u = (m / corrections[0]) / (np.sqrt(v / corrections[1]) + self.eps) + decay * w
            ratio = 1.0
            if (decay or self.always_adapt) and _norm(w) > 0 and _norm(u) > 0:
                ratio = _norm(w) / _norm(u)
                ratio = min(ratio, 1.0) if self.trust_clip else ratio
            new[name] = w - _rate(self.lr, step) * ratio * u
        return new


PEERS: dict[str, Any] = {peer.__name__: peer for peer in (LARSOptimizer, SGD, LARC, Lars, Lamb)}
