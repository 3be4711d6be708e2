"""One file of a network's weights, put together from the shards of a checkpoint, a tensor at a time.

No process ever holds the network, however many workers it was trained on.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from components.training.checkpoints import checked
from components.training.tensor_file import Entry, write_tensors


def write_network(checkpoint: Path, part: str, path: Path) -> None:
    """Write the weights of the part (a network's name) of a checkpoint to the file `path`, as its save_pretrained would.

    Raises BadInput where the manifest does not vouch for the checkpoint.
    """
    checked(checkpoint, only=f"{part}.rank-")
    metadata = HuggingFaceStorageReader(str(checkpoint)).read_metadata()
    entries = dict[str, Entry]()
    for name, stored in metadata.state_dict_metadata.items():
        if name.startswith(f"{part}/") and isinstance(stored, TensorStorageMetadata):
            read = partial(_tensor, metadata, name, stored)
            entries[name.removeprefix(f"{part}/")] = Entry(stored.properties.dtype, stored.size, read)
    # Hugging Face's loaders ask for the format.
    write_tensors(path, entries, {"format": "pt"})


def _tensor(metadata: Metadata, name: str, stored: TensorStorageMetadata) -> Tensor:
    """The whole tensor, from the files that hold pieces of it."""
    whole = torch.empty(stored.size, dtype=stored.properties.dtype)
    for chunk in stored.chunks:
        file = metadata.storage_data[MetadataIndex(name, chunk.offsets)].relative_path
        place = tuple(slice(at, at + size) for at, size in zip(chunk.offsets, chunk.sizes, strict=True))
        with safe_open(file, framework="pt") as tensors:
            whole[place] = tensors.get_tensor(name)
    return whole
