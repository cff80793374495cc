"""The emulator's list of runs against the facts, asked by bare aiohttp: never by the client it is there to test."""

from __future__ import annotations

from itertools import chain
from typing import Any, TypeAlias

import aiohttp
import pytest
from yarl import URL

from aiocopyai.emulator import Emulator, Quirks
from tests.support.bare import KEY_HEADER, ask, ask_ids, ids_of, runs_url


# Values that a parametrized test passes on to a literal type.
Odd: TypeAlias = Any


# The list call as documented


async def test_envelope(http: aiohttp.ClientSession) -> None:
    """A list is `{"status": "success", "data": {"total": N, "data": [...]}}`, runs as kept."""
    async with Emulator(3) as emulator:
        status, answer = await ask(http, emulator)
        assert status == 200
        assert answer == {"status": "success", "data": {"total": 3, "data": emulator.runs()}}


async def test_default_size_is_ten(http: aiohttp.ClientSession) -> None:
    """Without a `size`, a page holds 10 runs, and without a `page` it is the first."""
    async with Emulator(25) as emulator:
        assert await ask_ids(http, emulator) == ids_of(emulator)[:10]


async def test_pages_cover_the_list(http: aiohttp.ClientSession) -> None:
    """Pages count from 1 and join up without a gap."""
    async with Emulator(25) as emulator:
        pages = [await ask_ids(http, emulator, size=10, page=page) for page in (1, 2, 3, 4)]
        assert [len(page) for page in pages] == [10, 10, 5, 0]
        assert [*chain.from_iterable(pages)] == ids_of(emulator)


async def test_trailing_slash(http: aiohttp.ClientSession) -> None:
    """The path may end in a slash, since vendor pages show both."""
    async with Emulator(2) as emulator, http.get(runs_url(emulator) + "/") as response:
        assert (await response.json())["data"]["total"] == 2


async def test_content_type(http: aiohttp.ClientSession) -> None:
    """An answer is typed as JSON."""
    async with Emulator() as emulator, http.get(runs_url(emulator)) as response:
        assert response.content_type == "application/json"


@pytest.mark.parametrize("headers", [{}, {KEY_HEADER: "wrong"}, {"Authorization": "emulator-key"}])
async def test_key_is_checked(headers: dict[str, str]) -> None:
    """A missing or wrong key gets a 401."""
    async with (
        Emulator() as emulator,
        aiohttp.ClientSession(headers=headers) as http,
    ):
        assert await ask(http, emulator) == (
            401,
            {"status": "error", "errorCode": "UNAUTHORIZED"},
        )


async def test_own_key() -> None:
    """The key that is let in can be chosen."""
    async with (
        Emulator(api_key="another") as emulator,
        aiohttp.ClientSession(headers={KEY_HEADER: "another"}) as http,
    ):
        assert (await ask(http, emulator))[0] == 200


async def test_unknown_workflow(http: aiohttp.ClientSession) -> None:
    """A workflow that nobody mentioned is a 404 NOT_FOUND."""
    async with (
        Emulator() as emulator,
        http.get(runs_url(emulator, workflow_id="WCFG-none")) as response,
    ):
        assert response.status == 404
        assert await response.json() == {"status": "error", "errorCode": "NOT_FOUND"}


@pytest.mark.parametrize("path", ["", "/nothing", "/workflow//run", "/workflow"])
async def test_unknown_call(http: aiohttp.ClientSession, path: str) -> None:
    """A path that is no call is a 404."""
    async with Emulator() as emulator, http.get(emulator.url + path) as response:
        assert response.status == 404


async def test_encoded_workflow_id(http: aiohttp.ClientSession) -> None:
    """An encoded slash is a part of the id, and the log keeps the path as it was sent."""
    async with Emulator(2, workflow_id="a/b ü") as emulator:
        url = URL(f"{emulator.url}/workflow/a%2Fb%20%C3%BC/run", encoded=True)
        async with http.get(url) as response:
            assert (await response.json())["data"]["total"] == 2
        assert emulator.requests[0].path == "/api/workflow/a%2Fb%20%C3%BC/run"


@pytest.mark.parametrize("name", ["size", "page"])
@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "1_0"])
async def test_bad_numbers(http: aiohttp.ClientSession, name: str, value: str) -> None:
    """A `size` or `page` that is no whole number, or negative, gets 400 with an empty object."""
    async with Emulator(1) as emulator:
        assert await ask(http, emulator, **{name: value}) == (400, {})


async def test_size_zero(http: aiohttp.ClientSession) -> None:
    """A page of no runs is refused."""
    async with Emulator(1) as emulator:
        assert await ask(http, emulator, size=0) == (400, {})


# Quirks


@pytest.mark.parametrize(
    ("quirk", "sent"),
    [("int", 3), ("string", "3"), (lambda count: count + 7, 10), (lambda _: None, None)],
)
async def test_total(http: aiohttp.ClientSession, quirk: Odd, sent: object) -> None:
    """The total is a number, text, or whatever a function makes of the true one."""
    async with Emulator(3, quirks=Quirks(total=quirk)) as emulator:
        _, answer = await ask(http, emulator)
        assert answer["data"]["total"] == sent


async def test_total_absent(http: aiohttp.ClientSession) -> None:
    """The total may be missing."""
    async with Emulator(3, quirks=Quirks(total="absent")) as emulator:
        _, answer = await ask(http, emulator)
        assert list(answer["data"]) == ["data"]


async def test_oversize_clamps(http: aiohttp.ClientSession) -> None:
    """A size above the most is cut down to it, and pages are counted by the real size."""
    async with Emulator(250) as emulator:
        assert await ask_ids(http, emulator, size=200, page=2) == ids_of(emulator)[100:200]


async def test_oversize_rejects(http: aiohttp.ClientSession) -> None:
    """A size above the most may be refused, and the most itself is not."""
    async with Emulator(9, quirks=Quirks(max_size=5, oversize="reject")) as emulator:
        assert await ask(http, emulator, size=6) == (400, {})
        assert len(await ask_ids(http, emulator, size=5)) == 5


@pytest.mark.parametrize(
    ("quirk", "body"),
    [
        (400, {}),
        (404, {"status": "error", "errorCode": "NOT_FOUND"}),
        (
            422,
            {
                "status": "error",
                "errorCode": "REQUEST_INVALID",
                "details": {"page": ["is past the end"]},
            },
        ),
    ],
)
async def test_past_end_refused(http: aiohttp.ClientSession, quirk: Odd, body: object) -> None:
    """A page past the end may be refused, the last one never."""
    async with Emulator(20, quirks=Quirks(past_end=quirk)) as emulator:
        assert (await ask(http, emulator, page=2))[0] == 200
        assert await ask(http, emulator, page=3) == (quirk, body)


async def test_past_end_last(http: aiohttp.ClientSession) -> None:
    """A page past the end may be the last one again."""
    async with Emulator(15, quirks=Quirks(past_end="last")) as emulator:
        assert await ask_ids(http, emulator, page=9) == ids_of(emulator)[10:]


@pytest.mark.parametrize("quirk", ["empty", "last", 400, 404, 422])
async def test_empty_list_has_a_first_page(http: aiohttp.ClientSession, quirk: Odd) -> None:
    """Page 1 of an empty list is empty, and never past the end."""
    async with Emulator(quirks=Quirks(past_end=quirk)) as emulator:
        assert await ask(http, emulator, page=1) == (
            200,
            {"status": "success", "data": {"total": 0, "data": []}},
        )


async def test_page_zero(http: aiohttp.ClientSession) -> None:
    """Page 0 is the first page, or refused."""
    async with Emulator(15) as emulator:
        assert await ask_ids(http, emulator, page=0) == ids_of(emulator)[:10]
        emulator.quirks = Quirks(page_zero=400)
        assert await ask(http, emulator, page=0) == (400, {})


async def test_ignore_page(http: aiohttp.ClientSession) -> None:
    """A server may send the first page whatever is asked for."""
    async with Emulator(15, quirks=Quirks(ignore_page=True)) as emulator:
        assert await ask_ids(http, emulator, page=7) == ids_of(emulator)[:10]


async def test_sparse(http: aiohttp.ClientSession) -> None:
    """A listed run may lack its status, input and output."""
    async with Emulator(1, quirks=Quirks(sparse=True)) as emulator:
        _, answer = await ask(http, emulator)
        (run,) = answer["data"]["data"]
        assert set(emulator.runs()[0]) - set(run) == {"status", "input", "output"}


async def test_mixed_dates(http: aiohttp.ClientSession) -> None:
    """Some dates lack their milliseconds, always the same ones; the rest are untouched."""
    async with Emulator(40, quirks=Quirks(mixed_dates=True)) as emulator:
        _, answer = await ask(http, emulator, size=40)
        sent = [run["createdAt"] for run in answer["data"]["data"]]
        kept = [str(run["createdAt"]) for run in emulator.runs()]
        assert {len(date) for date in sent} == {20, 24}
        assert all(date in (whole, whole[:19] + "Z") for date, whole in zip(sent, kept, strict=True))


async def test_credits_as_text(http: aiohttp.ClientSession) -> None:
    """Credits may be text."""
    async with Emulator(2, quirks=Quirks(credits="string")) as emulator:
        _, answer = await ask(http, emulator)
        sent = [run["credits"] for run in answer["data"]["data"]]
        assert sent == [str(run["credits"]) for run in emulator.runs()]


async def test_quirks_pass_over_odd_items(http: aiohttp.ClientSession) -> None:
    """Items that are malformed already stay as they are under every quirk."""
    items: list[Any] = [None, 7, "x", {"id": "1", "createdAt": 5, "credits": "many"}]
    quirks = Quirks(sparse=True, mixed_dates=True, credits="string")
    async with Emulator(items, quirks=quirks) as emulator:
        _, answer = await ask(http, emulator)
        assert answer["data"]["data"] == items


async def test_vendor_example(http: aiohttp.ClientSession) -> None:
    """The vendor's own example, a total of "3" with two runs, can be had."""
    async with Emulator(3, quirks=Quirks(total="string", short_pages=1)) as emulator:
        _, answer = await ask(http, emulator)
        assert answer["data"]["total"] == "3"
        assert len(answer["data"]["data"]) == 2


async def test_short_pages_skip(http: aiohttp.ClientSession) -> None:
    """What a short page leaves out is not on the next one."""
    async with Emulator(6, quirks=Quirks(short_pages=1)) as emulator:
        ids = ids_of(emulator)
        assert await ask_ids(http, emulator, size=3, page=1) == ids[0:2]
        assert await ask_ids(http, emulator, size=3, page=2) == ids[3:5]


async def test_text_404(http: aiohttp.ClientSession) -> None:
    """A 404 may be plain text."""
    async with (
        Emulator(quirks=Quirks(text_404=True)) as emulator,
        http.get(emulator.url) as response,
    ):
        assert (response.status, response.content_type) == (404, "text/plain")
        assert await response.text() == "Not Found"
