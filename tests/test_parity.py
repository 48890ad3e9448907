"""The page on parity with ray.workflow says what the markers of the tests say."""

from __future__ import annotations

from parity_page import PAGE, make_page, read_upstream


def test_the_page_is_what_make_parity_writes() -> None:
    assert PAGE.read_text() == make_page(), "run: make parity"


def test_the_list_names_each_test_once_and_says_something_of_it() -> None:
    rows = read_upstream()
    assert len({row.test for row in rows}) == len(rows) == 153
    assert {row.mark for row in rows} == {"must", "adapted", "left out"}
    assert all(row.area and row.promise for row in rows)
