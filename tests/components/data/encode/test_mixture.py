"""Documents stand as often as weights and the wanted share of text say, as a pure function of their names."""

from __future__ import annotations

import numpy as np
import pytest

from components.data.encode.mixture import MixtureStatistics, repeats, report
from core.errors import BadInput
from core.random import words_of

SOURCES = ("pairs", "prose", "notes")


def make(seed: int, number: int = 3000) -> MixtureStatistics:
    """Images with captions in one source, text alone in the two others."""
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    source = generator.integers(0, 3, number)
    text = np.where(source == 0, generator.integers(8, 40, number), generator.integers(20, 900, number))
    image = np.where(source == 0, 64 * generator.integers(1, 4, number), 0)
    return MixtureStatistics(SOURCES, source, text, image, words_of(f"{name}" for name in range(number)))


def test_without_wishes_every_document_stands_once() -> None:
    assert repeats(make(1), {}, 0.0).tolist() == [1] * 3000


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 2.5, 3.0])
def test_a_source_appears_its_weight_times(weight: float) -> None:
    statistics = make(2)
    times = repeats(statistics, {"prose": weight}, 0.0)
    of_source = statistics.source == 1
    assert set(times[~of_source].tolist()) == {1}
    assert set(times[of_source].tolist()) <= {int(weight), int(weight) + 1}
    positions = (statistics.text * times)[of_source].sum() / statistics.text[of_source].sum()
    assert positions == pytest.approx(weight, abs=0.002)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 6.0])
def test_text_alone_is_left_out_or_repeated_until_the_ratio_holds(ratio: float) -> None:
    statistics = make(3)
    times = repeats(statistics, {"notes": 2.0}, ratio)
    found = report(statistics, times)
    assert found["text_to_image"] == pytest.approx(ratio, rel=0.005)
    assert set(times[statistics.source == 0].tolist()) == {1}
    in_rows = [(statistics.text * times)[statistics.source == source].sum() for source in (1, 2)]
    whole = [statistics.text[statistics.source == source].sum() for source in (1, 2)]
    assert in_rows[1] / whole[1] == pytest.approx(2 * in_rows[0] / whole[0], rel=0.02)
    assert found["sources"]["pairs"] == {
        "documents": int((statistics.source == 0).sum()),
        "in_rows": int((statistics.source == 0).sum()),
    }


def test_a_document_is_chosen_by_its_name_and_not_by_its_place() -> None:
    statistics = make(4)
    print("seed 40")
    order = np.random.default_rng(40).permutation(3000)
    shuffled = MixtureStatistics(SOURCES, *(part[order] for part in statistics[1:]))
    asked = ({"prose": 0.4, "pairs": 1.7}, 3.0)
    assert repeats(shuffled, *asked).tolist() == repeats(statistics, *asked)[order].tolist()


def test_what_cannot_be_met_is_refused() -> None:
    statistics = make(5)
    with pytest.raises(BadInput, match="both images and documents of text alone"):
        repeats(statistics._replace(image=np.zeros_like(statistics.image)), {}, 1.0)
    with pytest.raises(BadInput, match="both images and documents of text alone"):
        repeats(statistics, {"prose": 0.0, "notes": 0.0}, 1.0)
    with pytest.raises(BadInput, match=r"the text beside images alone has 0\.\d\d positions"):
        repeats(statistics, {}, 0.05)
