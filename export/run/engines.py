"""The engine that runs a bundle here: each is tried in order by really opening it, and is named where it is passed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from core.errors import BadInput
from export.bundle import Bundle
from export.weights import load_weights
from model.generation.eager import TorchEngine
from model.step import Engine

AUTO_ORDER = ("tensorrt", "onnxruntime")


class OpenedEngine(NamedTuple):
    """An engine that is ready to step."""

    engine: Engine
    name: str
    passed_over: tuple[str, ...]
    """A sentence for each better one that cannot run here."""


def open_engine(bundle: Bundle, wanted: str, *, engines: Path | None = None) -> OpenedEngine:
    """wanted: "auto", or a name; raises BadInput where a named one cannot be opened. engines: folder of plans."""
    openers: dict[str, Callable[[], Engine]] = {
        "tensorrt": lambda: _open_tensorrt(bundle, engines),
        "onnxruntime": lambda: _open_onnxruntime(bundle),
        "torch": lambda: _open_torch(bundle),
    }
    if wanted != "auto":
        if wanted not in openers:
            raise BadInput(f"engine {wanted!r} is not one of auto, {', '.join(openers)}")
        return OpenedEngine(openers[wanted](), wanted, ())
    passed_over: list[str] = []
    for name in AUTO_ORDER:
        try:
            return OpenedEngine(openers[name](), name, tuple(passed_over))
        except BadInput as error:
            passed_over.append(f"{name}: {error}")
    raise BadInput(f"no engine runs {bundle.folder} here: {'; '.join(passed_over)}")


def _open_tensorrt(bundle: Bundle, engines: Path | None) -> Engine:
    from export.run.engine_tensorrt import open_tensorrt_engine

    return open_tensorrt_engine(bundle, engines)


def _open_onnxruntime(bundle: Bundle) -> Engine:
    from export.run.engine_onnxruntime import open_onnxruntime_engine

    try:
        return open_onnxruntime_engine(bundle)
    except ImportError as error:
        raise BadInput(f"onnxruntime does not import here ({error})") from None


def _open_torch(bundle: Bundle) -> Engine:
    import torch

    from model.transfusion import Transfusion

    model = load_weights(Transfusion.from_pretrained, bundle.folder)
    return TorchEngine(model.to("cuda" if torch.cuda.is_available() else "cpu"))
