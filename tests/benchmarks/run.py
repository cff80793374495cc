"""Compare aiocopyai with plain aiohttp and other clients that read the same pages, and print tables of ratios.

``python tests/benchmarks/run.py`` takes about five minutes; ``--quick`` about one, with rough figures; ``--only cpu``
(or another section) runs one section. Every figure is from new processes, the clients take turns, and the best
round of each client counts, because other work of the machine can only slow it down.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import pages
from attrs import frozen
from measure import Sample
from pages import PAGE_SIZE, write_pages
from servers import NginxMissingError, body_server, nginx, page_server


HERE: Final = Path(__file__).parent
AIOCOPYAI, BASELINE, OPENAI = "with_aiocopyai", "baseline", "with_openai"
CONTENDERS: Final = {
    "baseline: aiohttp + orjson, no objects": (BASELINE, None),
    "aiocopyai": (AIOCOPYAI, None),
    "aiocopyai, prefetch=0": (AIOCOPYAI, 0),
    "openai SDK's async pager": (OPENAI, None),
    "httpx, pydantic and a loop": ("with_httpx", None),
    "requests and a loop (dictionaries)": ("with_requests", None),
}
SIZES: Final[dict[pages.Size, float]] = {"small": 2.5, "medium": 1.7, "large": 1.5}
"""The sizes of runs, and the target for each as a multiple of the baseline."""
LATENCY: Final = 0.05
LATE_PAGES: Final = 40
PREFETCH: Final = 8
SLOW: Final = 0.3
SLOW_PAGES: Final = 300
RATE: Final = 10.0
FORMATS: Final = {"parquet": 0.6, "jsonl": 0.8, "jsonl.gz": 0.5, "csv": 0.5}
"""The formats of an export, and the target for each: its speed as a fraction of the plain iteration's."""
MIB: Final = 2**20
BOUND: Final = 16 * MIB
"""The largest response, in bytes, for which no step may block the event loop for more than `PAUSE` seconds."""
PAUSE: Final = 0.05
IMPORT: Final = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
PARSE: Final = """
import contextlib, sys, time, orjson
body = sys.stdin.buffer.read()
t = time.perf_counter()
with contextlib.suppress(ValueError):
    value = orjson.loads(body)
print(time.perf_counter() - t)
"""


@frozen
class Scale:
    """The number of rounds, pages and runs to measure."""

    rounds: int
    pages: int
    many: int
    imports: int
    slow_pages: int
    exported: int
    limited: int


FULL: Final = Scale(
    rounds=5, pages=100, many=1_000_000, imports=20, slow_pages=SLOW_PAGES, exported=100_000, limited=100
)
QUICK: Final = Scale(rounds=2, pages=20, many=100_000, imports=5, slow_pages=60, exported=20_000, limited=30)


@frozen
class Row:
    """One line of a table: a figure, its ratio to the baseline of the section, and the target."""

    label: str
    figure: str = ""
    ratio: str = ""
    target: str = ""


def cpu_rows(scale: Scale) -> Iterator[Row]:
    """Measure the CPU time that each contender spends on a run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {size: write_pages(folder / size, scale.pages, size) for size in SIZES}
        with nginx(folder) as url:
            for size, target in SIZES.items():
                yield from _cpu_of(f"{url}/{size}", sizes[size], target, scale, all_contenders=size == "medium")


def _cpu_of(url: str, size: int, target: float, scale: Scale, *, all_contenders: bool) -> Iterator[Row]:
    names = [name for name, (module, _) in CONTENDERS.items() if all_contenders or module in {BASELINE, AIOCOPYAI}]
    runs = scale.pages * PAGE_SIZE
    best: dict[str, Sample] = {}
    for number in range(scale.rounds):
        _progress(f"CPU, {size} bytes per run, round {number + 1} of {scale.rounds}")
        for name in names:
            sample = _sample(*CONTENDERS[name], url)
            _check_count(name, sample, runs)
            best[name] = min(sample, best.get(name, sample), key=lambda each: each.cpu)
    baseline, ours, *_ = (sample.cpu for sample in best.values())
    yield Row(f"CPU for a run ({runs:,} runs of {size} bytes, nginx)", "", "x baseline")
    for name, sample in best.items():
        yield Row(f"  {name}", f"{sample.cpu / runs * 1e6:.2f} us", f"{sample.cpu / baseline:.2f}")
    yield _judged("  aiocopyai / baseline", ours / baseline, target)
    if all_contenders:
        openai = next(sample.cpu for name, sample in best.items() if CONTENDERS[name][0] == OPENAI)
        yield _judged("  aiocopyai / openai", ours / openai, 1 / 10)


def pause_rows(scale: Scale) -> Iterator[Row]:
    """Measure how long one response blocks the event loop, for ordinary and hostile responses."""
    page = pages.make_page(1, PAGE_SIZE)
    runs = json.loads(page)["data"]["data"]

    def good(size: int) -> bytes:
        many = runs * (size // len(page))
        return json.dumps({"status": "success", "data": {"total": len(many), "data": many}}).encode()

    unfinished = b'{"status":"success","data":{"total":1,"data":["' + b"a" * (60 * MIB)
    bodies: dict[str, tuple[bytes, bytes]] = {
        "10 MB of runs": (good(10_000_000), b""),
        "50 MB of runs": (good(50_000_000), b""),
        "60 MiB of unfinished JSON, as gzip": (unfinished, gzip.compress(unfinished)),
        "16 MiB of one string": (unfinished[: BOUND - 4] + b'"]}}', b""),
        "16 MiB of opening brackets": (b"[" * BOUND, b""),
        "4 MB of runs with only an id": (_page_of_ids(300_000), b""),
    }
    yield Row("Longest pause of the event loop for one response", "", "x orjson")
    for name, (body, compressed) in bodies.items():
        _progress(f"pauses, {name}")
        with body_server(compressed or body, "gzip" if compressed else "identity") as url:
            pause = min(float(_python(str(HERE / "pauses.py"), url)) for _ in range(min(2, scale.rounds)))
        parsing = min(_parse_seconds(body) for _ in range(scale.rounds))
        yield Row(f"  {name}", f"{pause * 1e3:.0f} ms", f"{pause / parsing:.2f}")
        yield _judged("    in ms", pause * 1e3, PAUSE * 1e3 if len(body) <= BOUND else max(PAUSE, 2 * parsing) * 1e3)


def _page_of_ids(count: int) -> bytes:
    items = ",".join(f'{{"id":"{number}"}}' for number in range(count))
    return f'{{"status":"success","data":{{"total":{count},"data":[{items}]}}}}'.encode()


def _parse_seconds(body: bytes) -> float:
    command = [sys.executable, "-c", PARSE]
    return float(subprocess.run(command, input=body, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603 (our own)


def latency_rows(scale: Scale) -> Iterator[Row]:
    """Measure how long an iteration takes if each response is delayed."""
    trips = 1 + math.ceil((LATE_PAGES - 1) / PREFETCH)
    samples: list[list[tuple[float, float]]] = []
    in_sequence: list[Sample] = []
    with page_server(LATE_PAGES * PAGE_SIZE, latency=LATENCY) as url:
        for number in range(scale.rounds):
            _progress(f"latency, round {number + 1} of {scale.rounds}")
            in_sequence.append(_sample(BASELINE, None, url))
            samples.append(json.loads(_python(str(HERE / "latency.py"), url, str(PREFETCH))))
    trip = min(sample.wall for sample in in_sequence) / LATE_PAGES
    ideal = trips * trip
    yield Row(f"{LATE_PAGES} pages, each {LATENCY * 1e3:.0f} ms late, prefetch={PREFETCH}", "", "x ideal")
    yield Row(f"  ideal: {trips} round trips of {trip * 1e3:.1f} ms", f"{ideal * 1e3:.0f} ms", "1.00")
    for iteration, name in enumerate(("first iteration of a process", "later iterations")):
        last, end = (min(sample[iteration][each] for sample in samples) for each in range(2))
        yield Row(f"  {name}, until the last run", f"{last * 1e3:.0f} ms", f"{last / ideal:.2f}")
        yield Row(f"  {name}, until the end", f"{end * 1e3:.0f} ms", f"{end / ideal:.2f}")
    yield _judged("  later iterations, until the last run", last / ideal, 1.15)
    yield _judged("  later iterations, until the end / (ideal + 1 round trip)", end / (ideal + trip), 1.15)
    count = scale.slow_pages
    _progress(f"latency, {count} slow pages")
    with page_server(count * PAGE_SIZE, latency=SLOW, size="small") as url:
        sample = _sample(AIOCOPYAI, None, url, "--once")
    _check_count("aiocopyai", sample, count * PAGE_SIZE)
    sequence = count * SLOW
    yield Row(f"{count} pages, each {SLOW * 1e3:.0f} ms late, default prefetch", "", "x sequence")
    yield Row("  in sequence", f"{sequence:.1f} s", "1.00")
    yield Row("  aiocopyai", f"{sample.first_wall:.1f} s", f"{sample.first_wall / sequence:.2f}")
    yield _judged("  aiocopyai / in sequence", sample.first_wall / sequence, 0.09 if count == SLOW_PAGES else 0.15)


def rate_rows(scale: Scale) -> Iterator[Row]:
    """Measure how long a list takes with a server that limits the rate of requests."""
    count = scale.limited
    _progress(f"rate limit, {count} pages")
    with page_server(count * PAGE_SIZE, latency=0.02, size="small", rate=RATE) as url:
        sample = _sample(AIOCOPYAI, None, url, "--once")
    _check_count("aiocopyai", sample, count * PAGE_SIZE)
    ideal = count / RATE
    yield Row(f"{count} pages from a server that accepts {RATE:g} requests per second", "", "x ideal")
    yield Row("  aiocopyai", f"{sample.first_wall:.1f} s", f"{sample.first_wall / ideal:.2f}")
    yield _judged("  aiocopyai / ideal", sample.first_wall / ideal, 1.5)


def memory_rows(scale: Scale) -> Iterator[Row]:
    """Measure the peak memory of a long and of a short iteration."""
    few = 10 * PAGE_SIZE
    peaks: list[int] = []
    for total in (few, scale.many):
        _progress(f"memory, {total:,} runs")
        with page_server(total, size="small") as url:
            sample = _sample(AIOCOPYAI, None, url, "--once")
        _check_count("aiocopyai", sample, total)
        peaks.append(sample.peak)
    yield Row("Peak memory of an iteration")
    yield Row(f"  {few:,} runs", f"{peaks[0] / MIB:.1f} MiB")
    yield Row(f"  {scale.many:,} runs", f"{peaks[1] / MIB:.1f} MiB")
    yield _judged("  difference in MiB", (peaks[1] - peaks[0]) / MIB, 64)


def start_up_rows(scale: Scale) -> Iterator[Row]:
    """Measure the time to import aiocopyai and to start its command, relative to importing aiohttp."""
    _progress("start-up")
    imports = ("aiohttp", "aiocopyai._session")
    base, ours = (min(float(_python("-c", IMPORT.format(each))) for _ in range(scale.imports)) for each in imports)
    wall = [_wall(("-c", "import aiohttp")), _wall(("-m", "aiocopyai", "--help"))]
    for _ in range(scale.imports - 1):
        wall = [min(wall[0], _wall(("-c", "import aiohttp"))), min(wall[1], _wall(("-m", "aiocopyai", "--help")))]
    yield Row("Start-up", "", "x aiohttp")
    yield Row("  import aiohttp", f"{base * 1e3:.1f} ms", "1.00")
    yield Row("  import aiocopyai, including aiohttp", f"{ours * 1e3:.1f} ms", f"{ours / base:.2f}")
    yield Row("  python -c 'import aiohttp'", f"{wall[0] * 1e3:.1f} ms", "1.00")
    yield Row("  aiocopyai --help", f"{wall[1] * 1e3:.1f} ms", f"{wall[1] / wall[0]:.2f}")
    yield _judged("  aiocopyai --help / import aiohttp", wall[1] / wall[0], 1.3)


def export_rows(scale: Scale) -> Iterator[Row]:
    """Measure exports, relative to the plain iteration over the same list."""
    count, plain = scale.exported, "iterate"
    best: dict[str, Sample] = {}
    with page_server(count) as url:
        for number in range(min(3, scale.rounds)):
            _progress(f"export, round {number + 1} of {min(3, scale.rounds)}")
            for format_ in (plain, *FORMATS):
                sample = Sample(**json.loads(_python(str(HERE / "export.py"), url, format_)))
                _check_count(format_, sample, count)
                best[format_] = min(sample, best.get(format_, sample), key=lambda each: each.first_wall)
    yield Row(f"Export of {count:,} runs of 1 KB", "", "x speed")
    for format_, sample in best.items():
        ratio = best[plain].first_wall / sample.first_wall
        yield Row(
            f"  {format_}", f"{count / sample.first_wall:,.0f} runs/s, {sample.peak / MIB:.0f} MiB", f"{ratio:.2f}"
        )
    for format_, target in FORMATS.items():
        yield _judged(
            f"  {format_} / {plain}", best[plain].first_wall / best[format_].first_wall, target, at_least=True
        )


def _sample(module: str, prefetch: int | None, url: str, *options: str) -> Sample:
    if prefetch is not None:
        options = ("--prefetch", str(prefetch), *options)
    return Sample(**json.loads(_python(str(HERE / "measure.py"), module, url, *options)))


def _python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 (our own)


def _wall(arguments: Iterable[str]) -> float:
    started = time.perf_counter()
    _python(*arguments)
    return time.perf_counter() - started


def _check_count(name: str, sample: Sample, runs: int) -> None:
    """Raise an error if a client has not read all runs."""
    if sample.runs != runs:
        raise RuntimeError(f"{name} read {sample.runs} of {runs} runs")


def _judged(label: str, value: float, target: float, *, at_least: bool = False) -> Row:
    met = value >= target if at_least else value <= target
    return Row(label, "", f"{value:.3g}", f"{'>=' if at_least else '<='} {target:.3g}  {'met' if met else 'MISSED'}")


def _progress(text: str) -> None:
    sys.stderr.write(f"... {text}\n")


def _print(rows: list[Row]) -> None:
    width = max(len(row.label) for row in rows)
    for row in rows:
        gap = "\n" if not row.label.startswith(" ") else ""
        line = f"{row.label:<{width}}  {row.figure:>22}  {row.ratio:>10}  {row.target}"
        sys.stdout.write(f"{gap}{line.rstrip()}\n")
    sys.stdout.flush()


SECTIONS: Final[dict[str, Callable[[Scale], Iterator[Row]]]] = {
    "cpu": cpu_rows,
    "pauses": pause_rows,
    "latency": latency_rows,
    "rate": rate_rows,
    "memory": memory_rows,
    "start-up": start_up_rows,
    "export": export_rows,
}


def main() -> int:
    """Run the chosen sections; return the exit status: 2 if nginx is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="measure less: the figures are rough")
    parser.add_argument("--only", choices=list(SECTIONS), help="run one section")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    try:
        for name, section in SECTIONS.items():
            if options.only in {None, name}:
                _print(list(section(scale)))
    except NginxMissingError:
        sys.stderr.write("nginx serves the pages and is not installed: apt-get install nginx-light\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
