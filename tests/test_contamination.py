"""Which splits share images, and what is said of weights that have seen what they are scored on."""

import dataclasses
import pathlib

import pytest

from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.zoo.contamination import contamination, share_images
from deeplab_tf.zoo.released import CHECKPOINTS

_SHARING = {
    "pascal_voc_seg": {("train", "train_aug"), ("train", "trainval"), ("train_aug", "trainval"), ("trainval", "val")},
    "cityscapes": {
        *(("train_coarse", other) for other in ("train_fine", "trainval_fine", "trainval_coarse")),
        *(("trainval_coarse", other) for other in ("train_fine", "trainval_fine", "val_fine")),
        *(("trainval_fine", other) for other in ("train_fine", "val_fine")),
    },
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_splits_that_share_images(dataset):
    sharing = {frozenset(pair) for pair in _SHARING.get(dataset, ())}
    for first in DATASETS[dataset].splits:
        for second in DATASETS[dataset].splits:
            assert share_images(dataset, first, second) == (first == second or frozenset((first, second)) in sharing)


def test_own_data_goes_by_the_names():
    assert share_images("my_data", "trainval", "val") and share_images(None, "all", "all")
    assert not share_images("my_data", "train", "val")


def test_every_trainval_entry_of_the_zoo_is_contaminated_on_val():
    for entry in CHECKPOINTS.values():
        if entry.kind != "segmentation":
            continue
        val = "val_fine" if entry.dataset == "cityscapes" else "val"
        words = contamination(entry.dataset, val, train_dataset=entry.dataset, train_split=entry.train_split)
        assert bool(words) == entry.train_split.startswith("trainval"), entry.name
        assert not contamination("shapes", val, train_dataset=entry.dataset, train_split=entry.train_split)


@pytest.mark.parametrize(
    "source",
    [
        "xception65_coco_voc_trainval",
        "/models/deeplabv3_pascal_trainval_2018_01_04.tar.gz",
        "models/deeplabv3_pascal_trainval_2018_01_04/",
    ],
)
def test_what_training_began_from_counts_too(source):
    trained = {"train_dataset": "pascal_voc_seg", "train_split": "train_aug"}
    assert contamination("pascal_voc_seg", "val", **trained) is None
    assert contamination("pascal_voc_seg", "val", **trained, source=source) == (
        "they began as xception65_coco_voc_trainval, trained on trainval, which shares images with val: the score says "
        "nothing of new images"
    )
    assert contamination("pascal_voc_seg", "val", **trained, source="model.ckpt") is None


def test_a_card_tells_what_its_weights_have_seen():
    card = ModelCard(ModelConfig(), dataset="pascal_voc_seg", train_split="train_aug")
    assert card.seen("pascal_voc_seg", "val") is None and card.seen("shapes", "train_aug") is None
    assert card.seen("pascal_voc_seg", "train").startswith("the weights were trained on train_aug, which shares images")
    begun = dataclasses.replace(card, source_checkpoint="xception65_coco_voc_trainval")
    assert begun.seen("pascal_voc_seg", "val").startswith("they began as xception65_coco_voc_trainval")


def test_a_card_without_classes_is_refused():
    ModelCard(ModelConfig()).require_classes("export")
    card = ModelCard(ModelConfig(), kind="backbone", source_checkpoint="imagenet")
    with pytest.raises(DeepLabError, match="^imagenet: a backbone without classes.*expected a model to export$"):
        card.require_classes("export")
    with pytest.raises(DeepLabError, match="^own/path: a backbone without classes.*expected a model to score$"):
        card.require_classes("score", pathlib.Path("own/path"))


def test_nothing_known_is_nothing_said():
    assert contamination("pascal_voc_seg", "val", train_dataset=None, train_split=None) is None
    words = contamination("camvid", "train", train_dataset="camvid", train_split="train")
    assert words.startswith("the weights were trained on train, the split that is scored")
