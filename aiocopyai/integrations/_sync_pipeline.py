"""The dlt pipeline of ``aiocopyai sync``: its destination, a lock, and a load that counts new and updated rows."""

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
from aiocopyai._files import FileInUseError, file_errors, open_locked


_NAME: Final = "copyai"
"""The name of the pipeline and the dataset. dlt uses it to find its state in a database."""
_DLT_NAMES: Final = {"postgresql": "postgres"}
"""dlt's names of destinations by URL scheme, if they differ."""


class DestinationError(CopyAIError):
    """A load failed in dlt or in the destination. The message is one line."""


@frozen
class Destination:
    """A destination of dlt."""

    name: str
    """dlt's name of the destination, such as ``postgres``."""
    credentials: str | None
    """A URL or a path; None to use the credentials in dlt's configuration."""
    label: str
    """The name in messages, which never contains a password."""

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Return the destination with a URL or one of dlt's names.

        Raises:
            ValueError: the URL of a DuckDB file is invalid.
        """
        scheme, sign, rest = text.partition("://")
        name = _DLT_NAMES.get(scheme, scheme)
        if name != "duckdb" or not sign:
            return cls(name, text if sign else None, name)
        label = rest.removeprefix("/")
        path = Path(label).absolute()
        if "?" in label:
            raise ValueError(f"{text} must not contain a question mark: options of DuckDB are not supported")
        if not label or path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"{text} is not a file in an existing folder, such as duckdb:///runs.duckdb")
        return cls(name, str(path), label)

    @property
    def folder(self) -> Path:
        """The folder in which dlt keeps pending loads to this destination."""
        source = self.credentials or f"{self.name} {Path.cwd()}"  # dlt's configuration may be in the current folder
        return Path(get_dlt_pipelines_dir(), f"aiocopyai-{blake2b(source.encode(), digest_size=8).hexdigest()}")

    @contextmanager
    def locked(self) -> Generator[None]:
        """Prevent other processes on this machine from loading to the destination. A crash releases the lock.

        Raises:
            DestinationError: another process has the lock.
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
            ValueError: dlt does not support the destination, cannot merge rows there, or lacks packages or settings.
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
        except Exception as error:  # each destination has its own errors
            raise DestinationError(f"dlt cannot load to {self.label}: {error}".partition("\n")[0]) from error
        if "delete-insert" not in (capabilities.supported_merge_strategies or ()):
            raise ValueError(f"{self.name} is not supported: dlt cannot merge rows there")
        return pipeline


@frozen
class LoadResult:
    """The result of a load."""

    new: int
    """The number of rows that were added."""
    updated: int
    """The number of rows that existed and were loaded again."""
    total: int
    """The number of rows after the load."""


def load(pipeline: dlt.Pipeline, source: DltSource, on_progress: Callable[[int], None]) -> LoadResult:
    """Load the runs that are new or may have changed.

    Args:
        pipeline: the pipeline.
        source: the source of the runs.
        on_progress: called with the number of runs read so far.

    Raises:
        CopyAIError: the runs cannot be read.
        DestinationError, OSError: the runs cannot be loaded.
    """
    read = 0

    def count(batch: Any) -> object:  # noqa: ANN401 (an Arrow batch, which has no types)
        nonlocal read
        read += batch.num_rows
        on_progress(read)
        return batch

    source.resources["runs"].add_map(count)
    try:
        initial = _count_rows(pipeline)
        if pipeline.has_pending_data:
            pipeline.run()
        # Delete the local state, so that dlt reads it from the database, which may have been restored from a backup.
        pipeline.drop()
        before_load = _count_rows(pipeline)
        pipeline.run(source)
        total = _count_rows(pipeline)
    except Exception as error:  # noqa: BLE001 (each destination has its own errors)
        with file_errors(Path(pipeline.working_dir)):
            _raise_cause(error)
    return LoadResult(total - initial, max(0, read - (total - before_load)), total)


def _count_rows(pipeline: dlt.Pipeline) -> int:
    with pipeline.sql_client() as client:
        try:
            rows = client.execute_sql(f"SELECT count(*) FROM {client.make_qualified_table_name('runs')}")  # noqa: S608 (quoted by dlt)
        except DatabaseUndefinedRelation:
            return 0
    return int(rows[0][0]) if rows else 0


def _raise_cause(error: BaseException) -> NoReturn:
    """Raise the interrupt, `CopyAIError` or `OSError` that caused dlt's error, or else a `DestinationError`."""
    cause = error
    while not isinstance(cause, KeyboardInterrupt | CopyAIError | OSError):
        deeper = cause.__cause__ or cause.__context__
        if deeper is None:
            raise DestinationError(str(cause).strip().partition("\n")[0]) from error
        cause = deeper
    raise cause
