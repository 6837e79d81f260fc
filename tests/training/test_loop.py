"""Whole runs of a toy: what they leave, when they stop, what they refuse."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from boxwright.checkpoints.checkpoint import load_checkpoint, load_train_state
from boxwright.checkpoints.opening import load_detector
from boxwright.config.reading import load_recipe
from boxwright.config.recipe import CheckpointConfig, GroupConfig, SGDConfig, ValidationConfig
from boxwright.data.index import DetectionIndex
from boxwright.structures import Classes, InputError
from boxwright.training.logging.monitor import NonFiniteLossError
from boxwright.training.logging.run_folder import new_run_folder, read_run
from boxwright.training.logging.run_log import read_rows
from boxwright.training.loop import train
from tests.support.processes import run_python
from tests.support.runs import without_pictures
from tests.support.toys import CLASSES, Toy, build_toy, toy_index, toy_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("toys")
    return toy_index(folder / "train", 11), toy_index(folder / "val", 4, seed=1)


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves cost more than these runs; one test wants them."""
    if "pictures" not in request.node.name:
        without_pictures(monkeypatch)


def run(recipe, data, folder, build=build_toy, **options):
    return train(recipe, *data, folder, build=build, device="cpu", **{"log": "quiet", **options})


def test_a_run_learns_and_explains_itself_with_pictures(data, tmp_path: Path) -> None:
    recipe = toy_recipe(60, log_every=10, validation=ValidationConfig(every=20, unit="steps"))
    lines: list[str] = []
    result = run(recipe, data, tmp_path / "run", log=lines.append, resume_command="RESUME")
    folder = result.folder
    losses = [row["loss"] for row in read_rows(folder) if row["kind"] == "train"]
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0]
    assert result.best is not None
    assert result.best["AP50"] > 0.1
    assert result.steps == 60
    assert result.checkpoint == folder / "best.safetensors"
    assert "11 images with 11 boxes, validation 4 images; 2 classes: dark, light" in lines[1]
    assert lines[2].startswith("60 steps of 4 images, 21.8 epochs, sgd at 0.05, fp32 on cpu")
    assert any(line.startswith("step 10/60  epoch 3.64  loss") for line in lines)
    assert any(line.startswith("validation after step 20: AP ") for line in lines)

    info = read_run(folder)
    assert info["status"] == "finished"
    assert info["data"]["train"]["fingerprint"] == data[0].fingerprint()
    assert info["sessions"][0]["versions"]["torch"] == torch.__version__
    assert load_recipe((folder / "recipe.json").read_text()) == recipe
    assert "RESUME" in (folder / "README.txt").read_text()
    for name in ("loss.png", "ap.png", "samples.jpg"):
        with Image.open(folder / name) as picture:
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 5, name
    described = {line.split()[0].rstrip(",") for line in (folder / "README.txt").read_text().splitlines() if line}
    assert {p.name for p in folder.iterdir()} <= described | {"ap.png", "README.txt"}


def test_the_shipped_file_is_all_one_needs(data, tmp_path: Path) -> None:
    recipe = toy_recipe(6)
    result = run(recipe, data, tmp_path / "run")
    checkpoint = load_checkpoint(result.last_checkpoint)
    assert checkpoint.recipe == recipe
    assert checkpoint.classes == CLASSES
    assert checkpoint.meta["step"] == 6
    assert checkpoint.meta["weights"] == "ema"
    assert checkpoint.meta["metrics"]["AP"] == result.metrics["AP"]
    detector = load_detector(tmp_path / "run", build=build_toy)
    assert not detector.training
    assert detector.preparation.transforms == recipe.data.eval
    found = detector.detect(str(data[1].path(0)), threshold=0.0)
    assert len(found[0].boxes) == 1


def test_nothing_is_overwritten(data, tmp_path: Path) -> None:
    folder = new_run_folder(tmp_path, "toy")
    assert folder.name == "toy-1"
    run(toy_recipe(3), data, folder)
    before = (folder / "last.train").read_bytes()
    with pytest.raises(InputError, match=r"toy-1: holds a run already; resume it, or choose another folder"):
        run(toy_recipe(3), data, folder)
    assert (folder / "last.train").read_bytes() == before
    assert new_run_folder(tmp_path, "toy").name == "toy-2"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"notes: is not empty; choose another folder"):
        run(toy_recipe(3), data, tmp_path / "notes")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_step_term_and_images(value: float, data, tmp_path: Path) -> None:
    class Diverging(Toy):
        def forward(self, images, targets=None):
            losses = super().forward(images, targets)
            if self.calls == 3:
                losses["label"] = losses["label"] * value
            return losses

    recipe = toy_recipe(8)
    with pytest.raises(NonFiniteLossError) as caught:
        run(recipe, data, tmp_path / "run", build=Diverging)
    message = str(caught.value)
    assert f"step 3: the loss is not finite: label = {value}. Images of the step: " in message
    assert message.count(".png (image id ") == recipe.data.batch_size
    assert "box" not in message.split("Images")[0]
    assert read_run(tmp_path / "run")["status"].startswith("failed: NonFiniteLossError: step 3")
    assert not (tmp_path / "run" / "last.train").exists()


def test_no_checkpoint_of_lost_weights(data, tmp_path: Path) -> None:
    """A step can ruin the weights while its loss, computed before, still was finite."""

    class Ruined(Toy):
        def forward(self, images, targets=None):
            losses = super().forward(images, targets)
            if self.calls == 4:
                losses["box"] = losses["box"] + (self.head.bias.sum() - self.head.bias.sum().detach()).sqrt()
            return losses

    with pytest.raises(NonFiniteLossError, match=r"step 4: the weights are no longer finite, first "):
        run(
            toy_recipe(8, clip_norm=None, checkpoint=CheckpointConfig(every=2, unit="steps")),
            (data[0], None),
            tmp_path / "run",
            build=Ruined,
        )
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").meta["step"] == 2


def test_lost_weights_are_not_the_best(data, tmp_path: Path) -> None:
    """The validation after a step that ruined the weights would else write them before the checkpoint is refused."""

    class Ruined(Toy):
        def forward(self, images, targets=None):
            losses = super().forward(images, targets)
            if targets is not None and self.calls == 4:
                losses["box"] = losses["box"] + (self.head.bias.sum() - self.head.bias.sum().detach()).sqrt()
            return losses

    with pytest.raises(NonFiniteLossError, match=r"step 4: the weights are no longer finite"):
        run(toy_recipe(8, clip_norm=None), data, tmp_path / "run", build=Ruined)
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_early_stopping(data, tmp_path: Path) -> None:
    frozen = SGDConfig(lr=0.1, groups=(GroupConfig(prefix="backbone", lr=0.0), GroupConfig(prefix="head", lr=0.0)))
    recipe = toy_recipe(40, validation=ValidationConfig(every=2, unit="steps", patience=3), ema=None)
    recipe = replace(recipe, stages=(replace(recipe.stages[0], optimiser=frozen),))

    class Still(Toy):
        def __init__(self, config, classes):
            super().__init__(config, classes, norm=False)

    result = run(recipe, data, tmp_path / "run", build=Still)
    assert result.stopped_early
    assert result.steps == 8  # the first validation is the best, three more do not beat it
    assert result.best["step"] == 2
    assert read_run(tmp_path / "run")["status"] == "stopped early"
    assert load_checkpoint(tmp_path / "run").meta["step"] == 2


def test_without_a_validation_set(data, tmp_path: Path) -> None:
    result = run(toy_recipe(4), (data[0], None), tmp_path / "run")
    assert result.best is None
    assert result.metrics is None
    assert result.checkpoint == tmp_path / "run" / "last.safetensors"
    assert result.checkpoint.exists()
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_numbered_checkpoints_are_pruned(data, tmp_path: Path) -> None:
    recipe = toy_recipe(8, checkpoint=CheckpointConfig(every=2, unit="steps", keep=2))
    run(recipe, data, tmp_path / "run")
    numbered = sorted(p.name for p in (tmp_path / "run").glob("step_*"))
    assert numbered == ["step_0000006.safetensors", "step_0000008.safetensors"]
    steps = [load_checkpoint(tmp_path / "run" / name).meta["step"] for name in numbered]
    assert steps == [6, 8]


def test_starting_from_weights(data, tmp_path: Path) -> None:
    first = run(toy_recipe(4), data, tmp_path / "first")
    frozen = SGDConfig(lr=0.1, groups=(GroupConfig(prefix="backbone", lr=0.0), GroupConfig(prefix="head", lr=0.0)))
    still = toy_recipe(3, ema=None)
    still = replace(still, stages=(replace(still.stages[0], optimiser=frozen),))
    lines: list[str] = []
    second = run(still, data, tmp_path / "second", weights=first.folder, log=lines.append)
    start, end = load_checkpoint(first.checkpoint).state, load_checkpoint(second.last_checkpoint).state
    assert torch.equal(start["head.weight"], end["head.weight"])
    assert any("9 of 9 tensors" in line for line in lines)

    state = {"head.weight": torch.zeros(1, 1), "backbone.conv.bias": torch.ones(4)}
    run(still, data, tmp_path / "third", weights=state, log=lines.append)
    assert any("1 of 9 tensors; fresh: backbone.conv.weight" in line for line in lines)
    with pytest.raises(InputError, match="no tensor has the name and shape"):
        run(still, data, tmp_path / "fourth", weights={"x": torch.zeros(1)})


def test_frozen_batch_norm_without_weights_is_warned_of(data, tmp_path: Path) -> None:
    from boxwright.backbones.layers.norm import FrozenBatchNorm

    class Cold(Toy):
        def __init__(self, config, classes):
            super().__init__(config, classes)
            self.backbone.bn = FrozenBatchNorm(4)

    lines: list[str] = []
    run(toy_recipe(3), (data[0], None), tmp_path / "run", build=Cold, log=lines.append)
    assert any(line.startswith("WARNING: batch norms are frozen") for line in lines)


def test_data_that_cannot_be_trained_on(data, tmp_path: Path) -> None:
    train_index, val_index = data
    empty = DetectionIndex.build(CLASSES, [], root=tmp_path)
    other = DetectionIndex.build(Classes.from_names(["dark", "grey"]), [], root=tmp_path).subset([])
    cases = [
        ((empty, val_index), r"the training set has no image; check the path and the split"),
        ((train_index, empty), r"the validation set has no image"),
        ((replace(train_index, classes=Classes.from_names(["light", "dark"])), val_index), r"another order: class 0"),
        ((replace(train_index, classes=other.classes), val_index), r"lacks 'grey'; the training set lacks 'light'"),
        ((bare(train_index), val_index), r"the training set has 11 images and no box; annotate some"),
    ]
    for i, (pair, message) in enumerate(cases):
        with pytest.raises(InputError, match=message):
            run(toy_recipe(3), pair, tmp_path / f"run{i}")


def bare(index: DetectionIndex) -> DetectionIndex:
    """The images without their boxes."""
    from boxwright.data.index import ImageRecord

    records = [
        ImageRecord(path=index.path(i), image_id=i, height=index.size(i)[0], width=index.size(i)[1])
        for i in range(len(index))
    ]
    return DetectionIndex.build(index.classes, records, root=index.root)


def test_recipes_made_in_python_are_checked_too(data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Recipe.log_every = 0: should be greater than or equal to 1"):
        run(toy_recipe(3, log_every=0), data, tmp_path / "run")


@pytest.mark.slow
def test_a_compiled_run_equals_an_eager_one(data, tmp_path: Path) -> None:
    class Clean(Toy):
        """Counts nothing, so that one graph serves all steps."""

        calls = property(lambda self: 0, lambda self, value: None)

        def __init__(self, config, classes):
            super().__init__(config, classes, drop=0.0)

    losses = []
    for compiled in (False, True):
        folder = tmp_path / f"compiled_{compiled}"
        run(toy_recipe(6, compile=compiled), data, folder, build=Clean)
        losses.append([row["loss"] for row in read_rows(folder)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_compiling_without_a_compiler_is_explained(data, tmp_path: Path) -> None:
    """In a process of its own, because torch remembers the compiler that it found."""
    script = (
        "from pathlib import Path\n"
        "from boxwright.training.loop import train\n"
        "from tests.support.toys import build_toy, toy_index, toy_recipe\n"
        f"here = Path({str(tmp_path)!r})\n"
        "recipe = toy_recipe(3, compile=True)\n"
        "train(recipe, toy_index(here / 'a', 5), None, here / 'run', build=build_toy, device='cpu', log='quiet')\n"
    )
    done = run_python(script, CXX="/nonexistent", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert "InputError: compile = true needs a C++ compiler on the CPU; install g++ or set it false" in done.stderr


def test_tensorboard_is_written_or_its_absence_explained(data, tmp_path: Path, monkeypatch) -> None:
    run(toy_recipe(3), data, tmp_path / "run", tensorboard=True)
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    for name in [m for m in sys.modules if m.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"TensorBoard is not installed; pip install 'boxwright\[tensorboard\]'"):
        run(toy_recipe(3), data, tmp_path / "without", tensorboard=True)
    run(toy_recipe(3), data, tmp_path / "without")  # nothing was left behind that would stand in the way


def test_rows_of_jsonl_and_csv_agree(data, tmp_path: Path) -> None:
    run(toy_recipe(7), data, tmp_path / "run")
    lines = (tmp_path / "run" / "train.csv").read_text().splitlines()
    rows = [row for row in read_rows(tmp_path / "run") if row["kind"] == "train"]
    assert lines[0].split(",")[:5] == ["step", "epoch", "loss", "loss_box", "loss_label"]
    assert [int(line.split(",")[0]) for line in lines[1:]] == [row["step"] for row in rows] == [3, 6, 7]
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["step"] == 3
    assert rows[0]["loss"] == pytest.approx(rows[0]["loss_box"] + rows[0]["loss_label"])


def test_a_validation_that_fails_loses_no_step(data, tmp_path: Path) -> None:
    """Its steps are saved before it begins, and a resumed run validates them first."""

    class Failing(Toy):
        def detect_samples(self, *args, **options):
            raise MemoryError

        def forward(self, images, targets=None):
            if not self.training:
                raise MemoryError
            return super().forward(images, targets)

    recipe = toy_recipe(4, validation=ValidationConfig(every=4, unit="steps"))
    recipe = replace(recipe, checkpoint=CheckpointConfig(every=100, unit="steps"))
    with pytest.raises(MemoryError):
        run(recipe, data, tmp_path / "run", build=lambda config, classes: Failing(config, classes))
    assert load_train_state(tmp_path / "run" / "last.train")["step"] == 4
    result = run(recipe, data, tmp_path / "run", resume=True)
    assert result.best is not None
    assert [row["kind"] for row in read_rows(result.folder)].count("validation") == 1
