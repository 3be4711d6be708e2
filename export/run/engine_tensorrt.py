"""The step graph on TensorRT: one engine, one execution context a profile, caches updated in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import BadInput
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
from export.run.step_tensors import StepCall, StepTensors
from model.config import ModelConfig
from model.step import StepInputs, StepOutput


def open_tensorrt_engine(bundle: Bundle, engines: Path | None) -> TensorrtEngine:
    """The engine built on this machine for the bundle's step graph; raises BadInput where there is none."""
    trt, missing = find_tensorrt()
    if trt is None:
        raise BadInput(f"TensorRT cannot run: {missing}")
    if engines is None:
        raise BadInput("TensorRT cannot run: no folder of engines was given")
    num_patches = bundle.generation.num_patches(bundle.config.image)
    profiles = step_profiles(bundle.config, num_patches, MAX_ROWS)
    key = current_key(trt, bundle.folder / STEP_GRAPH, FLAGS, profiles)
    folder = engines / key.digest[:16]
    if reason := refusal(folder, key):
        raise BadInput(reason)
    return TensorrtEngine(trt, folder / PLAN, bundle.config, profiles)


class TensorrtEngine:
    """A deserialised plan as a `model.step.Engine`; its outputs stay on its device."""

    def __init__(self, trt: Any, plan: Path, config: ModelConfig, profiles: tuple[Profile, ...]) -> None:
        self.config = config
        self.max_length = config.max_position_embeddings
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._profiles = profiles
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise BadInput(f"TensorRT does not take {plan}; delete its folder and run the export stage again")
        self._stream = torch.cuda.Stream(self.device)
        self._contexts = [self._new_context(index) for index in range(len(profiles))]
        self._tensors = StepTensors(config, self.device)

    def new_cache(self, num_slots: int) -> list[Tensor]:
        """Keys and values of every layer for num_slots sequences, all zero."""
        return self._tensors.new_cache(num_slots)

    def step(self, inputs: StepInputs, cache: list[Tensor], rows: slice) -> StepOutput:
        """Run the plan on the slots `rows`; their caches are written in place."""
        context = self._contexts[profile_for(self._profiles, *inputs.input_ids.shape)]
        call = self._tensors.call(inputs, cache, rows)
        self._execute(context, call)
        return call.result

    def _new_context(self, profile: int) -> Any:
        context = self._engine.create_execution_context()
        if not context.set_optimization_profile_async(profile, self._stream.cuda_stream):
            raise BadInput(f"the TensorRT engine has no profile {profile}; run the export stage again")
        return context

    def _execute(self, context: Any, call: StepCall) -> None:
        for name, value in call.inputs.items():
            context.set_input_shape(name, tuple(value.shape))
            context.set_tensor_address(name, value.data_ptr())
        for name, value in call.outputs.items():
            context.set_tensor_address(name, value.data_ptr())
        # Copies to the device run on torch's stream, the plan on its own.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT refused to run a step; its log above says why")
        self._stream.synchronize()
