"""A bundle or a trained model as the harness asks language models: log-likelihoods of texts, and texts that go on.

A text begins with the begin-of-sequence token, as training's documents do; its end token is not asked for. Where a text is
longer than the model holds, what is farthest back is left out, as the harness does with Hugging Face's models: of a likelihood
that token, too, while a context that is to go on keeps it. Eager torch answers: exported graphs give the logits of one position
a step.

Legend: B rows, L row length, n tokens of one text, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # pyright: ignore[reportMissingImports]

from components.evaluation.harness.generation_options import Continuation, continuation_of
from components.evaluation.harness.opening import batch_size_of, device_of, model_of, tokenizer_of
from components.evaluation.held_out import Stored
from components.evaluation.layout import in_groups, rows_of
from core.errors import BadInput
from core.files import sha256
from model.generation.eager import TorchEngine
from model.generation.requests import SamplingOptions, text_request
from model.generation.sampling import generate

BUNDLE, WEIGHTS = "artifacts/bundle", "model.safetensors"
NO_IMAGES = np.zeros((0, 1, 1, 1), np.float32)
# What the harness calls a request: its texts (None of a window), and the tokens of both parts.
TokenRequest = tuple[Any, list[int], list[int]]


@register_model("transfusion")
class TransfusionLM(TemplateLM):
    """The harness's view of a model.

    model: the folder of a bundle or of trained weights. tokenizer: its tokenizer.json, or the folder of that, where it does not
    lie in the same folder. batch_size: answers that are generated at once; of likelihoods, texts of max_length at once, and as
    many more shorter ones as have no more positions together. Raises BadInput where a file is missing or does not fit, and
    for other arguments.
    """

    def __init__(
        self,
        model: str = BUNDLE,
        tokenizer: str = "",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        if others:
            known = "model, tokenizer, batch_size, max_batch_size and device"
            raise BadInput(f"--model_args: {', '.join(sorted(others))}: unknown for this model, which has {known}")
        self.batch_size = batch_size_of(batch_size, max_batch_size)
        self._device = device_of(device)
        # The command reads a number where a folder's name is one.
        self.folder = Path(str(model))
        self._tokens = tokenizer_of(self.folder, str(tokenizer))
        self.model = model_of(self.folder).to(self._device)
        self.config = self.model.config
        if self._tokens.vocab_size != self.config.vocab_size:
            sizes = f"{self._tokens.vocab_size} tokens, and the model in {model} has {self.config.vocab_size}"
            raise BadInput(f"the tokenizer has {sizes}; name the model's own with tokenizer=")

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> TransfusionLM:
        """Of --model_args, which win over the command's own options of the same names."""
        return cls(**{**(additional_config or {}), **arg_dict})

    @property
    def eot_token_id(self) -> int:
        """End of sequence."""
        return self.config.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Begin of sequence: what a text without context stands behind."""
        return self.config.bos_token_id

    @property
    def max_length(self) -> int:
        """Tokens that the model sees at once."""
        return self.config.max_position_embeddings

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells caches apart."""
        return str(self.folder)

    def get_model_info(self) -> dict[str, Any]:
        """What stands beside the results."""
        return {
            "model_num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "model_sha256": sha256(self.folder / WEIGHTS),
        }

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Refused: the model has seen documents and no conversations."""
        raise BadInput("the model has no chat template; leave --apply_chat_template out")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The ids of a text behind the begin of sequence, or without it."""
        begin = [] if add_special_tokens is False else [self.prefix_token_id]
        return begin + self._tokens.encode(string)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in windows of max_length that each predict tokens of their own."""
        windows: list[TokenRequest] = []
        window_of: list[int] = []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            for window in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1):
                windows.append((None, *make_disjoint_window(window)))
                window_of.append(number)
        found = [value for value, _ in self._loglikelihood_tokens(windows)]
        sums = np.bincount(window_of, found, minlength=len(requests)).tolist() if found else [0.0] * len(requests)
        for request, value in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts that go on from contexts, up to the first of their stop strings.

        At most half of max_length is left to an answer, whatever the task allows, so that it has a context.
        """
        by_options: dict[SamplingOptions, list[int]] = {}
        asked = [continuation_of(request.args[1]) for request in requests]
        for number, how in enumerate(asked):
            by_options.setdefault(how.sampling, []).append(number)
        answers: dict[int, str] = {}
        for options, members in by_options.items():
            made = [self._text_request(requests[number].args[0], asked[number], number) for number in members]
            completions = generate(TorchEngine(self.model), made, options, num_slots=self.batch_size)
            for number, completion in zip(members, completions, strict=True):
                answers[number] = _until(self._tokens.decode(completion.text.tolist()), asked[number].until)
                self.cache_hook.add_partial("generate_until", requests[number].args, answers[number])
        return [answers[number] for number in range(len(requests))]

    def _text_request(self, context: str, how: Continuation, number: int) -> Any:
        new = min(how.max_new_tokens, self.max_length // 2)
        ids = self.tok_encode(context, add_special_tokens=False)[-(self.max_length - new - 1) :]
        return text_request(self.config, ids, seed=number, max_new_tokens=new)

    @torch.inference_mode()
    def _loglikelihood_tokens(self, requests: Sequence[TokenRequest], **kwargs: Any) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation behind its context, and whether each of its tokens is the likeliest."""
        longest = max((len(continuation) for _, _, continuation in requests), default=0)
        if longest > self.max_length:
            raise BadInput(f"a task asks for the likelihood of {longest} tokens at once, and the model holds {self.max_length}")
        # The last token is predicted and not read.
        kept = [np.array([*context, *continuation][-(self.max_length + 1) :]) for _, context, continuation in requests]
        stored = [Stored(ids[:-1], NO_IMAGES) for ids in kept]
        answers = [(0.0, True)] * len(requests)
        for group in in_groups(stored, self.config, self.batch_size * self.max_length):
            states = self._states([stored[index] for index in group])
            for row, index in enumerate(group):
                key, _, continuation = requests[index]
                answers[index] = self._answer(states[row], len(stored[index].ids), continuation)
                if key is not None:
                    self.cache_hook.add_partial("loglikelihood", key, answers[index])
        return answers

    def _states(self, stored: Sequence[Stored]) -> torch.Tensor:
        """Hidden states [B, L, D] of texts, one a row."""
        batch = rows_of(stored, self.config).to(self._device)
        (images,), no_time = batch.latents, torch.zeros(0, device=self._device)
        return self.model.hidden(batch, [images.patches], [no_time]).states.unflatten(0, batch.input_ids.shape)

    def _answer(self, states: torch.Tensor, num_read: int, continuation: list[int]) -> tuple[float, bool]:
        """Of one row's states [L, D], of which the last ones of num_read predict the continuation."""
        logits = self.model.head(states[num_read - len(continuation) : num_read]).float()
        wanted = torch.tensor(continuation, device=logits.device, dtype=torch.long)
        nats = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
        return -nats, bool((logits.argmax(-1) == wanted).all())


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text
