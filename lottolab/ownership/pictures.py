"""Pictures for trigger sets: abstract ones drawn by code, and the owner's own."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lottolab.checks import one_of, require, whole

FINE = 4  # pictures are drawn at four times their size and averaged: smooth edges


def abstract(count: int, *, channels: int, size: int, seed: int) -> Tensor:
    """Draw abstract pictures; uint8, count×channels×size×size.

    A patterned ground and one to three patterned shapes, in colours of their own. The
    first pictures do not change with `count`. Keep them: another processor may round
    a pixel differently.

    Raises ValueError for count < 1, channels not 1 or 3, size < 8 or seed < 0.
    """
    whole("count", count, 1)
    whole("seed", seed, 0)
    _check_format(channels, size)
    axis = np.linspace(-1, 1, FINE * size)
    plane = axis + 1j * axis[:, None]
    images = torch.empty(count, channels, size, size, dtype=torch.uint8)
    for place in range(count):
        random = np.random.default_rng([seed, place])
        canvas = _fill(plane, channels, random)
        for _ in range(random.integers(1, 4)):
            shape = _shape(_moved(plane, 0.7, random), random)
            canvas = np.where(shape, _fill(plane, channels, random), canvas)
        means = canvas.reshape(channels, size, FINE, size, FINE).mean((2, 4))
        images[place] = torch.from_numpy((255 * means).round().astype(np.uint8))
    return images


def from_folder(path: str | Path, *, channels: int, size: int) -> Tensor:
    """Read a folder's pictures, sorted by name; uint8, N×channels×size×size.

    Files with the ending of a format that Pillow reads are cropped to their central
    square, resized to `size` and, where transparent, laid on white.

    Raises ValueError for no such folder, no picture in it, or a damaged one.
    """
    from PIL import Image, ImageOps

    _check_format(channels, size)
    path = Path(path)
    require(path.is_dir(), "path must be a folder of pictures", path)
    endings = {e for e, f in Image.registered_extensions().items() if f in Image.OPEN}
    files = [p for p in path.iterdir() if p.suffix.lower() in endings]
    files.sort(key=lambda file: file.name)  # paths sort otherwise on Windows
    require(bool(files), f"{path} must hold a picture, such as a .png", "none")
    images = torch.empty(len(files), size, size, channels, dtype=torch.uint8)
    for place, file in enumerate(files):
        try:
            with Image.open(file) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGBA")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            raise ValueError(f"{file} must be a picture that opens: {e}") from e
        white = Image.new("RGBA", picture.size, "white")
        flat = Image.alpha_composite(white, picture)
        flat = ImageOps.fit(flat.convert("L" if channels == 1 else "RGB"), (size, size))
        images[place] = torch.from_numpy(np.array(flat)).view(size, size, channels)
    return images.permute(0, 3, 1, 2).contiguous()


def _moved(plane: np.ndarray, reach: float, random: np.random.Generator) -> np.ndarray:
    """Turn the plane, x + iy in ±1, and move its origin by up to `reach`."""
    x, y, turns = random.uniform(-1, 1, 3)
    return (plane - reach * (x + 1j * y)) * np.exp(1j * np.pi * turns)


def _shape(z: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return where an ellipse, polygon, flower, ring or band is, bool."""
    kind, corners = random.integers(5), random.integers(3, 7)
    radius, width = random.uniform(0.35, 0.7), random.uniform(0.12, 0.25)
    if kind == 0:
        return np.hypot(z.real, z.imag / random.uniform(0.4, 1)) < radius
    if kind == 1:
        sector = np.angle(z) % (2 * np.pi / corners) - np.pi / corners
        return abs(z) * np.cos(sector) < 0.8 * radius
    if kind == 2:
        return abs(z) < radius * (1 + 0.45 * np.cos(corners * np.angle(z)))
    return abs((abs(z) - radius) if kind == 3 else z.real) < width


def _fill(plane: np.ndarray, channels: int, random: np.random.Generator) -> np.ndarray:
    """Paint a pattern in three colours; float64 in [0, 1], channels first."""
    z, pitch = _moved(plane, 0.8, random), random.uniform(3, 12)
    arms = random.integers(2, 7)
    painters = (
        lambda: z.real,
        lambda: np.sin(pitch * z.real + 2 * np.sin(pitch / 2 * z.imag)),
        lambda: np.sin(pitch * abs(z)),
        lambda: np.sin(pitch * abs(z) + arms * np.angle(z)),
        lambda: np.sin(arms * np.angle(z)),
        lambda: np.sin(pitch * z.real) * np.sin(pitch * z.imag),
    )
    wave = painters[random.choice(6, p=[0.3, 0.15, 0.15, 0.1, 0.15, 0.15])]()
    wave = np.sign(wave) if random.random() < 0.4 else wave
    light = random.permutation([0.05, 0.55, 1]) ** random.uniform(0.5, 1.5)
    colours = np.repeat(light[:, None], channels, axis=1)
    if channels == 3:
        hue = random.random() + random.choice([0, 0.12, 0.33, 0.5], 3)[:, None]
        tint = 0.5 + 0.5 * np.cos(2 * np.pi * (hue + np.arange(3) / 3))
        colours *= 1 - random.uniform(0.2, 0.9, (3, 1)) * (1 - tint)
    stops = np.linspace(wave.min(), wave.max(), 3)
    return np.stack([np.interp(wave, stops, part) for part in colours.T])


def _check_format(channels: int, size: int) -> None:
    whole("channels", channels, 1)
    one_of("channels", channels, (1, 3))
    whole("size", size, 8)
