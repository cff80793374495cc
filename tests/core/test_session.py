"""Tests of a session: its construction, its end, and the list of runs over a socket."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from aiocopyai import (
    JSON,
    APIConnectionError,
    BadRequestError,
    Changes,
    ConfigurationError,
    CopyAISession,
    InvalidResponseError,
    NotFoundError,
    PaginationError,
    ServerError,
)
from aiocopyai._session import DEFAULT_BASE_URL
from aiocopyai.emulator import Emulator, Fault, Quirks, Request


def ids(emulator: Emulator) -> list[str]:
    return [str(run["id"]) for run in emulator.runs()]


async def read_ids(session: CopyAISession, emulator: Emulator, **arguments: Any) -> list[str]:  # noqa: ANN401 (any argument of `runs`)
    return [run.id async for run in session.runs(emulator.workflow_id, **arguments)]


async def test_every_run_once(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """All runs are yielded in the server's order, with one request per page and the documented query and header."""
    copyai_emulator.add_runs(345)
    pager = session.runs(copyai_emulator.workflow_id)

    assert [run.id async for run in pager] == ids(copyai_emulator)
    assert (pager.total, pager.changes) == (345, Changes(first_total=345, last_total=345))
    assert sorted(dict(request.query)["page"] for request in copyai_emulator.requests) == ["1", "1", "2", "3", "4"]
    first = copyai_emulator.requests[0]
    assert (first.method, first.path) == ("GET", f"/api/workflow/{copyai_emulator.workflow_id}/run")
    assert first.query == {"size": "100", "page": "1"}
    assert first.headers["x-copy-ai-api-key"] == copyai_emulator.api_key
    assert "authorization" not in first.headers
    assert first.headers["user-agent"].startswith("aiocopyai/")


async def test_a_runs_fields(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run has the values that the server sent."""
    copyai_emulator.add_runs(
        1, status="FAILED", credits=7, error={"why": 1}, toolKey="t", createdAt="2026-01-02T03:04:05Z"
    )
    (wire,) = copyai_emulator.runs()
    run = (await session.runs_page(copyai_emulator.workflow_id)).items[0]

    assert (run.id, run.workflow_id, run.status) == (wire["id"], copyai_emulator.workflow_id, "FAILED")
    assert (run.input, run.output, run.metadata) == (wire["input"], wire["output"], wire["metadata"] or {})
    assert (run.credits, run.error, run.extra["toolKey"]) == (7, {"why": 1}, "t")
    assert run.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("prefetch", [0, 1, 4, 9])
@pytest.mark.parametrize(
    "quirks",
    [
        pytest.param(Quirks(total="string", credits="string", sparse=True, mixed_dates=True), id="strings"),
        pytest.param(Quirks(total="absent"), id="no-total"),
        pytest.param(Quirks(total="absent", past_end="last"), id="no-total-last"),
        pytest.param(Quirks(total="absent", past_end=400), id="no-total-400"),
        pytest.param(Quirks(total="absent", past_end=404, text_404=True), id="no-total-404"),
        pytest.param(Quirks(total="absent", past_end=422), id="no-total-422"),
        pytest.param(Quirks(total=lambda count: count * 10), id="ten-times"),
        pytest.param(Quirks(total=lambda count: count // 10), id="a-tenth"),
        pytest.param(Quirks(total=lambda _count: "many"), id="no-number"),
        pytest.param(Quirks(total=lambda _count: -5), id="negative"),
        pytest.param(Quirks(total=lambda _count: None, past_end=404), id="null-404"),
        pytest.param(Quirks(max_size=7), id="7-per-page"),
        pytest.param(Quirks(max_size=7, total="absent"), id="7-per-page-no-total"),
        pytest.param(Quirks(max_size=7, total=lambda count: str(count + 3)), id="7-per-page-string-total"),
    ],
)
async def test_quirks(session: CopyAISession, copyai_emulator: Emulator, quirks: Quirks, prefetch: int) -> None:
    """Every run is yielded once with each behavior that the API reference leaves open."""
    copyai_emulator.add_runs(95)
    copyai_emulator.quirks = quirks

    assert await read_ids(session, copyai_emulator, page_size=20, prefetch=prefetch) == ids(copyai_emulator)
    assert len(copyai_emulator.requests) < 45


@pytest.mark.parametrize("prefetch", [0, 1, 4, 9])
async def test_a_repeated_last_page(session: CopyAISession, copyai_emulator: Emulator, prefetch: int) -> None:
    """If the last page is repeated forever, and `total` is ten times too high, `PaginationError` is raised."""
    copyai_emulator.add_runs(95)
    copyai_emulator.quirks = Quirks(total=lambda count: count * 10, past_end="last")
    with pytest.raises(PaginationError):
        await read_ids(session, copyai_emulator, page_size=20, prefetch=prefetch)

    assert len(copyai_emulator.requests) < 45


@pytest.mark.parametrize("past_end", ["empty", "last", 400, 404, 422])
async def test_vendors_example(session: CopyAISession, copyai_emulator: Emulator, past_end: Any) -> None:  # noqa: ANN401 (a quirk)
    """A list of two runs with a total of 3 ends after two runs, without an error and after a few requests."""
    copyai_emulator.add_runs(3)
    copyai_emulator.quirks = Quirks(total="string", short_pages=1, past_end=past_end)

    assert await read_ids(session, copyai_emulator) == ids(copyai_emulator)[:2]
    assert len(copyai_emulator.requests) <= 12


async def test_page_ignored(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A server that ignores `page` raises `PaginationError` after a few requests."""
    copyai_emulator.add_runs(640)
    copyai_emulator.quirks = Quirks(ignore_page=True)
    with pytest.raises(PaginationError):
        await read_ids(session, copyai_emulator)

    assert len(copyai_emulator.requests) <= 20


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("prefetch", [0, 4])
async def test_a_changing_list(session: CopyAISession, copyai_emulator: Emulator, seed: int, prefetch: int) -> None:
    """If runs are added and removed between any two requests, no other run is lost or repeated."""
    dice = random.Random(seed)  # noqa: S311 (repeatable)
    copyai_emulator.add_runs(150)
    stayed = set(ids(copyai_emulator))

    def change(emulator: Emulator, _request: Request) -> None:
        if dice.random() < 0.4:
            emulator.add_runs(dice.randint(1, 5))
        if dice.random() < 0.3:
            gone = dice.sample(ids(emulator), 4)
            emulator.remove_runs(gone)
            stayed.difference_update(gone)

    copyai_emulator.on_request = change
    got = await read_ids(session, copyai_emulator, page_size=10, prefetch=prefetch)

    assert len(set(got)) == len(got)
    assert stayed <= set(got)


@pytest.mark.parametrize(("limit", "requests"), [(0, 0), (1, 1), (20, 1), (21, 2), (95, 5), (1000, 5)])
@pytest.mark.parametrize("prefetch", [0, 4])
async def test_limit(
    session: CopyAISession, copyai_emulator: Emulator, limit: int, requests: int, prefetch: int
) -> None:
    """`limit` is exact, and only the pages that it needs are requested."""
    copyai_emulator.add_runs(95)

    assert (
        await read_ids(session, copyai_emulator, page_size=20, limit=limit, prefetch=prefetch)
        == ids(copyai_emulator)[:limit]
    )
    verifications = prefetch > 0 and limit > 95  # prefetched pages are verified if the list is read to its end
    assert len(copyai_emulator.requests) == requests + verifications


async def test_a_small_limit_requests_a_small_page(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """For three runs, a page of three is requested."""
    copyai_emulator.add_runs(95)
    await read_ids(session, copyai_emulator, limit=3)

    assert [request.size for request in copyai_emulator.requests] == [3]


async def test_since(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """`since` selects the runs created at or after that time, and stops early in a list that is newest first."""
    copyai_emulator.add_runs(95)
    start = datetime.fromisoformat(str(copyai_emulator.runs()[24]["createdAt"]))

    assert await read_ids(session, copyai_emulator, page_size=10, since=start, prefetch=0) == ids(copyai_emulator)[:25]
    assert len(copyai_emulator.requests) == 3


async def test_since_on_a_list_that_is_oldest_first(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """With `since`, a list that is oldest first is read completely, and no run is lost."""
    copyai_emulator.add_runs(95)
    copyai_emulator.replace_runs(reversed(copyai_emulator.runs()))
    start = datetime.fromisoformat(str(copyai_emulator.runs()[70]["createdAt"]))

    assert await read_ids(session, copyai_emulator, page_size=10, since=start) == ids(copyai_emulator)[70:]


@pytest.mark.parametrize(
    ("arguments", "selected"),
    [
        ({"status": "failed"}, [1]),
        ({"status": {"FAILED", "PAUSED"}}, [1, 3]),
        ({"status": ["NEW"]}, []),
        ({"metadata": {"batch": 7}}, [1, 2]),
        ({"metadata": {"batch": ["7", 8], "api": True}}, [1, 2, 3]),
        ({"metadata": {"batch": None}}, [5]),
        ({"metadata": {"nested": {"x": [1]}}, "status": None}, [5]),
        ({"metadata": {}}, [1, 2, 3, 4, 5]),
        ({"metadata": {"batch": 7}, "limit": 1}, [1]),
        ({"metadata": {"batch": 7}, "limit": 0}, []),
        ({"metadata": {"batch": (7, 8)}, "limit": 2, "since": datetime(2026, 1, 3, tzinfo=UTC)}, [1, 2]),
        ({"metadata": {"batch": [7, 8]}, "since": datetime(2026, 1, 4, tzinfo=UTC)}, [1, 2]),
    ],
)
async def test_status_and_metadata(
    session: CopyAISession, copyai_emulator: Emulator, arguments: dict[str, Any], selected: list[int]
) -> None:
    """A run is selected by its status and by one value for each metadata key, and `limit` counts selected runs."""
    tags: list[dict[str, JSON]] = [
        {"status": "FAILED", "metadata": {"api": True, "batch": 7}},
        {"status": "COMPLETE", "metadata": {"api": True, "batch": "7"}},
        {"status": "PAUSED", "metadata": {"api": "true", "batch": 8}},
        {"status": "COMPLETE", "metadata": None},
        {"metadata": {"batch": None, "nested": {"x": [1]}}},
    ]
    copyai_emulator.replace_runs(
        [{"id": f"{n}", "createdAt": f"2026-01-0{6 - n}T00:00:00Z", **tag} for n, tag in enumerate(tags, start=1)]
    )
    pager = session.runs(copyai_emulator.workflow_id, page_size=2, **arguments)

    assert [int(run.id) for run in await pager.collect()] == selected
    assert pager.changes.missing == 0


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_first(session: CopyAISession, copyai_emulator: Emulator, prefetch: int) -> None:
    """`first` returns the first run, and requests only one run."""
    copyai_emulator.add_runs(25)
    pager = session.runs(copyai_emulator.workflow_id, page_size=5, prefetch=prefetch)
    first = await pager.first()

    assert first is not None
    assert (first.id, pager.total) == (ids(copyai_emulator)[0], 25)
    assert [request.size for request in copyai_emulator.requests] == [1]


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_first_since(session: CopyAISession, copyai_emulator: Emulator, prefetch: int) -> None:
    """With `since`, `first` reads whole pages up to the first run that was created since."""
    copyai_emulator.add_runs(25)
    oldest_first = sorted(copyai_emulator.runs(), key=lambda run: str(run["createdAt"]))
    copyai_emulator.replace_runs(oldest_first)
    since = datetime.fromisoformat(str(oldest_first[20]["createdAt"]))
    first = await session.runs(copyai_emulator.workflow_id, page_size=5, since=since, prefetch=prefetch).first()

    assert first is not None
    assert first.id == oldest_first[20]["id"]
    assert {request.size for request in copyai_emulator.requests} == {5}
    assert len(copyai_emulator.requests) <= 7


async def test_first_of_no_runs(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """`first` returns None if the list is empty, or its limit is 0."""
    assert await session.runs(copyai_emulator.workflow_id).first() is None
    copyai_emulator.add_runs(1)

    assert await session.runs(copyai_emulator.workflow_id, limit=0).first() is None


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_collect(session: CopyAISession, copyai_emulator: Emulator, prefetch: int) -> None:
    """`collect` returns all runs, up to its limit and that of the list, each time from the beginning."""
    copyai_emulator.add_runs(25)
    listed = ids(copyai_emulator)
    pager = session.runs(copyai_emulator.workflow_id, page_size=5, prefetch=prefetch)

    assert [run.id for run in await pager.collect()] == listed
    assert [run.id for run in await pager.collect(7)] == listed[:7]
    assert await pager.collect(0) == []
    assert [run.id for run in await session.runs(copyai_emulator.workflow_id, limit=3).collect(7)] == listed[:3]


async def test_collect_raises_errors(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """`collect` rejects a negative limit, and raises the error of a page with its number."""
    pager = session.runs(copyai_emulator.workflow_id)
    with pytest.raises(ValueError, match="limit must be at least 0, got -1"):
        await pager.collect(-1)
    copyai_emulator.inject(Fault(status=400))
    with pytest.raises(BadRequestError) as caught:
        await pager.collect()

    assert caught.value.page == 1


async def test_start_page_continues_after_an_error(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """With the page of an error as `start_page`, another iteration continues there."""
    copyai_emulator.add_runs(95)
    copyai_emulator.inject(Fault(status=500), times=None, page=4)
    got: list[str] = []
    with pytest.raises(ServerError, match="page 4: HTTP 500") as caught:
        async for run in session.runs(copyai_emulator.workflow_id, page_size=20, prefetch=0):
            got.append(run.id)  # noqa: PERF401 (what came before the error counts)
    assert caught.value.page == 4
    copyai_emulator.clear_faults()
    got += await read_ids(session, copyai_emulator, page_size=20, start_page=caught.value.page)

    assert got == ids(copyai_emulator)


async def test_a_failed_page_is_requested_again(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """After an error, the same iterator continues without losing a run."""
    copyai_emulator.add_runs(95)
    copyai_emulator.inject(Fault(body=b"<html>"), times=5, page=3)
    runs, got = aiter(session.runs(copyai_emulator.workflow_id, page_size=20)), list[str]()
    with pytest.raises(InvalidResponseError, match="page 3: the response is not JSON, got '<html>'"):
        while True:
            got.append((await anext(runs)).id)
    got += [run.id async for run in runs]

    assert got == ids(copyai_emulator)


async def test_a_malformed_item(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An item without an id raises an error that names the page and the position."""
    copyai_emulator.replace_runs([*copyai_emulator.runs(), {"id": "a"}, {"credits": 3}])
    with pytest.raises(InvalidResponseError, match=r"page 1: data\.data\[1\]: a run without an id, got {'credits': 3}"):
        await read_ids(session, copyai_emulator)
    with pytest.raises(InvalidResponseError, match=r"page 1: data\.data\[1\]"):
        await session.runs_page(copyai_emulator.workflow_id)


async def test_runs_page(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A page is one request, and has ten runs by default."""
    copyai_emulator.add_runs(25)
    page = await session.runs_page(copyai_emulator.workflow_id, 3)

    assert (page.number, page.size, page.total) == (3, 10, 25)
    assert [run.id for run in page.items] == ids(copyai_emulator)[20:]
    assert len((await session.runs_page(copyai_emulator.workflow_id, size=25)).items) == 25
    assert len(copyai_emulator.requests) == 2


async def test_count_runs(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """`count_runs` returns the server's total after one request, and raises an error if there is no total."""
    copyai_emulator.add_runs(25)

    assert await session.count_runs(copyai_emulator.workflow_id) == 25
    assert [request.size for request in copyai_emulator.requests] == [1]

    copyai_emulator.quirks = Quirks(total="absent")
    with pytest.raises(InvalidResponseError, match=r"data\.total"):
        await session.count_runs(copyai_emulator.workflow_id)


async def test_unknown_workflow(session: CopyAISession) -> None:
    """An unknown workflow raises an error with any start page, and is not an empty list."""
    for start_page in (1, 5):
        with pytest.raises(NotFoundError):
            _ = [run async for run in session.runs("WCFG-none", start_page=start_page)]


@pytest.mark.parametrize("workflow_id", ["a/b?c=d#e", "ü %2F", "...", "a\u2028b"])
async def test_an_id_is_one_segment(session: CopyAISession, copyai_emulator: Emulator, workflow_id: str) -> None:
    """Any id reaches the server as one segment of the path."""
    copyai_emulator.add_runs(1, workflow_id=workflow_id)

    assert await session.count_runs(workflow_id) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workflow_id", ""),
        ("workflow_id", "."),
        ("workflow_id", ".."),
        ("workflow_id", "a\nb"),
        ("workflow_id", "a\x85b"),
        ("workflow_id", "\ud800"),
        ("workflow_id", None),
        ("page_size", 0),
        ("page_size", 101),
        ("page_size", "10"),
        ("page_size", True),
        ("start_page", 0),
        ("limit", -1),
        ("limit", 1.5),
        ("prefetch", -1),
        ("since", datetime(2026, 1, 1)),  # noqa: DTZ001 (the point of the test)
        ("since", "2026-01-01"),
        ("status", []),
        ("status", {"NEW", 5}),
        ("status", 5),
        ("metadata", ["batch"]),
        ("metadata", {"batch": []}),
        ("metadata", {"when": datetime(2026, 1, 1, tzinfo=UTC)}),
    ],
)
async def test_invalid_arguments(session: CopyAISession, copyai_emulator: Emulator, name: str, value: object) -> None:
    """An invalid argument raises a `ValueError` that names it, before anything is sent."""
    arguments: dict[str, Any] = {"workflow_id": "W", name: value}
    with pytest.raises(ValueError, match=name):
        session.runs(**arguments)

    assert copyai_emulator.requests == []


async def test_invalid_arguments_of_a_page(session: CopyAISession) -> None:
    """The number and the size of a page are checked, and the error says what is accepted."""
    with pytest.raises(ValueError, match="page must be at least 1, got"):
        await session.runs_page("W", 0)
    with pytest.raises(ValueError, match="size must be between 1 and 100, got 101"):
        await session.runs_page("W", size=101)


def test_key_and_url_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key and the URL are the arguments, or else those in the environment. The default URL is the vendor's."""
    with pytest.raises(ConfigurationError, match="COPYAI_API_KEY"):
        CopyAISession()
    monkeypatch.setenv("COPYAI_API_KEY", "from-environment")

    assert repr(CopyAISession()) == f"<CopyAISession: {DEFAULT_BASE_URL}>"

    monkeypatch.setenv("COPYAI_BASE_URL", "http://localhost:8000/api/")

    assert repr(CopyAISession()) == "<CopyAISession: http://localhost:8000/api>"
    assert "http://[::1]:1" in repr(CopyAISession(base_url="http://[::1]:1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"api_key": "key\n"}, "the API key"),
        ({"api_key": "k\x00y"}, "the API key"),
        ({"api_key": "kéy"}, "the API key"),
        ({"api_key": b"a-long-key"}, "api_key must be a string, got an object of type bytes"),
        ({"base_url": "http://api.copy.ai/api"}, "without encryption to api.copy.ai"),
        ({"base_url": "http://127.0.0.1.example.com"}, "without encryption"),
        ({"base_url": "ftp://localhost"}, "http\\(s\\) URL"),
        ({"base_url": "api.copy.ai"}, "http\\(s\\) URL"),
        ({"base_url": "https://[bad"}, "http\\(s\\) URL"),
        ({"base_url": "https://user:pw@api.copy.ai"}, "must not contain a user, password"),
        ({"base_url": "https://api.copy.ai/?a=b"}, "must not contain a user, password"),
        ({"timeout": 0}, "timeout"),
        ({"retry": 0}, "retry must be at least 1, got 0"),
        ({"retry": True}, "retry must be a number of attempts, or a RetryPolicy"),
        ({"retry": "3"}, "retry must be a number of attempts, or a RetryPolicy"),
        ({"http_session": object()}, "http_session must be an aiohttp.ClientSession, got an object of type object"),
        ({"default_headers": {"x-a": "pw\r\nx-b: 1"}}, r"default_headers\['x-a'\] must be a string of printable ASCII"),
        ({"default_headers": {"x\n": "a"}}, "default_headers must have valid names"),
        ({"default_headers": {"AUTHORIZATION": "pw"}}, "must not have 'AUTHORIZATION': pass the API key as api_key"),
        ({"default_headers": {"X-Copy-AI-API-Key": "pw"}}, "pass the API key as api_key"),
        ({"default_headers": {"User-Agent": "pw"}}, "pass it as user_agent"),
        ({"default_headers": ["pw"]}, "default_headers must be a mapping"),
        ({"user_agent": "a\nb"}, "user_agent must be a string of printable ASCII on one line"),
        ({"user_agent": ""}, "user_agent must be a string"),
        ({"on_request": 5}, "on_request must be a synchronous function"),
        ({"on_retry": CopyAISession.close}, "on_retry must be a synchronous function"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"max_rate": -1}, "max_rate"),
    ],
)
def test_an_invalid_configuration(arguments: dict[str, Any], message: str) -> None:
    """An invalid setting is rejected at construction, without showing the key or a password."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        CopyAISession(**{"api_key": "key", **arguments})

    assert "pw" not in str(caught.value)
    assert str(arguments.get("api_key", "pw")) not in str(caught.value)


async def test_own_aiohttp_session(copyai_emulator: Emulator) -> None:
    """A caller's `aiohttp.ClientSession` is used with its own settings, and is never closed."""
    copyai_emulator.add_runs(3)
    async with aiohttp.ClientSession(headers={"x-own": "1"}, raise_for_status=True) as http:
        async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url, http_session=http) as session:
            assert await session.count_runs(copyai_emulator.workflow_id) == 3
            with pytest.raises(NotFoundError):
                await session.count_runs("WCFG-none")

        assert copyai_emulator.requests[0].headers["x-own"] == "1"
        assert not http.closed


async def test_closed_session(copyai_emulator: Emulator) -> None:
    """A closed session raises an error that says so, and may be closed again."""
    session = CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url)
    await session.close()
    await session.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await session.count_runs("W")


def test_second_loop() -> None:
    """A session that is used in another event loop raises an error that says so."""
    session = CopyAISession("key", base_url="http://127.0.0.1:9", retry=1)

    async def use() -> None:
        with pytest.raises(APIConnectionError):
            await session.count_runs("W")

    async def use_again_and_close() -> None:
        async with session:
            with pytest.raises(RuntimeError, match="was used in another event loop"):
                await session.count_runs("W")

    asyncio.run(use())
    asyncio.run(use_again_and_close())


async def test_close_cancels_requests_in_progress(copyai_emulator: Emulator) -> None:
    """Closing a session cancels the requests of prefetched pages, and waits until their tasks are done."""
    copyai_emulator.add_runs(95)
    session = CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url)
    runs = aiter(session.runs(copyai_emulator.workflow_id, page_size=10))
    await anext(runs)
    in_progress = set(session._tasks._tasks)

    assert in_progress

    await session.close()

    assert all(task.done() for task in in_progress)
    assert not session._tasks
    with pytest.raises(RuntimeError, match="was closed while"):
        while True:
            await anext(runs)


async def test_close_while_a_consumer_waits(copyai_emulator: Emulator) -> None:
    """If the session is closed, a consumer that waits for a page gets an error that says so, and is not cancelled."""
    copyai_emulator.inject(Fault(delay=9))
    session = CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url)
    waiting = asyncio.ensure_future(anext(aiter(session.runs(copyai_emulator.workflow_id))))
    while not copyai_emulator.requests:
        await asyncio.sleep(0.001)
    await session.close()
    with pytest.raises(RuntimeError, match="was closed while one of its lists was being read"):
        await waiting


async def test_max_rate(copyai_emulator: Emulator) -> None:
    """`max_rate` limits all requests of a session."""
    copyai_emulator.add_runs(50)
    loop = asyncio.get_running_loop()
    async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url, max_rate=100) as session:
        began = loop.time()
        await read_ids(session, copyai_emulator, page_size=10)

        assert loop.time() - began >= timedelta(milliseconds=39).total_seconds()
