"""A character RNN (a GRU) in PyTorch, on fastlstm with one line more.

python examples/torch_char_rnn.py [FILE] [--torch]
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn

import fastlstm.torch

TEXT = "the cat sat on the mat, and the rat sat on the cat. then the fat cat ate the rat that sat on the cat.\n" * 20
BATCH, STEPS, LR = 50, 100, 2e-3


class CharRNN(nn.Module):
    """Characters in, characters out."""

    def __init__(self, vocab_size, width=128, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.gru = nn.GRU(width, width, layers, batch_first=True)
        self.output = nn.Linear(width, vocab_size)

    def forward(self, ids):
        hs, _ = self.gru(self.embedding(ids))
        return self.output(hs)

    @torch.no_grad()
    def write(self, ids, length):
        """The ids that follow, each the likeliest, the state carried from one to the next."""
        written, state = [], None
        for _ in range(length):
            hs, state = self.gru(self.embedding(ids), state)
            ids = self.output(hs[:, -1:]).argmax(-1)
            written.append(ids.item())
        return written


def main(text, steps=60, by_torch=False):
    """Train; returns the loss of each step."""
    torch.manual_seed(0)
    characters = sorted(set(text))
    ids = torch.tensor([characters.index(character) for character in text])
    model = CharRNN(len(characters))
    if not by_torch:
        fastlstm.torch.replace(model)  # the one line
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    losses, begin = [], time.perf_counter()
    for step in range(steps):
        starts = torch.randint(len(ids) - STEPS - 1, (BATCH,))
        chunks = torch.stack([ids[start : start + STEPS + 1] for start in starts])
        logits = model(chunks[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), chunks[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 19:
            print(f"step {step + 1}, loss {losses[-1]:.4f}, {time.perf_counter() - begin:.2f} s", flush=True)
    print("".join(characters[k] for k in model.write(ids[None, :20], 60)))
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--torch", action="store_true", help="without the line that replaces the GRU")
    args = parser.parse_args()
    main(args.file.read_text() if args.file else TEXT, args.steps, args.torch)
