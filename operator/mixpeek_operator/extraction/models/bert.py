"""The BERT encoder in plain torch operations.

Computes what `transformers.BertModel` does, from the same file of weights. Importing transformers takes seconds, and
its forward pass adds Python between the operations that costs a short query about as much as they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}


class Bert:
    """A loaded encoder."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Arrange the weights. KeyError when one is missing."""
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config["layer_norm_eps"])
        self._activation = _ACTIVATIONS[config["hidden_act"]]
        self._words = weights["embeddings.word_embeddings.weight"]
        # Every token is of the first segment.
        self._places = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _pair(weights, "embeddings.LayerNorm")
        self._layers = [_Layer(weights, f"encoder.layer.{index}.") for index in range(config["num_hidden_layers"])]

    def __call__(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the last hidden states of token ids (batch × length); `mask` is 1 for tokens and 0 for padding."""
        batch, length = tokens.shape
        states = self._normed(functional.embedding(tokens, self._words) + self._places[:length], self._norm)
        visible = None if mask is None else mask[:, None, None, :].bool()
        for layer in self._layers:
            mixed = functional.linear(states, *layer.projections)
            query, key, value = mixed.view(batch, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
            seen = seen.transpose(1, 2).reshape(batch, length, -1)
            states = self._normed(states + functional.linear(seen, *layer.attention), layer.attention_norm)
            inner = self._activation(functional.linear(states, *layer.inner))
            states = self._normed(states + functional.linear(inner, *layer.outer), layer.outer_norm)
        return states

    def _normed(self, states: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(states, norm[0].shape, *norm, self._epsilon)


class _Layer:
    """Weight and bias of each step; the three projections of attention are one matrix."""

    __slots__ = ("attention", "attention_norm", "inner", "outer", "outer_norm", "projections")

    def __init__(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        parts = [_pair(weights, f"{prefix}attention.self.{name}") for name in ("query", "key", "value")]
        self.projections = (torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))
        self.attention = _pair(weights, f"{prefix}attention.output.dense")
        self.attention_norm = _pair(weights, f"{prefix}attention.output.LayerNorm")
        self.inner = _pair(weights, f"{prefix}intermediate.dense")
        self.outer = _pair(weights, f"{prefix}output.dense")
        self.outer_norm = _pair(weights, f"{prefix}output.LayerNorm")


def load(folder: Path, config: Mapping[str, Any]) -> Bert | None:
    """Return the encoder of a model folder; None when it is of another architecture or variant."""
    plain = (
        config.get("model_type") == "bert"
        and config.get("hidden_act") in _ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder")
    )
    if not plain:
        return None
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    return Bert(config, {name.removeprefix("bert."): tensor.float() for name, tensor in stored.items()})


def _pair(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]
