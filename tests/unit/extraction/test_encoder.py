"""One encoder for every architecture: BERT by our own hands, the others through transformers, with equal numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixpeek_operator.extraction.models.registry import ModelRegistry, Weights

torch = pytest.importorskip("torch", reason="needs mixpeek-operator[models]")

TEXTS = ["a lamp", "a quiet lamp for the journey of a child", "lamp", "eine Lampe für unterwegs, bitte"]
SMALL = {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def model(folder: Path, config: Any, kind: str, *, prefix: str = "") -> Weights:
    """A small model with random weights, as a model folder."""
    import transformers
    from safetensors.torch import load_file, save_file

    torch.manual_seed(5)
    getattr(transformers, kind)(config).eval().save_pretrained(folder)
    weights = folder / "model.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    packaged = ModelRegistry(default="all-MiniLM-L6-v2").locate("all-MiniLM-L6-v2")
    shutil.copy(packaged / "tokenizer.json", folder)
    shutil.copytree(packaged / "1_Pooling", folder / "1_Pooling")
    shutil.copy(packaged / "modules.json", folder)
    return Weights("small", "small@0", folder, 32)


def expected(folder: Path, batch: list[list[int]]) -> Any:
    """Mean of the hidden states of each sequence alone, as transformers computes them."""
    from transformers import AutoModel

    reference = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    with torch.inference_mode():
        means = [reference(input_ids=torch.tensor([ids])).last_hidden_state.mean(1)[0] for ids in batch]
    return torch.nn.functional.normalize(torch.stack(means), dim=1)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize(
    ("kind", "changes", "own"),
    [
        ("Bert", {"hidden_act": "gelu"}, True),
        ("Bert", {"hidden_act": "relu"}, True),
        ("Bert", {"hidden_act": "gelu_new"}, False),
        ("DistilBert", {}, False),
    ],
)
def test_vectors_are_those_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, str], own: bool, prefix: str
) -> None:
    import transformers

    from mixpeek_operator.extraction.models import encoder

    if kind == "DistilBert":
        sizes = {"vocab_size": 30522, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
        prefix = ""
    else:
        sizes = {**SMALL, "intermediate_size": 64}
    weights = model(tmp_path, getattr(transformers, f"{kind}Config")(**sizes, **changes), f"{kind}Model", prefix=prefix)
    if own:
        monkeypatch.setattr(encoder, "_through_transformers", lambda folder: pytest.fail("loads transformers"))
    loaded = encoder.TextEncoder(weights, threads=1)
    batch = loaded.tokenize(TEXTS, "document")
    together = torch.tensor(loaded.forward(batch))
    alone = torch.tensor([loaded.forward([ids])[0] for ids in batch])
    torch.testing.assert_close(together, expected(tmp_path, batch), atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_a_model_that_lacks_a_weight_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig

    from mixpeek_operator.core.errors import ModelUnavailableError
    from mixpeek_operator.extraction.models.encoder import TextEncoder

    weights = model(tmp_path, BertConfig(**SMALL, intermediate_size=64), "BertModel")
    file = tmp_path / "model.safetensors"
    stored = {name: tensor for name, tensor in load_file(file).items() if "layer.1.output" not in name}
    save_file(stored, file)
    with pytest.raises(ModelUnavailableError, match=r"layer\.1\.output"):
        TextEncoder(weights, threads=1)


def test_positions_beyond_the_model_are_cut(tmp_path: Path) -> None:
    from transformers import BertConfig

    from mixpeek_operator.extraction.models.encoder import TextEncoder

    config = BertConfig(**SMALL, intermediate_size=64, max_position_embeddings=16)
    weights = model(tmp_path, config, "BertModel")
    assert json.loads((tmp_path / "config.json").read_text())["max_position_embeddings"] == 16
    loaded = TextEncoder(weights, threads=1)
    (ids,) = loaded.tokenize(["lamp " * 100], "document")
    assert len(ids) == 16
    assert len(loaded.forward([ids])[0]) == 32
