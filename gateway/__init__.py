"""onnx-gateway: a high-throughput gateway that serves ONNX models.

``docs/architecture.md`` tells how the packages below fit together.
"""

__version__ = "0.1.0"
