"""Joined shards hold the documents of their parts, in order."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from components.data.encode.assembly import group_by_size, merge_shards
from components.data.shards import Shard, check_shard, open_shard, pack_keys, shard_keys, write_shard

BOI, EOI = 3, 4


def make_shard(generator: np.random.Generator, number: int, name: str, num_views: int) -> Shard:
    """Documents of 0 to 2 images each."""
    images = generator.integers(0, 3, number)
    ids, document_at, image_at = [], [0], []
    for count in images.tolist():
        ids += [1, int(generator.integers(5, 99))]
        for _ in range(count):
            image_at.append(len(ids))
            ids += [BOI, EOI]
        document_at.append(len(ids := [*ids, 2]))
    keys, key_at = pack_keys(f"{name}/{index}é" for index in range(number))
    moments = generator.standard_normal((2, len(image_at), num_views, 2, 2, 2)).astype(np.float16)
    others = {"variants": moments[0, :, 1:], "variant_std": moments[1, :, 1:]} if num_views > 1 else {}
    return Shard(
        ids=np.array(ids, np.int32),
        document_at=np.array(document_at, np.int64),
        latents=moments[0, :, 0],
        latent_std=moments[1, :, 0],
        image_document=np.repeat(np.arange(number, dtype=np.int32), images),
        image_at=np.array(image_at, np.int64),
        image_first=generator.random(len(image_at)) < 0.5,
        keys=keys,
        key_at=key_at,
        **others,
    )


def documents(shard: Shard) -> list[tuple]:
    """Everything that is known of each document."""
    found = []
    for index, name in enumerate(shard_keys(shard)):
        start, end = shard.document_at[index : index + 2]
        mine = np.flatnonzero(shard.image_document == index)
        parts = [part[mine].tobytes() for part in (shard.latents, shard.latent_std, shard.image_first)]
        parts += [part[mine].tobytes() for part in (shard.variants, shard.variant_std) if part is not None]
        found.append((name, shard.ids[start:end].tolist(), (shard.image_at[mine] - start).tolist(), parts))
    return found


@pytest.mark.parametrize("num_views", [1, 3])
@pytest.mark.parametrize("numbers", [[4], [3, 0, 5], [0, 0], [0, 2, 1, 7]])
def test_a_joined_shard_holds_every_document_as_it_was(tmp_path: Path, numbers: list[int], num_views: int) -> None:
    print("seed 11")
    generator = np.random.default_rng(11)
    parts = [make_shard(generator, number, f"part{index}", num_views) for index, number in enumerate(numbers)]
    write_shard(tmp_path / "joined", merge_shards(parts))
    joined = open_shard(tmp_path / "joined")
    check_shard(tmp_path / "joined", joined, boi=BOI)
    assert documents(joined) == [document for part in parts for document in documents(part)]
    assert {part.dtype for part in joined if part is not None} == {part.dtype for part in parts[0] if part is not None}
    assert (joined.variants is None) == (num_views == 1)


def test_neighbours_stay_within_the_size_and_none_is_left_out() -> None:
    assert group_by_size([], 10) == []
    assert [(group.start, group.stop) for group in group_by_size([4, 6, 1, 30, 2, 2, 2, 5], 10)] == [
        (0, 2),
        (2, 3),
        (3, 4),
        (4, 7),
        (7, 8),
    ]
    print("seed 12")
    sizes = np.random.default_rng(12).integers(1, 20, 200).tolist()
    groups = group_by_size(sizes, 40)
    assert [index for group in groups for index in range(len(sizes))[group]] == list(range(200))
    for one, following in itertools.pairwise(groups):
        assert sum(sizes[one]) <= 40
        assert sum(sizes[one]) + sizes[following.start] > 40
