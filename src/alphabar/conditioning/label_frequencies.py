"""How often each label occurs in the training data, kept as the labels of some of its items, drawn at random.

Generating with these labels one after the other gives every class, and every combination of attributes, as
often as in the data.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from alphabar.conditioning.fields import Value
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.random import Noise, Purpose

ITEMS = 512  # of the training data whose labels are kept

LabelFrequencies = tuple[Mapping[str, str], ...]


def label_frequencies(
    vocabulary: Vocabulary, columns: Mapping[str, Sequence[Value]], train: np.ndarray, seed: int
) -> LabelFrequencies:
    """The labels, by field name, of `ITEMS` training items drawn with replacement; () where there is none.

    columns: the labels of the data set by field name. train: the indices of its training items.
    """
    if not len(train):
        return ()
    chosen = Noise(seed, range(ITEMS), Purpose.LABEL_FREQUENCIES).uniform(0) * len(train)
    return tuple(vocabulary.labels(columns, train[chosen.long().numpy()].tolist()))
