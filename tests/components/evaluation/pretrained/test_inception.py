"""FID and KID by a TorchScript file: torchmetrics' own figures, and no number where the file is not the right one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from components.evaluation.distribution import distances
from components.evaluation.generated import HeldOutPictures
from components.evaluation.held_out import ImageDocument, Stored
from components.evaluation.pretrained import inception
from components.evaluation.pretrained.inception import NUM_FEATURES, measure_fid
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.training_facts import TrainingFacts
from core.files import sha256
from core.png import encode_png
from core.tokenizer import TextTokenizer
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion

SEED, NUM, SIDE = 61, 14, 8


class Stub(nn.Module):
    """Called as Inception's file is; its features are of the picture's parts, and not linear in them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.weight = nn.Parameter(torch.randn(3 * 16, width))

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        parts = torch.nn.functional.adaptive_avg_pool2d(img.float() / 255, (4, 4)).flatten(1)
        return torch.relu(parts @ self.weight) if return_features else parts


class Features(nn.Module):
    """As torchmetrics calls a network."""

    def __init__(self, network: nn.Module, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        # In a list, so that torchmetrics leaves its weights in single precision.
        self.network = [network]

    def forward(self, images: Tensor) -> Tensor:
        return self.network[0](images, return_features=True).double()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.jit.script(Stub(NUM_FEATURES)).save(tmp_path / "inception.pt")
    return tmp_path / "inception.pt"


@pytest.fixture
def target(model: Transfusion, tokenizer: TextTokenizer) -> EvaluationTarget:
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "sample_side_px": SIDE}
    return EvaluationTarget(model, Autoencoder.create(block_channels=(8, 8), **shape).eval(), tokenizer)


def images(seed: int, darkest: int = 0) -> np.ndarray:
    return np.random.default_rng([SEED, seed]).integers(darkest, 256, (NUM, SIDE, SIDE, 3), np.uint8)


def sets() -> tuple[HeldOutPictures, TrainingFacts]:
    stored = Stored(np.zeros(3, np.int64), np.zeros((1, 4, 4, 4), np.float32))
    documents = [
        ImageDocument(f"c/{number}", stored, "a caption", (encode_png(each),), None, ())
        for number, each in enumerate(images(0))
    ]
    training = TrainingFacts([], [], frozenset(), tuple(encode_png(each) for each in images(2)))
    return HeldOutPictures(documents, images(1, 90)), training


def test_the_figures_are_torchmetrics(target: EvaluationTarget, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 2,048 features torchmetrics would need ten seconds; of these, too, there are more than pictures.
    width = 64
    monkeypatch.setattr(inception, "NUM_FEATURES", width)
    torch.jit.script(Stub(width)).save(file)
    pictures, training = sets()
    results = Results()
    measure_fid(results, target, pictures, training, str(file), SEED)
    real, generated, trained = (
        torch.from_numpy(each).permute(0, 3, 1, 2) for each in (np.stack([*pictures.real()]), pictures.generated, images(2))
    )
    network = Features(Stub(width).eval(), width)
    for suffix, shown in (("", generated), ("_floor", trained)):
        fid = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
        kid = KernelInceptionDistance(feature=network, subsets=1, subset_size=NUM).set_dtype(torch.float64)
        for metric in (fid, kid):
            metric.update(real, real=True)
            metric.update(shown, real=False)
        assert results.metrics[f"fid/frechet{suffix}"] == pytest.approx(float(fid.compute()), rel=1e-4)
        assert results.metrics[f"fid/kid{suffix}"] == pytest.approx(float(kid.compute()[0]), rel=1e-6)
    assert set(results.intervals) == set(results.metrics)
    assert all(low < results.metrics[key] < high for key, (low, high, _) in results.intervals.items())
    assert results.metrics["fid/frechet"] > 2 * results.metrics["fid/frechet_floor"]
    assert results.facts["fid"]["weights_sha256"] == sha256(file)
    assert results.notes == []


def test_a_floor_of_fewer_training_pictures_is_a_note(target: EvaluationTarget, file: Path) -> None:
    pictures, training = sets()
    whole, results = Results(), Results()
    measure_fid(whole, target, pictures, training, str(file), SEED)
    measure_fid(results, target, pictures, training._replace(pictures=training.pictures[:9]), str(file), SEED)
    assert results.metrics == {key: value for key, value in whole.metrics.items() if not key.endswith("_floor")}
    assert set(results.intervals) == set(results.metrics) == {"fid/frechet", "fid/kid"}
    assert results.notes == [
        "the floor of FID needs as many training pictures as held-out ones, 14, and the evaluation has 9: it is not measured"
    ]
    assert whole.facts["fid"]["num_training_pictures_of_the_floor"] == NUM
    assert results.facts["fid"]["num_training_pictures_of_the_floor"] == 0


def test_of_many_pictures_there_is_fid_without_an_interval_and_a_note(
    target: EvaluationTarget, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "LARGEST_RESAMPLED", 13)
    results = Results()
    measure_fid(results, target, *sets(), str(file), SEED)
    assert set(results.metrics) == {"fid/frechet", "fid/frechet_floor", "fid/kid", "fid/kid_floor"}
    assert set(results.intervals) == {"fid/kid", "fid/kid_floor"}
    (note,) = results.notes
    assert note.startswith("FID of 14 pictures has no interval")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "evaluate.weights.inception is empty: FID is not run"),
        ("missing", "is not there: FID is not run"),
        ("no network", "is not Inception as one TorchScript file"),
        ("narrow", "gives (1, 64) numbers for a picture and not (1, 2048)"),
        ("few pictures", "FID needs 10 held-out pictures, and there are 9"),
    ],
)
def test_without_the_network_there_is_a_sentence_and_no_number(
    target: EvaluationTarget, file: Path, tmp_path: Path, kind: str, says: str
) -> None:
    pictures, training = sets()
    path = {"empty": "", "missing": str(tmp_path / "nowhere.pt"), "no network": str(tmp_path / "other.pt")}.get(kind, str(file))
    (tmp_path / "other.pt").write_bytes(b"no archive")
    if kind == "narrow":
        torch.jit.script(Stub(64)).save(path)
    if kind == "few pictures":
        pictures = HeldOutPictures(pictures.documents[:9], pictures.generated[:9])
    results = Results()
    measure_fid(results, target, pictures, training, path, SEED)
    assert results.metrics == {} and results.facts == {}
    (note,) = results.notes
    assert says in note and note.endswith("not run")
