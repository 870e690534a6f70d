from common.layers import *
from common.np import *

from benchmarks import textbook


class TimeEmbedding:
    def __init__(self, W):
        self.params, self.grads = [W], [np.zeros_like(W)]

    def forward(self, xs):
        W = self.params[0]
        out = np.empty((*xs.shape, W.shape[1]), dtype="f")
        self.steps = []
        for t in range(xs.shape[1]):
            step = Embedding(W)
            out[:, t, :] = step.forward(xs[:, t])
            self.steps.append(step)
        return out

    def backward(self, dout):
        total = 0
        for t, step in enumerate(self.steps):
            step.backward(dout[:, t, :])
            total += step.grads[0]
        self.grads[0][...] = total


class TimeRNN:
    def __init__(self, Wx, Wh, b, stateful=False):
        self.rnn = textbook.TimeRNN(Wx, Wh, b)
        self.params, self.grads = self.rnn.params, self.rnn.grads
        self.h, self.dh = None, None
        self.stateful = stateful

    def forward(self, xs):
        hs, self.h = self.rnn.forward(xs, self.h if self.stateful else None)
        return hs

    def backward(self, dhs):
        dxs, self.dh = self.rnn.backward(dhs)
        return dxs

    def reset_state(self):
        self.h = None


class TimeLSTM:
    def __init__(self, Wx, Wh, b, stateful=False):
        self.lstm = textbook.TimeLSTM(Wx, Wh, b)
        self.params, self.grads = self.lstm.params, self.lstm.grads
        self.h, self.c, self.dh = None, None, None
        self.stateful = stateful

    def forward(self, xs):
        h, c = (self.h, self.c) if self.stateful else (None, None)
        hs, self.h, self.c = self.lstm.forward(xs, h, c)
        return hs

    def backward(self, dhs):
        dxs, self.dh, _ = self.lstm.backward(dhs)
        return dxs

    def set_state(self, h, c=None):
        self.h, self.c = h, c

    def reset_state(self):
        self.h, self.c = None, None


class TimeAffine:
    def __init__(self, W, b):
        self.params, self.grads = [W, b], [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        N, T, D = x.shape
        self.x = x.reshape(N * T, D)
        return textbook.affine_forward(self.x, *self.params).reshape(N, T, -1)

    def backward(self, dout):
        N, T, V = dout.shape
        dx, dW, db = textbook.affine_backward(self.x, self.params[0], dout.reshape(N * T, V))
        self.grads[0][...] = dW
        self.grads[1][...] = db
        return dx.reshape(N, T, -1)


class TimeSoftmaxWithLoss:
    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, xs, ts):
        loss, dx = textbook.softmax_cross_entropy(xs.reshape(-1, xs.shape[2]), ts.reshape(-1))
        self.dx = dx.reshape(xs.shape)
        return loss

    def backward(self, dout=1):
        return self.dx * dout


class TimeDropout:
    def __init__(self, dropout_ratio=0.5):
        self.params, self.grads = [], []
        self.dropout_ratio = dropout_ratio
        self.train_flg = True

    def forward(self, xs):
        if not self.train_flg:
            return xs
        kept = np.random.rand(*xs.shape) > self.dropout_ratio
        self.mask = kept.astype(np.float32) / np.float32(1.0 - self.dropout_ratio)
        return xs * self.mask

    def backward(self, dout):
        return dout * self.mask
