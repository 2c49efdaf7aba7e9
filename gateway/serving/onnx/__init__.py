"""Everything that speaks to ONNX and ONNX Runtime."""
