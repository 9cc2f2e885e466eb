"""Evaluation on a small data set, with golden weights in place of the published ones."""

import json
import shutil

import numpy as np
import pytest
import torch
from munch import Munch
from PIL import Image

import main
from core.data_loader import get_test_loader, get_train_loader
from core.evaluation.evaluator import Evaluation, Scores
from core.evaluation.scores import write_scores
from core.images.io import read_rgb
from core.model import build_model
from core.solver import Solver
from core.system.errors import UserError
from metrics import fid, lpips
from metrics.stats import frechet_distance, kernel_distance
from tests.command import NARROW, as_flags

FLAGS = f"{NARROW} --num_workers 0 --num_outs_per_domain 3 --val_batch_size 2"


@pytest.fixture(scope="module")
def data(faces, tmp_path_factory):
    """Two domains of 4 training images; 3 and 1 validation images."""
    folder = tmp_path_factory.mktemp("data")
    for part, domain, count in (
        ("train", "bear", 4),
        ("train", "cat", 4),
        ("val", "bear", 3),
        ("val", "cat", 1),
    ):
        (folder / part / domain).mkdir(parents=True)
        for number in range(count):
            shutil.copy(faces / part / domain / f"{number:05d}.png", folder / part / domain)
    return folder


def evaluation(data, folder, **options):
    size = {"img_size": 32, "outputs": 3, "batch_size": 2, "device": torch.device("cpu"), "fit": lambda work: work(2)}
    return Evaluation(["bear", "cat"], data / "train", data / "val", folder, **{**size, **options})


@pytest.fixture(scope="module")
def nets():
    return build_model(main.parse_args(["--mode", "eval", *NARROW.split()]))[1]


def images_of(folder):
    return [read_rgb(path) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("mode", ["latent", "reference"])
def test_scores_are_those_of_the_files_it_writes(mode, nets, data, torch_cache, tmp_path):
    """FID and KID again from the PNG files and the training images, by way of whole arrays."""
    found = evaluation(data, tmp_path).run(nets, mode, seed=1)
    assert list(found) == ["bear2cat", "cat2bear"]
    names = sorted(path.name for path in (tmp_path / "bear2cat").iterdir())
    assert names == [f"{image:04d}_{output:02d}.png" for image in (1, 2, 3) for output in (1, 2, 3)]
    network = fid.pretrained("cpu")
    for task, scores in found.items():
        trg = task.partition("2")[2]
        sets = [images_of(folder) for folder in (data / "train" / trg, tmp_path / task)]
        features = [network(torch.stack([fid.eval_transform(image, 32) for image in images])) for images in sets]
        moments = [m for f in features for m in (f.double().mean(0).numpy(), np.cov(f.double().numpy(), rowvar=False))]
        assert pytest.approx(frechet_distance(*moments), rel=1e-4) == scores.FID
        assert pytest.approx(kernel_distance(*features), rel=1e-4) == scores.KID


def test_diversity_is_the_mean_over_pairs_and_batches(nets, data, torch_cache, tmp_path):
    """The pictures before rounding, drawn again; their LPIPS by the function of the reference."""
    evaluated = evaluation(data, tmp_path, save_images=False)
    drawn, draw = [], evaluated._draw
    evaluated._draw = lambda generator, content, s_trg, size: drawn.append(
        generator.render(content, s_trg)) or draw(generator, content, s_trg, size)  # fmt: skip
    _, diversity = evaluated.task(nets, "bear", "cat", None, seed=1)
    batches = [drawn[:3], drawn[3:]]  # sources 1 and 2, then 3
    assert [len(images[0]) for images in batches] == [2, 1]
    expected = np.mean([lpips.calculate_lpips_given_images(group) for group in batches])
    assert diversity == pytest.approx(expected, rel=1e-5) and diversity > 0
    assert not (tmp_path / "bear2cat").exists()


def test_outputs_depend_on_seed_and_source_alone(nets, data, torch_cache, tmp_path):
    def pictures(name, batch_size, seed):
        evaluation(data, tmp_path / name, batch_size=batch_size).task(nets, "bear", "cat", None, seed)
        return np.stack([np.asarray(image).astype(int) for image in images_of(tmp_path / name / "bear2cat")])

    one, whole, other = pictures("one", 1, 1), pictures("whole", 8, 1), pictures("other", 8, 2)
    assert np.abs(one - whole).max() <= 1 < np.abs(other - whole).max()


def test_references_of_a_source_differ_while_there_are(nets, data, torch_cache, tmp_path):
    evaluated = evaluation(data, tmp_path, outputs=3)
    references = evaluated.reference_codes(nets.style_encoder, "bear")
    chances = [torch.Generator().manual_seed(number) for number in range(4)]
    chosen = evaluated._chosen(references, chances)
    assert chosen.shape == (3, 4, 64)
    for source in range(4):
        assert len(torch.unique(chosen[:, source], dim=0)) == 3
    assert evaluated._chosen(references[:1], chances).shape == (3, 4, 64)


def test_real_features_are_made_once(data, torch_cache, tmp_path):
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    first = evaluation(copied, tmp_path).real_features("bear")
    again = evaluation(copied, tmp_path)
    again.inception = None  # must not be asked
    for a, b in zip(first, again.real_features("bear"), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    Image.new("RGB", (32, 32), "red").save(copied / "train" / "bear" / "00000.png")
    assert not torch.equal(evaluation(copied, tmp_path).real_features("bear").mean, first.mean)
    caches = list(tmp_path.glob("real_bear_*.npz"))
    assert len(caches) == 2
    for cache in caches:
        cache.write_bytes(cache.read_bytes()[:1000])  # damaged: made again
    assert evaluation(copied, tmp_path).real_features("bear").mean.isfinite().all()


def test_what_cannot_be_evaluated(data, torch_cache, tmp_path, capsys):
    folders = {"train_img_dir": data / "train", "val_img_dir": data / "val", "checkpoint_dir": tmp_path / "c",
               "sample_dir": tmp_path / "s", "eval_dir": tmp_path / "e"}  # fmt: skip
    small = FLAGS.replace("--img_size 32", "--img_size 16")
    assert (
        main.main(["--mode", "train", *small.split(), "--total_iters", "2", "--eval_every", "1", *as_flags(folders)])
        == 2
    )
    assert "32 px or more" in capsys.readouterr().err
    with pytest.raises(UserError, match="equal names"):
        shutil.copytree(data, tmp_path / "data")
        for part in ("train", "val"):
            for name, new in (("bear", "2"), ("cat", "22")):
                (tmp_path / "data" / part / name).rename(tmp_path / "data" / part / new)
        size = {
            "img_size": 32,
            "outputs": 3,
            "batch_size": 2,
            "device": torch.device("cpu"),
            "fit": lambda work: work(2),
        }
        Evaluation(["2", "22"], tmp_path / "data" / "train", tmp_path / "data" / "val", tmp_path, **size)


def test_a_score_that_cannot_be_computed_is_null(tmp_path):
    """One output has no pairs, one training image no kernel distance; several seeds have no deviation then."""
    by_seed = {seed: {"a2b": Scores(float(seed), float("nan"), 0.5)} for seed in (1, 3)}
    means = write_scores(tmp_path, 7, "latent", by_seed, {})
    assert means == {
        "FID": 2.0,
        "FID_std": pytest.approx(2**0.5),
        "KID": None,
        "KID_std": None,
        "LPIPS": 0.5,
        "LPIPS_std": 0,
    }
    content = json.loads((tmp_path / "KID_00007_latent.json").read_text())
    assert content["KID_latent/a2b"] is None and content["std"]["KID_latent/mean"] is None
    assert json.loads((tmp_path / "scores.jsonl").read_text())["FID"] == 2.0


@pytest.fixture(scope="module")
def trained(data, torch_cache, tmp_path_factory):
    """A run of two iterations that evaluates after each."""
    folder = tmp_path_factory.mktemp("run")
    folders = {"train_img_dir": data / "train", "val_img_dir": data / "val", "checkpoint_dir": folder / "checkpoints",
               "sample_dir": folder / "samples", "eval_dir": folder / "eval"}  # fmt: skip
    line = f"{FLAGS} --batch_size 2 --total_iters 2 --eval_every 1 --save_eval_images false"
    assert main.main(["--mode", "train", *line.split(), *as_flags(folders)]) == 0
    return folders


def test_training_evaluates(trained):
    history = [json.loads(line) for line in (trained["eval_dir"] / "scores.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["mode"]) for entry in history] == [
        (1, "latent"), (1, "reference"), (2, "latent"), (2, "reference")]  # fmt: skip
    assert all(entry["FID"] > 0 and entry["LPIPS"] is not None for entry in history)


def test_a_training_is_not_lost_to_its_evaluation(data, torch_cache, tmp_path, capsys):
    """A validation image that breaks meanwhile costs the score of that step only."""
    shutil.copytree(data, tmp_path / "data")
    broken = tmp_path / "data" / "val" / "bear" / "00002.png"  # not among the two that snapshots show
    folders = {"train_img_dir": data / "train", "val_img_dir": tmp_path / "data" / "val", "eval_dir": tmp_path / "eval"}
    folders |= {"checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}
    args = main.parse_args(["--mode", "train", *FLAGS.split(), "--total_iters", "1", "--eval_every", "1",
                            "--batch_size", "2", "--num_domains", "2", *as_flags(folders)])  # fmt: skip
    args.domains = ["bear", "cat"]
    solver = Solver(args)
    loaders = Munch(
        src=get_train_loader(data / "train", "source", 32, 2, num_workers=0, stop=1),
        ref=get_train_loader(data / "train", "reference", 32, 2, num_workers=0, stop=1),
        val=get_test_loader(data / "val", 32, 2, num_workers=0),
    )
    broken.write_text("not an image")
    solver.train(loaders)
    said = capsys.readouterr().err
    assert "step 1 is not scored" in said and "00002.png cannot be read" in said
    assert (tmp_path / "checkpoints" / "000001_nets.ckpt").exists()


def test_mode_eval(trained, capsys):
    flags = "--num_workers 0 --device cpu --num_outs_per_domain 3 --val_batch_size 2 --eval_seeds 0-1"
    assert main.main(["--mode", "eval", *flags.split(), *as_flags(trained)]) == 0
    said = capsys.readouterr()
    assert "Scores of step 2:" in said.out and "fewer than 2048 training images in bear, cat" in said.err
    names = {path.name for path in trained["eval_dir"].glob("*_00002_*.json")}
    assert names == {
        f"{metric}_00002_{mode}.json" for metric in ("FID", "KID", "LPIPS") for mode in ("latent", "reference")
    }
    scores = json.loads((trained["eval_dir"] / "LPIPS_00002_reference.json").read_text())
    assert {"LPIPS_reference/bear2cat", "LPIPS_reference/cat2bear", "LPIPS_reference/mean"} < set(scores)
    mean = (scores["LPIPS_reference/bear2cat"] + scores["LPIPS_reference/cat2bear"]) / 2
    assert scores["LPIPS_reference/mean"] == pytest.approx(mean)
    assert scores["seeds"] == [0, 1] and scores["step"] == 2 and scores["validation_images"] == {"bear": 3, "cat": 1}
    assert set(scores["std"]) == {name for name in scores if name.startswith("LPIPS_")}
    assert scores["weights"].keys() == {"inception", "alexnet"} and scores["precision"] == "fp32"
    table = [line.split() for line in said.out.splitlines() if line.startswith("  reference")]
    assert [row[1] for row in table] == ["bear2cat", "cat2bear", "mean"]
    assert float(table[-1][-3]) == pytest.approx(scores["LPIPS_reference/mean"], abs=1e-4)


def test_missing_weights_are_told_before_anything_is_done(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    fid.pretrained.cache_clear()
    lpips.pretrained.cache_clear()

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    folders = {**trained, "eval_dir": tmp_path / "eval", "checkpoint_dir": tmp_path / "checkpoints"}
    line = f"{FLAGS} --batch_size 2 --total_iters 2"
    assert main.main(["--mode", "train", *line.split(), "--eval_every", "2", *as_flags(folders)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        fid.WEIGHTS.url in error
        and lpips.WEIGHTS.url in error
        and "inception_v3_google" in error
        and "--eval_every 0" in error
    )
    assert not list((tmp_path / "checkpoints").glob("0*")) and not (tmp_path / "eval").exists()
    assert main.main(["--mode", "train", *line.split(), "--eval_every", "0", *as_flags(folders)]) == 0
    flags = "--num_workers 0 --device cpu"
    assert main.main(["--mode", "eval", *flags.split(), *as_flags({**trained, "eval_dir": tmp_path / "eval"})]) == 2
    assert not (tmp_path / "eval").exists()
