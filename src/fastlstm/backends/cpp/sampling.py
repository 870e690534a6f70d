"""Sampled classes and the losses over them: the numpy definition serves, there are no C++ kernels for them yet."""

from fastlstm.backends.numpy.sampling import (
    alias_table,
    log_uniform_candidates,
    log_uniform_expected_count,
    sampled_logits_backward,
    sampled_logits_forward,
    sampled_loss,
    unigram_candidates,
)

__all__ = [
    "alias_table",
    "log_uniform_candidates",
    "log_uniform_expected_count",
    "sampled_logits_backward",
    "sampled_logits_forward",
    "sampled_loss",
    "unigram_candidates",
]
