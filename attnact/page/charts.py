"""Charts as inline SVG: lines and dots on two axes. Colours and dashes tell the settings apart."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

# On white each has a contrast of 4.5 or more; who sees no colours has the dashes.
COLOURS = ("#0b5394", "#b45309", "#15803d", "#9d174d", "#5b21b6", "#374151", "#0e7490", "#7c2d12")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "14 4")  # not as many as colours, which would go with them

WIDTH, HEIGHT = 400, 250  # of the drawing; as large as this its words are 13 pixels high
WIDE_RANGE = 20  # largest value over smallest, from which on a log axis is one
MANY = 12  # lines, from which on they are thin
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 44


Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """Points (x, y) in the colour of a setting; `name` is shown where the mouse rests on them."""

    setting: int
    name: str
    points: Sequence[tuple[float, float]]
    joined: bool = True


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    words: at its ticks, where they are no plain numbers.
    log: whether it is logarithmic where the values differ much and are all above 0.
    """

    label: str
    words: Sequence[str] = ()
    log: bool = False


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> Markup:
    """The lines on axes that hold all finite points of them; nothing where there are none."""
    points = [p for line in lines for p in line.points if all(map(math.isfinite, p))]
    if not points:
        return Markup("")
    across_values, up_values = zip(*points, strict=True)
    x_ticks = list(range(len(x.words))) if x.words else ticks(across_values, whole=True)
    pad = 0.4 if x.words else 0.0
    across = _scale(x_ticks[0] - pad, x_ticks[-1] + pad, LEFT, WIDTH - RIGHT)
    if y.log and min(up_values) > 0 and max(up_values) > WIDE_RANGE * min(up_values):
        y_ticks = [10.0**power for power in _powers(up_values)]
        linear = _scale(math.log10(y_ticks[0]), math.log10(y_ticks[-1]), HEIGHT - BOTTOM, TOP)
        up: Scale = lambda value: linear(math.log10(value))  # noqa: E731
    else:
        y_ticks = ticks(up_values)
        up = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid(x, y, x_ticks, y_ticks, across, up)]
    for line in lines:
        known = [(across(a), up(b)) for a, b in line.points if math.isfinite(a + b)]
        parts.append(_drawn(line, known))
    size = Markup('viewBox="0 0 {} {}"').format(WIDTH, HEIGHT)
    label = escape(title)
    return Markup(
        '<figure class="chart{}"><figcaption>{}</figcaption>'
        '<svg {} role="img" aria-label="{}">{}</svg></figure>'
    ).format(" many" if len(lines) > MANY else "", label, size, label, Markup("").join(parts))


def swatch(setting: int) -> Markup:
    """A short line in the colour and the dashes of a setting."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 28 10" aria-hidden="true"><path d="M0 5H28" {}/></svg>'
    ).format(_stroke(setting))


def bar(share: float) -> Markup:
    """A bar as long as the share; none for NaN."""
    width = 0 if math.isnan(share) else 100 * share
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect width="100" height="10" fill="#e5e7eb"/>'
        '<rect width="{:.2f}" height="10" fill="#0b5394"/></svg>'
    ).format(width)


def ticks(values: Sequence[float], whole: bool = False) -> list[float]:
    """About five round numbers that reach around all values; `whole` for whole numbers alone."""
    low, high = min(values), max(values)
    rough = (high - low or abs(high) or 1) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    step = max(1.0, round(step)) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _powers(values: Sequence[float]) -> range:
    low, high = math.log10(min(values)), math.log10(max(values))
    return range(math.floor(low), math.ceil(high) + 1)


def _scale(low: float, high: float, start: float, stop: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _grid(
    x: Axis, y: Axis, x_ticks: Sequence[float], y_ticks: Sequence[float], across: Scale, up: Scale
) -> Markup:
    """The ticks with their words, faint lines across, and the names of the axes."""
    parts = []
    for tick in y_ticks:
        parts.append(
            Markup('<path class="grid" d="M{0} {2:.1f}H{1}"/>').format(
                LEFT, WIDTH - RIGHT, up(tick)
            )
        )
        parts.append(_words(LEFT - 6, up(tick) + 4, "end", f"{tick:g}"))
    for i, tick in enumerate(x_ticks):
        word = x.words[i] if x.words else f"{tick:g}"
        parts.append(_words(across(tick), HEIGHT - BOTTOM + 17, "middle", word))
    parts.append(_words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 7, "middle", x.label))
    side = Markup(
        '<text transform="translate(13 {:.0f}) rotate(-90)" text-anchor="middle">{}</text>'
    )
    parts.append(side.format((TOP + HEIGHT - BOTTOM) / 2, y.label))
    return Markup("").join(parts)


def _words(x: float, y: float, anchor: str, text: str) -> Markup:
    place = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return place.format(x, y, anchor, text)


def _drawn(line: Line, known: Sequence[tuple[float, float]]) -> Markup:
    """A line and its dots; a single epoch would not be seen without one."""
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in known)
    drawn = Markup('<path d="{}" {}/>').format(path, _stroke(line.setting))
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}"/>')
    size, colour = (1.5, COLOURS[line.setting % len(COLOURS)])
    dots = [dot.format(a, b, size if line.joined else 4, colour) for a, b in known]
    return Markup('<g data-setting="{}"><title>{}</title>{}{}</g>').format(
        line.setting,
        line.name,
        drawn if line.joined and known else "",
        Markup("").join(dots),
    )


def _stroke(setting: int) -> Markup:
    return Markup('fill="none" stroke="{}" stroke-width="1.8" stroke-dasharray="{}"').format(
        COLOURS[setting % len(COLOURS)], DASHES[setting % len(DASHES)]
    )
