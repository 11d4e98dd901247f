"""The built-in page in a real browser, on a real server under skewed load.

What it shows is what /metrics says: every cell of the expert map, and the layer whose router is broken.
Skipped where there is no Chromium. With --screenshots FOLDER it also leaves pictures there.
"""

import json
import pathlib
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request

import deployed
from broken_router import BROKEN_LAYER, DEAD, EVEN, HOT, HOT_RATIO, NUM_EXPERTS, break_router
from browser import Browser
from scrape_test import EXPERTS, wide_config
from text_load import TextLoad

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import Server, arguments, check, pb  # noqa: E402

NAME = '<b title="x">demo</b>&amp;'  # nothing in it may become markup
LAYERS_OF_THE_LARGEST = 61
PATIENCE = 60.0  # seconds
CELLS = "[...document.querySelectorAll('#map tbody tr')].map(row => [...row.children].map(cell => cell.textContent))"


def address(server):
    return f"http://127.0.0.1:{server.facts['admin_port']}/"


def text_of(browser, selector):
    return browser.evaluate(f"document.querySelector('{selector}').innerText")


def wait_for(browser, what, expression):
    end = time.monotonic() + PATIENCE
    while not browser.evaluate(expression):
        if time.monotonic() > end:
            check(False, f"{what}; the page says:\n{text_of(browser, 'body')}")
        time.sleep(0.2)
    check(True, what)


def wait_for_state(browser, text):
    wait_for(browser, f"the page says: {text}", f"document.getElementById('state').textContent.startsWith('{text}')")


def check_endpoint(server):
    with urllib.request.urlopen(address(server), timeout=10) as answer:
        page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    check(policy.startswith("default-src 'none';") and "unsafe" not in policy, f"the policy is {policy}")
    try:
        urllib.request.urlopen(urllib.request.Request(address(server), data=b"x"), timeout=10)
        check(False, "POST is refused")
    except urllib.error.HTTPError as error:
        check(error.code == 405, "POST is refused")
    exported = deployed.exported_names(server.admin("/metrics"))
    named = set(re.findall(r"(?:switchyard|process)_[a-z_]+", page))
    unknown = {name for name in named if name not in exported and name + "_count" not in exported}
    # Only with --metrics-expert-detail topk, which has a test of its own below.
    unknown = {name for name in unknown if not name.startswith("switchyard_moe_layer_top_")}
    check(len(named) > 15 and not unknown, f"the {len(named)} metrics that the page reads exist {unknown}")


def check_under_load(browser):
    tiles = "[...document.querySelectorAll('.tile .big')].map(tile => tile.textContent)"
    busy = f"""(([generated, prompt, running, waiting, kv, ttft]) =>
        parseFloat(generated) > 0 && parseFloat(prompt) > 0 && running === '4' && waiting > 0 && parseFloat(kv) > 0 &&
        /^[0-9.]+ m?s$/.test(ttft))({tiles})"""
    wait_for(browser, "throughput, queue, KV cache and time to first token are those of the load", busy)
    print(browser.evaluate(tiles))


def check_page_shows_planted_imbalance(browser, server):
    """While the server is under load."""
    browser.open(address(server))
    wait_for_state(browser, "Serving")
    lately = "document.getElementById('note').innerText.includes('last 30')"
    wait_for(browser, "rows of the last seconds are shown", lately)
    row = next(row for row in browser.evaluate(CELLS) if row[0] == BROKEN_LAYER)
    share = dict(zip(map(str, range(NUM_EXPERTS)), row[2:]))
    others = sum(float(share[expert][:-1]) for expert in EVEN)
    check(
        (row[1], share[HOT]) == (f"{HOT_RATIO:.2f}", "50%")
        and abs(others - 50) <= 1
        and {share[expert] for expert in DEAD} == {"0%"},
        f"half of the rows of layer {BROKEN_LAYER} go to its expert {HOT}: {row}",
    )
    hottest = browser.evaluate("[...document.querySelector('#hottest tbody tr').children].map(td => td.textContent)")
    check(hottest[:4] == [BROKEN_LAYER, HOT, "50%", f"{HOT_RATIO:.2f}"], f"it is the hottest expert: {hottest}")
    # Once there are rows enough: among few, a trained layer's are uneven too.
    only = f"""((cells) => cells('.hot').length === 1 &&
        cells('.hot')[0].parentNode.firstChild.textContent === '{BROKEN_LAYER}' &&
        cells('.h6').map(cell => cell.textContent).join() === '50%')(
        (kind) => [...document.querySelectorAll('#map ' + kind)])"""
    wait_for(browser, "nothing else is shown as hot", only)
    idle = f"Layer {BROKEN_LAYER}: {len(DEAD)} of {NUM_EXPERTS}: {', '.join(DEAD)}"
    check(idle in text_of(browser, "#idle"), f"the idle experts are named: {idle}")


def check_details(browser):
    cell = int(HOT) + 3  # of the row, counted from 1, after layer and imbalance
    browser.point(f"#map tbody tr:nth-child({int(BROKEN_LAYER) + 1}) td:nth-child({cell})")

    def told(expert, share):
        ratio = rf"{share} % of the layer's rows, [\d.]+ times the mean, [\d,]+ rows"
        return rf"Layer {BROKEN_LAYER}, expert {expert}: {ratio}\. Expert {expert} over all layers: .* per batch\."

    detail = text_of(browser, "#detail")
    check(re.match(told(HOT, r"50\.0"), detail), f"the mouse over a cell: {detail}")
    browser.evaluate("document.getElementById('map').focus()")
    browser.press("ArrowLeft")
    detail = text_of(browser, "#detail")
    check(re.match(told(int(HOT) - 1, r"\d\d\.\d"), detail), f"an arrow key: {detail}")


def check_looks(browser, folder, name):
    backgrounds = {}
    for scheme in ("light", "dark"):
        for width in (1280, 390):
            browser.show_as(width, scheme)
            backgrounds[scheme] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
            wide = browser.evaluate("document.documentElement.scrollWidth")
            check(wide <= width, f"{name}, {scheme}: the page fits into {width} pixels ({wide})")
            wide = "[...document.querySelectorAll('#map .figure')].filter(cell => cell.scrollWidth > cell.clientWidth)"
            cut = browser.evaluate(f"{wide}.map(cell => cell.textContent)")
            check(not cut, f"{name}, {scheme}, {width} pixels: no figure runs into the next column {cut}")
            if folder:
                (pathlib.Path(folder) / f"{name}-{width}-{scheme}.png").write_bytes(browser.screenshot())
    check(len(set(backgrounds.values())) == 2, f"{name}: light and dark differ")
    browser.show_as(1280, "light")


def check_cells_match(browser, server):
    """Against the counters, once nothing runs any more."""
    check(server.wait_until_idle(), "the server is idle")
    period = "document.getElementById('period')"
    browser.evaluate(f"{period}.value = 'start', {period}.dispatchEvent(new Event('change'))")
    counters = {}
    for labels, value in server.metrics()["switchyard_moe_expert_tokens_total"]:
        counters.setdefault(labels["layer"], []).append(value)
    total = f"{sum(map(sum, counters.values())):,.0f} rows since the start"
    wait_for(browser, f"the page says: {total}", f"document.getElementById('note').innerText.includes('{total}')")
    rows = browser.evaluate(CELLS)
    check([row[0] for row in rows] == list(counters), f"{len(rows)} layers, in order")
    wrong = []
    for row in rows:
        values = counters[row[0]]
        shares = [100 * value / sum(values) for value in values]
        cells = row[2 : 2 + len(values)]
        wrong += [(row[0], cell, share) for cell, share in zip(cells, shares) if abs(float(cell[:-1]) - share) > 0.501]
        if abs(float(row[1]) - max(shares) / 100 * len(values)) > 0.0051:
            wrong.append((row[0], row[1]))
    cells = sum(len(row) - 4 for row in rows)
    check(not wrong and cells == sum(map(len, counters.values())), f"{cells} cells show the counters' shares {wrong}")


def check_loading(browser, server):
    """The model of this test is loaded in no time, so the page is told what /metrics says before."""
    lines = [line for line in server.admin("/metrics").splitlines() if "build_info" not in line and "_moe_" not in line]
    text = "\n".join(lines).replace("} 1\n", "} 0\n")
    browser.evaluate(f"(window.fetch = async () => new Response({json.dumps(text)}), 0)")
    wait_for_state(browser, "Loading")
    check(browser.evaluate("document.getElementById('experts').hidden"), "and shows no experts")


def check_end(args, browser, server, folder):
    browser.open(address(server))
    wait_for_state(browser, "Serving")
    # Enough to do for the page to ask at least once while the server drains.
    with TextLoad(args.client_binary, server, folder, output_len=700, concurrency=48):
        waits = "Number([...document.querySelectorAll('.tile .big')][3].textContent) > 10"
        wait_for(browser, "many requests wait", waits)
        server.terminate()
        wait_for_state(browser, "Draining")
        check(not browser.complaints, f"the browser complained of nothing {browser.complaints}")
        wait_for_state(browser, "No answer")


def check_less_detail(args, browser):
    said = {
        "topk": "The busiest experts of each layer",
        "layer": "The balance of each layer",
        "off": "The server tells nothing of layers and experts",
    }
    for detail, text in said.items():
        with Server(args, f"--metrics-expert-detail={detail}") as server:
            server.inference.Generate(pb.GenerateRequest(text="And the LORD", max_tokens=8, ignore_eos=True))
            browser.open(address(server))
            wait_for(browser, f"{detail}: {text}", f"document.getElementById('note').innerText.startsWith('{text}')")
            rows = browser.evaluate(CELLS)
            columns = {"topk": 4, "layer": 0}.get(detail)
            check(all(len(row) == 4 + columns for row in rows) if rows else detail == "off", f"{len(rows)} layers")
            if detail == "topk":
                row = next(row for row in rows if row[0] == BROKEN_LAYER)
                check(
                    row[1:3] == [f"{HOT_RATIO:.2f}", f"{HOT}: 50%"]
                    and row[6] == f"{NUM_EXPERTS - len(DEAD)}/{NUM_EXPERTS}",
                    f"the broken layer: {row}",
                )


def check_large(args, browser, folder):
    with tempfile.TemporaryDirectory() as model:
        config = wide_config() | {"num_hidden_layers": LAYERS_OF_THE_LARGEST}
        (pathlib.Path(model) / "config.json").write_text(json.dumps(config))
        args.model = model
        with Server(args, "--load-format=dummy", "--metrics-expert-detail=full") as server:
            server.inference.Generate(pb.GenerateRequest(text="x" * 200, max_tokens=8, ignore_eos=True))
            browser.open(address(server))
            cells = LAYERS_OF_THE_LARGEST * EXPERTS
            wait_for(browser, f"{cells} cells", f"document.querySelectorAll('#map td.expert').length === {cells}")
            check_cells_match(browser, server)
            check_looks(browser, folder, "large")


def main():
    args = arguments(__doc__, client_binary="", screenshots="")
    with tempfile.TemporaryDirectory() as name, Browser(deployed.tool("chromium", "chromium")) as browser:
        folder = pathlib.Path(name)
        browser.show_as(1280, "light")
        break_router(args.model, folder / "model")
        args.model = str(folder / "model")
        with Server(args, "--max-num-seqs=4", "--shutdown-timeout=15", f"--served-model-name={NAME}") as server:
            check_endpoint(server)
            with TextLoad(args.client_binary, server, folder, output_len=40, concurrency=8):
                check_page_shows_planted_imbalance(browser, server)
                check_under_load(browser)
                check_details(browser)
                check_looks(browser, args.screenshots, "page")
            check(text_of(browser, "#model") == NAME, "the model's name is text")
            check(browser.evaluate("document.querySelectorAll('#model *').length") == 0, "and no markup")
            check_cells_match(browser, server)
            check_loading(browser, server)
            check_end(args, browser, server, folder)
        check_less_detail(args, browser)
        check_large(args, browser, args.screenshots)


if __name__ == "__main__":
    main()
