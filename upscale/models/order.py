"""The layers of a state dict in their order, for files whose names nobody has written down."""

from __future__ import annotations

from upscale.models.base import Shapes


def spell(shapes: Shapes) -> dict[str, str]:
    """Return the letter of each layer (``Generator.in_order`` says which), in the order of ``shapes``, by its name.

    Empty where a tensor is of no convolution, batch normalisation or PReLU.
    """
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = shape
    convolutions = [name for name, parts in layers.items() if len(parts.get("weight", ())) == 4]
    if len(convolutions) < 3:
        return {}
    features = layers[convolutions[0]]["weight"][0]
    letters = {}
    for name, parts in layers.items():
        if name in convolutions:
            outputs, inputs = parts["weight"][:2]
            if outputs == features:
                letters[name] = "b" if inputs in (1, features) else "d"  # 1: each feature by itself
            else:
                letters[name] = "u" if outputs > inputs else "d"
        elif "running_mean" in parts:
            letters[name] = "n"
        elif parts.keys() == {"weight"} and len(parts["weight"]) == 1:
            letters[name] = "p"
        else:
            return {}
    return {**letters, convolutions[0]: "h", convolutions[-1]: "t"}
