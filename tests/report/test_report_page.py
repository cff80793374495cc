"""Tests of the report page, opened in Chromium without network access."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from aiocopyai import JSON, Run, RunStatus
from aiocopyai.report import Summary, summarize, write_report
from tests.support.chromium import Opened, open_page


TIME = datetime(2026, 1, 31, 9, tzinfo=UTC)
SCRIPT = "<script>document.title = 'taken'</script>"
PLOTLY = re.compile(r"(<script nonce=[^>]*)>/\*\*.*?</script>", re.DOTALL)
"""Plotly's code in a page."""
HOSTILE = f"</script>{SCRIPT}<img src=x onerror=\"document.title = 'taken'\"><!--<b>'\"&amp;`${{1}}{{{{2}}}}\u202e"


@pytest.fixture(name="plotly", scope="module")
def _plotly(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a file with plotly's code."""
    path = tmp_path_factory.mktemp("plotly") / "plotly.js"
    path.write_text(get_plotlyjs(), "utf-8")
    return path.as_uri()


def write_page(runs: Sequence[Run], tmp_path: Path, source: str = "workflow W") -> Path:
    path = tmp_path / "report.html"
    write_report(summarize(runs, zone=UTC), path, source=source)
    return path


def without_plotly(path: Path) -> str:
    """Return the HTML of a page without plotly's code."""
    return PLOTLY.sub("", path.read_text("utf-8"))


def open_quickly(path: Path, plotly: str) -> Opened:
    """Open a page that loads plotly from a file, and has the same nonce in all tests, to compile it once."""
    html = path.read_text("utf-8")
    [nonce, _] = re.findall('<script nonce="([^"]+)"', html)
    path.write_text(PLOTLY.sub(rf'\1 src="{plotly}"></script>', html).replace(nonce, "nonce-of-all-pages"), "utf-8")
    return open_page(path)


def row_of(html: str, name: str) -> list[str]:
    """Return the numbers and the widths of the bars in a row of a table."""
    row = re.search(rf'<td class="text[ soft]*">{re.escape(name)}</td>(.*?)</tr>', html, re.DOTALL)
    assert row is not None
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[1], re.DOTALL)
    return [re.sub(r'<i style="width: ([\d.]+%).*', r"\1", cell.strip()) for cell in cells]


def test_the_browser_reports_errors(tmp_path: Path) -> None:
    """The console of an opened page has script errors and requests that the page's policy forbids."""
    path = write_page([], tmp_path)
    page = without_plotly(path)
    [nonce] = re.findall('nonce="([^"]+)"', page)
    wrong = f'<script nonce="{nonce}">nonsense()</script><img src="https://example.com/a.png"></main>'
    path.write_text(page.replace("</main>", wrong), "utf-8")
    console = open_page(path).console

    assert any("nonsense is not defined" in line for line in console)
    assert any("Content Security Policy" in line for line in console)


def test_the_charts_are_drawn_offline(tmp_path: Path) -> None:
    """The charts and tables have all runs, and the console is empty."""
    runs = [
        Run(
            id=f"WRUN-{number}",
            status=RunStatus("COMPLETE" if number % 4 else "FAILED"),
            created_at=TIME + timedelta(days=number % 20),
            credits=number,
            metadata={"batch": number % 3, "api": True} if number % 2 else {},
            error=None if number % 4 else "no credits",
            workflow_id=f"WCFG-{number % 2}",
        )
        for number in range(100)
    ]
    opened = open_page(write_page(runs, tmp_path))

    assert opened.console == []
    assert opened.dom.count('class="chart js-plotly-plot"') == opened.dom.count('role="img"') == 3
    assert opened.drawn("runs-by-time") == 40
    assert opened.drawn("credits-by-time") == opened.drawn("failures-by-time") == 20
    assert row_of(opened.dom, "COMPLETE") == ["75", "100.0%", "3,750", "100.0%", ""]
    assert row_of(opened.dom, "FAILED") == ["25", "33.3%", "1,200", "32.0%", "25"]
    assert row_of(opened.dom, "WCFG-1") == ["50", "100.0%", "2,500", "100.0%", ""]
    assert row_of(opened.dom, "(none)") == ["50", "100.0%", "2,450", "98.0%", "25"]
    assert "<b>4,950</b><span>credits</span>" in opened.dom
    assert '<b class="bad">25</b><span>failed, 25.0 %</span>' in opened.dom
    assert '<time datetime="2026-02-19T09:00:00Z">2026-02-19' in opened.dom


def test_markup_in_a_text_is_shown_as_text(tmp_path: Path, plotly: str) -> None:
    """Tags in any field of a run are escaped in the tables and charts, and scripts in them do not run."""
    value: JSON = {HOSTILE: [HOSTILE]}
    hostile = Run(
        id=HOSTILE,
        workflow_id=HOSTILE,
        status=RunStatus.FAILED,
        metadata={HOSTILE: HOSTILE, "plain": HOSTILE, "nested": value},
        output={HOSTILE: HOSTILE},
        error=value,
        credits=7,
        created_at=TIME,
    )
    odd = Run(id="b", status=RunStatus(HOSTILE), metadata={"plain": "<b>bold</b>"}, created_at=TIME)
    bold = Run(id="c", status=RunStatus("<b>bold</b>"), created_at=TIME)
    opened = open_quickly(write_page([hostile, odd, bold], tmp_path, HOSTILE), plotly)

    assert opened.console == []
    assert "<title>Copy.ai runs: &lt;/script&gt;&lt;script&gt;" in opened.dom
    assert "<img" not in opened.dom
    assert opened.dom.count("<script") == 3
    assert "&lt;b&gt;bold&lt;/b&gt;" in opened.dom
    assert "&lt;b&gt;bold&lt;/b&gt;" in opened.chart("runs-by-time")
    assert "font-weight:bold" not in opened.chart("runs-by-time").replace(" ", "")
    assert "\u202e" not in opened.dom


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [Run(id="a")],
        [Run(id="a", created_at=TIME, credits=3)],
        [Run(id=str(year), created_at=datetime(year, 1, 1, tzinfo=UTC)) for year in (1, 9999)],
        [Run(id="a", credits=-5, created_at=TIME, metadata={"a": 1}), Run(id="b", metadata={"a": 2}, credits=10**30)],
        [Run(id=str(n), status=RunStatus(f"S{n}"), created_at=TIME + timedelta(days=40 * n)) for n in range(30)],
        [Run(id="\ud83d", status=RunStatus("\ud83d"), metadata={"\ud83d": "\ud83d"}, created_at=TIME)],
    ],
    ids=["none", "bare", "one", "calendar", "credits", "statuses", "surrogates"],
)
def test_unusual_runs(runs: list[Run], tmp_path: Path, plotly: str) -> None:
    """The page opens without an error, and has charts if a run has a possible creation time."""
    opened = open_quickly(write_page(runs, tmp_path), plotly)

    assert opened.console == []
    assert opened.dom.count('class="chart js-plotly-plot"') == opened.dom.count('role="img"')
    assert (opened.dom.count('role="img"') > 0) is any(run.created_at and run.created_at.year == 2026 for run in runs)


def test_the_page_contains_no_urls(tmp_path: Path) -> None:
    """Except for plotly's code, the page has no URL, and its policy forbids every request."""
    path = write_page([Run(id="a", created_at=TIME)], tmp_path)
    ours = without_plotly(path)

    assert len(ours) < 100_000 < path.stat().st_size
    assert "//" not in ours
    assert "default-src 'none'; script-src 'nonce-" in ours
    assert "unsafe-eval" not in ours


def test_rare_values_have_one_row(tmp_path: Path) -> None:
    """All values of a key except the ten most frequent share a row, which does not change the scale of the bars."""
    runs = [Run(id=str(n), metadata={"customer": f"{'a long name that continues ' * 3}{n % 12}"}) for n in range(30)]
    page = without_plotly(write_page([*runs, Run(id="a", metadata={"api": True})], tmp_path))

    assert 'customer <span class="soft">(12 values)</span>' in page
    assert row_of(page, f"{'a long name that continues ' * 3}0") == ["3", "100.0%", "0", "", ""]
    assert row_of(page, f"{'a long name that continues ' * 3}5") == ["3", "100.0%", "0", "", ""]
    assert row_of(page, "(others)") == ["4", "", "0", "", ""]


def test_keys_that_are_not_counted_separately_have_one_row(tmp_path: Path) -> None:
    """The keys that are not counted separately share the last row, even if it has the most runs, without a table."""
    runs = [Run(id=str(n), credits=1, metadata={f"key{n}": n, "other": n}) for n in range(100)]
    page = without_plotly(write_page([*runs, Run(id="a", metadata={"key0": "x", "key1": "y"})], tmp_path))

    assert row_of(page, "key0") == ["2", "2.0%", "1", "1.0%", ""]
    assert page.count("(others)</td>") == 2  # one of the keys, and one of the values of `other`
    assert row_of(page, "(others)") == ["81", "", "81", "", ""]
    assert "(others) <span" not in page


@pytest.mark.parametrize("hours", [-7, 0, 5])
def test_times_are_in_the_zone_of_the_days(tmp_path: Path, hours: int) -> None:
    """All times on the page are in the time zone of the summary, which the page names."""
    run = Run(id="a", status=RunStatus.FAILED, credits=1, created_at=TIME, error="no")
    zone = timezone(timedelta(hours=hours), "ZONE")
    path = tmp_path / "report.html"
    write_report(summarize([run], zone=zone), path)
    page = without_plotly(path)

    assert "times and days in ZONE" in page
    times = re.findall('<time datetime="2026-01-31T09:00:00Z">(.*?)</time>', page)
    assert times == [f"{TIME.astimezone(zone):%Y-%m-%d %H:%M}"] * 4


def test_long_numbers_are_in_a_smaller_font(tmp_path: Path) -> None:
    """Sums of 16 and of 400 digits are complete, and in a smaller font."""
    for digits in (16, 400):
        page = write_page([Run(id="a", credits=10 ** (digits - 1), created_at=TIME)], tmp_path).read_text("utf-8")

        assert f'<b class="long">{10 ** (digits - 1):,}</b><span>credits</span>' in page


def test_today_is_paler(tmp_path: Path, plotly: str) -> None:
    """The bar of an incomplete day is paler than the others, and the page says why."""
    summary = Summary(UTC, now=TIME)
    for hours in range(0, 72, 6):
        summary.add(Run(id=str(hours), created_at=TIME - timedelta(hours=hours)))
    path = tmp_path / "report.html"
    write_report(summary, path)
    opened = open_quickly(path, plotly)

    assert "The paler bar is today, which is not complete." in opened.dom
    assert opened.chart("runs-by-time").count("opacity: 0.45") == 1


def test_a_status_has_one_color(tmp_path: Path) -> None:
    """An unknown status has the same color in the chart and the table, even if another status is only in the table."""
    runs = [Run(id="a", status=RunStatus("A")), Run(id="b", status=RunStatus("B"), created_at=TIME)]
    page = without_plotly(write_page(runs, tmp_path))
    [figures] = re.findall('id="figures">(.*?)</script>', page)
    [bars] = json.loads(figures)["runs-by-time"]["data"]
    in_table = re.search(r">B</td>.*?background: (#\w+)", page)

    assert bars["name"] == "B"
    assert in_table is not None
    assert in_table[1] == bars["marker"]["color"]


def test_small_values_have_useful_ticks(tmp_path: Path, plotly: str) -> None:
    """An axis up to 1 % has several ticks, and an axis up to two runs has only integers."""
    runs = [Run(id=str(n), status=RunStatus("COMPLETE" if n else "FAILED"), created_at=TIME) for n in range(400)]
    opened = open_quickly(write_page(runs, tmp_path), plotly)
    ticks = re.findall(r'class="ytick"><text.*?>([^<]*)</text>', opened.chart("failures-by-time"))

    assert len(ticks) > 2
    assert all(0 <= float(tick) <= 1 for tick in ticks)
    few = open_quickly(write_page(runs[:2], tmp_path), plotly)
    assert re.findall(r'class="ytick"><text.*?>([^<]*)</text>', few.chart("runs-by-time")) == ["0", "1", "2"]
