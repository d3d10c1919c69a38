"""TensorFlow's layout optimizer as on a machine with a GPU, which is only described to it: none is needed."""

from tensorflow.core.protobuf import config_pb2, device_properties_pb2
from tensorflow.python.framework import meta_graph
from tensorflow.python.grappler import cluster, tf_optimizer

_TASK = "/job:localhost/replica:0/task:0/device"


def _machine() -> cluster.Cluster:
    gpu = device_properties_pb2.DeviceProperties(
        type="GPU", frequency=1500, num_cores=132, memory_size=10**11, environment={"architecture": "9.0"}
    )
    cpu = device_properties_pb2.DeviceProperties(type="CPU", frequency=1500, num_cores=2, memory_size=10**11)
    devices = {f"{_TASK}:GPU:0": gpu, f"{_TASK}:CPU:0": cpu}
    return cluster.Cluster(
        devices=[device_properties_pb2.NamedDevice(name=name, properties=kind) for name, kind in devices.items()]
    )


def laid_out(graph) -> list[bytes]:
    """Returns the data format of each convolution of a function's graph after the layout optimizer.

    Raises what the optimizer meets; in a program it would log that, and leave the whole graph as it is.
    """
    nodes = graph.as_graph_def()
    for node in nodes.node:
        node.device = f"{_TASK}:GPU:0"
    described = meta_graph.create_meta_graph_def(graph_def=nodes)
    results = [output.name for output in graph.outputs]
    results += [op.name for op in graph.get_operations() if op.type.startswith(("ResourceApply", "Assign"))]
    described.collection_def["train_op"].node_list.value.extend(results)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1
    options.fail_on_optimizer_errors = True
    options.optimizers.append("layout")
    optimized = tf_optimizer.OptimizeGraph(config, described, cluster=_machine())
    return [node.attr["data_format"].s for node in optimized.node if node.op.startswith(("Conv2D", "DepthwiseConv2d"))]
