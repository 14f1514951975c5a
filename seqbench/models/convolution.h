// A causal convolution, ReLU and dropout, forth and back, over sequences whose channels lie side by
// side: `(batch, time, channels)`; and the end of a residual block after its second one.
//
// Output j stands at input position `first + j * stride` and reads `taps` positions back from there,
// `dilation` apart; what is before the first position counts as zeros. So outputs that read the same
// taps are rows of a product: the input's rows, which already lie where they are read, times each
// tap's weights. Nothing is padded or moved. The way back to the input is the same from its side, and
// the gradient of a tap's weights is a product over time.

#pragma once

#include <memory>

#include "bfloat16.h"

constexpr int64_t PIECE = 64;  // steps that one thread takes at a time

// Of values in sequences: what sums, weights and gradients of weights are, and what a product takes
// at once, which is so many values.
template <class Value> struct Kind {
    typedef Value Real;
    typedef Value Factor;
    static constexpr int EACH = 1;
};

template <> struct Kind<Bfloat16> {
    typedef float Real;
    typedef Pair Factor;
    static constexpr int EACH = 2;
};

// Where tensors are; `tcn_cpu.py` fills it. P: a number of channels, filled up to whole
// vectors. Where products take pairs of values, a step of `x` has an even number of channels.
template <class Value> struct Convolution {
    typedef typename Kind<Value>::Real Real;
    typedef typename Kind<Value>::Factor Factor;
    static constexpr int EACH = Kind<Value>::EACH;

    int64_t threads, batch, time, inputs, outputs, taps, dilation, stride, length;
    const Value *x;
    int64_t x_batch, x_time;  // how far apart its sequences and its steps are
    int64_t linear;  // whether there is no ReLU
    // Of the weights, (outputs, inputs, taps) and (outputs,). Without a magnitude the direction is
    // the weights.
    const Real *direction, *magnitude;
    const Real *bias;  // (outputs,)
    Factor *packed;    // to work in: (block of outputs, tap, factor of inputs, lane)
    const Real *mask;  // what dropout multiplies an output by; or nothing
    int64_t mask_batch, mask_time;
    Value *y;  // (batch, length, P)
    // Where a residual block ends: what is added, to begin with the first output; or nothing.
    const Value *added;
    int64_t added_batch, added_time;
    Value *total;  // of y and what is added, after ReLU; (batch, length, P) as it is written
    int64_t total_batch, total_time;
    // For the way back. The gradient of `total` if there is one, or else of `y`.
    const Value *d_y;
    int64_t d_y_batch, d_y_time;
    Value *d_added;  // (batch, length, P)
    Factor *packed_back;  // to work in: (block of inputs, tap, factor of outputs, lane)
    Value *d_sum;         // (batch, length, P): before ReLU; given, if there is none
    Value *d_x;           // (batch, time, P of the inputs)
    // What d_x is added to, (batch, shortcut, P of the inputs), so many steps apart, the last one at
    // the last position; or nothing.
    const Value *d_shortcut;
    int64_t shortcut, shortcut_stride;
    Real *d_weight;       // to work in: (taps, inputs, P)
    Real *d_direction, *d_magnitude, *d_bias;  // as their own

    int64_t in_padded() const { return vectors<Real>(inputs) * LANES<Real>; }
    int64_t out_padded() const { return vectors<Real>(outputs) * LANES<Real>; }
    int64_t in_factors() const { return (inputs + EACH - 1) / EACH; }
    int64_t out_factors() const { return (outputs + EACH - 1) / EACH; }
    int64_t first() const { return time - 1 - (length - 1) * stride; }
    // How far before an output the position is that a tap reads.
    int64_t back(int64_t tap) const { return (taps - 1 - tap) * dilation; }
};

// Taps from `begin` to before `end`.
struct Taps {
    int64_t begin, end;
};

// Rows one after another that have the same taps, together.
template <class Of, class Work>
INLINE void with_same_taps(int64_t begin, int64_t end, const Of &taps_of, const Work &work) {
    while (begin < end) {
        const Taps taps = taps_of(begin);
        int64_t stop = begin + 1;
        for (; stop < end; stop++) {
            const Taps next = taps_of(stop);
            if (next.begin != taps.begin || next.end != taps.end) break;
        }
        work(begin, stop, taps);
        begin = stop;
    }
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
// Upwards, and zero at least.
INLINE int64_t quotient(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : 0; }

// NaN stays NaN.
template <class Real> INLINE Vector<Real> relu(Vector<Real> x) { return x < 0 ? Vector<Real>{} : x; }

// From the sum of products to a vector of channels of an output.
template <class Value, class Sum>
INLINE void end_output(const Convolution<Value> &c, int64_t b, int64_t j, int64_t at, Sum sum) {
    typedef typename Kind<Value>::Real Real;
    const int64_t place = (b * c.length + j) * c.out_padded() + at, left = c.outputs - at;
    if (!c.linear) sum = relu<Real>(sum);
    if (c.mask) sum *= load_part(c.mask + b * c.mask_batch + j * c.mask_time + at, left);
    store(c.y + place, sum);
    if (!c.total) return;
    sum += load_part(c.added + b * c.added_batch + j * c.added_time + at, left);
    store(c.total + b * c.total_batch + j * c.total_time + at, relu<Real>(sum));
}

// Outputs from `begin` to before `end` of one sequence.
template <class Value>
static void forward_piece(const Convolution<Value> &c, int64_t b, int64_t begin, int64_t end) {
    typedef typename Kind<Value>::Real Real;
    constexpr int EACH = Kind<Value>::EACH;
    constexpr int L = LANES<Real>;
    const int64_t P = c.out_padded(), n = c.in_factors(), first = c.first();
    const Value *x = c.x + b * c.x_batch;
    const auto taps_of = [&](int64_t j) {
        const int64_t before = (first + j * c.stride) / c.dilation;  // taps before the last
        return Taps{c.taps - 1 > before ? c.taps - 1 - before : 0, c.taps};
    };
    with_same_taps(begin, end, taps_of, [&](int64_t j, int64_t stop, Taps taps) {
        for (int64_t at = 0; at < P; at += BLOCK * L) {
            with_block<Real>(c.outputs - at, [&](auto width, auto half) {
                constexpr int V = decltype(width)::value;
                const auto *weights = c.packed + at * c.taps * n;
                in_blocks<SUMS / V>(j, stop, [&](int64_t row, auto rows) {
                    const int64_t from = first + row * c.stride - c.back(taps.begin);
                    multiply<Real, decltype(rows)::value, V, decltype(half)::value>(
                        x + from * c.x_time, c.stride * c.x_time, EACH, c.dilation * c.x_time,
                        weights + taps.begin * n * V * L, V * L, n * V * L, n,
                        taps.end - taps.begin,
                        [&](int, int v) {
                            return load_part(c.bias + at + v * L, c.outputs - at - v * L);
                        },
                        [&](int r, int v, Vector<Real> sum) {
                            end_output(c, b, row + r, at + v * L, sum);
                        }
                    );
                });
            });
        }
    });
}

template <class Value>
static void relu_backward(const Convolution<Value> &c, int64_t b, int64_t begin, int64_t end) {
    typedef typename Kind<Value>::Real Real;
    constexpr int L = LANES<Real>;
    const int64_t P = c.out_padded();
    for (int64_t j = begin; j < end; j++) {
        const int64_t place = (b * c.length + j) * P;
        const Value *d_y = c.d_y + b * c.d_y_batch + j * c.d_y_time;
        for (int64_t at = 0; at < P; at += L) {
            const int64_t left = c.outputs - at;
            const Vector<Real> zero = {}, y = load(c.y + place + at);
            Vector<Real> d = load_part(d_y + at, left);
            if (c.total) {
                const Value *total = c.total + b * c.total_batch + j * c.total_time;
                d = load_part(total + at, left) <= 0 ? zero : d;
                store(c.d_added + place + at, d);
            }
            if (c.mask) d *= load_part(c.mask + b * c.mask_batch + j * c.mask_time + at, left);
            store(c.d_sum + place + at, y <= 0 ? zero : d);
        }
    }
}

// What reaches a position beside the convolution.
template <class Value>
INLINE auto begin_input(const Convolution<Value> &c, int64_t b, int64_t position, int64_t at) {
    const int64_t before = c.time - 1 - position;
    const int64_t j = c.d_shortcut ? c.shortcut - 1 - before / c.shortcut_stride : -1;
    if (j < 0 || before % c.shortcut_stride) return Vector<typename Kind<Value>::Real>{};
    return load(c.d_shortcut + (b * c.shortcut + j) * c.in_padded() + at);
}

// Positions from `begin` to before `end` of one sequence. With a stride, those that leave the same
// rest are read by the same taps, each `step` after the last.
template <class Value>
static void input_backward(const Convolution<Value> &c, int64_t b, int64_t begin, int64_t end) {
    typedef typename Kind<Value>::Real Real;
    constexpr int EACH = Kind<Value>::EACH;
    constexpr int L = LANES<Real>;
    const int64_t P = c.in_padded(), Q = c.out_padded(), n = c.out_factors(), first = c.first();
    int64_t step = 1;
    while (step * c.dilation % c.stride) step++;
    const int64_t jump = step * c.dilation / c.stride;  // outputs from one of these taps to the next
    Value *d_x = c.d_x + b * c.time * P;
    const Value *d_sum = c.d_sum + b * c.length * Q;
    for (int64_t rest = begin; rest < least(begin + c.stride, end); rest++) {
        int64_t tap = 0;  // the first that reads these positions
        while (tap < step && (rest - first + c.back(tap)) % c.stride) tap++;
        const int64_t count = tap < step ? quotient(c.taps - tap, step) : 0;
        // Of row i, the output that reads it by the first tap, if there were so many.
        const int64_t output = (rest - first + c.back(tap)) / c.stride;
        const auto taps_of = [&](int64_t i) {
            const int64_t j = output + i;
            return Taps{
                least(quotient(j - c.length + 1, jump), count),
                j < 0 ? 0 : least(j / jump + 1, count),
            };
        };
        const int64_t rows = quotient(end - rest, c.stride);
        with_same_taps(0, rows, taps_of, [&](int64_t i, int64_t stop, Taps taps) {
            const int64_t segments = taps.end - taps.begin;
            for (int64_t at = 0; at < P; at += BLOCK * L) {
                with_block<Real>(c.inputs - at, [&](auto width, auto half) {
                    constexpr int V = decltype(width)::value;
                    const int64_t size = n * V * L;  // of a tap's weights
                    const auto *weights = c.packed_back + at * c.taps * n;
                    in_blocks<SUMS / V>(i, stop, [&](int64_t row, auto block) {
                        multiply<Real, decltype(block)::value, V, decltype(half)::value>(
                            d_sum + (output + row - taps.begin * jump) * Q, Q, EACH, -jump * Q,
                            weights + (tap + taps.begin * step) * size, V * L, step * size, n,
                            segments > 0 ? segments : 0,
                            [&](int r, int v) {
                                const int64_t p = rest + (row + r) * c.stride;
                                return begin_input(c, b, p, at + v * L);
                            },
                            [&](int r, int v, Vector<Real> sum) {
                                const int64_t p = rest + (row + r) * c.stride;
                                store(d_x + p * P + at + v * L, sum);
                            }
                        );
                    });
                });
            }
        });
    }
}

constexpr int64_t INPUTS = SUMS / BLOCK;  // channels of a product over time

// What products over time take of one sequence: its inputs, and the gradients of its outputs.
template <class Real> class OverTime {
    const Real *x, *d_sum;
    int64_t out_padded;

  public:
    const int64_t step;

    OverTime(const Convolution<Real> &c, int64_t b)
        : x(c.x + b * c.x_batch), d_sum(c.d_sum + b * c.length * c.out_padded()),
          out_padded(c.out_padded()), step(c.x_time) {}
    const Real *inputs(int64_t position) const { return x + position * step; }
    const Real *gradients(int64_t output) const { return d_sum + output * out_padded; }
};

// Pairs, for whom steps are put side by side: inputs each with the one a stride after it, gradients
// with the next one. Before the first and after the last there is zero.
template <> class OverTime<Bfloat16> {
    int64_t stride, out_padded;
    std::unique_ptr<Pair[]> x, d_sum;

  public:
    const int64_t step;

    OverTime(const Convolution<Bfloat16> &c, int64_t b)
        : stride(c.stride), out_padded(c.out_padded()),
          x(new Pair[(c.stride + c.time) * c.in_padded()]),
          d_sum(new Pair[(c.length + 1) / 2 * c.out_padded()]), step(c.in_padded()) {
        constexpr int L = LANES<float>;
        const auto input = [&](int64_t t, int64_t at) {
            const bool there = 0 <= t && t < c.time;
            return halves(c.x + b * c.x_batch + t * c.x_time + at, there ? c.inputs - at : 0);
        };
        for (int64_t t = 0; t < c.stride + c.time; t++)
            for (int64_t at = 0; at < step; at += L)
                store(x.get() + t * step + at, paired(input(t - c.stride, at), input(t, at)));
        const auto gradient = [&](int64_t j, int64_t at) {
            const Bfloat16 *row = c.d_sum + (b * c.length + j) * out_padded;
            return halves(row + at, j < c.length ? L : 0);
        };
        for (int64_t j = 0; j < c.length; j += 2)
            for (int64_t at = 0; at < out_padded; at += L)
                store(gradients(j) + at, paired(gradient(j, at), gradient(j + 1, at)));
    }
    const Pair *inputs(int64_t position) const { return x.get() + (stride + position) * step; }
    Pair *gradients(int64_t output) const { return d_sum.get() + output / 2 * out_padded; }
};

// Weights of blocks of inputs, tap after tap, from `begin` to before `end`: sums of pieces, which
// are then added, since one long sum would round off more.
template <class Value>
static void weight_backward(const Convolution<Value> &c, int64_t begin, int64_t end) {
    typedef typename Kind<Value>::Real Real;
    constexpr int L = LANES<Real>, EACH = Kind<Value>::EACH;
    const int64_t P = c.out_padded(), blocks = quotient(c.inputs, INPUTS);
    for (int64_t i = begin; i < end; i++) {
        const int64_t input = i % blocks * INPUTS, count = least(INPUTS, c.inputs - input);
        Real *to = c.d_weight + (i / blocks * c.inputs + input) * P;
        __builtin_memset(to, 0, count * P * sizeof(Real));
    }
    for (int64_t b = 0; b < c.batch; b++) {
        const OverTime<Value> sequence(c, b);
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
                            Real *to = c.d_weight + (tap * c.inputs + i) * P + at;
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
    }
}

// The biases' gradients: sums over each sequence, which are then added.
template <class Value> static void bias_backward(const Convolution<Value> &c) {
    typedef typename Kind<Value>::Real Real;
    const int64_t P = c.out_padded();
    for (int64_t at = 0; at < P; at += LANES<Real>) {
        Vector<Real> total = {};
        for (int64_t b = 0; b < c.batch; b++) {
            Vector<Real> sum = {};
            for (int64_t j = 0; j < c.length; j++) sum += load(c.d_sum + (b * c.length + j) * P + at);
            total += sum;
        }
        store_part<Real>(c.d_bias + at, total, c.outputs - at);
    }
}
