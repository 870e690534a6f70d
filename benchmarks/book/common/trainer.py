from common.np import *
from common.util import clip_grads


class Trainer:
    def __init__(self, model, optimizer):
        self.model, self.optimizer, self.current_epoch = model, optimizer, 0

    def fit(self, x, t, max_epoch=10, batch_size=32, max_grad=None, eval_interval=20):
        max_iters = len(x) // batch_size
        losses = []
        for _ in range(max_epoch):
            order = np.random.permutation(np.arange(len(x)))
            x, t = x[order], t[order]
            for iters in range(max_iters):
                rows = slice(iters * batch_size, (iters + 1) * batch_size)
                losses.append(step(self.model, self.optimizer, x[rows], t[rows], max_grad))
                if iters % eval_interval == 0:
                    report(self.current_epoch, iters, max_iters, f"loss {np.mean(losses):.2f}")
                    losses = []
            self.current_epoch += 1


class RnnlmTrainer:
    def __init__(self, model, optimizer):
        self.model, self.optimizer, self.current_epoch = model, optimizer, 0

    def get_batch(self, x, t, batch_size, time_size):
        batch_x = np.empty((batch_size, time_size), dtype="i")
        batch_t = np.empty((batch_size, time_size), dtype="i")
        jump = len(x) // batch_size
        for step in range(time_size):
            for i in range(batch_size):
                place = (i * jump + self.time_idx) % len(x)
                batch_x[i, step], batch_t[i, step] = x[place], t[place]
            self.time_idx += 1
        return batch_x, batch_t

    def fit(self, xs, ts, max_epoch=10, batch_size=20, time_size=35, max_grad=None, eval_interval=20):
        max_iters = len(xs) // (batch_size * time_size)
        self.time_idx = 0
        losses = []
        for _ in range(max_epoch):
            for iters in range(max_iters):
                batch = self.get_batch(xs, ts, batch_size, time_size)
                losses.append(step(self.model, self.optimizer, *batch, max_grad))
                if iters % eval_interval == 0:
                    report(self.current_epoch, iters, max_iters, f"perplexity {np.exp(np.mean(losses)):.2f}")
                    losses = []
            self.current_epoch += 1


def step(model, optimizer, x, t, max_grad):
    loss = model.forward(x, t)
    model.backward()
    params, grads = remove_duplicate(model.params, model.grads)
    if max_grad is not None:
        clip_grads(grads, max_grad)
    optimizer.update(params, grads)
    return loss


def report(epoch, iters, max_iters, result):
    print(f"| epoch {epoch + 1} |  iter {iters + 1} / {max_iters} | time 0[s] | {result}")


def remove_duplicate(params, grads):
    params, grads = list(params), list(grads)
    i = 0
    while i < len(params):
        j = i + 1
        while j < len(params):
            same = params[i] is params[j]
            tied = params[i].ndim == 2 and params[i].T.shape == params[j].shape and np.all(params[j] == params[i].T)
            if same or tied:
                grads[i] += grads[j] if same else grads[j].T
                del params[j], grads[j]
            else:
                j += 1
        i += 1
    return params, grads
