"""Pages as files; e2e/test_page_in_browser.py opens them."""

import pytest

from core.report import page
from core.system.errors import UserError


def test_pages_of_other_programs_are_not_overwritten(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UserError, match=r"^Cannot overwrite .*index\.html \(another program created it\)"):
        page.write_page(tmp_path / "index.html", "", [])
    assert (tmp_path / "index.html").read_text() == "mine"
