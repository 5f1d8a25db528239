"""The backward sweep: from ∂L/∂y of the results to ∂L/∂x of what they were made of.

With y = f(x) and L a scalar, the chain rule read from the outside in is

    ∂L/∂x = (∂y/∂x)ᵀ ∂L/∂y,        summed over every f that x went into,

so each recorded step is visited once, after all the steps that used its result, and hands the product of its
transposed Jacobian with the gradient it received (its vjp) to its arguments. Steps carry the number of their
recording; taking them from the highest down is a reverse topological order.

Source: Linnainmaa 1970; Griewank & Walther, *Evaluating Derivatives* (2008), ch. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from tinygen import anomaly
from tinygen.anomaly import watching
from tinygen.backend import DeviceError, array_module, capture
from tinygen.kernels.arrays import owns_memory
from tinygen.pieces import Piece, Pieces
from tinygen.ranks import together
from tinygen.recording import enable_grad, no_grad, recording
from tinygen.tensor import Node, Tensor, wrap, wrap_recorded

Target = Node | Tensor  # what receives a gradient: a recorded step, or a leaf


def backward(
    tensor: Tensor,
    gradient: Any = None,
    retain_graph: bool = False,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add ∂(tensor)/∂x to ``x.grad`` of every leaf x that the tensor was made of.

    Args:
        tensor: the result to differentiate; one number, unless ``gradient`` is given.
        gradient: g = ∂L/∂tensor, of the tensor's shape and dtype; 1 where omitted.
        retain_graph: keep the graph, so that it can be swept again.
        create_graph: refused: ``x.grad`` would hold the graph that holds x, a cycle that is never freed.
            :func:`tinygen.grad` has it.
        inputs: only add to these leaves.

    Raises:
        RuntimeError: inputs is empty; the tensor does not require grad; it has more numbers than one and no
            gradient is given; its graph was freed by an earlier sweep; or a tensor in it was written to since.
        DeviceError: the gradient lives on another device.
        NotImplementedError: create_graph.

    Source: ``torch.Tensor.backward``.
    """
    if create_graph:
        raise NotImplementedError(
            "backward(create_graph=True) would make x.grad hold the graph that holds x; "
            "use tg.grad(outputs, inputs, create_graph=True), which returns the gradients"
        )
    wanted = None
    if inputs is not None:
        wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if not wanted:
            raise RuntimeError("backward: inputs is empty; leave it out to reach every leaf")
        for i, leaf in enumerate(wanted):
            if leaf._node is not None or not leaf._tracked:
                raise RuntimeError(f"backward: inputs[{i}] is not a leaf that requires grad")
    found, shared = _sweep([(tensor, _seed(tensor, gradient, "backward"))], wanted, retain_graph, False)
    if (ranks := together.get()) is not None:
        mean = ranks.mean_gradients({leaf: g.data for leaf, g in found.items()})
        found = {leaf: wrap(g) for leaf, g in mean.items()}
    recorder = capture.get()
    for leaf, g in found.items():
        assert isinstance(leaf, Tensor)
        if leaf.grad is not None:
            if recorder is not None:
                recorder.check_gradient(leaf.grad.data)
            leaf.grad = wrap(leaf.grad.data + g.data)
        else:
            leaf.grad = wrap(g.data.copy(order="K")) if leaf in shared else g
        if recorder is not None:
            recorder.gradients.add(id(leaf.grad.data))


Tensor.backward = backward  # type: ignore[attr-defined]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients Σ_k ⟨g_k, ∂outputs_k/∂inputs_i⟩, without touching any ``.grad``.

    Args:
        outputs: the tensors to differentiate.
        inputs: the tensors with respect to which, leaves or not.
        grad_outputs: g_k for each output; 1 for outputs of one number where omitted.
        retain_graph: keep the graph for another sweep; as ``create_graph`` where omitted.
        create_graph: record the sweep, so that the gradients can be differentiated again.
        allow_unused: return None for an input that the outputs do not depend on, instead of raising.

    Returns:
        One gradient for each input, of its shape and dtype; no two share memory.

    Raises:
        RuntimeError: there are no inputs, one of them or an output does not require grad, an input was not used, or
            as in ``backward``.
        ValueError: the number of grad_outputs differs from the number of outputs.

    Source: ``torch.autograd.grad``.
    """
    results = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None:
        given = [None] * len(results)
    else:
        given = list(grad_outputs) if isinstance(grad_outputs, (list, tuple)) else [grad_outputs]
    if not wanted:
        raise RuntimeError("grad: inputs is empty")
    if len(given) != len(results):
        raise ValueError(f"grad: {len(results)} outputs, but {len(given)} grad_outputs")
    for i, x in enumerate(wanted):
        if not x._tracked:
            raise RuntimeError(f"grad: inputs[{i}], of shape {x.shape}, does not require grad")
    seeds = [(y, _seed(y, g, f"grad: outputs[{i}]")) for i, (y, g) in enumerate(zip(results, given, strict=True))]
    retain = create_graph if retain_graph is None else retain_graph
    found, shared = _sweep(seeds, wanted, retain, create_graph)
    answer: list[Tensor | None] = []
    with enable_grad() if create_graph else no_grad():
        for i, x in enumerate(wanted):
            target = x._node or x
            g = found.get(target)
            if g is None and not allow_unused:
                raise RuntimeError(
                    f"grad: inputs[{i}], of shape {x.shape}, was not used to compute the outputs; "
                    "pass allow_unused=True to get None for it"
                )
            answer.append(g.clone() if g is not None and target in shared else g)
            shared.add(target)  # the same input may be asked for twice
    return tuple(answer)


def _seed(tensor: Tensor, g: Any, who: str) -> Tensor:
    """The gradient that a sweep starts from, checked."""
    if not tensor._tracked:
        raise RuntimeError(
            f"{who}: this tensor of shape {tensor.shape} does not require grad: nothing it was made of has "
            "requires_grad=True, or it was made under no_grad"
        )
    if g is None:
        if tensor.data.size != 1:
            raise RuntimeError(
                f"{who}: a tensor of shape {tensor.shape} is not one number; reduce it, for example with "
                ".sum(), or pass the gradient ∂L/∂(this tensor)"
            )
        return wrap(array_module(tensor.data).ones(tensor.data.shape, tensor.data.dtype))
    g = g if isinstance(g, Tensor) else wrap(array_module(tensor.data).asarray(g, dtype=tensor.dtype))
    if g.shape != tensor.shape or g.dtype != tensor.dtype:
        raise RuntimeError(
            f"{who}: the gradient has shape {g.shape} and dtype {g.dtype}, the tensor shape {tensor.shape} "
            f"and dtype {tensor.dtype}; they must agree"
        )
    if g.device != tensor.device:
        raise DeviceError(f"{who}: the gradient lives on {g.device}, the tensor on {tensor.device}")
    return g


def _sweep(
    seeds: list[tuple[Tensor, Tensor]], wanted: list[Tensor] | None, retain: bool, create: bool
) -> tuple[dict[Target, Tensor], set[Target]]:
    """The gradients of the wanted targets (of every leaf, where wanted is None), and which share their memory."""
    keep: set[Target] | None = None
    useful: set[Target] | None = None
    if wanted is not None:
        keep = {x._node or x for x in wanted}
        useful = _useful([y for y, _ in seeds], keep)
    token = recording.set(create)
    try:
        return _run(seeds, keep, useful, retain, create)
    finally:
        recording.reset(token)


def _useful(outputs: list[Tensor], keep: set[Target]) -> set[Target]:
    """Every target from which one that is to be kept can be reached: the only ones worth visiting."""
    nodes: set[Node] = set()
    stack = [y._node for y in outputs if y._node is not None]
    while stack:
        node = stack.pop()
        if node not in nodes:
            nodes.add(node)
            stack.extend(target for target in _edges(node) if type(target) is Node)
    useful: set[Target] = set(keep)
    for node in sorted(nodes, key=lambda node: node.number):
        if any(target in useful for target in _edges(node)):
            useful.add(node)
    return useful


def _edges(node: Node) -> list[Target]:
    if node.edges is None:
        raise RuntimeError(
            f"the graph behind {node!r} was freed by an earlier backward sweep; "
            "pass retain_graph=True to the first one to sweep it twice"
        )
    return node.edges


def _run(
    seeds: list[tuple[Tensor, Tensor]],
    keep: set[Target] | None,
    useful: set[Target] | None,
    retain: bool,
    create: bool,
) -> tuple[dict[Target, Tensor], set[Target]]:
    pending: dict[Target, Any] = {}  # gradients received so far, a Tensor or Pieces each
    summed: set[Target] = set()  # whose pending gradient is a sum made here, which may be added to in place
    shared: set[Target] = set()  # whose pending gradient is a view, or an array that another tensor holds too
    heap: list[tuple[int, Node]] = []
    found: dict[Target, Tensor] = {}

    def collect(target: Target, piece: Piece) -> bool:
        """Whether the piece is put beside other pieces, or is the first gradient that comes."""
        if target not in pending:
            if type(target) is Node:
                heappush(heap, (-target.number, target))
            pending[target] = Pieces([piece])
        elif type(pending[target]) is Pieces:
            pending[target].append(piece)
        else:
            return False
        return True

    def deliver(target: Target, g: Tensor, fresh: bool) -> None:
        if target not in pending:
            if type(target) is Node:
                heappush(heap, (-target.number, target))
            if not fresh:
                shared.add(target)
            pending[target] = g
        elif target in summed:
            pending[target].data += g.data
        else:
            pending[target] = _whole(pending[target]) + g
            shared.discard(target)
            if not create:
                summed.add(target)

    for tensor, g in seeds:
        deliver(tensor._node or tensor, g, False)
    while heap:
        node = heappop(heap)[1]
        g = pending.pop(node)
        if type(g) is Pieces:
            g = g.whole()
        if keep is not None and node in keep:
            found[node] = g
            shared.add(node)  # its own vjp may hand the same array on
        if useful is not None and not any(target in useful for target in _edges(node)):
            continue  # an input of grad() may have a graph of its own, which is not swept and stays
        edges, saved = _edges(node), node.saved
        if saved:
            saved = _unpack(node)
        incoming = g.data
        for (rule, picks), target in zip(node.rules, edges):
            if useful is None or target in useful:
                if watching:
                    result = _watched(node, rule, g, saved, picks)
                else:
                    result = rule(g, *[saved[pick] for pick in picks])
                leaf = type(target) is not Node
                form = target
                if leaf:
                    form = target.data  # type: ignore[union-attr]
                    if target._written > node.number:  # type: ignore[union-attr]
                        _complain_written(node, target)
                if type(result) is Piece:
                    if result.shape == form.shape and result.g.data.dtype is form.dtype and collect(target, result):
                        continue
                    result = Pieces([result]).whole()
                if type(result) is not Tensor or result.data.shape != form.shape or result.data.dtype is not form.dtype:
                    result = _checked(result, target, node)
                fresh = True
                if leaf:
                    array = result.data
                    fresh = owns_memory(array) and array is not incoming and not _holds(saved, array)
                deliver(target, result, fresh)
        if not retain:
            node.edges, node.saved = None, {}
        del edges, saved, g, incoming
    for target, g in pending.items():
        if keep is None or target in keep:
            found[target] = _whole(g)
    return found, shared


def _whole(g: Any) -> Tensor:
    return g.whole() if type(g) is Pieces else g


def _watched(node: Node, rule: Any, g: Tensor, saved: dict[int, Any], picks: tuple[int, ...]) -> Any:
    """What the vjp returns, looked at; an error in it is told with the line that made the step."""
    token = anomaly.within(node)
    try:
        result = rule(g, *[saved[pick] for pick in picks])
    except Exception as error:
        if token is not None:
            error.add_note("\n".join([f"in the derivative of {node.op.name}", *anomaly.called(node)]))
        raise
    finally:
        anomaly.leave(token)
    if type(result) is Piece:
        result = Pieces([result]).whole()
    anomaly.check_gradient(node, rule, g, saved, result)
    return result


def _unpack(node: Node) -> dict[int, Any]:
    """What the node saved: its result as a Tensor again, and everything else seen not to have changed."""
    saved = node.saved
    result = len(node.op.arguments)
    if result in saved:
        saved = dict(saved)
        saved[result] = wrap_recorded(saved[result], node)
    for value in saved.values():
        if isinstance(value, Tensor):
            if value._written > node.number:
                _complain_written(node, value)
        elif type(value) is list:
            for part in value:
                if isinstance(part, Tensor) and part._written > node.number:
                    _complain_written(node, part)
    return saved


def _complain_written(node: Node, value: Any) -> None:
    raise RuntimeError(
        f"backward through {node!r}: a tensor of shape {value.shape} that it used was written to in place since "
        "(an optimiser step, x[i] = v, copy_ or load_state_dict), so its derivative would be wrong; "
        "run backward before the write, or compute the result again after it"
    )


def _holds(saved: dict[int, Any], array: Any) -> bool:
    """Whether the array is one of those that were saved."""
    for value in saved.values():
        if isinstance(value, Tensor):
            if value.data is array:
                return True
        elif type(value) in (list, tuple):
            if any(part is array or (isinstance(part, Tensor) and part.data is array) for part in value):
                return True
        elif value is array:
            return True
    return False


def _checked(g: Any, target: Target, node: Node) -> Tensor:
    """g in the shape and dtype of its target; where the op broadcasts, brought to them."""
    if not isinstance(g, Tensor):
        raise TypeError(
            f"a vjp of {node.op.name} returned {type(g).__name__}; it must return a Tensor, computed by ops"
        )
    shape, dtype = target.shape, target.dtype
    if node.op.broadcast:
        if g.data.shape != shape:
            g = g.sum_to_size(shape)
        if g.data.dtype != dtype:
            g = g.to(dtype)
    if g.data.shape != shape or g.data.dtype != dtype:
        raise RuntimeError(
            f"a vjp of {node.op.name} returned a gradient of shape {g.shape} and dtype {g.dtype} for an argument "
            f"of shape {tuple(shape)} and dtype {dtype}{_unsummed(g.shape, tuple(shape))}"
        )
    return g


def _unsummed(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What to do about a gradient that has the shape to which its argument was broadcast."""
    lead = len(found) - len(wanted)
    if found == wanted or lead < 0 or any(n not in (1, m) for n, m in zip(wanted, found[lead:], strict=True)):
        return ""
    return (
        "; the argument was broadcast, so its gradient is a sum over the repetitions (unbroadcast): declare the op "
        "with @op(broadcast=True), or return g.sum_to_size(ARGUMENT_shape)"
    )
