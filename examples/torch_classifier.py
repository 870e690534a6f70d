"""A classifier of sentences with packed sequences in PyTorch, on fastlstm with one line more.

python examples/torch_classifier.py [FILE] [--torch]; the file has a label, a tab and a sentence in each line.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

import fastlstm.torch

GOOD, BAD = "a warm and clever film", "a dull film without any end"
TEXT = "\n".join(f"1\t{GOOD} {'that I liked ' * (k % 5)}\n0\t{BAD} {'that bored me ' * (k % 7)}" for k in range(100))
BATCH, LR = 32, 1e-3


class Classifier(nn.Module):
    """An LSTM in both directions; its last states tell the class."""

    def __init__(self, vocab_size, classes, width=100, units=128):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=0)
        self.lstm = nn.LSTM(width, units, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(2 * units, classes)

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        _, (h_n, _) = self.lstm(packed)
        return self.output(self.dropout(torch.cat((h_n[0], h_n[1]), 1)))


def read(text):
    """Rows of ids, from 1 on, and labels."""
    rows = [line.split("\t", 1) for line in text.splitlines() if line.strip()]
    words = sorted({word for _, sentence in rows for word in sentence.split()})
    number = {word: k for k, word in enumerate(words, 1)}
    labels = sorted({label for label, _ in rows})
    ids = [torch.tensor([number[word] for word in sentence.split()]) for _, sentence in rows]
    return ids, torch.tensor([labels.index(label) for label, _ in rows]), len(words) + 1, len(labels)


def main(text, steps=60, by_torch=False):
    """Train; returns the loss of each step."""
    torch.manual_seed(0)
    ids, labels, vocab_size, classes = read(text)
    model = Classifier(vocab_size, classes)
    if not by_torch:
        fastlstm.torch.replace(model)  # the one line
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    losses, begin = [], time.perf_counter()
    for step in range(steps):
        chosen = torch.randint(len(ids), (BATCH,))
        rows = [ids[k] for k in chosen]
        logits = model(pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows]))
        loss = nn.functional.cross_entropy(logits, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 19:
            print(f"step {step + 1}, loss {losses[-1]:.4f}, {time.perf_counter() - begin:.2f} s", flush=True)
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--torch", action="store_true", help="without the line that replaces the LSTM")
    args = parser.parse_args()
    main(args.file.read_text() if args.file else TEXT, args.steps, args.torch)
