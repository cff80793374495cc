"""Tests of the call that lists runs, as documented and with each quirk."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from yarl import URL

from aiocopyai.emulator import Emulator, Quirks
from tests.support.raw_api import KEY_HEADER, NOT_FOUND, AnyValue, RawAPI, emulator_ids, raw_api


async def test_envelope(api: RawAPI) -> None:
    """A list is `{"status": "success", "data": {"total": N, "data": [...]}}`."""
    api.emulator.add_runs(3)
    assert await api.get_page() == (
        200,
        {"status": "success", "data": {"total": 3, "data": api.emulator.runs()}},
    )


async def test_default_size_is_10(api: RawAPI) -> None:
    """Without `size` and `page` the response is the first 10 runs."""
    api.emulator.add_runs(25)
    assert await api.list_ids() == emulator_ids(api.emulator)[:10]


async def test_pages_cover_the_list(api: RawAPI) -> None:
    """Pages start at 1, and together have every run once."""
    api.emulator.add_runs(25)
    pages = [await api.list_ids(size=10, page=page) for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert [*chain.from_iterable(pages)] == emulator_ids(api.emulator)


async def test_trailing_slash(api: RawAPI) -> None:
    """The path may end in a slash, since vendor pages show both."""
    api.emulator.add_runs(2)
    _, body = await api.call("GET", api.runs_path + "/")
    assert body["data"]["total"] == 2


async def test_content_type(api: RawAPI) -> None:
    """The content type of a response is JSON."""
    async with api.http.get(api.runs_url) as response:
        assert response.content_type == "application/json"


@pytest.mark.parametrize("headers", [{KEY_HEADER: ""}, {KEY_HEADER: "wrong"}, {"Authorization": "emulator-key"}])
async def test_wrong_key(api: RawAPI, headers: dict[str, str]) -> None:
    """The response to a missing or wrong key is a 401."""
    api.http.headers.popall(KEY_HEADER)
    response = await api.call("GET", api.runs_path, headers=headers)
    assert response == (401, {"status": "error", "errorCode": "UNAUTHORIZED"})


async def test_other_key() -> None:
    """The accepted key can be chosen."""
    async with Emulator(api_key="another") as emulator, raw_api(emulator) as api:
        assert (await api.get_page())[0] == 200


@pytest.mark.parametrize(
    "host", ["attacker.example.com", "127.0.0.1.example.com:80", "10.0.0.1", "", "[", "localhost.x"]
)
async def test_foreign_host(api: RawAPI, host: str) -> None:
    """The response to a request with another host name, as in DNS rebinding, is a 403."""
    for path in (api.runs_path, "/webhook"):
        response = await api.call("GET", path, headers={"Host": host})
        assert response == (403, {"status": "error", "errorCode": "HOST_NOT_ALLOWED"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "127.1.2.3", "localhost:8040", "LOCALHOST", "[::1]:9"])
async def test_loopback_host(api: RawAPI, host: str) -> None:
    """Any name of the loopback interface is accepted."""
    status, _ = await api.call("GET", api.runs_path, headers={"Host": host})
    assert status == 200


async def test_unknown_workflow(api: RawAPI) -> None:
    """The response for an unknown workflow is a 404 NOT_FOUND."""
    assert await api.call("GET", "/workflow/WCFG-none/run") == NOT_FOUND


@pytest.mark.parametrize("path", ["", "/nothing", "/workflow//run", "/workflow", "/workflow/a/run/b/c", "/webhook/a/b"])
async def test_unknown_call(api: RawAPI, path: str) -> None:
    """The response to a path that is not a call is a 404."""
    assert await api.call("GET", path) == NOT_FOUND


async def test_encoded_workflow_id() -> None:
    """An encoded slash is part of the id, and the log keeps the path as it was sent."""
    async with Emulator(2, workflow_id="a/b ü") as emulator, raw_api(emulator) as api:
        url = URL(f"{emulator.url}/workflow/a%2Fb%20%C3%BC/run", encoded=True)
        async with api.http.get(url) as response:
            assert (await response.json())["data"]["total"] == 2
        assert emulator.requests[0].path == "/api/workflow/a%2Fb%20%C3%BC/run"


@pytest.mark.parametrize("name", ["size", "page"])
@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "1_0"])
async def test_invalid_numbers(api: RawAPI, name: str, value: str) -> None:
    """The response to a `size` or `page` that is not an integer, or negative, is a 400 with an empty object."""
    assert await api.get_page(**{name: value}) == (400, {})


async def test_size_0(api: RawAPI) -> None:
    """The response to a page size of 0 is a 400 with an empty object."""
    assert await api.get_page(size=0) == (400, {})


# Quirks


@pytest.mark.parametrize(
    ("quirk", "sent"),
    [("int", 3), ("string", "3"), (lambda count: count + 7, 10), (lambda _: None, None)],
)
async def test_total(api: RawAPI, quirk: AnyValue, sent: object) -> None:
    """The total is an integer, a string, or the result of a function that is called with the true count."""
    api.emulator.add_runs(3)
    api.emulator.quirks = Quirks(total=quirk)
    _, body = await api.get_page()
    assert body["data"]["total"] == sent


async def test_absent_total(api: RawAPI) -> None:
    """The total may be absent."""
    api.emulator.quirks = Quirks(total="absent")
    _, body = await api.get_page()
    assert list(body["data"]) == ["data"]


async def test_oversize_is_clamped(api: RawAPI) -> None:
    """A size above the maximum is reduced to it, and pages are counted by the reduced size."""
    api.emulator.add_runs(250)
    assert await api.list_ids(size=200, page=2) == emulator_ids(api.emulator)[100:200]


async def test_oversize_is_rejected(api: RawAPI) -> None:
    """A size above the maximum may be rejected; the maximum itself is accepted."""
    api.emulator.add_runs(9)
    api.emulator.quirks = Quirks(max_size=5, oversize="reject")
    assert await api.get_page(size=6) == (400, {})
    assert len(await api.list_ids(size=5)) == 5


@pytest.mark.parametrize("max_size", [0, -1])
def test_invalid_max_size(max_size: int) -> None:
    """A maximum size below 1 is rejected."""
    with pytest.raises(ValueError, match=f"max_size must be at least 1, got {max_size}"):
        Quirks(max_size=max_size)


@pytest.mark.parametrize(
    ("quirk", "body"),
    [
        (400, {}),
        (404, NOT_FOUND[1]),
        (422, {"status": "error", "errorCode": "REQUEST_INVALID", "details": {"page": ["is past the end"]}}),
    ],
)
async def test_past_end_is_rejected(api: RawAPI, quirk: AnyValue, body: object) -> None:
    """The quirk `past_end` may reject a page after the end, but not the last page."""
    api.emulator.add_runs(20)
    api.emulator.quirks = Quirks(past_end=quirk)
    assert (await api.get_page(page=2))[0] == 200
    assert await api.get_page(page=3) == (quirk, body)


async def test_past_end_is_the_last_page(api: RawAPI) -> None:
    """A page after the end may be the last page again."""
    api.emulator.add_runs(15)
    api.emulator.quirks = Quirks(past_end="last")
    assert await api.list_ids(page=9) == emulator_ids(api.emulator)[10:]


@pytest.mark.parametrize("quirk", ["empty", "last", 400, 404, 422])
async def test_empty_list_has_a_first_page(api: RawAPI, quirk: AnyValue) -> None:
    """Page 1 of an empty list is empty, and is not after the end."""
    api.emulator.quirks = Quirks(past_end=quirk)
    assert await api.get_page(page=1) == (200, {"status": "success", "data": {"total": 0, "data": []}})


async def test_page_0(api: RawAPI) -> None:
    """Page 0 is the first page, or is rejected."""
    api.emulator.add_runs(15)
    assert await api.list_ids(page=0) == emulator_ids(api.emulator)[:10]
    api.emulator.quirks = Quirks(page_zero=400)
    assert await api.get_page(page=0) == (400, {})


async def test_ignored_page(api: RawAPI) -> None:
    """The server may send the first page regardless of `page`."""
    api.emulator.add_runs(15)
    api.emulator.quirks = Quirks(ignore_page=True)
    assert await api.list_ids(page=7) == emulator_ids(api.emulator)[:10]


async def test_sparse_runs(api: RawAPI) -> None:
    """With a quirk, a listed run has no status, input and output."""
    api.emulator.add_runs()
    api.emulator.quirks = Quirks(sparse=True)
    [run] = await api.list_runs()
    assert set(api.emulator.runs()[0]) - set(run) == {"status", "input", "output"}


async def test_no_metadata(api: RawAPI) -> None:
    """With a quirk, a listed run has no metadata, but all other fields."""
    api.emulator.add_runs()
    api.emulator.quirks = Quirks(lists_metadata=False)
    [run] = await api.list_runs()
    assert set(api.emulator.runs()[0]) - set(run) == {"metadata"}


async def test_mixed_dates(api: RawAPI) -> None:
    """With a quirk, some dates have no milliseconds, and the others are unchanged."""
    api.emulator.add_runs(40)
    api.emulator.quirks = Quirks(mixed_dates=True)
    sent = [run["createdAt"] for run in await api.list_runs(size=40)]
    kept = [str(run["createdAt"]) for run in api.emulator.runs()]
    assert {len(date) for date in sent} == {20, 24}
    assert all(date in (full, full[:19] + "Z") for date, full in zip(sent, kept, strict=True))


async def test_credits_as_strings(api: RawAPI) -> None:
    """Credits may be strings."""
    api.emulator.add_runs(2)
    api.emulator.quirks = Quirks(credits="string")
    sent = [run["credits"] for run in await api.list_runs()]
    assert sent == [str(run["credits"]) for run in api.emulator.runs()]


async def test_quirks_ignore_malformed_items(api: RawAPI) -> None:
    """Malformed items are sent unchanged with every quirk."""
    items: list[Any] = [None, 7, "x", {"id": "1", "createdAt": 5, "credits": "many"}]
    api.emulator.replace_runs(items)
    api.emulator.quirks = Quirks(sparse=True, mixed_dates=True, credits="string")
    assert await api.list_runs() == items


async def test_vendor_example(api: RawAPI) -> None:
    """The vendor's own example, a total of "3" with two runs, can be reproduced."""
    api.emulator.add_runs(3)
    api.emulator.quirks = Quirks(total="string", short_pages=1)
    _, body = await api.get_page()
    assert body["data"]["total"] == "3"
    assert len(body["data"]["data"]) == 2


async def test_short_pages(api: RawAPI) -> None:
    """The runs that are missing on a short page are not on the next page."""
    api.emulator.add_runs(6)
    api.emulator.quirks = Quirks(short_pages=1)
    ids = emulator_ids(api.emulator)
    assert await api.list_ids(size=3, page=1) == ids[0:2]
    assert await api.list_ids(size=3, page=2) == ids[3:5]


async def test_retention(api: RawAPI) -> None:
    """In a list of limited length, each new run removes the oldest, and the total does not change."""
    api.emulator.add_runs(7)
    api.emulator.quirks = Quirks(retention=5, past_end=404)
    for _ in range(3):
        api.emulator.add_runs()
        ids = emulator_ids(api.emulator)
        _, body = await api.get_page(size=3)
        assert (body["data"]["total"], [run["id"] for run in body["data"]["data"]]) == (5, ids[:3])
        assert await api.list_ids(size=3, page=2) == ids[3:5]
        assert (await api.get_page(size=3, page=3))[0] == 404


async def test_plain_text_404(api: RawAPI) -> None:
    """A 404 may be plain text."""
    api.emulator.quirks = Quirks(text_404=True)
    async with api.http.get(api.emulator.url) as response:
        assert (response.status, response.content_type) == (404, "text/plain")
        assert await response.text() == "Not Found"
