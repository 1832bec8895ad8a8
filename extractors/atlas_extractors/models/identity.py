"""What a model is: digests of its tensors, its distance from the base, and whether its experts kept their places."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from atlas_extractors.models.adapters import RoutedLayer
from atlas_extractors.models.errors import ModelRefused
from atlas_extractors.models.families import FamilyRow

TENSOR_TAG = b"atlas-tensor/1\0"


def tensor_encoding(tensor: Tensor) -> Iterator[bytes | memoryview]:
    """The canonical bytes of a stored tensor: tag, rank and shape as little-endian u32, float32 values, row-major."""
    yield TENSOR_TAG + struct.pack(f"<{tensor.dim() + 1}I", tensor.dim(), *tensor.shape)
    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    yield np.ascontiguousarray(values, dtype="<f4").reshape(-1).view(np.uint8).data


def tensor_digest(*tensors: Tensor) -> str:
    """`sha256:...` over the concatenated canonical encodings of the tensors."""
    hasher = hashlib.sha256()
    for tensor in tensors:
        for part in tensor_encoding(tensor):
            hasher.update(part)
    return "sha256:" + hasher.hexdigest()


def layer_digests(model: nn.Module, row: FamilyRow, layer: RoutedLayer) -> dict[str, str]:
    """Digest of each tensor that feeds the layer's channels.

    `norm.gain`, `router.weight`, `router.bias` where there is one, `experts.i` (input then output projection), and
    `upstream`: every parameter on which the state entering the layer's block norm depends. `model` and `layer` hold
    the stored weights widened to float32; equal digests mean equal bits.
    """
    digests = {"router.weight": tensor_digest(layer.router_weight)}
    if layer.gain is not None:
        digests["norm.gain"] = tensor_digest(layer.gain)
    for name, bias in (("router.bias", layer.router_bias), ("router.selection_bias", layer.selection_bias)):
        if bias is not None:
            digests[name] = tensor_digest(bias)
    for expert in range(layer.n_experts):
        digests[f"experts.{expert}"] = tensor_digest(layer.gate_up[expert], layer.down[expert])
    digests["upstream"] = _upstream_digest(model, row, layer.index)
    return digests


def _upstream_digest(model: nn.Module, row: FamilyRow, index: int) -> str:
    below = tuple(f"{row.layers}.{number}." for number in range(index))
    own = tuple(f"{row.layers}.{index}.{part}." for part in (row.attention, row.input_norm))
    prefixes = (f"{row.embedding}.", *below, *own)
    hasher = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters(remove_duplicate=False)):
        if name.startswith(prefixes):
            hasher.update(name.encode() + b"\0")
            for part in tensor_encoding(parameter):
                hasher.update(part)
    return "sha256:" + hasher.hexdigest()


def parameter_distance(base: nn.Module, arm: nn.Module) -> float:
    """`||theta1 - theta0|| / ||theta0||` over all parameters, accumulated in float64.

    Raises:
        ModelRefused: the two models do not have the same parameters.
    """
    ours, theirs = dict(base.named_parameters()), dict(arm.named_parameters())
    if {name: p.shape for name, p in ours.items()} != {name: p.shape for name, p in theirs.items()}:
        odd = sorted(set(ours) ^ set(theirs)) or [n for n in ours if ours[n].shape != theirs[n].shape]
        raise ModelRefused(
            "the arm does not have the base's parameters", expected="the same names and shapes",
            found=", ".join(odd[:5]), todo="compare checkpoints that descend from one base without change of shape",
        )  # fmt: skip
    moved = total = 0.0
    for name in sorted(ours):
        zero, one = ours[name].detach().double().cpu(), theirs[name].detach().double().cpu()
        moved += float((one - zero).square().sum())
        total += float(zero.square().sum())
    return math.sqrt(moved / total)


def expert_permutation(base: Tensor, arm: Tensor) -> npt.NDArray[np.uint16]:
    """Which arm expert each base expert has become: the assignment of greatest summed cosine of input projections.

    Both `[E, 2m, d]`. Returns `[E]`; the identity where it attains the optimum (experts that are copies of each other
    tie). Checks weights only, not function.
    """
    ours, theirs = (tensor.detach().to("cpu", torch.float64).flatten(1) for tensor in (base, arm))
    tiny = torch.finfo(torch.float64).tiny
    similarity = (ours / ours.norm(dim=1, keepdim=True).clamp_min(tiny)) @ (
        theirs / theirs.norm(dim=1, keepdim=True).clamp_min(tiny)
    ).T
    matrix = similarity.numpy()
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    if matrix.trace() >= matrix[rows, columns].sum() - 1e-9 * len(matrix):
        columns = np.arange(len(matrix))
    return columns.astype(np.uint16)


def lowest_rank(projections: Iterable[Tensor]) -> int:
    """Lowest numerical rank over experts of an input projection `[2m, d]`.

    By eigenvalues of the float64 Gram matrix on the smaller side, with the usual float32 tolerance
    `max(2m, d) * eps * sigma_max`, far above what squaring loses in float64.
    """
    return min(_rank(projection) for projection in projections)


def _rank(projection: Tensor) -> int:
    wide = projection.detach().to("cpu", torch.float64)
    gram = wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide
    sigma = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    threshold = max(projection.shape) * torch.finfo(torch.float32).eps * sigma.max()
    return int((sigma > threshold).sum())
