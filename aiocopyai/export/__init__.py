"""Runs to files: JSON lines, CSV and Parquet, of any number of runs, by a process that may be killed at any moment."""

from aiocopyai.export._errors import ExportError
from aiocopyai.export._export import Exported, export_runs, read_export
from aiocopyai.export._reading import Progress


__all__ = ["ExportError", "Exported", "Progress", "export_runs", "read_export"]
