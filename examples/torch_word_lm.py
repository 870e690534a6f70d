"""A language model by words in PyTorch, on fastlstm with one line more.

python examples/torch_word_lm.py [FILE] [--torch] [--fused]

With --fused the projection to the vocabulary and its loss are fastlstm's too, which is a second line.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn

import fastlstm.torch

TEXT = "the cat sat on the mat . the dog saw the cat and the cat saw the dog . then the dog sat on the mat .\n" * 60
BATCH, STEPS, CLIP, LR = 20, 35, 0.25, 20.0


class LanguageModel(nn.Module):
    """Embedding, LSTM layers with dropout, and the projection to the vocabulary for the loss."""

    def __init__(self, vocab_size, width=200, layers=2, dropout=0.2):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, width, layers, dropout=dropout)
        self.output = nn.Linear(width, vocab_size)

    def forward(self, ids, state):
        hs, state = self.lstm(self.dropout(self.embedding(ids)), state)
        return self.dropout(hs), state


def streams(text):
    """The ids of all words as (T, BATCH), each column a part of the text, and how many words there are."""
    words = text.replace("\n", " <eos> ").split()
    vocabulary = {word: number for number, word in enumerate(sorted(set(words)))}
    ids = torch.tensor([vocabulary[word] for word in words])
    rows = len(ids) // BATCH
    return ids[: rows * BATCH].view(BATCH, rows).t().contiguous(), len(vocabulary)


def main(text, steps=100, by_torch=False, fused=False):
    """Train; returns the loss of each step."""
    torch.manual_seed(0)
    ids, vocab_size = streams(text)
    model = LanguageModel(vocab_size)
    if not by_torch:
        fastlstm.torch.replace(model)  # the one line
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    losses, state, begin = [], None, time.perf_counter()
    for step in range(steps):
        start = step * STEPS % (len(ids) - STEPS - 1)
        x, y = ids[start : start + STEPS], ids[start + 1 : start + STEPS + 1]
        hs, state = model(x, state)
        state = tuple(part.detach() for part in state)
        if fused:
            loss = fastlstm.torch.linear_cross_entropy(hs, model.output.weight, model.output.bias, y)
        else:
            loss = nn.functional.cross_entropy(model.output(hs).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 19:
            print(f"step {step + 1}, loss {losses[-1]:.4f}, {time.perf_counter() - begin:.2f} s", flush=True)
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--torch", action="store_true", help="without the line that replaces the LSTM")
    parser.add_argument("--fused", action="store_true", help="projection and loss in one call of fastlstm")
    args = parser.parse_args()
    main(args.file.read_text() if args.file else TEXT, args.steps, args.torch, args.fused)
