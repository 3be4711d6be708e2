"""A tokenizer of another model, with this repository's control tokens put before its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from core.errors import BadInput
from core.tokenizer import FILE, SPECIAL_TOKENS, TextTokenizer, read_tokenizer

NUM_ADDED = len(SPECIAL_TOKENS)
REMEDY = "give the tokenizer.json of a bundle, or of a BPE tokenizer that Hugging Face's tokenizers saved"


def tokenizer_file(path: Path) -> Path:
    """tokenizer.json itself, or of a folder."""
    return path / FILE if path.is_dir() else path


def given_tokenizer(path: Path) -> TextTokenizer:
    """The tokenizer of a file or folder: as it is where the control tokens are its first, else with its ids moved up by five.

    Raises BadInput where there is none, or one that is no BPE.
    """
    tree = _read(tokenizer_file(path))
    if num_added(path, tree):
        try:
            _add_control_tokens(tree, tokenizer_file(path))
            return TextTokenizer(Tokenizer.from_str(json.dumps(tree)))
        except BadInput:
            raise
        except Exception as error:
            # The library raises nothing more special.
            raise BadInput(f"{tokenizer_file(path)} is no tokenizer ({' '.join(str(error).split())[:80]}); {REMEDY}") from None
    return read_tokenizer(tokenizer_file(path), REMEDY)


def num_added(path: Path, tree: dict[str, Any] | None = None) -> int:
    """By how many ids `given_tokenizer` moves the tokens of this file or folder up: none or five. tree: its JSON, if known."""
    tree = _read(tokenizer_file(path)) if tree is None else tree
    vocabulary = tree["model"]["vocab"]
    is_own = all(vocabulary.get(token) == number for number, token in enumerate(SPECIAL_TOKENS.values()))
    return 0 if is_own else NUM_ADDED


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_bytes())
        kind, vocabulary = tree["model"]["type"], tree["model"]["vocab"]
    except OSError as error:
        raise BadInput(f"{file} cannot be read ({error.strerror}); {REMEDY}") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{file} is no tokenizer; {REMEDY}") from None
    if kind != "BPE" or not isinstance(vocabulary, dict):
        raise BadInput(f"{file} holds a {kind} tokenizer, no BPE; {REMEDY}")
    return tree


def _add_control_tokens(tree: dict[str, Any], file: Path) -> None:
    model, added = tree["model"], tree.get("added_tokens") or []
    there = set(model["vocab"]) | {each["content"] for each in added}
    if both := sorted(there & set(SPECIAL_TOKENS.values())):
        raise BadInput(f"{file} has a token {both[0]} of its own, which this pipeline has for itself; {REMEDY}")
    # In the model's vocabulary too, or the library would number added tokens behind it.
    moved = {token: number + NUM_ADDED for token, number in model["vocab"].items()}
    model["vocab"] = {token: number for number, token in enumerate(SPECIAL_TOKENS.values())} | moved
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    own = [{"id": number, "content": token, **plain} for number, token in enumerate(SPECIAL_TOKENS.values())]
    tree["added_tokens"] = own + [each | {"id": each["id"] + NUM_ADDED} for each in added]
    # What a document begins and ends with is this pipeline's to say; a text is cut nowhere.
    tree["post_processor"], tree["truncation"], tree["padding"] = None, None, None
