import sys

sys.path.append("..")
from common.base_model import BaseModel
from common.np import *
from common.optimizer import SGD
from common.time_layers import *
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity
from dataset import ptb

small = "small" in sys.argv
vocab_size, words, hidden_size = (300, 6_000, 32) if small else (10_000, 6_000, 650)
batch_size, time_size, lr, max_grad = 20, 35, 1.0, 0.25
np.random.seed(1)


class BetterRnnlm(BaseModel):
    def __init__(self, vocab_size=10000, wordvec_size=650, hidden_size=650, dropout_ratio=0.5):
        V, D, H = vocab_size, wordvec_size, hidden_size
        rn = np.random.randn
        embed_W = (rn(V, D) / 100).astype("f")
        self.layers = [TimeEmbedding(embed_W)]
        for _ in range(2):
            Wx, Wh = ((rn(rows, 4 * H) / np.sqrt(rows)).astype("f") for rows in (H, H))
            self.layers += [TimeDropout(dropout_ratio), TimeLSTM(Wx, Wh, np.zeros(4 * H).astype("f"), stateful=True)]
        self.layers += [TimeDropout(dropout_ratio), TimeAffine(embed_W.T, np.zeros(V).astype("f"))]
        self.loss_layer = TimeSoftmaxWithLoss()
        self.params = [param for layer in self.layers for param in layer.params]
        self.grads = [grad for layer in self.layers for grad in layer.grads]

    def forward(self, xs, ts, train_flg=True):
        for layer in self.layers[1::2]:
            layer.train_flg = train_flg
        for layer in self.layers:
            xs = layer.forward(xs)
        return self.loss_layer.forward(xs, ts)

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)

    def reset_state(self):
        for layer in self.layers[2:6:2]:
            layer.reset_state()


corpus, _, _ = ptb.load_data("train", words, vocab_size if small else 6_000)
model = BetterRnnlm(vocab_size, hidden_size, hidden_size)
RnnlmTrainer(model, SGD(lr)).fit(corpus[:-1], corpus[1:], 1, batch_size, time_size, max_grad, eval_interval=2)
model.reset_state()
print(f"valid perplexity: {eval_perplexity(model, corpus[:750]):.2f}")
