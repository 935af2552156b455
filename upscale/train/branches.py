"""Convolutions that are trained as sums of branches and saved as the single 3x3 that these are.

A plain stack learns faster and further in this form (Ding et al. 2021, RepVGG; Zhang et al. 2021, ECBSR, section 3.2),
and costs nothing more when it runs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from upscale.models import Generator


class Branches(nn.Module):
    """A kernel ``[O, I, 3, 3]`` plus that of a 1x1 to ``expand * O`` channels before a 3x3, plus the identity.

    What is added begins as zero, so that a network starts as it would without.
    """

    def __init__(self, layer: nn.Conv2d, expand: int) -> None:
        super().__init__()
        inputs, outputs = layer.in_channels, layer.out_channels
        self.before = nn.Parameter(torch.randn(expand * outputs, inputs, 1, 1) / math.sqrt(inputs))
        self.after = nn.Parameter(torch.zeros(outputs, expand * outputs, 3, 3))
        self.gain = nn.Parameter(torch.zeros(outputs)) if inputs == outputs else None

    def forward(self, kernel: Tensor) -> Tensor:
        """Return the sum of the branches as one kernel."""
        total = kernel + torch.einsum("omhw,mi->oihw", self.after, self.before[:, :, 0, 0])
        if self.gain is None:
            return total
        identity = torch.zeros_like(kernel)
        identity[:, :, 1, 1] = torch.diag(self.gain)
        return total + identity


def add_branches(generator: Generator, expand: int) -> None:
    """Let every 3x3 convolution of ``generator`` be the sum of branches from now on."""
    for layer in list(generator.modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.groups == 1:
            parametrize.register_parametrization(layer, "weight", Branches(layer, expand))


def without_branches(generator: Generator) -> Generator:
    """Return ``generator`` with each sum of branches as the one convolution that it is."""
    if not any(map(parametrize.is_parametrized, generator.modules())):
        return generator
    layers = {name: layer for name, layer in generator.named_modules() if parametrize.is_parametrized(layer)}
    tensors = {name: value for name, value in generator.state_dict().items() if ".parametrizations." not in name}
    tensors |= {f"{name}.weight": layer.weight.detach() for name, layer in layers.items()}
    # Anew and not by torch's removal, which takes the branches from every copy of a layer: they share a class.
    with torch.device("meta"):
        folded = type(generator)(generator.config)
    folded.load_state_dict(tensors, assign=True)
    return folded.train(generator.training)
