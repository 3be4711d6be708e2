"""Wrong input in params.yaml gets one clear sentence and exit code 2, before any work."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from pipelines.params import ParamsError, load

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"


def test_the_committed_parameters_are_valid() -> None:
    assert load(PARAMS).train.model.preset == "demo"


@pytest.mark.parametrize(
    "value",
    [
        *(
            "2021-13-45",
            "!!int x",
            "!!bool maybe",
            "!!float z",
            "&a [*a]",
            "&a {b: *a}",
            "{[1]: 2}",
            "9" * 5000,
            "0x" + "f" * 5000,
        ),
        *("[" * depth + "]" * depth for depth in (200, 3000)),
    ],
    ids=lambda value: value[:20],
)
def test_values_that_cannot_be_made(value: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"ingest: {value}\n")
    for path, overrides in ((PARAMS, [f"train.seed={value}"]), (tmp_path / "params.yaml", [])):
        with pytest.raises(ParamsError) as refusal:
            load(path, overrides)
        sentence = str(refusal.value)
        assert "\n" not in sentence and "; write" in sentence and len(sentence) < 800
        assert sentence.startswith("--set train.seed=" if overrides else str(path))


UNET = "preset: demo, patch_layers: unet, prediction_type: flow, zero_terminal_snr: false, experts: shared, qk_norm: false"
SEEDS = [("ingest", "-1"), ("autoencoder", "4294967296"), ("train", "-17"), ("evaluate", "99999999999999")]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.max_step=3", ["train.max_step"]),
        ("train.max_steps=abc", ["train.max_steps", "'abc'", "integer"]),
        ("train.max_steps=1.5", ["train.max_steps", "1.5", "integer"]),
        ("train.max_steps='12'", ["train.max_steps", "'12'", "integer"]),
        ("train.max_steps=-1", ["train.max_steps", "-1", "greater than 0"]),
        ("train.warmup_steps=999999", ["train.warmup_steps", "999999"]),
        ("train.model.preset=huge", ["train.model.preset", "'huge'", "'demo'"]),
        ("ingest.max_quarantined_share=0.1", ["max_quarantined_share", "now called ingest.max_rejected_share"]),
        ("evaluate.judge.max_steps=5", ["evaluate.judge.max_steps", "now called evaluate.digit_classifier.max_steps"]),
        ("evaluate.judge={max_steps: 5, batch_size: 64}", ["evaluate.judge", "now called evaluate.digit_classifier"]),
        ("train.model.objective=flow", ["train.model.objective", "now called train.model.prediction_type"]),
        ("train.model={preset: demo, codec: linear}", ["train.model.codec = 'linear'", "now called train.model.patch_layers"]),
        ("train.learning_rate=.nan", ["train.learning_rate", "nan"]),
        ("ingest.corpora=[]", ["ingest.corpora", "at least one"]),
        ("ingest.corpora=[{name: a, format: jsonl, path: ''}]", ["ingest.corpora.0.path", "must name the files"]),
        (
            "ingest.corpora=[{name: a, format: webdataset, path: x, images: y}]",
            ["ingest.corpora.0.images", 'must be ""'],
        ),
        ("ingest.corpora=[{name: a, format: jsonl, path: x, weight: 0.0}]", ["ingest.corpora.0.weight", "must be positive"]),
        ("ingest.corpora=[a]", ["ingest.corpora.0", "'a'"]),
        ("ingest.corpus_defaults={images: ''}", ["ingest.corpus_defaults.captions", "is missing"]),
        ("ingest.corpora=[{name: a, format: jsonl, pth: x}]", ["ingest.corpora.0.pth", "did you mean ingest.corpora.0.path"]),
        ("evaluate.loss_times=[0.3, 0.5, 0.3]", ["evaluate.loss_times", "different noise levels"]),
        ("evaluate.x_0_error_times=[0.5, 0.50000001]", ["evaluate.x_0_error_times", "different noise levels"]),
        ("evaluate.x_0_error_times=[0.981, 0.984]", ["evaluate.x_0_error_times", "hundredth"]),
        ("evaluate.retrieval.noise_levels=[0.7, 0.7]", ["evaluate.retrieval.noise_levels", "different noise levels"]),
        ("evaluate.guidance_sweep.scales=[1.0, 1.001]", ["evaluate.guidance_sweep.scales", "hundredth"]),
        ("evaluate.num_pictures=2000", ["evaluate.num_training_pictures", "1024", "num_pictures, 2000, at least"]),
        ("evaluate.loss_times=[2]", ["evaluate.loss_times", "2.0"]),
        ("evaluate.x_0_error_times=[1.0]", ["evaluate.x_0_error_times", "1.0"]),
        (
            "validate.documents.min_images=0",
            ["min_images = 0", "at least 1: the autoencoder is trained and measured on images"],
        ),
        ("ingest.split_shares.validation=-0.1", ["ingest.split_shares.validation", "-0.1", "at least 0"]),
        ("ingest.scenes.num_kept_out_pairs=21", ["ingest.scenes.num_kept_out_pairs", "21", "0..20 of the 60 pairs"]),
        ("ingest.images.max_pixels=89478486", ["ingest.images.max_pixels", "decompression bomb"]),
        ("ingest.images.max_aspect_ratio=0.9", ["ingest.images.max_aspect_ratio", "at least 1"]),
        ("ingest.images.formats=[]", ["ingest.images.formats", "at least one format"]),
        ("ingest.duplicates.near_threshold=1.0", ["ingest.duplicates.near_threshold", "between 0 and 1"]),
        ("ingest.vocab_size=260", ["ingest.vocab_size", "at least 261"]),
        ("encode.crop_share=0.0", ["encode.crop_share", "above 0"]),
        (
            "train.model={UNET, patch_side: 4, unet_channels: [64, 128]}",
            ["train.model.unet_channels", "3 numbers", "[64, 128, 256]"],
        ),
        ("train.model={UNET, patch_side: 1, unet_channels: []}", ["train.model.unet_channels", "1 numbers", "[64]"]),
        ("train.model={UNET, patch_side: 2, unet_channels: [64, 0]}", ["train.model.unet_channels", "at least 1"]),
        ("ingest.image_side_px=30", ["ingest.image_side_px = 30", "autoencoder.preset demo", "multiple of 4"]),
        ("ingest.image_side_px=40", ["train.model.patch_side = 4", "latents' side of 10"]),
        ("ingest.image_side_px=512", ["encode.row_length = 256", "1028 positions"]),
        ("train.sampling.prompts=[' ']", ["train.sampling.prompts", "no caption that is empty"]),
        (r'train.sampling.prompts=["a\ud800"]', ["train.sampling.prompts.0", "half a surrogate pair"]),
        ("train.adam_beta2=1.0", ["train.adam_beta2", "below 1"]),
        ("train.min_learning_rate=0.1", ["train.min_learning_rate", "0.1", "learning_rate 0.003"]),
        ("train.pretrained=models:/transfusion@champion", ["train.pretrained", "by its number"]),
        ("train.pretrained=artifacts/bundle", ["train.pretrained = artifacts/bundle", "copy it to a folder of its own"]),
        ("autoencoder.pretrained=artifacts/autoencoder", ["autoencoder.pretrained = artifacts/autoencoder", "copy it to"]),
        ("train.step_timeout_s=1e10", ["train.step_timeout_s", "10000000000.0 must be at most 604800, a week; 0 is never"]),
        ("ingest.tokenizer=data/tokenizer", ["ingest.tokenizer = data/tokenizer", "copy it to a folder of its own"]),
        ("train.schedule.kind=constant", ["train.schedule.kind", "constant", "'cosine' or 'wsd'"]),
        ("train.schedule.decay_ratio=0", ["train.schedule.decay_ratio", "above 0"]),
        ("train.schedule={kind: wsd, decay_ratio: 1.0, decay_type: sqrt}", ["train.schedule.decay_ratio", "1500", "warm-up"]),
        ("train.learning_rate_scales.text=-1.0", ["train.learning_rate_scales.text", "-1.0", "at least 0"]),
        ("train.learning_rate_scales={text: 0.0, images: 0.0, shared: 0.0}", ["train.learning_rate_scales", "nothing"]),
        ("train.held_out_images.noise_levels=[]", ["train.held_out_images.noise_levels", "at least one"]),
        ("train.held_out_images.noise_levels=[0.5, 1.0]", ["train.held_out_images.noise_levels", "below 1"]),
        (
            "train.held_out_images.noise_levels=[0.5, 0.9, 0.5]",
            ["train.held_out_images.noise_levels", "different noise levels"],
        ),
        ("train.held_out_images.noise_levels=[0.5, 0.50000001]", ["train.held_out_images.noise_levels", "first six digits"]),
        ("train.held_out_images.num_documents=0", ["train.held_out_images.num_documents", "greater than 0"]),
        ("train.selection.weights=newest", ["train.selection.weights", "newest", "'last' or 'best'"]),
        ("train.selection.figure=image_loss", ["train.selection.figure", "image_loss", "'caption_gap'"]),
        ("train.selection.patience=-1", ["train.selection.patience", "at least 0"]),
        ("train.selection.min_improvement=-0.1", ["train.selection.min_improvement", "at least 0"]),
        ("train.weight_decay=-0.1", ["train.weight_decay", "-0.1", "at least 0"]),
        *((f"{section}.seed={seed}", [f"{section}.seed", seed, "0..4294967295"]) for section, seed in SEEDS),
        ("export.max_transformer_error=0.0", ["export.max_transformer_error", "greater than 0"]),
        ("register.compare=[text_to_image/objects_rigth]", ["register.compare", "did you mean text_to_image/objects_right or"]),
        ("register.compare=[qqqq]", ["register.compare: 'qqqq' is no metric", "evaluation/metrics.py lists them"]),
        ("register.compare=[bits_per_byte]", ["did you mean text/bits_per_byte or"]),
        *(
            (
                f"register.compare=[text/bits_per_byte, {key}]",
                [f"register.compare: {key!r} does not compare two models item by item"],
            )
            for key in ("text/perplexity", "distribution/frechet", "captions/bleu4", "retrieval/chance", "guidance/kid/4")
        ),
        ("train={seed: 1, seed: 2}", ["--set train=", "the value has seed twice, in line 1 and in line 1; keep one of them"]),
        (
            "evaluate.x_0_error_times=[0.1]",
            ["register.default_bounds: 'image/x0_error/0.5'", "x_0_error_times does not have 0.5"],
        ),
        ("register.compare=text/bits_per_byte", ["register.compare = 'text/bits_per_byte'", "array"]),
        ("register.compare=[]", ["register.compare: must name at least one metric"]),
        ("register.bounds={loss: 0.1}", ["register.bounds: 'loss' is no metric"]),
        ("register.bounds={fid/frechet: 20}", ["'fid/frechet' is measured where evaluate.weights.inception names a path"]),
        ("register.bounds={clip/score: 20}", ["'clip/score' is measured where evaluate.weights.clip names a path"]),
        ("register.default_bounds={loss: 0.1}", ["register.default_bounds: 'loss' is no metric"]),
        ("register.floors={text/bits_per_byte: 3.0}", ["register.floors", "now called register.bounds"]),
        ("register.tolerance=1.0", ["register.tolerance: 1.0 must be a share of the champion's figure"]),
        ("register.tolerance=-0.1", ["register.tolerance: -0.1", "at least 0"]),
        (
            "register.compare=[image/x0_error/0.42]",
            ["evaluate.x_0_error_times does not have 0.42; did you mean image/x0_error/0."],
        ),
        ("register.compare=[image/x0_error/*]", ["register.compare", "did you mean image/x0_error/0."]),
        ("register.compare=[text_to_image/objects_right_se]", ["register.compare", "mean text_to_image/objects_right or"]),
        ("train={}", ["train.", "is missing"]),
        ("train", ["section.key=value"]),
    ],
)
def test_an_impossible_value_is_named(override: str, parts: list[str]) -> None:
    with pytest.raises(ParamsError) as error:
        load(PARAMS, [override.replace("UNET", UNET)])
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("new", "old", "dotted"),
    [
        ("  max_rejected_share:", "  max_quarantined_share:", "ingest.max_rejected_share"),
        ("  digit_classifier:", "  judge:", "evaluate.digit_classifier"),
    ],
)
def test_a_key_of_an_earlier_name_in_the_file_names_the_new_one(tmp_path: Path, new: str, old: str, dotted: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().replace(new, old))
    with pytest.raises(ParamsError, match=rf"{old.strip(' :')} = .* is not a known key; it is now called {dotted}"):
        load(path)


def test_an_unknown_key_in_the_file_suggests_the_known_one(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().replace("  max_steps: ", "  max_stps: "))
    with pytest.raises(ParamsError, match=r"max_stps = \d+ is not a known key; did you mean .*max_steps\?"):
        load(path)


def loss_of_the_autoencoder(**changes: object) -> str:
    loss = {"reconstruction": "l2", "kl_weight": 1e-6, "lpips_weight": 1.0, "lpips_weights": "", "gan_weight": 0.0}
    return json.dumps(loss | {"gan_start_step": 0, "gan_adaptive": False} | changes)


def test_terms_of_the_autoencoder_need_images_of_some_size() -> None:
    small = ["ingest.image_side_px=8", "train.model.patch_side=1"]
    load(PARAMS, small)
    for changes, least in (({"gan_weight": 0.5}, 24), ({"lpips_weights": "weights"}, 16)):
        (field,) = changes
        override = f"autoencoder.loss={loss_of_the_autoencoder(**changes)}"
        with pytest.raises(ParamsError, match=rf"autoencoder\.loss\.{field} = .* {least} px at least"):
            load(PARAMS, [*small, override])
        load(PARAMS, [override])


def test_a_given_autoencoder_is_not_judged_by_the_settings_of_another() -> None:
    params = load(PARAMS, ["ingest.image_side_px=30", "autoencoder.pretrained=given"])
    assert (params.ingest.image_side_px, params.autoencoder.pretrained) == (30, "given")


def test_a_mapping_of_metrics_takes_new_ones_whose_names_hold_dots() -> None:
    added = ["register.bounds.text/bits_per_byte=3.0", "register.bounds.image/x0_error/0.5=0.2"]
    assert load(PARAMS, added).register.bounds == {"text/bits_per_byte": 3.0, "image/x0_error/0.5": 0.2}
    changed = load(PARAMS, ["register.default_bounds.image/x0_error/0.5=0.1"]).register.default_bounds
    assert changed == load(PARAMS).register.default_bounds | {"image/x0_error/0.5": 0.1}
    for unknown in ("register.bound.text/bits_per_byte=3.0", "evaluate.retrieval.group=3", "train.seed.x=3"):
        with pytest.raises(ParamsError, match=r"params\.yaml has no key"):
            load(PARAMS, [unknown])
    with pytest.raises(ParamsError, match=r"register\.bounds: 'text/bits' is no metric"):
        load(PARAMS, ["register.bounds.text/bits=3.0"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  seed: 1\n  max_steps: 3\n  seed: 2\n", "has train.seed twice, in line 2 and in line 4; keep one of them"),
        ("train: {seed: 1}\ningest: {}\n\ntrain: {}\n", "has train twice, in line 1 and in line 4"),
        (
            "ingest:\n  corpora:\n    - name: a\n    - name: b\n      name: c\n",
            "has ingest.corpora.1.name twice, in line 4 and in",
        ),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_lines(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError) as refused:
        load(tmp_path / "params.yaml")
    assert str(refused.value).startswith(f"{tmp_path / 'params.yaml'} {said}") and "\n" not in str(refused.value)


def test_a_figure_of_a_measured_noise_level_may_be_compared() -> None:
    overrides = ["register.compare=[conditioning/wrong_caption_x0_gap/0.98]", "register.default_bounds={}"]
    assert load(PARAMS, overrides).register.default_bounds == {}


PICTURES = "ingest.corpora=[{name: mine, format: webdataset, path: x}]"
TEXT = "ingest.corpora=[{name: mine, format: parquet, path: x, images: none}]"


def test_the_committed_bounds_go_with_any_corpora() -> None:
    for corpora in (PICTURES, TEXT, "ingest.corpora=[{name: mine, format: obelics, path: x}]"):
        assert load(PARAMS, [corpora]).register == load(PARAMS).register


@pytest.mark.parametrize(
    ("corpora", "metric", "content"),
    [
        (PICTURES, "text_to_image/objects_right", "scenes"),
        (PICTURES, "text/bits_per_byte", "text"),
        (TEXT, "image/diffusion_loss", "images"),
        (TEXT, "conditioning/wrong_caption_gap", "captions"),
    ],
)
def test_a_bound_of_ones_own_that_the_corpora_cannot_reach_is_refused_before_the_run(
    corpora: str, metric: str, content: str
) -> None:
    bound = f"register.bounds={{{metric}: 0.5}}"
    load(PARAMS, [bound])
    with pytest.raises(ParamsError, match=rf"register\.bounds: '{metric}' is measured on {content}, which no corpus of ingest"):
        load(PARAMS, [corpora, bound])
    compare = f"register.compare=[{metric}]"
    load(PARAMS, [compare])
    with pytest.raises(ParamsError, match=rf"register\.compare: no corpus of ingest\.corpora can hold what {metric} is"):
        load(PARAMS, [corpora, compare])


@pytest.mark.parametrize(("figure", "content"), [("image", "images"), ("caption_gap", "captions")])
def test_a_figure_that_the_corpora_cannot_give_selects_nothing(figure: str, content: str) -> None:
    asked = f"train.selection.figure={figure}"
    for used in ("train.selection.weights=best", "train.selection.patience=3"):
        load(PARAMS, [asked, used])
        with pytest.raises(ParamsError, match=rf"train\.selection\.figure = {figure} is measured on {content}, which no"):
            load(PARAMS, [TEXT, asked, used])
        load(PARAMS, [TEXT, "train.selection.figure=text", used])
    load(PARAMS, [TEXT, asked])


def test_an_entry_of_the_corpora_leaves_out_what_the_defaults_say() -> None:
    entries = "[{name: a, format: jsonl, path: x}, {name: b, format: coco, path: y, images: z, weight: 3.0}]"
    overrides = [f"ingest.corpora={entries}", "ingest.corpus_defaults.weight=0.5", "ingest.corpus_defaults.captions=one"]
    first, second = load(PARAMS, overrides).ingest.corpora
    assert (first.weight, first.captions, first.images) == (0.5, "one", "")
    assert (second.weight, second.captions, second.images) == (3.0, "one", "z")
    with pytest.raises(ParamsError, match=r"ingest\.corpora\.0\.path is missing"):
        load(PARAMS, ["ingest.corpora=[{name: a, format: jsonl}]"])


def test_the_demonstrations_corpora_are_what_they_were() -> None:
    scenes, prose = load(PARAMS).ingest.corpora
    same = {"path": "", "images": "", "captions": "each", "caption_per_line": False, "caption_first_share": 0.8}
    same |= {"max_documents": 0}
    assert asdict(scenes) == same | {"name": "scenes", "format": "digit_scenes", "weight": 2.0}
    assert asdict(prose) == same | {"name": "prose", "format": "python_prose", "weight": 1.0}


def test_overrides_take_yaml_values() -> None:
    params = load(
        PARAMS, ["train.max_steps=7", "train.warmup_steps=1", "train.learning_rate=1e-4", "evaluate.loss_times=[0.5]"]
    )
    assert params.train.max_steps == 7
    assert params.train.learning_rate == 1e-4
    assert params.evaluate.loss_times == (0.5,)


@pytest.mark.parametrize("stage", ["ingest", "train"])
def test_a_stage_exits_2_with_one_sentence_before_any_work(stage: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text().replace("patch_side: 4", "patch_side: 3"))
    command = [sys.executable, "-m", f"pipelines.{stage}", "--params", str(tmp_path / "params.yaml")]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert result.returncode == 2, result.stderr
    assert "train.model.patch_side = 3" in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists() and not (tmp_path / "artifacts").exists()
