"""The harness's questions, against the model's own likelihoods, document by document; and its command with a local task."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.evaluation.harness.__main__ import main, with_model
from components.evaluation.held_out import Stored
from components.evaluation.likelihood import text_nats
from core.errors import BadInput
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.generation.eager import TorchEngine
from model.generation.requests import SamplingOptions, text_request
from model.generation.sampling import generate
from model.transfusion import Transfusion

NO_IMAGES = np.zeros((0, 1, 1, 1), np.float32)
SENTENCE = "a red three top left and a blue seven bottom right"
TASK = """task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}]
"""


@pytest.fixture
def folder(model: Transfusion, tokenizer: TextTokenizer, tmp_path: Path) -> Path:
    """As a bundle has them."""
    model.save_pretrained(tmp_path / "bundle")
    tokenizer.save(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def asked(folder: Path) -> Any:
    pytest.importorskip("lm_eval", reason='pip install -e ".[lm-eval]" adds the harness')
    from components.evaluation.harness.language_model import TransfusionLM

    return TransfusionLM(model=str(folder), batch_size=3)


def likelihood(model: Transfusion, ids: list[int]) -> float:
    """Of every token but the first."""
    if len(ids) < 2:
        return 0.0
    return -text_nats(model, [Stored(np.array(ids), NO_IMAGES)], max_positions=1000).total


def of(*args: Any) -> SimpleNamespace:
    return SimpleNamespace(args=args)


def test_a_continuation_is_as_likely_as_the_model_says(
    asked: Any, model: Transfusion, config: ModelConfig, tokenizer: TextTokenizer
) -> None:
    pairs = [("a red three", " top left"), ("", SENTENCE), ("a blue ", "seven"), (" ".join([SENTENCE] * 30), " and a red one")]
    found = asked.loglikelihood([of(*pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (value, _) in zip(pairs, found, strict=True):
        ids = [config.bos_token_id, *tokenizer.encode(context + continuation)]
        # A space between them belongs to what follows.
        num_context = 1 + len(tokenizer.encode(context.rstrip()))
        first = max(0, len(ids) - (config.max_position_embeddings + 1))
        wanted = likelihood(model, ids[first:]) - likelihood(model, ids[first:num_context])
        assert value == pytest.approx(wanted, rel=1e-4)
    assert len(tokenizer.encode(pairs[3][0])) > config.max_position_embeddings

    # One token more, whichever it is: the likeliest is what greedy decoding would say.
    context = [config.bos_token_id, *tokenizer.encode("a red three")]
    answers = asked._loglikelihood_tokens([(None, context, [token]) for token in range(config.vocab_size)])
    best = max(range(config.vocab_size), key=lambda token: answers[token][0])
    assert [token for token, (_, greedy) in enumerate(answers) if greedy] == [best]


def test_a_long_text_is_read_in_windows_and_each_token_predicted_once(
    asked: Any, model: Transfusion, config: ModelConfig, tokenizer: TextTokenizer
) -> None:
    held = config.max_position_embeddings
    text = " ".join([SENTENCE] * 45)
    ids = tokenizer.encode(text)
    assert 2 * held < len(ids) < 3 * held
    whole = likelihood(model, [config.bos_token_id, *ids[:held]]) + likelihood(model, ids[held - 1 : 2 * held])
    # The last window is a full one, too, and says only what is new.
    rest = likelihood(model, ids[-held - 1 :]) - likelihood(model, ids[-held - 1 : 2 * held])
    short = likelihood(model, [config.bos_token_id, *tokenizer.encode(SENTENCE)])
    found = asked.loglikelihood_rolling([of(text), of(SENTENCE), of("")])
    assert found == pytest.approx([whole + rest, short, 0.0], rel=1e-4)


def test_texts_go_on_up_to_their_stop_strings(
    asked: Any, config: ModelConfig, model: Transfusion, tokenizer: TextTokenizer
) -> None:
    greedy = SamplingOptions(num_steps=1, guidance_scale=1.0)
    request = text_request(config, tokenizer.encode("a red"), seed=0, max_new_tokens=12)
    (completion,) = generate(TorchEngine(model), [request], greedy, num_slots=1)
    text = tokenizer.decode(completion.text.tolist())
    assert len(text) > 3
    asking = [of("a red", {"until": until, "max_gen_toks": 12}) for until in ([], [text[2:4]], "")]
    warm = of("a red", {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 5.0})
    endless = of(" ".join([SENTENCE] * 60), {"until": []})
    found = asked.generate_until([*asking, warm, endless])
    assert found[:3] == [text, text[: text.index(text[2:4])], text]
    assert found[3] != text
    # Half of what the model holds is left to a context, of which the end stays, and to its begin of sequence.
    held, ids = config.max_position_embeddings, tokenizer.encode(endless.args[0])
    assert len(ids) > held
    last = text_request(config, ids[-(held // 2 - 1) :], seed=4, max_new_tokens=held // 2)
    (completion,) = generate(TorchEngine(model), [last], greedy, num_slots=1)
    assert found[4] == tokenizer.decode(completion.text.tolist()) != ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"top_k": 5}, "top_k: unknown here, where there are do_sample, temperature"),
        ({"num_beams": 4}, "num_beams: unknown here"),
        ({"do_sample": True, "top_p": 0}, "top_p: 0.0 must be above 0"),
        ({"temperature": -1}, "temperature: -1.0 must not be negative"),
        ({"temperature": "warm"}, "could not convert string to float: 'warm'"),
        ({"do_sample": "yes"}, "do_sample: 'yes' must be true or false"),
        ({"do_sample": True, "temperature": 0.0}, "do_sample: true needs a temperature above 0"),
        ({"max_gen_toks": 0}, "max_gen_toks: 0 must be at least 1"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(asked: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=f"^the model cannot answer with these options: {says}"):
        asked.generate_until([of("a red", {"until": []}), of("a red", {"until": [], **options})])


def test_sampling_without_a_temperature_has_that_of_the_model(asked: Any) -> None:
    def answer(**options: Any) -> str:
        return asked.generate_until([of("a red", {"until": [], "max_gen_toks": 12, **options})])[0]

    assert answer(do_sample=True) == answer(do_sample=True, temperature=1.0) == answer(temperature=1.0) != answer()
    assert answer(num_beams=1, do_sample=False, temperature=0.8, top_p=0.5) == answer()


def test_a_local_task_runs_by_the_harness_own_command_offline(
    folder: Path,
    model: Transfusion,
    config: ModelConfig,
    tokenizer: TextTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("lm_eval", reason='pip install -e ".[lm-eval]" adds the harness')
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("sys.argv", ["harness"])
    choices = ["red", "blue seven", "a green one top right"]
    questions = ["a", SENTENCE, "a cyan"]
    lines = [{"question": question, "choices": choices, "answer": number % 2} for number, question in enumerate(questions)]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/lines.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "tasks/colours.yaml").write_text(TASK.replace("FILE", str(tmp_path / "tasks/lines.jsonl")))
    call = ["--tasks", "colours", "--include_path", str(tmp_path / "tasks"), "--model_args", f"model={folder}"]
    assert main([*call, "--output_path", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(path.read_text())

    def best(question: str) -> int:
        begin = [config.bos_token_id, *tokenizer.encode(question)]
        scores = [
            likelihood(model, [config.bos_token_id, *tokenizer.encode(f"{question} {choice}")]) - likelihood(model, begin)
            for choice in choices
        ]
        return int(np.argmax(scores))

    right = np.mean([best(line["question"]) == line["answer"] for line in lines])
    assert results["results"]["colours"]["acc,none"] == pytest.approx(right)
    assert results["config"]["model"] == "transfusion" and results["config"]["model_sha256"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": "nowhere"}, "is no tokenizer; a bundle holds one"),
        ({"model": 7}, "7 is no tokenizer"),
        ({"model": "nowhere", "tokenizer": "FOLDER"}, "there is no model in nowhere"),
        ({"pretrained": "gpt2"}, "--model_args: pretrained: unknown for this model, which has model, tokenizer"),
        ({"batch_size": "x"}, '--batch_size: x must be a whole number of at least 1, or "auto"'),
        ({"batch_size": 0}, "--batch_size: 0 must be a whole number"),
        ({"batch_size": "auto", "max_batch_size": -2}, "--batch_size: -2 must be a whole number"),
        ({"device": "abacus"}, "--device: abacus is no device of torch"),
        ({"damaged": "model.safetensors"}, "there is no model in .*bundle"),
        ({"damaged": "config.json"}, "there is no model in .*bundle"),
        ({"damaged": "tokenizer.json"}, "tokenizer.json is no tokenizer"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence(folder: Path, given: dict[str, Any], says: str) -> None:
    pytest.importorskip("lm_eval", reason='pip install -e ".[lm-eval]" adds the harness')
    from components.evaluation.harness.language_model import TransfusionLM

    given = {key: str(folder) if value == "FOLDER" else value for key, value in ({"model": str(folder)} | given).items()}
    if damaged := given.pop("damaged", ""):
        (folder / damaged).write_bytes(b"[]" if damaged == "config.json" else b"no weights")
    # As the command calls it.
    usual = {"batch_size": "1", "max_batch_size": None, "device": "cuda:0"}
    with pytest.raises(BadInput, match=says) as refused:
        TransfusionLM.create_from_arg_obj(given, usual)
    assert "\n" not in str(refused.value)


def test_arguments_of_the_model_win_over_the_commands(folder: Path) -> None:
    pytest.importorskip("lm_eval", reason='pip install -e ".[lm-eval]" adds the harness')
    from components.evaluation.harness.language_model import TransfusionLM

    given = {"model": str(folder), "batch_size": 8}
    assert TransfusionLM.create_from_arg_obj(given, {"batch_size": "1", "device": "cuda:0"}).batch_size == 8
    assert TransfusionLM.create_from_arg_obj({"model": str(folder)}, {"batch_size": "auto:4"}).batch_size == 32


def test_a_chat_template_is_refused(asked: Any) -> None:
    with pytest.raises(BadInput, match="the model has no chat template; leave --apply_chat_template out"):
        asked.apply_chat_template([{"role": "user", "content": "a red three"}])


def test_the_command_names_the_model_where_the_user_does_not() -> None:
    assert with_model(["--tasks", "a"]) == ["--tasks", "a", "--model", "transfusion"]
    assert with_model(["run", "--tasks", "a"])[-1] == "transfusion"
    for given in (["--model", "hf"], ["-M", "hf"], ["--config=a.yaml"], ["ls", "tasks"], ["--help"], []):
        assert with_model(given) == given


def test_without_the_package_the_command_says_which_to_add(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.__main__", None)
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    assert main(["--tasks", "a"]) == 1
    assert 'pip install -e ".[lm-eval]"' in capsys.readouterr().err
