"""The directive ``command-help``: the ``--help`` text of each command."""

from __future__ import annotations

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata
from typer.testing import CliRunner

from aiocopyai.cli.commands import app


class CommandHelp(SphinxDirective):
    """Adds a section for each command, with its help for 80 columns."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [
            self._section(name) for name in sorted(typer.main.get_group(app).commands)
        ]

    def _section(self, name: str) -> nodes.section:
        title = f"aiocopyai {name}"
        done = CliRunner().invoke(
            app, [name, "--help"], prog_name="aiocopyai", env={"COLUMNS": "80"}
        )
        if done.exit_code:
            raise self.error(f"{title} --help failed: {done.output}")
        shown = nodes.literal_block(done.output, done.output.strip(), language="text")
        section = nodes.section(
            "",
            nodes.title(title, title),
            shown,
            ids=[nodes.make_id(title)],
            names=[title],
        )
        self.state.document.note_explicit_target(section)
        return section


def setup(sphinx: Sphinx) -> ExtensionMetadata:
    """Register the directive; called by Sphinx."""
    sphinx.add_directive("command-help", CommandHelp)
    return {"version": "1", "parallel_read_safe": True}
