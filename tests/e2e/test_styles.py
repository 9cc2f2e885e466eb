"""Styles as files, and the strength of a style, on the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.api import StarGAN
from tests.command import ROOT, call, picture

DEMO = ROOT / "assets/demo"
SHOWN = ROOT / "assets/representative/demo"
BASE = "--device cpu --num_workers 0"
SOURCES = SHOWN / "src" / "dog"


def sample(flags, result, **folders):
    """Run sampling of the dogs -> {name: pixels of a single image}."""
    assert call("sample", f"{BASE} {flags}", checkpoint=DEMO, src_dir=SOURCES, result_dir=result, **folders) == 0
    rows = [json.loads(row) for row in (result / "manifest.jsonl").read_text().splitlines()]
    return {row["file"]: np.asarray(picture(result / row["file"])) for row in rows}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Styles of two seeds in the domain cat, and of all references -> folder with seeds.json, references.json."""
    folder = tmp_path_factory.mktemp("styles")
    seeds = sample(f"--outputs images --seeds 3,4 --target_domains cat --save_styles {folder}/seeds.json", folder / "a")
    references = sample(f"--outputs images --save_styles {folder}/references.json", folder / "b", ref_dir=SHOWN / "ref")
    return folder, seeds, references


def test_saved_styles_give_the_same_images(saved, tmp_path):
    folder, seeds, references = saved
    for name, expected in (("seeds", seeds), ("references", references)):
        found = sample(f"--outputs images --styles {folder}/{name}.json", tmp_path / name)
        means = [file for file in found if "mean_of_" in file]
        assert len(found) == len(expected) + len(means)
        pixels = sorted(found[file].tobytes() for file in found if file not in means)
        assert pixels == sorted(image.tobytes() for image in expected.values())
    assert len(means) == 3 * 3, "the mean style of the references of each domain, for each source"


def test_a_file_tells_what_a_style_is_made_of(saved):
    rows = json.loads((saved[0] / "seeds.json").read_text())["styles"]
    assert [(row["name"], row["domain"], row["origin"]) for row in rows] == [
        ("seed_3", "cat", {"seed": 3, "psi": 1}), ("seed_4", "cat", {"seed": 4, "psi": 1})]  # fmt: skip
    assert all(len(row["code"]) == 64 and len(row["model"]) == 16 for row in rows)
    model = StarGAN.load(DEMO, device="cpu")
    assert rows[0]["code"] == model.style("cat", seed=3).code.tolist()
    means = [row for row in json.loads((saved[0] / "references.json").read_text())["styles"] if "mean" in row["origin"]]
    expected = model.style(means[0]["domain"], means[0]["origin"]["mean"]).code
    torch.testing.assert_close(torch.tensor(means[0]["code"]), expected)


def test_styles_join_references_and_seeds_for_all_outputs(saved, tmp_path):
    line = (
        f"{BASE} --outputs latent,video_latent,images --seeds 0,1 --target_domains cat --styles {saved[0]}/seeds.json"
    )
    assert call("sample", line, checkpoint=DEMO, src_dir=SOURCES, result_dir=tmp_path) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"latent_cat.jpg", "latent_cat_2.jpg", "video_latent.mp4", "video_latent_2.mp4"} <= names
    rows = [json.loads(row) for row in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert {row.get("style", row.get("seed")) for row in rows} == {"seed_3", "seed_4", 0, 1}
    assert "style seed_3" in (tmp_path / "index.html").read_text()


def test_a_weighted_style_lies_between_the_mean_and_the_style(saved, tmp_path):
    model = StarGAN.load(DEMO, device="cpu")
    model.style("cat", seed=3).save(tmp_path / "three.json")
    found = sample(f"--outputs images --styles 0.5*{tmp_path}/three.json", tmp_path / "r")
    sources = sorted(SOURCES.iterdir())
    expected = model.translate(sources, "cat", seed=3, psi=0.5)
    assert all(np.array_equal(image, np.asarray(other)) for image, other in zip(found.values(), expected, strict=True))


def test_a_name_in_a_file_stays_within_the_folder(tmp_path):
    model = StarGAN.load(DEMO, device="cpu")
    replace(model.style("cat", seed=3), name="../../evil").save(tmp_path / "evil.json")
    found = sample(f"--outputs images --styles {tmp_path}/evil.json", tmp_path / "in" / "r")
    assert len(found) == 3 and not list(tmp_path.rglob("evil*.png"))


def test_strength_of_0_and_1_equal_both_ends(tmp_path):
    flags = "--outputs images --seeds 3 --target_domains cat"
    none, half, full = (sample(f"{flags} --strength {s}", tmp_path / str(s)) for s in (0, 0.5, 1))
    usual = sample(flags, tmp_path / "usual")
    model = StarGAN.load(DEMO, device="cpu")
    assert usual.keys() == full.keys() == none.keys() == half.keys()
    for path, name in zip(sorted(SOURCES.iterdir()), usual, strict=True):
        assert np.array_equal(full[name], usual[name])
        own = np.asarray(
            model.translate(sorted(SOURCES.iterdir()), model.style("dog", [path]))[list(usual).index(name)]
        )
        assert np.array_equal(none[name], own) and not np.array_equal(half[name], own)
    row = json.loads((tmp_path / "0.5" / "manifest.jsonl").read_text().splitlines()[0])
    assert row["strength"] == 0.5 and row["seed"] == 3


def test_grids_and_videos_keep_the_styles_of_a_domain_together(tmp_path):
    """Styles in the order cat, dog, cat: a grid shows the styles of its domain, and the video moves between them."""
    model = StarGAN.load(DEMO, device="cpu")
    styles = [model.style("cat", seed=1), model.style("dog", seed=2), model.style("cat", seed=3)]
    for number, style in enumerate(styles):
        style.save(tmp_path / f"{number}.json")
    files = ",".join(f"{tmp_path}/{number}.json" for number in range(3))
    line = f"{BASE} --outputs latent,video_latent,images --styles {files}"
    assert call("sample", line, checkpoint=DEMO, src_dir=SOURCES, result_dir=tmp_path / "r") == 0
    heights = {path.name: picture(path).height for path in (tmp_path / "r").glob("latent_*.jpg")}
    assert heights == {"latent_cat.jpg": 3 * 64, "latent_dog.jpg": 2 * 64}
    assert (tmp_path / "r" / "video_latent.mp4").is_file()
    sources = sorted(SOURCES.iterdir())
    for style in styles:
        names = [f"{path.stem}__{style.domain}__{style.name}.png" for path in sources]
        written = [np.asarray(picture(tmp_path / "r" / name)) for name in names]
        assert all(map(np.array_equal, written, map(np.asarray, model.translate(sources, style))))


def test_a_file_gives_single_styles_and_target_domains_select(saved, tmp_path):
    found = sample(f"--outputs images --styles {saved[0]}/references.json:mean_of_2", tmp_path / "mean")
    assert len(found) == 3 * 3 and all("mean_of_2" in name for name in found)
    found = sample(f"--outputs images --styles {saved[0]}/references.json --target_domains cat", tmp_path / "cat")
    assert len(found) == 3 * 3 and all("__cat__" in name for name in found)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_strength_applies_to_grids_and_videos(precision, saved, tmp_path):
    line = f"{BASE} --precision {precision} --outputs latent,video_latent --styles 0.5*{saved[0]}/seeds.json"
    for strength in ("1", "0.5"):
        folder = tmp_path / strength
        flags = f"{line} --strength {strength}"
        assert call("sample", flags, checkpoint=DEMO, src_dir=SOURCES, result_dir=folder) == 0
    grids = [np.asarray(picture(tmp_path / s / "latent_cat.jpg"), int) for s in ("1", "0.5")]
    assert abs(grids[0] - grids[1])[:64].max() == 0 and abs(grids[0] - grids[1])[64:, 64:].mean() > 1
    assert (tmp_path / "0.5" / "video_latent.mp4").stat().st_size > 1000


def test_a_dry_run_reads_the_files(saved, tmp_path, capsys):
    line = f"{BASE} --dry_run --outputs images --styles"
    folders = {"checkpoint": DEMO, "src_dir": SOURCES, "result_dir": tmp_path}
    assert call("sample", f"{line} {saved[0]}/seeds.json", **folders) == 0
    assert call("sample", f"{line} missing.json", **folders) == 2
    assert "Cannot read missing.json (no such file or directory). Check the path." in capsys.readouterr().err


def test_mistakes_are_one_sentence(saved, tmp_path, capsys):
    other = json.loads((saved[0] / "seeds.json").read_text())
    for row in other["styles"]:
        row["model"] = "0" * 16
    (tmp_path / "other.json").write_text(json.dumps(other))
    for item, words in (("missing.json", "Cannot read missing.json"), (f"{tmp_path}/other.json", "another model")):
        line = f"{BASE} --outputs images --styles {item}"
        assert call("sample", line, checkpoint=DEMO, src_dir=SOURCES, result_dir=tmp_path / "r") == 2
        assert words in capsys.readouterr().err
