"""How does TensorRT run the step graph? One engine, one execution context a profile, caches updated in place.

TensorRT's cache update wants each cache input and its output at one address, so both are bound to the same slots.

Legend: B rows, S positions a step, W numbers in a patch, V vocabulary, H heads, T cache length, D head width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.bundle import STEP_GRAPH, Bundle
from export.engine_key import (
    FLAGS,
    MAX_ROWS,
    PLAN,
    Profile,
    current_key,
    find_tensorrt,
    profile_for,
    refusal,
    step_profiles,
)
from export.failure import ExportRefused
from export.graph_names import cache_names
from model.config import ModelConfig
from model.engine import StepInputs, StepOutput


def open_tensorrt_engine(bundle: Bundle, engines: Path | None) -> TensorrtEngine:
    """The engine built on this machine for the bundle's step graph; raises ExportRefused where there is none."""
    trt, missing = find_tensorrt()
    if trt is None:
        raise ExportRefused(f"TensorRT cannot run: {missing}")
    if engines is None:
        raise ExportRefused("TensorRT cannot run: no folder of engines was given")
    num_patches = bundle.generation.num_patches(bundle.config.patch_side)
    profiles = step_profiles(bundle.config, num_patches, MAX_ROWS)
    key = current_key(trt, bundle.folder / STEP_GRAPH, FLAGS, profiles)
    folder = engines / key.digest[:16]
    if reason := refusal(folder, key):
        raise ExportRefused(reason)
    return TensorrtEngine(trt, folder / PLAN, bundle.config, profiles)


class TensorrtEngine:
    """A deserialised plan as a `model.engine.Engine`. A cache: tensors [slots, H, T, D], key and value by layer."""

    def __init__(self, trt: Any, plan: Path, config: ModelConfig, profiles: tuple[Profile, ...]) -> None:
        self.config = config
        self.max_length = config.max_length
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._profiles = profiles
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise ExportRefused(f"TensorRT does not take {plan}; delete its folder and run the export stage again")
        self._stream = torch.cuda.Stream(self.device)
        self._contexts = [self._new_context(index) for index in range(len(profiles))]
        self._key_position = torch.arange(self.max_length, device=self.device)
        self._cache_names = list(
            zip(cache_names("cache", config.num_layers), cache_names("present", config.num_layers), strict=True)
        )

    def new_cache(self, num_slots: int) -> list[Tensor]:
        shape = (num_slots, self.config.num_heads, self.max_length, self.config.head_width)
        return [torch.zeros(shape, device=self.device) for _ in self._cache_names]

    def step(self, inputs: StepInputs, cache: list[Tensor], rows: slice) -> StepOutput:
        """Run the plan on the slots `rows`; their caches are written in place."""
        num_rows, num_positions = inputs.ids.shape
        context = self._contexts[profile_for(self._profiles, num_rows, num_positions)]
        bound = {name: value.to(self.device).contiguous() for name, value in inputs._asdict().items() if name != "num_keys"}
        bound["key_position"] = self._key_position[: inputs.num_keys]
        outputs = {
            "logits": torch.empty(num_rows, self.config.vocab_size, device=self.device),
            "prediction": torch.empty(num_rows, num_positions, self.config.patch_width, device=self.device),
        }
        for (past, present), whole in zip(self._cache_names, cache, strict=True):
            bound[past] = outputs[present] = whole[rows]
        self._execute(context, bound, outputs)
        return StepOutput(outputs["logits"].cpu(), outputs["prediction"].cpu())

    def _new_context(self, profile: int) -> Any:
        context = self._engine.create_execution_context()
        if not context.set_optimization_profile_async(profile, self._stream.cuda_stream):
            raise ExportRefused(f"the TensorRT engine has no profile {profile}; run the export stage again")
        return context

    def _execute(self, context: Any, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
        for name, value in inputs.items():
            context.set_input_shape(name, tuple(value.shape))
            context.set_tensor_address(name, value.data_ptr())
        for name, value in outputs.items():
            context.set_tensor_address(name, value.data_ptr())
        # Copies to the device run on torch's stream, the plan on its own.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT refused to run a step; its log above says why")
        self._stream.synchronize()
