"""Pictures of committed pages: without what nobody sees of them."""

import base64
import io


def lean(cell) -> None:
    """Store the PNG pictures of a notebook's cell by `opaque`.

    One that is glued into another page too, under a name of papermill's, keeps its
    bytes in common with what is shown here: the book collects them by their hash.
    """
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        for kind in data:
            if kind.endswith("image/png"):
                data[kind] = opaque(data[kind])


def opaque(png: str) -> str:
    """Return a picture, PNG in base64, without an alpha channel that hides nothing.

    Its pixels stay as they are, bit by bit; an eighth of matplotlib's bytes goes. A
    picture that is translucent somewhere, or has no alpha channel, stays.
    """
    from PIL import Image

    kept = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        if picture.mode != "RGBA" or picture.getextrema()[3] != (255, 255):
            return png
        picture.convert("RGB").save(kept, "PNG", optimize=True)
    return base64.b64encode(kept.getvalue()).decode("ascii")
