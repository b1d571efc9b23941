"""A dense text model on torch: tokenizer, forward pass, pooling, normalisation, and nothing between them.

Does what `SentenceTransformer.encode` does, with the configuration in the model's own folder, without its cost
per call. Not thread-safe: one thread owns it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mixpeek_operator.core.errors import ModelUnavailableError
from mixpeek_operator.extraction.models.registry import Weights, read_json

_POOLING = ("cls", "mean", "max", "mean_sqrt_len_tokens")


class TextEncoder:
    """Loaded weights. `tokenize` and `forward` are separate, so that a batch can be put together by length."""

    def __init__(self, weights: Weights, *, threads: int | None = None) -> None:
        """Load the model; takes seconds. Raises ModelUnavailableError."""
        # The tokenizer's own threads are of no use next to torch's, and warn after a fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            import torch
            from tokenizers import Tokenizer

            from mixpeek_operator.extraction.models import bert
        except ImportError as error:
            raise ModelUnavailableError(
                f"the model {weights.name!r} needs {error.name}; install mixpeek-operator[models]"
            ) from error
        if threads is not None:
            torch.set_num_threads(threads)
        folder = weights.folder
        pooling, self._normalize = _modules(weights)
        self.id = weights.id
        self.dimensions = weights.dimensions
        self._torch = torch
        self._pool = pooling
        try:
            config = read_json(folder / "config.json")
            own = bert.load(folder, config)
            self._states: Callable[[Any, Any], Any]
            self._states, config = (own, config) if own is not None else _through_transformers(folder)
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise ModelUnavailableError(
                f"the model {weights.name!r} in {folder} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        self._pad = int(config.get("pad_token_id") or 0)
        longest = int(config.get("max_position_embeddings") or 512)
        settings = folder / "sentence_bert_config.json"
        if settings.is_file():
            longest = min(longest, int(read_json(settings).get("max_seq_length") or longest))
        # What lies far beyond the model's limit is not even tokenized: a text of megabytes would hold up queries.
        self._most_characters = 256 * longest
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(longest)
        self._prompts = _prompts(weights)

    def tokenize(self, texts: Sequence[str], purpose: str) -> list[list[int]]:
        """Token ids of each text, cut at the model's limit, after the model's own prompt for the purpose."""
        prompt = self._prompts.get(purpose, "")
        cut = [prompt + text[: self._most_characters] for text in texts]
        if len(cut) == 1:
            return [self._tokenizer.encode(cut[0]).ids]
        encoded = self._tokenizer.encode_batch_fast(cut)
        return [encoding.ids for encoding in encoded]

    def forward(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector per sequence; sequences of one length need no padding and no mask."""
        torch = self._torch
        longest = max(map(len, batch))
        with torch.inference_mode():
            mask: Any = None
            if all(len(ids) == longest for ids in batch):
                tokens = torch.tensor(batch)
            else:
                tokens = torch.tensor([[*ids, *[self._pad] * (longest - len(ids))] for ids in batch])
                lengths = torch.tensor([len(ids) for ids in batch])
                mask = (torch.arange(longest)[None] < lengths[:, None]).long()
            states = self._states(tokens, mask)
            pooled = self._pooled(states, mask)
            if self._normalize:
                pooled = torch.nn.functional.normalize(pooled, dim=1)
            vectors: list[list[float]] = pooled.tolist()
            return vectors

    def _pooled(self, states: Any, mask: Any) -> Any:
        torch = self._torch
        if self._pool == "cls":
            return states[:, 0]
        if self._pool == "max":
            return (states if mask is None else states.masked_fill(mask[..., None] == 0, -1e9)).amax(1)
        if mask is None:
            total, count = states.sum(1), float(states.shape[1])
        else:
            weight = mask[..., None].to(states.dtype)
            total, count = (states * weight).sum(1), weight.sum(1)
        if self._pool == "mean":
            return total / count
        return total / torch.as_tensor(count).sqrt()


def _through_transformers(folder: Path) -> tuple[Callable[[Any, Any], Any], dict[str, Any]]:
    """Last hidden states as a function of token ids and mask, for any architecture; and its whole configuration."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype="float32").eval()
    return lambda tokens, mask: model(input_ids=tokens, attention_mask=mask).last_hidden_state, model.config.to_dict()


def _modules(weights: Weights) -> tuple[str, bool]:
    """Pooling mode and whether to normalise, as the folder's `modules.json` says."""
    path = weights.folder / "modules.json"
    if not path.is_file():
        raise ModelUnavailableError(
            f"{weights.folder} has no modules.json, so how {weights.name!r} pools its tokens is not known"
        )
    pooling, normalize = "", False
    for module in read_json(path):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling_mode(read_json(weights.folder / module["path"] / "config.json"))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise ModelUnavailableError(f"the model {weights.name!r} has a module {kind}, which is not supported")
    if pooling not in _POOLING:
        raise ModelUnavailableError(
            f"the model {weights.name!r} pools by {pooling or 'nothing'!r}; supported: {', '.join(_POOLING)}"
        )
    return pooling, normalize


def _pooling_mode(config: dict[str, Any]) -> str:
    """`pooling_mode`, or the one `pooling_mode_*` flag that is set."""
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or [])
    modes += [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    plain = {name.removeprefix("pooling_mode_") for name in modes}
    names = {{"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}.get(name, name) for name in plain}
    return names.pop() if len(names) == 1 else "+".join(sorted(names))


def _prompts(weights: Weights) -> dict[str, str]:
    """The model's prompts for our two purposes, by the names models give them."""
    path = weights.folder / "config_sentence_transformers.json"
    prompts = (read_json(path).get("prompts") or {}) if path.is_file() else {}
    document = prompts.get("document") or prompts.get("passage") or prompts.get("corpus") or ""
    return {"query": str(prompts.get("query") or ""), "document": str(document)}
