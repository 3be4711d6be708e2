"""The graphs in ONNX Runtime: a step engine whose cache is updated in place, and the autoencoder's two.

Every tensor of a step is torch's and bound by its address; see export/run/step_tensors.py.

Legend: N images, C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import BadInput
from export.bundle import DECODER_GRAPH, ENCODER_GRAPH, STEP_GRAPH, Bundle
from export.graph_files import AGAIN
from export.graph_names import STEP_INPUTS, STEP_OUTPUTS, cache_names
from export.run.step_tensors import StepTensors
from model.config import ModelConfig
from model.step import StepInputs, StepOutput

_NUMPY_TYPES = {torch.float32: np.float32, torch.int64: np.int64}


def open_session(path: Path) -> Any:
    """An onnxruntime.InferenceSession of `path` on the best device that really answers; raises BadInput."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait starve whatever else runs on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=wanted_providers())
    except Exception as error:
        # Its exceptions share no base but this one. The first line says what; the rest is its source code.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path} is no graph that ONNX Runtime can run ({reason}); {AGAIN}") from None


def check_interface(path: Path, session: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise BadInput where a graph takes or gives other tensors than those of the same name; their order is free."""
    found = [{item.name for item in items} for items in (session.get_inputs(), session.get_outputs())]
    if found != [set(inputs), set(outputs)]:
        raise BadInput(f"{path} does not take and give what a bundle of this configuration does; {AGAIN}")


def wanted_providers() -> list[str]:
    """Providers to ask for. get_available_providers() lists what the wheel was built with, not what the machine has."""
    if torch.cuda.is_available():
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def session_device(session: Any) -> torch.device:
    """Where the session really runs: a provider that fails to start is dropped by ONNX Runtime with a mere log line."""
    return torch.device("cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu")


class OnnxRuntimeEngine:
    """The step graph as a `model.step.Engine`; its outputs stay on its device."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self.session = open_session(path)
        taken, given = (cache_names(prefix, config.num_hidden_layers) for prefix in ("cache", "present"))
        check_interface(path, self.session, [*STEP_INPUTS, *taken], [*STEP_OUTPUTS, *given])
        self.device = session_device(self.session)
        self.config = config
        self.max_length = config.max_position_embeddings
        self._tensors = StepTensors(config, self.device)

    def new_cache(self, num_slots: int) -> list[Tensor]:
        """Keys and values of every layer for num_slots sequences, all zero."""
        return self._tensors.new_cache(num_slots)

    def step(self, inputs: StepInputs, cache: list[Tensor], rows: slice) -> StepOutput:
        """Run the graph on the slots `rows`; their caches are written in place."""
        call = self._tensors.call(inputs, cache, rows)
        binding = self.session.io_binding()
        for name, value in call.inputs.items():
            _bind(binding.bind_input, name, value)
        for name, value in call.outputs.items():
            _bind(binding.bind_output, name, value)
        if self.device.type == "cuda":
            # The session has a stream of its own, which does not wait for torch's.
            torch.cuda.synchronize(self.device)
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return call.result


class AutoencoderGraphs:
    """The bundle's encoder and decoder graphs."""

    def __init__(self, bundle: Bundle) -> None:
        encoder, decoder = bundle.folder / ENCODER_GRAPH, bundle.folder / DECODER_GRAPH
        self._encoder, self._decoder = open_session(encoder), open_session(decoder)
        check_interface(encoder, self._encoder, ["pixels"], ["latents"])
        check_interface(decoder, self._decoder, ["latents"], ["pixels"])

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
