"""The groups that options belong to, with the headings under which `--helpfull` lists them, in its order."""

from collections.abc import Mapping

# What training alone reads of the data; commands that only score have no flags for it.
TRAINING = "training"
GROUPS: Mapping[str, str] = {
    "what": "What is read and written",
    "data": "Data",
    "folders": "Folders of PASCAL VOC, Cityscapes and ADE20K",
    "division": "Division into train and val",
    "photographs": "Photographs",
    "annotations": "Annotations and labels",
    TRAINING: "Crops, batches and augmentation",
    "network": "Network",
    "head": "Network: image pooling and ASPP",
    "decoder": "Network: decoder",
    "details": "Network: details of single architectures",
    "weights": "Initial weights",
    "loss": "Loss",
    "schedule": "Learning rate and optimizer",
    "learning": "What is trained",
    "export": "Graph of the exported file",
    "tflite": "TFLite",
    "certificate": "Certificate",
    "sizes": "Sizes of images",
    "averaging": "Averaging over scales and flips",
    "clips": "Clips",
    "crf": "Post-processing by a CRF",
    "devices": "Devices and speed",
    "cluster": "Apache Beam",
    "logging": "Logging",
    "checkpoints": "Checkpoints and resuming",
    "evaluation": "Evaluation",
    "measuring": "Single measurements",
    "limits": "Limits of requests",
    "access": "Access",
    "retired": "Flags of the release that have no effect",
}
