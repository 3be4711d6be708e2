"""The groups of packed rows: every position in exactly one, documents whole, those of one length class in one group."""

from __future__ import annotations

import random

import torch

from model.attention.packed import GROUP_LENGTHS, find_documents, group_documents
from tests.model.conftest import pack, random_document, tiny_config


def test_every_position_is_in_exactly_one_group_of_its_length(rng: random.Random) -> None:
    num_groups = set()
    for _ in range(40):
        rows = [
            [random_document(rng, rng.randrange(4)) for _ in range(rng.randrange(1, 9))] for _ in range(rng.randrange(1, 4))
        ]
        batch = pack(rows, tiny_config(), max(sum(map(len, row)) for row in rows) + rng.randrange(70))
        found, groups = find_documents(batch.kv_start, batch.kv_end), group_documents(batch.kv_start, batch.kv_end)
        num_groups.add(len(groups))
        size = batch.kv_start.numel()
        seen = torch.cat([part.positions for part in groups])
        # Padding is the position after the last.
        assert torch.equal(seen[seen < size].sort().values, torch.arange(size))
        length_of = dict(zip(found.start.tolist(), found.length.tolist(), strict=True))
        classes = []
        for part in groups:
            whole = part.positions.view(part.num_documents, part.length)
            lengths = [length_of[start] for start in whole[:, 0].tolist()]
            assert part.length == max(lengths)
            for span, length in zip(whole, lengths, strict=True):
                assert span[:length].tolist() == list(range(int(span[0]), int(span[0]) + length))
                assert (span[length:] == size).all()
            classes.append({sum(length > limit for limit in GROUP_LENGTHS) for length in lengths})
        assert all(len(each) == 1 for each in classes)
        assert len(set.union(*classes)) == len(groups)
    assert len(num_groups) > 1
