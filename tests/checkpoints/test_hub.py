"""``hf:owner/name`` against a server on 127.0.0.1 that answers as the Hub does; the real package is used."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from boxwright.checkpoints.checkpoint import Checkpoint
from boxwright.checkpoints.hub import from_pretrained, save_pretrained
from boxwright.checkpoints.hub_cache import split_repository
from boxwright.checkpoints.opening import load_detector, open_checkpoint
from boxwright.cli.app import main
from boxwright.detectors.build import build_detector
from boxwright.recipes import get_recipe
from boxwright.structures import Classes, InputError

hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector of ours with random weights, as a folder."""
    torch.manual_seed(0)
    recipe, classes = get_recipe("ssd-small"), Classes.from_names(["cat", "dog"])
    state = build_detector(recipe.detector, classes).state_dict()
    checkpoint = Checkpoint(recipe.detector, classes, state, recipe, {})
    return save_pretrained(checkpoint, tmp_path_factory.mktemp("hub") / "cats")


@pytest.fixture
def asked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The server; what it is asked for. It has ``me/cats``, and ``me/empty`` without files."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            paths.append(f"{self.command} {self.path}")
            owner, name, _, revision, file = (*self.path.strip("/").split("/"), *[""] * 5)[:5]
            repository = f"{owner}/{name}"
            if repository not in ("me/cats", "me/empty"):
                return self.refuse("RepoNotFound")
            if revision not in ("main", COMMIT):
                return self.refuse("RevisionNotFound")
            if repository == "me/empty" or not (folder / file).is_file():
                return self.refuse("EntryNotFound")
            body = (folder / file).read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)
            return None

        def refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    for name in ("http_proxy", "https_proxy", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    yield paths
    server.shutdown()
    server.server_close()


def found(detector: object) -> list[list[float]]:
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    (one,) = detector.detect(image, threshold=0.0)  # type: ignore[attr-defined]
    return one.boxes.tolist()


def test_a_name_is_fetched_when_asked_and_then_used_everywhere(asked: list[str], folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"hf:me/cats: not fetched yet, .* run `boxwright weights fetch hf:me/cats`"):
        open_checkpoint("hf:me/cats")
    assert asked == []
    assert main(["weights", "fetch", "hf:me/cats"]) == 0
    assert sorted(line.rsplit("/", 1)[1] for line in asked if line.startswith("GET")) == [
        "config.json",
        "model.safetensors",
    ]
    before = len(asked)
    assert found(load_detector("hf:me/cats")) == found(from_pretrained(folder))
    assert found(from_pretrained("me/cats", local_files_only=True)) == found(from_pretrained(folder))
    assert len(asked) == before
    assert main(["weights", "show", "hf:me/cats"]) == 0


def test_from_pretrained_fetches_by_itself(asked: list[str], folder: Path):
    assert found(from_pretrained("me/cats")) == found(from_pretrained(folder))
    assert any(line.startswith("GET") for line in asked)
    assert from_pretrained("hf:me/cats", revision=COMMIT).classes.names == ("cat", "dog")
    with pytest.raises(InputError, match=r"hf:me/cats@v9: the repository has no revision 'v9'"):
        from_pretrained("me/cats", revision="v9")


def test_what_is_not_there(asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match=r"hf:you/dogs: there is no such repository, or it is private"):
        from_pretrained("you/dogs")
    with pytest.raises(InputError, match=r"hf:me/empty: has no config\.json, so that it is no detector of Boxwright"):
        from_pretrained("me/empty")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)  # the package waits longer before each try
    assert main(["weights", "fetch", "hf:me/cats"]) == 2
    assert "hf:me/cats: the Hub cannot be reached" in capsys.readouterr().err
    assert main(["weights", "fetch", "hf:me/cats", "--output", "x"]) == 2
    assert "always stored in the cache of the Hub" in capsys.readouterr().err


def test_names_of_repositories():
    assert split_repository("hf:me/cats") == ("me/cats", None)
    assert split_repository("me/cats@refs/pr/1") == ("me/cats", "refs/pr/1")
    for wrong in ("cats", "hf:", "a/b/c", "a b/c"):
        with pytest.raises(InputError, match="no repository of the Hub"):
            split_repository(wrong)


def test_the_folder_is_what_the_hub_expects(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    assert {"library_name", "model_type", "id2label", "label2id", "recipe"} <= set(config)
    assert hub.ModelCard((folder / "README.md").read_text()).data.pipeline_tag == "object-detection"
