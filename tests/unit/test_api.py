"""The Python API: what it accepts, and that it computes what the command line writes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from core.api import StarGAN
from core.images.clips import open_clip
from core.images.io import read_rgb, to_uint8
from core.model import face_masks
from core.sampling.style_files import read_styles
from tests.clips import make_clip
from tests.command import ROOT, SHIPPED_MODEL, call, picture

DEMO = ROOT / "assets/demo"
SHOWN = ROOT / "assets/representative/demo"
DOGS = sorted((SHOWN / "src" / "dog").glob("*.png"))
CATS = sorted((SHOWN / "ref" / "cat").glob("*.png"))


@pytest.fixture(scope="module")
def model():
    return StarGAN.load(DEMO, device="cpu")


def same(image, other):
    return np.array_equal(np.asarray(image), np.asarray(other))


def test_a_model_knows_its_domains_and_its_size(model, capsys):
    assert (model.domains, model.img_size) == (["bear", "cat", "dog"], 64)
    assert isinstance(model.generator, torch.nn.Module)
    StarGAN.load(SHIPPED_MODEL, device="cpu")
    assert capsys.readouterr() == ("", "")


def test_results_equal_those_of_the_command_line(model, tmp_path):
    """--outputs images with references and seeds, bit for bit."""
    folders = {"checkpoint": DEMO, "src_dir": SHOWN / "src" / "dog", "ref_dir": CATS[0].parent.parent}
    line = "--device cpu --num_workers 0 --outputs images --seeds 3,4 --target_domains cat --psi 0.8"
    assert call("sample", line, **folders, result_dir=tmp_path) == 0
    rows = [json.loads(row) for row in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert {"seed" in row for row in rows} == {True, False}
    sources = list(dict.fromkeys(row["source"] for row in rows))
    for kind in ("seed", "reference"):
        for value in {row[kind] for row in rows if kind in row}:
            found = model.translate(sources, "cat", psi=0.8, **{kind: value})
            written = [picture(tmp_path / row["file"]) for row in rows if row.get(kind) == value]
            assert all(map(same, found, written)) and len(found) == len(written) == len(sources)


def test_images_of_all_kinds_give_the_same(model):
    array = np.asarray(read_rgb(DOGS[0]))
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1
    expected = model.translate(DOGS[0], "cat", seed=1)
    for image in (str(DOGS[0]), Image.fromarray(array), array):
        assert same(model.translate(image, "cat", seed=1), expected)
    close = np.asarray(model.translate(tensor, "cat", seed=1), int) - np.asarray(expected, int)
    assert abs(close).max() <= 1
    several = model.translate(np.stack([array, array]), "cat", seed=1)
    assert isinstance(several, list) and len(several) == 2 and model.translate([], "cat") == []
    assert isinstance(model.translate([DOGS[0]], "cat", seed=1), list)


def test_styles_are_means_mixes_and_files(model, tmp_path):
    first, second = (model.style("cat", [path]) for path in CATS[:2])
    both = model.style("cat", CATS[:2])
    torch.testing.assert_close(both.code, (first.code + second.code) / 2)
    torch.testing.assert_close(first.mix(second, 0.5).code, both.code)
    assert torch.equal(first.mix(second, 0.0).code, first.code)
    first.save(tmp_path / "first.json")
    (loaded,) = model.load_styles(tmp_path / "first.json")
    assert torch.equal(loaded.code, first.code) and loaded.origin == {"mean": [str(CATS[0])]}
    assert same(model.translate(DOGS[0], loaded), model.translate(DOGS[0], "cat", reference=CATS[0]))
    mean = model.style("cat", seed=3, psi=0)
    assert torch.equal(mean.code, model.style("cat", seed=4, psi=0).code)


def test_strength_moves_from_the_own_style_to_the_wanted_one(model):
    style, own = model.style("cat", [CATS[0]]), model.style("dog", [DOGS[0]])
    for domain in (None, "dog"):  # its folder is called dog
        assert same(model.translate(DOGS[0], style, strength=0, source_domain=domain), model.translate(DOGS[0], own))
    assert same(model.translate(DOGS[0], style, strength=1), model.translate(DOGS[0], style))
    half = model.translate(DOGS[0], style, strength=0.5)
    assert same(half, model.translate(DOGS[0], own.mix(style, 0.5)))


def test_an_unknown_domain_is_found_by_reproduction(model):
    for domain in model.domains:
        path = sorted((SHOWN / "src" / domain).glob("*.png"))[0]
        image, own = read_rgb(path), model.style(domain, path)  # an image without a folder
        assert same(model.translate(image, "cat", strength=0), model.translate(image, own))


@pytest.mark.parametrize(("call_it", "words"), [
    (lambda model: model.translate(DOGS[0], "dgo"), r"Cannot use domain dgo \(there are bear, cat, dog\)"),
    (lambda model: model.style("bears"), "Cannot use domain bears"),
    (lambda model: model.translate("missing.png", "cat"), "Cannot read missing.png"),
    (lambda model: model.translate(np.zeros((4, 4)), "cat"), "uint8"),
    (lambda model: model.translate(torch.zeros(3, 8, 8), "cat"), r"float tensors \(3, 64, 64\)"),
    (lambda model: StarGAN.load("missing"), "Cannot read --checkpoint missing"),
    (lambda model: model.load_styles("missing.json"), "Cannot read missing.json"),
])  # fmt: skip
def test_mistakes_are_value_errors_with_one_sentence(call_it, words, model):
    with pytest.raises(ValueError, match=words):
        call_it(model)


def test_styles_of_another_model_are_refused(model, tmp_path):
    style = model.style("cat", seed=1)
    style.save(tmp_path / "style.json")
    text = (tmp_path / "style.json").read_text().replace(style.model, "0" * 16)
    (tmp_path / "style.json").write_text(text)
    with pytest.raises(ValueError, match="belong to another model"):
        model.load_styles(tmp_path / "style.json")
    (other,) = read_styles(tmp_path / "style.json", model.domains)
    with pytest.raises(ValueError, match="belongs to another model"):
        model.translate(DOGS[0], other)
    with pytest.raises(ValueError, match="styles of different models"):
        style.mix(other, 0.5)


@pytest.mark.parametrize("content", [
    "", "{}", "[]", '{"styles": []}', '{"styles": [1]}', '{"styles": [{"name": "a"}]}',
    '{"styles": [{"name": "a", "domain": "cat", "code": [1, 2], "origin": {}, "model": "x"}]}',
    '{"styles": [{"name": "a", "domain": "cat", "code": "text", "origin": {}, "model": "x"}]}',
    '{"styles": [{"name": "a", "domain": "cow", "code": [0], "origin": {}, "model": "x"}]}', "[" * 10**5,
])  # fmt: skip
def test_damaged_style_files_are_one_sentence(content, model, tmp_path):
    (tmp_path / "style.json").write_text(content)
    with pytest.raises(ValueError, match=r"^Cannot (read|use) .*style.json"):
        model.load_styles(tmp_path / "style.json")


def test_faces_are_translated_with_masks(tmp_path):
    """A model of faces, with random weights and its face network in the checkpoint."""
    from core.solver import Solver
    from tests import golden
    from tests.command import config_of

    line = "--device cpu --w_hpf 1 --img_size 32 --channel_base 256 --max_conv_dim 16 --num_domains 2"
    solver = Solver(config_of("train", *line.split(), "--checkpoint_dir", tmp_path, domains=("female", "male")))
    golden.fill("fan", solver.nets.fan)
    solver.save(3)
    model = StarGAN.load(tmp_path, device="cpu")
    x, nets = torch.rand(1, 3, 32, 32) * 2 - 1, model.solver.nets_ema
    style = model.style("male", seed=1)
    with torch.no_grad():
        masked, plain = (model.generator(x, style.code[None], masks) for masks in (face_masks(nets, x), None))
    found = np.asarray(model.translate(x, style)[0], int)
    assert abs(found - to_uint8(masked)[0]).max() <= 1 < abs(found - to_uint8(plain)[0]).max()
    assert model.translate(x, style, strength=0.5)[0].size == (32, 32)


def test_contradictions_and_wrong_numbers_are_refused(model):
    style = model.style("cat", seed=1)
    for wrong in (
        lambda: model.style("cat", references=[]), lambda: model.translate(DOGS[0], "cat", reference=CATS[0], seed=1),
        lambda: model.translate(DOGS[0], style, seed=1), lambda: model.translate(DOGS[0], "dog", style=style),
        lambda: model.translate(DOGS[0], "cat", strength=-1), lambda: model.translate(DOGS[0], "cat", psi=float("nan")),
        lambda: StarGAN.load(DEMO, foo=1), lambda: model.translate(np.zeros((64, 64), np.uint8), "cat"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^(Cannot [a-z]|--\w+ must)"):
            wrong()
    assert same(model.translate(DOGS[0], "cat", style=style), model.translate(DOGS[0], style))


def test_bf16_can_mix_styles_and_sources():
    model = StarGAN.load(DEMO, device="cpu", precision="bf16")
    style = model.style("cat", CATS[:2])
    image = model.translate(DOGS[0], style.mix(model.style("cat", seed=5, psi=0.5), 0.3), strength=0.5)
    assert style.code.dtype == torch.float32 and image.size == (64, 64)


FIVE_LINES = """\
from core.api import StarGAN
model = StarGAN.load("assets/demo")                     # folder, file, or a file of the reference; device="auto"
model.translate("dog.png", "cat", seed=3).save("out.png")   # a PIL image
model.translate(images, "cat", reference="tom.jpg")         # path, PIL, uint8 array, float tensor; one or many
style = model.style("cat", references=["a.jpg", "b.jpg"])   # mean of several; also seed=, psi=
model.translate("dog.png", style.mix(other, 0.3), strength=0.7)
"""


def test_the_lines_of_the_documentation_run(tmp_path, monkeypatch):
    for name, path in (("dog.png", DOGS[0]), ("tom.jpg", CATS[0]), ("a.jpg", CATS[0]), ("b.jpg", CATS[1])):
        picture(path).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    other = StarGAN.load("assets/demo").style("cat", seed=5)
    exec(FIVE_LINES, {"images": ["dog.png", np.asarray(picture(DOGS[1]))], "other": other})
    assert picture(tmp_path / "out.png").size == (64, 64)


def test_the_first_lines_run_as_a_script_from_another_folder(tmp_path):
    """With the program's folder on the path."""
    lines = [
        "import sys", f"sys.path.insert(0, {str(ROOT)!r})", "from core.api import StarGAN",
        'model = StarGAN.load("assets/demo")',
        f'model.translate({str(DOGS[0])!r}, "cat", seed=3).save("out.png")',
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and picture(tmp_path / "out.png").size == (64, 64)


def test_frames_of_a_clip_are_translated_like_images(model, tmp_path):
    """One at a time, in one style; a file's frames have their times."""
    make_clip(tmp_path / "clip.mp4", count=4, size=(64, 64), steps=(20, 40), sound=None)
    sources = [frame.image for frame in open_clip(tmp_path / "clip.mp4").frames()]
    asked = []
    camera = (asked.append(number) or image for number, image in enumerate(sources))
    found = model.translate_clip(camera, "cat", seed=3)
    assert asked == [] and same(next(found), model.translate(sources[0], "cat", seed=3)) and asked == [0]
    frames = list(model.translate_clip(tmp_path / "clip.mp4", "cat", seed=3))
    assert all(map(same, frames, model.translate(sources, "cat", seed=3))) and len(frames) == 4
    assert [frame.info["time"] for frame in frames] == pytest.approx([0, 1 / 30, 1 / 10, 2 / 15])
    own = list(model.translate_clip(sources, "cat", seed=3, strength=0.5, source_domain="dog"))
    options = {"seed": 3, "strength": 0.5, "source_domain": "dog"}
    assert same(own[0], model.translate(sources[0], "cat", **options))
    assert not same(own[1], model.translate(sources[1], "cat", **options)), "the own style is that of the first frame"
    with pytest.raises(ValueError, match="Cannot read .* as a clip"):
        model.translate_clip(tmp_path / "none.mp4", "cat")
    with pytest.raises(TypeError):
        model.translate_clip(sources[0], "cat")
    make_clip(tmp_path / "clip.mkv", count=90, sound=None)
    (tmp_path / "clip.mkv").write_bytes((tmp_path / "clip.mkv").read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"\(damaged after") as raised:
        list(model.translate_clip(tmp_path / "clip.mkv", "cat"))
    assert type(raised.value) is ValueError


def test_any_shape_can_be_kept(tmp_path):
    model = StarGAN.load(DEMO, device="cpu", resize="keep")
    tall = Image.fromarray(np.random.default_rng(0).integers(0, 256, (130, 70, 4), np.uint8))
    found = model.translate([tall, DOGS[0]], "cat", reference=[tall, CATS[0]], strength=0.9)
    assert (found[0].size, found[0].mode) == ((70, 130), "RGBA") and found[1].size == (64, 64)
    assert np.array_equal(np.asarray(found[0])[..., 3], np.asarray(tall)[..., 3])
    plain = StarGAN.load(DEMO, device="cpu")
    assert same(model.translate(DOGS[0], "cat", seed=1), plain.translate(DOGS[0], "cat", seed=1))
