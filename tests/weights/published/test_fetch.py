"""Downloads from a server on 127.0.0.1 that may be slow, broken or wrong."""

import hashlib
import http.client
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from boxwright.structures import InputError
from boxwright.weights.published.catalogue import Published, PublishedFile
from boxwright.weights.published.fetch import Patience, cache_folder, cached, fetch, folder_of, require_cached

BODY = bytes(range(256)) * 4000  # 1 MB
DIGEST = hashlib.sha256(BODY).hexdigest()
FAST = Patience(timeout=60, attempts=3, pause=0.01)
"""No test waits for this timeout: a load on the machine cannot reach it."""


@dataclass
class Server:
    """Behaviour of the server, and the requests that it got.

    ``codes`` are answered first, one a request. ``cut`` and ``stall``: after so many bytes of a request's body, once
    per entry, it closes the connection or sends nothing more.
    """

    url: str
    body: bytes = BODY
    codes: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    stall: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str = '"one"'
    modified: str = ""
    wrong_part: bool = False
    length: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            if state.codes:
                self.send_error(state.codes.pop(0))
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if self.headers.get("If-Range", state.tag) not in (state.tag, state.modified):
                start = 0
            if start > len(state.body):
                self.send_error(416)
                return
            rest = state.body[start:]
            self.send_response(206 if start else 200)
            if start:
                named = 0 if state.wrong_part else start
                self.send_header("Content-Range", f"bytes {named}-{len(state.body) - 1}/{len(state.body)}")
            if state.tag:
                self.send_header("ETag", state.tag)
            if state.modified:
                self.send_header("Last-Modified", state.modified)
            if state.length:
                self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if state.cut:
                self.wfile.write(rest[: state.cut.pop(0)])
                return
            if state.stall:
                self.wfile.write(rest[: state.stall.pop(0)])
                self.wfile.flush()
                state.closing.wait(5)
                return
            self.wfile.write(rest)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    state = Server(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    state.closing.set()
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry(server: Server, **changes: object) -> Published:
    file = replace(PublishedFile(url=f"{server.url}/models/a-weights.pth", sha256=DIGEST[:8]), **changes)  # type: ignore[arg-type]
    return Published(name="torchvision:toy", data="", measured_on="", figures={}, licence="", files=(file,))


def part_of(wanted: Published) -> Path:
    return folder_of(wanted) / "a-weights.pth.part"


def test_a_file_comes_whole_and_only_once(server: Server, cache: Path):
    seen: list[tuple[int, int | None]] = []
    wanted = entry(server)
    assert cached(wanted) is None
    path = fetch(wanted, progress=lambda _, done, total: seen.append((done, total)))
    assert path == cache / "weights" / "torchvision" / "toy" / "a-weights.pth" == cached(wanted)
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert [p.name for p in path.parent.iterdir()] == ["a-weights.pth"]
    assert fetch(wanted) == path
    assert len(server.asked) == 1


def test_another_folder(server: Server, tmp_path: Path):
    path = fetch(entry(server), tmp_path / "deep" / "here")
    assert path == tmp_path / "deep" / "here" / "a-weights.pth"
    assert cached(entry(server)) is None


def test_a_broken_connection_is_resumed_where_it_broke(server: Server):
    server.cut = [300_000, 200_000]
    path = fetch(entry(server), patience=FAST)
    assert path.read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_stalled_server_times_out_and_is_asked_again(server: Server):
    """With a real timeout. A busy machine may need more of the attempts, which the test does not count."""
    server.stall = [300_000]
    assert fetch(entry(server), patience=Patience(timeout=0.2, attempts=100, pause=0.01)).read_bytes() == BODY
    assert len(server.asked) > 1


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection that ends time out instead, without a clock."""
    read1 = http.client.HTTPResponse.read1

    def read_or_time_out(answer: http.client.HTTPResponse, size: int) -> bytes:
        data = read1(answer, size)
        if not data and answer.length:
            raise TimeoutError
        return data

    monkeypatch.setattr(http.client.HTTPResponse, "read1", read_or_time_out)


@pytest.mark.usefixtures("silence")
def test_what_came_before_a_stall_is_kept(server: Server):
    server.cut = [300_000]
    assert fetch(entry(server), patience=FAST).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-"]


@pytest.mark.usefixtures("silence")
def test_a_server_that_always_stalls_ends_in_an_error_that_says_what_is_here(server: Server):
    server.cut = [250_000] * 9
    with pytest.raises(InputError, match=r"sent nothing for 60 s, 3 times in a row; 0\.8 MB are here, and the same"):
        fetch(entry(server), patience=FAST)
    assert part_of(entry(server)).stat().st_size == 750_000


def test_a_later_call_goes_on_with_the_part(server: Server):
    server.cut = [400_000]
    with pytest.raises(InputError, match=r"broke after 400,000 of 1,024,000 bytes, 1 times"):
        fetch(entry(server), patience=replace(FAST, attempts=1))
    assert fetch(entry(server)).read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=400000-"


def test_a_file_that_has_changed_meanwhile_starts_over(server: Server):
    server.cut = [400_000]
    with pytest.raises(InputError):
        fetch(entry(server), patience=replace(FAST, attempts=1))
    server.body, server.tag = BODY[::-1], '"two"'
    wanted = entry(server, sha256=hashlib.sha256(server.body).hexdigest()[:8])
    assert fetch(wanted).read_bytes() == BODY[::-1]


def test_a_server_that_ignores_range_sends_it_all_again(server: Server):
    server.ranges, server.cut = False, [400_000]
    assert fetch(entry(server), patience=FAST).read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=400000-"


def test_a_server_that_sends_another_part_is_not_believed(server: Server):
    server.wrong_part, server.cut = True, [400_000]
    assert fetch(entry(server), patience=FAST).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None, "bytes=400000-", None]


def test_without_a_tag_nothing_is_pieced_together(server: Server):
    server.tag, server.cut = "", [400_000]
    assert fetch(entry(server), patience=FAST).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None, None]


def test_a_weak_tag_is_not_enough_but_a_date_is(server: Server):
    server.tag, server.cut = 'W/"one"', [400_000]
    assert fetch(entry(server), patience=FAST).read_bytes() == BODY
    assert server.asked.pop()[1] is None
    server.modified, server.cut = "Mon, 02 Jan 2023 10:00:00 GMT", [400_000]
    fetch(entry(server)).unlink()
    assert fetch(entry(server), patience=FAST).read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=400000-"


def test_a_part_that_is_too_long_is_dropped(server: Server):
    wanted = entry(server)
    folder_of(wanted).mkdir(parents=True)
    part_of(wanted).write_bytes(BODY + b"more")
    folder_of(wanted).joinpath("a-weights.pth.part.tag").write_text('"one"')
    assert fetch(wanted, patience=FAST).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == ["bytes=1024004-", None]


@pytest.mark.parametrize("code", [500, 503, 429])
def test_trouble_of_the_server_may_pass(server: Server, code: int):
    server.codes = [code, code]
    assert fetch(entry(server), patience=FAST).read_bytes() == BODY


def test_trouble_of_the_server_may_stay(server: Server):
    server.codes = [500] * 9
    with pytest.raises(InputError, match=r"the server answers 500 Internal Server Error, 3 times in a row; 0\.0 MB"):
        fetch(entry(server), patience=FAST)
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [404, 403, 410])
def test_what_is_gone_is_not_asked_for_again(server: Server, code: int):
    server.codes = [code] * 9
    with pytest.raises(InputError, match=rf"answers {code} .* give its path instead of the name"):
        fetch(entry(server), patience=FAST)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "00000000"}, rf"its SHA-256 begins with {DIGEST[:8]} and not 00000000\. It was deleted"),
        ({"sha256": None, "md5": "ffffff"}, r"its MD5 begins with \w{6} and not ffffff"),
        ({"size": 7}, r"it has 1,024,000 bytes and not 7"),
    ],
)
def test_a_wrong_file_is_deleted(server: Server, changes: dict, message: str):
    wanted = entry(server, **changes)
    with pytest.raises(InputError, match=message):
        fetch(wanted, patience=FAST)
    assert list(folder_of(wanted).iterdir()) == []
    assert len(server.asked) == 1


def test_md5_and_size_that_agree(server: Server):
    wanted = entry(server, sha256=None, md5=hashlib.md5(BODY).hexdigest()[:6], size=len(BODY))
    assert fetch(wanted).read_bytes() == BODY


def test_a_short_file_without_a_length_is_caught_by_the_size(server: Server):
    server.length, server.cut = False, [1000]
    with pytest.raises(InputError, match=r"it has 1,000 bytes and not 1,024,000"):
        fetch(entry(server, sha256=None, size=len(BODY)), patience=FAST)


def test_a_damaged_file_in_the_cache_is_fetched_anew(server: Server):
    wanted = entry(server)
    fetch(wanted).write_bytes(b"broken")
    assert fetch(wanted).read_bytes() == BODY


def test_nobody_listens(cache: Path, server: Server):
    wanted = entry(Server("http://127.0.0.1:9"))
    with pytest.raises(InputError, match=r"127\.0\.0\.1 cannot be reached: .*refused.* behind a proxy set HTTPS_PROXY"):
        fetch(wanted, patience=FAST)


def test_an_unknown_host(server: Server):
    wanted = entry(Server("http://nowhere.invalid"))
    with pytest.raises(InputError, match=r"nowhere\.invalid cannot be reached: its name is not known here"):
        fetch(wanted, patience=FAST)


def test_a_proxy_is_taken_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetch(entry(Server("http://nowhere.invalid"))).read_bytes() == BODY
    assert server.asked[0][0] == "http://nowhere.invalid/models/a-weights.pth"


def test_a_dead_proxy_is_named_without_its_password(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(InputError, match=r"Check the proxy http://127\.0\.0\.1:9;") as caught:
        fetch(entry(Server("http://nowhere.invalid")), patience=FAST)
    assert "secret" not in str(caught.value)


def test_two_files_and_an_edit(server: Server):
    server.body = b"[net]\nmask = 0,1,2\n"
    files = (
        PublishedFile(url=f"{server.url}/a.weights"),
        PublishedFile(url=f"{server.url}/a.cfg", edit=("mask = 0,1,2", "mask = 1,2,3")),
    )
    wanted = Published(name="darknet:a", data="", measured_on="", figures={}, licence="", files=files)
    weights = fetch(wanted)
    assert weights.read_bytes() == server.body
    assert weights.with_suffix(".cfg").read_text() == "[net]\nmask = 1,2,3\n"
    weights.with_suffix(".cfg").unlink()
    assert cached(wanted) is None
    server.body = b"<html>"
    with pytest.raises(InputError, match="another file than the one known here"):
        fetch(wanted)


def test_a_full_disk_is_said_before_the_download(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    usage = type(shutil.disk_usage(cache.parent))(10, 10, 10)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"1 MB are needed and 0 MB are free"):
        fetch(entry(server))


def test_two_at_once_do_not_mix(server: Server):
    fcntl = pytest.importorskip("fcntl")
    wanted = entry(server)
    folder_of(wanted).mkdir(parents=True)
    with (folder_of(wanted) / ".a-weights.pth.part.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"a-weights\.pth: another process is fetching it"):
            fetch(wanted)


def test_a_name_that_is_not_here_says_what_to_run(server: Server):
    with pytest.raises(InputError, match=r"run `boxwright weights fetch torchvision:toy` \(2 MB\)"):
        require_cached(entry(server, about=2_000_000))
    fetch(entry(server))
    assert require_cached(entry(server)).read_bytes() == BODY


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("BOXWRIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "boxwright"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "boxwright"
