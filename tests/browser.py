"""A headless Chromium from the path; without one, tests that need it are skipped."""

import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@contextmanager
def browser():
    """A playwright Browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium here (on Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield started
        started.close()


class Visit:
    """A page opened from the disk at a given width, with its requests and errors."""

    def __init__(self, browser, path, width=1200, scheme="light"):
        self.requests, self.errors = [], []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.errors.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.goto(path.as_uri())

    def points(self):
        """{title of a chart: numbers of points of its raw (not smoothed) lines}"""
        script = """figures => Object.fromEntries(figures.map(figure => [figure.querySelector("strong").textContent,
            [...figure.querySelectorAll("polyline.raw")].map(line => line.points.numberOfItems)]))"""
        return self.page.locator("figure.chart").evaluate_all(script)

    def overflow(self):
        """By how many pixels the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
