import sys

from common.np import *

from benchmarks.textbook import clip_grads  # noqa: F401


def only_here():
    return "the user's own"


def create_contexts_target(corpus, window_size=1):
    contexts = []
    for middle in range(window_size, len(corpus) - window_size):
        around = range(middle - window_size, middle + window_size + 1)
        contexts.append([corpus[k] for k in around if k != middle])
    return np.array(contexts), corpus[window_size:-window_size]


def eval_perplexity(model, corpus, batch_size=10, time_size=35):
    print("evaluating perplexity ...")
    jump = (len(corpus) - 1) // batch_size
    max_iters = (len(corpus) - 1) // (batch_size * time_size)
    total = 0
    for iters in range(max_iters):
        xs = np.zeros((batch_size, time_size), dtype=np.int32)
        ts = np.zeros((batch_size, time_size), dtype=np.int32)
        for t in range(time_size):
            for i in range(batch_size):
                place = i * jump + iters * time_size + t
                xs[i, t] = corpus[place % len(corpus)]
                ts[i, t] = corpus[(place + 1) % len(corpus)]
        try:
            total += model.forward(xs, ts, train_flg=False)
        except TypeError:
            total += model.forward(xs, ts)
        sys.stdout.write(f"\r{iters} / {max_iters}")
    print()
    return np.exp(total / max_iters)


def eval_seq2seq(model, question, correct, id_to_char, verbos=False, is_reverse=False):
    correct = correct.flatten()
    guess = model.generate(question, correct[0], len(correct) - 1)
    text = "".join(id_to_char[int(c)] for c in question.flatten())
    wanted = "".join(id_to_char[int(c)] for c in correct[1:])
    guessed = "".join(id_to_char[int(c)] for c in guess)
    if verbos:
        print("Q", text[::-1] if is_reverse else text)
        print("T", wanted)
        print("\033[92m☑\033[0m" if wanted == guessed else "\033[91m☒\033[0m", guessed)
        print("---")
    return 1 if wanted == guessed else 0
