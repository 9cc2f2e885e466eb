import pytest

import main
from core.cli.config import RunConfig
from tests.command import config_of


def test_missing_mode_is_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main.parse_args([])
    assert stop.value.code == 2
    assert "--mode" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--img_size 100", "power of two"),
        ("--img_size 8", "power of two"),
        ("--img_size x", "invalid int value"),
        ("--batch_size 0", "--batch_size is 0"),
        ("--num_domains 0", "--num_domains is 0"),
        ("--lr nan", "--lr is nan"),
        ("--lambda_ds inf", "--lambda_ds is inf"),
        ("--lambda_cyc -1", "--lambda_cyc is -1"),
        ("--beta1 1", "less than 1"),
        ("--randcrop_prob 1.5", "between 0 and 1"),
        ("--channel_base 128", "at least --img_size 256"),
        ("--src_dir=", "--src_dir is empty"),
        ("--seed 99999999999999999999", "at most 18 digits"),
        ("--micro_batch some", "neither auto nor a number"),
        ("--precision half", "invalid choice"),
        ("--mode dream", "invalid choice"),
        ("--outputs reference,movie", "movie is none of reference"),
        ("--outputs ,reference", "empty name"),
        ("--domain_names cat,cat,dog", "has cat twice"),
        ("--seeds 5-3", "not a list of numbers"),
        ("--seeds x", "not a list of numbers"),
        ("--seeds 0-10000", "more than 10000 seeds"),
        ("--psi -1", "--psi is -1"),
        ("--video_format avi", "invalid choice"),
        ("--resize squeeze", "invalid choice"),
        ("--batchsize 4", "unrecognized arguments"),
    ],
)
def test_wrong_values_give_one_error_line(line, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main.parse_args(["--mode", "train", *line.split()])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert said in message and message.startswith("error: ") and message.count("\n") == 1


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
        ("--outputs images", ["reference"]),
        ("--outputs images --ref_dir x", ["reference"]),
        ("--outputs images --seeds 3", ["seed"]),
        ("--outputs images --seeds 3 --ref_dir x", ["reference", "seed"]),
    ],
)
def test_style_kinds_follow_from_outputs_and_flags(line, kinds):
    config = config_of("sample", *line.split())
    assert config.style_kinds(config.outputs[0]) == kinds


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("--outputs images", ["reference"]),
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
