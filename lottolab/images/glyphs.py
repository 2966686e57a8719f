"""Draw letters from matplotlib's fonts: an image set with any number of classes.

Real sets that everybody has stop at ten classes. Here the letters that twelve DejaVu
faces share, 1,199 different outlines, are drawn with random affine maps, contrast,
inversion and noise.
"""

import hashlib
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab import runs
from lottolab.checks import require, whole, within

SIZE = 28
# Drawn at twice the size and averaged 2×2, so that thin strokes do not flicker.
CANVAS = 2 * SIZE
EM = 40
KINDS = ("Lu", "Ll", "Lt", "Lo")
BATCH = 1000

# Pairs whose outlines differ by a hair and whose drawings do not: in some face the
# squared difference is under 1 % of the ink. Written out rather than measured at run
# time, so that the classes do not depend on the rasteriser; the test measures them.
LOOKALIKES = "ÂȂ ÊȆ ÎȊ ÏΪ ÔȎ ÛȖ üӥ ĂǍ ĔĚ ŎǑ ūӣ ŬǓ ŸΫ ɯա ɰպ ЌḰ ФՓ ӇꜦ"


def faces() -> list[Path]:
    """List the 12 DejaVu faces with many letters that matplotlib ships, by name.

    DejaVuSansDisplay and DejaVuSerifDisplay hold only a few symbols.

    Raises FileNotFoundError where matplotlib's fonts were taken away.
    """
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    paths = sorted(folder.glob("DejaVu*.ttf"))
    paths = [path for path in paths if "Display" not in path.name]
    if len(paths) != 12:
        raise FileNotFoundError(
            f"12 DejaVu faces must be in {folder}, found {len(paths)}: install "
            "matplotlib from a wheel"
        )
    return paths


@lru_cache
def letters() -> tuple[str, ...]:
    """List the classes: one letter for each outline, in a fixed shuffled order.

    A class is an outline, not a code point: letters that all faces have and that
    share an outline, up to its position, in any one face are one class; so are
    `LOOKALIKES`. Unicode's modifier letters (Lm) are left out: they are bare accents
    and small copies of others, and the random scale takes that difference away. The
    lowest code point stands for the class. The order is that of a hash, so that
    neighbours are of all alphabets.

    >>> "A" in letters(), "Α" in letters()  # Latin, Greek
    (True, False)
    """
    from fontTools.ttLib import TTFont

    fonts = [TTFont(path) for path in faces()]
    shared = set.intersection(*(set(font.getBestCmap()) for font in fonts))
    common = sorted(c for c in map(chr, shared) if unicodedata.category(c) in KINDS)
    parent = {char: char for char in common}

    def root(char: str) -> str:
        while parent[char] != char:
            char = parent[char]
        return char

    def join(a: str, b: str) -> None:
        low, high = sorted((root(a), root(b)))
        parent[high] = low

    for font in fonts:
        seen: dict[bytes, str] = {}
        for char, outline in _outlines(font, common).items():
            join(char, seen.setdefault(outline, char))
    for a, b in LOOKALIKES.split():
        join(a, b)
    order = {char: hashlib.sha256(char.encode()).digest() for char in common}
    return tuple(sorted((c for c in common if root(c) == c), key=order.__getitem__))


def _outlines(font: object, chars: list[str]) -> dict[str, bytes]:
    """Read the letters' outlines from a fontTools font, moved to the origin."""
    glyphs, names, keys = font["glyf"], font.getBestCmap(), {}
    for name in {names[ord(char)] for char in chars}:
        points, ends, flags = glyphs[name].getCoordinates(glyphs)
        xy = np.array(points, dtype=np.int32)
        shape = np.array(ends, dtype=np.int32).tobytes() + bytes(flags)
        keys[name] = (xy - xy.min(0)).tobytes() + shape
    return {char: keys[names[ord(char)]] for char in chars}


def check(classes: int, first_class: int, images: int = 1) -> None:
    """Raise ValueError for numbers that `draw` refuses."""
    for name, given in {"images": images, "classes": classes}.items():
        whole(name, given, 1)
    within("classes", classes, "[2, 1000]")
    whole("first_class", first_class, 0)
    available = len(letters())
    last = available - classes
    limit = f"with classes={classes} first_class must be in [0, {last}]"
    there = f"{limit} (there are {available} glyph classes)"
    require(0 <= first_class <= last, there, first_class)


@lru_cache(maxsize=4)
def templates(classes: int, first_class: int) -> Tensor:
    """Draw each class once in each face; uint8 [classes, 12, 56, 56], 255 is ink.

    Raises ValueError where the classes asked for are not all there.
    """
    from PIL import Image, ImageDraw, ImageFont

    check(classes, first_class)
    drawn = np.zeros((classes, 12, CANVAS, CANVAS), np.uint8)
    for j, path in enumerate(faces()):
        # The basic layout draws the code point's own outline, whatever is installed.
        font = ImageFont.truetype(path, EM, layout_engine=ImageFont.Layout.BASIC)
        for i, char in enumerate(letters()[first_class : first_class + classes]):
            image = Image.new("L", (2 * CANVAS, 2 * CANVAS))
            ImageDraw.Draw(image).text(
                (CANVAS // 2, CANVAS // 4), char, font=font, fill=255
            )
            left, top, right, bottom = image.getbbox()
            x, y = (left + right - CANVAS) // 2, (top + bottom - CANVAS) // 2
            drawn[i, j] = np.asarray(image.crop((x, y, x + CANVAS, y + CANVAS)))
    return torch.from_numpy(drawn)


def draw(
    classes: int, images: int, first_class: int = 0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw `images` letters; uint8 [images, 1, 28, 28] in 0..255 and int64 [images].

    Labels are shuffled and balanced to within one image. Class `k` is the letter
    `letters()[first_class + k]`, whatever the seed, so that sets with disjoint ranges
    share no outline. The arguments alone decide the bytes, on one machine.

    Raises ValueError for numbers out of range.

    >>> [len(part) for part in draw(2, 10)]
    [10, 10]
    """
    check(classes, first_class, images)
    # Two sets, say a target's and a thief's, must not share their noise.
    key = hashlib.sha256(repr((classes, images, first_class, seed)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    ink = templates(classes, first_class)
    order = torch.randperm(images, generator=generator)
    labels = torch.arange(images)[order] % classes
    face = torch.randint(ink.shape[1], (images,), generator=generator)
    out = torch.empty(images, 1, SIZE, SIZE, dtype=torch.uint8)
    for i in range(0, images, BATCH):
        part = slice(i, i + BATCH)
        out[part] = _vary(ink[labels[part], face[part], None], generator)
    return out, labels


@runs.stage("glyphs.drawn")
def drawn(
    *, classes: int, images: int, first_class: int, seed: int, fonts: str
) -> dict:
    """Keep what `draw` returns; `fonts` is the version of matplotlib, which has them.

    Drawing takes half a millisecond an image, in each of many processes.
    """
    pixels, labels = draw(classes, images, first_class, seed)
    return {"pixels": pixels, "labels": labels}


def _vary(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Warp, shade and spoil drawings; uint8 [B, 1, 56, 56] to uint8 [B, 1, 28, 28]."""
    size = len(ink)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    grid = F.affine_grid(_affine(uniform), [size, 1, CANVAS, CANVAS], False)
    warped = F.grid_sample(ink.float() / 255, grid, align_corners=False)
    image = F.avg_pool2d(warped, 2)
    inverted = uniform(0, 1)[:, None, None, None] < 0.5
    image = torch.where(inverted, 1 - image, image)
    contrast = uniform(0.4, 1)
    floor = (1 - contrast) * uniform(0, 1)
    image = image * contrast[:, None, None, None] + floor[:, None, None, None]
    image += 0.05 * torch.randn(image.shape, generator=generator)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _affine(uniform: Callable[[float, float], Tensor]) -> Tensor:
    """Choose maps from output to input: ±15° rotation, shear, scale, shift; [B, 2, 3].

    Coordinates run from -1 to 1: a shift of 0.14 is two pixels of 28.
    """
    angle = uniform(-15, 15).deg2rad()
    shear, zoom = uniform(-0.15, 0.15), 1 / uniform(0.85, 1.15)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * zoom, (cos * shear - sin) * zoom, uniform(-0.14, 0.14)]
    rows += [sin * zoom, (sin * shear + cos) * zoom, uniform(-0.14, 0.14)]
    return torch.stack(rows, dim=1).view(-1, 2, 3)
