"""The files that the autoencoder's stage is given by the parameters: found, or refused, without a look into them."""

from __future__ import annotations

from pathlib import Path

from core.errors import BadInput

WEIGHT_ENDINGS = (".pth", ".pt", ".safetensors")


def pretrained_files(folder: Path) -> list[Path]:
    """All files of a given autoencoder; BadInput where the folder holds no diffusers model."""
    try:
        (folder / "config.json").read_bytes()
    except OSError as error:
        raise BadInput(f"autoencoder.pretrained: {folder} is no diffusers AutoencoderKL or VQModel ({error})") from None
    return sorted(path for path in folder.rglob("*") if path.is_file())


def lpips_files(path: Path) -> list[Path]:
    """The files of LPIPS's weights, `path` itself or those of a folder; BadInput where there is none."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix in WEIGHT_ENDINGS and file.is_file()]
    if not files:
        raise BadInput(f"autoencoder.loss.lpips_weights: {path} is no .pth, .pt or .safetensors file and no folder of them")
    return files
