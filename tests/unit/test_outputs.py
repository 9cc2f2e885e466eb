"""Files that --mode sample writes."""

import json
from dataclasses import replace

import torch
from PIL import Image

from core.images.io import to_uint8
from core.images.shape import Shape
from core.sampling import translate
from core.sampling.outputs import OutputWriter
from core.sampling.single import Translator
from core.system.memory import MicroBatch


def test_file_names_never_collide(nets, pictures, tmp_path):
    """Underscores in names, names that differ in capitals only, pages of domains numbered by the user."""
    x_src, x_ref, _ = pictures
    inference_batch = MicroBatch(2, 2)
    sources = translate.read_sources(nets, [x_src[:2]], inference_batch)
    sources = replace(sources, names=["a", "a__cat"])
    translator = Translator(nets, Shape(len(x_src[0, 0])), lambda x: x)
    images = [(translator.shape.fit(Image.fromarray(image)), 0) for image in to_uint8(x_src[:2])]
    styles = translate.read_references(nets.style_encoder, [(x_ref[:3], torch.tensor([0, 0, 0]))])
    styles = replace(styles, names=["x", "cat__x", "X"], origins=[{"reference": name} for name in "ijk"])
    results = OutputWriter(nets.generator, tmp_path, inference_batch, domains=["cat", "cat_2"])
    results.images(["p/a.png", "q/a__cat.png"], images, styles, translator)
    for label in (0, 1):
        for _ in range(2):
            results.write("latent", sources, replace(styles, labels=[label] * 3, shown=None))
    results.finish()
    entries = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert len({entry["file"].casefold() for entry in entries}) == len(entries) == 6
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(
        [entry["file"] for entry in entries]
        + ["manifest.jsonl", "index.html"]
        + ["latent_cat.jpg", "latent_cat_2.jpg", "latent_cat_2_2.jpg", "latent_cat_2_3.jpg"]
    )
    doubled = [e for e in entries if e["file"].startswith("a__cat__cat__x")]
    assert [(e["source"], e["reference"]) for e in doubled] == [("p/a.png", "j"), ("q/a__cat.png", "i")]
