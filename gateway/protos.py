"""The protocol's protobuf messages, from ``protos/*.proto``, in a descriptor pool of their own.

Clients of the protocol (``tritonclient``, ``kserve``) register the same symbols in protobuf's
default pool, which takes each symbol once. Nothing here touches that pool, so the gateway can
be imported beside any one of them.

The hot messages are read by ``_native/oip_decode.pyx`` and written by ``_native/oip_encode.pyx``;
everything else uses the classes that ``message`` gives.
"""

from importlib.resources import files
from typing import Any, Final

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.errors import StartupError

PACKAGE: Final = "inference"

#: Full name of the Open Inference Protocol's gRPC service.
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"

STREAM_PACKAGE: Final = "onnx_gateway.v1"

#: Full name of the gRPC service by which monitors attach to a running gateway.
STREAM_SERVICE: Final = f"{STREAM_PACKAGE}.PredictionStream"


def _read_files() -> tuple[descriptor_pb2.FileDescriptorProto, ...]:
    try:
        data = files("gateway").joinpath("protos.binpb").read_bytes()
    except FileNotFoundError:
        raise StartupError(
            "gateway/protos.binpb, which the build makes from protos/*.proto, is missing: "
            "install the package with `pip install .`, or in a source tree run "
            "`python setup.py build_ext --inplace`"
        ) from None
    return tuple(descriptor_pb2.FileDescriptorSet.FromString(data).file)


def _fill_pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FILES:
        pool.Add(file)
    return pool


#: The files of ``protos/``, each after those that it imports.
FILES: Final = _read_files()

#: The pool of these messages and no others. Treat it as read-only.
POOL: Final = _fill_pool()


def message(name: str) -> Any:
    """The class of a message of the protocol, e.g. ``message("ModelConfig")``.

    ``name`` is relative to the package, a nested message's too:
    ``"ModelInferRequest.InferInputTensor"``.
    Raises ``KeyError`` for a name that the protocol does not have.
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def stream_message(name: str) -> Any:
    """The class of a message of the prediction stream, e.g. ``"SubscribeRequest"``.

    Raises ``KeyError`` for a name that it does not have.
    """
    found = POOL.FindMessageTypeByName(f"{STREAM_PACKAGE}.{name}")
    return message_factory.GetMessageClass(found)
