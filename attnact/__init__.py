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

__version__ = "0.1.0"
