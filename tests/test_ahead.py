"""Threads that work ahead, within limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from upscale.ahead import ahead


def test_few_results_wait_to_be_taken_and_all_come_in_order() -> None:
    made: list[int] = []

    def square(number: int) -> int:
        made.append(number)
        return number**2

    with ThreadPoolExecutor(4) as pool:
        for taken, (item, result) in enumerate(ahead(pool, square, range(100), 5)):
            assert (item, result) == (taken, taken**2)
            assert len(made) <= taken + 6
    assert len(made) == 100


def test_what_goes_wrong_is_raised_where_it_would_be_taken() -> None:
    with ThreadPoolExecutor(2) as pool:
        results = ahead(pool, lambda number: 1 // number, [2, 1, 0], 5)
        assert [next(results), next(results)] == [(2, 0), (1, 1)]
        with pytest.raises(ZeroDivisionError):
            next(results)
