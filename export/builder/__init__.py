"""Making a bundle: graphs, ONNX, TensorRT, their parity with torch, the model card."""
