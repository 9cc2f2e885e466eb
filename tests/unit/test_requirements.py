"""requirements-oldest.txt, which `make test-oldest` installs, has the lower bounds of requirements.txt."""

import re

from tests.command import ROOT


def versions(file, operator):
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    return {
        name: bound for line in lines if line for name, bound in [re.match(rf"(\w+){operator}([\d.]+)", line).groups()]
    }


def test_the_oldest_versions_are_the_bounds():
    assert versions("requirements-oldest.txt", "==") == versions("requirements.txt", ">=")
