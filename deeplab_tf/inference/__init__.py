"""From images to classes, in TensorFlow, LiteRT, ONNX Runtime or OpenVINO.

Which function to call, from the outermost inwards:

* `predict.predict`: arrays of one size in, class maps out; the public function.
* `files.predict_files`: image files in, masks, overlays and probabilities on disk.
* `clips.segment_clip`: a clip in, a video with overlay, masks and class maps on disk.
* `files.SegmentationPipeline`: the same for callers with batches of files of their own (Beam): threads read and write.
* `tiles.segment`: one photograph, resized and tiled as a `PredictConfig` says, at its own size.
* `tiles.network_labels`: the same for a photograph that has the network's size already, without CRF.
* `tiles.segment_batch`: a batch of pictures of several sizes, padded to one, as data sets give them.
* `Predictor.labels`, `Predictor.probabilities`: images that are run whole; everything above ends here.

A Predictor comes from `runtime.runtime_predictor`, which chooses between these, or from
`predictor.predictor_of`, which is TensorFlow's.
"""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
