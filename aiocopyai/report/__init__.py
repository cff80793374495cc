"""Statistics of runs and their credits, and an HTML page with charts. The page needs the extra ``report``."""

from aiocopyai.report._html import write_report
from aiocopyai.report._summary import (
    CostlyRun,
    ErrorSummary,
    Groups,
    KeySummary,
    Period,
    Periods,
    Summary,
    Totals,
    group_by_period,
    summarize,
)


__all__ = [
    "CostlyRun",
    "ErrorSummary",
    "Groups",
    "KeySummary",
    "Period",
    "Periods",
    "Summary",
    "Totals",
    "group_by_period",
    "summarize",
    "write_report",
]
