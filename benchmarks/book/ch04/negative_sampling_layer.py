from collections import Counter

from common.layers import Embedding, SigmoidWithLoss
from common.np import *


class EmbeddingDot:
    def __init__(self, W):
        self.embed = Embedding(W)
        self.params, self.grads = self.embed.params, self.embed.grads

    def forward(self, h, idx):
        self.h, self.rows = h, self.embed.forward(idx)
        return (self.h * self.rows).sum(axis=1)

    def backward(self, dout):
        dout = dout.reshape(-1, 1)
        self.embed.backward(dout * self.h)
        return dout * self.rows


class UnigramSampler:
    def __init__(self, corpus, power, sample_size):
        self.sample_size = sample_size
        counts = Counter()
        for word_id in corpus:
            counts[word_id] += 1
        self.vocab_size = len(counts)
        p = np.array([counts[i] for i in range(self.vocab_size)]) ** power
        self.word_p = p / p.sum()

    def get_negative_sample(self, target):
        sample = np.zeros((len(target), self.sample_size), dtype=np.int32)
        for i, word in enumerate(target):
            p = self.word_p.copy()
            p[word] = 0
            p /= p.sum()
            sample[i] = np.random.choice(self.vocab_size, size=self.sample_size, replace=False, p=p)
        return sample


class NegativeSamplingLoss:
    def __init__(self, W, corpus, power=0.75, sample_size=5):
        self.sampler = UnigramSampler(corpus, power, sample_size)
        self.losses = [SigmoidWithLoss() for _ in range(sample_size + 1)]
        self.dots = [EmbeddingDot(W) for _ in range(sample_size + 1)]
        self.params = [param for dot in self.dots for param in dot.params]
        self.grads = [grad for dot in self.dots for grad in dot.grads]

    def forward(self, h, target):
        negative = self.sampler.get_negative_sample(target)
        loss = 0
        for k, (dot, with_loss) in enumerate(zip(self.dots, self.losses, strict=True)):
            words = target if k == 0 else negative[:, k - 1]
            label = np.full(len(target), 1 if k == 0 else 0)
            loss += with_loss.forward(dot.forward(h, words), label)
        return loss

    def backward(self, dout=1):
        dh = 0
        for dot, with_loss in zip(self.dots, self.losses, strict=True):
            dh += dot.backward(with_loss.backward(dout))
        return dh
