"""The vote cache: bounded, the entry not asked for longest goes first, shared by threads."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails.cache import Cache


def test_nothing_is_kept_where_nothing_may_be():
    cache: Cache[int] = Cache(0)
    cache.put(("a",), 1)
    assert cache.get(("a",)) is None


def test_the_entry_not_asked_for_longest_goes_first():
    cache: Cache[int] = Cache(2)
    cache.put(("a",), 1)
    cache.put(("b",), 2)
    assert cache.get(("a",)) == 1
    cache.put(("c",), 3)
    assert [cache.get((name,)) for name in "abc"] == [1, None, 3]


@given(st.integers(0, 4), st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), max_size=30))
def test_it_is_a_model_of_the_last_ones_used(most, steps):
    cache: Cache[str] = Cache(most)
    order: list[str] = []
    for put, name in steps:
        if put:
            cache.put((name,), name)
            order = [*(one for one in order if one != name), name][-most:] if most else []
        else:
            assert cache.get((name,)) == (name if name in order else None)
            if name in order:
                order = [*(one for one in order if one != name), name]
    assert {name for name in "abcdef" if cache.get((name,))} == set(order)


def test_threads_may_share_it():
    cache: Cache[int] = Cache(3)
    wrong: list[object] = []

    def work(number):
        for step in range(300):
            key = (str((number + step) % 5),)
            cache.put(key, int(key[0]))
            if (found := cache.get(key)) not in (None, int(key[0])):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(cache.get((str(number),)) is not None for number in range(5)) == 3
