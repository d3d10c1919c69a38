"""Where a run goes on: the newest of its checkpoints that is whole."""

from collections.abc import Callable, Mapping

from deeplab_tf.config.run import Resume
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.training.progress import TrainingObserver
from deeplab_tf.weights.run_directory import RunDirectory


def restore_newest(
    directory: RunDirectory, rule: Resume, restore: Callable[[str], None], observer: TrainingObserver
) -> tuple[str | None, list[int]]:
    """Restores the newest checkpoint of a run that is whole.

    Args:
      directory: of the run.
      rule: the option `resume`.
      restore: restores everything from the checkpoint of a prefix; DamagedError where that is not whole.
      observer: told of those that are passed over.

    Returns:
      The prefix of the checkpoint, or None: there is none; and the steps of those that are not whole.

    Raises:
      DeepLabError: all are damaged, or with resume=strict the newest.
    """
    for prefix in directory.odd():
        observer.tell(f"Passed over: {prefix}: its number is not one of a step")
    damaged = directory.halves()
    reasons = {step: f"{directory.prefix(step)}: one of its two files is missing" for step in damaged}
    for step in (None, *reversed(directory.steps())):
        if reasons and rule == "strict":
            reason = next(iter(reasons.values()))
            raise DeepLabError(f"resume=strict: {reason}; newest_whole goes on from the newest that is whole")
        if step is None:
            continue
        try:
            restore(str(directory.prefix(step)))
        except DamagedError as error:
            reasons[step] = str(error)
            continue
        _tell_passed_over(reasons, observer)
        return str(directory.prefix(step)), list(reasons)
    # Of step 0 nothing is lost: it is made again.
    if reasons and max(reasons) > 0:
        lines = "; ".join(reasons.values())
        raise DeepLabError(
            f"--train_logdir={directory.path}: there is no checkpoint that is whole ({lines}); copy one of them "
            "again, or train in another folder"
        )
    _tell_passed_over(reasons, observer)
    return None, list(reasons)


def _tell_passed_over(reasons: Mapping[int, str], observer: TrainingObserver) -> None:
    for reason in reasons.values():
        observer.tell(f"Passed over: {reason}")
