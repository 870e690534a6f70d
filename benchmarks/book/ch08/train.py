import sys

sys.path.append("..")
from ch07.seq2seq import Decoder, Encoder, Seq2seq
from ch08.attention_layer import TimeAttention
from common.np import *
from common.optimizer import Adam
from common.time_layers import *
from common.trainer import Trainer
from common.util import eval_seq2seq
from dataset import sequence


class AttentionEncoder(Encoder):
    def forward(self, xs):
        return self.lstm.forward(self.embed.forward(xs))

    def backward(self, dhs):
        self.embed.backward(self.lstm.backward(dhs))


class AttentionDecoder(Decoder):
    def __init__(self, V, D, H):
        super().__init__(V, D, H)
        self.attention = TimeAttention()
        W = (np.random.randn(2 * H, V) / np.sqrt(2 * H)).astype("f")
        self.affine = TimeAffine(W, np.zeros(V).astype("f"))
        layers = self.embed, self.lstm, self.affine
        self.params = [param for layer in layers for param in layer.params]
        self.grads = [grad for layer in layers for grad in layer.grads]

    def score(self, xs, hs_enc):
        hs = self.lstm.forward(self.embed.forward(xs))
        return self.affine.forward(np.concatenate((self.attention.forward(hs_enc, hs), hs), axis=2))

    def forward(self, xs, hs_enc):
        self.lstm.set_state(hs_enc[:, -1])
        return self.score(xs, hs_enc)

    def backward(self, dscore):
        dout = self.affine.backward(dscore)
        H = dout.shape[2] // 2
        dhs_enc, dhs = self.attention.backward(dout[:, :, :H])
        self.embed.backward(self.lstm.backward(dhs + dout[:, :, H:]))
        dhs_enc[:, -1] += self.lstm.dh
        return dhs_enc

    def generate(self, hs_enc, start_id, sample_size):
        sampled = []
        self.lstm.set_state(hs_enc[:, -1])
        for _ in range(sample_size):
            x = np.array([start_id if not sampled else sampled[-1]]).reshape(1, 1)
            sampled.append(np.argmax(self.score(x, hs_enc).flatten()))
        return sampled


class AttentionSeq2seq(Seq2seq):
    def __init__(self, V, D, H):
        super().__init__(V, D, H)
        self.encoder, self.decoder = AttentionEncoder(V, D, H), AttentionDecoder(V, D, H)
        self.params = self.encoder.params + self.decoder.params
        self.grads = self.encoder.grads + self.decoder.grads


small = "small" in sys.argv
(x_train, t_train), (x_test, t_test) = sequence.load_data("date.txt")
x_train, x_test = x_train[:, ::-1], x_test[:, ::-1]
char_to_id, id_to_char = sequence.get_vocab()
model = AttentionSeq2seq(len(char_to_id), 16, 32 if small else 256)
Trainer(model, Adam()).fit(x_train, t_train, max_epoch=1 if small else 3, batch_size=128, max_grad=5.0, eval_interval=2)
right = 0
for i in range(len(x_test)):
    right += eval_seq2seq(model, x_test[[i]], t_test[[i]], id_to_char, i < 3, is_reverse=True)
print(f"val acc {100 * right / len(x_test):.3f}%")
