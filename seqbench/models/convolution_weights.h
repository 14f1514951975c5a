// The weights of a convolution: their norm, the order in which products read them, and their gradients.
// That of a tap's weights is a product over time.

#pragma once

#include <cmath>

#include "convolution.h"

// Weight norm (Salimans and Kingma 2016): an output's weights are a direction, over its length, times
// a magnitude. The sum of two rows' products:
template <class Real> static Real dot(const Real *a, const Real *b, int64_t n) {
    Vector<Real> sum = {};
    for (int64_t k = 0; k < n; k += LANES<Real>) sum += load_part(a + k, n - k) * load_part(b + k, n - k);
    return total<Real>(sum);
}

template <class Real> static Real norm(const Real *a, int64_t n) { return std::sqrt(dot(a, a, n)); }

// What directions are multiplied by.
template <class Value> static auto scales(const Convolution<Value> &c) {
    typedef typename Kind<Value>::Real Real;
    Scratch<Real> scales(c.outputs);
    const int64_t n = c.inputs * c.taps;
    for (int64_t o = 0; o < c.outputs; o++)
        scales.get()[o] = c.magnitude ? c.magnitude[o] / norm(c.direction + o * n, n) : 1;
    return scales;
}

template <class Value>
INLINE auto weight_of(const Convolution<Value> &c, int64_t output, int64_t input, int64_t tap) {
    return c.scale.get()[output] * c.direction[(output * c.inputs + input) * c.taps + tap];
}

// Weights of taps from `begin` to before `end`, from n channels to so many others: (block, tap,
// factor, lane), filled up with zeros. `weight` gives one, of a channel, another and a tap.
template <class Value, class Weight>
static void pack_weights(
    const Convolution<Value> &c, typename Kind<Value>::Factor *to, int64_t n, int64_t width,
    int64_t begin, int64_t end, const Weight &weight
) {
    typedef typename Kind<Value>::Real Real;
    constexpr int L = LANES<Real>, EACH = Kind<Value>::EACH;
    const int64_t P = vectors<Real>(width) * L, factors = quotient(n, EACH);
    for (int64_t at = 0; at < P; at += L) {
        const int64_t block = at / (BLOCK * L) * (BLOCK * L), size = least(P - block, BLOCK * L);
        for (int64_t i = begin * factors; i < end * factors; i++) {
            Real values[EACH][L] = {};
            for (int64_t k = 0; k < EACH; k++) {
                const int64_t channel = i % factors * EACH + k;
                for (int64_t lane = 0; lane < least(width - at, L) && channel < n; lane++)
                    values[k][lane] = weight(channel, at + lane, i / factors);
            }
            auto *place = to + block * c.taps * factors + i * size + at - block;
            if constexpr (EACH == 2)
                store(place, paired(narrowed(load(values[0])), narrowed(load(values[1]))));
            else
                store(place, load(values[0]));
        }
    }
}

constexpr int64_t INPUTS = SUMS / BLOCK;  // channels of a product over time

// What products over time take of a sequence, which is to be told: its inputs, and the gradients of
// its outputs.
template <class Real> class OverTime {
    const Convolution<Real> &c;
    const Real *x, *d_sum;

  public:
    const int64_t step;

    explicit OverTime(const Convolution<Real> &c) : c(c), step(c.x.time) {}
    void take(int64_t b) {
        x = c.x(b, 0);
        d_sum = c.d_sum + b * c.length * c.out_padded();
    }
    const Real *inputs(int64_t position) const { return x + position * step; }
    const Real *gradients(int64_t output) const { return d_sum + output * c.out_padded(); }
};

// Pairs, for whom steps are put side by side: inputs each with the one a stride after it, gradients
// with the next one. Before the first and after the last there is zero.
template <> class OverTime<Bfloat16> {
    const Convolution<Bfloat16> &c;
    Scratch<Pair> x, d_sum;

  public:
    const int64_t step;

    explicit OverTime(const Convolution<Bfloat16> &c)
        : c(c), x((c.stride + c.time) * c.in_padded()),
          d_sum((c.length + 1) / 2 * c.out_padded()), step(c.in_padded()) {}
    void take(int64_t b) {
        constexpr int L = LANES<float>;
        const int64_t P = c.out_padded();
        // In registers: what is stored might otherwise change them.
        const int64_t stride = c.stride, time = c.time, length = c.length, gap = c.x.time;
        for (int64_t at = 0; at < step; at += L) {
            const int64_t left = c.inputs - at;
            const Bfloat16 *from = c.x(b, 0) + at;
            Pair *to = x.get() + at;
            for (int64_t t = -stride; t < time; t++, to += step) {
                const Halves first = halves(from + t * gap, t < 0 ? 0 : left);
                const Halves second = halves(from + (t + stride) * gap, t + stride < time ? left : 0);
                store(to, paired(first, second));
            }
        }
        for (int64_t at = 0; at < P; at += L) {
            const Bfloat16 *from = c.d_sum + b * length * P + at;
            Pair *to = d_sum.get() + at;
            for (int64_t j = 0; j < length; j += 2, from += 2 * P, to += P)
                store(to, paired(halves(from, L), halves(from + P, j + 1 < length ? L : 0)));
        }
    }
    const Pair *inputs(int64_t position) const { return x.get() + (c.stride + position) * step; }
    const Pair *gradients(int64_t output) const { return d_sum.get() + output / 2 * c.out_padded(); }
};

// How many groups the sequences are in, each with sums of its own: as many as a small memory holds,
// whatever the number of threads, for that must not change a sum.
template <class Value> static int64_t groups_of(const Convolution<Value> &c) {
    constexpr int64_t MOST = 4, VALUES = 1 << 18;
    const int64_t held = VALUES / ((c.taps * c.inputs + 1) * c.out_padded() + 1);
    const int64_t groups = least(least(c.batch, MOST), held);
    return groups > 1 ? groups : 1;
}

// Of a group of sequences, the sums for blocks of inputs, tap after tap, from `begin` to before
// `end`; with the first of them those for the biases. They are sums of pieces, which are then added,
// since one long sum would round off more.
template <class Value>
static void weight_backward(const Convolution<Value> &c, int64_t group, int64_t begin, int64_t end) {
    typedef typename Kind<Value>::Real Real;
    constexpr int L = LANES<Real>, EACH = Kind<Value>::EACH;
    const int64_t P = c.out_padded(), blocks = quotient(c.inputs, INPUTS), rows = c.taps * c.inputs;
    Real *d_weight = c.d_weight.get() + group * (rows + 1) * P, *d_bias = d_weight + rows * P;
    for (int64_t i = begin; i < end; i++) {
        const int64_t input = i % blocks * INPUTS, count = least(INPUTS, c.inputs - input);
        __builtin_memset(
            d_weight + (i / blocks * c.inputs + input) * P, 0, count * P * sizeof(Real)
        );
    }
    if (begin == 0) __builtin_memset(d_bias, 0, P * sizeof(Real));
    OverTime<Value> sequence(c);
    const int64_t groups = groups_of(c);
    for (int64_t b = group * c.batch / groups; b < (group + 1) * c.batch / groups; b++) {
        sequence.take(b);
        for (int64_t piece = 0; piece < c.length; piece += 2 * PIECE)
            for (int64_t at = 0; at < P; at += BLOCK * L)
                for (int64_t i = begin; i < end; i++) {
                    const int64_t tap = i / blocks, input = i % blocks * INPUTS;
                    const int64_t missing = quotient(c.back(tap) - c.first(), c.stride);
                    const int64_t j = (missing > piece ? missing : piece) / EACH * EACH;
                    const int64_t n = quotient(least(piece + 2 * PIECE, c.length) - j, EACH);
                    if (n <= 0) continue;
                    const auto *x = sequence.inputs(c.first() + j * c.stride - c.back(tap));
                    const auto *d_sum = sequence.gradients(j) + at;
                    with_block<Real>(c.outputs - at, [&](auto width, auto half) {
                        constexpr int V = decltype(width)::value;
                        const int64_t stop = least(input + INPUTS, c.inputs);
                        in_blocks<INPUTS>(input, stop, [&](int64_t i, auto rows) {
                            Real *to = d_weight + (tap * c.inputs + i) * P + at;
                            multiply<Real, decltype(rows)::value, V, decltype(half)::value>(
                                x + i, 1, EACH * c.stride * sequence.step, 0, d_sum, P, 0, n, 1,
                                [&](int, int) { return Vector<Real>{}; },
                                [&](int r, int v, Vector<Real> sum) {
                                    Real *place = to + r * P + v * L;
                                    store<Real>(place, load<Real>(place) + sum);
                                }
                            );
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

// Of all groups, from there on, in the memory of the first: a vector of outputs, row after row.
template <class Value> static void add_groups(const Convolution<Value> &c, int64_t at) {
    typedef typename Kind<Value>::Real Real;
    const int64_t P = c.out_padded(), size = (c.taps * c.inputs + 1) * P;
    for (int64_t group = 1; group < groups_of(c); group++)
        for (Real *to = c.d_weight.get() + at; to < c.d_weight.get() + size; to += P)
            store<Real>(to, load<Real>(to) + load<Real>(to + group * size));
}

// From the gradients of the weights of an output to those of its direction and magnitude.
template <class Value> static void norm_backward(const Convolution<Value> &c, int64_t output) {
    typedef typename Kind<Value>::Real Real;
    const int64_t n = c.inputs * c.taps;
    const Real *direction = c.direction + output * n;
    Real *d = c.d_direction + output * n;
    const Real length = norm(direction, n), magnitude = c.magnitude[output];
    const Real d_magnitude = c.d_magnitude[output] = dot(d, direction, n) / length;
    for (int64_t k = 0; k < n; k++)
        d[k] = magnitude / length * (d[k] - d_magnitude / length * direction[k]);
}

// Gradients of weights and biases as they are wanted, of outputs from `begin` to before `end`.
template <class Value>
static void unpack_weights(const Convolution<Value> &c, int64_t begin, int64_t end) {
    const int64_t P = c.out_padded(), rows = c.taps * c.inputs;
    for (int64_t output = begin; output < end; output++) {
        const auto *from = c.d_weight.get() + output;
        for (int64_t input = 0; input < c.inputs; input++)
            for (int64_t tap = 0; tap < c.taps; tap++) {
                const int64_t to = (output * c.inputs + input) * c.taps + tap;
                c.d_direction[to] = from[(tap * c.inputs + input) * P];
            }
        c.d_bias[output] = from[rows * P];
        if (c.magnitude) norm_backward(c, output);
    }
}
