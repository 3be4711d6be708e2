"""Every beginning of the order holds each corpus as often as its share says, and of one corpus it is its own order."""

from __future__ import annotations

from collections import Counter

from components.evaluation.interleaving import Interleaving, interleaved


def order_of(counts: dict[str, int], most: float) -> list[str]:
    order = Interleaving[str](most)
    for corpus, count in counts.items():
        for number in range(count):
            order.add(corpus, 1, f"{corpus}{number}")
    return order.first()


def test_every_beginning_holds_the_corpora_in_proportion() -> None:
    counts = {"a": 300, "b": 100, "c": 20}
    found = order_of(counts, 10_000)
    assert len(found) == 420
    for length in range(1, 421):
        begun = Counter(name[0] for name in found[:length])
        for corpus, count in counts.items():
            assert abs(begun[corpus] - length * count / 420) <= 1.5, (length, corpus)
    for corpus, count in counts.items():
        assert [name for name in found if name[0] == corpus] == [f"{corpus}{number}" for number in range(count)]


def test_a_limit_takes_the_first_of_the_same_order() -> None:
    counts = {"a": 300, "b": 100}
    assert order_of(counts, 40) == order_of(counts, 10_000)[:40]


def test_one_corpus_stays_in_its_order() -> None:
    assert order_of({"a": 9}, 4) == ["a0", "a1", "a2", "a3"]
    assert interleaved(("a", number) for number in range(9)) == list(range(9))


def test_sizes_count_and_the_limit_is_reached_by_whole_entries() -> None:
    order = Interleaving[str](10)
    for number in range(6):
        order.add("long", 4, f"long{number}")
        order.add("short", 1, f"short{number}")
    # Of 30 the short ones are a fifth.
    assert order.first() == ["long0", "short0", "long1", "short1"]
