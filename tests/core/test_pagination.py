"""Tests of pagination without an event loop: the next page, the new runs on a page, and the end of the list."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from operator import itemgetter

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import (
    BadRequestError,
    Changes,
    NotFoundError,
    Page,
    PaginationError,
    RequestInvalidError,
    Run,
    ServerError,
)
from aiocopyai._filters import Since
from aiocopyai._pagination import MAX_STALE_PAGES, VERIFY_INTERVAL, Listing, ListProgress, PageRequest, may_be_past_end
from aiocopyai._repeats import REMEMBERED_IDS, RecentIds
from tests.support.strategies import AT_THE_END, KINDS_OF_CHANGE, ChangingList, changing_lists


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SIZES = st.integers(1, 12)
PREFETCHES = st.sampled_from([0, 1, 2, 4, 16])
ORDERS = st.builds(random.Random, st.integers())  # several times as fast as `st.randoms`
Respond = Callable[[int, int], Page[Run]]
"""Returns the response to a request for a page of a size."""


def runs(*ids: object) -> list[Run]:
    return [Run(str(run_id)) for run_id in ids]


@define
class Reading:
    """The ids that were read from a list, and the requested pages."""

    listing: Listing[Run]
    ids: list[str]
    requested: list[int]


def read(
    respond: Respond,
    size: int,
    prefetch: int = 0,
    choose: Callable[[Sequence[PageRequest]], PageRequest] = itemgetter(0),
    start_page: int = 1,
    stop_at: int | None = None,
) -> Reading:
    """Read a list to its end, with several requests in progress; `choose` selects the next response.

    With `stop_at`, it is read only up to that position, as it is after the first response.

    Raises:
        PaginationError: the list does not advance.
    """
    reading = Reading(Listing(size, start_page), [], [])
    in_progress: list[PageRequest] = []
    responses: dict[int, Page[Run]] = {}
    while not reading.listing.is_finished:
        while len(in_progress) < max(1, prefetch) and (request := reading.listing.next_request(in_progress)):
            in_progress.append(request)
            reading.requested.append(request.page)
        while id(in_progress[0]) not in responses:
            open_requests = [request for request in in_progress if id(request) not in responses]
            request = choose(open_requests)
            responses[id(request)] = respond(request.page, size)
        request = in_progress.pop(0)
        result = reading.listing.process(request, responses.pop(id(request)))
        reading.ids += [run.id for run in result.items]
        if result.retry:
            in_progress.insert(0, result.retry)
            reading.requested.append(result.retry.page)
        if stop_at is not None:
            reading.listing.stop_at(stop_at)
            stop_at = None
        if result.is_outdated or reading.listing.is_verifying:
            in_progress.clear()
            responses.clear()
    return reading


def process(listing: Listing[Run], page: Page[Run]) -> Sequence[Run]:
    """Return the page to request next."""
    request = listing.next_request()
    assert request is not None
    assert request.page == page.number

    return listing.process(request, page).items


@pytest.mark.parametrize("kind", KINDS_OF_CHANGE)
@given(data=st.data(), size=SIZES, prefetch=PREFETCHES, order=ORDERS)
def test_each_run_is_yielded_once(
    kind: str, data: st.DataObject, size: int, prefetch: int, order: random.Random
) -> None:
    """Each run that stays in the list is yielded once, with any changes of the list and any order of responses."""
    changing = data.draw(changing_lists(kind))
    reading = read(changing.page, size, prefetch, order.choice)

    assert len(set(reading.ids)) == len(reading.ids)
    assert changing.stayed <= set(reading.ids)
    # On smaller pages, added runs cannot be distinguished from runs that changed places.
    assert reading.listing.changes.missing == 0 or (size < 5 and kind in {"any", "capped"})


@pytest.mark.parametrize("kind", ["unchanged", "growing", "shrinking", "purged"])
@given(data=st.data(), size=SIZES, prefetch=PREFETCHES, order=ORDERS)
def test_stop_at_a_position(kind: str, data: st.DataObject, size: int, prefetch: int, order: random.Random) -> None:
    """With a stop position, no run is missing that was before it at the first response and stays in the list."""
    changing, position = data.draw(changing_lists(kind)), data.draw(st.integers(0, 150))
    first = list[str]()

    def respond(page: int, size: int) -> Page[Run]:
        response = changing.page(page, size)
        first[:] = first or changing.ids[:position]
        return response

    reading = read(respond, size, prefetch, order.choice, stop_at=position)

    assert len(set(reading.ids)) == len(reading.ids)
    assert changing.stayed & set(first) <= set(reading.ids)


@given(changing_lists("unchanged"), SIZES, PREFETCHES, ORDERS, st.integers(0, 119))
def test_stop_in_an_unchanged_list(
    changing: ChangingList, size: int, prefetch: int, order: random.Random, position: int
) -> None:
    """Pages after the stop position are not requested."""
    position = min(position, max(0, len(changing.ids) - 1))
    reading = read(changing.page, size, prefetch, order.choice, stop_at=position)
    pages = max(1, ceil(position / size))

    assert reading.ids == changing.ids[: pages * size]
    assert max(reading.requested) == pages


@given(changing_lists("unchanged"), SIZES, PREFETCHES, ORDERS)
def test_unchanged_list(changing: ChangingList, size: int, prefetch: int, order: random.Random) -> None:
    """An unchanged list takes one request per page, one more after a full last page, and one per verification."""
    count = len(changing.ids)
    reading = read(changing.page, size, prefetch, order.choice)
    pages = ceil(count / size) + (count % size == 0)
    ahead = ceil(count / size) - 2 if prefetch > 1 else 0
    most_verifications = 1 + ahead // VERIFY_INTERVAL if ahead > 0 else 0

    assert reading.ids == changing.ids
    assert pages + min(1, most_verifications) <= changing.requests <= pages + most_verifications
    assert not reading.listing.changes


@pytest.mark.parametrize("prefetch", [0, 1, 4, 16])
@pytest.mark.parametrize("seed", range(5))
def test_capped_list(prefetch: int, seed: int) -> None:
    """If each new run removes the oldest, no run is missing after about twice as many requests."""
    order = random.Random(seed)  # noqa: S311 (repeatable)
    changes = ((1, [AT_THE_END]) if order.random() < 0.2 else (0, []) for _ in range(10_000))
    changing = ChangingList.of(600, changes)
    reading = read(changing.page, 10, prefetch, order.choice)

    assert changing.stayed <= set(reading.ids)
    assert len(reading.requested) <= (2.5 * 60 if prefetch > 1 else 1.1 * 60)


@pytest.mark.parametrize("burst", [2, 4, 6, 50])
def test_changes_between_two_pages_are_detected(burst: int) -> None:
    """No run is missing if runs are added and removed between two pages, and none is repeated."""
    changes: list[tuple[int, list[float]]] = [(0, [])] * 5 + [(burst, [AT_THE_END] * min(burst, 4))] + [(0, [])] * 50
    changing = ChangingList.of(10, changes)
    # The response for page 2 comes last, and contains only added runs.
    reading = read(changing.page, 2, 16, itemgetter(-1))

    assert changing.stayed <= set(reading.ids)
    assert len(set(reading.ids)) == len(reading.ids)


def test_two_pages_do_not_need_a_verification() -> None:
    """A list of two full pages needs three requests, although the last one is prefetched."""
    changing = ChangingList.of(20)

    assert read(changing.page, 10, 4).requested == [1, 2, 3]


@pytest.mark.parametrize("prefetch", [0, 4, 16])
@pytest.mark.parametrize("seed", range(5))
def test_growing_list(prefetch: int, seed: int) -> None:
    """If runs are only added, few pages are read again."""
    order = random.Random(seed)  # noqa: S311 (repeatable)
    changing = ChangingList.of(600, ((1, []) if order.random() < 0.1 else (0, []) for _ in range(10_000)))
    reading = read(changing.page, 10, prefetch, order.choice)

    assert changing.stayed <= set(reading.ids)
    assert len(reading.requested) <= (2.5 if prefetch == 16 else 1.6) * 60
    assert reading.listing.changes.reread <= 20


@pytest.mark.parametrize("prefetch", [0, 1, 2, 4, 16])
@pytest.mark.parametrize("period", [2, 3, 4])
@pytest.mark.parametrize("place", [0, AT_THE_END])
def test_total_falls_at_every_second_request(prefetch: int, period: int, place: float) -> None:
    """No run is missing if a run is removed at every second request."""
    changing = ChangingList.of(600, ((0, [] if number % period else [place]) for number in range(10_000)))
    reading = read(changing.page, 10, prefetch)

    assert changing.stayed <= set(reading.ids)
    assert len(reading.requested) <= 6 * 60


@pytest.mark.parametrize("prefetch", [0, 4, 16])
@pytest.mark.parametrize("seed", range(5))
def test_list_that_shrinks_all_the_time(prefetch: int, seed: int) -> None:
    """No run is missing if a run is removed at nearly every request, mostly after the pages that were read."""
    order = random.Random(seed)  # noqa: S311 (repeatable)
    changes = ((0, [order.random() for _ in range(order.choice([0, 1, 1, 1, 1, 1]))]) for _ in range(100_000))
    changing = ChangingList.of(1_000, changes)
    reading = read(changing.page, 10, prefetch, order.choice)

    assert changing.stayed <= set(reading.ids)
    assert reading.listing.changes.missing == 0


def test_only_the_pages_since_the_last_verification_are_read_again() -> None:
    """After a change late in a long list, pages that are already verified are not read again."""
    pages = 3 * VERIFY_INTERVAL
    changing = ChangingList.of(2 * pages, ((1, [AT_THE_END]) if n == pages - 20 else (0, []) for n in range(2 * pages)))
    reading = read(changing.page, 2, 4)

    assert changing.stayed <= set(reading.ids)
    assert len(reading.requested) <= 1.5 * pages
    assert min(page for page in reading.requested[pages:] if page > 1) > 1.5 * VERIFY_INTERVAL


@pytest.mark.parametrize("group", [2, 5, 30])
@given(count=st.integers(0, 90), size=SIZES, prefetch=PREFETCHES, order=ORDERS)
def test_equal_times(group: int, count: int, size: int, prefetch: int, order: random.Random) -> None:
    """Runs with equal times that change places between two requests are found, or counted as missing."""
    changing = ChangingList.of(count)
    pages = set[tuple[str, ...]]()

    def shuffled(page: int, size: int) -> Page[Run]:
        ids = changing.ids
        changing.ids = [
            i for at in range(0, count, group) for i in order.sample(ids[at : at + group], len(ids[at : at + group]))
        ]
        response = changing.page(page, size)
        pages.add(tuple(run.id for run in response.items))
        return response

    try:
        reading = read(shuffled, size, prefetch, order.choice)
    except PaginationError:
        # The same page every time looks like a server that ignores the page's number.
        assert len(pages - {()}) == 1
        return

    assert len(set(reading.ids)) == len(reading.ids)
    assert len(reading.ids) + reading.listing.changes.missing == count


@pytest.mark.parametrize(
    "pages",
    [
        "ab bd ef . ab ab cd ef . ab",  # c is hidden by b, and found in the second pass
        "ab ab ab . cd ab cd ef . ab",  # the first page shows c and d at the end, and e and f are found afterwards
    ],
)
def test_second_pass_finds_runs_that_changed_places(pages: str) -> None:
    """If runs change places, the list is read a second time, and the missing runs are yielded."""
    responses = iter([list(page.strip(".")) for page in pages.split()])
    reading = read(lambda page, size: Page(page, size, 6, runs(*next(responses))), 2)

    assert sorted(reading.ids) == list("abcdef")
    assert reading.listing.changes.missing == 0


def test_start_page() -> None:
    """With `start_page=3`, the runs of page 3 and later pages are yielded."""
    changing = ChangingList.of(45)

    assert read(changing.page, 10, start_page=3).ids == changing.ids[20:]


@given(changing_lists(), SIZES, st.integers(1, 5), PREFETCHES, ORDERS)
def test_start_page_of_a_changing_list(
    changing: ChangingList, size: int, start_page: int, prefetch: int, order: random.Random
) -> None:
    """With any start page, no later run that stays in the list is missing."""
    first: list[list[str]] = []

    def respond(page: int, size: int) -> Page[Run]:
        response = changing.page(page, size)
        first.append(changing.ids[(start_page - 1) * size :])
        return response

    reading = read(respond, size, prefetch, order.choice, start_page)

    assert len(set(reading.ids)) == len(reading.ids)
    assert changing.stayed & set(first[0]) <= set(reading.ids)


@pytest.mark.parametrize("start_page", [1, 4, 8, 10])
@pytest.mark.parametrize("prefetch", [0, 4])
def test_server_limits_the_page_size(start_page: int, prefetch: int) -> None:
    """A list is read to its end, from any page, if the server sends 5 runs instead of the requested 10."""
    changing = ChangingList.of(47)
    reading = read(lambda page, _: changing.page(page, 5), 10, prefetch, start_page=start_page)

    assert reading.ids == changing.ids[(start_page - 1) * 5 :]


@pytest.mark.parametrize("prefetch", [0, 4])
def test_server_ignores_the_page_size(prefetch: int) -> None:
    """A list is read to its end if the server always sends 20 runs per page."""
    changing = ChangingList.of(90)

    assert read(lambda page, _: changing.page(page, 20), 10, prefetch).ids == changing.ids


@pytest.mark.parametrize("count", [3, 10, 11, 250])
@pytest.mark.parametrize("prefetch", [0, 4])
def test_server_sends_everything_at_once(count: int, prefetch: int) -> None:
    """A list is read without an error if the server ignores size and page and sends all runs each time."""
    changing = ChangingList.of(count)
    reading = read(lambda _page, _size: changing.page(1, 10_000), 10, prefetch)

    assert reading.ids == changing.ids
    assert len(reading.requested) <= 2
    assert reading.listing.changes.missing == 0


def test_placeholder_ids_of_the_reference() -> None:
    """Two items of one page with the same id are two runs if their content differs, and otherwise one."""
    first, second = Run("<run_id>", credits=1), Run("<run_id>", credits=2)
    listing: Listing[Run] = Listing(100)

    assert process(listing, Page(1, 100, 3, [first, second, first])) == [first, second]
    assert listing.is_finished
    assert listing.changes.missing == 0


def test_an_id_on_two_pages_is_one_run() -> None:
    """A run that moves to a later page is yielded once, even if it has changed."""
    listing: Listing[Run] = Listing(2)
    process(listing, Page(1, 2, 4, [Run("a"), Run("b", credits=1)]))

    assert process(listing, Page(2, 2, 5, [Run("b", credits=2), Run("c")])) == [Run("c")]


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize(("count", "total"), [(350, 300), (350, 299), (350, 1), (300, 200)])
def test_total_too_low(count: int, total: int, prefetch: int) -> None:
    """All runs are yielded if the total is too low."""
    changing = ChangingList.of(count)

    def respond(page: int, size: int) -> Page[Run]:
        response = changing.page(page, size)
        return Page(page, size, total, response.items)

    reading = read(respond, 100, prefetch)

    assert reading.ids == changing.ids
    assert reading.listing.changes.missing == 0


@pytest.mark.parametrize("prefetch", [0, 4])
def test_total_is_the_length_of_the_page(prefetch: int) -> None:
    """All runs are yielded if the total is the number of runs on the page."""
    changing = ChangingList.of(350)

    def respond(page: int, size: int) -> Page[Run]:
        response = changing.page(page, size)
        return Page(page, size, len(response.items), response.items)

    assert read(respond, 100, prefetch).ids == changing.ids


@pytest.mark.parametrize("prefetch", [0, 4])
def test_no_total(prefetch: int) -> None:
    """Without a total, an empty page ends the list."""
    changing = ChangingList.of(25)
    reading = read(lambda page, size: Page(page, size, None, changing.page(page, size).items), 10, prefetch)

    assert reading.ids == changing.ids
    assert reading.requested == [1, 2, 3, 4]


def test_example_of_the_reference() -> None:
    """A list of two runs with a total of 3 ends after an empty page, with one run missing."""
    listing: Listing[Run] = Listing(100)

    assert process(listing, Page(1, 100, 3, runs(1, 2))) == runs(1, 2)
    assert process(listing, Page(2, 100, 3, [])) == []
    assert listing.is_finished
    assert listing.changes == Changes(missing=1, first_total=3, last_total=3)


@pytest.mark.parametrize("prefetch", [0, 4])
def test_total_too_high(prefetch: int) -> None:
    """If a page is empty although the total is higher, one more page is requested, and the difference is missing."""
    changing = ChangingList.of(25)
    reading = read(lambda page, size: Page(page, size, 1000, changing.page(page, size).items), 10, prefetch)

    assert reading.ids == changing.ids
    assert len(reading.requested) <= 5 + prefetch
    assert reading.listing.changes.missing == 975


def test_empty_page_in_the_middle() -> None:
    """An empty page does not end a list if its total is higher."""
    listing: Listing[Run] = Listing(2)
    process(listing, Page(1, 2, 5, runs(1, 2)))
    process(listing, Page(2, 2, 5, []))

    assert process(listing, Page(3, 2, 5, runs(5))) == runs(5)
    assert listing.is_finished


@pytest.mark.parametrize(("size", "total"), [(10, 640), (10, 100), (10, 15), (10, None)])
@pytest.mark.parametrize("prefetch", [0, 4])
def test_server_ignores_the_page(size: int, total: int | None, prefetch: int) -> None:
    """A server that sends the first page for every page causes an error after a limited number of requests."""
    listing_requests: list[int] = []

    def respond(page: int, size: int) -> Page[Run]:
        listing_requests.append(page)
        return Page(page, size, total, runs(*range(size)))

    with pytest.raises(PaginationError, match="does not advance"):
        read(respond, size, prefetch)

    assert len(listing_requests) <= 2 * MAX_STALE_PAGES + 16


def test_reading_can_continue_after_an_error() -> None:
    """After a `PaginationError` the same pages are requested again, and new runs on them are yielded."""
    listing: Listing[Run] = Listing(10)
    with pytest.raises(PaginationError):
        while request := listing.next_request():
            listing.process(request, Page(request.page, 10, 640, runs(*range(10))))

    assert not listing.is_finished
    assert process(listing, Page(2, 10, 640, runs(*range(10, 20)))) == runs(*range(10, 20))


@pytest.mark.parametrize("count", [27, 30])
def test_last_page_is_sent_for_every_later_page(count: int) -> None:
    """A list without a total ends without an error if the server sends its last page for every later page."""
    changing = ChangingList.of(count)
    reading = read(lambda page, size: Page(page, size, None, changing.page(min(page, 3), size).items), 10)

    assert reading.ids == changing.ids
    assert len(reading.requested) <= 4 + MAX_STALE_PAGES


@pytest.mark.parametrize("prefetch", [0, 4])
def test_last_page_is_sent_for_every_page_after_the_total(prefetch: int) -> None:
    """A repeated last page after the end of the list needs as many requests as an empty page."""
    changing = ChangingList.of(300)
    reading = read(lambda page, size: changing.page(min(page, 3), size), 100, prefetch)

    assert reading.ids == changing.ids
    assert reading.requested == ([1, 2, 3, 4] if prefetch < 2 else [1, 2, 3, 4, 1])


def test_added_runs_explain_repeats() -> None:
    """Pages of repeated runs do not end a list if as many runs were added."""
    listing: Listing[Run] = Listing(10)
    process(listing, Page(1, 10, 100, runs(*range(10))))
    for page in range(2, 40):
        process(listing, Page(page, 10, 100 + 10 * (page - 1), runs(*range(10))))

    assert process(listing, Page(40, 10, 490, runs(*range(10, 20)))) == runs(*range(10, 20))


def test_new_runs_explain_repeats() -> None:
    """No error is raised if many runs are added to a list of constant length during an iteration."""
    changing = ChangingList.of(600, ((250, [AT_THE_END] * 250) if number == 30 else (0, []) for number in range(500)))
    reading = read(changing.page, 10)

    assert changing.stayed <= set(reading.ids)


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize(("count", "total", "missing"), [(25, 40, 15), (25, None, 0), (20, 20, 0), (1, 3, 2)])
def test_error_after_the_last_page_ends_the_list(count: int, total: int | None, missing: int, prefetch: int) -> None:
    """A 400, 404 or 422 ends the list after a short page, or after `total` runs."""
    changing = ChangingList.of(count)
    listing: Listing[Run] = Listing(10)
    ids: list[str] = []
    in_progress: list[PageRequest] = []
    while not listing.is_finished:
        while len(in_progress) < max(1, prefetch) and (request := listing.next_request(in_progress)):
            in_progress.append(request)
        request = in_progress.pop(0)
        page = changing.page(request.page, 10)
        if page.items:
            result = listing.process(request, Page(page.number, 10, total, page.items))
            ids += [run.id for run in result.items]
        else:
            end = listing.process_error(request)
            assert end is not None
            result = end
        if result.is_outdated:
            in_progress.clear()

    assert ids == changing.ids
    assert listing.changes.missing == missing


def test_error_before_the_last_page_does_not_end_the_list() -> None:
    """An error of the first page, or after a full page before `total` runs, does not end the list."""
    listing: Listing[Run] = Listing(2, start_page=7)

    assert listing.process_error(PageRequest(7)) is None

    listing = Listing(2)
    process(listing, Page(1, 2, 5, runs(1, 2)))

    assert listing.process_error(PageRequest(2)) is None
    assert not listing.is_finished


def test_errors_that_may_mean_the_end() -> None:
    """Only 400, 404 and 422 may mean that a page is after the end."""
    assert all(map(may_be_past_end, [BadRequestError(400), NotFoundError(404), RequestInvalidError(422)]))
    assert not may_be_past_end(ServerError(500))


def test_remembered_ids_are_bounded() -> None:
    """Only the ids of the first page and of the latest runs are remembered."""
    recent = RecentIds()
    for number in range(4 * REMEMBERED_IDS):
        recent.add({str(number)})
    ids = {"0", "1", str(3 * REMEMBERED_IDS)}

    assert recent.intersection(ids) == {"0", str(3 * REMEMBERED_IDS)}
    assert recent.has_forgotten


@pytest.mark.parametrize("prefetch", [0, 4])
def test_capped_list_of_more_runs_than_are_remembered(prefetch: int) -> None:
    """A long list of constant length, whose first runs are forgotten at the end, yields each run once."""
    length = REMEMBERED_IDS // 16
    changes = ((1, [0.0001, AT_THE_END]) if number % 7 == 3 else (1, [AT_THE_END]) for number in range(10_000))
    changing = ChangingList.of(60 * length, changes)
    reading = read(changing.page, length, prefetch)

    assert len(set(reading.ids)) == len(reading.ids)
    assert changing.stayed <= set(reading.ids)
    assert reading.listing.changes.missing == 0


def test_large_pages_are_verified_while_they_are_remembered() -> None:
    """If a server sends very large pages, they are verified before their ids are forgotten."""
    length = REMEMBERED_IDS // 4
    changing = ChangingList.of(10 * length, ((1, [AT_THE_END]) if number == 8 else (0, []) for number in range(99)))
    reading = read(lambda page, _: changing.page(page, length), 100, 4)

    assert len(set(reading.ids)) == len(reading.ids)
    assert changing.stayed <= set(reading.ids)
    assert reading.requested.count(1) >= 4


def test_progress_after_a_change_of_the_total() -> None:
    """The position is reduced by the decrease of the total, at most to the start of the list."""
    progress = ListProgress(200, 1000)

    assert progress.after(1010) == ListProgress(200, 1010)
    assert progress.after(None) == progress
    assert progress.after(985) == ListProgress(185, 985)
    assert progress.after(5) == ListProgress(0, 5)
    assert ListProgress(200, None).after(5) == ListProgress(200, 5)
    assert [ListProgress(position, 9).next_page(100) for position in (0, 99, 100)] == [1, 1, 2]


def test_prefetched_pages_are_verified_by_the_first_page() -> None:
    """Prefetched pages count as verified when the first page shows that no run was added."""
    listing: Listing[Run] = Listing(2)
    changing = ChangingList.of(10)
    process(listing, changing.page(1, 2))
    requests: list[PageRequest] = []
    while request := listing.next_request(requests):
        requests.append(request)

    assert [(request.page, request.is_prefetch) for request in requests] == [
        (2, False),
        (3, True),
        (4, True),
        (5, True),
        (6, True),
    ]

    verified = [listing.verified]
    for request in requests[:5]:
        listing.process(request, changing.page(request.page, 2))
        verified.append(listing.verified)

    assert [progress.position for progress in verified] == [2, 4, 4, 4, 4, 4]

    process(listing, changing.page(1, 2))

    assert listing.verified == ListProgress(12, 10)
    assert listing.is_finished


def test_limit() -> None:
    """A limit ends the list, and only the pages that it needs are requested."""
    listing: Listing[Run] = Listing(10, limit=25)
    changing = ChangingList.of(100)
    process(listing, changing.page(1, 10))
    requests: list[PageRequest] = []
    while request := listing.next_request(requests):
        requests.append(request)

    assert [request.page for request in requests] == [2, 3]

    items = [listing.process(request, changing.page(request.page, 10)).items for request in requests]

    assert [len(each) for each in items] == [10, 5]
    assert listing.is_finished


def run_at(minutes: int | None) -> Run:
    created = None if minutes is None else NOON + timedelta(minutes=minutes)
    return Run(str(minutes), created_at=created)


@pytest.mark.parametrize(
    ("minutes", "kept", "is_past"),
    [
        ([3, 2, 1], [3, 2, 1], False),
        ([2, 0, -1], [2, 0], True),
        ([-1], [], False),
        ([-2, -1, 5], [5], False),
        ([2, None, -1], [2, None], False),
    ],
)
def test_since(minutes: list[int | None], kept: list[int | None], is_past: bool) -> None:  # noqa: FBT001
    """`since` selects runs that are new enough or have no date, and ends only a list that is newest first."""
    since = Since(NOON)
    page = [run_at(minute) for minute in minutes]

    assert since.filter(page) == [run_at(minute) for minute in kept]
    assert since.is_past(page) == is_past


@given(st.lists(st.none() | st.integers(-3, 3), max_size=40), st.integers(1, 5), st.booleans())
def test_since_loses_no_run(minutes: list[int | None], size: int, newest_first: bool) -> None:  # noqa: FBT001
    """If `since` ends a list that is newest first, no run that is new enough is missing."""
    ordered = sorted((minute for minute in minutes if minute is not None), reverse=True) if newest_first else minutes
    listed = [Run(str(place), created_at=run_at(minute).created_at) for place, minute in enumerate(ordered)]
    since, kept = Since(NOON), list[Run]()
    for start in range(0, len(listed), size):
        page = listed[start : start + size]
        kept += since.filter(page)
        if newest_first and since.is_past(page):
            break

    assert kept == [run for run in listed if run.created_at is None or run.created_at >= NOON]


def test_since_ends_early_after_a_change() -> None:
    """With `since`, a list that is partly read again after a change ends at the first older run."""
    times = {f"run-{number}": NOON - timedelta(minutes=number) for number in range(100)}
    changing = ChangingList.of(100, ((0, []), (0, []), (0, [0.05])))
    listing: Listing[Run] = Listing(10, since=NOON - timedelta(minutes=35))
    kept: list[str] = []
    requested: list[int] = []
    while request := listing.next_request():
        page = changing.page(request.page, 10)
        requested.append(request.page)
        items = [Run(run.id, created_at=times[run.id]) for run in page.items]
        kept += [run.id for run in listing.process(request, Page(page.number, 10, page.total, items)).items]

    assert sorted(kept) == sorted(f"run-{number}" for number in range(36))
    assert requested == [1, 2, 3, 2, 3, 4]


def test_repr() -> None:
    """The repr of a listing shows its position."""
    listing: Listing[Run] = Listing(2)
    process(listing, Page(1, 2, 3, runs(1, 2)))

    assert repr(listing) == "<Listing: 2 of 3 positions read, reading>"
