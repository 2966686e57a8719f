"""Plain Sphinx gets from `_config.yml` the settings that jupyter-book makes of it."""

from pathlib import Path

import pytest
import yaml

from lottolab.pages.site import plain_sphinx

CONFIG = Path(__file__).parents[2] / "_config.yml"


def given() -> dict:
    return yaml.safe_load(CONFIG.read_text(encoding="utf-8"))


def test_settings_are_those_of_jupyter_book():
    pytest.importorskip("jupyter_book", reason="jupyter-book is not installed")
    from jupyter_book.config import get_final_config

    cli = {"latex_individualpages": False}
    theirs, _ = get_final_config(user_yaml=CONFIG, cli_config=cli)
    ours = plain_sphinx.settings(given())
    for name in ("extensions", "exclude_patterns"):
        ours[name] = [x for x in theirs[name] if x in ours[name]]
        extra = set(theirs.pop(name)) - set(ours.pop(name))
        assert extra <= plain_sphinx.WRAPPERS | {
            *("sphinx_jupyterbook_latex", "sphinx_multitoc_numbering"),
            *("**.ipynb_checkpoints", ".DS_Store", "Thumbs.db"),
        }
    assert ours == {name: theirs[name] for name in ours}
    defaults = [name for name in theirs if name not in ours and theirs[name]]
    assert set(defaults) == {
        *("comments_config", "use_jupyterbook_latex", "use_multitoc_numbering"),
        *("latex_engine", "nb_execution_timeout", "nb_output_stderr"),
        *("pygments_style", "suppress_warnings"),  # of which no page is in need
    }


def test_an_entry_without_translation_is_named():
    with pytest.raises(ValueError, match=r"got \['html\.favicon'\]"):
        plain_sphinx.settings(given() | {"html": {"favicon": "a.ico"}})
