"""Write runs to JSON lines, CSV or Parquet, and read them back. An export can be resumed after a crash."""

from aiocopyai.export._export import Exported, export_runs, read_export
from aiocopyai.export._formats import ExportError
from aiocopyai.export._list_reader import Progress


__all__ = ["ExportError", "Exported", "Progress", "export_runs", "read_export"]
