"""What every test shares: one torch thread, because tiny tensors on several threads mostly wait for each other.

And the order: two processes that share the files end together when the longest begin first.
"""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)
LONGEST_FIRST = ["test_whole_graph.py", "test_train.py", "test_bundle_stages.py", "test_autoencoder.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order within a file stays."""
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.name) if item.path.name in LONGEST_FIRST else len(LONGEST_FIRST))
