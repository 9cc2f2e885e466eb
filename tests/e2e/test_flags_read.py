"""The flags that each mode reads are those of its help."""

import pytest

from core.cli.config import RunConfig
from core.cli.flags import FLAGS, flags_of
from tests.command import RUN, call

# Read where the Solver is built, without effect on what is loaded.
UNUSED = {"seed", "ema_decay", "init_iters"}


@pytest.mark.parametrize("mode", ["train", "sample", "eval", "align", "play"])
def test_a_mode_reads_only_its_flags(mode, run, data, faces, tmp_path, monkeypatch, torch_cache):
    names, read = set(), RunConfig.__getattr__

    def record(config, name):
        names.add(name)
        return read(config, name)

    monkeypatch.setattr(RunConfig, "__getattr__", record)
    flags = {
        "train": f"{RUN} --total_iters 1 --val_batch_size 2 --num_outs_per_domain 1 --sample_every 1 --eval_every 0",
        "sample": "--num_workers 0 --outputs reference,latent,images,video_ref --seeds 0,1",
        "eval": "--num_workers 0 --dry_run",
        "align": "--dry_run",
        "play": "--dry_run",
    }[mode]
    folders = {**data, "sample_dir": tmp_path / "samples", "checkpoint_dir": tmp_path / "checkpoints"}
    if mode == "sample":
        folders = {"src_dir": faces / "val" / "cat", "ref_dir": faces / "val", "result_dir": tmp_path / "results"}
    if mode != "train":
        folders["checkpoint_dir"] = run[1]["checkpoint_dir"]
    call(mode, flags, **folders)
    assert len(names & FLAGS.keys()) > {"align": 0, "play": 10}.get(mode, 20)
    assert names & FLAGS.keys() <= {*flags_of(mode), "mode", *UNUSED}
