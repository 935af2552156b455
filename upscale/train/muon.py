"""Muon: momentum whose steps are orthogonalised, for the matrices of hidden layers; Adam for the vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

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
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            vectors = tuple(parameter for parameter in moving if parameter.ndim < 2)
            matrices = [parameter for parameter in moving if parameter.ndim >= 2]
            if vectors:
                self._adam(vectors, group["lr"])
            for shape in dict.fromkeys(matrix.shape for matrix in matrices):
                self._muon(tuple(matrix for matrix in matrices if matrix.shape == shape), group["lr"])

    def _muon(self, parameters: tuple[nn.Parameter, ...], lr: float) -> None:
        gradients, states = self._states(parameters, "momentum")
        momenta = [state["momentum"] for state in states]
        torch._foreach_mul_(momenta, MOMENTUM)
        torch._foreach_add_(momenta, gradients)
        updates = torch._foreach_add(gradients, momenta, alpha=MOMENTUM)  # Nesterov
        # One batched product for all layers of a shape.
        stacked = orthogonalise(torch.stack([update.flatten(1) for update in updates]))
        size = 0.2 * math.sqrt(max(stacked.shape[1:]))
        torch._foreach_add_(parameters, stacked.view(-1, *parameters[0].shape).unbind(), alpha=-lr * size)

    def _adam(self, parameters: tuple[nn.Parameter, ...], lr: float) -> None:
        gradients, states = self._states(parameters, "mean", "square")
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        beta1, beta2 = ADAM_BETAS
        for state in states:
            state["steps"] = state.get("steps", 0) + 1
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - beta2)
        mean = torch._foreach_div(means, [1 - beta1 ** state["steps"] for state in states])
        root = torch._foreach_sqrt(torch._foreach_div(squares, [1 - beta2 ** state["steps"] for state in states]))
        torch._foreach_add_(root, 1e-8)
        torch._foreach_addcdiv_(parameters, mean, root, value=-lr)

    def _states(self, parameters: tuple[nn.Parameter, ...], *names: str) -> tuple[list[Tensor], list[dict[str, Any]]]:
        """Return the gradients of ``parameters`` and what is remembered of them, ``names`` zero at first."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {name: torch.zeros_like(parameter) for name in names}
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return gradients, [self.state[parameter] for parameter in parameters]


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
