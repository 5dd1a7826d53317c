"""What tests on a GPU share."""

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
GPU = torch.device("cuda", 0)
