"""Embedders as one graph, from pixels to vector, that ONNX Runtime runs."""
