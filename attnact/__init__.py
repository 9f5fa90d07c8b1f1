"""Action recognition with visual attention, in two stages that meet in one file.

``attnact.extract`` turns videos into a feature cache: one 7×7×1024 feature cube a frame.
``attnact.train`` turns a feature cache into runs: a trained soft-attention LSTM, its scores, and
the maps that show where it looked. The paper: Sharma, Kiros, Salakhutdinov, "Action Recognition
using Visual Attention", arXiv 1511.04119.

Shapes are written with the same letters everywhere:

    B  videos or clips in a batch
    T  frames of a clip (30)
    L  locations of a feature cube (49), index = row · 7 + column
    C  channels of a location (1024)
    H  hidden size of an LSTM layer
    N  classes
    X  the feature cubes of a batch of clips, (B, T, L, C)
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnact.recognise import Recogniser

__version__ = "0.1.0"


def load(
    run: str | Path, weights: str | Path | None = None, device: str | None = None
) -> "Recogniser":
    """A finished run and its backbone, to `predict` the classes of videos and `attend` to them.

    Args:
        run: the folder of the run.
        weights: the backbone's weights; None for where they were when the features were made.
        device: as torch names it; the GPU if there is one.

    Raises:
        RunError: there is no such run, or it is not finished.
        WeightsError: the weights are not there, or are others.
    """
    from attnact.recognise import Recogniser  # here, so that `import attnact` stays light

    recogniser = Recogniser(Path(run), Path(weights) if weights else None, device)
    recogniser.backbone  # noqa: B018  # so that it is refused here, if it must be
    return recogniser
