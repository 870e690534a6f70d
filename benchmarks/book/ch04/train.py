import sys

sys.path.append("..")
from ch04.negative_sampling_layer import NegativeSamplingLoss
from common.layers import Embedding
from common.np import *
from common.optimizer import Adam
from common.trainer import Trainer
from common.util import create_contexts_target
from dataset import ptb

small = "small" in sys.argv
vocab_size, words, hidden_size = (200, 1_500, 16) if small else (10_000, 15_000, 100)
window_size, batch_size = 5, 100
np.random.seed(1)


class CBOW:
    def __init__(self, V, H, window_size, corpus):
        W_in = 0.01 * np.random.randn(V, H).astype("f")
        W_out = 0.01 * np.random.randn(V, H).astype("f")
        self.in_layers = [Embedding(W_in) for _ in range(2 * window_size)]
        self.ns_loss = NegativeSamplingLoss(W_out, corpus, power=0.75, sample_size=5)
        self.params, self.grads = [], []
        for layer in [*self.in_layers, self.ns_loss]:
            self.params += layer.params
            self.grads += layer.grads

    def forward(self, contexts, target):
        h = 0
        for i, layer in enumerate(self.in_layers):
            h += layer.forward(contexts[:, i])
        h *= 1 / len(self.in_layers)
        return self.ns_loss.forward(h, target)

    def backward(self, dout=1):
        dout = self.ns_loss.backward(dout)
        dout *= 1 / len(self.in_layers)
        for layer in self.in_layers:
            layer.backward(dout)


corpus, word_to_id, id_to_word = ptb.load_data("train", words, vocab_size)
contexts, target = create_contexts_target(corpus, window_size)
model = CBOW(vocab_size, hidden_size, window_size, corpus)
Trainer(model, Adam()).fit(contexts, target, 1, batch_size, eval_interval=5)
