"""A Seq2seq learns, is written as ONNX, and onnxruntime decodes alone: python examples/onnx_seq2seq.py [EPOCHS].

Writing needs onnx. ``decode`` needs onnxruntime and numpy, and nothing of this package.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def decode(folder: Path, xs: Any, start_id: int, max_len: int) -> Any:
    """Ids xs (N, S) of sources -> ids (N, max_len) of targets, the likeliest at every step."""
    encoder, decoder = (
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        for name in ("encoder", "decoder")
    )
    # What the encoder returns has the names by which the decoder takes it: h1, c1, with attention hs and mask.
    given = dict(zip((value.name for value in encoder.get_outputs()), encoder.run(None, {"xs": xs}), strict=True))
    names = [value.name for value in decoder.get_outputs()]
    last, written = np.full((len(xs), 1), start_id, np.int64), []
    for _ in range(max_len):
        made = dict(zip(names, decoder.run(None, {"ts": last, **given}), strict=True))
        last = made.pop("probabilities").argmax(axis=-1)
        given |= {name.removeprefix("next_"): state for name, state in made.items()}
        written.append(last)
    return np.concatenate(written, axis=1)


def main(epochs: int = 12, examples: int = 5000) -> None:
    """Learn to write a row of digits backwards, and let both write."""
    from fastlstm import interop
    from fastlstm.models import Seq2seq

    start_id, digits, length = 10, 10, 5
    xs = np.random.default_rng(0).integers(0, digits, (examples, length))
    ts = np.concatenate([np.full((examples, 1), start_id), xs[:, ::-1]], axis=1)
    model = Seq2seq(digits + 1, 16, 64, attention=True, seed=0)
    model.fit(xs, ts, epochs=epochs, batch_size=100, optimizer="adam", max_grad=5.0, verbose=2)
    with tempfile.TemporaryDirectory() as folder:
        for path in interop.export_onnx(model, folder):
            print(f"{path.name}: {path.stat().st_size} bytes")
        by_onnxruntime = decode(Path(folder), xs[:100], start_id, length)
    by_the_model = model.generate(xs[:100], start_id, length)
    for source, target in zip(xs[:3], by_onnxruntime, strict=False):
        print(f"{source} -> {target}")
    print(f"equal ids: {(by_onnxruntime == by_the_model).mean():.0%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
