"""--mode eval, and the evaluation of a training, with golden weights in place of the published ones."""

import json
import shutil

import numpy as np
import pytest
import torch
from munch import Munch

import main
from core.data_loader import get_test_loader, get_train_loader
from core.evaluation.evaluator import Evaluation
from core.evaluation.per_image import PerImage
from core.evaluation.scores import METRICS
from core.images import check
from core.solver import Solver
from core.system.errors import UserError
from core.system.memory import MicroBatch
from metrics import fid, lpips, transfer
from metrics.pairs import pair_scores
from metrics.stats import frechet_distance
from tests.browser import Visit, browser
from tests.command import NARROW, as_flags, config_of
from tests.evaluations import evaluation, images_of, networks


@pytest.fixture(scope="module")
def nets():
    return networks()


FLAGS = f"{NARROW} --num_workers 0 --num_outs_per_domain 3 --val_batch_size 2"


def test_unsuitable_sizes_and_domain_names_are_refused(two_domains, torch_cache, tmp_path, capsys):
    folders = {"train_img_dir": two_domains / "train", "val_img_dir": two_domains / "val"}
    folders |= {"checkpoint_dir": tmp_path / "c", "sample_dir": tmp_path / "s", "eval_dir": tmp_path / "e"}
    small = FLAGS.replace("--img_size 32", "--img_size 16")
    assert (
        main.main(["--mode", "train", *small.split(), "--total_iters", "2", "--eval_every", "1", *as_flags(folders)])
        == 2
    )
    assert "evaluation needs at least 2 domains and 32 px" in capsys.readouterr().err
    with pytest.raises(UserError, match="equal names"):
        shutil.copytree(two_domains, tmp_path / "data")
        for part in ("train", "val"):
            for name, new in (("bear", "2"), ("cat", "22")):
                (tmp_path / "data" / part / name).rename(tmp_path / "data" / part / new)
        folders = {"train_dir": tmp_path / "data" / "train", "val_dir": tmp_path / "data" / "val", "eval_dir": tmp_path}
        size = {"img_size": 32, "outputs": 3, "batch_size": 2, "device": torch.device("cpu")}
        Evaluation(["2", "22"], **folders, **size, inference_batch=MicroBatch(2, 2))


@pytest.fixture(scope="module")
def trained(two_domains, torch_cache, tmp_path_factory):
    """A run of two iterations that evaluates after each."""
    folder = tmp_path_factory.mktemp("run")
    folders = {"train_img_dir": two_domains / "train", "val_img_dir": two_domains / "val"}
    folders |= {name: folder / name.removesuffix("_dir") for name in ("checkpoint_dir", "sample_dir", "eval_dir")}
    line = f"{FLAGS} --batch_size 2 --total_iters 2 --eval_every 1 --save_eval_images false"
    assert main.main(["--mode", "train", *line.split(), *as_flags(folders)]) == 0
    return folders


def test_training_evaluates_every_eval_every_iterations(trained):
    history = [json.loads(line) for line in (trained["eval_dir"] / "scores.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["mode"]) for entry in history] == [
        (1, "latent"), (1, "reference"), (2, "latent"), (2, "reference")]  # fmt: skip
    assert all(entry["FID"] > 0 and entry["LPIPS"] is not None for entry in history)


def test_the_page_shows_scores_by_source_and_target_and_extreme_outputs(trained):
    with browser() as chromium:
        visit = Visit(chromium, trained["eval_dir"] / "index.html")
        view = visit.page
        assert view.title() == "StarGAN v2: scores of step 2"
        matrix = view.locator("figure", has_text="source_SSIM").first.locator("tr").all_inner_texts()
        scores = json.loads((trained["eval_dir"] / "source_SSIM_00002_latent.json").read_text())
        cells = [row.split("\t") for row in matrix]
        assert cells[0] == ["from", "to bear", "to cat"] and cells[1][:2] == ["bear", ""]
        assert float(cells[1][2]) == pytest.approx(scores["source_SSIM_latent/bear2cat"], rel=1e-4)
        assert visit.points()["accuracy"] == [2, 2]  # steps, in each mode
        for summary in view.locator("summary").all():
            summary.click()
        loaded = (
            "images => Promise.all(images.map(i => { i.loading = 'eager'; return i.decode().then(() => i.width); }))"
        )
        assert min(view.locator("img").evaluate_all(loaded)) > 0
        # In both modes, best and worst by two numbers of all 12 outputs, and by one of the first output of each source.
        assert view.locator("img").count() == 2 * 2 * (12 + 12 + 4)
        captions = view.locator("figcaption").all_inner_texts()
        assert any(text.endswith("cat/00000.png to bear, code 1, seed 777") for text in captions)
        assert not visit.errors and visit.overflow() <= 0


def test_a_failed_evaluation_does_not_stop_training(two_domains, torch_cache, tmp_path, capsys):
    """A validation image that becomes unreadable only costs the scores of that step."""
    shutil.copytree(two_domains, tmp_path / "data")
    broken = tmp_path / "data" / "val" / "bear" / "00002.png"  # not among the two that snapshots show
    folders = {
        "train_img_dir": two_domains / "train",
        "val_img_dir": tmp_path / "data" / "val",
        "eval_dir": tmp_path / "eval",
    }
    folders |= {"checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}
    line = (*FLAGS.split(), *["--total_iters", "1", "--eval_every", "1", "--batch_size", "2", "--num_domains", "2"])
    solver = Solver(config_of("train", *line, *as_flags(folders), domains=("bear", "cat")))
    loaders = Munch(
        src=get_train_loader(two_domains / "train", "source", 32, 2, num_workers=0, stop=1),
        ref=get_train_loader(two_domains / "train", "reference", 32, 2, num_workers=0, stop=1),
        val=get_test_loader(two_domains / "val", 32, 2, num_workers=0),
    )
    broken.write_text("not an image")
    solver.train(loaders)
    said = capsys.readouterr().err
    assert "Skipping the scores of step 1: " in said and "00002.png as an image (" in said
    assert (tmp_path / "checkpoints" / "000001_nets.ckpt").exists()


def test_eval_writes_and_prints_scores(trained, capsys):
    flags = "--num_workers 0 --device cpu --num_outs_per_domain 3 --val_batch_size 2 --eval_seeds 0-1"
    assert main.main(["--mode", "eval", *flags.split(), *as_flags(trained)]) == 0
    said = capsys.readouterr()
    assert (
        "Scores of step 2, outputs against real images:" in said.out
        and "Fewer than 2,048 training images in bear, cat" in said.err
    )
    names = {path.name for path in trained["eval_dir"].glob("*_00002_*.json")}
    assert names == {f"{metric}_00002_{mode}.json" for metric in METRICS for mode in ("latent", "reference")}
    scores = json.loads((trained["eval_dir"] / "LPIPS_00002_reference.json").read_text())
    assert {"LPIPS_reference/bear2cat", "LPIPS_reference/cat2bear", "LPIPS_reference/mean"} < set(scores)
    mean = (scores["LPIPS_reference/bear2cat"] + scores["LPIPS_reference/cat2bear"]) / 2
    assert scores["LPIPS_reference/mean"] == pytest.approx(mean)
    assert scores["seeds"] == [0, 1] and scores["step"] == 2 and scores["validation_images"] == {"bear": 3, "cat": 1}
    assert set(scores["std"]) == {name for name in scores if name.startswith("LPIPS_")}
    assert scores["weights"].keys() == {"inception", "alexnet"} and scores["arithmetic"] == "fp32"
    table = [line.split() for line in said.out.splitlines() if line.startswith("  reference")]
    assert [row[1] for row in table] == ["bear2cat", "cat2bear", "mean"] * 2
    assert float(table[-1][2]) == pytest.approx(scores["LPIPS_reference/mean"], abs=1e-4)
    rows = [json.loads(line) for line in (trained["eval_dir"] / "per_image.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 2 * (3 + 1) * 3 and {row["seed"] for row in rows} == {0, 1}
    mean = np.mean([row["source_SSIM"] for row in rows if row["mode"] == "latent" and row["domain"] == "cat"])
    ssim = json.loads((trained["eval_dir"] / "source_SSIM_00002_latent.json").read_text())
    assert ssim["source_SSIM_latent/bear2cat"] == pytest.approx(mean)
    assert 0 <= ssim["classifier_accuracy"] <= 1


def test_eval_skips_the_images_that_training_skips(trained, two_domains, tmp_path, monkeypatch, capsys):
    shutil.copytree(two_domains, tmp_path / "data")
    broken = tmp_path / "data" / "train" / "cat" / "00001.png"
    broken.write_bytes(broken.read_bytes()[:1000])
    (tmp_path / "data" / "val" / "bear" / "00002.png").write_text("text")
    folders = {"train_img_dir": tmp_path / "data" / "train", "val_img_dir": tmp_path / "data" / "val"}
    folders |= {"checkpoint_dir": trained["checkpoint_dir"], "eval_dir": tmp_path / "eval"}
    line = ["--mode", "eval", *f"{FLAGS} --resume_iter 2 --save_eval_images false".split(), *as_flags(folders)]
    assert main.main(line) == 2
    assert "Cannot read 1 of 8 images in --train_img_dir" in capsys.readouterr().err
    assert not list(tmp_path.glob("eval/*.npz")), "checked before anything is computed"
    monkeypatch.setattr(check, "MOST_BROKEN", 0.3)
    assert main.main(line) == 0
    said = capsys.readouterr().err
    assert "Found 1 unreadable image among 8 in --train_img_dir" in said and "00001.png. Evaluation skips" in said
    scores = json.loads((tmp_path / "eval" / "FID_00002_latent.json").read_text())
    assert scores["training_images"] == {"bear": 4, "cat": 3} and scores["validation_images"] == {"bear": 2, "cat": 1}


def test_missing_weights_are_reported_before_anything_is_written(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    fid.pretrained.cache_clear()
    lpips.pretrained.cache_clear()

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(transfer, "fetch", offline)
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


def test_scores_match_the_written_files(nets, two_domains, torch_cache, tmp_path):
    """Scores of sets computed again from the PNG files and the training images, without streaming."""
    evaluated, network = evaluation(two_domains, tmp_path), fid.pretrained("cpu")
    real = evaluated.real_images(nets)
    for mode in ("latent", "reference"):
        found = evaluated.run(nets, mode, 1, real, PerImage())
        assert list(found) == ["bear2cat", "cat2bear"]
        names = sorted(path.name for path in (tmp_path / "bear2cat").iterdir())
        assert names == [f"{image:04d}_{output:02d}.png" for image in (1, 2, 3) for output in (1, 2, 3)]
        for task, scores in found.items():
            images = [fid.eval_transform(image, 32) for image in images_of(tmp_path / task)]
            features = [real.sets[task.partition("2")[2]].kept, network(torch.stack(images))]
            if (mode, task) == ("latent", "bear2cat"):  # slow
                x, y = (part.double().numpy() for part in features)
                moments = x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)
                assert pytest.approx(frechet_distance(*moments), rel=1e-4) == scores.FID
            assert pytest.approx(pair_scores(*features).KID, rel=1e-4) == scores.KID
    for domain, features in real.sets.items():
        images = [fid.eval_transform(image, 32) for image in images_of(two_domains / "train" / domain)]
        torch.testing.assert_close(features.kept, network(torch.stack(images)), rtol=1e-4, atol=1e-4)
