"""The dlt pipeline of ``aiocopyai sync``: its destination, a lock on it, and a load with a count of what it changed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NoReturn

import dlt
from attrs import frozen
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.exceptions import MissingDependencyException
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.extract import DltSource

from aiocopyai import CopyAIError
from aiocopyai._files import FileInUseError, open_locked


_NAME: Final = "copyai"
"""The name of each pipeline and its dataset: dlt finds its state in a database by this name."""
_DRIVERS: Final = {"postgresql": "postgres"}
"""URL schemes for which dlt has another name."""


class DestinationError(CopyAIError):
    """A load failed in dlt or in the destination; the message is one line."""


@frozen
class Destination:
    """Where to load to."""

    name: str
    """dlt's name for destinations of this kind."""
    credentials: str | None
    """A URL or a path; None if they are in dlt's configuration."""
    label: str
    """What to call it in messages: unlike a URL, this never has a password."""

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Return the destination for dlt's name of it or for a URL.

        Raises:
            ValueError: it is a DuckDB URL that cannot be used.
        """
        scheme, sign, rest = text.partition("://")
        name = _DRIVERS.get(scheme, scheme)
        if name != "duckdb" or not sign:
            return cls(name, text if sign else None, name)
        label = rest.removeprefix("/")
        path = Path(label).absolute()
        if "?" in label:
            raise ValueError(f"{text} must not have a question mark: DuckDB's options cannot be passed")
        if not label or path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"{text} is not a file in an existing folder, such as duckdb:///runs.duckdb")
        return cls(name, str(path), label)

    @property
    def folder(self) -> Path:
        """The folder in which dlt keeps pending loads to this destination."""
        place = self.credentials or f"{self.name} {Path.cwd()}"  # dlt's configuration depends on the current folder
        return Path(get_dlt_pipelines_dir(), f"aiocopyai-{blake2b(place.encode(), digest_size=8).hexdigest()}")

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes on this machine from loading to the destination; the lock ends with the process.

        Raises:
            DestinationError: another process is loading to it.
            OSError: dlt's folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = open_locked(self.folder / "lock.db")
        except FileInUseError:
            raise DestinationError(f"another sync to {self.label} is in progress") from None
        with closing(lock):
            yield

    def open_pipeline(self) -> dlt.Pipeline:
        """Return the pipeline to this destination.

        Raises:
            ValueError: dlt does not know the destination, or cannot use it or merge into it.
            DestinationError: dlt failed for another reason.
        """
        options: dict[str, Any] = {} if self.credentials is None else {"credentials": self.credentials}
        try:
            destination = dlt.destination(self.name, **options)
            pipeline = dlt.pipeline(_NAME, destination=destination, dataset_name=_NAME, pipelines_dir=str(self.folder))
            capabilities = pipeline.destination_client().capabilities
        except UnknownDestinationModule:
            raise ValueError(
                f"dlt has no destination {self.name!r}; for a DuckDB file, use duckdb:///runs.duckdb"
            ) from None
        except MissingDependencyException:
            raise ValueError(
                f'{self.name} requires more packages; install with: python -m pip install "dlt[{self.name}]"'
            ) from None
        except ConfigurationException as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"dlt's configuration of {self.name} is incomplete: {reason}") from None
        except Exception as error:  # each destination raises its own errors
            raise DestinationError(f"dlt cannot load to {self.label}: {error}".partition("\n")[0]) from error
        if "delete-insert" not in (capabilities.supported_merge_strategies or ()):
            raise ValueError(f"{self.name} cannot be kept up to date: dlt does not merge rows there")
        return pipeline


@frozen
class LoadResult:
    """What a load changed."""

    new: int
    """Rows that were added."""
    updated: int
    """Rows that were read again."""
    total: int
    """Rows that the table has."""


def load(pipeline: dlt.Pipeline, source: DltSource, on_progress: Callable[[int], None]) -> LoadResult:
    """Load what is new or may have changed.

    Args:
        pipeline: the pipeline.
        source: the runs.
        on_progress: called with the number of runs read so far.

    Raises:
        CopyAIError: the runs cannot be read.
        DestinationError, OSError: they cannot be loaded.
    """
    read = 0

    def count(batch: Any) -> object:  # noqa: ANN401 (an Arrow batch, which has no types)
        nonlocal read
        read += batch.num_rows
        on_progress(read)
        return batch

    source.resources["runs"].add_map(count)
    try:
        first = _count_rows(pipeline)
        if pipeline.has_pending_data:
            pipeline.run()
        # After this, dlt's state is that of the database, also if an older copy of it was restored.
        pipeline.drop()
        before = _count_rows(pipeline)
        pipeline.run(source)
        total = _count_rows(pipeline)
    except Exception as error:  # noqa: BLE001 (each destination raises its own errors)
        _raise_cause(error)
    return LoadResult(total - first, max(0, read - (total - before)), total)


def _count_rows(pipeline: dlt.Pipeline) -> int:
    with pipeline.sql_client() as client:
        try:
            rows = client.execute_sql(f"SELECT count(*) FROM {client.make_qualified_table_name('runs')}")  # noqa: S608 (quoted by dlt)
        except DatabaseUndefinedRelation:
            return 0
    return int(rows[0][0]) if rows else 0


def _raise_cause(error: BaseException) -> NoReturn:
    """Raise the error that dlt's error was caused by; an interrupt may be hidden behind others."""
    deepest = error
    while not isinstance(deepest, KeyboardInterrupt | CopyAIError | OSError):
        below = deepest.__cause__ or deepest.__context__
        if below is None:
            raise DestinationError(str(deepest).strip().partition("\n")[0]) from error
        deepest = below
    raise deepest
