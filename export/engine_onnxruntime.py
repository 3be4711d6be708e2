"""How does ONNX Runtime run the graphs? A step engine whose cache is updated in place, and the autoencoder's.

Every buffer is a torch tensor bound by its address; each cache buffer is bound as both input and output, which makes
the graph's cache update an in-place write of the new columns (unbound, every step would copy every cache).

Legend: B rows, S positions a step, W numbers in a patch, V vocabulary, H heads, T cache length, D head width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.bundle import DECODER_GRAPH, ENCODER_GRAPH, STEP_GRAPH, Bundle
from export.graph_names import cache_names
from model.config import ModelConfig
from model.engine import StepInputs, StepOutput

_NUMPY_TYPES = {torch.float32: np.float32, torch.int64: np.int64, torch.bool: np.bool_}


def open_session(path: Path) -> Any:
    """An onnxruntime.InferenceSession of `path` on the best device that really answers."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait starve whatever else runs on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=wanted_providers())


def wanted_providers() -> list[str]:
    """Providers to ask for. get_available_providers() lists what the wheel was built with, not what the machine has."""
    if torch.cuda.is_available():
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def session_device(session: Any) -> torch.device:
    """Where the session really runs: a provider that fails to start is dropped by ONNX Runtime with a mere log line."""
    return torch.device("cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu")


class OnnxRuntimeEngine:
    """The step graph as a `model.engine.Engine`. A cache: tensors [slots, H, T, D], key and value by layer."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self.session = open_session(path)
        self.device = session_device(self.session)
        self.config = config
        self.max_length = config.max_length
        self._key_position = torch.arange(self.max_length, device=self.device)
        self._cache_names = list(
            zip(cache_names("cache", config.num_layers), cache_names("present", config.num_layers), strict=True)
        )

    def new_cache(self, num_slots: int) -> list[Tensor]:
        shape = (num_slots, self.config.num_heads, self.max_length, self.config.head_width)
        return [torch.zeros(shape, device=self.device) for _ in self._cache_names]

    def step(self, inputs: StepInputs, cache: list[Tensor], rows: slice) -> StepOutput:
        """Run the graph on the slots `rows`; their caches are written in place."""
        num_rows, num_positions = inputs.ids.shape
        bound = {name: value.to(self.device).contiguous() for name, value in inputs._asdict().items() if name != "num_keys"}
        bound["key_position"] = self._key_position[: inputs.num_keys]
        logits = torch.empty(num_rows, self.config.vocab_size, device=self.device)
        prediction = torch.empty(num_rows, num_positions, self.config.patch_width, device=self.device)
        binding = self.session.io_binding()
        for name, value in bound.items():
            _bind(binding.bind_input, name, value)
        _bind(binding.bind_output, "logits", logits)
        _bind(binding.bind_output, "prediction", prediction)
        for (past, present), whole in zip(self._cache_names, cache, strict=True):
            part = whole[rows]
            assert len(part) == num_rows
            assert part.is_contiguous()
            _bind(binding.bind_input, past, part)
            _bind(binding.bind_output, present, part)
        _run(self.session, binding, self.device)
        return StepOutput(logits.cpu(), prediction.cpu())


class AutoencoderGraphs:
    """The bundle's encoder and decoder graphs."""

    def __init__(self, bundle: Bundle) -> None:
        self._encoder = open_session(bundle.folder / ENCODER_GRAPH)
        self._decoder = open_session(bundle.folder / DECODER_GRAPH)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, height, width] in -1..1 -> normalised latents [N, C, Y, X]."""
        return torch.from_numpy(self._encoder.run(None, {"pixels": pixels.numpy()})[0])

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [N, C, Y, X] -> pixels [N, 3, height, width], not clamped."""
        return torch.from_numpy(self._decoder.run(None, {"latents": latents.numpy()})[0])


def open_onnxruntime_engine(bundle: Bundle) -> OnnxRuntimeEngine:
    """The bundle's step graph in ONNX Runtime."""
    return OnnxRuntimeEngine(bundle.folder / STEP_GRAPH, bundle.config)


def _bind(bind: Any, name: str, value: Tensor) -> None:
    bind(
        name,
        value.device.type,
        value.device.index or 0,
        _NUMPY_TYPES[value.dtype],
        tuple(value.shape),
        value.data_ptr(),
    )


def _run(session: Any, binding: Any, device: torch.device) -> None:
    if device.type == "cuda":
        # The session has a stream of its own, which does not wait for torch's.
        torch.cuda.synchronize(device)
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
