"""BERT and its like (RoBERTa, XLM-R) read without padding on the CPU: the tokens of many texts in one matrix.

Every matrix product sees the tokens of all texts of a batch, and nothing else; attention sees texts of one length at a
time, so that it needs no mask. Weights of query, key and value are one matrix; the wide intermediate results lie in
buffers that all layers share, since new pages cost as much as a tenth of the products.

In bf16 the products' factors are rounded, their sums are not, nor is what passes from layer to layer: a vector comes within
1e-4 of cosine distance of that of fp32. In int8 the factors are whole numbers of steps, which are each token's and each
output's own: sums are exact, and vectors come within a hundredth. In both a batch has as many rows whatever it holds, since
kernels are chosen by the number of rows and round differently: so a text's vector does not depend on the texts beside it.

Shape suffixes: T tokens of a batch, D dimensions, E dimensions between, K and N inputs and outputs of a product, B texts of
one length, L their length, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Pooling = Literal["mean", "cls"]
Precision = Literal["fp32", "bf16", "int8"]
_KINDS = ("bert", "roberta", "xlm-roberta")


class _Product:
    """x @ matrix + bias."""

    def __init__(self, matrix_NK: Tensor, bias_N: Tensor, kind: torch.dtype) -> None:
        self._matrix_KN, self._bias_N, self._kind = matrix_NK.to(kind).T, bias_N.to(kind), kind

    def __call__(self, x_TK: Tensor, out_TN: Tensor) -> None:
        torch.addmm(self._bias_N, x_TK.to(self._kind), self._matrix_KN, out=out_TN)


class _WholeProduct:
    """The same with the factors as whole numbers: of eight bits, and of seven for the weights, since processors without a unit
    for it add pairs of products in sixteen bits.
    """

    _STEPS, _STEPS_OF_WEIGHTS, _LEAST = 255, 63, 1e-12

    def __init__(self, matrix_NK: Tensor, bias_N: Tensor) -> None:
        self._step_N = matrix_NK.abs().amax(1).clamp(min=self._LEAST) / self._STEPS_OF_WEIGHTS
        whole_NK = torch.round(matrix_NK / self._step_N.unsqueeze(1)).to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(whole_NK, None)
        self._bias_N, self._zero_N = bias_N, torch.zeros(len(bias_N), dtype=torch.int64)
        # Of x what is below its row's least, for all columns alike.
        self._all_N = whole_NK.sum(1) * self._step_N

    def __call__(self, x_TK: Tensor, out_TN: Tensor) -> None:
        least_T1, most_T1 = x_TK.amin(1, keepdim=True), x_TK.amax(1, keepdim=True)
        step_T1 = ((most_T1 - least_T1) / self._STEPS).clamp_(min=self._LEAST)
        whole_TK = (x_TK - least_T1).div_(step_T1).round_().to(torch.uint8)
        weights = self._packed, self._step_N, self._zero_N, None
        sums_TN = torch.ops.onednn.qlinear_pointwise(whole_TK, 1.0, 0, *weights, 1.0, 0, torch.float32, "none", [], "")
        torch.addcmul(self._bias_N, least_T1, self._all_N, out=out_TN).addcmul_(sums_TN, step_T1)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    qkv: _Product | _WholeProduct
    joined: _Product | _WholeProduct
    joined_norm: tuple[Tensor, Tensor]
    wide: _Product | _WholeProduct
    narrow: _Product | _WholeProduct
    narrow_norm: tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Texts of one length that lie side by side: `count` of `length` tokens from row `start` on."""

    start: int
    count: int
    length: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.count * self.length)


def reads(model: Any) -> bool:
    """Whether a model of transformers is one that FlatBert computes: BERT-like, with GELU and absolute positions."""
    config = model.config
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    plain = not getattr(config, "is_decoder", False) and not getattr(config, "add_cross_attention", False)
    return config.model_type in _KINDS and config.hidden_act == "gelu" and positions == "absolute" and plain


class FlatBert:
    """The encoder's layers over packed tokens; its weights are those of `model`."""

    # Matrices of so many rows still lie in a core's cache, and are as fast as larger ones.
    batch_tokens = 1024

    def __init__(self, model: Any, *, pooling: Pooling, precision: Precision) -> None:
        config = model.config
        self._pooling, self._precision = pooling, precision
        self._kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self._inner = config.intermediate_size
        self._heads, self._eps = config.num_attention_heads, config.layer_norm_eps
        # RoBERTa counts positions from after the padding's own.
        self._first_position = 0 if config.model_type == "bert" else config.pad_token_id + 1
        weights = {name: value.detach() for name, value in model.state_dict().items()}
        self._words_VD = weights["embeddings.word_embeddings.weight"]
        self._places_PD = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = (weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
        self._layers = [self._layer(weights, f"encoder.layer.{number}.") for number in range(config.num_hidden_layers)]

    def _layer(self, weights: dict[str, Tensor], prefix: str) -> _Layer:
        def pair(name: str) -> tuple[Tensor, Tensor]:
            return weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"]

        def linear(*names: str) -> _Product | _WholeProduct:
            matrices, biases = zip(*map(pair, names), strict=True)
            if self._precision == "int8":
                return _WholeProduct(torch.cat(matrices), torch.cat(biases))
            return _Product(torch.cat(matrices), torch.cat(biases), self._kind)

        return _Layer(
            qkv=linear(*(f"attention.self.{name}" for name in ("query", "key", "value"))),
            joined=linear("attention.output.dense"),
            joined_norm=pair("attention.output.LayerNorm"),
            wide=linear("intermediate.dense"),
            narrow=linear("output.dense"),
            narrow_norm=pair("output.LayerNorm"),
        )

    def vectors(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The pooled last layer of each text, (B, D); `tokens` in order of length, at most `batch_tokens` in all."""
        groups = list(_groups([len(ids) for ids in tokens]))
        hidden_TD = self._embedded(tokens)
        rows, dimensions = hidden_TD.shape
        qkv_T3D, joined_TD, wide_TE, narrow_TD = (
            torch.zeros(rows, width, dtype=self._kind) for width in (3 * dimensions, dimensions, self._inner, dimensions)
        )
        for layer in self._layers:
            layer.qkv(hidden_TD, qkv_T3D)
            for group in groups:
                self._attend(qkv_T3D[group.rows], joined_TD[group.rows], group)
            layer.joined(joined_TD, narrow_TD)
            hidden_TD = self._normed(hidden_TD.add_(narrow_TD), layer.joined_norm)
            layer.wide(hidden_TD, wide_TE)
            torch.ops.aten.gelu_(wide_TE)
            layer.narrow(wide_TE, narrow_TD)
            hidden_TD = self._normed(hidden_TD.add_(narrow_TD), layer.narrow_norm)
        return torch.cat([self._pooled(hidden_TD[group.rows], group) for group in groups])

    def _embedded(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        ids_T = torch.tensor([one for ids in tokens for one in ids])
        first = self._first_position
        places_T = torch.tensor([place for ids in tokens for place in range(first, first + len(ids))])
        hidden_TD = self._words_VD[ids_T].add_(self._places_PD[places_T])
        if self._precision != "fp32":
            hidden_TD = functional.pad(hidden_TD, (0, 0, 0, max(0, self.batch_tokens - len(hidden_TD))))
        return self._normed(hidden_TD, self._norm)

    def _normed(self, hidden_TD: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(hidden_TD, hidden_TD.shape[1:], *norm, self._eps)

    def _attend(self, qkv_T3D: Tensor, joined_TD: Tensor, group: _Group) -> None:
        query, key, value = qkv_T3D.view(group.count, group.length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        attended_BHLD = functional.scaled_dot_product_attention(query, key, value)
        joined_TD.view(group.count, group.length, self._heads, -1).copy_(attended_BHLD.transpose(1, 2))

    def _pooled(self, hidden_TD: Tensor, group: _Group) -> Tensor:
        hidden_BLD = hidden_TD.view(group.count, group.length, -1)
        return hidden_BLD[:, 0] if self._pooling == "cls" else hidden_BLD.mean(dim=1)


def _groups(lengths: Sequence[int]) -> Iterator[_Group]:
    start = 0
    for length, same in groupby(lengths):
        count = sum(1 for _ in same)
        yield _Group(start=start, count=count, length=length)
        start += count * length
