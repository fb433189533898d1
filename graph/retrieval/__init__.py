"""The library: documents in, the passages that answer a question out."""

import os

# Before numpy loads OpenBLAS: its threads would fight the encoder's for the cores, and reranking takes twice as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
