"""Match a network of Darknet with one of ours: its layers in order, its classes, and what shapes do not tell."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from boxwright.structures import InputError
from boxwright.weights.darknet.files import DarknetNetwork, Section


def check_convolutions(sections: Sequence[Section], outputs: str) -> None:
    """Raise InputError unless the convolutions are as in YOLOv2 and v3: leaky, and linear before an output layer.

    ``outputs``: the kind of output layer. Shapes do not tell an activation, nor what forks of Darknet have added.
    """
    for section, following in zip(sections, [*sections[1:], None], strict=True):
        last = following is not None and following.kind == outputs
        if section.kind == "convolutional":
            wanted, found = "linear" if last else "leaky", section.options.get("activation", "logistic")
            if found != wanted:
                raise InputError(
                    f"{section.place}: [convolutional] has activation={found[:60]}, where this network has {wanted}; "
                    "other activations are read in YOLOv1 alone"
                )
            if section.count("groups", 1) > 1 or section.count("dilation", 1) > 1:
                raise InputError(
                    f"{section.place}: [convolutional] with groups or dilation is not read in YOLOv2 and v3"
                )
        for name, usual in (("scale_x_y", 1), ("new_coords", 0)) if section.kind == outputs else ():
            if section.number(name, usual) != usual:
                raise InputError(
                    f"{section.place}: [{outputs}] has {name}={section.options[name][:60]}, which is not read"
                )
        if section.kind == "shortcut" and section.options.get("activation", "linear") != "linear":
            raise InputError(f"{section.place}: [shortcut] has an activation, where this network has none")


def classes_of(section: Section) -> int:
    """Return the number of classes of the output layer ``section``, 1 of YOLOv1's where it is not said."""
    return section.count("classes", 1 if section.kind == "detection" else 20)


def anchors_of(section: Section) -> tuple[tuple[float, float], ...]:
    """Return the anchors of the output layer ``section``. Raises InputError unless they are pairs above 0."""
    numbers = section.numbers("anchors")
    if not numbers or len(numbers) % 2 or min(numbers) <= 0:
        raise InputError(
            f"{section.place}: [{section.kind}] has {len(numbers)} numbers as anchors; give pairs of a width and a "
            "height above 0"
        )
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def check_classes(section: Section, count: int) -> None:
    """Raise InputError if the output layer ``section`` has another number of classes than ``count``."""
    classes = classes_of(section)
    if classes != count:
        raise InputError(
            f"{section.place}: is for {classes} classes, but the detector has {count} names; give one name per class, "
            "in the order of the file that trained it (coco.names, voc.names)"
        )


def state_in_order(module: nn.Module, network: DarknetNetwork, origin: str = "weights") -> dict[str, Tensor]:
    """Return the state dict of ``module`` with the parameters of ``network``, matched by order.

    The layers of ``module`` in the order of registration must be those of ``network`` in the order of the file. A batch
    norm belongs to the layer registered before it. Raises InputError naming the first layer that differs in shape or in
    having a batch norm. ``origin`` names the source in errors.
    """
    layers = [layer for layer in network.layers if layer.arrays]
    units = _units(module)
    state: dict[str, Tensor] = {}
    for (name, unit, norm_name), layer in zip(units, layers, strict=False):
        arrays, section = layer.arrays, layer.section
        own = dict(unit.named_parameters(recurse=False))
        weight = arrays.get("weight", arrays["bias"] if "bias" in arrays else arrays["scale"])
        if section.kind == "local":
            weight = weight.flatten(2)
        given, wanted = (_words(t, n) for t, n in ((weight, "scale" in arrays), (own["weight"], norm_name is not None)))
        if given != wanted:
            raise InputError(
                f"{section.place}: layer {section.index} ([{section.kind}]) is {given}, but {name} is {wanted}; "
                "the configuration is not that network's"
            )
        state[f"{name}.weight"] = weight
        if norm_name is None:
            state[f"{name}.bias"] = arrays["bias"]
            continue
        parts = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
        state |= {f"{norm_name}.{ours}": arrays[theirs] for ours, theirs in parts.items()}
    if len(units) != len(layers):
        raise InputError(
            f"{origin}: {len(layers)} layers with weights, but the detector has {len(units)}; "
            "the configuration is not that network's"
        )
    return state


def _units(module: nn.Module) -> list[tuple[str, nn.Module, str | None]]:
    """Name and module of each layer with a weight that is no norm, and the name of its batch norm."""
    units: list[tuple[str, nn.Module, str | None]] = []
    for name, part in module.named_modules():
        own = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
        if "running_var" in own:
            units[-1] = (*units[-1][:2], name)
        elif "weight" in own:
            units.append((name, part, None))
    return units


def _words(weight: Tensor, norm: bool) -> str:
    return f"{' x '.join(map(str, weight.shape))} {'with' if norm else 'without'} batch norm"
