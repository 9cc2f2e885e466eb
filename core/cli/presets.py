"""Presets: the published settings for AFHQ and CelebA-HQ, and settings that learn the demo set on a CPU."""

from pathlib import Path

SETTINGS = {
    "afhq": {"num_domains": 3, "w_hpf": 0, "lambda_ds": 2},  # paper, appendix B; all else is the default
    "celeba_hq": {"num_domains": 2, "w_hpf": 1, "lambda_ds": 1},
    "demo": {
        "img_size": 64, "num_domains": 3, "w_hpf": 0, "channel_base": 1024, "max_conv_dim": 64, "hidden_dim": 128,
        "batch_size": 4, "total_iters": 10800, "lr": 1e-3, "f_lr": 1e-3, "ema_decay": 0.998, "lambda_ds": 2,
        "ds_iter": 12000, "val_batch_size": 12, "num_outs_per_domain": 3, "print_every": 50, "sample_every": 400,
        "save_every": 400, "eval_every": 0, "num_workers": 0,
    },
}  # fmt: skip

DATA_SETS = {  # preset -> what creates its data set
    "demo": "run python -m data.demo",
    "afhq": "run python -m data.download afhq-dataset",
    "celeba_hq": "run python -m data.download celeba-hq-dataset",
    None: "create the demo set with python -m data.demo and add --preset demo",
}
MODELS = {  # preset -> what gets the authors' networks
    "afhq": "run python -m data.download pretrained-network-afhq",
    "celeba_hq": "run python -m data.download pretrained-network-celeba-hq",
}

SHIPPED = "assets/demo"  # the demo model, already trained


def asset(path):
    """Return a path, or, where it does not exist, the same path in the folder of this program if that exists."""
    shipped = Path(__file__).parents[2] / path
    return path if Path(path).exists() or not shipped.exists() else str(shipped)


def preset_defaults(preset, mode):
    """Return the defaults of flags under a preset: its settings, and its folders."""
    is_shipped = preset == "demo" and mode != "train"
    return SETTINGS[preset] | {
        "train_img_dir": f"data/{preset}/train",
        "val_img_dir": f"data/{preset}/val",
        "sample_dir": f"expr/samples/{preset}",
        "checkpoint_dir": asset(SHIPPED) if is_shipped else f"expr/checkpoints/{preset}",
        "eval_dir": f"expr/eval/{preset}",
        "result_dir": f"expr/results/{preset}",
        "src_dir": asset(f"assets/representative/{preset}/src"),
        "ref_dir": asset(f"assets/representative/{preset}/ref"),
    }
