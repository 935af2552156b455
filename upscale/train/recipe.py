"""Recipe: every number that defines a training run."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from upscale.config import did_you_mean, parse, toml_key, toml_lines, within
from upscale.errors import ConfigError, UpscaleError, UsageError
from upscale.losses import CLASSIFIER, LOSSES, PERCEPTUAL
from upscale.models import build, build_discriminator
from upscale.models.features import EXTRACTORS
from upscale.train.degradation import DegradationConfig

SHIFT = 8  # pixels: all phases of the strides of earlier layers, whose pixels can be told apart
_SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """How pictures become batches."""

    gt_size: int
    """Edge of a GT crop in pixels, a multiple of the scale."""
    batch_size: int
    """Of each process."""
    candidates: int = 1
    """Of so many random crops, the one with most detail is taken: most of a photograph is sky and blur."""
    large: float = 0.0
    """Part of the steps, the last ones, with crops of twice the edge, a quarter as many. They cost the same, and fewer
    of their pixels are so near to a border that the network sees less there than in a picture. Pictures without room
    for one are left out then; where none has room, nothing changes."""
    sizes: tuple[float, ...] = ()
    """What each picture is reduced to, as shares of its width and height, to cut crops from as well: photographs of
    many megapixels show less in a crop than small pictures do."""
    drawn: float = 0.0
    """Part of the crops that are drawings made by the program (``drawings.draw``). Of those in batches that are reduced
    bicubic, half have LR without antialiasing."""

    def __post_init__(self) -> None:
        within("data.gt_size", self.gt_size, 1)
        within("data.batch_size", self.batch_size, 1)
        within("data.candidates", self.candidates, 1)
        within("data.drawn", self.drawn, 0, 1)
        for size in self.sizes:
            within("data.sizes", size, 0.01, 1)
        within("data.large", self.large, 0, 1)
        if self.large and self.batch_size % 4:
            raise ValueError(f"data.batch_size {self.batch_size} has no quarter, which data.large needs")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How gradients become steps."""

    kind: Literal["adam", "muon"] = "adam"
    lr: float
    """Peak learning rate, reached after ``warmup`` steps."""
    betas: tuple[float, ...] = (0.9, 0.99)
    """Of Adam; with Muon, of the discriminator's Adam only."""
    warmup: int = 0
    final: float = 0.01
    """Without ``milestones``, the rate falls along half a cosine to this part of its peak."""
    milestones: tuple[int, ...] = ()
    """Steps at which the rate is multiplied by ``gamma`` instead."""
    gamma: float = 0.5
    clip: float | None = None
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"optim.betas needs two numbers, got {len(self.betas)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas are {list(self.betas)}, must be from 0 to less than 1")
        within("optim.lr", self.lr, 0)
        within("optim.warmup", self.warmup, 0)
        within("optim.final", self.final, 0, 1)
        within("optim.gamma", self.gamma, 0, 1)
        within("optim.clip", 1 if self.clip is None else self.clip, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceptualConfig:
    """Network, layers and distance of the loss ``perceptual``; ``classifier`` has the same but for the layers."""

    extractor: Literal["vgg19", "squeezenet"] = "vgg19"
    file: str | None = None
    """State dict of the extractor, under torchvision's names; None: the catalogue's, fetched once."""
    layers: Mapping[str, float] = field(default_factory=lambda: {"conv5_4": 1.0})
    distance: Literal["l1", "mse", "unit"] = "l1"
    feature_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GanConfig:
    """The adversarial loss."""

    kind: Literal["vanilla", "minimax", "lsgan", "hinge", "relativistic"]
    weight: float
    lr: float | None = None
    """Of the discriminator, by default the generator's; on the same schedule, always by Adam."""

    def __post_init__(self) -> None:
        within("gan.weight", self.weight, 0)
        within("gan.lr", self.lr or 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training run."""

    steps: int
    generator: Mapping[str, Any]
    """``{"arch": ..., hyper-parameters}``, the scale among them."""
    data: DataConfig
    losses: Mapping[str, float]
    """Weight of each loss."""
    optim: OptimConfig
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    discriminator: Mapping[str, Any] | None = None
    """``{"arch": ..., hyper-parameters}``; needs ``gan``."""
    gan: GanConfig | None = None
    init: str | None = None
    """Name or file of the network to start from; if it is of another scale, as that network with its result reduced."""
    branches: int = 0
    """Train each 3x3 convolution as the sum of itself, of a 1x1 to so many times its channels before a 3x3, and of the
    identity; the file has the single convolution that they are. 0: without."""
    ema_decay: float = 0.999
    seed: int = 0
    log_every: int = 50
    valid_every: int = 1000
    """Steps between validations; at each, the run is saved and so is its network."""
    keep: int = 3
    """How many of the networks saved last are kept, beside the best."""
    patience: int | None = None
    """Stop after so many validations without a better PSNR."""

    def __post_init__(self) -> None:
        for name in self.losses:
            if name not in (known := (*LOSSES, PERCEPTUAL, CLASSIFIER)):
                hint = did_you_mean(name, known)
                raise ValueError(f"unknown loss {name!r}" + (f"; {hint}" if hint else ""))
        if not self.losses:
            raise ValueError("losses has none, so that nothing would be learned")
        for name, weight in self.losses.items():
            within(f"losses.{name}", weight, 0)
        for name in ("steps", "log_every", "valid_every", "keep"):
            within(name, getattr(self, name), 1)
        within("patience", 1 if self.patience is None else self.patience, 1)
        within("branches", self.branches, 0)
        within("seed", self.seed, 0, 2**63 - 1)
        within("ema_decay", self.ema_decay, 0, 1)
        scale = self.generator.get("scale", 4)
        if not isinstance(scale, int) or scale < 1:
            raise ValueError(f"generator.scale is {scale!r}, must be a whole number of at least 1")
        if (self.discriminator is None) != (self.gan is None):
            raise ValueError("discriminator and gan go together: one of them is missing")
        if self.data.gt_size % self.scale:
            raise ValueError(f"data.gt_size {self.data.gt_size} is not a multiple of the scale {self.scale}")
        if self.data.gt_size <= self.shift:
            raise ValueError(
                f"data.gt_size {self.data.gt_size} is too small: networks that judge it see {self.shift} less of it"
            )
        generator = _made("generator", partial(build, self.generator, "generator"))
        if not generator.has_weights:
            raise ValueError(f"generator.arch {self.generator['arch']!r} has nothing that could be trained")
        multiple = self.scale * generator.multiple_of
        if self.data.gt_size % multiple:
            raise ValueError(f"data.gt_size {self.data.gt_size} is not a multiple of {multiple}, as this network needs")
        judge = None
        if self.discriminator is not None:
            judge = _made("discriminator", partial(build_discriminator, self.discriminator, "discriminator"))
        if self.data.large and judge is not None and not judge.any_size:
            raise ValueError("data.large: this discriminator takes crops of a single size only")
        if judge is not None:
            self._check_crops("the discriminator", judge, self.shift if judge.any_size else 0)
        if PERCEPTUAL in self.losses:
            extractor = self.perceptual.extractor
            known_layers = EXTRACTORS[extractor].layers
            for name in self.perceptual.layers:
                if name not in known_layers:
                    raise ValueError(f"perceptual: {extractor} has no layer {name!r}; it has {', '.join(known_layers)}")
            network = _made(extractor, partial(EXTRACTORS[extractor], self.perceptual.layers))
            self._check_crops(extractor, network, self.shift)

    def _check_crops(self, what: str, network: nn.Module, less: int) -> None:
        """Raise ValueError unless ``network``, on the meta device, takes crops, ``less`` pixels smaller."""
        edge = self.data.gt_size - less
        try:
            network(torch.empty(2, 3, edge, edge, device="meta"))
        except RuntimeError as error:
            size = (self.discriminator or {}).get("gt_size")
            of_its_own = f", it is made for {size}: --set discriminator.gt_size" if size and not less else ""
            raise ValueError(
                f"data.gt_size {self.data.gt_size}: {what} takes no crops of {edge}x{edge} pixels{of_its_own}"
            ) from error

    @property
    def scale(self) -> int:
        """The factor that the network is trained for."""
        return int(self.generator.get("scale", 4))

    @property
    def rate_d(self) -> float:
        """Peak learning rate of the discriminator."""
        return self.optim.lr if self.gan is None or self.gan.lr is None else self.gan.lr

    @property
    def classifier(self) -> str | None:
        """The network of the catalogue that losses look through; None: none, or one of a file."""
        looks_through = {PERCEPTUAL, CLASSIFIER} & self.losses.keys() and self.perceptual.file is None
        return self.perceptual.extractor if looks_through else None

    @property
    def shift(self) -> int:
        """How much less of the crops than all the losses see, in pixels (``Objective.shift``)."""
        return SHIFT if {PERCEPTUAL, CLASSIFIER} & self.losses.keys() or self.gan is not None else 0


Made = TypeVar("Made", bound=nn.Module)


def _made(what: str, make: Callable[[], Made]) -> Made:
    """Return the network that ``make`` gives, without weights; raise ValueError if it cannot be."""
    try:
        with torch.device("meta"):
            return make()
    except UpscaleError as error:
        raise ValueError(error.message) from error
    except RuntimeError as error:  # of PyTorch's layers: sizes that are not positive
        raise ValueError(f"{what}: {str(error).splitlines()[0]}") from error


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe that comes with the package, or a TOML file; apply ``overrides`` ``"optim.lr=1e-4"``.

    Raises:
        UsageError: no such recipe, or an override that does not fit.
        ConfigError: a key or value of the file that does not fit.
    """
    path = _SHIPPED / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        shipped = sorted(p.stem for p in _SHIPPED.glob("*.toml"))
        near = did_you_mean(name_or_path, shipped)
        known = f"known are {', '.join(shipped)}, or a TOML file"
        raise UsageError(f"unknown recipe {name_or_path!r}", f"{near} {known}" if near else known)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    changed = deepcopy(table)
    for override in overrides:
        _override(changed, override)
    try:
        return parse(Recipe, changed, path.name)
    except ConfigError as error:
        if overrides:
            parse(Recipe, table, path.name)  # else it is the file's fault
            raise UsageError(f"--set {error.message.removeprefix(path.name).lstrip('.: ')}", error.hint) from error
        raise


def to_toml(recipe: Recipe) -> str:
    """Return ``recipe`` as TOML that ``load_recipe`` reads back."""
    table = asdict(recipe)
    lines = toml_lines({key: value for key, value in table.items() if not isinstance(value, dict)})
    for section, values in table.items():
        if isinstance(values, dict):
            lines += ["", f"[{toml_key(section)}]", *toml_lines(values)]
    return "\n".join(lines) + "\n"


def _override(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UsageError(f"--set {override}: expected KEY=VALUE", "for example --set optim.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, name = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {override}: {section} is not a table")
    table[name] = value
