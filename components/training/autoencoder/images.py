"""The corpus's images as one array: all that the autoencoder is trained on, or measured with.

Legend: N images; images are uint8 [N, height, width, 3].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.data.documents import read_documents
from core.errors import BadInput
from core.files import atomic_write
from core.png import decode_png

# Images beyond this are not read: the autoencoder needs a sample of the corpus.
MAX_BYTES_OF_IMAGES = 2**30
# What passes the autoencoder at a time.
IMAGES_A_PASS = 256


def read_images(documents: Path, split: str) -> Tensor:
    """All images of a split as far as they fit in MAX_BYTES_OF_IMAGES; at least one."""
    images, num_bytes = [], 0
    for document in read_documents(documents, split):
        for data in document.images:
            images.append(decode_png(data))
            num_bytes += images[-1].nbytes
        if num_bytes > MAX_BYTES_OF_IMAGES:
            print(f"autoencoder: the first {len(images)} images of {split} are used", flush=True)
            break
    if not images:
        raise BadInput(f"{documents / split} holds no image for the autoencoder; give ingest a corpus with images")
    return torch.from_numpy(np.stack(images))


def save_images(path: Path, images: np.ndarray) -> None:
    """As np.save does, but a full disk is told by the system's error number, which np.save leaves out."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(images))
        file.write(np.ascontiguousarray(images).data)
