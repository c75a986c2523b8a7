"""Take the same step of a deterministic run again and again, and count the results.

A process of its own: TensorFlow's deterministic kernels cannot be switched off again.
"""

import hashlib
import sys
from pathlib import Path

import tensorflow as tf

from kvision.train.opening import begin
from kvision.train.recipes import DetectRecipe


def main(recipe: str, runs: str, times: int) -> None:
    run = begin(DetectRecipe.from_yaml(recipe), Path(runs), None)
    model, batch = run.model, next(iter(run.train_set))
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    model.fit(batches, steps_per_epoch=1, verbose=0)
    variables = model.variables + model.optimizer.variables
    before = [variable.numpy() for variable in variables]
    results = set()
    for _ in range(times):
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        model.train_function(iter(batches))
        digest = hashlib.sha256()
        for variable in variables:
            digest.update(variable.numpy().tobytes())
        results.add(digest.hexdigest())
    print(len(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
