"""Distillation: a model that learns from another one beside its labels."""

from typing import Any

import keras
from keras import ops

from kvision.train.token_distillation import kept_tokens, token_loss, with_tokens

__all__ = ["Distillation", "distill", "student_of"]

Tensor = Any

_HEADS = ("head", "head_dist")
_NAME = "distillation"


def distill(
    student: keras.Model,
    teacher: keras.Model,
    hard: bool = True,
    temperature: float = 3.0,
    weight: float = 1.0,
    token_weight: float = 0.0,
) -> keras.Model:
    """Put a frozen teacher beside a classifier, to train the classifier on both.

    The result is a Functional model over the student's own layers, to be compiled with
    a loss for the labels and fitted as any other: fitting it trains the student. Save
    the student, which knows nothing of the teacher. The loss is

        label loss + weight * distillation loss + token_weight * token loss

    where the distillation loss is the mean over the images of the cross-entropy with
    the teacher's best class (`hard`), or of T^2 KL(softmax(teacher / T) ||
    softmax(student / T)). Only training adds it; `evaluate` gives the label loss. A
    student with a second head "head_dist" (`kvision.models.deit` with
    `distilled=True`) learns labels with "head" and the teacher with "head_dist", and
    answers with its mean of both; one with a single head learns both with it.
    (DeiT's (1 - a) label loss + a distillation loss is this one times 1 - a with
    `weight` = a / (1 - a).)

    The token loss is for `kvision.models.dynamic_vit`: the mean squared difference of
    its last patches, those that are kept, from the teacher's at the same places. The
    paper trains with hard=False, temperature=1, weight=0.5, token_weight=0.5, beginning
    with the teacher's weights.

    Example:
        model = kvision.train.distill(student, teacher)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adamw", loss, metrics=["accuracy"])
        model.fit(train, epochs=10)
        student.save("student.keras")

    Args:
        student: classifier from images (B, H, W, C) in 0-255 to logits (B, K), its head
            a layer named "head".
        teacher: any model from images in 0-255 to logits (B, K); for `hard`,
            probabilities will do. It may have another input size; images are resized
            for it (bilinear). It sees what the student sees, augmentation included.
        hard: whether the teacher gives a class or a distribution.
        temperature: T, by which logits are divided where not `hard`.
        weight: of the distillation loss.
        token_weight: of the token loss; 0 for none.

    Returns:
        The model. It holds no variable of the teacher.

    Raises:
        ValueError: the two have other classes, the student has no layer "head", the
            teacher gives probabilities where logits are needed, or there is a
            `token_weight` and their tokens cannot be compared.

    Source: Touvron et al. 2021, DeiT, section 4; Hinton et al. 2015, Distilling the
    Knowledge in a Neural Network, section 2; Rao et al. 2021, DynamicViT, section 3.3.
    """
    heads = _heads(student)
    _check(student, teacher, hard)
    seen = [student.input, heads[0].output, heads[-1].output, student.output]
    if token_weight:
        seen += kept_tokens(student)
        teacher = with_tokens(teacher, student)
    layer = Distillation(
        student,
        teacher,
        hard,
        temperature,
        weight,
        token_weight,
        name=_NAME,
        dtype="float32",
    )
    return keras.Model(student.input, layer(*seen), name=f"{student.name}_distilled")


def student_of(model: keras.Model) -> keras.Model:
    """Return the student in a model of `distill`, or the model itself.

    Args:
        model: any model.

    Returns:
        The model to score and save.
    """
    last = model.layers[-1]
    return last.student if isinstance(last, Distillation) else model


class Distillation(keras.layers.Layer):
    """The end of a model of `distill`: asks the teacher and adds the loss.

    Not serialisable: it holds two models, and a student is saved without its teacher.

    Args:
        student: the model whose layers are trained.
        teacher: the model that is asked, for logits or for [logits, tokens].
        hard: as of `distill`.
        temperature: as of `distill`.
        weight: as of `distill`.
        token_weight: as of `distill`.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        hard: bool,
        temperature: float,
        weight: float,
        token_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if temperature <= 0 or min(weight, token_weight) < 0:
            raise ValueError(
                "temperature must be above 0, weight and token_weight at least 0. "
                f"Received: temperature={temperature}, weight={weight}, "
                f"token_weight={token_weight}"
            )
        # Closures: Keras would count the weights of both as this layer's, train the
        # teacher's and save them.
        self._student = lambda: student
        self._teacher = lambda: teacher
        self.hard = hard
        self.temperature = temperature
        self.weight = weight
        self.token_weight = token_weight

    @property
    def student(self) -> keras.Model:
        """The model whose layers are trained."""
        return self._student()

    @property
    def teacher(self) -> keras.Model:
        """The model that is asked."""
        return self._teacher()

    def call(
        self,
        images: Tensor,
        label_logits: Tensor,
        teacher_logits: Tensor,
        logits: Tensor,
        tokens: Tensor | None = None,
        keep: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Return the logits that labels are for.

        Args:
            images: (B, H, W, C) in 0-255.
            label_logits: (B, K) of the head that learns labels.
            teacher_logits: (B, K) of the head that learns the teacher's.
            logits: (B, K), the student's answer.
            tokens: (B, 1 + N, D), the student's last ones, to be compared; or None.
            keep: (B, 1 + N), which of them are kept.
            training: whether to ask the teacher.

        Returns:
            `label_logits` in training, else `logits`.
        """
        if not training:
            return logits
        target, *target_tokens = self._ask(images)
        loss = _hard_loss if self.hard else _soft_loss
        self.add_loss(self.weight * loss(teacher_logits, target, self.temperature))
        if tokens is not None:
            error = token_loss(tokens, target_tokens[0], keep)
            self.add_loss(self.token_weight * error)
        return label_logits

    def compute_output_spec(
        self,
        images: Tensor,
        label_logits: Tensor,
        teacher_logits: Tensor,
        logits: Tensor,
        tokens: Tensor | None = None,
        keep: Tensor | None = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Promise what `logits` are, in float32."""
        return keras.KerasTensor(logits.shape, "float32")

    def _ask(self, images: Tensor) -> list[Tensor]:
        teacher = self.teacher
        size = tuple(teacher.inputs[0].shape[1:3])
        if None not in size and size != tuple(images.shape[1:3]):
            images = ops.image.resize(
                ops.cast(images, "float32"), size, interpolation="bilinear"
            )
        answers = keras.tree.flatten(teacher(images, training=False))
        return [ops.stop_gradient(ops.cast(each, "float32")) for each in answers]

    def get_config(self) -> dict[str, Any]:
        """Refuse: the student is what can be saved."""
        raise NotImplementedError(
            "A model of kvision.train.distill cannot be saved with its teacher. Save "
            "the student, whose layers it trains: student.save(path)"
        )


def _hard_loss(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy (scalar) of (B, K) logits with the teacher's best classes."""
    best = ops.argmax(target, axis=-1)
    return ops.mean(ops.sparse_categorical_crossentropy(best, logits, from_logits=True))


def _soft_loss(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Mean divergence (scalar) of (B, K) logits from the teacher's, times T^2."""
    own = ops.log_softmax(logits / temperature, axis=-1)
    wanted = ops.log_softmax(target / temperature, axis=-1)
    divergence = ops.sum(ops.exp(wanted) * (wanted - own), axis=-1)
    return ops.mean(divergence) * temperature**2


def _heads(student: keras.Model) -> list[Any]:
    """Return the layer that learns labels, and that which learns the teacher's."""
    names = [layer.name for layer in student.layers]
    if _HEADS[0] not in names:
        raise ValueError(
            'A student needs a layer named "head" that gives its logits, as the models '
            f"of kvision.models have. The last of this one is {names[-1]!r}"
        )
    return [student.get_layer(name) for name in _HEADS if name in names]


def _check(student: keras.Model, teacher: keras.Model, hard: bool) -> None:
    outputs = [tuple(model.output_shape) for model in (student, teacher)]
    if outputs[0] != outputs[1] or len(outputs[0]) != 2:
        raise ValueError(
            "Student and teacher must give logits (B, K) of the same classes. "
            f"Received: {outputs[0]} of the student, {outputs[1]} of the teacher"
        )
    channels = [model.inputs[0].shape[-1] for model in (student, teacher)]
    if channels[0] != channels[1]:
        raise ValueError(
            f"The student takes images with {channels[0]} channels, the teacher with "
            f"{channels[1]}: they must see the same images"
        )
    names = [_class_names(model) for model in (student, teacher)]
    if None not in names and names[0] != names[1]:
        raise ValueError(
            f"Student and teacher must have the same classes in the same order. "
            f"Received: {names[0]} and {names[1]}"
        )
    activation = getattr(teacher.layers[-1], "activation", None)
    if not hard and activation is keras.activations.softmax:
        raise ValueError(
            "Soft distillation divides the teacher's logits by the temperature, and "
            "this teacher gives probabilities. Build it with "
            "classifier_activation=None, or use hard distillation"
        )


def _class_names(model: keras.Model) -> list[str] | None:
    heads = [layer for layer in model.layers if layer.name == _HEADS[0]]
    names = getattr(heads[0], "class_names", None) if heads else None
    return list(names) if names else None
