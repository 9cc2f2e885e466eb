"""Export a trained model for other programs: networks as ONNX or safetensors files, config.json and README.md.

python -m core.export --checkpoint_dir assets/demo --format onnx --out expr/export
"""

import json
import warnings
from pathlib import Path
from string import Template

import torch

from core.api import StarGAN
from core.cli.flags import NETWORK_FLAGS
from core.cli.parser import Parser
from core.cli.presets import asset
from core.cli.values import PATH, one_of
from core.system import console
from core.system.errors import UserError
from core.system.files import atomic_write, make_folder, write_text

INPUTS = {"generator": "xs", "mapping_network": "zy", "style_encoder": "xy"}


def export(model, kind, folder):
    """Write the networks of a StarGAN as files of a kind, "onnx" or "safetensors", with config.json and README.md.

    Raises UserError where the packages of requirements-export.txt are missing, and for ONNX with masks of faces.
    """
    nets, config = model.solver.nets_ema, model.solver.config
    if kind == "onnx" and "fan" in nets:
        raise UserError("Cannot export a model for faces as ONNX (it needs masks). Use --format safetensors.")
    make_folder(folder)
    write = {"onnx": _onnx, "safetensors": _safetensors}[kind]
    for name, network in nets.items():
        with atomic_write(Path(folder, f"{name}.{kind}")) as temporary:
            try:
                write(name, network, config, temporary)
            except ImportError as error:
                advice = "Run python -m pip install -r requirements-export.txt"
                raise UserError(f"Cannot export as {kind} (no package {error.name}). {advice}.") from error
    normalisation = {"mean": [0.5] * 3, "std": [0.5] * 3, "order": "RGB", "range": [-1, 1]}
    networks = {name: config.flags[name] for name in NETWORK_FLAGS}
    about = {"domains": model.domains, "normalisation": normalisation, "networks": networks}
    write_text(Path(folder, "config.json"), json.dumps(about, indent=2) + "\n")
    text = Template(Path(asset(f"assets/export/{kind}.md")).read_text(encoding="utf-8"))
    values = networks | {"size": config.img_size, "domains": ", ".join(model.domains)}
    write_text(Path(folder, "README.md"), text.substitute(values))


def _onnx(name, network, config, path):
    import onnxscript  # noqa: F401 (torch.onnx reports its absence less clearly)

    # Two images, since PyTorch would take a batch of one for a constant.
    shapes = {"x": (2, 3, *[config.img_size] * 2), "s": (2, config.style_dim), "z": (2, config.latent_dim), "y": (2,)}
    inputs = [torch.zeros(shapes[key], dtype=torch.int64 if key == "y" else None) for key in INPUTS[name]]
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that networks are in training mode: they compute the same in both
        torch.onnx.export(
            network, tuple(inputs), path, dynamo=True, external_data=False, verbose=False,
            dynamic_shapes=tuple({0: batch} for _ in inputs), output_names=["x_fake" if name == "generator" else "s"],
        )  # fmt: skip


def _safetensors(_name, network, _config, path):
    from safetensors.torch import save_file

    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)


def main(argv=None):
    """Load the model of the command line and export it."""
    parser = Parser(description=__doc__)
    parser.add("checkpoint_dir", PATH, "assets/demo", "checkpoint: a folder (its newest step) or a file")
    parser.add("format", one_of("onnx", "safetensors"), "onnx", "format of the networks")
    parser.add("out", PATH, "expr/export", "folder for the files")
    options = parser.parse_args(argv)
    try:
        export(StarGAN.load(options.checkpoint_dir, device="cpu"), options.format, options.out)
    except (UserError, ValueError) as error:
        parser.error(str(error))
    console.info(f"Wrote the networks, config.json and README.md to {options.out}")


if __name__ == "__main__":
    main()
