"""Small ONNX models for the tests of lanes and loaders, made in memory."""

import onnx
from onnx import helper, numpy_helper


def model(nodes, inputs, outputs, initializers=()):
    """A serialised model; inputs and outputs as ``name: (elem_type, shape)``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in initializers],
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(made)
    return made.SerializeToString()
