"""Loading without a second copy: the given tensors become the detector's own, and it is the same detector."""

import threading

import pytest
import torch
from torch import Tensor, nn

from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.adoption import adopt, misfits, not_finite, unallocated_parameters
from boxwright.structures import Classes
from tests.support.detector_cases import CASES

CLASSES = Classes.from_names(["a", "b", "c"])


@pytest.mark.parametrize("name", list(CASES))
def test_adopted_detectors_are_the_built_ones(name: str) -> None:
    torch.manual_seed(1)
    built = build_detector(CASES[name].config, CLASSES)
    given = {key: value.clone() for key, value in built.state_dict().items()}
    with unallocated_parameters():
        detector = build_detector(CASES[name].config, CLASSES)
    assert all(parameter.is_meta for parameter in detector.parameters())
    assert not any(buffer.is_meta for buffer in detector.buffers())
    adopt(detector, given)
    own = dict(detector.named_parameters())
    for key, parameter in built.named_parameters():
        assert own[key].data_ptr() == given[key].data_ptr(), "not a copy"
        assert own[key].requires_grad == parameter.requires_grad
    rest = dict(detector.named_buffers())
    assert rest.keys() == dict(built.named_buffers()).keys()
    for key, buffer in built.named_buffers():
        assert torch.equal(rest[key], buffer), key


class Tied(nn.Module):
    """Two layers with one weight, and one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.alias = self.first
        self.norm = nn.BatchNorm1d(4)


@pytest.fixture
def tied() -> tuple[Tied, dict[str, Tensor]]:
    given = {key: value.clone() for key, value in Tied().state_dict().items()}
    with unallocated_parameters():
        module = Tied()
    return module, given


def test_tied_parameters_stay_tied(tied: tuple[Tied, dict[str, Tensor]]) -> None:
    module, given = tied
    assert module.first.weight is module.second.weight
    adopt(module, given)
    assert module.first.weight is module.second.weight
    assert module.alias is module.first
    assert torch.equal(module.first.weight, given["first.weight"])


def test_what_cannot_be_adopted_is_copied(tied: tuple[Tied, dict[str, Tensor]]) -> None:
    module, given = tied
    given["first.weight"] = given["second.weight"] = given["alias.weight"] = torch.eye(4).half()
    given["second.bias"] = given["first.bias"]  # one tensor for two parameters
    given["alias.bias"] = given["first.bias"]
    given["norm.weight"] = torch.arange(8.0)[::2]
    del given["norm.num_batches_tracked"]
    adopt(module, given)
    assert module.first.weight.dtype == torch.float32
    assert module.norm.weight.tolist() == [0, 2, 4, 6]
    assert module.norm.weight.is_contiguous()
    assert module.norm.num_batches_tracked == 0
    module.second.bias.data += 1
    assert not torch.equal(module.first.bias, module.second.bias)


def test_misfits_raise_and_nothing_stays_without_memory(tied: tuple[Tied, dict[str, Tensor]]) -> None:
    module, given = tied
    del given["norm.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*norm\.bias"):
        adopt(module, given)
    given["norm.bias"] = torch.zeros(5)
    with pytest.raises(RuntimeError, match=r"size mismatch for norm\.bias"):
        adopt(module, given)


def test_other_threads_build_as_ever() -> None:
    made: list[nn.Linear] = []
    with unallocated_parameters():
        thread = threading.Thread(target=lambda: made.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        assert nn.Linear(2, 2).weight.is_meta
    assert not made[0].weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_names_of_any_length_make_no_message_of_that_length() -> None:
    long = "n" * 5000
    given = {long: torch.full((2,), torch.nan)}
    assert misfits(nn.Conv2d(1, 1, 1), given).endswith(f"1 belong to none of its layers, the first {'n' * 100}...")
    assert not_finite(given) == f"{'n' * 100}..."
