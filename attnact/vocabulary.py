"""The words between which a user chooses, each explained where it is used; classes and splits."""

from enum import IntEnum
from typing import Literal, get_args

DatasetName = Literal["ucf11", "hmdb51", "hollywood2", "folder"]
BackboneName = Literal["googlenet", "bvlc_googlenet"]
Resize = Literal["squash", "crop"]
Decoder = Literal["pyav", "decord"]
Compression = Literal["zstd", "lz4", "gzip", "none"]
FeatureType = Literal["float16", "uint8"]
Runtime = Literal["auto", "torch", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

Recipe = Literal["paper", "released", "fast"]
ModelKind = Literal["attention", "average", "max", "softmax"]
AttentionForm = Literal["location", "context"]
PenaltyForm = Literal["sum", "mean"]
DropoutForm = Literal["paper", "released"]
ClipForm = Literal["paper", "released"]
InitialWeights = Literal["torch", "released"]
Optimizer = Literal["adam", "released"]
BatchLoss = Literal["mean", "sum"]
TrainPrecision = Literal["float32", "bfloat16"]
Vote = Literal["mean", "majority"]
Place = Literal["auto", "device", "host", "disk"]

EngineName = Literal["local", "ray"]

Order = Literal["fortran", "c"]
Valid = Literal["test", "unused"]

DATASETS: tuple[DatasetName, ...] = get_args(DatasetName)
PLACES: tuple[Place, ...] = get_args(Place)
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
ORDERS: tuple[Order, ...] = get_args(Order)
VALIDS: tuple[Valid, ...] = get_args(Valid)

HOLLYWOOD2_CLASSES = (
    "AnswerPhone",
    "DriveCar",
    "Eat",
    "FightPerson",
    "GetOutCar",
    "HandShake",
    "HugPerson",
    "Kiss",
    "Run",
    "SitDown",
    "SitUp",
    "StandUp",
)


class Split(IntEnum):
    """The side of a fold on which a video stands, with HMDB-51's own tags as values."""

    UNUSED = 0
    TRAIN = 1
    TEST = 2
