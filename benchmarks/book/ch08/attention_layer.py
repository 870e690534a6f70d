from common.layers import Softmax
from common.np import *


class TimeAttention:
    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, hs_enc, hs_dec):
        self.hs_enc, self.hs_dec = hs_enc, hs_dec
        out = np.empty_like(hs_dec)
        self.steps, self.attention_weights = [], []
        for t in range(hs_dec.shape[1]):
            step = Softmax()
            a = step.forward((hs_enc * hs_dec[:, t, None, :]).sum(axis=2))
            out[:, t, :] = (hs_enc * a[:, :, None]).sum(axis=1)
            self.steps.append(step)
            self.attention_weights.append(a)
        return out

    def backward(self, dout):
        dhs_enc, dhs_dec = 0, np.empty_like(dout)
        for t, step in enumerate(self.steps):
            dc = dout[:, t, None, :]
            ds = step.backward((dc * self.hs_enc).sum(axis=2))[:, :, None]
            dhs_enc += dc * self.attention_weights[t][:, :, None] + ds * self.hs_dec[:, t, None, :]
            dhs_dec[:, t, :] = (ds * self.hs_enc).sum(axis=1)
        return dhs_enc, dhs_dec
