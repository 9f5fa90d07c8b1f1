"""Frames lit by the attention, with the scores below them, to an MP4 or a GIF."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from attnact.machine.files import publish, write_bytes
from attnact.train.pictures.fonts import font_of
from attnact.train.pictures.plots import Frames, legend, light, shine

CODEC = "libx264"
PICTURE = 432, 320  # pixels at most, width and height, of a frame; it is drawn twice
NARROWEST = 480  # pixels, so that the text below a tall video can be read
LINE, MARGIN, TEXT = 20, 8, 13  # pixels
BLUE = 31, 78, 121


@dataclass(frozen=True)
class Scene:
    """What stays the same from the first frame of a movie to the last.

    title: a line over the frames.
    white: the attention that is drawn brightest, so that frames can be compared.
    classes: those whose scores are drawn, a line each.
    """

    title: str
    white: float
    classes: Sequence[str]

    def draw(
        self,
        frame: Frames,
        attention_map: npt.NDArray[np.float32],
        scores: Sequence[float],
        second: float,
    ) -> Image.Image:
        """The frame, the same frame lit by its map (L,), and below them the scores, 0 to 1."""
        height, width = frame.shape[:2]
        scale = min(PICTURE[0] / width, PICTURE[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        wide = _even(max(NARROWEST, 2 * size[0] + 3 * MARGIN))
        lines = 3 + len(self.classes)
        sheet = Image.new("RGB", (wide, _even(size[1] + lines * LINE + 2 * MARGIN)), "white")
        left = (wide - 2 * size[0] - MARGIN) // 2
        sheet.paste(Image.fromarray(small), (left, LINE + MARGIN))
        lit = light(small, attention_map, self.white)
        sheet.paste(Image.fromarray(lit), (left + size[0] + MARGIN, LINE + MARGIN))
        _text(sheet, 0, self.title)
        below = LINE + 2 * MARGIN + size[1]
        self._draw_legend(sheet, below)
        _text(sheet, below + LINE, f"{second:.2f} s")
        for i, (name, score) in enumerate(zip(self.classes, scores, strict=True)):
            _draw_score(sheet, below + (2 + i) * LINE, name, score)
        return sheet

    def _draw_legend(self, sheet: Image.Image, top: int) -> None:
        glow = np.linspace(0, 1, 60)[None, :, None]
        bar = shine(np.full((LINE // 2, 60, 3), 128), glow)  # as grey pixels would be lit
        sheet.paste(Image.fromarray(bar), (MARGIN, top + LINE // 4))
        _text(sheet, top, legend(self.white), 60 + 2 * MARGIN)


class Writer(Protocol):
    """Takes the pictures of a movie one after the other, all of one size."""

    def __call__(self, picture: Image.Image) -> None:
        """Adds a picture."""


def can_write_mp4() -> bool:
    """Whether this PyAV brings the encoder."""
    return CODEC in av.codecs_available


@contextmanager
def writing_mp4(path: Path, frame_rate: float) -> Iterator[Writer]:
    """A movie of H.264 in yuv420p, as every browser plays it; whole, or absent after an error."""
    part = path.with_suffix(".part.mp4")
    stream: Any = None

    def add(picture: Image.Image) -> None:
        nonlocal stream
        if stream is None:
            rate = Fraction(frame_rate).limit_denominator(1001)
            stream = container.add_stream(CODEC, rate=rate, options={"crf": "20"})
            stream.width, stream.height = picture.size
            stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
        container.mux(stream.encode(frame))

    try:
        # The index first, so that a browser shows the first frame before it has the last.
        with av.open(str(part), "w", options={"movflags": "+faststart"}) as container:
            yield add
            if stream is not None:
                container.mux(stream.encode())
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_gif(path: Path, pictures: Sequence[Image.Image], seconds: float) -> None:
    """A GIF that goes round for ever, each picture shown for so many seconds."""
    first, *others = [picture.quantize(128, Image.Quantize.FASTOCTREE) for picture in pictures]
    duration = max(20, round(1000 * seconds))  # below that viewers slow down to a tenth
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
    write_bytes(path, file.getvalue())


def _draw_score(sheet: Image.Image, top: int, name: str, score: float) -> None:
    middle = sheet.width // 2
    room = sheet.width - middle - 7 * TEXT
    _text(sheet, top, name, room=middle - 2 * MARGIN)
    bar = (middle, top + 4, middle + max(1, round(room * score)), top + LINE - 4)
    ImageDraw.Draw(sheet).rectangle(bar, fill=BLUE)
    _text(sheet, top, f"{100 * score:.1f} %", middle + room + MARGIN)


def _text(sheet: Image.Image, top: int, text: str, left: int = MARGIN, room: int = 0) -> None:
    """A line of text, cut off where there is no more room."""
    path, face = font_of(text)
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(path, TEXT, face)
    room = room or sheet.width - left - MARGIN
    if draw.textlength(text, font=font) > room:
        while text and draw.textlength(text + "…", font=font) > room:
            text = text[:-1]
        text += "…"
    draw.text((left, top + 2), text, fill="black", font=font)


def _even(pixels: int) -> int:
    return pixels + pixels % 2
