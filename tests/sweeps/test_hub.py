"""A model that only the Hub has: its config.json is fetched once, and what keeps it from that is told in one line."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import Bench
from tests.models.tiny import LLAMA

BAD = {**LLAMA, "hidden_size": "wide"}


class Hub:
    """As much of the Hub as a config.json needs, on this machine."""

    def __init__(self) -> None:
        asked = self.asked = []  # type: list[str]
        files = {"acme/Tiny-1B": LLAMA, "acme/Bad": BAD}
        refused = {"acme/Gated": (401, "GatedRepo"), "acme/Empty": (404, "EntryNotFound")}

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                name = "/".join(self.path.split("/")[1:3])
                asked.append(name)
                code, error = (200, "") if name in files else refused.get(name, (401, "RepoNotFound"))
                data = json.dumps(files[name]).encode() if name in files else b""
                self.send_response(code)
                headers = {"ETag": f'"{"a" * 40}"', "X-Repo-Commit": "b" * 40, "X-Error-Code": error}
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_HEAD = do_GET = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(bench: Bench, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    bench.env = {k: v for k, v in bench.env.items() if not k.startswith(("HF_", "HUGGING"))}
    bench.env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
    yield hub
    hub.close()


def test_a_config_is_fetched_once_and_then_needs_no_network(bench: Bench, hub: Hub, tmp_path: Path) -> None:
    first = bench("list", "--model", "acme/Tiny-1B", "--gpu", "h100", "--seq", "32")
    assert first.returncode == 0, first.stderr
    assert "Tiny-1B on H100" in first.stdout and "acme/Tiny-1B" not in first.stdout
    kept = [p for p in (tmp_path / "hf").rglob("*") if p.is_file() and "snapshots" in p.parts]
    assert [p.name for p in kept] == ["config.json"]
    hub.close()
    asked = list(hub.asked)
    again = bench("list", "--model", "acme/Tiny-1B", "--gpu", "h100", "--seq", "32")
    assert (again.stdout, again.returncode) == (first.stdout, 0) and hub.asked == asked


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("acme/Gated", ["it is gated: ask for access at", "HF_TOKEN"]),
        ("acme/None", ["knows no such model"]),
        ("acme/Empty", ["it has no config.json"]),
        ("acme/Bad", ["config.json: hidden_size is 'wide'. It should be a whole number"]),
    ],
)
def test_what_the_hub_refuses_is_one_line(bench: Bench, hub: Hub, model: str, says: list[str]) -> None:
    refused(bench, model, says if model == "acme/Bad" else [*says, "Valid without the Hub", "qwen3-8b"])


def test_without_network_or_offline_it_says_so(bench: Bench, hub: Hub) -> None:
    bench.env["HF_ENDPOINT"] = "http://127.0.0.1:9"
    refused(bench, "acme/Tiny-1B", ["was not fetched before, and http://127.0.0.1:9 does not answer"])
    bench.env |= {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"}
    refused(bench, "acme/Tiny-1B", ["was not fetched before, and HF_HUB_OFFLINE forbids to ask"])
    assert hub.asked == []


def refused(bench: Bench, model: str, says: list[str]) -> None:
    done = bench("list", "--model", model, "--gpu", "h100")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: --model: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(part in done.stderr for part in says), done.stderr
