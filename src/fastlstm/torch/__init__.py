"""PyTorch modules and losses on the kernels of `fastlstm.ops`.

`LSTM`, `GRU` and `RNN` are torch.nn's, with the same parameters and results; `replace` makes those of a finished model
ours. Importing this sets ``torch._dynamo.config.allow_rnn``, because torch.compile refuses every instance of torch.nn's
recurrent modules otherwise, also of subclasses.
"""

import torch._dynamo

from fastlstm.torch.losses import linear_cross_entropy, nce_loss, sampled_softmax_loss
from fastlstm.torch.modules import GRU, LSTM, RNN, replace
from fastlstm.torch.threads import share_threads

__all__ = ["GRU", "LSTM", "RNN", "linear_cross_entropy", "nce_loss", "replace", "sampled_softmax_loss"]

torch._dynamo.config.allow_rnn = True
share_threads()
