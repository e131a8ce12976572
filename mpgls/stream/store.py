import numpy as np

RECORD_DTYPE = np.dtype([("beta", "<f8"), ("se", "<f8"), ("eaf", "<f8"), ("n", "<i4"), ("note", "<i4")])
