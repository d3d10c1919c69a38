"""Devices that train together: a tf.distribute strategy from --strategy, --tpu and TF_CONFIG, in a run's terms.

A process makes one strategy only: TensorFlow mixes up the collectives of two.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from deeplab_tf.config import RunConfig
from deeplab_tf.documents.json_files import parse_json
from deeplab_tf.errors import DeepLabError, first_line

_CURE_ALONE = "--strategy=one_device trains without the others"
Batches = Callable[[tuple[int, int], int], tf.data.Dataset]


class Devices:
    """The devices of a run.

    Attributes:
      strategy: TensorFlow's; None for one device.
      replicas: the number of devices that share a batch, over all machines.
      is_chief: whether this process writes checkpoints and logs.
      workers: the number of processes.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy | None = None, *, is_chief: bool = True, workers: int = 1
    ) -> None:
        self.strategy = strategy
        self.is_chief = is_chief
        self.workers = workers
        self.replicas = strategy.num_replicas_in_sync if strategy else 1

    def scope(self) -> contextlib.AbstractContextManager:
        """Returns the context in which the variables of the run have to be made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def iterate(self, batches: Batches) -> Iterator[Mapping]:
        """Returns the batches of `batches(part, pieces)`, placed on the devices.

        Args:
          batches: called with (i, n), this host's share of each batch, and the number of equal pieces that it comes in,
            one for each device here.
        """
        if not self.strategy:
            return iter(_ahead(batches((0, 1), 1)))

        def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
            here = context.num_replicas_in_sync // context.num_input_pipelines
            return batches((context.input_pipeline_id, context.num_input_pipelines), here)

        return iter(self.strategy.distribute_datasets_from_function(of_host))

    def any(self, flag: bool) -> bool:
        """Returns whether `flag` is true in any process; all processes have to call it."""
        return self._sum(float(flag)) > 0 if self.workers > 1 else flag

    def require_equal(self, value: int, meaning: str) -> None:
        """Raises DeepLabError, in every process, where `value` differs between them; all have to call it."""
        if self.any(self.workers > 1 and self._sum(float(value)) != float(value) * self.replicas):
            raise DeepLabError(f"the workers differ in {meaning} (here {value}); all must see the same --train_logdir")

    def _sum(self, value: float) -> float:
        """Returns the sum of the values of all devices."""
        if not self.strategy:
            return value
        per_replica = self.strategy.run(tf.identity, args=(tf.constant(value, tf.float64),))
        return float(self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None))


def _ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the batches, of which the next two are copied to the GPU, if there is one, while a step runs.

    Strategies do so by themselves.
    """
    gpus = tf.config.list_logical_devices("GPU")
    return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name, 2)) if gpus else batches


def _cluster() -> Mapping | None:
    """Returns TF_CONFIG where its cluster has several tasks, else None."""
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        values = parse_json(text, dict[str, Any])
        tasks = [(kind, i) for kind, hosts in values["cluster"].items() for i in range(len(hosts))]
        here = values["task"]["type"], int(values["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DeepLabError(
            f"TF_CONFIG={text!r}: expected "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    unknown = {kind for kind, _ in tasks} - {"chief", "worker"}
    if unknown:
        raise DeepLabError(f"TF_CONFIG: tasks of the type {sorted(unknown)}; expected chief and worker only")
    if here not in tasks:
        raise DeepLabError(f"TF_CONFIG: task {here[0]} {here[1]} is not in its cluster {values['cluster']}")
    return values if len(tasks) > 1 else None


def _multi_worker(cluster: Mapping) -> Devices:
    gpus = tf.config.list_physical_devices("GPU")
    carriers = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=carriers.AUTO if gpus else carriers.RING)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise DeepLabError(
            f"--strategy=multi_worker: {first_line(error)}; check the hosts and ports of TF_CONFIG"
        ) from None
    kind, index = cluster["task"]["type"], int(cluster["task"]["index"])
    is_chief = kind == "chief" or (index == 0 and "chief" not in cluster["cluster"])
    return Devices(strategy, is_chief=is_chief, workers=sum(len(hosts) for hosts in cluster["cluster"].values()))


def _tpu(address: str | None) -> Devices:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address or "")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise DeepLabError(
            f"--tpu={address or ''}: {first_line(error)}; expected a TPU's name or address, `local` on its own host"
        ) from None
    return Devices(tf.distribute.TPUStrategy(resolver))


def _split_cpu(clones: int) -> None:
    """Makes `clones` logical devices of the CPU; to be called before TensorFlow uses it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * clones)
    except RuntimeError:
        if len(tf.config.list_logical_devices("CPU")) < clones:
            raise DeepLabError(f"--num_clones={clones}: TensorFlow already runs with fewer CPU devices") from None


def _mirrored(clones: int, on_cpu: bool) -> Devices:
    """Returns the first `clones` devices; 0: all GPUs."""
    gpus = [] if on_cpu else tf.config.list_physical_devices("GPU")
    if gpus and clones > len(gpus):
        raise DeepLabError(f"--num_clones={clones}: this machine has {len(gpus)} GPUs; expected at most that many")
    count = clones or max(len(gpus), 1)
    if not gpus:
        _split_cpu(count)
    return Devices(tf.distribute.MirroredStrategy([f"{'GPU' if gpus else 'CPU'}:{i}" for i in range(count)]))


def reserve_devices(run: RunConfig) -> None:
    """Makes the logical devices of the CPU that `run` asks for, so that TensorFlow can run before `make_devices`."""
    gpus = [] if run.clone_on_cpu else tf.config.list_physical_devices("GPU")
    if run.num_clones > 1 and not gpus and run.strategy in ("auto", "mirrored"):
        _split_cpu(run.num_clones)


def make_devices(run: RunConfig) -> Devices:
    """Returns the devices that `run.strategy` names; to be called once, before TensorFlow computes anything.

    auto: the workers of TF_CONFIG, else the TPU of `run.tpu`, else `run.num_clones` devices if more than one, else all
    GPUs if there are several, else one device.

    Args:
      run: its strategy, tpu, num_clones (1 leaves their number to the strategy; mirrored: all GPUs) and clone_on_cpu
        (the clones are logical devices of the CPU, as they are where there is no GPU).

    Raises:
      DeepLabError: the devices or the TPU do not exist, or TF_CONFIG is missing, malformed or contradicts the strategy.
    """
    name, cluster = run.strategy, _cluster()
    if name == "auto":
        several = run.num_clones > 1 or len(tf.config.list_physical_devices("GPU")) > 1
        name = "multi_worker" if cluster else "tpu" if run.tpu else "mirrored" if several else "one_device"
    elif cluster and name != "multi_worker":
        raise DeepLabError(f"--strategy={name}: TF_CONFIG names several workers; unset it or use multi_worker")
    if name == "multi_worker":
        if not cluster:
            raise DeepLabError(f"--strategy=multi_worker: TF_CONFIG names no other workers; set it, or {_CURE_ALONE}")
        return _multi_worker(cluster)
    if name == "tpu":
        return _tpu(run.tpu)
    if name == "mirrored":
        return _mirrored(run.num_clones if run.num_clones > 1 else 0, run.clone_on_cpu)
    return Devices()
