"""The page of `aiocopyai report`, in a real browser that reaches no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiocopyai import JSON, Run, RunStatus
from aiocopyai.report._page import make_page
from aiocopyai.report._statistics import Figures
from tests.support.chromium import open_page


MOMENT = datetime(2026, 1, 31, 9, tzinfo=UTC)
SCRIPT = "<script>document.title = 'taken'</script>"
HOSTILE = f"</script>{SCRIPT}<img src=x onerror=\"document.title = 'taken'\"><!--<b>'\"&amp;`${{1}}{{{{2}}}}\u202e"


def page_of(runs: Sequence[Run], tmp_path: Path, source: str = "workflow W") -> Path:
    figures = Figures(UTC)
    for run in runs:
        figures.add(run)
    path = tmp_path / "report.html"
    path.write_text(make_page(figures, source), "utf-8")
    return path


def test_the_browser_tells_errors(tmp_path: Path) -> None:
    """The checks below would notice: an error in a script, and a request that the page's policy forbids."""
    path = page_of([], tmp_path)
    page = path.read_text("utf-8")
    [nonce, *_] = re.findall('nonce="([^"]+)"', page)
    wrong = f'<script nonce="{nonce}">nonsense()</script><img src="https://example.com/a.png"></main>'
    path.write_text(page.replace("</main>", wrong), "utf-8")
    console = open_page(path).console

    assert any("nonsense is not defined" in line for line in console)
    assert any("Content Security Policy" in line for line in console)


def test_the_page_draws_its_charts_offline(tmp_path: Path) -> None:
    """Every chart shows its bars, the totals are there, and the console stays empty."""
    runs = [
        Run(
            id=f"WRUN-{number}",
            status=RunStatus("COMPLETE" if number % 4 else "FAILED"),
            created_at=MOMENT + timedelta(days=number % 20),
            credits=number,
            metadata={"batch": number % 3, "api": True} if number % 2 else {},
            error=None if number % 4 else "no credits",
            workflow_id=f"WCFG-{number % 2}",
        )
        for number in range(100)
    ]
    opened = open_page(page_of(runs, tmp_path))

    assert opened.console == []
    assert opened.dom.count('class="chart js-plotly-plot"') == opened.dom.count('role="img"') == 6
    assert opened.drawn("runs-by-time") == 40
    assert opened.drawn("credits-by-time") == opened.drawn("failures-by-time") == 20
    assert opened.drawn("by-status") == 4
    assert opened.drawn("by-key") == opened.drawn("key-1") == 6
    assert "<b>4,950</b><span>credits</span>" in opened.dom
    assert '<b class="bad">25</b><span>failed, 25.0 %</span>' in opened.dom
    assert '<time datetime="2026-02-19T09:00:00Z">2026-02-19' in opened.dom


def test_no_text_of_the_servers_is_obeyed(tmp_path: Path) -> None:
    """Markup in any field is shown as the text it is, in the tables and the charts, and no script in it runs."""
    value: JSON = {HOSTILE: [HOSTILE]}
    hostile = Run(
        id=HOSTILE,
        workflow_id=HOSTILE,
        status=RunStatus.FAILED,
        metadata={HOSTILE: HOSTILE, "plain": HOSTILE, "nested": value},
        output={HOSTILE: HOSTILE},
        error=value,
        credits=7,
        created_at=MOMENT,
    )
    odd = Run(id="b", status=RunStatus(HOSTILE), metadata={"plain": "<b>bold</b>"}, created_at=MOMENT)
    opened = open_page(page_of([hostile, odd], tmp_path, HOSTILE))

    assert opened.console == []
    assert "<title>Copy.ai runs: &lt;/script&gt;&lt;script&gt;" in opened.dom
    assert "<img" not in opened.dom
    assert opened.dom.count("<script") == 3
    assert "&lt;b&gt;bold&lt;/b&gt;" in opened.chart("key-1")
    assert "font-weight:bold" not in opened.chart("key-1").replace(" ", "")
    assert "\u202e" not in opened.dom


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [Run(id="a")],
        [Run(id="a", created_at=MOMENT, credits=3)],
        [Run(id=str(year), created_at=datetime(year, 1, 1, tzinfo=UTC)) for year in (1, 9999)],
        [Run(id="a", credits=-5, created_at=MOMENT, metadata={"a": 1}), Run(id="b", metadata={"a": 2}, credits=10**30)],
        [Run(id=str(n), status=RunStatus(f"S{n}"), created_at=MOMENT + timedelta(days=40 * n)) for n in range(30)],
        [Run(id="\ud83d", status=RunStatus("\ud83d"), metadata={"\ud83d": "\ud83d"}, created_at=MOMENT)],
    ],
    ids=["none", "bare", "one", "calendar", "credits", "statuses", "surrogates"],
)
def test_odd_runs_make_a_page_too(runs: list[Run], tmp_path: Path) -> None:
    """Whatever little or odd there is to show, the page opens without a complaint, and draws what it has charts for."""
    opened = open_page(page_of(runs, tmp_path))

    assert opened.console == []
    assert opened.dom.count('class="chart js-plotly-plot"') == opened.dom.count('role="img"')
    assert (opened.dom.count('role="img"') > 0) is bool(runs)


def test_the_page_names_no_other_place(tmp_path: Path) -> None:
    """Beside plotly's own script no address is in the page, and its policy forbids every request."""
    page = page_of([Run(id="a", created_at=MOMENT)], tmp_path).read_text("utf-8")
    ours = re.sub(r"<script nonce=[^>]*>/\*\*.*?</script>", "", page, flags=re.DOTALL)

    assert len(ours) < 100_000 < len(page)
    assert "//" not in ours
    assert "default-src 'none'; script-src 'nonce-" in ours
    assert "unsafe-eval" not in ours
