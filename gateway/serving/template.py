"""From a request to what all requests with its head have in common."""

from gateway._native.infer_template import MOST_TENSORS, InferTemplate
from gateway._native.ticket import Ticket
from gateway.serving.lane import Lane
from gateway.serving.registry import ModelVersion
from gateway.types import BYTES, MAX_TIMEOUT_US, InferRequest

__all__ = ("InferTemplate", "Ticket", "make_template")

#: Request parameters whose whole meaning a template can hold.
_UNDERSTOOD = frozenset(("priority", "timeout"))


def make_template(target: ModelVersion, lane: Lane, request: InferRequest) -> InferTemplate | None:
    """The template of ``request``, which ``lane`` of ``target`` has accepted.

    ``None`` where requests with the same head may differ in more than their id and the bytes of
    their tensors: strings, values that decide what a request is batched with, parameters that
    mean something to others, outputs as classes, slices.
    """
    signature = lane.loaded.signature
    specs = signature.outputs
    if request.outputs is None:
        chosen = list(range(len(specs)))
    elif any(output.class_count for output in request.outputs):
        return None
    else:
        chosen = [lane.output_index[output.name] for output in request.outputs]
    if (
        not request.parameters.keys() <= _UNDERSTOOD
        or max(len(request.inputs), len(signature.inputs), len(chosen)) > MOST_TENSORS
        or any(specs[index].datatype is BYTES for index in chosen)
    ):
        return None
    plan = lane.binder.plan(request.inputs)
    if plan is None or plan.rows > lane.max_rows:
        return None
    timeout_us = request.parameters.get("timeout", 0)
    assert isinstance(timeout_us, int), "the front has proven it"
    return InferTemplate(
        target,
        lane,
        plan.group,
        plan.rows,
        lane.level_of(request),
        min(timeout_us, MAX_TIMEOUT_US) * 1000,
        lane.default_timeout_ns,
        model=lane.loaded.name,
        version=lane.loaded.version,
        sizes=plan.sizes,
        raw_of_input=plan.places,
        outputs=[(index, specs[index].name, specs[index].datatype.name) for index in chosen],
    )
