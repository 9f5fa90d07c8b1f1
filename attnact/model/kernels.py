"""Triton kernels for a GPU, for what torch does in many passes over memory; `fused.py` calls.

A tensor is given as a pointer to rows, of each model M and clip B, and by how far apart they lie;
a program works on a stretch of one row. All numbers are float32 in between.
"""

import triton
import triton.language as tl


@triton.jit
def lstm_step(
    raw,
    bias,
    cell,
    gates,
    next_cell,
    hidden,
    hidden_stride,
    B,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """From the products of i, f, o and −2 g to their σ, the next cell and hidden state."""
    row, h = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, own = h < H, row * 4 * H + h, row // B * 4 * H + h
    i = tl.load(raw + at, inside).to(tl.float32) + tl.load(bias + own, inside)
    f = tl.load(raw + at + H, inside).to(tl.float32) + tl.load(bias + own + H, inside)
    o = tl.load(raw + at + 2 * H, inside).to(tl.float32) + tl.load(bias + own + 2 * H, inside)
    g = tl.load(raw + at + 3 * H, inside).to(tl.float32) + tl.load(bias + own + 3 * H, inside)
    i, f, o, g = tl.sigmoid(i), tl.sigmoid(f), tl.sigmoid(o), tl.sigmoid(g)
    tl.store(gates + at, i, inside)
    tl.store(gates + at + H, f, inside)
    tl.store(gates + at + 2 * H, o, inside)
    tl.store(gates + at + 3 * H, g, inside)
    c = f * tl.load(cell + row * H + h, inside) + i * (1 - 2 * g)
    tl.store(next_cell + row * H + h, c, inside)
    tl.store(hidden + row * hidden_stride + h, o * (1 - 2 * tl.sigmoid(-2 * c)), inside)


@triton.jit
def lstm_step_back(
    above,
    above_stride,
    kept,
    own,
    own_stride,
    gates,
    cell,
    next_cell,
    dcell,
    dgates,
    B,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPS: tl.constexpr,
):
    """From the gradient of the hidden state, above · kept + own, to those of the products.

    dcell: of the next cell state, which becomes that of the last one.
    """
    row, h = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, state = h < H, row * 4 * H + h, row * H + h
    dhidden = tl.load(above + row * above_stride + h, inside).to(tl.float32)
    if DROPS:
        dhidden *= tl.load(kept + row % B * H + h, inside).to(tl.float32)
    dhidden += tl.load(own + row * own_stride + h, inside).to(tl.float32)
    i, f = tl.load(gates + at, inside), tl.load(gates + at + H, inside)
    o, g = tl.load(gates + at + 2 * H, inside), tl.load(gates + at + 3 * H, inside)
    squashed = tl.sigmoid(-2 * tl.load(next_cell + state, inside))
    dc = tl.load(dcell + state, inside) + 4 * dhidden * o * squashed * (1 - squashed)
    tl.store(dcell + state, dc * f, inside)
    di, df = dc * (1 - 2 * g), dc * tl.load(cell + state, inside)
    tl.store(dgates + at, di * i * (1 - i), inside)
    tl.store(dgates + at + H, df * f * (1 - f), inside)
    tl.store(dgates + at + 2 * H, dhidden * (1 - 2 * squashed) * o * (1 - o), inside)
    tl.store(dgates + at + 3 * H, dc * i * g * (1 - g), inside)


@triton.jit
def glimpse(
    maps,
    x,
    clip_stride,
    place_stride,
    kept,
    out,
    out_stride,
    B,
    M: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPS: tl.constexpr,
):
    """Σ_l maps_l x_l of the features x (B, L, C) of a frame, less what is dropped (eq. 5)."""
    b, c = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place, inside = tl.arange(0, PLACES), c < C
    there = (place < L)[:, None] & inside[None, :]
    at = b * clip_stride + place[:, None] * place_stride + c[None, :]
    features = tl.load(x + at, there, 0).to(tl.float32)
    for m in tl.static_range(M):  # read once for all models
        row = m * B + b
        looks = tl.load(maps + row * L + place, place < L, 0)
        made = tl.sum(looks[:, None] * features, axis=0)
        if DROPS:
            made *= tl.load(kept + b * C + c, inside, 0).to(tl.float32)
        tl.store(out + row * out_stride + c, made, inside)


@triton.jit
def glimpse_back(
    above,
    above_stride,
    kept,
    x,
    clip_stride,
    place_stride,
    dmaps,
    dmaps_stride,
    out,
    B,
    M: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPS: tl.constexpr,
):
    """From the gradient of the glimpse after dropout to that of the maps, and dmaps with it."""
    b, place = tl.program_id(0).to(tl.int64), tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    start = x + b * clip_stride + place[:, None] * place_stride
    for m in tl.static_range(M):
        row = m * B + b
        products = tl.zeros((PLACES, BLOCK), tl.float32)
        for first in range(0, C, BLOCK):
            c = first + tl.arange(0, BLOCK)
            there = (place < L)[:, None] & (c < C)[None, :]
            features = tl.load(start + c[None, :], there, 0).to(tl.float32)
            dmade = tl.load(above + row * above_stride + c, c < C, 0).to(tl.float32)
            if DROPS:
                dmade *= tl.load(kept + b * C + c, c < C, 0).to(tl.float32)
            products += dmade[None, :] * features
        rest = tl.load(dmaps + row * dmaps_stride + place, place < L, 0)
        tl.store(out + row * L + place, rest + tl.sum(products, axis=1), place < L)


@triton.jit
def widen_uint8(
    cubes,
    frame_stride,
    place_stride,
    channel_stride,
    roots,
    wide,
    L,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(q r)² of the features q of a location, (C,), uint8, and a number r for each location."""
    row, c = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, start = c < C, row // L * frame_stride + row % L * place_stride
    x = tl.load(cubes + start + c * channel_stride, inside).to(tl.float32) * tl.load(roots + row)
    tl.store(wide + row * C + c, x * x, inside)
