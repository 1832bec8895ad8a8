"""What a model is: digests of its tensors, its distance from the base, and whether its experts kept their places."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Iterator, Sequence

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


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and every persistent buffer of a model by name; a tensor that is tied appears once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


class Digester:
    """Digests of a model's stored tensors, each computed when it is first needed and only once."""

    def __init__(self, model: nn.Module) -> None:
        self._tensors = stored_tensors(model)
        self._known: dict[str, bytes] = {}

    def over(self, inside: Sequence[str], outside: Sequence[str] = ()) -> str:
        """`sha256:...` over the tensors below the given prefixes, in sorted order of name: name, NUL, 32 raw bytes."""
        hasher = hashlib.sha256()
        for name in sorted(self._tensors):
            if name.startswith(tuple(inside)) and not name.startswith(tuple(outside)):
                hasher.update(name.encode() + b"\0" + self._raw(name))
        return "sha256:" + hasher.hexdigest()

    def _raw(self, name: str) -> bytes:
        if name not in self._known:
            self._known[name] = bytes.fromhex(tensor_digest(self._tensors[name]).removeprefix("sha256:"))
        return self._known[name]


def layer_digests(digester: Digester, row: FamilyRow, layer: RoutedLayer) -> dict[str, str]:
    """Digest of each tensor that feeds the layer's channels.

    `norm.gain`, `router.weight`, `router.bias`, `selection.bias` and `shared` where the family has them, `experts.i` (input
    then output projection), `local` (this layer's attention and input norm) and `upstream` (embeddings, all lower layers and
    `local`): every tensor on which the state entering the block norm depends. The digester's model and `layer` hold the
    stored weights widened to float32; equal digests mean equal bits.
    """
    digests = {"router.weight": tensor_digest(layer.router_weight)}
    for name, tensor in (("norm.gain", layer.gain), ("router.bias", layer.router_bias),
                         ("selection.bias", layer.selection_bias)):  # fmt: skip
        if tensor is not None:
            digests[name] = tensor_digest(tensor)
    for expert in range(layer.n_experts):
        digests[f"experts.{expert}"] = tensor_digest(layer.gate_up[expert], layer.down[expert])
    own = f"{row.layers}.{layer.index}"
    block = f"{own}.{row.block}."
    if layer.shared is not None:
        digests["shared"] = digester.over((block,), outside=(f"{block}{row.router}.", f"{block}{row.experts}."))
    local = [f"{own}.{part}." for part in (row.attention, row.input_norm)]
    below = [f"{row.layers}.{number}." for number in range(layer.index)]
    digests["local"] = digester.over(local)
    digests["upstream"] = digester.over((f"{row.embedding}.", *below, *local))
    return digests


def parameter_distance(base: nn.Module, arm: nn.Module) -> float:
    """`||theta1 - theta0|| / ||theta0||` over all parameters and persistent buffers, accumulated in float64.

    Raises:
        ModelRefused: the two models do not have the same parameters.
    """
    ours, theirs = stored_tensors(base), stored_tensors(arm)
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


def gram_spectrum(wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (squared singular values), eigenvectors of the Gram matrix on the smaller side, and which count.

    Singular values up to `max(2m, d) * eps * sigma_max`, eps of float32, count as zero.
    """
    values, vectors = torch.linalg.eigh(_gram(wide))
    return values, vectors, _counted(values, wide)


def _gram(wide: Tensor) -> Tensor:
    return wide @ wide.T if wide.shape[0] < wide.shape[1] else wide.T @ wide


def _counted(values: Tensor, wide: Tensor) -> Tensor:
    sigma = values.clamp_min(0).sqrt()
    return sigma > max(wide.shape) * torch.finfo(torch.float32).eps * sigma.max()


def _rank(projection: Tensor) -> int:
    wide = projection.detach().to("cpu", torch.float64)
    return int(_counted(torch.linalg.eigvalsh(_gram(wide)), wide).sum())
