"""Muon: momentum whose steps are orthogonalised, for the matrices of hidden layers; Adam for the vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.99)
# Coefficients of the quintic Newton-Schulz iteration (Jordan 2024, "Muon: an optimizer for hidden layers"): five
# rounds bring every singular value into about [0.7, 1.2].
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


class Muon(Optimizer):
    """Step along the nearest orthogonal matrix to the momentum, a convolution's kernel taken as ``[out, in*k*k]``.

    All directions of a layer learn at one rate, however small their gradients; a deep plain network without skips
    trains several times faster. Steps are scaled to the root mean square of Adam's (Liu et al. 2025, "Muon is scalable
    for LLM training", section 2.2), so that one learning rate serves matrices and vectors. In float32: the matrices
    are small, and a CPU without native bf16 is slow in it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            same_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim >= 2:
                    same_shape.setdefault(tuple(parameter.shape), []).append(parameter)
                else:
                    self._adam(parameter, group["lr"])
            for parameters in same_shape.values():
                self._muon(parameters, group["lr"])

    def _muon(self, parameters: list[nn.Parameter], lr: float) -> None:
        updates = []
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            state["momentum"].mul_(MOMENTUM).add_(gradient)
            updates.append(gradient.add(state["momentum"], alpha=MOMENTUM).flatten(1))  # Nesterov
        stacked = orthogonalise(torch.stack(updates))  # one batched product for all layers of a shape
        size = 0.2 * math.sqrt(max(stacked.shape[1:]))
        for parameter, update in zip(parameters, stacked, strict=True):
            parameter.add_(update.reshape(parameter.shape), alpha=-lr * size)

    def _adam(self, parameter: nn.Parameter, lr: float) -> None:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state |= {"steps": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["steps"] += 1
        beta1, beta2 = ADAM_BETAS
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_(gradient.square(), 1 - beta2)
        mean = state["mean"] / (1 - beta1 ** state["steps"])
        square = state["square"] / (1 - beta2 ** state["steps"])
        parameter.addcdiv_(mean, square.sqrt().add_(1e-8), value=-lr)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return ``matrices`` ``[N, rows, columns]`` with all singular values near 1 and the singular vectors kept."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = torch.transpose(matrices, 1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return torch.transpose(x, 1, 2) if tall else x
