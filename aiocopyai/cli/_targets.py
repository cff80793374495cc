"""Where ``aiocopyai sync`` loads to: what ``--to`` means, and dlt's pipeline to there."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

import dlt
import typer
from attrs import frozen
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.exceptions import MissingDependencyException
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.destinations.exceptions import DatabaseUndefinedRelation

from aiocopyai.cli._errors import CommandError


_NAME: Final = "copyai"
"""Of every pipeline and its dataset: dlt finds its state in a database by it, wherever that has moved."""
_DRIVERS: Final = {"postgresql": "postgres"}
"""Schemes of URLs that dlt calls otherwise."""


@frozen
class Target:
    """A place to load to."""

    name: str
    """What dlt calls a destination of this kind."""
    credentials: str | None
    """A URL, or a path; None where they are in dlt's configuration."""
    label: str
    """What it is called in front of users; a URL may hold a password."""

    @property
    def folder(self) -> Path:
        """Where dlt keeps what is under way to here, and to nowhere else."""
        place = self.credentials or f"{self.name} {Path.cwd()}"  # dlt's configuration belongs to a folder
        return Path(get_dlt_pipelines_dir(), f"aiocopyai-{blake2b(place.encode(), digest_size=8).hexdigest()}")


def read_target(to: str) -> Target:
    """Read ``--to``: what dlt calls a destination, or a URL that begins with that.

    Raises:
        typer.BadParameter: it can't be one.
    """
    scheme, sign, rest = to.partition("://")
    name = _DRIVERS.get(scheme, scheme)
    if name != "duckdb" or not sign:
        return Target(name, to if sign else None, name)
    label = rest.removeprefix("/")
    path = Path(label).absolute()
    if "?" in label:
        raise typer.BadParameter(f"{to}: what is behind a question mark can't be passed on to DuckDB")
    if not label or path.is_dir() or not path.parent.is_dir():
        raise typer.BadParameter(f"{to} is no place for a database; one in this folder is duckdb:///runs.duckdb")
    return Target(name, str(path), label)


def open_pipeline(target: Target) -> dlt.Pipeline:
    """Make the pipeline to a target.

    Raises:
        typer.BadParameter: dlt has no such destination, or it lacks something, or can't be merged into.
    """
    name = target.name
    try:
        destination = dlt.destination(name, **({"credentials": target.credentials} if target.credentials else {}))
        pipeline = dlt.pipeline(_NAME, destination=destination, dataset_name=_NAME, pipelines_dir=str(target.folder))
        able = pipeline.destination_client().capabilities
    except UnknownDestinationModule:
        raise typer.BadParameter(
            f"dlt has no destination {name!r}; a DuckDB file is called duckdb:///runs.duckdb"
        ) from None
    except MissingDependencyException:
        raise typer.BadParameter(f'{name} needs more; install by: python -m pip install "dlt[{name}]"') from None
    except ConfigurationException as error:
        why = str(error).strip().partition("\n")[0]
        raise typer.BadParameter(f"dlt's configuration says too little of {name}: {why}") from None
    except Exception as error:  # each destination has errors of its own
        raise CommandError(f"dlt can't load to {target.label}: {error}".partition("\n")[0]) from error
    if "delete-insert" not in (able.supported_merge_strategies or ()):
        raise typer.BadParameter(f"{name} can't be kept up to date: dlt doesn't merge rows there")
    return pipeline


def count_rows(pipeline: dlt.Pipeline) -> int:
    """Ask a database how many runs it has."""
    with pipeline.sql_client() as client:
        try:
            rows = client.execute_sql(f"SELECT count(*) FROM {client.make_qualified_table_name('runs')}")  # noqa: S608 (quoted by dlt)
        except DatabaseUndefinedRelation:
            return 0
    return int(rows[0][0]) if rows else 0


@contextmanager
def alone(target: Target) -> Generator[None]:
    """Hold a target, so that no other process of this machine loads to it; an end of any kind lets go of it.

    Raises:
        CommandError: another one does, or dlt's folder can't be written to.
        OSError: the same.
    """
    target.folder.mkdir(parents=True, exist_ok=True)
    path = target.folder / "held.db"
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(closing(sqlite3.connect(path, timeout=0, isolation_level=None)))
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            is_held = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            why = f"another sync to {target.label} is under way" if is_held else f"{path}: {error}"
            raise CommandError(why) from None
        yield
