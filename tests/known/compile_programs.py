"""Compile the known programs with Tracr and write the weights that modhook ships; needs the extra `known`.

    python -m pip install -e ".[known]"
    python tests/known/compile_programs.py

Each program becomes `files/NAME.safetensors` (the weights in the names of `modhook_tasks.known.transformer`), and `files/programs.json`
holds vocabulary, outputs and, of a handful of inputs, what Tracr's own network gives. The shipped network is compared with Tracr's on
every input.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from safetensors.numpy import save_file
from tracr.compiler import compiling, lib
from tracr.rasp import rasp
from tracr.transformer import encoder

from modhook_tasks.known.compiled import FILES, load_program
from modhook_tasks.known.programs import LENGTH, PROGRAMS, every_input

BOS, PADDING = "BOS", "PAD"
REFERENCES = 8


def program(name: str) -> rasp.SOp:
    """Return a program in RASP, from Tracr's own library."""
    if name == "frac_prevs":
        return lib.make_frac_prevs(rasp.tokens == "x")
    if name == "hist":
        return lib.make_hist()
    if name == "reverse":
        return lib.make_reverse(rasp.tokens)
    return lib.make_sort(rasp.tokens, rasp.tokens, max_seq_len=LENGTH, min_key=1)


def tensors(params: dict[str, Any], layers: int) -> dict[str, np.ndarray]:
    """Return Tracr's weights in our names; torch's linear layers hold them transposed."""
    found = {
        "embedding.weight": params["token_embed"]["embeddings"],
        "position.weight": params["pos_embed"]["embeddings"],
    }
    for i in range(layers):
        for ours, theirs in (("query", "query"), ("key", "key"), ("value", "value"), ("output", "linear")):
            found[f"blocks.{i}.attention.{ours}.weight"] = params[f"transformer/layer_{i}/attn/{theirs}"]["w"].T
        for ours, theirs in (("up", "linear_1"), ("down", "linear_2")):
            found[f"blocks.{i}.{ours}.weight"] = params[f"transformer/layer_{i}/mlp/{theirs}"]["w"].T
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in found.items()}


def compiled(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """Return a program's description, its weights, and Tracr's outputs (1024, 5, O) of every input."""
    wanted = PROGRAMS[name]
    numbers = all(token.isdigit() for token in wanted.vocabulary)
    vocabulary = {int(token) if numbers else token for token in wanted.vocabulary}
    model = compiling.compile_rasp_to_model(
        program(name), vocab=vocabulary, max_seq_len=LENGTH, compiler_bos=BOS, compiler_pad=PADDING
    )
    assert not any(np.any(v["b"]) for v in model.params.values() if "b" in v), "a bias that is not zero"
    config, labels = model.model_config, model.residual_labels
    number = isinstance(model.output_encoder, encoder.NumericalEncoder)
    written = re.compile(rf"{name}_\d+" if number else rf"{name}_\d+:(.*)")
    columns = [i for i, label in enumerate(labels) if written.fullmatch(label)]
    values = None if number else [written.fullmatch(labels[i])[1] for i in columns]
    unembedding = np.zeros((len(columns), len(labels)), np.float32)
    unembedding[range(len(columns)), columns] = 1
    weights = tensors(model.params, config.num_layers) | {"unembedding": unembedding}
    about = {
        "tokens": {str(token): int(code) for token, code in model.input_encoder.encoding_map.items()},
        "sizes": {
            "tokens": len(model.input_encoder.encoding_map),
            "positions": LENGTH + 1,
            "width": len(labels),
            "layers": config.num_layers,
            "heads": config.num_heads,
            "head": config.key_size,
            "hidden": config.mlp_hidden_size,
            "outputs": len(columns),
        },
        "values": values,
        "residual": labels,
    }
    codes = about["tokens"]
    inputs = np.array([[codes[t] for t in (BOS, *tokens)] for tokens in every_input(wanted.vocabulary)])  # (1024, 6)
    residual = model.forward(model.params, jnp.array(inputs)).transformer_output.output
    outputs = np.asarray(residual)[:, 1:, columns]  # (1024, 5, O)
    picked = np.random.default_rng(0).choice(len(inputs), REFERENCES, replace=False)
    about["reference"] = {"inputs": inputs[picked].tolist(), "outputs": outputs[picked].astype(float).round(7).tolist()}
    return about, weights, outputs


def main() -> None:
    """Write every program, then compare what was written with Tracr."""
    described, outputs = {}, {}
    for name in PROGRAMS:
        described[name], weights, outputs[name] = compiled(name)
        save_file(weights, FILES / f"{name}.safetensors")
    text = json.dumps({"bos": BOS, "padding": PADDING, "programs": described}, separators=(",", ":"))
    Path(FILES / "programs.json").write_text(text + "\n", encoding="utf-8")
    for name in PROGRAMS:
        loaded = load_program(name)
        with torch.no_grad():
            ours = loaded.model(loaded.inputs).numpy()
        print(
            f"{name}: largest difference from Tracr over {len(ours)} inputs: {np.abs(ours - outputs[name]).max():.1e}"
        )


if __name__ == "__main__":
    main()
