"""Names of domains on the command line: with commas and quotes, and domains that a checkpoint does not have."""

import shutil

import pytest

from core.cli.args import parse_given
from core.cli.config import RunConfig
from core.cli.domains import settle_domains
from core.cli.flags import parse_flag
from core.cli.resolve import resolve
from core.cli.values import NAMES, as_typed, parse_value
from core.images.folders import find_references
from core.solver import Solver
from core.system.errors import UserError
from tests.command import NARROW, config_of
from tests.photos import fill

LISTS = {
    "cat,dog": ["cat", "dog"],
    " cat , dog ": ["cat", "dog"],
    '"cats, dogs",wolf': ["cats, dogs", "wolf"],
    'wolf , "cats, dogs" ': ["wolf", "cats, dogs"],
    '" cat"': [" cat"],
    '"a ""b"", c",d': ['a "b", c', "d"],
    '19" screens,tablets': ['19" screens', "tablets"],
    '"odd,even"er': ['"odd', 'even"er'],
    "two\nlines,one": ["two\nlines", "one"],
}


@pytest.mark.parametrize("text", LISTS)
def test_lists_of_names_accept_quotes_and_round_trip(text):
    names = parse_value("target_domains", NAMES, text)
    assert names == LISTS[text]
    assert parse_flag("target_domains", names) == names == parse_value("target_domains", NAMES, as_typed(names))


@pytest.mark.parametrize("text", ["", ",", "a,", ",a", "a,,b", "a,a", '"a, b","a, b"'])
def test_lists_with_empty_or_repeated_names_are_refused(text):
    with pytest.raises(UserError, match="--target_domains must be a comma-separated list"):
        parse_value("target_domains", NAMES, text)


@pytest.mark.parametrize(
    ("typed", "labels"),
    [
        ('"cats, dogs"', [0]),
        ('owls,"cats, dogs"', [2, 0]),
        ("cats, dogs", [0]),  # without quotes, since neither part is a domain
        ("owls,cats,dogs", [2, 0]),
        ("horses", [1]),
        ('"owls, big"', [3]),
    ],
)
def test_every_domain_can_be_chosen(typed, labels):
    config = config_of("sample", "--target_domains", typed, domains=("cats, dogs", "horses", "owls", "owls, big"))
    assert config.target_labels() == labels


def test_unknown_names_are_listed_as_they_are_typed():
    config = config_of("sample", "--target_domains", 'x,"y, z"', domains=("cats, dogs", "owls"))
    with pytest.raises(UserError, match='must be some of "cats, dogs", owls, got x,"y, z"'):
        config.target_labels()


def test_domain_names_with_commas(tmp_path):
    names = ("cats, dogs", "owls")
    given = parse_given(["sample", "--domain_names", '"cats, dogs",owls', "--target_domains", "owls"])
    assert RunConfig.from_given(given, domains=names).target_labels() == [1]
    assert given["domain_names"] == list(names)
    fill(tmp_path, 1, ("cat",))
    with pytest.raises(UserError, match='--target_domains with one or more of "cats, dogs",owls'):
        find_references(tmp_path / "cat", names)


def resumed(folder, *domains):
    """Resolve a training that resumes from step 4 of bear and cat with images of other domains."""
    shutil.rmtree(folder / "set", ignore_errors=True)
    for name in domains:
        fill(folder / "set" / name, 2)
    paths = [f"--{flag}={folder / 'set'}" for flag in ("train_img_dir", "val_img_dir")]
    steps = f"--checkpoint_dir={folder / 'steps'}"
    return resolve(parse_given(["train", "--resume_iter", "latest", "--num_workers", "0", *paths, steps]))


@pytest.mark.parametrize("domains", [("bear", "cat", "dog"), ("bear",), ("bear", "lion")])
@pytest.mark.parametrize("saved", [("bear", "cat"), None])
def test_a_resumed_training_with_other_domains_names_init_from(tmp_path, domains, saved):
    line = [*NARROW.split(), "--checkpoint_dir", tmp_path / "steps"]
    Solver(config_of("train", *line, domains=saved)).save(4)
    if saved is None and len(domains) == 2:
        assert resumed(tmp_path, *domains).domains == domains  # only the number is known
        return
    with pytest.raises(UserError, match=r"--init_from .*000004_nets_ema.ckpt and another --checkpoint_dir\."):
        resumed(tmp_path, *domains)


def test_other_folders_with_other_domains_do_not_name_init_from():
    """Neither a validation folder nor a new training nor an evaluation can be mended by --init_from."""
    for mode, step, where in (
        ("train", 100, "--val_img_dir x"), ("train", 0, "--train_img_dir x"), ("eval", 100, "--train_img_dir x")
    ):  # fmt: skip
        config = config_of(mode, "--resume_iter", step, domains=("bear", "cat"))
        with pytest.raises(UserError, match=r"Rename the sub-folders or choose another folder\.$"):
            settle_domains(config, ["bear"], where)
