"""Build the pages with Sphinx itself, which is the way out when jupyter-book 1 dies.

jupyter-book 1 is frozen at Sphinx 7. It adds to Sphinx little but the translation of
`_config.yml`, which is done here too, so that both builds have one source of settings.
"""

from pathlib import Path

import yaml

from lottolab.checks import require

# entries of `_config.yml`, and what Sphinx and its extensions call them
NAMES = {
    ("title",): "html_title",
    ("author",): "author",
    ("copyright",): "copyright",
    ("only_build_toc_files",): "external_toc_exclude_missing",
    ("exclude_patterns",): "exclude_patterns",
    ("execute", "execute_notebooks"): "nb_execution_mode",
    ("parse", "myst_enable_extensions"): "myst_enable_extensions",
    ("bibtex_bibfiles",): "bibtex_bibfiles",
}
# what jupyter-book sets unasked, and these pages rely on
DEFAULTS = {
    "html_theme": "sphinx_book_theme",
    "html_sourcelink_suffix": "",
    "myst_url_schemes": ["mailto", "http", "https"],
    "numfig": True,
}
WRAPPERS = {"jupyter_book", "sphinx_comments"}  # extensions that no page uses


def command(work: Path, strict: bool, python: str) -> list[str]:
    """Write `conf.py` into the folder of a book; return what builds its pages.

    They come to `_build/html`, where jupyter-book puts them too.
    """
    config = yaml.safe_load((work / "_config.yml").read_text(encoding="utf-8"))
    lines = [f"{name} = {value!r}\n" for name, value in settings(config).items()]
    (work / "conf.py").write_text("".join(lines), encoding="utf-8")
    options = ["-d", str(work / "_build" / "doctrees")]
    options += ["-W", "-n", "--keep-going"] if strict else []
    folders = [str(work), str(work / "_build" / "html")]
    return [python, "-m", "sphinx", *options, *folders]


def settings(config: dict) -> dict:
    """Translate jupyter-book's settings into Sphinx's.

    Raises:
        ValueError: an entry has no translation here.
    """
    entries = dict(_entries(config))
    own = entries.pop(("sphinx", "config"), {})
    unknown = [".".join(place) for place in entries if place not in NAMES]
    known = ", ".join(map(".".join, NAMES))
    require(not unknown, f"an entry of _config.yml must be one of {known}", unknown)
    found = DEFAULTS | {NAMES[place]: value for place, value in entries.items()} | own
    found["exclude_patterns"] = ["_build", *found.get("exclude_patterns", [])]
    found["extensions"] = [e for e in found["extensions"] if e not in WRAPPERS]
    return found


def _entries(config: dict, above: tuple[str, ...] = ()):
    """Yield the leaves of nested settings; Sphinx's own are one leaf."""
    for key, value in config.items():
        place = (*above, key)
        if isinstance(value, dict) and place != ("sphinx", "config"):
            yield from _entries(value, place)
        else:
            yield place, value
