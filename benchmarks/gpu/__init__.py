"""Speed of training and sampling on one GPU: `python -m benchmarks.gpu`; it needs torch, numpy and safetensors alone."""
