import pickle

from common.np import *


class BaseModel:
    def save_params(self, file_name=None):
        with open(file_name or f"{type(self).__name__}.pkl", "wb") as f:
            pickle.dump([p.astype(np.float16) for p in self.params], f)

    def load_params(self, file_name=None):
        with open(file_name or f"{type(self).__name__}.pkl", "rb") as f:
            for param, value in zip(self.params, pickle.load(f), strict=True):
                param[...] = value.astype("f")
