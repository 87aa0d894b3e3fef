"""Networks as ONNX and torch.export graphs, and what runs them."""
