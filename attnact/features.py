"""The feature cache."""

from enum import IntEnum


class Split(IntEnum):
    """The side of a fold on which a video stands, with HMDB-51's own tags as values."""

    UNUSED = 0
    TRAIN = 1
    TEST = 2
