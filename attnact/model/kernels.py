"""Triton kernels for a GPU, for what torch does in many passes over memory; `fused.py` calls.

A tensor is given as a pointer to rows, one a clip, and by how far apart they lie; a program works
on one row or a stretch of it. All numbers are float32 in between.
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
    kept,
    out,
    out_stride,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPS: tl.constexpr,
):
    """From the products of i, f, o, g to their σ, of −2 g for g, the next cell and hidden state.

    The hidden state goes to `hidden`, and there rounded to `out`, less what is dropped.
    """
    row, h = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, state = h < H, row * 4 * H + h, row * H + h
    i = tl.load(raw + at, inside).to(tl.float32) + tl.load(bias + h, inside)
    f = tl.load(raw + at + H, inside).to(tl.float32) + tl.load(bias + h + H, inside)
    o = tl.load(raw + at + 2 * H, inside).to(tl.float32) + tl.load(bias + h + 2 * H, inside)
    g = tl.load(raw + at + 3 * H, inside).to(tl.float32) + tl.load(bias + h + 3 * H, inside)
    i, f, o, g = tl.sigmoid(i), tl.sigmoid(f), tl.sigmoid(o), tl.sigmoid(-2 * g)
    tl.store(gates + at, i, inside)
    tl.store(gates + at + H, f, inside)
    tl.store(gates + at + 2 * H, o, inside)
    tl.store(gates + at + 3 * H, g, inside)
    c = f * tl.load(cell + state, inside) + i * (1 - 2 * g)
    tl.store(next_cell + state, c, inside)
    made = (o * (1 - 2 * tl.sigmoid(-2 * c))).to(hidden.dtype.element_ty)
    tl.store(hidden + row * hidden_stride + h, made, inside)
    left = made.to(tl.float32)
    if DROPS:
        left *= tl.load(kept + state, inside).to(tl.float32)
    tl.store(out + row * out_stride + h, left, inside)


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
        dhidden *= tl.load(kept + state, inside).to(tl.float32)
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
    tl.store(dgates + at + 3 * H, 4 * dc * i * g * (1 - g), inside)


@triton.jit
def look(
    hidden,
    hidden_stride,
    weights,
    maps,
    L: tl.constexpr,
    H: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """softmax(W h): the map of a clip's next frame (eq. 4)."""
    b, place = tl.program_id(0).to(tl.int64), tl.arange(0, PLACES)
    h = hidden + b * hidden_stride
    scores = _times_places(h, h, weights, H, L, H, PLACES, BLOCK, False)
    scores = tl.where(place < L, scores, float("-inf"))
    shares = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(maps + b * L + place, shares / tl.sum(shares, axis=0), place < L)


@triton.jit
def glimpse(
    maps,
    x,
    clip_stride,
    place_stride,
    kept,
    out,
    out_stride,
    L: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPS: tl.constexpr,
):
    """Σ_l maps_l x_l of the features x (B, L, C) of a frame, less what is dropped (eq. 5)."""
    b, c = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, made = c < C, tl.zeros((BLOCK,), tl.float32)
    for place in tl.static_range(L):
        features = tl.load(x + b * clip_stride + place * place_stride + c, inside, 0)
        made += tl.load(maps + b * L + place) * features.to(tl.float32)
    if DROPS:
        made *= tl.load(kept + b * C + c, inside, 0).to(tl.float32)
    tl.store(out + b * out_stride + c, made, inside)


@triton.jit
def glimpse_back(
    above,
    above_stride,
    kept,
    x,
    clip_stride,
    place_stride,
    maps,
    dmaps,
    draw,
    L: tl.constexpr,
    C: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPS: tl.constexpr,
):
    """From the gradient of the glimpse after dropout, and dmaps, to that before the softmax."""
    b, place = tl.program_id(0).to(tl.int64), tl.arange(0, PLACES)
    inside, frame, row = place < L, x + b * clip_stride, above + b * above_stride
    dmap = _times_places(row, kept + b * C, frame, place_stride, L, C, PLACES, BLOCK, DROPS)
    dmap += tl.load(dmaps + b * L + place, inside, 0)
    seen = tl.load(maps + b * L + place, inside, 0)
    tl.store(draw + b * L + place, seen * (dmap - tl.sum(seen * dmap, axis=0)), inside)


@triton.jit
def look_back(
    draw,
    weights,
    dhidden,
    dhidden_stride,
    L: tl.constexpr,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Σ_l draw_l w_l of the gradient before the softmax, added to the hidden state's."""
    b, h = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at = h < H, dhidden + b * dhidden_stride + h
    made = tl.load(at, inside, 0).to(tl.float32)
    for place in tl.static_range(L):
        one = tl.load(draw + b * L + place).to(tl.float32)
        made += one * tl.load(weights + place * H + h, inside, 0).to(tl.float32)
    tl.store(at, made, inside)


@triton.jit
def _times_places(
    row,
    kept,
    matrix,
    place_stride,
    L: tl.constexpr,
    C: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPS: tl.constexpr,
):
    """Σ_c row_c kept_c matrix_lc for each place l."""
    place = tl.arange(0, PLACES)
    products = tl.zeros((PLACES, BLOCK), tl.float32)
    for first in range(0, C, BLOCK):
        c = first + tl.arange(0, BLOCK)
        there = (place < L)[:, None] & (c < C)[None, :]
        features = tl.load(matrix + place[:, None] * place_stride + c[None, :], there, 0)
        values = tl.load(row + c, c < C, 0).to(tl.float32)
        if DROPS:
            values *= tl.load(kept + c, c < C, 0).to(tl.float32)
        products += values[None, :] * features.to(tl.float32)
    return tl.sum(products, axis=1)


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
