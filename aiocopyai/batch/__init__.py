"""Start a run for each row of a file or an iterable. A batch can be resumed after a crash without paying twice."""

from aiocopyai.batch._input_rows import read_rows
from aiocopyai.batch._ledger import BatchError
from aiocopyai.batch._run_batch import BatchResults, run_batch


__all__ = ["BatchError", "BatchResults", "read_rows", "run_batch"]
