"""Compare aiocopyai with the floor and with other ways to read the same pages; print one table of ratios.

``python tests/benchmarks/run.py`` takes one to two minutes; ``--quick`` half of one, for a look only; ``--only cpu``
(or ``latency``, ``memory``, ``imports``) does one part. Every figure comes from fresh processes, the contenders take
turns, and of each contender's rounds the lowest counts: what else the machine does can only add to it.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen
from measure import Sample
from pages import PAGE_SIZE, write_pages
from servers import NginxMissingError, nginx, slow_server, small_server


HERE: Final = Path(__file__).parent
CONTENDERS: Final = {
    "floor: aiohttp + orjson, nothing made of it": ("floor", 0),
    "aiocopyai, prefetch=0": ("ours", 0),
    "aiocopyai, prefetch=4 (its default)": ("ours", 4),
    "openai SDK's async pager": ("with_openai", 0),
    "httpx + pydantic by hand": ("with_httpx", 0),
    "requests by hand (dictionaries)": ("with_requests", 0),
}
FLOOR, OURS, OPENAI = (list(CONTENDERS)[place] for place in (0, 2, 3))
LATENCY: Final = 0.05
LATE_PAGES: Final = 40
AHEAD: Final = 8
MIB: Final = 2**20
IMPORT: Final = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


@frozen
class Scale:
    """How much is done."""

    rounds: int
    pages: int
    many: int
    imports: int


FULL: Final = Scale(rounds=5, pages=100, many=1_000_000, imports=20)
QUICK: Final = Scale(rounds=2, pages=20, many=100_000, imports=5)


@frozen
class Row:
    """One line of the table: a figure, its ratio to what the section compares with, and what is aimed at."""

    what: str
    figure: str
    ratio: str = ""
    target: str = ""


def cpu_rows(scale: Scale) -> Iterator[Row]:
    """Measure the CPU that each contender spends on a run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pages").mkdir()
        size = write_pages(folder / "pages", scale.pages)
        with nginx(folder) as url:
            best = _best_of_rounds(url, scale)
    floor, runs = best[FLOOR].cpu, scale.pages * PAGE_SIZE
    yield Row(f"CPU of a run ({runs:,} of {size} bytes, nginx)", "", "x floor")
    for what, sample in best.items():
        per_run = f"{sample.cpu / runs * 1e6:8.2f} us"
        yield Row(f"  {what}", per_run, f"{sample.cpu / floor:.2f}")
    yield _judged("  aiocopyai / floor", best[OURS].cpu / floor, 2.0)
    yield _judged("  aiocopyai / openai", best[OURS].cpu / best[OPENAI].cpu, 1 / 8)


def _best_of_rounds(url: str, scale: Scale) -> dict[str, Sample]:
    rounds: list[dict[str, Sample]] = []
    for number in range(scale.rounds):
        _progress(f"CPU, round {number + 1} of {scale.rounds}")
        rounds.append({what: _sample(module, url, ahead) for what, (module, ahead) in CONTENDERS.items()})
    best = {what: min((done[what] for done in rounds), key=lambda sample: sample.cpu) for what in CONTENDERS}
    for what, sample in best.items():
        _check_count(what, sample, scale.pages * PAGE_SIZE)
    return best


def latency_rows(scale: Scale) -> Iterator[Row]:
    """Measure how long a walk takes when each answer is late, against as many round trips as it can't do without."""
    trips = 1 + math.ceil((LATE_PAGES - 1) / AHEAD)
    walks: list[Sample] = []
    one_by_one: list[Sample] = []
    with slow_server(LATE_PAGES * PAGE_SIZE, LATENCY) as url:
        for number in range(scale.rounds):
            _progress(f"latency, round {number + 1} of {scale.rounds}")
            one_by_one.append(_sample("floor", url, 0))
            walks.append(_sample("ours", url, AHEAD))
    _check_count("aiocopyai", walks[0], LATE_PAGES * PAGE_SIZE)
    trip = min(sample.wall for sample in one_by_one) / LATE_PAGES
    ideal = trips * trip
    first, second = min(sample.first_wall for sample in walks), min(sample.wall for sample in walks)
    yield Row(f"{LATE_PAGES} pages, each {LATENCY * 1e3:.0f} ms late, prefetch={AHEAD}", "", "x ideal")
    yield Row(f"  ideal: {trips} round trips of {trip * 1e3:.1f} ms", f"{ideal * 1e3:8.0f} ms", "1.00")
    yield Row("  aiocopyai, first walk of a process", f"{first * 1e3:8.0f} ms", f"{first / ideal:.2f}")
    yield Row("  aiocopyai, later walks", f"{second * 1e3:8.0f} ms", f"{second / ideal:.2f}")
    yield _judged("  aiocopyai / ideal", second / ideal, 1.25)


def memory_rows(scale: Scale) -> Iterator[Row]:
    """Measure how much more memory a long walk holds at its peak than a short one."""
    few = 10 * PAGE_SIZE
    peaks: list[int] = []
    for total in (few, scale.many):
        _progress(f"memory, {total:,} runs")
        with small_server(total) as url:
            sample = _sample("ours", url, 4, "--once")
        _check_count("aiocopyai", sample, total)
        peaks.append(sample.peak)
    yield Row("Peak memory of a walk", "")
    yield Row(f"  {few:,} runs", f"{peaks[0] / MIB:8.1f} MiB")
    yield Row(f"  {scale.many:,} runs", f"{peaks[1] / MIB:8.1f} MiB")
    yield _judged("  difference in MiB", (peaks[1] - peaks[0]) / MIB, 64)


def import_rows(scale: Scale) -> Iterator[Row]:
    """Measure what importing aiocopyai costs on top of importing aiohttp."""
    _progress("imports")
    seconds: dict[str, list[float]] = {"aiohttp": [], "aiocopyai": []}
    for _ in range(scale.imports):
        for module, taken in seconds.items():
            taken.append(float(_python("-c", IMPORT.format(module))))
    base, ours = min(seconds["aiohttp"]), min(seconds["aiocopyai"])
    yield Row("Import", "")
    yield Row("  aiohttp", f"{base * 1e3:8.1f} ms")
    yield Row("  aiocopyai, aiohttp included", f"{ours * 1e3:8.1f} ms")
    yield _judged("  difference in ms", (ours - base) * 1e3, 60)


def _sample(module: str, url: str, prefetch: int, *more: str) -> Sample:
    script = str(HERE / "measure.py")
    return Sample(**json.loads(_python(script, module, url, "--prefetch", str(prefetch), *more)))


def _python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 (ourselves)


def _check_count(what: str, sample: Sample, runs: int) -> None:
    """Let no contender win by leaving runs out."""
    if sample.runs != runs:
        raise RuntimeError(f"{what} met {sample.runs} runs of {runs}")


def _judged(what: str, value: float, at_most: float) -> Row:
    verdict = "met" if value <= at_most else "MISSED"
    return Row(what, "", f"{value:.3g}", f"<= {at_most:g}  {verdict}")


def _progress(text: str) -> None:
    sys.stderr.write(f"... {text}\n")


def _print(rows: list[Row]) -> None:
    width = max(len(row.what) for row in rows)
    for row in rows:
        gap = "\n" if not row.what.startswith(" ") else ""
        line = f"{row.what:<{width}}  {row.figure:>12}  {row.ratio:>8}  {row.target}"
        sys.stdout.write(f"{gap}{line.rstrip()}\n")


SECTIONS: Final[dict[str, Callable[[Scale], Iterator[Row]]]] = {
    "cpu": cpu_rows,
    "latency": latency_rows,
    "memory": memory_rows,
    "imports": import_rows,
}


def main() -> int:
    """Run the sections that were asked for; return the exit status: 2 if there is no nginx."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="do little, for a look: the figures are rough")
    parser.add_argument("--only", choices=list(SECTIONS), help="do one section")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    try:
        rows = [row for name in SECTIONS if options.only in {None, name} for row in SECTIONS[name](scale)]
    except NginxMissingError:
        sys.stderr.write("nginx serves the pages, and isn't installed: apt-get install nginx-light\n")
        return 2
    _print(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
