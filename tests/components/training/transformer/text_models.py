"""Text models in Hugging Face's Llama layout, tiny and random, and what they compute, written from the paper alone.

Nothing of model/ is used here. Hugging Face's own code is compared with too where it is installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

TEXTS = ("a red three top left", "a blue seven bottom right and a red one", "there is a green nine", "the end")
# Of the preset "tiny".
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
FACTS: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    **SIZES,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "attention_bias": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}


def write_text_model(folder: Path, *, shards: int = 1, tensors: dict[str, Tensor] | None = None, **facts: Any) -> Path:
    """config.json, tokenizer.json and the weights, in one file or under an index. facts: changes of config.json."""
    folder.mkdir(parents=True)
    vocab_size = write_tokenizer(folder / "tokenizer.json")
    config = FACTS | {"vocab_size": vocab_size + 3} | facts
    (folder / "config.json").write_text(json.dumps(config))
    tensors = weights(config) if tensors is None else tensors
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    place = {name: f"model-{number % shards + 1:05d}.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(place.values()):
        save_file({name: tensors[name] for name in tensors if place[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    return folder


def write_tokenizer(file: Path) -> int:
    """A byte-level BPE with two control tokens of its own, as GPT-2 and Llama 3 have them; returns its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(file))
    return tokenizer.get_vocab_size()


def weights(config: dict[str, Any]) -> dict[str, Tensor]:
    """Random ones by Hugging Face's names, norms too."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    made = {"model.embed_tokens.weight": normal(vocab, hidden), "model.norm.weight": 1 + normal(hidden)}
    if not config["tie_word_embeddings"]:
        made["lm_head.weight"] = normal(vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        made |= {f"{at}self_attn.{each}_proj.weight": normal(hidden, hidden) for each in "qkvo"}
        made |= {f"{at}mlp.{each}_proj.weight": normal(inner, hidden) for each in ("gate", "up")}
        made[f"{at}mlp.down_proj.weight"] = normal(hidden, inner)
        made |= {f"{at}{each}_layernorm.weight": 1 + normal(hidden) for each in ("input", "post_attention")}
    return made


def reference_logits(folder: Path, ids: list[int]) -> Tensor:
    """[L, V]: what Llama computes (arXiv 2302.13971; RoFormer, arXiv 2104.09864), position by position."""
    from safetensors.torch import load_file

    config, w = json.loads((folder / "config.json").read_text()), {}
    for file in sorted(folder.glob("*.safetensors")):
        w |= load_file(file)
    heads, length = config["num_attention_heads"], len(ids)
    width = config["hidden_size"] // heads
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        y = _norm(x, w[f"{at}input_layernorm.weight"])
        q, k, v = ((y @ w[f"{at}self_attn.{each}_proj.weight"].T).view(length, heads, width).clone() for each in "qkv")
        for position in range(length):
            for pair in range(width // 2):
                angle = torch.tensor(position * 10000.0 ** (-2 * pair / width), dtype=torch.float64)
                turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]], dtype=torch.float32)
                for each in (q, k):
                    both = [pair, pair + width // 2]
                    each[position][:, both] = each[position][:, both] @ turn.T
        out = torch.zeros(length, heads, width)
        for position in range(length):
            for head in range(heads):
                scores = k[: position + 1, head] @ q[position, head] / width**0.5
                out[position, head] = scores.softmax(0) @ v[: position + 1, head]
        x = x + out.reshape(length, -1) @ w[f"{at}self_attn.o_proj.weight"].T
        y = _norm(x, w[f"{at}post_attention_layernorm.weight"])
        gate, up = (y @ w[f"{at}mlp.{each}_proj.weight"].T for each in ("gate", "up"))
        x = x + (gate * gate.sigmoid() * up) @ w[f"{at}mlp.down_proj.weight"].T
    head = w["model.embed_tokens.weight"] if config["tie_word_embeddings"] else w["lm_head.weight"]
    return _norm(x, w["model.norm.weight"]) @ head.T


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
