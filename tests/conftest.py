"""What every test shares: one torch thread, because tiny tensors on several threads mostly wait for each other."""

import torch

torch.set_num_threads(1)
