"""What the page costs: clicks on the server and in the browser, idle pages, and many annotators at once.

    python benchmarks/page.py                      # the demo, or demo-small where its weights cannot be had
    python benchmarks/page.py --bundle demo-small

Needs Chromium (``apt-get install chromium``; CHROMIUM names another one) and onnxruntime-web (``make demo-page``).
Server and browser share the machine's cores, as they do when an annotator uses both. Times of a click are compared with
the engine's own in the same run. Writes ``page.json`` and ``page.md`` into ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.bench.text import number
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.engines.machine import OtherPrograms, describe_machine, machine_lines
from mmms_deploy.imaging import load_rgb
from mmms_deploy.page.framing import unframe
from mmms_deploy.reporting.files import write_text

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).resolve().parent
PHOTO = HERE.parent / "docs" / "images" / "photo.jpg"
SIZE = (720, 1280)
OVERHEAD, FIRST, LATER = 15.0, 3000.0, 100.0
"""The goals, in ms: of a click on the server above its engine, of the first and of later clicks in a browser."""


@dataclass
class Clicks:
    """Clicks on one page, in milliseconds.

    Attributes:
        painted: From the mouse to the painted mask, each.
        engine: The engine's part, each.
        device: What ran them.
        opened: From opening the page to the first painted mask; None where the page was open already.
    """

    painted: list[float]
    engine: list[float]
    device: str
    opened: float | None = None

    @property
    def above(self) -> float:
        """The middle of what a click takes beside its engine."""
        return median(whole - engine for whole, engine in zip(self.painted, self.engine, strict=True))


@dataclass
class Idle:
    """Pages that are open and do nothing.

    Attributes:
        pages: How many.
        each: Bytes that a page adds to the server's memory.
        held: Bytes of its features, its picture and its label maps, counted.
        cpu: CPUs that the server kept busy while all were idle.
    """

    pages: int
    each: float
    held: float
    cpu: float


@dataclass
class Crowd:
    """Annotators who click at the same time.

    Attributes:
        annotators: How many.
        asked: Clicks that were sent.
        answered: Clicks that were answered with the mask that a session gives.
        slowest: Milliseconds of the slowest answer.
        rate: Clicks a second of all.
        alone: Clicks a second of one annotator, in the same run.
    """

    annotators: int
    asked: int
    answered: int
    slowest: float
    rate: float
    alone: float


@dataclass
class Results:
    """Everything that was measured; ``why`` names what was not."""

    bundle: str
    server: Clicks | None = None
    browser: dict[str, Clicks] = field(default_factory=dict)
    idle: Idle | None = None
    crowd: Crowd | None = None
    why: dict[str, str] = field(default_factory=dict)


# --- the server and its callers ---------------------------------------------------------------------------------------


@contextmanager
def served(bundle: str, picture: Path) -> Iterator[tuple[str, int]]:
    """Run ``mmms-demo``; gives the page's address and the number of its process."""
    line = [sys.executable, "-m", "mmms_deploy.commands.demo", bundle, str(picture), "--port", "0", "--no-open"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        for printed in process.stdout:
            if (found := re.match(r"page +(\S+)", printed)) is not None:
                yield found[1], process.pid
                break
        else:
            raise SystemExit("mmms-demo did not start")
    finally:
        process.terminate()
        process.communicate()


def call(method: str, url: str, content: Any = None) -> Any:
    """Return the JSON of an answer."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.loads(answer.read() or b"null")


def opened(api: str) -> str:
    """Return a new session on the server's first picture."""
    session = str(call("POST", f"{api}/sessions")["session"])
    call("POST", f"{api}/sessions/{session}/open", {"image": 0})
    return session


def points(count: int) -> list[tuple[int, int, bool]]:
    """Return clicks on the picture; every third is negative."""
    rng = np.random.default_rng(7)
    places = rng.uniform((0.2, 0.2), (0.8, 0.8), (count, 2)) * (SIZE[1], SIZE[0])
    return [(int(x), int(y), at % 3 != 2) for at, (x, y) in enumerate(places)]


# --- a page -----------------------------------------------------------------------------------------------------------


def wait(page: Page, expression: str, seconds: float = 120.0) -> None:
    """Wait until JavaScript's value is true."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise SystemExit(f"it never happened: {expression}")
        time.sleep(0.002)


def press(page: Page, x: int, y: int, positive: bool) -> None:
    """Click with the mouse on a pixel of the picture, and wait until the mask is painted."""
    left, top = page.evaluate("([x, y]) => mmmsDemo.clientOf(x, y)", [x, y])
    page.evaluate("() => { mmmsDemo.state.measured = null; }")
    page.mouse.click(left, top, button="left" if positive else "right")
    wait(page, "mmmsDemo.state.measured !== null")


def clicked(page: Page, count: int) -> Clicks:
    """Return the times of clicks, without the first ones, which warm up."""
    painted, engine = [], []
    for at, (x, y, positive) in enumerate(points(count + 3)):
        press(page, x, y, positive)
        measured = page.evaluate("mmmsDemo.state.measured")
        if at >= 3:
            painted.append(measured["total"])
            engine.append(measured["engine"])
    where, _, what = page.inner_text("#status-where").partition(": ")
    return Clicks(painted, engine, what or where)


def on_the_server(browser: Browser, url: str, count: int) -> Clicks:
    """Measure clicks that the server answers."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(url)
    wait(page, "Boolean(window.mmmsDemo?.idle()) && mmmsDemo.state.picture !== null")
    found = clicked(page, count)
    page.close()
    return found


@contextmanager
def static_page(folder: Path, *, isolated: bool) -> Iterator[str]:
    """Serve a folder, with the headers that threads need or without."""

    class Handler(SimpleHTTPRequestHandler):
        extensions_map: ClassVar[dict[str, str]] = {
            **SimpleHTTPRequestHandler.extensions_map,
            ".js": "text/javascript",
            ".mjs": "text/javascript",
        }

        def log_message(self, *args: Any) -> None:
            pass

        def end_headers(self) -> None:
            if isolated:
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def in_the_browser(browser: Browser, url: str, count: int) -> Clicks:
    """Measure clicks that the browser answers, from opening the page on."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    begun = time.perf_counter()
    page.goto(url)
    wait(page, "Boolean(window.mmmsDemo?.idle()) && mmmsDemo.state.mode === 'browser'")
    press(page, *points(1)[0])
    first = 1e3 * (time.perf_counter() - begun)
    found = clicked(page, count)
    page.close()
    found.opened = first
    return found


# --- many pages -------------------------------------------------------------------------------------------------------


def memory(process: int) -> int:
    """Return the bytes of memory that a process and nothing else holds."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    private = re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", text, re.MULTILINE)
    return 1024 * sum(map(int, private))


def cpu_seconds(process: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_pages(url: str, process: int, count: int, held: float) -> Idle:
    """Open pages, each with a picture, a live socket and one click, and let them be idle."""
    from websockets.sync.client import connect

    api = f"{url}api/v1"
    sessions = [opened(api) for _ in range(3)]  # what grows once does so before
    before = memory(process)
    more = [opened(api) for _ in range(count)]
    with ExitStack() as sockets:
        for session in more:
            place = f"{api.replace('http', 'ws', 1)}/sessions/{session}/live"
            sockets.enter_context(connect(place, subprotocols=["mmms-deploy"]))
        grown = memory(process) - before
        start, used = time.perf_counter(), cpu_seconds(process)
        time.sleep(10)
        busy = (cpu_seconds(process) - used) / (time.perf_counter() - start)
    for session in (*sessions, *more):
        call("DELETE", f"{api}/sessions/{session}")
    return Idle(count, grown / count, held, busy)


def crowd(url: str, annotators: int, each: int, expected: Sequence[int]) -> Crowd:
    """Let annotators click at the same time, and one alone."""
    from websockets.sync.client import connect

    api = f"{url}api/v1"
    clicks = points(each)

    def annotate(session: str, times: list[float], right: list[bool]) -> None:
        with connect(
            f"{api.replace('http', 'ws', 1)}/sessions/{session}/live", subprotocols=["mmms-deploy"], max_size=None
        ) as socket:
            labels = np.zeros(SIZE, dtype=np.uint32)
            for at, (x, y, positive) in enumerate(clicks):
                start = time.perf_counter()
                socket.send(json.dumps({"id": at, "do": "click", "x": x, "y": y, "positive": positive}))
                header, payload = unframe(socket.recv(timeout=600))
                times.append(1e3 * (time.perf_counter() - start))
                changed = header["answer"]["changed"]
                if changed is not None:
                    runs = np.frombuffer(payload, "<u4").reshape(-1, 2)
                    top, left = changed["y"], changed["x"]
                    box = (slice(top, top + changed["height"]), slice(left, left + changed["width"]))
                    labels[box] = np.repeat(runs[:, 0], runs[:, 1]).reshape(changed["height"], changed["width"])
                right.append(header["id"] == at and _sum(labels > 0) == expected[at])

    def together(count: int) -> tuple[list[float], list[bool], float]:
        sessions = [opened(api) for _ in range(count)]
        times: list[float] = []
        right: list[bool] = []
        threads = [threading.Thread(target=annotate, args=(one, times, right)) for one in sessions]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - start
        for session in sessions:
            call("DELETE", f"{api}/sessions/{session}")
        return times, right, took

    _, alone, seconds = together(1)
    times, right, took = together(annotators)
    return Crowd(annotators, annotators * each, sum(right), max(times), len(times) / took, len(alone) / seconds)


def _sum(mask: Any) -> int:
    return zlib.crc32(np.packbits(mask).tobytes())


def in_a_session(bundle: str, picture: Path, each: int) -> tuple[list[int], float]:
    """Return checksums of a session's masks, and the bytes that a session with the picture holds, counted."""
    from mmms_deploy.bundle import Role

    with Session(bundle) as session:
        session.set_image(picture)
        sums = [_sum(session.click(x, y, positive).mask) for x, y, positive in points(each)]
        specs = [
            spec
            for stage in session.bundle.manifest.stages
            for graph in list(stage.graphs.values())[:1]
            for spec in graph.outputs
            if spec.role is Role.FEATURE
        ]
    features = sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs)
    return sums, features + 3 * SIZE[0] * SIZE[1]


# --- all of it --------------------------------------------------------------------------------------------------------


def measure(bundle: str, options: argparse.Namespace, folder: Path) -> Results:
    """Measure everything that can be measured here."""
    picture = folder / "picture.jpg"
    Image.fromarray(load_rgb(PHOTO)).resize((SIZE[1], SIZE[0])).save(picture, quality=90)
    found = Results(bundle)
    expected, held = in_a_session(bundle, picture, options.each)
    with served(bundle, picture) as (url, process):
        _say("idle pages")
        found.idle = idle_pages(url, process, options.pages, held)
        _say("annotators at once")
        found.crowd = crowd(url, options.annotators, options.each, expected)
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        found.why["pages in a browser"] = "there is no Chromium"
        return found
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with served(bundle, picture) as (url, _):
            _say("clicks on the server")
            found.server = on_the_server(browser, url, options.clicks)
        _say("clicks in the browser")
        line = [sys.executable, "-m", "mmms_deploy.commands.demo", bundle, "--static", str(folder / "site")]
        done = subprocess.run([*line, "--image", str(picture)], capture_output=True, text=True, check=False)
        if done.returncode:
            found.why["clicks in a browser"] = done.stderr.strip().splitlines()[-1]
        else:
            for name, isolated in (("threads", True), ("one thread", False)):
                with static_page(folder / "site", isolated=isolated) as url:
                    found.browser[name] = in_the_browser(browser, url, options.clicks)
        browser.close()
    return found


def markdown(found: Results, machine: Sequence[tuple[str, str]]) -> str:
    """Return the page with the tables, in Markdown."""
    lines = [
        "# The page to click on",
        "",
        f"`python benchmarks/page.py`: bundle `{found.bundle}`, a picture of {SIZE[1]} x {SIZE[0]}, Chromium without a"
        " window on the same cores as the server. *painted*: from the mouse to the painted mask. *engine*: the click"
        " stage with its upload and download. *above*: what a click takes beside its engine. All are medians, in ms.",
        "",
        "| clicks | ran | painted | engine | above | painted / engine | from opening to the first mask |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    rows = [("on the server", found.server), *((f"in the browser, {name}", one) for name, one in found.browser.items())]
    for name, one in rows:
        if one is None:
            continue
        whole, engine = median(one.painted), median(one.engine)
        opening = "" if one.opened is None else number(one.opened, "ms")
        lines.append(
            f"| {name} | {one.device} | {number(whole, 'ms')} | {number(engine, 'ms')} | {number(one.above, 'ms')} |"
            f" {whole / engine:.2f} | {opening} |"
        )
    lines += [
        "",
        f"Goals: at most {OVERHEAD:.0f} ms above the engine on the server; in the browser the first mask within"
        f" {FIRST / 1e3:.0f} s of opening, and later clicks under {LATER:.0f} ms.",
        "",
    ]
    if found.idle is not None:
        idle = found.idle
        lines += [
            "## Pages that do nothing",
            "",
            "| pages | MB each | MB of its features and picture | ratio | CPUs busy |",
            "|---:|---:|---:|---:|---:|",
            f"| {idle.pages} | {idle.each / 1e6:.1f} | {idle.held / 1e6:.1f} | {idle.each / idle.held:.2f} |"
            f" {idle.cpu:.3f} |",
            "",
        ]
    if found.crowd is not None:
        many = found.crowd
        lines += [
            "## Annotators at once",
            "",
            "*right*: answered, in order, with the mask that a session of one's own gives, pixel by pixel.",
            "",
            "| annotators | clicks | right | slowest, ms | clicks a second | of one alone | ratio |",
            "|---:|---:|---:|---:|---:|---:|---:|",
            f"| {many.annotators} | {many.asked} | {many.answered} | {number(many.slowest, 'ms')} | {many.rate:.1f} |"
            f" {many.alone:.1f} | {many.rate / many.alone:.2f} |",
            "",
        ]
    lines += [f"Not measured: {what}, because {why}." for what, why in found.why.items()]
    lines += ["", "## Machine", "", "| | |", "|---|---|", *(f"| {what} | {text} |" for what, text in machine)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="demo", help="the bundle (default: demo)")
    parser.add_argument("--clicks", type=int, default=20, help="clicks on each page (default 20)")
    parser.add_argument("--pages", type=int, default=100, help="idle pages (default 100)")
    parser.add_argument("--annotators", type=int, default=16, help="annotators at once (default 16)")
    parser.add_argument("--each", type=int, default=10, help="clicks of each of them (default 10)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of results")
    options = parser.parse_args(arguments)
    from mmms_deploy.bundle.reference import ready_bundle

    bundle, others = (
        str(ready_bundle(options.bundle)[0]) if options.bundle == "demo" else options.bundle,
        OtherPrograms(),
    )
    with tempfile.TemporaryDirectory(prefix="mmms-page-") as folder:
        found = measure(bundle, options, Path(folder))
    import msgspec

    machine = msgspec.structs.replace(describe_machine(), others=others.cpus())
    content = {
        "schema": 1,
        "kind": "benchmarks/page",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": to_builtins(machine),
        "results": asdict(found),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "page.json", (json.dumps(content, indent=1) + "\n").encode())
    page = markdown(found, machine_lines(machine))
    write_text(options.out / "page.md", page.encode())
    print(page)
    return 1 if found.why else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
