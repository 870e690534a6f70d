import sys

sys.path.append("..")
import numpy as np
from common.optimizer import SGD
from common.time_layers import *
from common.trainer import RnnlmTrainer
from dataset import ptb

small = "small" in sys.argv
max_epoch = 3 if small else 100
batch_size, wordvec_size, hidden_size, time_size, lr = 10, 100, 100, 5, 0.1
np.random.seed(1)


class SimpleRnnlm:
    def __init__(self, V, D, H):
        rn = np.random.randn
        self.layers = [
            TimeEmbedding((rn(V, D) / 100).astype("f")),
            TimeRNN(
                (rn(D, H) / np.sqrt(D)).astype("f"),
                (rn(H, H) / np.sqrt(H)).astype("f"),
                np.zeros(H).astype("f"),
                stateful=True,
            ),
            TimeAffine((rn(H, V) / np.sqrt(H)).astype("f"), np.zeros(V).astype("f")),
        ]
        self.loss_layer = TimeSoftmaxWithLoss()
        self.params = [param for layer in self.layers for param in layer.params]
        self.grads = [grad for layer in self.layers for grad in layer.grads]

    def forward(self, xs, ts):
        for layer in self.layers:
            xs = layer.forward(xs)
        return self.loss_layer.forward(xs, ts)

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)


corpus, _, _ = ptb.load_data("train", 1_000, 418)
model = SimpleRnnlm(int(max(corpus) + 1), wordvec_size, hidden_size)
RnnlmTrainer(model, SGD(lr)).fit(corpus[:-1], corpus[1:], max_epoch, batch_size, time_size)
