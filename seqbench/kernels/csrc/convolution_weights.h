// The weights of a convolution: weight norm, packing, and their gradients. The gradient of a tap's
// weights is a matrix product over time.

#pragma once

#include "convolution.h"

// Weight norm (Salimans and Kingma 2016): the weight of an output is its direction, over its length,
// times its magnitude.
template <class Real> static Real dot(const Real *a, const Real *b, int64_t n) {
    Vector<Real> sum = {};
    for (int64_t k = 0; k < n; k += LANES<Real>)
        sum = fma(load_part(a + k, n - k), load_part(b + k, n - k), sum);
    return horizontal_sum<Real>(sum);
}

template <class Real> static Real norm(const Real *a, int64_t n) {
    const Real squares = dot(a, a, n);
    if constexpr (sizeof(Real) == 4)
        return __builtin_sqrtf(squares);
    else
        return __builtin_sqrt(squares);
}

template <class Value> static void compute_scales(const Convolution<Value> &c) {
    const int64_t n = c.inputs * c.taps;
    for (int64_t o = 0; o < c.outputs; o++)
        c.scale[o] = c.magnitude ? c.magnitude[o] / norm(c.direction + o * n, n) : 1;
}

// Pack some taps of weights that map n channels to `width` channels: (panel, tap, operand, lane), with
// zeros in the padding. `weight(channel, column, tap)` gives one.
template <class Value, class Weight>
static void pack_taps(
    const Convolution<Value> &c, typename Types<Value>::Operand *to, int64_t n, int64_t width,
    int64_t begin, int64_t end, const Weight &weight
) {
    typedef typename Types<Value>::Real Real;
    constexpr int L = LANES<Real>, EACH = Types<Value>::EACH;
    const int64_t P = padded<Real>(width), operands = ceil_div(n, EACH);
    for (int64_t at = 0; at < P; at += L) {
        const int64_t panel = at / (PANEL * L) * (PANEL * L), size = min(P - panel, PANEL * L);
        for (int64_t i = begin * operands; i < end * operands; i++) {
            Real values[EACH][L] = {};
            for (int64_t k = 0; k < EACH; k++) {
                const int64_t channel = i % operands * EACH + k;
                for (int64_t lane = 0; lane < min(width - at, L) && channel < n; lane++)
                    values[k][lane] = weight(channel, at + lane, i / operands);
            }
            auto *place = to + panel * c.taps * operands + i * size + at - panel;
            if constexpr (EACH == 2)
                store(place, interleave(narrow(load(values[0])), narrow(load(values[1]))));
            else
                store(place, load(values[0]));
        }
    }
}

constexpr int64_t INPUTS = ROWS<PANEL>;  // channels of the inputs in a tile of a product over time

// The operands of products over time, of one sequence at a time: inputs and gradients of outputs.
template <class Real> class OverTime {
    const Convolution<Real> &c;
    const Real *x = nullptr, *d_sum = nullptr;

  public:
    const int64_t step;

    OverTime(const Convolution<Real> &c, int64_t) : c(c), step(c.x.time) {}
    static int64_t pairs(const Convolution<Real> &) { return 0; }
    void take(int64_t b) {
        x = c.x(b, 0);
        d_sum = c.d_sum + b * c.length * c.out_padded();
    }
    const Real *inputs(int64_t position) const { return x + position * step; }
    const Real *gradients(int64_t output) const { return d_sum + output * c.out_padded(); }
};

// In bfloat16 operands are pairs of time steps, which are copied side by side: each input with the one a
// stride later, each second gradient with the next one; zeros before the first and after the last.
template <> class OverTime<Bfloat16> {
    const Convolution<Bfloat16> &c;
    Pair *x, *d_sum;

  public:
    const int64_t step;

    OverTime(const Convolution<Bfloat16> &c, int64_t thread)
        : c(c), x(c.pairs + thread * pairs(c)), d_sum(x + (c.stride + c.time) * c.in_padded()),
          step(c.in_padded()) {}
    static int64_t pairs(const Convolution<Bfloat16> &c) {
        return (c.stride + c.time) * c.in_padded() + (c.length + 1) / 2 * c.out_padded();
    }
    void take(int64_t b) {
        constexpr int L = LANES<float>;
        const int64_t P = c.out_padded();
        // Copies, since for all the compiler knows the stores below might change the originals.
        const int64_t stride = c.stride, time = c.time, length = c.length, gap = c.x.time;
        for (int64_t at = 0; at < step; at += L) {
            const int64_t left = c.inputs - at;
            const Bfloat16 *from = c.x(b, 0) + at;
            Pair *to = x + at;
            for (int64_t t = -stride; t < time; t++, to += step) {
                const Narrow first = load_narrow(from + t * gap, t < 0 ? 0 : left);
                const bool last = t + stride >= time;
                store(to, interleave(first, load_narrow(from + (t + stride) * gap, last ? 0 : left)));
            }
        }
        for (int64_t at = 0; at < P; at += L) {
            const Bfloat16 *from = c.d_sum + b * length * P + at;
            Pair *to = d_sum + at;
            for (int64_t j = 0; j < length; j += 2, from += 2 * P, to += P) {
                const Narrow second = load_narrow(from + P, j + 1 < length ? L : 0);
                store(to, interleave(load_narrow(from, L), second));
            }
        }
    }
    const Pair *inputs(int64_t position) const { return x + (c.stride + position) * step; }
    const Pair *gradients(int64_t output) const { return d_sum + output / 2 * c.out_padded(); }
};

// Groups of sequences, each with sums of its own: as many as cache L2 holds, whatever the number of
// threads, which must not change a sum.
template <class Value> static int64_t group_count(const Convolution<Value> &c) {
    constexpr int64_t MOST = 4, VALUES = 1 << 18;
    const int64_t held = VALUES / ((c.taps * c.inputs + 1) * c.out_padded() + 1);
    return max(min(min(c.batch, MOST), held), 1);
}

// Items of weights_backward in a group: a tile of inputs of a tap.
template <class Value> static int64_t input_tiles(const Convolution<Value> &c) {
    return c.taps * ceil_div(c.inputs, INPUTS);
}

// Of one group of sequences, sum the gradients of the weights of some input tiles, tap after tap; with
// the first of them that of the bias. They are sums of pieces, which are then added, since one long sum
// would round off more.
template <class Value>
static void sum_weights(
    const Convolution<Value> &c, int64_t group, int64_t begin, int64_t end, int64_t thread
) {
    typedef typename Types<Value>::Real Real;
    constexpr int L = LANES<Real>, EACH = Types<Value>::EACH;
    const int64_t P = c.out_padded(), blocks = ceil_div(c.inputs, INPUTS), rows = c.taps * c.inputs;
    Real *d_weight = c.d_weight + group * (rows + 1) * P, *d_bias = d_weight + rows * P;
    for (int64_t i = begin; i < end; i++) {
        const int64_t input = i % blocks * INPUTS, count = min(INPUTS, c.inputs - input);
        __builtin_memset(
            d_weight + (i / blocks * c.inputs + input) * P, 0, count * P * sizeof(Real)
        );
    }
    if (begin == 0) __builtin_memset(d_bias, 0, P * sizeof(Real));
    OverTime<Value> sequence(c, thread);
    const int64_t groups = group_count(c);
    for (int64_t b = group * c.batch / groups; b < (group + 1) * c.batch / groups; b++) {
        sequence.take(b);
        for (int64_t piece = 0; piece < c.length; piece += 2 * STEPS)
            for (int64_t at = 0; at < c.outputs; at += PANEL * L)
                for (int64_t i = begin; i < end; i++) {
                    const int64_t tap = i / blocks, input = i % blocks * INPUTS;
                    const int64_t missing = ceil_div(c.reach(tap) - c.first(), c.stride);
                    const int64_t j = max(missing, piece) / EACH * EACH;
                    const int64_t n = ceil_div(min(piece + 2 * STEPS, c.length) - j, EACH);
                    if (n <= 0) continue;
                    const auto *x = sequence.inputs(c.first() + j * c.stride - c.reach(tap));
                    const auto *d_sum = sequence.gradients(j) + at;
                    with_panel<Real>(c.outputs - at, [&](auto width, auto half) {
                        constexpr int V = decltype(width)::value;
                        const int64_t stop = min(input + INPUTS, c.inputs);
                        row_blocks<INPUTS>(input, stop, [&](int64_t channel, auto block) {
                            Tile<Real, decltype(block)::value, V, decltype(half)::value> tile(
                                [](int, int) { return Vector<Real>{}; }
                            );
                            tile.add(x + channel, 1, EACH * c.stride * sequence.step, d_sum, P, n);
                            Real *to = d_weight + (tap * c.inputs + channel) * P + at;
                            tile.finish([&](int r, int v, Vector<Real> sum) {
                                Real *place = to + r * P + v * L;
                                store<Real>(place, load<Real>(place) + sum);
                            });
                        });
                    });
                }
        for (int64_t at = 0; at < P && begin == 0; at += L) {
            Vector<Real> sum = {};
            for (int64_t j = 0; j < c.length; j++) sum += load(c.d_sum + (b * c.length + j) * P + at);
            store<Real>(d_bias + at, load<Real>(d_bias + at) + sum);
        }
    }
}

// Add the groups' sums, for a vector of outputs that begins at `at`, into the first group's.
template <class Value> static void add_groups(const Convolution<Value> &c, int64_t at) {
    typedef typename Types<Value>::Real Real;
    const int64_t P = c.out_padded(), size = (c.taps * c.inputs + 1) * P;
    for (int64_t group = 1; group < group_count(c); group++)
        for (Real *to = c.d_weight + at; to < c.d_weight + size; to += P)
            store<Real>(to, load<Real>(to) + load<Real>(to + group * size));
}

// From the gradient of an output's weight, in d_direction, to those of its direction and magnitude.
template <class Value> static void norm_backward(const Convolution<Value> &c, int64_t output) {
    typedef typename Types<Value>::Real Real;
    const int64_t n = c.inputs * c.taps;
    const Real *direction = c.direction + output * n;
    Real *d = c.d_direction + output * n;
    const Real length = norm(direction, n), magnitude = c.magnitude[output];
    const Real d_magnitude = c.d_magnitude[output] = dot(d, direction, n) / length;
    for (int64_t k = 0; k < n; k++)
        d[k] = magnitude / length * (d[k] - d_magnitude / length * direction[k]);
}

// Write the gradients of the parameters of some outputs, as they lie in memory.
template <class Value>
static void write_gradients(const Convolution<Value> &c, int64_t begin, int64_t end) {
    const int64_t P = c.out_padded(), rows = c.taps * c.inputs;
    for (int64_t output = begin; output < end; output++) {
        const auto *from = c.d_weight + output;
        for (int64_t input = 0; input < c.inputs; input++)
            for (int64_t tap = 0; tap < c.taps; tap++) {
                const int64_t to = (output * c.inputs + input) * c.taps + tap;
                c.d_direction[to] = from[(tap * c.inputs + input) * P];
            }
        c.d_bias[output] = from[rows * P];
        if (c.magnitude) norm_backward(c, output);
    }
}
