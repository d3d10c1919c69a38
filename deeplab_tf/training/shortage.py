"""The error of a training run whose memory does not suffice, with the numbers to try."""

import contextlib
from collections.abc import Iterator

from deeplab_tf.config import DataConfig, ModelConfig, TrainConfig
from deeplab_tf.errors import ShortageError, is_out_of_memory, what_was_asked
from deeplab_tf.network.precision import bfloat16_of
from deeplab_tf.network.sizes import halved
from deeplab_tf.training.precision import Hardware
from deeplab_tf.training.session import Session


def _in_more_parts(train: TrainConfig, own: int) -> str | None:
    """Returns the flag that runs the `own` images of a device in at least twice as many parts."""
    parts = next((n for n in range(2 * train.gradient_accumulation_steps, own + 1) if own % n == 0), None)
    if parts is None:
        return None
    learns = train.fine_tune_batch_norm and not train.freeze_batch_norm
    each = own // parts
    what = f"batch norm then sees {each} at a time" if learns else f"the same update, {each} at a time"
    return f"--gradient_accumulation_steps={parts} ({what})"


def _with_fewer(train: TrainConfig, data: DataConfig, replicas: int) -> str | None:
    """Returns the flags of about half the batch, and of the rate for it."""
    unit = replicas * train.gradient_accumulation_steps
    fewer = max(data.batch_size // 2 // unit, 1) * unit
    if fewer >= data.batch_size or (data.cut_mix and fewer == 1):
        return None
    rate = train.base_learning_rate * fewer / data.batch_size
    constant = train.optimizer == "adam" and train.adam_learning_rate
    return f"--train_batch_size={fewer}" + ("" if constant else f" with --base_learning_rate={rate:.3g}")


def cures(
    train: TrainConfig, data: DataConfig, model: ModelConfig, hardware: Hardware, replicas: int
) -> tuple[str, ...]:
    """Returns what an update needs less memory with, as flags with their numbers, the mildest first.

    Args:
      train: the options of the update.
      data: those of its batch, over all devices, and of its crop.
      model: the network.
      hardware: the devices.
      replicas: their number over all machines.
    """
    tried = [_in_more_parts(train, data.batch_size // replicas), _with_fewer(train, data, replicas)]
    smaller = halved(data.crop_size, max(model.output_stride, 16)) if data.crop_size else None
    if smaller and smaller != data.crop_size:
        tried.append(f"--train_crop_size={smaller[0]},{smaller[1]}")
    if train.mixed_precision == "none" and not model.quantized and bfloat16_of(hardware.kind, hardware.gpus)[0]:
        tried.append("in another folder --mixed_precision=bfloat16")
    return tuple(cure for cure in tried if cure) or ("a machine with more memory", "a smaller --model_variant")


@contextlib.contextmanager
def named_shortage(run: Session) -> Iterator[None]:
    """Turns the error by which an update, or a score, tells that the memory does not suffice into a ShortageError.

    It names the last checkpoint, which is intact.
    """
    latest = run.directory.latest
    try:
        yield
    except ShortageError as error:  # of the scores, with numbers of their own
        raise ShortageError(f"{error}; {latest()} is intact") from None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        crop, count = run.data.crop_size or (0, 0), run.data.batch_size
        tried = cures(run.train, run.data, run.config, run.hardware, run.devices.replicas)
        begun = latest()
        again = f"; {begun} is intact, and --allow_change with the option's name goes on from it" if begun else ""
        raise ShortageError(
            f"not enough memory for updates of {count} images of {crop[0]} x {crop[1]} on {run.hardware.described()} "
            f"({what_was_asked(error)}): try {', or '.join(tried)}{again}"
        ) from None
