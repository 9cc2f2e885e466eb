"""Pages of runs and results in a browser: opened from the disk, without requests to the network."""

import json
import re

import pytest

from core.report import page
from tests.browser import Visit, browser
from tests.command import RUN, call

STEPS, LINES = (2, 4, 6), 6


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def watched(data, tmp_path_factory):
    """Sample folder of a run of six iterations, all of them printed, with scores of two steps."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "eval").mkdir()
    rows = [
        {"step": step, "mode": mode, "FID": 90.0 - step, "KID": 0.1, "LPIPS": None if step == 2 else 0.4}
        for step in (2, 4, 1000)
        for mode in ("latent", "reference")
    ]
    (folder / "eval" / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = f"{RUN} --total_iters {LINES} --print_every 1 --sample_every 2 --val_batch_size 4 --num_outs_per_domain 1"
    where = {"checkpoint_dir": folder / "checkpoints", "sample_dir": folder / "samples", "eval_dir": folder / "eval"}
    assert call("train", flags, **data, **where) == 0
    return folder / "samples"


def test_run_page_shows_images_and_curves_of_all_steps(watched, chromium):
    visit = Visit(chromium, watched / "index.html")
    view = visit.page
    assert "Step 6 of 6, finished" in view.inner_text("header") and "bear, cat, dog" in view.title()
    slider, image = view.locator("input[type=range]"), view.locator(".stage img")
    assert slider.get_attribute("max") == str(len(STEPS) - 1)

    def shown():
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        return image.get_attribute("src"), view.inner_text(".bar output")

    assert shown() == ("000006_reference.jpg", "step 6")  # the newest first
    slider.focus()
    view.keyboard.press("ArrowLeft")
    assert shown() == ("000004_reference.jpg", "step 4")
    view.get_by_text("latent psi 0.7").click()
    assert shown() == ("000004_latent_psi_0.7.jpg", "step 4")
    view.get_by_label("previous step").click()
    assert shown() == ("000002_latent_psi_0.7.jpg", "step 2")
    view.reload()  # as the page does itself during a run
    assert shown() == ("000002_latent_psi_0.7.jpg", "step 2")
    slider.fill("2")
    assert shown() == ("000006_latent_psi_0.7.jpg", "step 6")

    points = visit.points()
    titles = ("D on real images", "R1", "G against D", "Diversity", "Cycle consistency")
    assert all(points[title] == [LINES, LINES] for title in titles), points
    assert points["Iterations per second"] == [LINES] and points["FID"] == [2, 2] and points["LPIPS"] == [1, 1]
    assert not visit.errors
    assert {url.partition(":")[0] for url in visit.requests} == {"file"}
    assert all(str(watched.parent) in url for url in visit.requests)


def test_a_new_training_moves_earlier_images_aside(data, tmp_path):
    where = {"checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}
    flags = f"{RUN} --val_batch_size 2 --num_outs_per_domain 1"
    assert call("train", f"{flags} --total_iters 2 --sample_every 1", **data, **where) == 0
    (tmp_path / "samples" / "000001_mine.jpg").write_bytes(b"")
    assert call("train", f"{flags} --total_iters 3 --sample_every 3 --lr 0.001", **data, **where) == 0
    found = {path.name[:6] for path in (tmp_path / "samples").glob("*_reference.jpg")}
    assert found == {"000003"} and (tmp_path / "samples" / "000001_mine.jpg").exists()
    assert len(list((tmp_path / "samples" / "earlier_1").glob("00000[12]_*.jpg"))) == 10
    assert call("train", f"{flags} --total_iters 1 --sample_every 1", **data, **where) == 0
    assert {path.name[:6] for path in (tmp_path / "samples" / "earlier_2").iterdir()} == {"000003"}


def test_page_without_images_and_curves_says_when_they_come(data, chromium, tmp_path):
    where = {"checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}
    assert call("train", f"{RUN} --total_iters 1 --print_every 5 --sample_every 0", **data, **where) == 0
    visit = Visit(chromium, tmp_path / "samples" / "index.html")
    shown = visit.page.inner_text("body")
    assert "None before iteration 5 (--print_every)." in shown and "Disabled by --sample_every 0." in shown
    assert not visit.points() and not visit.errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_light_and_dark(scheme, watched, chromium):
    visit = Visit(chromium, watched / "index.html", 360, scheme)
    assert visit.overflow() <= 0
    assert all(box["height"] >= 36 for box in (b.bounding_box() for b in visit.page.get_by_role("button").all()))
    colours = visit.page.evaluate("['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])")
    text, ground = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert (text < 150 and ground > 600) if scheme == "light" else (text > 600 and ground < 150)


def test_charts_show_values_under_the_pointer(watched, chromium):
    visit = Visit(chromium, watched / "index.html")
    rows = [json.loads(line) for line in (watched / "train.jsonl").read_text().splitlines()]
    chart = visit.page.locator("figure.chart", has_text="Cycle consistency")
    svg = chart.locator("svg")
    svg.hover(position={"x": 42 / 320 * svg.bounding_box()["width"] + 1, "y": 20})
    first = [float(word) for word in re.findall(r"[\d.]+", chart.locator("div").inner_text())]
    assert first == pytest.approx([rows[0]["G/latent_cyc"], rows[0]["G/ref_cyc"]], rel=0.01)


def test_results_page_shows_all_written_files(chromium, tmp_path):
    flags = "--preset demo --device cpu --outputs reference,video_ref,images --seeds 0 --target_domains cat"
    assert call("sample", flags, result_dir=tmp_path) == 0
    visit = Visit(chromium, tmp_path / "index.html")
    assert visit.page.locator("video").evaluate("video => video.readyState >= 1 || new Promise(done => "
        "video.addEventListener('loadedmetadata', () => done(true)))")  # fmt: skip
    assert visit.page.locator("img").count() == 1 + 9
    widths = visit.page.locator("img").evaluate_all(
        "images => Promise.all(images.map(i => { i.loading = 'eager'; return i.decode().then(() => i.naturalWidth); }))"
    )
    assert widths == [10 * 64] + [64] * 9
    captions = visit.page.locator("figcaption").all_inner_texts()
    assert "00005.png, seed 0" in captions and any(text.startswith("reference.jpg") for text in captions)
    assert not visit.errors and all(url.startswith("file:") for url in visit.requests)
    (tmp_path / "holiday.jpg").write_bytes(b"somebody's")
    assert call("sample", "--preset demo --device cpu --outputs latent --seeds 0", result_dir=tmp_path) == 0
    again = Visit(chromium, tmp_path / "index.html")
    assert again.page.locator("img").count() == 1 + 3 + 9, "earlier results, but no foreign files"


def test_markup_in_names_is_escaped(chromium, tmp_path):
    """Names of domains and files neither end the script nor become elements."""
    name = "</script><img src=x onerror=alert(1)> & # ? % ü"
    (tmp_path / "a #1.jpg").write_bytes(b"")
    rows = page.facts(name, [(name, name)])
    page.write_page(tmp_path / "index.html", name, [rows, page.gallery(name, [page.picture("a #1.jpg", name)])])
    visit = Visit(chromium, tmp_path / "index.html")
    assert visit.page.locator("img").count() == 1 and visit.page.title() == name
    assert visit.page.locator("dd").inner_text() == name
    visit.page.locator("img").scroll_into_view_if_needed()
    assert visit.page.locator("img").get_attribute("src") == "a%20%231.jpg"


def test_charts_handle_few_equal_and_huge_values(chromium, tmp_path):
    """No points, one, equal ones, huge ones."""
    cases = {"none": [], "one": [(5, 0.5)], "equal": [(1, 2), (2, 2)], "huge": [(1, 1e12), (2_000_000, -1e12)]}
    charts = [page.chart(name, "", {"line": points}) for name, points in cases.items()]
    page.write_page(tmp_path / "index.html", "charts", [page.curves("Charts", charts)])
    visit = Visit(chromium, tmp_path / "index.html")
    assert visit.points() == {"none": [], "one": [1], "equal": [2], "huge": [2]} and not visit.errors
    assert "NaN" not in visit.page.content()
