"""What nobody sees of a picture is not committed, and all that one sees is."""

import base64
import io

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbformat import v4
from PIL import Image

from lottolab.pages import parameters, pictures
from lottolab.reruns import execute


def drawn(**how):
    figure, png = Figure(), io.BytesIO()
    figure.subplots().plot([0, 1, 0], alpha=0.3)
    figure.savefig(png, format="png", **how)
    return base64.b64encode(png.getvalue()).decode("ascii")


def pixels(png):
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return picture.mode, np.asarray(picture.convert("RGBA"))


def test_pixels_stay_and_bytes_go():
    before = drawn(facecolor="white")
    after = pictures.opaque(before)
    assert len(after) < 0.95 * len(before)
    assert pixels(before)[0] == "RGBA"
    assert pixels(after)[0] == "RGB"
    assert np.array_equal(pixels(before)[1], pixels(after)[1])
    assert pictures.opaque(after) == after


def test_a_translucent_picture_is_left_as_it_is():
    before = drawn(transparent=True)
    assert pixels(before)[1][..., 3].min() < 255
    assert pictures.opaque(before) == before


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setattr(parameters, "BOOK", tmp_path / "book")
    parameters.BOOK.mkdir()
    return parameters.BOOK


def test_a_published_page_has_lean_pictures(book, tmp_path):
    before = drawn(facecolor="white")
    shown = v4.new_output("display_data", data={"image/png": before})
    cell = v4.new_code_cell("figure", outputs=[shown], execution_count=1)
    nbformat.write(v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    execute.publish_notebook(tmp_path / "page.ipynb")
    output = nbformat.read(book / "page.ipynb", 4).cells[0].outputs[0]
    assert output["data"]["image/png"] == pictures.opaque(before) != before


def test_a_glued_picture_keeps_its_bytes_in_common_with_what_is_shown():
    png = drawn(facecolor="white")
    glued = "application/papermill.record/image/png"
    both = [v4.new_output("display_data", {k: png}) for k in ("image/png", glued)]
    cell = v4.new_code_cell("draw()", outputs=both)
    pictures.lean(cell)
    shown, kept = (next(iter(o["data"].values())) for o in cell.outputs)
    assert shown == kept == pictures.opaque(png) != png
