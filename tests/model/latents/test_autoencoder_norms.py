"""A quantised autoencoder of others whose decoder looks at the codes in every norm (MoVQ), against diffusers' own decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder


@pytest.mark.parametrize("norm_type", ["group", "spatial"])
def test_codes_are_decoded_as_diffusers_decodes_them(norm_type: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    kind: Any = diffusers.VQModel
    network = kind(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        num_vq_embeddings=16,
        vq_embed_dim=4,
        norm_num_groups=4,
        norm_type=norm_type,
    ).eval()
    with torch.no_grad():
        network.quantize.embedding.weight.copy_(torch.randn(16, 4))
    network.save_pretrained(tmp_path)
    opened = Autoencoder.from_pretrained(tmp_path)
    assert isinstance(opened, QuantisedAutoencoder)
    codes = torch.randint(16, (2, 4, 6))
    with torch.no_grad():
        vectors = network.quantize.embedding.weight[codes].movedim(-1, 1)
        torch.testing.assert_close(opened.decode_codes(codes), network.decode(vectors, force_not_quantize=True).sample)
