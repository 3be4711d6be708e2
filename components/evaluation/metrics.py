"""The figures of the evaluation: of each its key in metrics.json, its meaning, and which way is better."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Literal, NamedTuple

from components.evaluation.pretrained.figures import FIGURES
from core.metric_keys import standard_error_key

# Digit scenes whose objects are known, an image with a caption, an image, text without images.
Content = Literal["scenes", "captions", "images", "text"]


class Metric(NamedTuple):
    meaning: str
    better: Literal["higher", "lower"]
    compares: bool = True
    """Whether two models are compared by it: it is of the model, and measured item by item."""


class Figure(NamedTuple):
    """A measured figure."""

    key: str
    value: float
    standard_error: float | None
    metric: Metric

    def text(self, digits: int) -> str:
        """The value, and its standard error where it has one: "0.961 +- 0.007"."""
        error = "" if self.standard_error is None else f" +- {self.standard_error:.{digits}f}"
        return f"{self.value:.{digits}f}{error}"


# By a kind of generated captions: what follows "captions/", and what its captions are.
CAPTIONS = {"": "captions of the likeliest tokens", "sampled/": "captions sampled at temperature 1"}
CAPTION_SCORES = {
    "cider": "CIDEr-D against all of a picture's captions, 0 to 10 (papers print it times 100)",
    "bleu4": "BLEU-4 against all of a picture's captions, 0 to 1, over all pictures together",
    "rouge_l": "ROUGE-L against all of a picture's captions, 0 to 1",
    "exact": "share that is one of the picture's captions, word for word",
}

# Of the demonstration's scenes, as GenEval cuts them; a picture is right or wrong as a whole.
CUTS = {
    "one_object": "of pictures that are to show one object, share that show its digit",
    "two_objects": "of pictures that are to show two objects, share that show both digits",
    "counting": "share of pictures with as many objects as there are to be",
    "colour": "of pictures that are to show one object, share that show its digit in its colour",
    "position": "share of pictures with every digit at its place, whatever the colours",
    "attribution": "of pictures that are to show two objects or more, share with every digit in its colour, wherever it is",
    "pairs_never_shown": "of pictures with a digit-colour pair that training never showed, share that show it",
}
# What the digit classifier read: how well the model composes, and the most that the classifier lets it reach.
COMPOSITION = {
    "composition": "generated pictures",
    "composition_on_real": "real held-out scenes: the classifier's own ceiling",
    "composition_on_reconstructed": "the same scenes after the autoencoder",
}

# A key that does not apply to the corpora (no scenes, no prose, no images) is absent from metrics.json. A key with a * is
# there once a noise level, or once a guidance scale (`axis_of`). Shares measured on scenes have their standard error beside
# them, at `standard_error_key`.
METRICS: dict[str, Metric] = {
    "text_to_image/objects_right": Metric(
        "share of prompted objects generated in the right digit, colour and place, as the classifier reads them; seen pairs",
        "higher",
    ),
    "text_to_image/scenes_right": Metric(
        "share of those scenes that show exactly the prompted objects and nothing more", "higher"
    ),
    "text_to_image/digit_right": Metric("share of prompted objects with the right digit at their place", "higher"),
    "text_to_image/colour_right": Metric("share of prompted objects with the right colour at their place", "higher"),
    "text_to_image/place_right": Metric("share of prompted objects with any digit at their place", "higher"),
    "text_to_image/objects_right_kept_out": Metric(
        "the same as objects_right for digit-colour pairs that training never showed, those objects alone", "higher"
    ),
    "text_to_image/scenes_right_kept_out": Metric("share of scenes right among those that hold a kept-out pair", "higher"),
    "text_to_image/objects_right_new_prompts": Metric(
        "the same as objects_right for the prompts that are no training document's caption, word for word", "higher"
    ),
    "text_to_image/new_prompts": Metric(
        "share of the prompts of seen pairs that are no training document's caption", "higher", compares=False
    ),
    "text_to_image/judge_on_real": Metric(
        "share of objects of real held-out scenes that the classifier reads rightly: its own accuracy", "higher", compares=False
    ),
    "text_to_image/judge_scenes_on_real": Metric(
        "share of real held-out scenes that the classifier reads wholly rightly", "higher", compares=False
    ),
    "text_to_image/judge_on_reconstructed": Metric(
        "the classifier's objects right on the same scenes after the autoencoder: the best generation could reach",
        "higher",
    ),
    **{
        f"{family}/{cut}": Metric(f"{pictures}: {meaning}", "higher", compares=family != "composition_on_real")
        for family, pictures in COMPOSITION.items()
        for cut, meaning in CUTS.items()
        # No real scene shows such a pair.
        if family == "composition" or cut != "pairs_never_shown"
    },
    "image_to_text/objects_right": Metric(
        "share of real held-out scenes' objects named rightly in captions; an extra one counts as wrong",
        "higher",
    ),
    "image_to_text/scenes_right": Metric("share of generated captions that name exactly the scene's objects", "higher"),
    "image_to_text/objects_right_new_captions": Metric(
        "the same as objects_right for the scenes whose own caption no training document has, word for word", "higher"
    ),
    "image_to_text/new_captions": Metric(
        "share of those scenes whose own caption no training document has", "higher", compares=False
    ),
    "image_to_text/captions_readable": Metric("share of generated captions in one of the corpus's phrasings", "higher"),
    **{
        f"captions/{kind}{score}": Metric(f"of {captions}: {meaning}", "higher", compares=score != "bleu4")
        for kind, captions in CAPTIONS.items()
        for score, meaning in CAPTION_SCORES.items()
    },
    "text/bits_per_byte": Metric("bits the model needs for a byte of held-out prose", "lower"),
    "text/perplexity": Metric(
        "two to the bits for a token of the same prose; compares models of one tokenizer alone", "lower", compares=False
    ),
    "text/xz_bits_per_byte": Metric("bits that xz -9 needs for a byte of the same prose", "lower", compares=False),
    "text/zstd_bits_per_byte": Metric("bits that zstd -19 needs for a byte of it", "lower", compares=False),
    "text/ppmd_bits_per_byte": Metric("bits that PPMd (order 32) needs for a byte of it", "lower", compares=False),
    "text/ngram_bits_per_byte": Metric(
        "bits that a byte 5-gram of the same training prose needs for a byte of it", "lower", compares=False
    ),
    "image/diffusion_loss": Metric(
        "mean squared error on the predicted target of held-out images, over fixed noise levels", "lower"
    ),
    "conditioning/wrong_caption_gap": Metric(
        "diffusion loss under another image's caption minus that under the right one; 0: captions are ignored",
        "higher",
    ),
    "retrieval/caption_at_1": Metric(
        "share of held-out images whose own caption, of a few, is the one that the image makes likelier most", "higher"
    ),
    "retrieval/image_at_1": Metric(
        "share of held-out captions whose own image, of a few, is the one whose diffusion loss the caption lowers most",
        "higher",
    ),
    "retrieval/chance": Metric("what guessing reaches in both: one of as many as a group holds", "lower", compares=False),
    "image/x0_error/*": Metric(
        "squared error of the clean latent that the prediction implies, at this noise level of the cosine schedule", "lower"
    ),
    "image/x0_error_of_mean": Metric(
        "the same error, at any noise, of answering with the mean of these latents", "lower", compares=False
    ),
    "conditioning/wrong_caption_x0_gap/*": Metric(
        "the clean latent's error under another image's caption minus that under the right one, there", "higher"
    ),
    "distribution/frechet": Metric(
        "Frechet distance of generated to held-out pictures in whitened features of the corpus' autoencoder (no FID)",
        "lower",
        compares=False,
    ),
    "distribution/frechet_floor": Metric(
        "the same distance of as many training pictures to the held-out ones: what equal sets of this size reach",
        "lower",
        compares=False,
    ),
    "distribution/kid": Metric("kernel distance of the same pictures in the same features; 0: alike", "lower", compares=False),
    "distribution/kid_floor": Metric("the same of as many training pictures to the held-out ones", "lower", compares=False),
    "distribution/precision": Metric(
        "share of generated pictures that lie among held-out ones (within a third neighbour's distance), in those features",
        "higher",
    ),
    "distribution/recall": Metric("share of held-out pictures that lie among generated ones, likewise", "higher"),
    "distribution/density": Metric(
        "how many held-out pictures' fifth-neighbour balls hold a generated picture, over 5; 1 where sets are alike", "higher"
    ),
    "distribution/coverage": Metric(
        "share of held-out pictures with a generated one nearer than their fifth held-out neighbour", "higher"
    ),
    **{key: Metric(*words) for key, words in FIGURES.items()},
    "memorisation/flagged_share": Metric(
        "share of generated pictures nearer to a training picture than all but a few held-out ones are (evaluate.memorisation)",
        "lower",
    ),
    "guidance/objects_right/*": Metric("objects right in the pictures of held-out captions, at this guidance scale", "higher"),
    "guidance/frechet/*": Metric("distribution/frechet of fewer pictures, at this guidance scale", "lower", compares=False),
    "guidance/kid/*": Metric("distribution/kid of fewer pictures, at this guidance scale", "lower", compares=False),
    "guidance/precision/*": Metric("distribution/precision of fewer pictures, at this guidance scale", "higher"),
    "guidance/recall/*": Metric("distribution/recall of fewer pictures, at this guidance scale", "higher"),
    "guidance/density/*": Metric("distribution/density of fewer pictures, at this guidance scale", "higher"),
    "guidance/coverage/*": Metric("distribution/coverage of fewer pictures, at this guidance scale", "higher"),
}

# What the corpora must hold for the figures whose key begins so; images for all others.
NEEDS: dict[str, Content] = {
    "text_to_image/": "scenes",
    "image_to_text/": "scenes",
    "text/": "text",
    "conditioning/": "captions",
    "retrieval/": "captions",
    "captions/": "captions",
    "clip/": "captions",
    "guidance/objects_right": "scenes",
}
# Squared errors of latents: they mean the same for two models of one autoencoder alone, and those of the network's own target
# for models of one diffusion process too.
OF_LATENTS = ("image/", "conditioning/")
OF_TARGETS = ("image/diffusion_loss", "conditioning/wrong_caption_gap")
# Measured in the autoencoder's features, which training pictures whiten.
OF_FEATURES = (
    "distribution/",
    *(f"guidance/{score}/" for score in ("frechet", "kid", "precision", "recall", "density", "coverage")),
)
# What the settings of the evaluation begin with that decide how an item of a figure is asked and judged, where the figure's key
# begins so; all of them for others. The settings of the model, and how many items there are, are not among them.
SETTINGS: dict[str, tuple[str, ...]] = {
    "text/": (),
    "text_to_image/": ("seed", "digit_classifier."),
    "composition": ("seed", "digit_classifier."),
    "image_to_text/": (),
    "captions/sampled/": ("seed",),
    "captions/": (),
    "image/diffusion_loss": ("seed", "loss_times"),
    "image/x0_error": ("seed", "x_0_error_times"),
    "conditioning/wrong_caption_gap": ("seed", "loss_times"),
    "conditioning/wrong_caption_x0_gap/": ("seed", "x_0_error_times"),
    "retrieval/": ("seed", "retrieval.group_size", "retrieval.noise_levels"),
    "distribution/": ("seed", "num_training_pictures"),
    "clip/": ("seed", "weights.clip"),
    "memorisation/": ("seed", "memorisation."),
    "guidance/": ("seed", "digit_classifier.", "num_training_pictures"),
}
# Ends in a * in METRICS: the figures of one curve.
OF_CURVE = "/*"

Axis = Literal["noise", "guidance"]
"""What a curve goes over, in hundredths: MLflow's steps are whole numbers."""


# What `dvc metrics show`, `dvc exp show` and MLflow's charts show: few figures with short names, so that a screen holds them.
HEADLINE = {
    "objects": "text_to_image/objects_right",
    "kept_out": "text_to_image/objects_right_kept_out",
    "captions": "image_to_text/objects_right",
    "text_at_1": "retrieval/caption_at_1",
    "image_at_1": "retrieval/image_at_1",
    "cider": "captions/cider",
    "bits_per_byte": "text/bits_per_byte",
    "image_loss": "image/diffusion_loss",
    "caption_gap": "conditioning/wrong_caption_gap",
}


def headline(values: Mapping[str, float]) -> dict[str, float]:
    """The figures of HEADLINE that were measured, by their short names."""
    return {name: values[key] for name, key in HEADLINE.items() if key in values}


def metric_of(key: str) -> Metric | None:
    """What the figure at a key of metrics.json is; None for any other key, a standard error's among them."""
    return next((metric for pattern, metric in METRICS.items() if fnmatch.fnmatchcase(key, pattern)), None)


def axis_of(pattern: str) -> Axis:
    """Of a key of METRICS that ends in a *, or of its name."""
    return "guidance" if pattern.startswith("guidance/") else "noise"


def curve_name(name: str) -> str:
    """Short enough for the lists of MLflow's pages: "by noise/x0_error"."""
    return f"by {axis_of(name)}/{name.rpartition('/')[2]}"


def needs(key: str) -> Content:
    """What the corpora must hold for a figure to be measured."""
    for beginning, content in NEEDS.items():
        if key.startswith(beginning):
            return content
    return "images"


def settings_behind(key: str) -> tuple[str, ...]:
    """What the settings begin with that decide how an item of a figure is asked and judged; "" begins every one."""
    return next((settings for beginning, settings in SETTINGS.items() if key.startswith(beginning)), ("",))


def curves(values: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Of each figure that is measured once a noise level or guidance scale: hundredths of that -> value."""
    names = [pattern.removesuffix(OF_CURVE) for pattern in METRICS if pattern.endswith(OF_CURVE)]
    found = {name: fnmatch.filter(values, f"{name}/*") for name in names}
    return {
        name: {round(100 * float(key.rpartition("/")[2])): values[key] for key in keys} for name, keys in found.items() if keys
    }


def table(values: Mapping[str, float]) -> list[Figure]:
    """Every measured figure, in the order of METRICS."""
    return [
        Figure(key, values[key], values.get(standard_error_key(key)), metric)
        for pattern, metric in METRICS.items()
        for key in fnmatch.filter(values, pattern)
    ]
