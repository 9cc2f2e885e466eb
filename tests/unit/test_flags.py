"""The flags of the command line, and the modes that read them."""

import pytest

import main
from core.cli import help as help_text
from core.cli.flags import FLAGS, MODES, NETWORK_FLAGS
from core.cli.values import SWITCH
from tests import golden
from tests.command import ROOT

READ_BY = {  # modes -> flags that they read
    "train sample eval align play": "preset dry_run device img_size wing_path",
    "train sample eval play": "precision channels_last compile num_domains latent_dim hidden_dim style_dim "
    "channel_base max_conv_dim w_hpf checkpoint_dir resume_iter checkpoint",
    "train sample eval": "micro_batch batch_size num_workers",
    "train": "cuda_graph lambda_reg lambda_cyc lambda_sty lambda_ds ds_iter total_iters max_hours lr f_lr beta1 beta2 "
    "weight_decay ema_decay randcrop_prob augment augment_prob freeze_d max_bad_updates keep_checkpoints init_from "
    "init_iters init_lr_scale sample_dir log_dir print_every sample_every save_every eval_every tensorboard",
    "train eval": "val_batch_size num_outs_per_domain seed eval_seeds save_eval_images train_img_dir "
    "val_img_dir eval_dir",
    "train align": "override",
    "train sample play": "domain_names",
    "sample align play": "resize",
    "sample play": "restore_shape src_dir",
    "play": "port",
    "sample": "styles save_styles strength outputs target_domains seeds psi labels video_format result_dir "
    "ref_dir mirror format",
    "align": "inp_dir out_dir lm_path contact_sheet",
}
MODES_OF = {name: modes.split() for modes, names in READ_BY.items() for name in names.split()}


def as_line(flag):
    """A flag of main.py with a value."""
    values = {"img_size": "256", "channel_base": "512", "beta1": "0.5"}
    value = values.get(flag.name) or (flag.kind.choices[0] if flag.kind.choices else flag.default) or "1"
    return [f"--{flag.name}"] if flag.kind is SWITCH else [f"--{flag.name}", str(value)]


def test_flags_equal_those_of_the_reference():
    """Names, types, defaults and choices of all 41 flags."""
    args = vars(main.parse_args(["--mode", "train"]))
    for flag in golden.read("cli.json"):
        name = flag["flag"].removeprefix("--")
        if flag["required"]:
            for choice in flag["choices"]:
                assert vars(main.parse_args([flag["flag"], choice]))[name] == choice
            continue
        assert args[name] == flag["default"], name
        value = {"int": 16, "float": 0.25, "str": "some/where"}[flag["type"]]
        line = ["--mode", "train", "--img_size", "16", flag["flag"], str(value)]
        parsed = vars(main.parse_args(line))[name]
        assert parsed == value and type(parsed).__name__ == flag["type"], name


@pytest.mark.parametrize("mode", MODES)
def test_flags_that_a_mode_ignores_cause_one_warning(mode, capsys):
    """All flags of all modes, against one table."""
    assert MODES_OF.keys() == FLAGS.keys() - {"mode"}
    for name, modes in MODES_OF.items():
        main.parse_args([mode, *as_line(FLAGS[name])])
        warning = f"warning: Ignoring --{name} (no effect in {mode} mode).\n"
        assert capsys.readouterr().err == ("" if mode in modes else warning), name
    main.parse_args(["align", "--lr", "1", "--psi", "0"])
    assert "Ignoring --lr, --psi (no effect in align mode)." in capsys.readouterr().err


def test_a_mode_explains_the_flags_that_it_reads(capsys):
    for mode in MODES:
        with pytest.raises(SystemExit) as stop:
            main.parse_args([mode, "--help"])
        lines = capsys.readouterr().out.splitlines()
        flags = {line.split()[0].removeprefix("--") for line in lines if line.startswith("  --")}
        read = {name for name, modes in MODES_OF.items() if mode in modes}
        assert stop.value.code == 0 and flags == read - set(NETWORK_FLAGS if mode in ("sample", "eval", "play") else ())
        assert sum(line.startswith(f"  python main.py {mode} ") for line in lines[:6]) == 3
        assert len(lines) <= 60 or mode == "train"


def test_help_is_short_and_help_all_is_complete(capsys):
    for line in (["--help"], ["-h"], ["--help-all"], ["--version"]):
        with pytest.raises(SystemExit) as stop:
            main.parse_args(line)
        text = capsys.readouterr().out
        assert stop.value.code == 0
        assert len(text.splitlines()) <= 40 or line == ["--help-all"]
        for word in (*MODES, "make demo") if line[0] != "--version" else ["StarGAN v2", "PyTorch", "Python"]:
            assert word in text
        if line == ["--help-all"]:
            assert all(f"  --{name} " in text for name in MODES_OF)


def test_help_texts_are_short():
    assert [flag.name for flag in FLAGS.values() if not 0 < len(flag.help) < 80] == []


def test_docs_list_all_flags():
    """docs/flags.md is what `python -m core.cli.help` prints."""
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert page == "\n".join(help_text.markdown()) + "\n"
