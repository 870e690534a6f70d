from common.config import GPU  # noqa: F401

import numpy as np  # noqa: F401, I001
