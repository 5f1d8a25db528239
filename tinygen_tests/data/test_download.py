"""Fetching from a server on this machine: checksums, mirrors, broken connections, nothing half-written."""

import gzip
import hashlib
import http.server
import sys
import threading

import numpy as np
import pytest

from tinygen.data import download
from tinygen.data.download import cache_folder, fetch
from tinygen.data.errors import DataFileError, DownloadError
from tinygen.data.mnist import MD5, mnist

pytest.importorskip("pooch", reason="fetching needs pooch (python -m pip install pooch)")

CONTENT = np.random.default_rng(0).bytes(50_000)
SUM = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/good/ serves files, /wrong/ other bytes, /dies/ half of them, /liar/ half as if all; else 404."""

    files = {"data.bin": CONTENT}
    asked = []

    def do_GET(self):
        kind, _, name = self.path.strip("/").partition("/")
        self.asked.append(self.path)
        body = self.files.get(name)
        if body is None or kind not in ("good", "wrong", "dies", "liar"):
            self.send_error(404)
            return
        if kind == "wrong":
            body = body[::-1]
        if kind == "liar":
            body = body[: len(body) // 2]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind == "dies" else body)
        # after a short body the connection closes: the handler speaks HTTP/1.0

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """The address of a running server; its files and log are Handler's."""
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.setattr(Handler, "files", {"data.bin": CONTENT})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as s:
        thread = threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{s.server_port}"
        s.shutdown()
        thread.join()


def names(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_a_file_arrives_whole_and_only_once(server, tmp_path):
    folder = tmp_path / "new" / "folder"
    path = fetch("data.bin", SUM, folder, [server + "/good/"])
    assert path == folder / "data.bin" and path.read_bytes() == CONTENT
    assert names(folder) == ["data.bin"]
    assert fetch("data.bin", SUM, folder, [server + "/good"]) == path
    assert Handler.asked == ["/good/data.bin"]


@pytest.mark.parametrize("first", ["missing", "wrong", "dies", "liar"])
def test_the_next_mirror_is_used(server, tmp_path, first):
    path = fetch("data.bin", SUM, tmp_path, [f"{server}/{first}/", f"{server}/good/"])
    assert path.read_bytes() == CONTENT
    assert Handler.asked == [f"/{first}/data.bin", "/good/data.bin"]
    assert names(tmp_path) == ["data.bin"]


def test_a_mirror_that_nobody_listens_on(server, tmp_path):
    assert fetch("data.bin", SUM, tmp_path, ["http://127.0.0.1:9/", server + "/good/"]).read_bytes() == CONTENT


def test_every_mirrors_failure_is_listed_and_nothing_is_left(server, tmp_path):
    mirrors = [f"{server}/{kind}/" for kind in ("missing", "wrong", "dies", "liar")] + ["http://127.0.0.1:9/"]
    with pytest.raises(DownloadError) as caught:
        fetch("data.bin", SUM, tmp_path, mirrors)
    message = str(caught.value)
    for mirror, reason in zip(mirrors, ["404", "hash", "", "hash", "refused"]):
        assert any(mirror in line and reason in line for line in message.splitlines()), (mirror, message)
    assert SUM in message and str(tmp_path) in message
    assert names(tmp_path) == []
    assert isinstance(caught.value, DataFileError)


def test_another_file_of_that_name_is_left_alone(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="different file of this name"):
        fetch("data.bin", SUM, tmp_path, [server + "/good/"])
    assert (tmp_path / "data.bin").read_bytes() == b"mine" and Handler.asked == []


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot be made to hold data.bin"):
        fetch("data.bin", SUM, tmp_path / "file" / "folder", [server + "/good/"])


@pytest.mark.parametrize("mirrors", [[], "http://127.0.0.1/"])
def test_mirrors_must_be_a_list(tmp_path, mirrors):
    with pytest.raises(ValueError, match="list of addresses"):
        fetch("data.bin", SUM, tmp_path, mirrors)


def test_without_pooch_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match="python -m pip install pooch"):
        fetch("data.bin", SUM, tmp_path, ["http://127.0.0.1:9/"])
    monkeypatch.delenv("TINYGEN_DATA", raising=False)
    with pytest.raises(ModuleNotFoundError, match="python -m pip install pooch"):
        cache_folder()


def test_the_cache_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGEN_DATA", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TINYGEN_DATA")
    assert "tinygen" in str(cache_folder())


def test_mnist_fetches_what_its_split_needs(server, tmp_path, monkeypatch, idx_bytes):
    images = np.random.default_rng(1).integers(0, 256, (10, 28, 28)).astype(np.uint8)
    files = {
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx_bytes(images)),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx_bytes(np.arange(10, dtype=np.uint8))),
    }
    monkeypatch.setattr(Handler, "files", files)
    for name, content in files.items():
        monkeypatch.setitem(MD5, name, hashlib.md5(content, usedforsecurity=False).hexdigest())
    mirrors = [server + "/dies/", server + "/good/"]
    with pytest.raises(DataFileError, match="download=True"):
        mnist(tmp_path, "test")
    d = mnist(tmp_path, "test", download=True, mirrors=mirrors)
    np.testing.assert_array_equal(d.x[:, 0], images.astype(np.float32) / np.float32(255))
    assert names(tmp_path) == sorted(files)
    asked = len(Handler.asked)
    mnist(tmp_path, "test", download=True, mirrors=mirrors)
    assert len(Handler.asked) == asked  # what is there is not asked for again
    with pytest.raises(DownloadError, match="train-images-idx3-ubyte.gz could not be fetched"):
        mnist(tmp_path, "train", download=True, mirrors=mirrors)
    assert names(tmp_path) == sorted(files)

    monkeypatch.setenv("TINYGEN_DATA", str(tmp_path / "cache"))
    assert len(mnist(None, "test", download=True, mirrors=mirrors)) == 10
    assert names(tmp_path / "cache" / "mnist") == sorted(files)


def test_the_default_mirrors_are_addresses_of_folders():
    assert all(m.startswith("https://") and m.endswith("/") for m in download.MNIST_MIRRORS)
