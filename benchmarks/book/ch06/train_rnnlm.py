import sys

sys.path.append("..")
from common.base_model import BaseModel
from common.optimizer import SGD
from common.time_layers import *
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity
from dataset import ptb

# The book's learning rate of 20 makes rounding grow a thousandfold within a few steps: no two BLAS libraries print the
# same perplexities then.
small = "small" in sys.argv
vocab_size, words, hidden_size = (300, 6_000, 32) if small else (10_000, 21_000, 100)
batch_size, time_size, lr, max_grad = 20, 35, 1.0, 0.25
np.random.seed(1)


class Rnnlm(BaseModel):
    def __init__(self, vocab_size=10000, wordvec_size=100, hidden_size=100):
        V, D, H = vocab_size, wordvec_size, hidden_size
        rn = np.random.randn
        self.layers = [
            TimeEmbedding((rn(V, D) / 100).astype("f")),
            TimeLSTM(
                (rn(D, 4 * H) / np.sqrt(D)).astype("f"),
                (rn(H, 4 * H) / np.sqrt(H)).astype("f"),
                np.zeros(4 * H).astype("f"),
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

    def reset_state(self):
        self.layers[1].reset_state()


corpus, _, _ = ptb.load_data("train", words, vocab_size)
corpus_test, _, _ = ptb.load_data("test", 1_500, vocab_size if small else 1_000)
model = Rnnlm(vocab_size, hidden_size, hidden_size)
RnnlmTrainer(model, SGD(lr)).fit(corpus[:-1], corpus[1:], 1, batch_size, time_size, max_grad, eval_interval=5)
model.reset_state()
print(f"test perplexity: {eval_perplexity(model, corpus_test):.2f}")
