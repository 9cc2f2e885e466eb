import pytest

import main
from core.cli.config import RunConfig
from tests.command import config_of
from tests.error_form import flaw


def test_missing_mode_is_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main.parse_args([])
    assert stop.value.code == 2
    assert "Add one: python main.py train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--img_size 100", "--img_size must be a power of two from 16 to 16384, such as 256, got 100."),
        ("--img_size x", "--img_size must be a power of two from 16 to 16384, such as 256, got x."),
        ("--img_size 8", "got 8."),
        ("--batch_size 0", "--batch_size must be an integer >= 1, got 0."),
        ("--batch_size 1.5", "--batch_size must be an integer >= 1, got 1.5."),
        ("--num_domains 0", "--num_domains must be an integer from 1 to 65535, got 0."),
        ("--lr nan", "--lr must be a number >= 0, got nan."),
        ("--lr", "--lr must be a number >= 0, got nothing."),
        ("--lambda_ds inf", "--lambda_ds must be a number >= 0, got inf."),
        ("--lambda_cyc -1", "--lambda_cyc must be a number >= 0, got -1."),
        ("--beta1 1", "--beta1 must be a number >= 0 and < 1, got 1."),
        ("--randcrop_prob 1.5", "--randcrop_prob must be a number >= 0 and <= 1, got 1.5."),
        ("--channel_base 128", "--channel_base must be >= --img_size 256, got 128."),
        ("--train_img_dir=", "--train_img_dir must be a path, got nothing."),
        ("--train_img_dir -foo", "Write --train_img_dir=VALUE if the value begins with a dash."),
        ("--lr -1e-3", "--lr must be a number >= 0, got -1e-3."),
        ("--mode", "--mode must be one of train, sample, eval, align, play, got nothing."),
        ("--seed 99999999999999999999", "--seed must be an integer of at most 18 digits, got 99999999999999999999."),
        ("--micro_batch some", "--micro_batch must be auto or an integer >= 1, got some."),
        ("--resume_iter -1", "--resume_iter must be latest or an integer >= 0, got -1."),
        ("--precision half", "--precision must be one of fp32, tf32, bf16, got half."),
        ("--precision bf61", "got bf61. Did you mean bf16?"),
        ("--mode dream", "--mode must be one of train, sample, eval, align, play, got dream."),
        ("--mode trian", "got trian. Did you mean train?"),
        ("--outputs reference,movie", "--outputs must be a comma-separated list of reference, latent"),
        ("--outputs ,reference", "got ,reference."),
        (
            "--domain_names cat,cat,dog",
            "--domain_names must be a comma-separated list of names, each once, got cat,cat",
        ),
        ("--seeds 5-3", "--seeds must be at most 10000 integers and ranges, such as 0-9,20, got 5-3."),
        ("--seeds x", "got x."),
        ("--seeds 0-10000", "--seeds must be at most 10000 integers"),
        ("--psi -1", "--psi must be a number >= 0, got -1."),
        ("--video_format avi", "--video_format must be one of mp4, gif, webp, got avi."),
        ("--resize squeeze", "--resize must be one of stretch, crop, pad, keep, got squeeze."),
        ("--save_eval_images maybe", "--save_eval_images must be yes or no, got maybe."),
        ("--dry_run=3", "--dry_run must be given without a value, got 3."),
        ("--outputs video_latent --seeds 7", "--seeds must have at least two seeds for --outputs video_latent, got 7."),
        ("--batchsize 4", "Cannot use --batchsize (there is no such flag). Use --batch_size, or see --help."),
        ("--train_img_dri x", "Use --train_img_dir, or see --help."),
        ("--xyzzy", "Cannot use --xyzzy (there is no such flag). Remove it, or see --help."),
        (
            "extra",
            "Remove it, or separate the values of a flag with commas.",
        ),
    ],
)
def test_wrong_values_give_one_error_line(line, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main.parse_args(["--mode", "train", *line.split()])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert sentence in message and message.startswith("error: ") and message.count("\n") == 1
    assert flaw(message.removeprefix("error: ").strip()) == ""


def test_a_mode_is_the_first_word_or_a_flag(capsys):
    assert main.parse_args(["train", "--lr", "1"]) == main.parse_args(["--mode", "train", "--lr", "1"])
    for line, sentence in (
        ("trian", "Cannot run 'trian' (there is no such mode). Use train, or see --help."),
        ("dream", "Use train, sample, eval, align, play, or see --help."),
        ("train --mode sample", "Cannot use 2 modes at once (train, sample). Remove all but one."),
        ("--mode eval --mode=eval", "Cannot use 2 modes at once (eval, eval). Remove all but one."),
        ("train sample", "Cannot use 'sample' (it belongs to no flag)."),
        ("sample --outdir x", "Use --result_dir, or see --help."),
        ("", "Cannot start without a mode. Add one: python main.py train, sample"),
    ):
        with pytest.raises(SystemExit) as stop:
            main.parse_args(line.split())
        assert stop.value.code == 2 and sentence in capsys.readouterr().err, line


def test_dashes_in_flags_are_underscores():
    line = ["--val-batch-size", "4", "--train-img-dir=a-b", "--no-save-eval-images"]
    args = main.parse_args(["train", *line])
    assert (args.val_batch_size, args.train_img_dir, args.save_eval_images) == (4, "a-b", False)


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("on", True), ("True", True), ("no", False), ("off", False)]
)
def test_yes_and_no_have_several_spellings(text, value):
    assert main.parse_args(["eval", "--save_eval_images", text]).save_eval_images is value


def test_given_holds_the_flags_on_the_command_line():
    config = config_of("train", "--lr", "1e-4", "--w_hpf=0")
    assert set(config.given) == {"mode", "lr", "w_hpf"}


def test_comma_separated_lists_are_parsed():
    args = main.parse_args(["--mode", "sample", "--seeds", "0-2,20,1", "--outputs", "latent, images"])
    assert args.seeds == [0, 1, 2, 20] and args.outputs == ["latent", "images"] and args.target_domains is None
    args = main.parse_args(["--mode", "sample", "--target_domains", "dog,wild"])
    assert args.target_domains == ["dog", "wild"] and args.outputs == ["reference", "video_ref"]
    assert args.seeds == list(range(10)) and args.psi == 1 and args.resize == "stretch"


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("--outputs reference", ["reference"]),
        ("--outputs video_latent", ["seed"]),
        ("--outputs images", ["seed"]),
        ("--outputs images_latent", ["seed"]),
        ("--outputs images --ref_dir x", ["reference"]),
        ("--outputs images --seeds 3", ["seed"]),
        ("--outputs images --seeds 0-9", ["seed"]),
        ("--preset demo --outputs images --seeds 0-9", ["seed"]),
        ("--outputs images --ref_dir x --seeds 0-9", ["reference"]),
        ("--outputs images --seeds 3 --ref_dir x", ["reference", "seed"]),
    ],
)
def test_style_kinds_follow_from_outputs_and_flags(line, kinds):
    config = config_of("sample", *line.split())
    assert config.style_kinds(config.outputs[0]) == kinds


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("--outputs images", ["seed"]),
        ("--outputs images --seeds 3", ["seed"]),
        ("--preset demo --outputs images --seeds 3", ["seed"]),
        ("--preset demo --outputs images --seeds 3 --ref_dir x", ["reference", "seed"]),
    ],
)
def test_a_namespace_keeps_what_was_on_the_command_line(line, kinds):
    """As far as it differs from the defaults, which a preset changes."""
    config = RunConfig.from_args(main.parse_args(["--mode", "sample", *line.split()]))
    assert config.style_kinds("images") == kinds


def test_changed_flags_are_shown_as_typed():
    config = config_of("sample", "--outputs", "latent,images", "--seeds", "3-5", "--result_dir", "x")
    told = dict(config.changed_flags())
    assert told["--outputs"] == "latent,images" and told["--seeds"] == "3,4,5" and list(told)[-1] == "--result_dir"
    assert "--num_workers" not in told and "" not in told.values()
