import os

import numpy as np

char_to_id, id_to_char = {}, {}


def load_data(file_name="addition.txt", seed=1984):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), file_name)
    with open(path) as f:
        lines = f.read().splitlines()
    for line in lines:
        for char in line:
            if char not in char_to_id:
                id_to_char[len(char_to_id)] = char
                char_to_id[char] = len(char_to_id)
    start = lines[0].index("_")
    x = np.array([[char_to_id[c] for c in line[:start]] for line in lines])
    t = np.array([[char_to_id[c] for c in line[start:]] for line in lines])
    order = np.arange(len(x))
    if seed is not None:
        np.random.seed(seed)
    np.random.shuffle(order)
    x, t = x[order], t[order]
    split = len(x) - len(x) // 10
    return (x[:split], t[:split]), (x[split:], t[split:])


def get_vocab():
    return char_to_id, id_to_char
