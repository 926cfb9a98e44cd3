"""The Open Inference Protocol v2 over REST, with binary tensors: what clients of Triton and KServe speak."""
