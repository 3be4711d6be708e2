"""Which tests look after a module: its mirrored file first, then those that use it closely.

The groups of a module are run one after the other, and a later one only for what the earlier ones did not notice.
"""

from __future__ import annotations

from pathlib import PurePosixPath

Groups = tuple[tuple[str, ...], ...]

TRANSFUSION = "tests/model/test_transfusion.py"
SAMPLING = "tests/model/generation/test_sampling.py"
ENCODING = "tests/components/data/encode/test_encoding.py"
LOOP = "tests/components/training/transformer/test_trainer.py"
JOURNAL = "tests/components/training/transformer/test_journal.py"
ACCUMULATION, PRETRAINED = (f"tests/components/training/transformer/test_{name}.py" for name in ("accumulation", "pretrained"))
CHECKPOINTER = "tests/components/training/test_checkpointer.py"
SHARDED = "tests/components/training/test_sharded_checkpoints.py"
WORKER = "tests/components/training/transformer/test_worker.py"
AUTOENCODER = "tests/components/training/autoencoder/test_train.py"
AUTOENCODER_LOOP = "tests/components/training/autoencoder/test_trainer.py"
GRAPHS = "tests/export/builder/test_graphs.py"
REQUESTS = "tests/export/run/test_requests.py"
TENSORRT = "tests/export/builder/test_to_tensorrt.py"
PARAMS = "tests/pipelines/test_params.py"
EXPORT, INFER, SERVED = (f"tests/pipelines/bundle_stages/test_{name}.py" for name in ("export", "infer", "served"))

# In place of the mirrored file, or after it, in this order.
CLOSE: dict[str, Groups] = {
    "model/batch.py": ((TRANSFUSION,), (SAMPLING,), ("tests/model/test_flops.py", LOOP)),
    "model/compiled.py": (("tests/model/generation/test_eager.py",), (TRANSFUSION,)),
    "model/config.py": ((TRANSFUSION, PARAMS), ("tests/model/latents/test_unet_patches.py", "tests/model/test_flops.py")),
    "model/token_loss.py": (("tests/model/test_compiled.py",), (TRANSFUSION,)),
    "model/experts.py": ((TRANSFUSION,), (SAMPLING,), ("tests/model/test_packed_linear.py",)),
    "model/flops.py": ((TRANSFUSION,),),
    "model/loss.py": ((TRANSFUSION,), ("tests/model/attention/test_visibility.py", "tests/model/test_flops.py")),
    "model/loss_options.py": ((TRANSFUSION,), (PARAMS,)),
    "model/permute.py": (("tests/model/test_packed_linear.py", TRANSFUSION),),
    "model/transformer.py": ((TRANSFUSION,), (SAMPLING,)),
    "model/transfusion.py": ((SAMPLING,),),
    "model/attention/cached.py": ((SAMPLING,),),
    "model/attention/packed.py": ((TRANSFUSION,),),
    "model/attention/math.py": ((TRANSFUSION,),),
    "model/attention/visibility.py": ((TRANSFUSION,),),
    "model/diffusion/noise.py": ((TRANSFUSION,),),
    "model/diffusion/schedules.py": (("tests/model/diffusion/test_noise.py", "tests/model/test_solvers_as_diffusers.py"),),
    "model/diffusion/solvers.py": (("tests/model/test_solvers_as_diffusers.py",), (SAMPLING,)),
    "model/generation/eager.py": ((SAMPLING,), ("tests/model/test_compiled.py",)),
    "model/step.py": ((SAMPLING,), ("tests/model/attention/test_cached.py",)),
    "model/generation/batching.py": ((SAMPLING,),),
    "model/generation/sequence.py": ((SAMPLING,), ("tests/export/run/test_predictor.py",)),
    "model/generation/requests.py": ((SAMPLING,), ("tests/export/run/test_predictor.py",)),
    "model/generation/token_choice.py": ((SAMPLING,),),
    "model/latents/sizes.py": (("tests/model/latents/test_autoencoder.py",),),
    "model/latents/patch_layers.py": (
        (TRANSFUSION,),
        (SAMPLING,),
        ("tests/model/latents/test_unet_patches.py", "tests/model/test_flops.py"),
    ),
    "model/latents/patches.py": ((TRANSFUSION,),),
    "model/latents/unet_patches.py": ((TRANSFUSION,),),
    "components/data/encode/assembly.py": ((ENCODING,), ("tests/pipelines/test_gates_and_encode.py",)),
    "components/data/encode/latents.py": ((ENCODING,), ("tests/components/data/encode/test_variants.py",)),
    "components/data/encode/mixture.py": (("tests/components/data/encode/test_packing.py", ENCODING),),
    "components/data/encode/packing.py": (("tests/components/data/test_loader.py",),),
    "components/data/encode/variants.py": ((ENCODING,), ("tests/components/data/test_loader.py",)),
    "components/bounds.py": ((PARAMS,),),
    "components/evaluation/likelihood.py": (
        ("tests/components/evaluation/test_language.py", "tests/components/evaluation/test_retrieval.py"),
    ),
    "components/evaluation/scenes/digit_classifier.py": (("tests/components/evaluation/test_suite.py",),),
    "components/evaluation/kept_items.py": (
        ("tests/components/evaluation/test_comparison.py",),
        ("tests/pipelines/test_promote.py", "tests/pipelines/test_evaluate.py"),
    ),
    "components/runtime/champion.py": (("tests/pipelines/test_promote.py",),),
    "components/runtime/registry.py": (
        ("tests/pipelines/test_promote.py",),
        ("tests/pipelines/bundle_stages/test_register.py",),
    ),
    "pipelines/promotion.py": (("tests/pipelines/test_promote.py",),),
    "components/training/checkpoints.py": ((CHECKPOINTER,), (SHARDED,)),
    "components/training/gradient_sync.py": ((ACCUMULATION,), ("tests/components/training/transformer/test_sharded.py",)),
    "components/training/late_numbers.py": (("tests/components/training/transformer/test_no_wait.py", LOOP),),
    "components/training/shards.py": (("tests/components/training/transformer/test_sharded.py",),),
    "components/training/optimiser.py": ((LOOP,), (AUTOENCODER_LOOP,)),
    "components/training/shard_files.py": ((CHECKPOINTER,), (SHARDED,)),
    "components/training/snapshot.py": ((CHECKPOINTER,), (SHARDED,)),
    "components/training/whole_network.py": ((SHARDED,),),
    "components/training/pictures.py": ((JOURNAL,),),
    "components/training/precision.py": ((LOOP,),),
    "components/training/trainer.py": ((LOOP,), (AUTOENCODER_LOOP,)),
    "components/training/autoencoder/pretrained.py": (("tests/pipelines/test_autoencoder.py",),),
    "components/training/autoencoder/given_files.py": (
        ("tests/pipelines/test_inputs.py", "tests/pipelines/test_inputs_away.py"),
    ),
    "components/training/autoencoder/config.py": ((PARAMS,), (AUTOENCODER_LOOP,)),
    "components/training/autoencoder/discriminator.py": ((AUTOENCODER_LOOP,),),
    "components/training/autoencoder/images.py": ((AUTOENCODER,),),
    "components/training/autoencoder/losses.py": ((AUTOENCODER_LOOP,), (AUTOENCODER,)),
    "components/training/autoencoder/quality.py": ((AUTOENCODER,),),
    "components/training/autoencoder/state.py": ((AUTOENCODER_LOOP,), (AUTOENCODER,)),
    "components/training/autoencoder/train.py": ((AUTOENCODER_LOOP,),),
    "components/training/autoencoder/trainer.py": ((AUTOENCODER,),),
    "components/training/autoencoder/worker.py": ((AUTOENCODER,),),
    "components/training/transformer/callbacks.py": ((JOURNAL, WORKER), ("tests/pipelines/test_train.py",)),
    "components/training/transformer/companion.py": (("tests/components/training/transformer/test_sharded.py",),),
    "components/training/transformer/config.py": ((PARAMS, LOOP),),
    "components/training/transformer/from_llama.py": ((PRETRAINED,),),
    "components/training/transformer/image_sampler.py": ((JOURNAL,), ("tests/pipelines/test_train.py",)),
    "components/training/transformer/journal.py": (("tests/pipelines/test_train.py",),),
    "components/training/transformer/optimiser.py": (("tests/components/training/test_optimiser.py", LOOP),),
    "components/training/transformer/pretrained_files.py": ((PRETRAINED,), ("tests/pipelines/test_inputs.py",)),
    "components/training/transformer/reports.py": ((LOOP, JOURNAL),),
    "components/training/transformer/run.py": ((WORKER,), ("tests/pipelines/test_train.py",)),
    "components/training/transformer/state.py": ((WORKER,), ("tests/components/training/test_checkpoints.py", LOOP)),
    "components/training/transformer/step_batch.py": ((LOOP, ACCUMULATION),),
    "components/training/transformer/trainer.py": ((WORKER,),),
    "components/training/transformer/worker.py": (
        (WORKER,),
        ("tests/components/training/test_checkpoints.py", LOOP),
        ("tests/pipelines/test_train.py",),
    ),
    "core/given_tokenizer.py": ((PRETRAINED,),),
    "core/data_uri.py": (("tests/components/report/test_page.py", "tests/components/evaluation/test_report.py"),),
    "core/errors.py": (("tests/core/test_manifest.py",),),
    "core/fingerprint.py": (("tests/pipelines/test_inputs.py",), (REQUESTS,)),
    "core/jpeg_segments.py": (("tests/core/test_images.py",),),
    "core/leftovers.py": (("tests/core/test_files.py",),),
    "core/metric_keys.py": (("tests/components/evaluation/test_suite.py",), ("tests/pipelines/test_evaluate.py",)),
    "core/png.py": (("tests/core/test_images.py", "tests/core/test_png_chunks.py"),),
    "core/png_chunks.py": (("tests/core/test_images.py", "tests/core/test_images_colours.py"),),
    "core/sheets.py": (("tests/export/run/test_contact_sheet.py", "tests/export/run/test_contact_sheet_layout.py"),),
    "export/weights.py": (("tests/export/run/test_predictor.py",),),
    "export/run/request_file.py": ((REQUESTS,),),
    "export/run/journal.py": ((REQUESTS,), (INFER,)),
    "export/run/batch.py": ((REQUESTS,), (INFER,)),
    "export/builder/make_bundle.py": (("tests/export/test_bundle.py",), (GRAPHS, TENSORRT)),
    "export/bundle.py": (("tests/export/run/test_predictor.py",),),
    "export/builder/kv_cache_operator.py": ((GRAPHS,), ("tests/export/run/test_engines.py",)),
    "export/config.py": ((PARAMS,), ("tests/export/run/test_predictor.py",)),
    "export/builder/end_to_end.py": ((GRAPHS,), ("tests/export/builder/test_modalities.py",)),
    "export/engine_key.py": ((TENSORRT,),),
    "export/run/engine_onnxruntime.py": (("tests/export/run/test_engines.py",), (GRAPHS,)),
    "export/graph_names.py": ((GRAPHS,),),
    "export/builder/graphs.py": (("tests/export/run/test_engines.py",),),
    "export/builder/model_card.py": ((EXPORT,),),
    "export/builder/parity.py": ((GRAPHS,), ("tests/export/test_bundle.py", "tests/export/builder/test_modalities.py")),
    "export/run/predictions.py": ((REQUESTS,), (SERVED,)),
    "export/run/predictor.py": ((REQUESTS,), (SERVED,)),
    "export/run/pyfunc.py": (("tests/export/builder/test_own_code.py",), (SERVED,)),
    "export/run/served.py": (("tests/export/builder/test_own_code.py",), (SERVED,)),
    "export/run/registered.py": ((SERVED,),),
    "export/run/answers.py": (("tests/export/test_ask.py",), ("tests/export/run/test_predictor.py",)),
    "export/page_html.py": (("tests/export/test_page.py",),),
    "export/run/serving_schema.py": ((SERVED,),),
    "export/run/step_tensors.py": (("tests/export/run/test_engines.py",), (GRAPHS,)),
    "core/text.py": (("tests/core/test_text.py",), (REQUESTS,)),
    "export/builder/to_onnx.py": ((GRAPHS,), ("tests/export/builder/test_modalities.py",)),
    "export/builder/to_tensorrt.py": (("tests/export/builder/test_modalities.py",),),
}


def mirrored(module: str) -> str:
    """model/diffusion/noise.py -> tests/model/diffusion/test_noise.py, whether it is there or not."""
    path = PurePosixPath(module)
    return str("tests" / path.with_name(f"test_{path.name}"))


def groups_of(module: str, test_files: set[str]) -> Groups:
    """The groups of test files for a module, each of files that are there and in no earlier group.

    test_files: all there are. Files named after the module (test_loop_losses.py for loop.py) come
    before those of CLOSE, each a group.
    """
    stem = mirrored(module).removesuffix(".py")
    own = tuple(sorted(name for name in test_files if name == f"{stem}.py" or name.startswith(f"{stem}_")))
    groups: list[tuple[str, ...]] = []
    for group in (*((name,) for name in own), *CLOSE.get(module, ())):
        known = {name for earlier in groups for name in earlier}
        fresh = tuple(name for name in group if name in test_files and name not in known)
        groups += [fresh] if fresh else []
    return tuple(groups)
