"""What a training process asks of the machine."""

import ctypes
import sys

import torch as th

#: of glibc's mallopt(3): keep up to so much freed memory, and take blocks of up to so much from it
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST = 2**28, 2**25


def prepare(n_threads: int = 1) -> None:
    """
    Few threads, as one is fastest for networks this small. And glibc keeps the memory of an update's tensors for the next
    update: to give it back and to get it anew, page by page, takes 5 to 10 % of a run.

    :param n_threads: of PyTorch
    """
    th.set_num_threads(n_threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # other C libraries have none
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
