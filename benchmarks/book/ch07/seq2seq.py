import sys

sys.path.append("..")
from common.base_model import BaseModel
from common.time_layers import *


def lstm_weights(D, H):
    rn = np.random.randn
    Wx, Wh = ((rn(rows, 4 * H) / np.sqrt(rows)).astype("f") for rows in (D, H))
    return Wx, Wh, np.zeros(4 * H).astype("f")


class Encoder:
    def __init__(self, V, D, H):
        self.embed = TimeEmbedding((np.random.randn(V, D) / 100).astype("f"))
        self.lstm = TimeLSTM(*lstm_weights(D, H), stateful=False)
        self.params = self.embed.params + self.lstm.params
        self.grads = self.embed.grads + self.lstm.grads

    def forward(self, xs):
        self.hs = self.lstm.forward(self.embed.forward(xs))
        return self.hs[:, -1, :]

    def backward(self, dh):
        dhs = np.zeros_like(self.hs)
        dhs[:, -1, :] = dh
        self.embed.backward(self.lstm.backward(dhs))


class Decoder:
    def __init__(self, V, D, H):
        self.embed = TimeEmbedding((np.random.randn(V, D) / 100).astype("f"))
        self.lstm = TimeLSTM(*lstm_weights(D, H), stateful=True)
        self.affine = TimeAffine((np.random.randn(H, V) / np.sqrt(H)).astype("f"), np.zeros(V).astype("f"))
        layers = self.embed, self.lstm, self.affine
        self.params = [param for layer in layers for param in layer.params]
        self.grads = [grad for layer in layers for grad in layer.grads]

    def forward(self, xs, h):
        self.lstm.set_state(h)
        return self.affine.forward(self.lstm.forward(self.embed.forward(xs)))

    def backward(self, dscore):
        self.embed.backward(self.lstm.backward(self.affine.backward(dscore)))
        return self.lstm.dh

    def generate(self, h, start_id, sample_size):
        sampled = []
        self.lstm.set_state(h)
        for _ in range(sample_size):
            x = np.array(start_id if not sampled else sampled[-1]).reshape(1, 1)
            score = self.affine.forward(self.lstm.forward(self.embed.forward(x)))
            sampled.append(int(np.argmax(score.flatten())))
        return sampled


class Seq2seq(BaseModel):
    def __init__(self, V, D, H):
        self.encoder, self.decoder = Encoder(V, D, H), Decoder(V, D, H)
        self.softmax = TimeSoftmaxWithLoss()
        self.params = self.encoder.params + self.decoder.params
        self.grads = self.encoder.grads + self.decoder.grads

    def forward(self, xs, ts):
        score = self.decoder.forward(ts[:, :-1], self.encoder.forward(xs))
        return self.softmax.forward(score, ts[:, 1:])

    def backward(self, dout=1):
        self.encoder.backward(self.decoder.backward(self.softmax.backward(dout)))

    def generate(self, xs, start_id, sample_size):
        return self.decoder.generate(self.encoder.forward(xs), start_id, sample_size)
