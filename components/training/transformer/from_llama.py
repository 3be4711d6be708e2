"""The weights of a text model in Hugging Face's Llama layout, by the names that they have here.

The block here is Llama's, rotary halves paired as Hugging Face pairs them: queries, keys and values are stacked, gate and up
too, and nothing is permuted. What images alone go through is not in such a model; where text and images have weights of their
own, both begin with the text model's, as LMFusion does (arXiv 2412.15188).

Legend: D hidden size, V tokens of the text model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.training.transformer.pretrained_files import CONFIG, INDEX, weight_files
from core.errors import BadInput
from core.files import read_json
from core.given_tokenizer import num_added
from model.config import ModelConfig

# Of one layer, by our names without the number of the expert.
IN_LAYER = {
    "attention.norm.weight": ("input_layernorm.weight",),
    "attention.qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attention.out.weight": ("self_attn.o_proj.weight",),
    "feed_forward.norm.weight": ("post_attention_layernorm.weight",),
    "feed_forward.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed_forward.down.weight": ("mlp.down_proj.weight",),
}
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
NOUNS = {dict: "table", int: "whole number"}
# Old versions kept a table of the rotary angles, which follows from the configuration.
NEEDLESS = "rotary_emb.inv_freq"


class Difference(NamedTuple):
    """What a text model has otherwise."""

    key: str
    theirs: Any
    ours: Any


def differences(folder: Path, config: ModelConfig) -> list[Difference]:
    """Between the text model of `folder` and the model that is to be trained, by the keys of Hugging Face's config.json."""
    theirs = read_json(folder / CONFIG)
    if not isinstance(theirs, dict):
        raise BadInput(f"train.pretrained: {folder / CONFIG} describes no model")
    rope = theirs.get("rope_parameters") or theirs.get("rope_scaling") or {}
    heads, size = theirs.get("num_attention_heads"), theirs.get("hidden_size")
    for key, value, kind in (("rope_scaling", rope, dict), ("num_attention_heads", heads, int), ("hidden_size", size, int)):
        if not isinstance(value, kind) and value is not None:
            raise BadInput(f"train.pretrained: {folder / CONFIG} has {key} {value!r}, which is no {NOUNS[kind]}")
    theta = rope.get("rope_theta", theirs.get("rope_theta", 10_000.0))
    found: dict[str, tuple[Any, Any]] = {
        "model_type": (theirs.get("model_type"), "llama"),
        **{key: (theirs.get(key), getattr(config, key)) for key in ("hidden_size", "num_hidden_layers", "intermediate_size")},
        "num_attention_heads": (heads, config.num_attention_heads),
        # Queries that share keys and values would need projections of other shapes.
        "num_key_value_heads": (theirs.get("num_key_value_heads") or heads, config.num_attention_heads),
        "head_dim": (theirs.get("head_dim") or (size // heads if size and heads else None), config.head_dim),
        "hidden_act": (theirs.get("hidden_act", "silu"), "silu"),
        "attention_bias": (theirs.get("attention_bias", False), False),
        "mlp_bias": (theirs.get("mlp_bias", False), False),
        "rms_norm_eps": (theirs.get("rms_norm_eps", 1e-6), config.rms_norm_eps),
        "rope_theta": (theta, config.rope_theta),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "qk_norm": (False, config.qk_norm),
    }
    return [Difference(key, *values) for key, values in found.items() if values[0] != values[1]]


def their_names(name: str, is_tied: bool) -> tuple[str, ...]:
    """Of the tensors that, one below the other, are our parameter `name`; none for what only images go through."""
    layer = re.fullmatch(r"transformer\.blocks\.(\d+)\.(attention|feed_forward)\.\d+\.(.+)", name)
    if layer:
        return tuple(f"model.layers.{layer[1]}.{each}" for each in IN_LAYER[f"{layer[2]}.{layer[3]}"])
    if name.startswith("transformer.norms."):
        return (NORM,)
    outside = {"embedding.weight": EMBEDDING, "head.weight": EMBEDDING if is_tied else HEAD}
    return (outside[name],) if name in outside else ()


class LlamaWeights:
    """The tensors of a folder, each read when it is asked for."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """config: of the model that is to be trained, which `differences` found nothing against."""
        from safetensors import safe_open

        self.folder, self.config = folder, config
        self.facts: Mapping[str, Any] = read_json(folder / CONFIG)
        self.is_tied = bool(self.facts.get("tie_word_embeddings", False))
        self.num_added = num_added(folder)
        files = [file for file in weight_files(folder) if file.name != INDEX]
        self.opened = [safe_open(file, "pt") for file in files]
        self.at = {name: opened for opened in self.opened for name in opened.keys()}  # noqa: SIM118

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """BadInput where a tensor is missing, too many, or of another shape. shapes: of our parameters."""
        needed = {name: their_names(name, self.is_tied) for name in shapes}
        wanted = {each for names in needed.values() for each in names} | ({HEAD} if self.is_tied else set())
        for name, names in needed.items():
            for each in names:
                if each not in self.at:
                    raise BadInput(f"train.pretrained: {self.folder} holds no {each}, of which our {name} is made")
            if names and not self._fits(names, shapes[name]):
                sizes = " and ".join(str(self._shape(each)) for each in names)
                raise BadInput(f"train.pretrained: {self.folder} has {sizes} for our {name} {list(shapes[name])}")
        for each in sorted(self.at.keys() - wanted):
            if not each.endswith(NEEDLESS):
                raise BadInput(f"train.pretrained: {self.folder} holds {each}, which Llama's layout does not have here")

    def get(self, name: str) -> Tensor | None:
        """Our parameter `name`; None where it is not the text model's."""
        names = their_names(name, self.is_tied)
        if not names:
            return None
        tensor = torch.cat([self.at[each].get_tensor(each) for each in names])
        return self._with_control_tokens(tensor) if names[0] in (EMBEDDING, HEAD) else tensor

    def _fits(self, names: tuple[str, ...], ours: tuple[int, ...]) -> bool:
        shapes = [self._shape(each) for each in names]
        if names[0] in (EMBEDDING, HEAD):
            # It may have more rows than its tokenizer has tokens.
            return shapes[0][1] == ours[1] and shapes[0][0] >= ours[0] - self.num_added
        return sum(shape[0] for shape in shapes) == ours[0] and all(tuple(shape[1:]) == ours[1:] for shape in shapes)

    def _shape(self, name: str) -> list[int]:
        return self.at[name].get_slice(name).get_shape()

    def _with_control_tokens(self, rows: Tensor) -> Tensor:
        """[V, D] -> a row for each token here: the tokenizer's, behind those of the control tokens (core/given_tokenizer.py).

        Begin and end of a document take the text model's own; what it does not know takes the mean of its rows, which says
        nothing and is of their size.
        """
        own = rows[: self.config.vocab_size - self.num_added]
        if not self.num_added:
            return own
        control = own.float().mean(0).to(own.dtype).repeat(self.num_added, 1)
        for number, key in ((self.config.bos_token_id, "bos_token_id"), (self.config.eos_token_id, "eos_token_id")):
            theirs = self.facts.get(key)
            # Instruction-tuned ones list several ends.
            theirs = theirs[0] if isinstance(theirs, list) and theirs else theirs
            if isinstance(theirs, int) and 0 <= theirs < len(rows):
                control[number] = rows[theirs]
        return torch.cat([control, own])
