"""The subjects that `deeplab-tf help` explains beside its commands: name -> (what it is about, the text)."""

from collections.abc import Mapping

from deeplab_tf import configs

TOPICS: Mapping[str, tuple[str, str]] = {
    "start": (
        "the first steps, with photographs, your own data and Python",
        """Segment photographs with a released network:

  deeplab-tf predict --checkpoint=mobilenetv2_coco_voc_trainaug --input=photo.jpg

Without a network, the whole way in a minute, with embedded weights and drawn pictures:

  deeplab-tf demo

Your own data, from a folder of photographs with labels or annotations to a network that is served:

  deeplab-tf doctor --dataset_dir=my_data
  deeplab-tf build-data --dataset=folder --root=my_data --output_dir=my_records --val_share=0.2
  deeplab-tf train --config=finetune --dataset_dir=my_records --train_logdir=run
  deeplab-tf serve --checkpoint=run

In Python: deeplab_tf.load(name) gives a Keras model, deeplab_tf.predict its classes.""",
    ),
    "data": (
        "data sets: what build-data reads, what the other commands read",
        """Training and evaluation read TFRecords: --dataset_dir is their folder, --train_split and --eval_split name
the files, train-00000-of-00004.tfrecord and so on. build-data writes them, from PASCAL VOC, Cityscapes, ADE20K or
your own folder, and beside them dataset.json, which says the classes, their colours and the label to ignore.
--dataset need not be given where that file is.

Records of the release's scripts are read too; say --dataset=pascal_voc_seg, cityscapes or ade20k. --dataset=tfds:NAME
reads a set of TensorFlow Datasets.

`deeplab-tf doctor --dataset_dir=FOLDER` looks at every record, or at a folder of pictures before it is built, and
names what would go wrong in silence. Details of your own folder: `deeplab-tf build-data --help`.""",
    ),
    "checkpoints": (
        "what --checkpoint takes, and where weights are kept",
        """A flag for weights takes a model directory (what convert and train write), a checkpoint of TensorFlow 1
(prefix, folder or .tar.gz), files of Keras (.keras, .h5, .weights.h5), PyTorch (.pth) and safetensors,
hf://owner/name, a frozen .pb or .tflite of the release, a .caffemodel, or a name of the zoo, which `deeplab-tf zoo`
lists.

Weights of the zoo are fetched once, checked by their hash and kept in ~/.cache/deeplab_tf, or where DEEPLAB_TF_CACHE
says. The network follows from names and shapes of the weights; what they leave open is printed, and a flag sets it.

A folder of train is a model directory at any time, also while the run goes on. The same command goes on with an
interrupted run. `deeplab-tf convert` writes the others' formats, `deeplab-tf describe` tells what a checkpoint is.""",
    ),
    "devices": (
        "GPUs, TPUs, precision and speed",
        """GPUs on Linux: pip install 'deeplab_tf[cuda]'. train takes the GPUs or TPUs that are there
(--strategy=auto) and says so in its first lines; --strategy=one_device takes one, --strategy=multi_worker with
TF_CONFIG several machines.

Faster training on a GPU: --mixed_precision=auto (bfloat16), --jit_compile (XLA, on by itself where it wins),
--train_batch_size=auto (as many pictures as the memory holds), --decoded_cache=FOLDER (pictures decoded once).
--deterministic gives equal bits in equal runs and costs speed.

predict, eval, vis, export and serve round float32 only with --tf32. predict and serve run on processors by --runtime:
tf, tflite, onnx, openvino, or auto, the fastest that is installed.""",
    ),
    "flags": (
        "how flags are written",
        """--name=value or --name value. A flag that is on or off is --name or --noname. A list has commas, or its
flag is repeated: --atrous_rates=6,12,18. Paths may begin with ~ or be in a bucket (gs://bucket/folder). A flag that
would do nothing is an error, and so is one that contradicts the weights.

`deeplab-tf COMMAND --help` describes the flags that matter most and names the others, --helpfull describes all,
--help=GROUP those of one group. `deeplab-tf completion bash` (or zsh) prints a script that completes them.""",
    ),
    "recipes": (
        "train --config=NAME: the settings of an experiment under one name",
        f"""train --config=NAME begins with the settings of a recipe, and the other flags change them:
{", ".join(sorted(configs.names()))}.

The files are in configs/, and each begins with its command line and the published score. finetune chooses crop,
batch, steps, rate and weights of the classes by your data and the memory, and prints why.""",
    ),
    "exit-codes": (
        "the status that a command ends with",
        """0: done, also where SIGTERM ended train, which saves first.

1: a mistake, told in one line on standard error, with nothing half-written; or a check that failed: doctor found
errors, verify found something that is not proven, predict failed on a picture, benchmark missed a bound.

130: Ctrl-C. train saves first; the same command goes on.""",
    ),
}
