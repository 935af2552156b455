"""Upscaler: networks + device + precision + tiling = image -> image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import combinations_with_replacement, zip_longest
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upscale.backprojection import back_project
from upscale.compiling import can_be_compiled, tried
from upscale.device import assembly_device, default_tile, is_out_of_memory, reuse_memory, whole_float32
from upscale.errors import InputError, OutOfMemory
from upscale.images import Image, Pixels
from upscale.imaging import BandResizer, bleed, to_array
from upscale.inference import Column, Frame, Framed, Network, OnTile, Progress
from upscale.models import Compiled, Generator
from upscale.options import MAX_SCALE, MIN_TILE, Measure, Precision, Target, Tiling
from upscale.tiling import Span, plan_spans

EXACT_RADIUS = 64  # LR pixels: up to here, tiles share twice the radius and equal the untiled result
CORE = 32  # LR pixels that a tile of an exact network adds at least along each axis
ROWS = 64  # of a result that become integers at a time
STRIP = 1 << 28  # bytes of a row of tiles' result, which is in memory at full width: tiles of wide pictures are lower
WIDE = 4  # times its size a tile may be wide, and is then as much lower, where rows are not computed twice
FADED_OVERLAP = 64  # LR pixels that tiles of networks with a larger radius share


@dataclass(frozen=True, slots=True, kw_only=True)
class Upscaled:
    """What ``Upscaler.upscale`` made, and how."""

    image: Image
    tiles: int
    tile_size: int
    """LR pixels, after any halving for want of memory: the edge of a square of as many pixels as a tile has at most."""
    shrunk: bool
    """Whether memory ran out, so that tiles became smaller."""
    float32_tiles: int
    """Computed again because half precision was not finite."""
    seconds: float


class Upscaler:
    """Networks of one family on one device.

    Attributes:
        generators: the networks, by their scales.
        device: on which they run.
        precision: in which they run; where that is not finite, a tile is computed again in float32.
        faithful: whether results are changed so that, reduced, they are the source again.
        tiling: how images are cut. Its ``size`` shrinks when the device runs out of memory, and stays so.
        assembly: where tiles are put together: on a GPU with room for it, so that only finished bytes leave it, else on
            the CPU; there, too, once memory ran out.
        on_compile: given, networks are compiled where that is faster, which is tried before their first picture and
            remembered; it is told in a line what is tried, and what came of it.
    """

    def __init__(
        self,
        generators: Sequence[Generator],
        device: torch.device,
        precision: Precision,
        tiling: Tiling,
        *,
        faithful: bool = False,
        on_compile: Callable[[str], None] | None = None,
    ) -> None:
        self.generators = {generator.scale: generator for generator in generators}
        self.device = device
        self.precision = precision
        self.tiling = tiling
        self.faithful = faithful
        self.on_compile = on_compile
        self.assembly = assembly_device(device)
        self._usual = {streams: default_tile(device, precision, streams=streams) for streams in (False, True)}
        self._networks: dict[int, Network] = {}
        whole_float32(device)
        reuse_memory(device)

    @property
    def native(self) -> Target:
        """The largest scale of a single pass."""
        return Target(Fraction(max(self.generators)))

    def upscale(self, image: Image, target: Target | float | None = None, on_tile: OnTile | None = None) -> Upscaled:
        """Enlarge every frame of ``image`` to ``target``, a size or a factor, by default the network's own scale.

        The networks run as often as it takes to reach the target, and the result is reduced to it, antialiased and
        from float. ``on_tile(done, total)`` is called after each tile.

        Raises:
            TypeError: not an ``Image``.
            ValueError: a factor that is not between 1 and 32.
            InputError: the networks cannot reach the target, or the image has no pixels.
            OutOfMemory: not enough memory, also with the smallest tile.
            NonFiniteOutput: the network gives NaN or infinity even in float32.
        """
        if not isinstance(image, Image):
            raise TypeError(
                f"{type(image).__name__}: upscale.Image(pixels=ARRAY) or upscale.read_image(PATH) is needed"
            )
        if target is None:
            target = self.native
        elif not isinstance(target, Target):
            target = Target.parse(str(target))
        return self._run(image, target, on_tile, self._upscale_frame)

    def write_rows(
        self, image: Image, target: Target, write: Callable[[Iterator[Pixels]], None], on_tile: OnTile | None = None
    ) -> Upscaled:
        """Enlarge ``image`` like ``upscale``, but hand the result to ``write`` row by row, so that it is never whole.

        ``write`` is given bands ``[n, W, 3]`` of the image's dtype from top to bottom and must take them all. ``image``
        is one frame without alpha; that of the result has no rows.
        """

        def enlarge(frame: Image, target: Target, progress: Progress) -> Image:
            write(self._rows(frame, target, progress))
            return replace(frame, pixels=frame.pixels[:0])

        return self._run(image, target, on_tile, enlarge)

    def _run(
        self,
        image: Image,
        target: Target,
        on_tile: OnTile | None,
        enlarge: Callable[[Image, Target, Progress], Image],
    ) -> Upscaled:
        if not all(frame.pixels.size for frame in image.frames):
            raise InputError("the image has no pixels")
        began, tiling = time.perf_counter(), self.tiling
        total = sum(
            self._count_tiles(self.passes(frame, target), *frame.pixels.shape[:2])
            * (1 if frame.alpha is None or not _varies(frame.alpha) else 2)
            for frame in image.frames
        )
        progress = Progress(on_tile, total)
        first, *following = [self._enlarged(frame, target, progress, enlarge) for frame in image.frames]
        return Upscaled(
            image=replace(first, following=tuple(following)),
            tiles=progress.done,
            tile_size=self._geometry(self.passes(image, target)[-1].generator)[0],
            shrunk=self.tiling != tiling,
            float32_tiles=progress.float32_tiles,
            seconds=time.perf_counter() - began,
        )

    def _enlarged(
        self,
        frame: Image,
        target: Target,
        progress: Progress,
        enlarge: Callable[[Image, Target, Progress], Image],
    ) -> Image:
        """Enlarge ``frame``; where a GPU has no room to put it together after all, again, together on the CPU."""
        counted = progress.done, progress.float32_tiles
        try:
            return enlarge(frame, target, progress)
        except (RuntimeError, OutOfMemory) as error:
            if self.assembly.type == "cpu" or not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
                raise
        self.assembly = torch.device("cpu")
        progress.done, progress.float32_tiles = counted
        return enlarge(frame, target, progress)

    def _upscale_frame(self, image: Image, target: Target, progress: Progress) -> Image:
        height, width = target.size(*image.pixels.shape[:2])
        return replace(
            image,
            pixels=_collect(self._rows(image, target, progress), height, width, image.pixels.dtype),
            alpha=None if image.alpha is None else self._enlarged_alpha(image.alpha, target, progress),
        )

    def _enlarged_alpha(self, alpha: Pixels, target: Target, progress: Progress) -> Pixels:
        """Enlarge ``alpha`` ``[h, w]`` as a grey picture: of logos and stickers, all of the shape is in it.

        No result is below the least or above the most of a pixel and its neighbours: what is opaque or transparent
        stays exactly so, and edges do not ring.
        """
        import cv2  # few pictures need it

        height, width = target.size(*alpha.shape)
        if not _varies(alpha):
            return np.full((height, width), alpha[0, 0])
        grey = Image(pixels=np.repeat(alpha[..., None], 3, 2), grayscale=True)
        bands = self._rows(grey, target, progress, in_light=False)
        enlarged: Pixels = np.concatenate([band[..., 0].copy() for band in bands])  # lets go of two channels
        least, most = (
            cv2.resize(change(alpha, np.ones((3, 3), np.uint8)), (width, height), interpolation=cv2.INTER_NEAREST)
            for change in (cv2.erode, cv2.dilate)
        )
        return np.clip(enlarged, least, most, out=enlarged)

    def _rows(self, image: Image, target: Target, progress: Progress, *, in_light: bool = True) -> Iterator[Pixels]:
        """Yield the result for one frame in bands ``[n, W, 3]`` from top to bottom.

        ``in_light``: pixels are light, as those of alpha are not.
        """
        passes = self.passes(image, target)
        height, width = target.size(*image.pixels.shape[:2])
        source: Pixels = image.pixels if image.alpha is None else bleed(image.pixels, image.alpha)
        pixels = source
        for network in passes[:-1]:
            h, w = pixels.shape[:2]
            pixels = _collect_deep(self._bands(network, pixels, progress), network.scale * h, network.scale * w)
        h, w = pixels.shape[:2]
        # A size in pixels is reached as a photograph is reduced, by its light; a factor in the values that networks
        # are trained to predict, where x2 by an x4 network in linear light costs 0.4 dB on Set5.
        by_light = in_light and target.measure is not Measure.SCALE
        resizer = BandResizer(passes[-1].scale * h, passes[-1].scale * w, height, width, linear_light=by_light)
        resized: Iterator[Tensor] = (
            _grey(part) if image.grayscale else part
            for band in self._bands(passes[-1], pixels, progress)
            for part in resizer.push(band)
        )
        if self.faithful:
            resized = back_project(_collect_deep(resized, height, width), source)
        yield from _to_arrays(resized, image.pixels.dtype)

    def passes(self, image: Image, target: Target) -> list[Network]:
        """Return the networks that ``image`` goes through on its way to ``target``, in their order."""
        return [self._network(scale) for scale in self._plan(target.factor(*image.pixels.shape[:2]))]

    def _plan(self, factor: Fraction) -> list[int]:
        """Return the scales of the passes: the fewest whose product is the least that reaches ``factor``."""
        if any(generator.any_scale for generator in self.generators.values()):
            return [-(-factor.numerator // factor.denominator)]
        scales = sorted(self.generators, reverse=True)
        reaching: list[tuple[int, ...]] = [
            passes
            for count in range(1, MAX_SCALE.bit_length())
            for passes in combinations_with_replacement(scales, count)
            if prod(passes) >= factor
        ]
        if not reaching:
            raise InputError(f"this network keeps the size, so it cannot reach x{float(factor):g}", "use -x 1")
        return list(min(reaching, key=prod))  # the first of equals: fewest passes

    def _network(self, scale: int) -> Network:
        if scale not in self._networks:
            generator = self.generators.get(scale)
            if generator is None:
                generator = next(one for one in self.generators.values() if one.any_scale).at_scale(scale)
            network = Network(generator, self.device, self.precision)
            if self.on_compile is not None and can_be_compiled(generator):
                network = self._faster(network, self.on_compile)
            self._networks[scale] = network
        return self._networks[scale]

    def _faster(self, network: Network, say: Callable[[str], None]) -> Network:
        """Return ``network``, or compiled what it was made of, whichever is faster; ``say`` which."""
        generator, tiling = network.generator, self.tiling
        compiled = Network(Compiled(generator), self.device, self.precision)
        edge = self._geometry(compiled.generator)[0]
        trial = tried(
            generator,
            self.device,
            self.precision,
            edge,
            plain=partial(self._seconds, network, edge),
            compiled=partial(self._seconds, compiled, edge),
            say=say,
        )
        self.tiling = tiling  # where memory ran out, the choice may need less
        say(f"x{network.scale}: {trial}")
        return compiled if trial.pays else network

    def _seconds(self, network: Network, edge: int, runs: int) -> float:
        """Return how long ``network`` takes for a picture of ``edge`` by half of it: the best of ``runs`` after one."""
        # Not square, or the compiler would make it for squares; not of full contrast, which overflows fp16 sooner.
        pixels = np.random.default_rng(0).integers(96, 160, (edge, edge // 2, 3), np.uint8)
        times = []
        for _ in range(1 + runs):
            began = time.perf_counter()
            for _band in self._bands(network, pixels, Progress(None, 0)):
                pass
            times.append(time.perf_counter() - began)
        return min(times[1:], default=times[0])

    def _geometry(self, generator: Generator) -> tuple[int, int, bool]:
        """Return tile size, overlap, and whether tiles are cut hard, for ``generator``."""
        usual = self._usual[generator.streams]
        size = self.tiling.size or max(usual, 2 * (self.tiling.overlap or 0))
        exact = 2 * generator.radius
        if self.tiling.overlap is not None:
            overlap = self.tiling.overlap
        elif generator.radius <= EXACT_RADIUS:
            overlap = exact
            size = max(size, overlap + CORE)
        else:
            overlap = min(FADED_OVERLAP, size // 4)
        m = generator.multiple_of
        return -(-size // m) * m, overlap, overlap >= exact

    def _spans(self, network: Network, frame: Frame) -> tuple[list[Span], list[Span]]:
        """Return the rows and the columns of tiles for an image in ``frame``."""
        height, width = frame.height, frame.width
        size, overlap, hard = self._geometry(network.generator)
        m = network.generator.multiple_of
        fitting = STRIP // (3 * 4 * network.scale**2 * width)
        if network.generator.streams:
            columns = plan_spans(width, WIDE * size, overlap, hard=hard, multiple_of=m)
            tall = max(m, min(fitting, size**2 // (columns[0].stop - columns[0].start)) // m * m)
            end = height + network.generator.lag
            return [Span(top, min(top + tall, end), None, None, 0) for top in range(0, end, tall)], columns
        lower = -(-max(MIN_TILE, 2 * overlap, fitting) // m) * m
        sizes = ((height, min(size, lower)), (width, size))
        rows, columns = (plan_spans(n, size, overlap, hard=hard, multiple_of=m) for n, size in sizes)
        return rows, columns

    def _count_tiles(self, passes: Sequence[Network], height: int, width: int) -> int:
        total = 0
        for network in passes:
            rows, columns = self._spans(network, Frame.of(network.generator, height, width))
            total += len(rows) * len(columns)
            height, width = network.scale * height, network.scale * width
        return total

    def _bands(self, network: Network, pixels: Pixels, progress: Progress) -> Iterator[Tensor]:
        """Yield the rows of the network's result for ``pixels`` ``[h, w, 3]`` as soon as they are final.

        Bands are float32 ``[3, n, s*w]`` in [0, 1], from top to bottom.
        """
        h, w = pixels.shape[:2]
        s = network.scale
        image = Framed(pixels, Frame.of(network.generator, h, w))
        first = s * image.frame.margin
        top = -first  # row of the result at which the next band begins
        make = self._streamed if network.generator.streams else self._tiled
        for band in make(network, image, progress):
            rows = band[:, max(0, -top) : max(0, s * h - top), first : first + s * w]
            top += band.shape[1]
            if rows.numel():
                yield rows

    def _tiled(self, network: Network, image: Framed, progress: Progress, *, counted: bool = True) -> Iterator[Tensor]:
        """Yield bands for ``image`` with its frame, from tiles that know nothing of each other."""
        s = network.scale
        rows, columns = self._spans(network, image.frame)
        carry = torch.empty(3, 0, s * image.frame.width)
        top = 0  # LR row at which the strip begins
        for row, following in zip_longest(rows, rows[1:]):
            strip = torch.zeros(3, s * (row.last - top), s * image.frame.width, device=self.assembly)
            strip[:, : carry.shape[1]] = carry
            for column in columns:
                tile = image.cut(slice(row.start, row.stop), slice(column.start, column.stop))
                sr = self._run_tile(network, tile, progress).to(self.assembly)
                y, x = s * (row.first - row.start), s * (column.first - column.start)
                sr = sr[:, y : y + s * (row.last - row.first), x : x + s * (column.last - column.first)]
                if row.fade:
                    sr = sr * row.window(s).to(sr.device)[:, None] * column.window(s).to(sr.device)
                strip[:, s * (row.first - top) :, s * column.first : s * column.last] += sr
                if counted:
                    progress.tile()
            final = image.frame.height if following is None else following.first
            yield strip[:, : s * (final - top)]
            carry = strip[:, s * (final - top) :].clone()  # lets go of the strip
            top = final

    def _run_tile(self, network: Network, tile: Pixels, progress: Progress) -> Tensor:
        """Return the network's result for ``tile`` ``[h, w, 3]``: float32 ``[3, s*h, s*w]`` in [0, 1].

        A tile that does not fit into memory is done in smaller ones, and so is what follows it.
        """
        h, w = tile.shape[:2]
        if max(h, w) <= self._geometry(network.generator)[0]:
            try:
                return network.run(tile, progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(network, max(h, w), error)
        smaller = Framed(tile, Frame.of(network.generator, h, w, margin=0))
        return torch.cat(list(self._tiled(network, smaller, progress, counted=False)), 1)

    def _streamed(self, network: Network, image: Framed, progress: Progress) -> Iterator[Tensor]:
        """Do what ``_tiled`` does with tiles that take up where the ones above them ended."""
        s = network.scale
        rows, columns = self._spans(network, image.frame)
        streams = [Column(network, image, slice(column.start, column.stop)) for column in columns]
        for row in rows:
            parts = []
            for stream in streams:
                parts.append(self._advance(stream, row.stop - row.start, progress).to(self.assembly))
                progress.tile()
            band = torch.zeros(3, parts[0].shape[1], s * image.frame.width, device=self.assembly)
            for column, sr in zip(columns, parts, strict=True):
                x = s * (column.first - column.start)
                sr = sr[:, :, x : x + s * (column.last - column.first)]
                faded = sr * column.window(s).to(sr.device) if column.fade else sr
                band[:, :, s * column.first : s * column.last] += faded
            yield band

    def _advance(self, stream: Column, rows: int, progress: Progress) -> Tensor:
        """Push ``rows`` into ``stream``, in parts if they do not fit into memory; return what is final then."""
        size = self._geometry(stream.network.generator)[0]
        m = stream.network.generator.multiple_of
        if rows == m or rows * stream.width <= size**2:
            try:
                return stream.push(rows, progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(stream.network, size, error)
            return self._advance(stream, rows, progress)
        upper = max(m, rows // 2 // m * m)
        return torch.cat([self._advance(stream, n, progress) for n in (upper, rows - upper)], 1)

    def _shrink(self, network: Network, edge: int, error: BaseException) -> None:
        """Halve the tile from ``edge``, or say that it cannot be less."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = max(MIN_TILE, edge // 2)
        overlap = None if self.tiling.overlap is None else min(self.tiling.overlap, half // 2)
        self.tiling = Tiling(size=half, overlap=overlap)
        if self._geometry(network.generator)[0] >= edge:
            raise OutOfMemory(
                f"{self.device}: not enough memory, also with a tile of {edge} pixels",
                "close other programs" + ("" if self.device.type == "cpu" else ", or use --device cpu"),
            ) from error


def _varies(alpha: Pixels) -> bool:
    return bool(alpha.min() != alpha.max())


def _to_arrays(bands: Iterable[Tensor], dtype: np.dtype[Any]) -> Iterator[Pixels]:
    """Round ``bands`` of float32 ``[3, n, W]`` to arrays ``[m, W, 3]``; on the CPU, few rows at a time: it copies."""
    for band in bands:
        for rows in torch.split(band, ROWS if band.device.type == "cpu" else band.shape[1], 1):
            yield to_array(rows, dtype)


def _collect(bands: Iterable[Pixels], height: int, width: int, dtype: np.dtype[Any]) -> Pixels:
    """Join ``bands`` of ``[n, width, 3]`` into one array ``[height, width, 3]``."""
    pixels = np.empty((height, width, 3), dtype)
    top = 0
    for band in bands:
        pixels[top : top + len(band)] = band
        top += len(band)
    return pixels


def _collect_deep(bands: Iterable[Tensor], height: int, width: int) -> Pixels:
    """Join ``bands`` of ``[3, n, width]`` with sixteen bits: no visible loss at half of float32's memory."""
    deep = np.dtype(np.uint16)
    return _collect(_to_arrays(bands, deep), height, width, deep)


def _grey(band: Tensor) -> Tensor:
    return band.mean(0, keepdim=True).expand(3, -1, -1)
