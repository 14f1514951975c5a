"""The report page in a real browser."""

import json
import re
import shutil
from urllib.parse import urlencode

import pytest
from patience import PATIENCE
from record_factory import make_record, write_run
from report_sample import write_sample

from seqbench.results.collect import collect, read_unfinished
from seqbench.results.report.content import build_content
from seqbench.results.report.page import render

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH"),
]

HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
SIZES = {"phone": (390, 844), "laptop": (1280, 800), "wide": (1920, 1080)}


def write_page(folder, file):
    found = collect([folder])
    unfinished = [read_unfinished(path) for path in found.unfinished]
    content = build_content(found.records, unfinished, found.folders)
    file.write_text(render(content), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_sample(folder / "outputs")
    return write_page(folder / "outputs", folder / "report.html")


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def tab(browser):
    """Open tabs; fail if one of them logs a message or requests an address."""
    contexts, wrong = [], []

    def opened(where, size="laptop", **options):
        width, height = SIZES[size]
        options |= {"has_touch": True, "is_mobile": True} if size == "phone" else {}
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.split("#")[0] == where.split("#")[0]
                or request.url.startswith(("data:", "blob:"))
                or wrong.append(request.url)
            ),
        )
        page.goto(where)
        page.wait_for_selector("h1")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def column(page, section, number):
    """Return the texts of a column without the rows of bounds."""
    cells = f"section[aria-labelledby={section}] tbody:first-of-type tr > :nth-child({number})"
    texts = page.locator(cells).all_text_contents()
    return [text.strip() for text in texts]


def number_in(text):
    return re.match(r"[\d.e-]+", text).group()


def header(page, section, name):
    return page.locator(f"section[aria-labelledby={section}] thead button").filter(has_text=name)


def see_curves(page):
    page.locator("#curves").scroll_into_view_if_needed()
    page.locator("#curves").evaluate("node => node.scrollIntoView()")
    page.wait_for_selector(".plot .scatterlayer .trace")


def drawn(page, figure=0):
    """Return the number of lines of a figure; bands have none."""
    return page.evaluate(
        "i => document.querySelectorAll('.plot')[i].data.filter(t => t.line.width > 0).length",
        figure,
    )


def place(page):
    """Return the page's own address: `page.url` follows it only after a moment."""
    return page.evaluate("location.href")


def test_the_comparison_is_sorted_by_any_column_and_bounds_stay_below(tab, address):
    page = tab(address)
    assert column(page, "comparison", 1)[:2] == ["gru", "llama"]
    header(page, "comparison", "copy T=1000").click()
    scores = [float(number_in(text)) for text in column(page, "comparison", 6) if text]
    assert scores == sorted(scores)
    assert len(scores) == 4
    assert column(page, "comparison", 6)[4:] == ["", ""]  # what is missing comes last
    header(page, "comparison", "copy T=1000").click()
    assert [float(number_in(t)) for t in column(page, "comparison", 6) if t] == scores[::-1]
    head = page.locator("section[aria-labelledby=comparison] th[aria-sort]")
    assert head.get_attribute("aria-sort") == "descending"
    last = page.locator("section[aria-labelledby=comparison] tbody").nth(1)
    assert last.locator("th").all_inner_texts() == ["without memory", "best possible"]


def test_a_task_and_models_are_chosen_for_the_whole_page(tab, address):
    page = tab(address)
    page.get_by_label("task", exact=True).select_option("smnist")
    page.get_by_label("gru").uncheck()
    assert column(page, "comparison", 1) == ["llama", "lstm", "tcn"]
    assert column(page, "verdicts", 2) == ["lstm", "tcn"]
    assert set(column(page, "verdicts", 3)) <= {"better", "worse"}
    for text in column(page, "verdicts", 6):
        assert text.startswith("protocol ours instead of paper")
    # The length of a run that is not over is not known.
    assert set(column(page, "runs", 2)) == {"smnist T=784", "smnist"}
    assert set(column(page, "runs", 3)) == {"tcn", "lstm", "llama"}
    assert page.locator("figure:visible h3").all_inner_texts() == ["smnist T=784"]
    see_curves(page)
    # The address says so: whoever opens it sees the same.
    again = tab(place(page))
    assert column(again, "comparison", 1) == ["llama", "lstm", "tcn"]
    assert again.get_by_label("task", exact=True).input_value() == "smnist"
    assert not again.get_by_label("gru").is_checked()


def test_a_verdict_is_explained_below_its_table(tab, tmp_path):
    for seed, value in enumerate([5.5e-5, 6e-5, 6.5e-5]):
        write_run(tmp_path, make_record(seed=seed, value=value, protocol="paper"))
    page = tab(write_page(tmp_path, tmp_path / "report.html"))
    assert column(page, "verdicts", 3) == ["reproduced"]
    notes = page.locator("section[aria-labelledby=verdicts] .notes li").all_inner_texts()
    assert [note.partition(":")[0] for note in notes] == ["reproduced"]


def test_of_many_models_some_are_found_by_name(tab, tmp_path):
    for size in range(2, 12):
        write_run(tmp_path, make_record(value=size / 100, model__kernel_size=size))
    page = tab(write_page(tmp_path, tmp_path / "report.html"))
    assert len(column(page, "comparison", 1)) == 10
    page.get_by_label("Find models").fill("kernel_size=11")
    assert column(page, "comparison", 1) == ["tcn (kernel_size=11)"]
    assert page.locator(".models label:visible").count() == 1
    assert len(column(page, "runs", 1)) == 1


def test_runs_are_searched_filtered_and_sorted(tab, address):
    page = tab(address)
    assert len(column(page, "runs", 1)) == 72
    page.get_by_label("status", exact=True).select_option("failed")
    assert column(page, "runs", 6) == ["failed", "failed"]
    page.get_by_label("status", exact=True).select_option("")
    page.get_by_label("Search runs").fill("kernel_size=4 ADDING")
    assert len(column(page, "runs", 1)) == 3
    assert "3 of 72" in page.locator("section[aria-labelledby=runs]").inner_text()
    header(page, "runs", "score").click()
    scores = [float(text.split()[-1]) for text in column(page, "runs", 7)]
    assert scores == sorted(scores)
    page.get_by_label("Search runs").fill("no such thing")
    assert column(page, "runs", 1) == []


def test_curves_are_toggled_and_their_axes_changed(tab, address):
    page = tab(address)
    see_curves(page)
    before = drawn(page)
    assert before == 5
    page.get_by_label("lstm").uncheck()
    assert drawn(page) == before - 1
    page.get_by_role("button", name="none").click()
    assert drawn(page) == 0
    page.get_by_role("button", name="all", exact=True).click()
    assert drawn(page) == before
    page.get_by_label("draw", exact=True).select_option("seeds")
    assert drawn(page) == 19
    page.get_by_label("y axis").select_option("linear")
    page.get_by_label("log steps").check()
    layout = "document.querySelector('.plot')._fullLayout"
    assert page.evaluate(f"[{layout}.xaxis.type, {layout}.yaxis.type]") == ["log", "linear"]
    page.get_by_label("Metric for adding T=200").select_option(label="train loss")
    title = "document.querySelector('.plot').data[0].x.length"
    assert page.evaluate(title) > 20
    shapes = page.evaluate(f"{layout}.shapes.map(shape => shape.label.text)")
    assert shapes == []  # bounds are those of the metric that ranks models
    page.get_by_label("Metric for adding T=200").select_option(label="valid MSE")
    shapes = page.evaluate(f"{layout}.shapes.map(shape => shape.label.text)")
    assert shapes == ["without memory", "best possible"]


def test_an_axis_fits_what_is_shown_however_wide_that_is(tab, tmp_path):
    for seed, scale, rate in ((0, 1e18, 1e9), (1, 1.0, 1e-3)):
        folder = write_run(tmp_path, make_record(seed=seed, optimizer__lr=rate))
        lines = [
            json.dumps({"step": step, "split": "valid", "mse": 0.1 + scale / step**3})
            for step in (10, 100, 1000)
        ]
        (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    page = tab(write_page(tmp_path, tmp_path / "report.html"))
    see_curves(page)
    labels = "document.querySelector('.plot').querySelectorAll('.ytick').length"
    assert 2 < page.evaluate(labels) < 12
    axis = "document.querySelector('.plot')._fullLayout.yaxis.type"
    assert page.evaluate(axis) == "log"
    page.get_by_label("lr=1e+09").or_(page.get_by_label("lr=1000000000")).first.uncheck()
    page.wait_for_function(f"{axis} === 'linear'")


def test_a_curve_tells_its_value_and_can_be_zoomed(tab, address):
    page = tab(address)
    see_curves(page)
    box = page.locator(".plot .nsewdrag").first.bounding_box()
    middle, half = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle, half)
    page.wait_for_selector(".plot .hoverlayer .legendtext, .plot .hoverlayer text")
    assert "gru (n=4)" in page.locator(".plot .hoverlayer").first.text_content()
    reach = "document.querySelector('.plot')._fullLayout.xaxis.range"
    first, last = page.evaluate(reach)
    page.mouse.down()
    page.mouse.move(middle + 100, half + 50, steps=5)
    page.mouse.up()
    page.wait_for_function(f"{reach}[1] - {reach}[0] < {last - first}")


def test_no_button_of_a_plot_sends_it_anywhere(tab, address):
    page = tab(address)
    see_curves(page)
    names = (
        page.locator(".plot")
        .first.locator(".modebar-btn")
        .evaluate_all("buttons => buttons.map(button => button.dataset.title)")
    )
    assert names == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]


def test_a_run_has_a_page_of_its_own_and_back_leads_back(tab, address):
    page = tab(address)
    page.get_by_label("Search runs").fill("kernel_size=4")
    page.locator("section[aria-labelledby=runs] a").first.click()
    page.wait_for_selector("text=Run it again")
    text = page.locator("#page").inner_text()
    assert "seqbench train task=adding model=tcn budget=quick protocol=ours seed=" in text
    assert "model.kernel_size" in text
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.locator("summary", has_text="Configuration").is_visible()
    page.locator("summary", has_text="Configuration").click()
    assert page.get_by_text("trainer.batch_size").is_visible()
    page.wait_for_selector(".plot .scatterlayer .trace")
    page.get_by_role("link", name="Next").click()
    page.wait_for_function("document.activeElement.tagName === 'H1'")
    assert page.locator("h1").inner_text() != text.split("\n")[0]
    page.go_back()
    page.go_back()
    page.wait_for_selector("#comparison")
    assert page.get_by_label("Search runs").input_value() == "kernel_size=4"
    assert len(column(page, "runs", 1)) == 3


def test_a_failed_run_shows_the_end_of_its_traceback(tab, address):
    page = tab(address)
    page.get_by_label("status", exact=True).select_option("failed")
    page.locator("section[aria-labelledby=runs] a").first.click()
    log = page.get_by_role("region", name="End of the log")
    log.wait_for()
    assert log.inner_text().endswith("is invalid for input of size 1228800")
    assert log.evaluate("node => node.scrollTop + node.clientHeight >= node.scrollHeight - 1")


def test_the_keyboard_reaches_every_control(tab, address):
    page = tab(address)
    wanted = {"Dark", "task", "gru", "none", "model", "draw", "y axis", "log steps"}
    wanted |= {"Zoom in", "Search runs", "status", "score"}
    found = []
    for _ in range(140):
        page.keyboard.press("Tab")
        found.append(
            page.evaluate("""() => {
                const node = document.activeElement;
                const name = node.getAttribute("aria-label") || node.closest("label")?.innerText
                    || node.innerText;
                return name.trim().replace(/[↕↑↓]/g, "").split("\\n")[0];
            }""")
        )
        if wanted <= set(found) and re.fullmatch("[0-9a-f]{8}", found[-1]):
            break
    assert wanted <= set(found)
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Run it again")


def test_a_header_is_sorted_by_a_key(tab, address):
    page = tab(address)
    header(page, "runs", "took").focus()
    page.keyboard.press("Enter")
    assert "sort=8" in place(page)
    page.keyboard.press("Space")
    assert "sort=-8" in place(page)
    focused = page.evaluate("document.activeElement.innerText")
    assert focused == "took"  # sorting does not lose the place


def test_light_and_dark_follow_the_system_until_they_are_switched(tab, address):
    def background(page):
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    page = tab(address, color_scheme="dark")
    assert background(page) < 60
    see_curves(page)
    line = "document.querySelector('.plot').data.find(trace => trace.line.width).line.color"
    dark = page.evaluate(line)
    page.get_by_role("button", name="Light").click()
    assert background(page) > 200
    assert page.evaluate(line) != dark
    assert background(tab(place(page), color_scheme="dark")) > 200
    assert background(tab(address, color_scheme="light")) > 200


def test_print_has_all_curves_in_light(tab, address):
    page = tab(address, color_scheme="dark")
    paper = page.pdf()
    assert paper.startswith(b"%PDF")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("document.querySelectorAll('.plot .scatterlayer').length === 4")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert not page.get_by_label("Search runs").is_visible()
    assert page.locator("section[aria-labelledby=runs] tbody tr").last.is_visible()


@pytest.mark.parametrize("sizes", [["phone"], ["laptop", "wide"]], ids=" ".join)
def test_the_page_fits_every_screen(tab, address, sizes):
    page = tab(address, sizes[0])
    failed = page.evaluate("DATA.runs.find(run => run.status === 'failed').id")
    for size in sizes:
        width, height = SIZES[size]
        page.set_viewport_size({"width": width, "height": height})
        for select in (
            lambda: page.goto(f"{address}#"),
            lambda: see_curves(page),
            lambda: page.goto(f"{address}#{urlencode({'run': failed})}"),
        ):
            select()
            widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths == [width] * 2
        assert page.get_by_text("What went wrong").is_visible()


def test_a_hostile_name_is_text(tab, tmp_path):
    names = [HOSTILE, "x" * 3000, "__proto__", "<b>%{x}</b>${1}"]
    for seed, name in enumerate(names):
        folder = write_run(tmp_path, make_record("adding", "tcn", seed, value=0.5))
        record = json.loads((folder / "record.json").read_text())
        record |= {"model": name, "task": name, "run_id": name, "error": name, "status": "failed"}
        record["config"][name] = {name: name}
        record["measured"] |= {name: name, "finished": name}
        (folder / "record.json").write_text(json.dumps(record))
        event = {"step": 1, "split": name, name: 1.5, "loss": 2.0}
        (folder / "events.jsonl").write_text(
            f"{json.dumps(event)}\n{json.dumps(event | {'step': 2, name: 1, 'loss': 1})}\n"
        )
        (folder / "log.txt").write_text(name)
    page = tab(write_page(tmp_path, tmp_path / "report.html"), "phone")
    assert page.locator("section[aria-labelledby=runs] tbody a").count() == len(names)
    listed, opened = page.locator(".models").text_content(), set()
    assert page.locator("img, #page script").count() == 0
    see_curves(page)
    for index in range(len(names)):
        links = page.locator("section[aria-labelledby=runs] tbody a")
        links.nth(index).evaluate("link => link.click()")
        page.wait_for_selector("text=What went wrong")
        title = page.locator("h1").text_content()
        (name,) = (name for name in names if title.startswith(name[:2000]))
        opened.add(name)
        assert name[:2000] in listed
        assert name[:300] in page.locator("pre").first.text_content()
        page.locator(".plot").last.scroll_into_view_if_needed()
        page.wait_for_selector(".plot .scatterlayer .trace")
        assert page.locator("img, #page script, #page a[href*='//']").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == SIZES["phone"][0]
        page.go_back()
        page.wait_for_selector("#comparison")
    assert opened == set(names)
    assert page.title() != "broken"


def test_a_script_that_got_in_would_not_run(browser, address):
    page = browser.new_page()
    page.goto(address)
    blocked = page.evaluate("""async () => {
        const found = [];
        const note = (event) => found.push(event.effectiveDirective);
        addEventListener("securitypolicyviolation", note);
        const script = document.createElement("script");
        script.textContent = "document.title = 'broken'";
        document.body.append(script);
        await new Promise((done) => setTimeout(done, 100));
        return [found, document.title];
    }""")
    page.close()
    assert blocked == [["script-src-elem"], "seqbench report"]
