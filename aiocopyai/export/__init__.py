"""Runs as files: JSON lines, CSV and Parquet, of any number of runs, by processes that may be killed at any time."""

from aiocopyai.export._export import Exported, Progress, export_runs, read_export
from aiocopyai.export._formats import ExportError


__all__ = ["ExportError", "Exported", "Progress", "export_runs", "read_export"]
