"""The choices of runs that train in a moment, which several tests begin from."""

from typing import Any

SMALL: dict[str, Any] = {
    "fold": "1",
    "lstm_layers": 2,
    "hidden_size": 8,
    "learning_rate": 0.01,
    "epochs": 2,
}
