"""The pages in a real browser: no console errors, nothing fetched, tables and charts to be seen."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from sg_guardrails.evals.ablation import Ablation, Cell, Setting
from sg_guardrails.evals.base import Figure, Paired, Trouble
from sg_guardrails.evals.report import write_ablation, write_comparison, write_report
from sg_guardrails.evals.summary import Arm, Evaluation

pytest.importorskip("matplotlib", reason="reports draw charts")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(sys.platform == "win32", reason="the browser is spoken to through inherited pipes"),
]
SEEN = """(() => {
  const seen = element => { const box = element.getBoundingClientRect();
    return box.width > 100 && box.height > 20 && getComputedStyle(element).visibility === 'visible'; };
  const all = name => [...document.querySelectorAll(name)];
  return { tables: all('table').filter(seen).length, charts: all('svg').filter(seen).length,
    drawn: all('svg path').filter(path => path.getBoundingClientRect().width > 0).length,
    labels: all('svg text').map(text => text.textContent), text: document.body.innerText,
    wide: document.documentElement.scrollWidth > innerWidth, ready: document.readyState === 'complete' }; })()"""


class Page:
    """A headless Chromium's page over the DevTools protocol, through the two pipes that it reads and writes."""

    def __init__(self, read, write):
        self.read, self.write, self.events, self.asked, self.rest = read, write, [], 0, b""

    def ask(self, method, **params):
        self.asked += 1
        session = {"sessionId": self.session} if hasattr(self, "session") else {}
        os.write(
            self.write, json.dumps({"id": self.asked, "method": method, "params": params, **session}).encode() + b"\0"
        )
        while True:
            message = self.next()
            if message.get("id") == self.asked:
                assert "error" not in message, message
                return message["result"]

    def wait(self, method):
        while not any(event["method"] == method for event in self.events):
            self.next()

    def next(self):
        while b"\0" not in self.rest:
            got = os.read(self.read, 1 << 16)
            assert got, "the browser is gone"
            self.rest += got
        line, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def opened(path, profile, *, width=1100):
    """The page at `path`, loaded."""
    pipes = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (*os.pipe(), *os.pipe())]
    theirs, ours = (pipes[0], pipes[3]), (pipes[2], pipes[1])

    def hand_over():
        os.dup2(theirs[0], 3)
        os.dup2(theirs[1], 4)

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
    command = [BROWSER, *flags, f"--user-data-dir={profile}", f"--window-size={width},900", "about:blank"]
    apart = {"preexec_fn": hand_over, "pass_fds": (3, 4), "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **apart) as browser:
        try:
            page = Page(*ours)
            target = next(t for t in page.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
            page.session = page.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.ask(f"{domain}.enable")
            page.ask("Page.navigate", url=path.as_uri())
            page.wait("Page.loadEventFired")
            yield page
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            for end in pipes:
                os.close(end)


def figures():
    scores = {
        split: {"accuracy": Figure.rate(hits, 100), "f1": Figure(hits / 100, 100, hits / 100 - 0.05, hits / 100 + 0.04)}
        for split, hits in (("random", 90), ("popular", 80), ("adversarial", 70))
    }
    arms = {"bare": Arm(scores, 1.0, 0.1, {"answered": 300}), "guarded": Arm(scores, 11.0, 0.8, {"answered": 300})}
    return Evaluation(
        "pope", "accuracy", arms, title="pope: bare, guarded", about={"model": "m/x", "policy": "default@1"},
        paired={"all": Paired(150, 20, 5, 24, 0.0041)}, troubles=(Trouble("a.jsonl:3", "<b>no</b>", "broken lines"),),
        lost={"guarded": ["random:7: failed: ValueError"]},
    )  # fmt: skip


def grid():
    cells = tuple(
        Cell(Setting(sigma, 10, way), Figure.rate(180 - i * 5, 200), Figure.rate(60 - i * 10, 200))
        for i, sigma in enumerate((0.1, 0.2, 0.3))
        for way in ("sameness", "kmeans")
    )
    bare = Cell(Setting(0.0, 0, "bare"), Figure.rate(184, 200), Figure.rate(120, 200))
    return Ablation(cells, bare, cells[2].setting, (0.1, 0.3), {"model": "m"})


PAGES = {
    "report": (lambda path: write_report(figures(), path), 4, 1, ["random", "bare", "guarded"]),
    "comparison": (
        lambda path: write_comparison([figures()], path),
        4,
        1,
        ["m/x, bare", "LLaVA-1.5-7B (published), bare"],
    ),
    "ablation": (lambda path: write_ablation(grid(), path), 2, 2, ["sigma", "utility", "attack success rate"]),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_in_a_browser(tmp_path, name):
    write, tables, charts, labels = PAGES[name]
    path = write(tmp_path / f"{name}.html")
    with opened(path, tmp_path / "profile") as page:
        seen = page.ask("Runtime.evaluate", expression=SEEN, returnByValue=True)["result"]["value"]
        events = page.events
    assert seen["ready"]
    assert (seen["tables"], seen["charts"]) == (tables, charts)
    assert seen["drawn"] > 10
    assert set(labels) <= set(seen["labels"])
    assert "95%" in seen["text"]
    fetched = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in fetched if not url.startswith("data:")] == [path.as_uri()]
    complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [event["params"] for event in events if event["method"] in complaints] == []
    assert not seen["wide"]


def test_a_narrow_window_scrolls_tables_not_the_page(tmp_path):
    path = write_report(figures(), tmp_path / "report.html")
    with opened(path, tmp_path / "profile", width=500) as page:
        assert not page.ask("Runtime.evaluate", expression=SEEN, returnByValue=True)["result"]["value"]["wide"]


def test_what_the_browser_would_complain_about_is_seen(tmp_path):
    """The check itself can fail: a page that fetches and logs is found out."""
    (tmp_path / "bad.html").write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("no")</script>')
    with opened(tmp_path / "bad.html", tmp_path / "profile") as page:
        page.ask("Runtime.evaluate", expression="1")
        methods = {event["method"] for event in page.events}
        fetched = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert "Runtime.consoleAPICalled" in methods
    assert "http://127.0.0.1:9/x.png" in fetched
