"""The release's flags that have lost their meaning, by command: name -> (the release's default, the reason)."""

_EVERYWHERE = {
    "master": ("", "address of a TensorFlow 1 master, which TensorFlow 2 does not have; TF_CONFIG names the workers"),
    "batch_norm_decay": (0.9997, "the release never read it: each part of a network has its own decay"),
    "keep_aspect_ratio": (True, "the release never read it: its resizing keeps the ratio"),
}
TRAIN = {
    **_EVERYWHERE,
    "num_replicas": (1, "TF_CONFIG says how many machines train together, with --strategy=multi_worker"),
    "startup_delay_steps": (15, "workers started one after the other; synchronous training starts at once"),
    "num_ps_tasks": (0, "synchronous training has no parameter servers"),
    "task": (0, "TF_CONFIG has the number of this worker"),
}
PASSES = {**_EVERYWHERE, "label_weights": ((), "weights of the loss, which only training has")}
EXPORT = {name: PASSES[name] for name in ("batch_norm_decay", "keep_aspect_ratio", "label_weights")}
TFLITE = {
    "input_tensor_name": ("", "the file takes pixels of 0..255, as the release's does where it is cut at this tensor")
}
