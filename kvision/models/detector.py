"""Detector: the one class between Keras and the user."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from kvision.ops.tracing import not_empty, require_tensorflow

__all__ = ["Detector"]

Tensor = Any

_NO_IMAGE = (
    "A replica got no image: the last batch has fewer images than there are replicas. "
    "Drop it (drop_remainder=True of tf.data's batch), or repeat the dataset and give "
    "fit steps_per_epoch."
)

# Targets with a row for each object, padded.
_PER_ROW = ("gt_boxes", "gt_labels", "gt_masks")


@keras.saving.register_keras_serializable("kvision")
class Detector(keras.Model):
    """A Functional model that detects, and that `fit` trains on padded ground truth.

    Calling the model runs inference. Training evaluates a second composition of the
    same layers, which needs the ground truth as an input, because the regions that
    learn depend on the proposals; the backbone runs once a step. Build one with
    `kvision.models.faster_rcnn` or `kvision.models.mask_rcnn`.

    Args:
        inputs: as for a Functional `keras.Model`.
        outputs: as for a Functional `keras.Model`.
        losses: function `(images, targets, seed, training) -> {name: scalar}`.
        loss_names: the names it returns, in the order of the progress bar.
        arguments: arguments of the builder, with which `from_config` builds anew.
        name: name of the model.

    Attributes:
        class_names: names of the labels 0..K-1.
        image_size: (height, width) of the input in pixels.
        resize: "pad" or "stretch": how images of other sizes are brought there.
        num_channels: channels of the input.
        max_detections: rows of the outputs.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        losses: Callable[..., dict[str, Tensor]],
        loss_names: tuple[str, ...],
        arguments: dict[str, Any],
        name: str | None = None,
    ) -> None:
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        # By its name `compile` decides whether the loss needs scaling.
        self.dtype_policy = arguments["dtype"]
        self._compute_losses = losses
        self._loss_means = [keras.metrics.Mean(name=name) for name in loss_names]
        # A closure: Keras would turn a dict attribute into a tracked container.
        self._arguments = lambda: dict(arguments)

    @property
    def class_names(self) -> list[str]:
        """Names of the labels 0..K-1."""
        return list(self._arguments()["class_names"])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        height, width = self._arguments()["image_size"]
        return height, width

    @property
    def resize(self) -> str:
        """How images of other sizes are brought to `image_size`: "pad" or "stretch"."""
        return str(self._arguments()["resize"])

    @property
    def num_channels(self) -> int:
        """Channels of the input."""
        return int(self._arguments()["num_channels"])

    @property
    def max_detections(self) -> int:
        """Rows of the outputs."""
        return int(self._arguments()["max_detections"])

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        jit_compile: bool | str = "auto",
        loss_weights: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prepare for training; the model has its own losses.

        Args:
            optimizer: any Keras optimizer; None is SGD with momentum and the learning
                rate 0.005 that suits batches of 2 to 4 images.
            loss: not taken.
            metrics: not taken; `kvision.callbacks.COCOMetrics` scores a model.
            jit_compile: whether XLA compiles the steps. "auto" does on an accelerator
                and not on a CPU, where TensorFlow's own kernels train up to four times
                faster.
            loss_weights: factors of the losses in their sum, by name; 1 for others. The
                losses are reported without them.
            **kwargs: other arguments of `keras.Model.compile`.

        Raises:
            ValueError: if a loss or a metric is given, weights of losses that there are
                not, or Keras does not run on TensorFlow.
        """
        require_tensorflow("Training")
        for argument, value in (("loss", loss), ("metrics", metrics)):
            if value is not None:
                raise ValueError(
                    f"A detector has its own losses and takes no {argument}=. "
                    f"Received: {argument}={value!r}. Scores come from "
                    "kvision.callbacks.COCOMetrics."
                )
        weights = dict(loss_weights or {})
        names = [mean.name for mean in self._loss_means]
        if set(weights) - set(names):
            raise ValueError(
                f"loss_weights must be factors of {', '.join(names)}. Received: "
                f"loss_weights={weights}"
            )
        # A closure: Keras would turn a dict attribute into a tracked container.
        self._weight_of = lambda name: weights.get(name, 1.0)
        if jit_compile == "auto":
            jit_compile = _has_accelerator()
        if optimizer is None:
            optimizer = keras.optimizers.SGD(0.005, momentum=0.9)
        super().compile(
            optimizer=optimizer,
            jit_compile=jit_compile,
            loss_weights=weights or None,
            **kwargs,
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the saved model was, so that training goes on where it stopped."""
        if keras.backend.backend() != "tensorflow":
            return  # it detects there
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """Run one step of training on (images, targets)."""
        import tensorflow as tf

        images, targets = self._batch(data)
        # A function of the step alone: a resumed run draws what an uninterrupted one
        # would have drawn.
        seed = tf.cast(self.optimizer.iterations, tf.int32) + 1
        with tf.GradientTape() as tape:
            losses = self._compute_losses(images, targets, seed, training=True)
            total = self._total(losses)
            scaled = self.optimizer.scale_loss(total / self._num_replicas())
        weights = self.trainable_weights
        gradients = tape.gradient(scaled, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self._update(total, losses, tf.shape(images)[0])

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Compute the losses of (images, targets); the same sample every time."""
        import tensorflow as tf

        images, targets = self._batch(data)
        losses = self._compute_losses(
            images, targets, tf.constant(0, tf.int32), training=False
        )
        return self._update(self._total(losses), losses, tf.shape(images)[0])

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        """Add up losses, weighted, and penalties of layers."""
        weighted = [self._weight_of(name) * loss for name, loss in losses.items()]
        return sum(weighted) + sum(self.losses)

    def _batch(self, data: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Check a batch and leave out what nothing has to be computed of."""
        images, targets = _unpack(data)
        if self._num_replicas() > 1:
            images, targets = not_empty((images, targets), _NO_IMAGE)
        if not self.jit_compile:
            targets = _without_common_padding(targets)
        return images, targets

    def _num_replicas(self) -> int:
        # Losses are means over the images of a replica; gradients are summed.
        return int(self.distribute_strategy.num_replicas_in_sync)

    def _update(
        self, total: Tensor, losses: dict[str, Tensor], batch_size: Tensor
    ) -> dict[str, Tensor]:
        self._loss_tracker.update_state(total, sample_weight=batch_size)
        for mean in self._loss_means:
            mean.update_state(losses[mean.name], sample_weight=batch_size)
        return {metric.name: metric.result() for metric in self.metrics}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the builder, a backbone object serialised."""
        config = {"name": self.name, **self._arguments()}
        if isinstance(config["backbone"], keras.Model):
            config["backbone"] = keras.saving.serialize_keras_object(config["backbone"])
        return config

    def rebuilt(self, **arguments: Any) -> "Detector":
        """Build a detector of the same weights with other arguments.

        Example, a lighter one: `model.rebuilt(rpn_post_nms_top_k=300)`.

        Args:
            **arguments: of the builder, in place of this detector's.

        Returns:
            New detector, not compiled.

        Raises:
            ValueError: if with these arguments a weight has another shape.
        """
        other = type(self).from_config({**self.get_config(), **arguments})
        shapes = [[tuple(w.shape) for w in one.weights] for one in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"With {', '.join(arguments)} the weights have other shapes: the new "
                "model would have to be trained. Build it with kvision.models"
            )
        for new, old in zip(other.weights, self.weights, strict=True):
            new.assign(old)
        return other

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "Detector":
        """Build both compositions anew; weights are loaded by Keras afterwards."""
        from kvision.models.rcnn import build_rcnn

        config = dict(config)
        if isinstance(config["backbone"], dict):
            config["backbone"] = keras.saving.deserialize_keras_object(
                config["backbone"], custom_objects=custom_objects
            )
        return build_rcnn(**config)


def _has_accelerator() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


def _unpack(data: Any) -> tuple[Tensor, dict[str, Tensor]]:
    images, targets, weight = keras.utils.unpack_x_y_sample_weight(data)
    if not isinstance(targets, dict) or "gt_boxes" not in targets:
        raise ValueError(
            "A detector trains on batches of (images, targets) where targets is a dict "
            "with gt_boxes (B, G, 4), gt_labels (B, G) and, for masks, gt_masks "
            f"(B, G, h, w). Received targets of type {type(targets).__name__}"
            + (f" with keys {sorted(targets)}" if isinstance(targets, dict) else "")
            + ". kvision.data.coco makes such batches; docs/own_data.md says how to."
        )
    if weight is not None:
        raise ValueError("A detector takes no sample_weight.")
    if targets["gt_labels"].shape[1] in (0, None):
        targets = _with_one_more_row(targets)
    return images, targets


def _with_one_more_row(targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pad batches that may have no row: there is no best match among none."""
    import tensorflow as tf

    def padded(name: str, rows: Tensor) -> Tensor:
        if name not in _PER_ROW:
            return rows
        widths = [(0, 0), (0, 1)] + [(0, 0)] * (len(rows.shape) - 2)
        padding = tf.cast(-1 if name == "gt_labels" else 0, rows.dtype)
        return tf.pad(rows, widths, constant_values=padding)

    return {name: padded(name, rows) for name, rows in targets.items()}


def _without_common_padding(targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut the rows of ground truth that are padding in every image of the batch.

    Overlaps of every anchor with every row are computed; datasets are padded to their
    most crowded image.
    """
    import tensorflow as tf

    is_row = tf.logical_or(
        targets["gt_labels"] >= 0, tf.reduce_any(targets["gt_boxes"] != 0, axis=-1)
    )
    number = tf.shape(is_row)[1]
    last = tf.reduce_max(tf.where(is_row, tf.range(1, number + 1)[None, :], 1))
    return {
        name: value[:, :last] if name in _PER_ROW else value
        for name, value in targets.items()
    }
