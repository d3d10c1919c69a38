"""The operations of a training step's graph, with those of the functions that it calls."""

from collections.abc import Iterator

import tensorflow as tf

from deeplab_tf.training.step import TrainStep


def _functions(graph) -> dict:
    """Returns name -> graph of the functions that a graph knows, and that these know."""
    found = {}
    for name, function in graph._functions.items():
        found[name] = function.graph
        found |= _functions(function.graph)
    return found


def operations_of(graph) -> Iterator[tf.Operation]:
    """Yields the operations of `graph` and of the functions that it calls, which have to be there."""
    known = _functions(graph)
    seen = set()
    waiting = [graph]
    while waiting:
        for op in waiting.pop().get_operations():
            yield op
            names = set()
            for attribute in op.node_def.attr.values():
                names |= {function.name for function in (attribute.func, *attribute.list.func) if function.name}
            waiting += [known[name] for name in names - seen]
            seen |= names


def traced_operations(step: TrainStep, images, labels) -> list[tf.Operation]:
    """Returns all operations of one update of a step."""
    graph = step.compiled.get_concrete_function(tf.constant(images), tf.constant(labels)).graph
    return list(operations_of(graph))
