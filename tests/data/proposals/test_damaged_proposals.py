"""Whatever a file of proposals holds, it is read or refused, in bounded time and memory."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from boxwright.data.proposals.files import ProposalSet, proposals_for
from tests.support.hostile import assert_read_or_refused
from tests.support.mutations import json_mutations, mutations
from tests.support.toys import toy_index


@pytest.mark.slow
def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    index = toy_index(tmp_path / "images", 4)
    boxes = [np.array([[2, 2, 20, 18], [6, 4, 28, 22]], np.float32)] * 4
    whole = ProposalSet.build(index, boxes, [np.array([0.9, 0.2])] * 4, "drawn").save(tmp_path / "a.safetensors")
    with safetensors.safe_open(whole, framework="numpy") as file:
        header = file.metadata()
    arrays = safetensors.numpy.load_file(whole)

    def read(data: bytes) -> None:
        (tmp_path / "b.safetensors").write_bytes(data)
        proposals_for(tmp_path / "b.safetensors", index, 10)

    def with_names(text: bytes) -> bytes:
        return safetensors.numpy.save(arrays, {**header, "names": text.decode(errors="replace")})

    def with_array(i: int) -> bytes:
        rng = np.random.default_rng(i)
        name = list(arrays)[i % len(arrays)]
        old = arrays[name]
        kind = [np.float32, np.int64, np.uint8, np.float64, np.bool_, np.int16][i // len(arrays) % 6]
        special = [np.nan, np.inf, -1, 2**62, 0, 1e30][int(rng.integers(6))]
        with np.errstate(invalid="ignore", over="ignore"):
            new = old.astype(kind) if i % 3 else old.copy()
            if i % 2 and new.size:
                new.reshape(-1)[int(rng.integers(new.size))] = np.array(special).astype(new.dtype)
        if i % 5 == 0:
            new = new.reshape(-1) if i % 2 else new[:-1]
        return safetensors.numpy.save({**arrays, name: np.ascontiguousarray(new)}, header)

    inputs = [*mutations(whole.read_bytes(), 300, 1), *map(with_array, range(300))]
    inputs += map(with_names, json_mutations(json.dumps(json.loads(header["names"])).encode(), 200, 2))
    assert assert_read_or_refused(read, inputs, tmp_path).read > 20
