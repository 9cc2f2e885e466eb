"""Evaluation on a small data set, with golden weights in place of the published ones."""

import shutil

import numpy as np
import pytest
import torch
from munch import Munch
from PIL import Image

from core import data_loader
from core import solver as solver_module
from core.evaluation import evaluator
from core.evaluation.features import ARRAYS, read_features
from core.evaluation.per_image import NUMBERS, PerImage
from core.images.io import read_rgb, to_uint8
from core.model import Content
from core.solver import Solver
from core.system.errors import Stopped
from metrics import lpips
from metrics.ssim import luma, ssim
from tests.command import NARROW, as_flags, config_of
from tests.evaluations import evaluation, images_of, networks


@pytest.fixture(scope="module")
def nets():
    return networks()


@pytest.fixture(scope="module")
def real(nets, two_domains, torch_cache, tmp_path_factory):
    return evaluation(two_domains, tmp_path_factory.mktemp("real")).real_images(nets)


def test_diversity_is_the_mean_over_pairs_and_batches(nets, real, two_domains, torch_cache, tmp_path):
    """LPIPS of the images before rounding, by the function of the reference."""
    evaluated = evaluation(two_domains, tmp_path, save_images=False)
    drawn, prepare = [], evaluated._prepare
    evaluated._prepare = lambda x_fake, luma: drawn.append(x_fake) or prepare(x_fake, luma)
    _, means = evaluated.task(nets, "bear", "cat", "latent", 1, real, PerImage())
    batches = [drawn[:3], drawn[3:]]  # sources 1 and 2, then 3
    assert [len(images[0]) for images in batches] == [2, 1]
    expected = np.mean([lpips.calculate_lpips_given_images(group) for group in batches])
    assert means["LPIPS"] == pytest.approx(expected, rel=1e-5) and means["LPIPS"] > 0
    assert not (tmp_path / "bear2cat").exists()


def test_numbers_of_an_image_compare_it_with_its_source(nets, real, two_domains, torch_cache, tmp_path):
    """Computed again from the files, and by a full pass of the generator there and back."""
    evaluated, per_image = evaluation(two_domains, tmp_path), PerImage()
    _, means = evaluated.task(nets, "bear", "cat", "reference", 1, real, per_image)
    rows, transform = list(per_image.rows()), data_loader.test_transform(32)
    assert [(row["source"], row["output"]) for row in rows] == [
        (f"bear/0000{n}.png", k) for n in range(3) for k in (1, 2, 3)
    ]
    assert {row["style"] for row in rows} == {"cat/00000.png"} and {row["domain"] for row in rows} == {"cat"}
    for n, source in enumerate(images_of(two_domains / "val" / "bear")):
        row, x_src = rows[3 * n], transform(source)[None]
        x_ref = transform(read_rgb(two_domains / "val" / "cat" / "00000.png"))[None]
        bear, cat = torch.tensor([0]), torch.tensor([1])
        x_fake = nets.generator(x_src, nets.style_encoder(x_ref, cat))
        x_back = nets.generator(x_fake, nets.style_encoder(x_src, bear))
        assert row["source_LPIPS"] == pytest.approx(lpips.calculate_lpips_given_images([x_src, x_fake]), rel=1e-3)
        cycle = lpips.calculate_lpips_given_images([x_src, x_back])
        assert row["cycle_LPIPS"] == pytest.approx(cycle, rel=1e-3)
        file = read_rgb(tmp_path / "bear2cat" / f"{n + 1:04d}_01.png")
        found = ssim(luma(to_uint8(x_src)), luma(np.asarray(file)[None]))
        assert row["source_SSIM"] == pytest.approx(found.item(), abs=1e-5)
        assert [other["cycle_LPIPS"] for other in rows[3 * n + 1 : 3 * n + 3]] == [None, None]
    for name in NUMBERS:
        assert means[name] == pytest.approx(np.mean([row[name] for row in rows if row[name] is not None]), rel=1e-6)


class Same(torch.nn.Module):
    """A generator that returns its source."""

    def content(self, x, masks=None):
        return Content(x, {})

    def render(self, content, s):
        return content.features

    def forward(self, x, s, masks=None):
        return x


def test_scores_of_the_identity(nets, real, two_domains, torch_cache, tmp_path):
    """Everything is kept, and nothing varies."""
    evaluated, per_image = evaluation(two_domains, tmp_path, outputs=2), PerImage()
    _, means = evaluated.task(Munch(nets, generator=Same()), "bear", "cat", "latent", 1, real, per_image)
    assert (means["source_LPIPS"], means["cycle_LPIPS"], means["LPIPS"]) == pytest.approx((0, 0, 0), abs=1e-9)
    assert means["source_SSIM"] == pytest.approx(1)
    assert all(row["source_SSIM"] == pytest.approx(1) for row in per_image.rows())


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_accuracy_falls_where_outputs_belong_to_another_domain(
    is_shuffled, nets, real, torch_cache, two_domains, tmp_path
):
    """The training images themselves take the place of outputs."""
    evaluated = evaluation(two_domains, tmp_path)
    found = evaluated._compare(real, "cat", real.sets["bear" if is_shuffled else "cat"])
    assert found["accuracy"] == (0 if is_shuffled else 1)
    assert (found["FID"] == pytest.approx(0, abs=1e-6)) != is_shuffled


def test_pictures_show_the_outputs_with_extreme_numbers(tmp_path):
    """Outputs arrive batch by batch; the best and worst 24 are those of the complete list."""
    values = np.random.default_rng(0).random((20, 3, 3))
    values[5, 1, 0], values[:, 1:, 2] = np.inf, np.nan
    per_image = PerImage()
    for first in range(0, 20, 4):
        for output in range(3):
            colours = 10 * output + np.arange(first, first + 4, dtype=np.uint8)
            image = np.tile(colours[:, None, None, None], (1, 64, 64, 3))
            numbers = torch.tensor(values[first : first + 4, output])
            per_image.add_pictures(range(first * 3 + output, (first + 4) * 3, 3), numbers, [[x, x] for x in image])
    names = [[f"code {k}" for k in range(3)]] * 20
    per_image.add_task({"domain": "cat"}, [f"{n}.png" for n in range(20)], names, torch.tensor(values))
    per_image.write_pictures(tmp_path)
    rows, written = list(per_image.rows()), set()
    for column, name in enumerate(NUMBERS):
        flat = [(v, 3 * n + k) for n in range(20) for k in range(3) if np.isfinite(v := values[n, k, column])]
        for sign in (1, -1):
            expected = sorted(flat, reverse=sign > 0)[:24]
            found = per_image.extremes(name, sign)
            assert [(rows[index][name], index) for index in found] == expected
            written |= set(found)
    for index in written:
        pixel = np.asarray(read_rgb(tmp_path / f"{index}.jpg"))
        assert pixel.shape == (64, 128, 3) and abs(int(pixel[0, 0, 0]) - (10 * (index % 3) + index // 3)) <= 1
    assert {path.name for path in tmp_path.iterdir()} == {f"{index}.jpg" for index in written}


def test_outputs_depend_only_on_seed_and_source(nets, real, two_domains, torch_cache, tmp_path):
    def pictures(name, batch_size, seed):
        evaluated = evaluation(two_domains, tmp_path / name, batch_size=batch_size)
        evaluated.task(nets, "bear", "cat", "latent", seed, real, PerImage())
        return np.stack([np.asarray(image).astype(int) for image in images_of(tmp_path / name / "bear2cat")])

    one, whole, other = pictures("one", 1, 1), pictures("whole", 8, 1), pictures("other", 8, 2)
    assert np.abs(one - whole).max() <= 1 < np.abs(other - whole).max()


def test_references_of_a_source_are_distinct_if_possible(nets, two_domains, torch_cache, tmp_path):
    evaluated = evaluation(two_domains, tmp_path, outputs=3)
    references = torch.arange(3.0)[:, None]  # of bear: as many as outputs
    options = {"mapping_network": nets.mapping_network, "mode": "reference", "seed": 1}
    s_trg = evaluated._styles(src="cat", trg="bear", sources=[0, 1], references=references, **options)
    assert s_trg.shape == (3, 2, 1) and all(sorted(row) == [0, 1, 2] for row in s_trg[..., 0].T.tolist())
    s_trg = evaluated._styles(src="bear", trg="cat", sources=[2], references=references[:1], **options)
    assert s_trg.flatten().tolist() == [0, 0, 0]


def test_real_features_are_cached_until_images_change(two_domains, torch_cache, tmp_path):
    copied = tmp_path / "data"
    shutil.copytree(two_domains, copied)

    def features(evaluated):
        return evaluated._real_features("real", "bear", evaluated.train["bear"])

    first = features(evaluation(copied, tmp_path))
    again = evaluation(copied, tmp_path)
    again.inception = None  # must not be asked
    for name in ARRAYS:
        assert torch.equal(*(torch.as_tensor(getattr(found, name)) for found in (first, features(again))))
    other = tmp_path / f"real_bear_2_{'0' * 16}.npz"
    other.write_bytes(b"of another domain")
    Image.new("RGB", (32, 32), "red").save(copied / "train" / "bear" / "00000.png")
    assert not torch.equal(features(evaluation(copied, tmp_path)).mean, first.mean)
    caches = set(tmp_path.glob("real_bear_*.npz")) - {other}
    assert len(caches) == 1 and other.exists(), "the cache of the earlier images is deleted"
    cache = caches.pop()
    cache.write_bytes(cache.read_bytes()[:1000])  # damaged: made again
    assert features(evaluation(copied, tmp_path)).mean.isfinite().all()


def test_real_images_are_read_once_and_files_show_completion(two_domains, torch_cache, tmp_path, monkeypatch):
    """Once for all modes and seeds. Without a page, a resumed training finds no files of scores and evaluates again."""
    read = []
    monkeypatch.setattr(evaluator, "read_features", lambda path, count: read.append(path) or read_features(path, count))
    folders = {"train_img_dir": two_domains / "train", "val_img_dir": two_domains / "val", "eval_dir": tmp_path / "e"}
    flags = f"{NARROW} --num_workers 0 --num_outs_per_domain 1 --eval_seeds 0-1 --save_eval_images no"
    solver = Solver(config_of("eval", *flags.split(), *as_flags(folders), domains=("bear", "cat")))
    monkeypatch.setattr(solver_module, "write_page", lambda *args: (_ for _ in ()).throw(Stopped(0)))
    with pytest.raises(Stopped):
        solver.evaluate(step=3)
    assert not list((tmp_path / "e").glob("*_00003_*.json"))
    assert len(read) == len(set(read)) == 4
