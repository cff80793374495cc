"""Sphinx configuration; ``nox -s docs`` builds the documentation."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Final

from pygments.lexers import TextLexer
from sphinx.application import Sphinx
from sphinx.util.inspect import TypeAliasForwardRef


sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "aiocopyai"
author = "The aiocopyai authors"
copyright = f"2026, {author}"  # noqa: A001 (Sphinx's name)
release = metadata.version("aiocopyai")
urls = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))[
    "project"
]["urls"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "command_help",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"aiocopyai {release}"
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "source_repository": urls["Source"],
    "source_branch": "main",
    "source_directory": "docs/",
}
myst_heading_anchors = 3
python_maximum_signature_line_length = 88

default_role = "code"  # single backticks in docstrings are code, as in Markdown
napoleon_numpy_docstring = False
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_type_aliases = {"JSON": "aiocopyai.JSON"}

nitpicky = True
nitpick_ignore_regex = [
    # Types of other projects: their inventories would have to be downloaded.
    (
        r"py:.*",
        r"(aiohttp|asyncio|collections|dask|datetime|dlt|mcp|os|pathlib|pyarrow|sqlite3|types|web)\..*|datetime",
    ),
    (r"py:class", r"aiocopyai\..*\.[KT](_co)?"),  # type variables
    # Types that users of the package do not name.
    (
        r"py:class",
        r"aiocopyai\._pager\.PageIterator|aiocopyai\.webhooks\._confirmation\.RunReader|Inputs",
    ),
]

# Inside another type, Sphinx shows a type alias as its repr, without a setting for it.
TypeAliasForwardRef.__repr__ = lambda alias: alias.name
_JSON: Final = "aiocopyai.JSON"
_EXPANDED_JSON: Final = (
    f"bool | int | float | str | list[{_JSON}] | dict[str, {_JSON}] | None"
)


def _shorten(text: str | None) -> str | None:
    """Use the alias JSON, and readable defaults, in a signature."""
    if text is None:
        return None
    text = re.sub(r"(: Mapping\[[^=]*= )NOTHING", r"\1{}", text)
    return text.replace(_EXPANDED_JSON, _JSON).replace("= NOTHING", "= ...")


def _process_signature(*arguments: object) -> tuple[str | None, str | None]:
    *_, signature, returned = arguments
    return _shorten(signature), _shorten(returned)


def _process_docstring(
    _app: Sphinx,
    what: str,
    _name: str,
    _object: object,
    _options: object,
    lines: list[str],
) -> None:
    """Mark an attribute's docstring as untyped: napoleon reads types before colons."""
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"


def setup(app: Sphinx) -> None:
    """Connect the functions; called by Sphinx."""
    app.add_lexer("csv", TextLexer)  # Pygments has no lexer for it
    app.connect("autodoc-process-signature", _process_signature)
    app.connect(
        "autodoc-process-docstring", _process_docstring, priority=400
    )  # before napoleon, at 500
