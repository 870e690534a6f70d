from benchmarks.textbook import sigmoid, softmax  # noqa: F401
