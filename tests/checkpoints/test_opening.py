"""Everything that names a checkpoint, opened the same way."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

import boxwright
from boxwright.checkpoints.checkpoint import load_checkpoint, rebuild, save_checkpoint
from boxwright.checkpoints.hub import from_pretrained, push_to_hub, save_pretrained
from boxwright.checkpoints.opening import load_detector, open_checkpoint
from boxwright.cli.app import main
from boxwright.structures import Classes, InputError
from boxwright.weights.published.catalogue import find_published
from boxwright.weights.published.fetch import folder_of

NAME = "torchvision:ssdlite320_mobilenet_v3_large"
IMAGE = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's smallest detector with random weights, for two classes."""
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    path = tmp_path_factory.mktemp("sources") / "theirs.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(first: object, second: object) -> bool:
    """Return True if two detectors give the same detections."""
    (a,), (b,) = (d.detect(IMAGE, threshold=0.0) for d in (first, second))  # type: ignore[attr-defined]
    return len(a.scores) == len(b.scores) > 0 and bool((a.boxes == b.boxes).all() and (a.scores == b.scores).all())


def test_a_foreign_file_becomes_an_ordinary_checkpoint(foreign: Path, tmp_path: Path):
    checkpoint, path = open_checkpoint(foreign)
    assert path == foreign
    assert checkpoint.meta["imported"] == {"source": NAME.replace(":", " "), "file": "theirs.pth"}
    ours = tmp_path / "ours.safetensors"
    save_checkpoint(ours, checkpoint.state, checkpoint.recipe, checkpoint.classes, checkpoint.meta)
    again = load_checkpoint(ours)
    assert (again.recipe, again.classes, again.meta) == (checkpoint.recipe, checkpoint.classes, checkpoint.meta)
    assert same(load_detector(foreign), load_detector(ours))


def test_names_of_ones_own(foreign: Path, tmp_path: Path):
    detector = load_detector(foreign, classes=["cat", "dog"])
    assert detector.classes.names == ("cat", "dog")
    with pytest.raises(InputError, match=r"theirs\.pth: .* for 2 classes, but 3 names are given \(cat, dog, cow\)"):
        load_detector(foreign, classes=["cat", "dog", "cow"])
    checkpoint, _ = open_checkpoint(foreign)
    ours = tmp_path / "ours.safetensors"
    save_checkpoint(ours, checkpoint.state, checkpoint.recipe, checkpoint.classes, checkpoint.meta)
    with pytest.raises(InputError, match="a checkpoint of Boxwright, which says itself what it is"):
        load_detector(ours, classes=["cat", "dog"])


def test_a_name_is_opened_from_the_cache_and_never_fetched(foreign: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("urllib.request.build_opener", lambda *_: pytest.fail("looked at the network"))
    with pytest.raises(InputError, match=rf"run `boxwright weights fetch {NAME}` \(14 MB\)"):
        open_checkpoint(NAME)
    entry = find_published(NAME)
    folder_of(entry).mkdir(parents=True)
    (folder_of(entry) / entry.files[0].name).write_bytes(foreign.read_bytes())
    checkpoint, path = open_checkpoint(NAME)
    assert path.parent == folder_of(entry)
    told = checkpoint.meta["imported"]
    assert (told["name"], told["licence"], told["published"]["AP"]) == (NAME, entry.licence, 0.213)
    with pytest.raises(InputError, match="did you mean 'torchvision:ssd300_vgg16'"):
        open_checkpoint("torchvision:ssd300_vgg")


def test_a_path_that_exists_comes_before_a_name(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_bytes(foreign.read_bytes())
    assert "name" not in open_checkpoint(NAME).checkpoint.meta["imported"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.safetensors", "no such checkpoint; give a .safetensors file, a run folder"),
        ("keras:yolo", "neither a path nor a name that begins with one of torchvision:, "),
        ("hf:nonsense", "no repository of the Hub; write hf:owner/name"),
        (".", "holds neither best"),
    ],
)
def test_what_names_nothing(source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_checkpoint(source)


def test_a_damaged_file_of_ours_is_still_called_that(tmp_path: Path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(InputError, match=r"cut\.safetensors: truncated or not a checkpoint"):
        open_checkpoint(path)
    (tmp_path / "last.train").write_bytes(b"x")
    with pytest.raises(InputError, match="only serves to resume a run"):
        open_checkpoint(tmp_path / "last.train")


# Folders of the Hub


def test_a_folder_gives_the_same_detector(foreign: Path, tmp_path: Path):
    detector = load_detector(foreign, classes=["cat", "dog"])
    folder = save_pretrained(detector, tmp_path / "mine", licence="mit")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    config = json.loads((folder / "config.json").read_text())
    assert (config["library_name"], config["model_type"]) == ("boxwright", "ssd")
    assert (config["id2label"], config["label2id"]) == ({"0": "cat", "1": "dog"}, {"cat": 0, "dog": 1})
    for again in (from_pretrained(folder), load_detector(folder), load_detector(folder / "model.safetensors")):
        assert again.classes.names == ("cat", "dog")
        assert again.config == detector.config
        assert same(detector, again)


def test_the_configuration_counts(foreign: Path, tmp_path: Path):
    folder = save_pretrained(foreign, tmp_path / "mine")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = {"0": "left", "1": "right"}
    path.write_text(json.dumps(config))
    assert from_pretrained(folder).classes.names == ("left", "right")
    config["id2label"] = {"0": "left"}
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: id2label must name the labels 0 to 1"):
        from_pretrained(folder)


def test_folders_that_are_none_of_ours(foreign: Path, tmp_path: Path):
    folder = save_pretrained(foreign, tmp_path / "mine")
    (folder / "config.json").write_text('{"model_type": "detr"}')
    with pytest.raises(InputError, match=r"config\.json: not a detector of Boxwright but of detr"):
        from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: cannot be read"):
        from_pretrained(folder)
    (folder / "config.json").write_text('{"library_name": "boxwright", "format": 99}')
    with pytest.raises(InputError, match="written by a later Boxwright"):
        from_pretrained(folder)
    (folder / "config.json").write_text('{"library_name": "boxwright", "format": 1}')
    with pytest.raises(InputError, match="lacks recipe, id2label, category_ids, meta"):
        from_pretrained(folder)
    with pytest.raises(InputError, match="a path has no revision 'v1'"):
        from_pretrained(folder, revision="v1")


def test_a_detector_that_was_changed_for_speed_is_not_saved(foreign: Path, tmp_path: Path):
    with pytest.raises(InputError, match="changed for speed"):
        save_pretrained(load_detector(foreign).optimised(), tmp_path / "mine")


def test_the_card_says_what_was_measured_and_no_local_path(foreign: Path, tmp_path: Path):
    checkpoint, _ = open_checkpoint(foreign)
    data = {"root": "/home/me/secret/birds", "split": "train", "images": 7, "boxes": 9, "fingerprint": "f1f1"}
    meta = {"metrics": {"AP": 0.25, "AP50": 0.5, "APm": None, "loss": 1.0}, "data": data, "step": 12}
    folder = save_pretrained(checkpoint._replace(meta=meta), tmp_path / "birds", name="me/birds", licence="apache-2.0")
    text = (folder / "README.md").read_text()
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(text).data
    assert (card.library_name, card.pipeline_tag, card.license) == ("boxwright", "object-detection", "apache-2.0")
    assert {(r.metric_type, r.metric_value, r.dataset_name) for r in card.eval_results} == {
        ("AP", 0.25, "birds"),
        ("AP50", 0.5, "birds"),
    }
    assert 'from_pretrained("me/birds")' in text
    assert "f1f1" in text
    for path in folder.iterdir():
        assert b"secret" not in path.read_bytes(), path


def test_a_card_without_measurements_claims_none(foreign: Path, tmp_path: Path):
    text = (save_pretrained(foreign, tmp_path / "mine") / "README.md").read_text()
    assert "model-index" not in text
    assert "Nothing was measured with these weights." in text
    assert "license:" not in text
    assert "The licence of these weights is not stated." in text


# The Hub, by a stand-in


class Api:
    """Notes what is asked of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.made, self.files, self.message = error, None, {}, None

    def create_repo(self, repo_id: str, **options: object) -> str:
        if self.error is not None:
            raise self.error
        self.made = (repo_id, options)
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, commit_message: str) -> None:
        assert self.made is not None
        assert (repo_id, repo_type) == (self.made[0], "model")
        self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.message = commit_message


def test_push_makes_the_repository_and_uploads_the_folder(foreign: Path):
    api = Api()
    assert push_to_hub(foreign, "hf:me/birds", licence="mit", private=True, api=api) == "https://hub/me/birds"
    assert api.made == ("me/birds", {"repo_type": "model", "private": True, "exist_ok": True})
    assert set(api.files) == {"config.json", "model.safetensors", "README.md"}
    assert b"hf:me/birds" in api.files["README.md"]
    with pytest.raises(InputError, match="no repository of the Hub"):
        push_to_hub(foreign, "birds", api=api)
    with pytest.raises(InputError, match="leave the revision out"):
        push_to_hub(foreign, "me/birds@v1", api=api)
    with pytest.raises(InputError, match=r"hf:me/birds: not uploaded: 401; `hf auth login`, or HF_TOKEN"):
        push_to_hub(foreign, "me/birds", api=Api(OSError("401\nmore")))


def test_the_hubs_own_errors_are_caught_as_such():
    errors = pytest.importorskip("huggingface_hub.errors")
    assert issubclass(errors.HfHubHTTPError, OSError)
    hub = pytest.importorskip("huggingface_hub")
    for method in (hub.HfApi.create_repo, hub.HfApi.upload_folder, hub.hf_hub_download):
        assert callable(method)


def test_without_the_package_a_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'boxwright\[hub\]'"):
        open_checkpoint("hf:me/birds")


# The commands


def test_every_command_takes_it(foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = tmp_path / "data"
    assert main(["data", "scenes", str(data), "--train", "2", "--val", "1", "--size", "64", "64"]) == 0
    index = boxwright.open_dataset(data, "val")
    found = tmp_path / "found"
    image = next(data.rglob("val*.jpg"))
    assert main(["detect", str(foreign), str(image), "--output", str(found), "--threshold", "0"]) == 0
    assert json.loads((found / "detections.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", str(foreign), "--data", str(data)]) == 2
    assert "Rename or filter the data's classes, or train a checkpoint on this data" in capsys.readouterr().err
    names = tmp_path / "scenes.names"
    names.write_text("\n".join(index.classes.names[:2]))
    ours = tmp_path / "ours.safetensors"
    assert main(["weights", "convert", str(foreign), "--classes", str(names), "--output", str(ours)]) == 0
    assert load_checkpoint(ours).classes == Classes.from_names(list(index.classes.names[:2]))
    assert (
        main(["proposals", "--data", str(data), "--split", "val", "--method", str(foreign), "--output", str(ours)]) == 2
    )


def test_training_starts_from_it(foreign: Path, rebuilt: Callable[[], object], tmp_path: Path):
    from boxwright.training.tasks.detection import start_from

    detector = rebuilt()
    before = {name: value.clone() for name, value in detector.state_dict().items()}  # type: ignore[attr-defined]
    line = start_from(detector, str(foreign))  # type: ignore[arg-type]
    theirs = open_checkpoint(foreign).checkpoint.state
    after = detector.state_dict()  # type: ignore[attr-defined]
    assert line.startswith(f"starting from {foreign}: {len(after)} of {len(after)} tensors")
    assert all(torch.equal(after[name], theirs[name]) for name in after)
    assert any(not torch.equal(before[name], after[name]) for name in after)


@pytest.fixture
def rebuilt(foreign: Path) -> Callable[[], object]:
    """A detector like the foreign one, with other weights."""

    def build() -> object:
        checkpoint, path = open_checkpoint(foreign)
        noise = {k: v + 1 if v.is_floating_point() else v for k, v in checkpoint.state.items()}
        return rebuild(checkpoint._replace(state=noise), path)

    return build


def test_public_names():
    home = SimpleNamespace(**{name: getattr(boxwright, name).__module__ for name in boxwright.__all__})
    assert home.load_detector == "boxwright.checkpoints.opening"
    assert home.save_pretrained == home.from_pretrained == home.push_to_hub == "boxwright.checkpoints.hub"
