"""Every command of the README and of docs/, run in a folder with the files that it names.

Long commands run with --dry_run. Launchers of several processes are only parsed, and their command runs in one process.
earlier_commands.txt: commands of earlier READMEs, which must keep working.
"""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from core.cli import help as help_text
from core.cli.args import build_parser
from core.solver import Solver
from core.wing import FAN
from data import demo
from metrics import __main__ as scoring
from tests.command import NARROW, ROOT, SHIPPED_MODEL, config_of

PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCKS = [block for text in PAGES.values() for block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)]
COMMANDS = [line for kind, text in BLOCKS if kind in ("", "sbatch") for line in text.splitlines() if line.strip()]
INLINE = [line for text in PAGES.values() for line in re.findall(r"`((?:python|\.venv/bin/\w+) -m [^`]+)`", text)]
HELP = [f"python main.py {line}" for lines in help_text.EXAMPLES.values() for line in lines]
HELP = [re.sub(r" +\(.*\)$", "", line) for line in [*HELP, *(command for command, _ in help_text.FIRST)]]
EARLIER = (Path(__file__).parent / "earlier_commands.txt").read_text(encoding="utf-8").splitlines()
PYTHONS = ("python", "python3", ".venv/bin/python")


@pytest.fixture(scope="module")
def place(tmp_path_factory, torch_cache):
    """A folder with data sets, photographs, checkpoints and FAN, as after the downloads."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "assets", folder / "assets")
    shutil.copy(ROOT / "requirements.txt", folder)
    shutil.copy(ROOT / "requirements-dev.txt", folder)
    demo.make(folder / "drawn", size=64, train=6, val=2)
    names = {"afhq": ("cat", "dog", "wild"), "celeba_hq": ("female", "male")}
    for data, domains in names.items():
        for part in ("train", "val"):
            for name, kind in zip(domains, ("bear", "cat", "dog"), strict=False):
                shutil.copytree(folder / "drawn" / part / kind, folder / "data" / data / part / name)
    for name, kind in (("beach", "bear"), ("forest", "cat"), ("town", "dog")):
        (folder / "photos" / name).mkdir(parents=True)
        for path in (folder / "drawn" / "train" / kind).iterdir():
            Image.open(path).resize((320, 256)).save(folder / "photos" / name / f"IMG_{path.stem}.jpg")
    for name in ("REAL", "FAKE", "photographs"):
        shutil.copytree(folder / "drawn" / "train" / "cat", folder / name)
    networks(folder)
    return folder


def networks(folder):
    checkpoints = folder / "expr" / "checkpoints"
    kinds = (("afhq", "afhq", ("cat", "dog", "wild")), ("mine", "demo", ("beach", "forest", "town")))
    for name, preset, domains in kinds:
        line = ("--preset", preset, *NARROW.split(), "--num_domains", "3", "--checkpoint_dir", checkpoints / name)
        Solver(config_of("train", *line, domains=domains)).save(100000)
    (checkpoints / "demo").mkdir()
    shutil.copy(SHIPPED_MODEL, checkpoints / "demo")
    torch.save({"state_dict": FAN().state_dict()}, checkpoints / "wing.ckpt")
    np.savez(checkpoints / "celeba_lm_mean.npz", mean=np.random.default_rng(0).uniform(50, 200, (98, 2)))


def test_docs_have_commands_of_every_kind():
    assert len(COMMANDS) > 40 and len(EARLIER) > 15
    modes = [f"main.py {mode}" for mode in ("train", "sample", "eval", "align")]
    for words in (*modes, "data.prepare", "--init_from", "torchrun"):
        assert any(words in line for line in COMMANDS), words


@pytest.mark.parametrize("line", list(dict.fromkeys([*COMMANDS, *INLINE, *HELP, *EARLIER])))
def test_command_runs(line, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = shlex.split(line)
    if words[0] in PYTHONS:
        run(words[1:])
    elif words[0] == "source":
        assert words[1:] == [".venv/bin/activate"] and (place / words[1]).is_file()
    elif words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout
    elif "torchrun" in words:
        launched = words[words.index("torchrun") + 1 :]
        launcher(launched)
        run([*launched[launched.index("main.py") :], "--checkpoint_dir", "expr/other"])
    else:
        assert line.startswith(("#!/bin/bash", "#SBATCH ", "head=$(scontrol ")), "no rule says how to run this"


@pytest.mark.parametrize(
    "page", [page for page, text in PAGES.items() if "```python" in text], ids=lambda page: page.name
)
def test_python_examples_run(page, place, monkeypatch):
    """The blocks of a page, in their order and in one namespace."""
    monkeypatch.chdir(place)
    namespace = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGES[page], re.M | re.S):
        exec(block, namespace)


def run(words):
    """Run what follows `python`, in this process."""
    if words[0] == "main.py":
        heavy = "sample" not in words or any("video_latent" in word for word in words)
        if {"--help", "--help-all", "--version"} & set(words):
            with pytest.raises(SystemExit, match="0"):
                main.main(words[1:])
            return
        is_new = "train" in words and not {"--init_from", "--resume_iter", "--channel_base"} & set(words)
        narrow = ["--channel_base", "1024", "--max_conv_dim", "64"] * is_new  # the full width takes long
        narrow += ["--batch_size", "2"] * ("--micro_batch" in words)  # as do many small batches
        assert main.main([*words[1:], *narrow, *["--dry_run"] * heavy]) == 0
        return
    assert words[0] == "-m"
    name, *flags = words[1:]
    if name == "venv":
        assert subprocess.run(["python3", "-m", "venv", "--without-pip", *flags], check=True)
    elif name == "pip":
        install(flags)
    elif name == "pytest":
        quick = str(ROOT / "tests" / "unit" / "test_resample.py")
        done = [sys.executable, "-m", "pytest", *flags, "--collect-only", "-q", quick]
        assert subprocess.run(done, cwd=ROOT, check=True)
    elif name.startswith("benchmarks."):
        less = {"benchmarks.quality": ["--images", "4"], "benchmarks.device": ["--device", "cpu", "--only", "facts"]}
        assert importlib.import_module(name).main([*flags, *less[name]]) in (None, 0)
    elif name == "core.cli.help":
        assert flags == [">", "docs/flags.md"] and importlib.import_module(name).markdown()
    elif name == "metrics":
        assert scoring.main(flags) in (None, 0)
    else:
        module = importlib.import_module(name)
        less = {"data.demo": ["--train", "4", "--val", "4"], "data.download": ["--dry_run"]}
        assert module.main([*flags, *less.get(name, [])]) in (None, 0)


def install(flags):
    """The requirements file exists, or the package is installed here."""
    assert flags[0] == "install"
    if flags[1] == "-r":
        assert (ROOT / flags[2]).is_file()
    else:
        assert importlib.util.find_spec(flags[1].replace("-", "_")) is not None


def launcher(words):
    """torchrun accepts these flags."""
    pytest.importorskip("torch.distributed.run")
    from torch.distributed.run import get_args_parser

    told = get_args_parser().parse_args(words)
    assert told.training_script == "main.py" and int(told.nproc_per_node) >= 1


def test_flags_in_the_docs_exist():
    known = {action.dest for action in build_parser()._actions} | {"no_save_eval_images"}
    known |= {"help", "help_all", "version", "nproc_per_node", "max_restarts", "shutdown_timeout"}
    known |= {"signal"}  # of Slurm
    known |= {"from_file", "url", "in", "val", "size", "min_side", "paths", "format"}  # of other modules
    for path, text in PAGES.items():
        flags = {name.replace("-", "_") for name in re.findall(r"`--([a-z][a-z0-9_-]+)", text)}
        assert flags <= known, (path.name, flags - known)


def anchors(text):
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_in_the_docs_exist():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            name, _, anchor = target.partition("#")
            path = page.parent / name if name else page
            assert path.exists(), (page.name, target)
            assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), (page.name, target)


def test_the_readme_is_one_page():
    assert len(PAGES[ROOT / "README.md"].splitlines()) <= 140


def test_unknown_modules_and_flags_fail(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises((AssertionError, ModuleNotFoundError)):
        run(["-m", "data.nothing"])
    with pytest.raises(SystemExit):
        run(["main.py", "--mode", "train", "--no_such_flag", "1"])
