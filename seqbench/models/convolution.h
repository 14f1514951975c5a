// A causal convolution, ReLU and dropout, forth and back, over sequences whose channels lie side by
// side: `(batch, time, channels)`; and the end of a residual block after its second one.
//
// Output j stands at input position `first + j * stride` and reads `taps` positions back from there,
// `dilation` apart; what is before the first position counts as zeros. So outputs that read the same
// taps are rows of a product: the input's rows, which already lie where they are read, times each
// tap's weights. Nothing is padded or moved. The way back to the input is the same from its side. For
// the weights see `convolution_weights.h`.

#pragma once

#include <cstdlib>
#include <memory>

#include "bfloat16.h"

constexpr int64_t PIECE = 64;  // steps that one thread takes at a time

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
// Upwards, and zero at least.
INLINE int64_t quotient(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : 0; }

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

// Memory to work in, which begins where a vector may.
template <class Thing> class Scratch {
    struct Free {
        void operator()(Thing *things) const { std::free(things); }
    };
    std::unique_ptr<Thing[], Free> things;

  public:
    Scratch() {}
    explicit Scratch(int64_t n)
        : things((Thing *)std::aligned_alloc(BYTES, quotient(n * sizeof(Thing), BYTES) * BYTES)) {}
    Thing *get() const { return things.get(); }
};

// Of `(batch, time, channels)`: where it is, and how far apart its sequences and its steps are.
template <class Value> struct Rows {
    Value *start;
    int64_t batch, time;

    Value *operator()(int64_t b, int64_t t) const { return start + b * batch + t * time; }
    explicit operator bool() const { return start; }
};

// A layer's tensors. P: a number of channels, filled up to whole vectors.
template <class Value> struct Layer {
    typedef typename Kind<Value>::Real Real;

    // Of the weights, (outputs, 1, 1) and (outputs, inputs, taps). Without a magnitude the direction
    // is the weights, and there is no ReLU.
    const Real *magnitude, *direction;
    const Real *bias;       // (outputs,)
    Rows<const Real> mask;  // what dropout multiplies an output by; or nothing
    Value *y;               // (batch, length, P)
    // Gradients: before ReLU, (batch, length, P); of the input, (batch, time, P of the inputs).
    Value *d_sum, *d_x;
    Real *d_magnitude, *d_direction, *d_bias;  // as their own
};

// And what is done with them. Where products take pairs of values, a step of `x` has an even number
// of channels.
template <class Value> struct Convolution : Layer<Value> {
    typedef typename Kind<Value>::Real Real;
    typedef typename Kind<Value>::Factor Factor;
    static constexpr int EACH = Kind<Value>::EACH;

    int64_t batch, time, inputs, outputs, taps, dilation, stride, length;
    Rows<const Value> x;
    // Where a residual block ends: what is added; and the sum, after ReLU, (batch, length, P) as it
    // is written. Or nothing.
    Rows<const Value> added;
    Rows<Value> total;
    Rows<const Value> d_total;  // its gradient, and that of what is added, (batch, length, P)
    Value *d_added;
    // The convolution that made the input, if one did: d_x is its d_sum.
    const Convolution *before;
    // What d_x is added to, (batch, shortcut, P of the inputs), so many steps apart, the last one at
    // the last position; or nothing.
    const Value *d_shortcut;
    int64_t shortcut, shortcut_stride;
    // To work in: what directions are multiplied by; (block of outputs, tap, factor of inputs, lane);
    // (block of inputs, tap, factor of outputs, lane); (group, row, P), see `weight_backward`.
    Scratch<Real> scale;
    Scratch<Factor> packed, packed_back;
    Scratch<Real> d_weight;

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

// Rows one after another that have the same taps, together. No tap comes and goes again, so where the
// first and the last row have the same, all do.
template <class Of, class Work>
INLINE void with_same_taps(int64_t begin, int64_t end, const Of &taps_of, const Work &work) {
    while (begin < end) {
        const Taps taps = taps_of(begin);
        const auto same = [&](int64_t row) {
            const Taps other = taps_of(row);
            return other.begin == taps.begin && other.end == taps.end;
        };
        int64_t stop = end;
        if (!same(end - 1))
            for (stop = begin + 1; same(stop);) stop++;
        work(begin, stop, taps);
        begin = stop;
    }
}

// NaN stays NaN.
template <class Real> INLINE Vector<Real> relu(Vector<Real> x) { return x < 0 ? Vector<Real>{} : x; }

// From the sum of products to a vector of channels of an output.
template <class Value, class Sum>
INLINE void end_output(const Convolution<Value> &c, int64_t b, int64_t j, int64_t at, Sum sum) {
    typedef typename Kind<Value>::Real Real;
    const int64_t place = (b * c.length + j) * c.out_padded() + at, left = c.outputs - at;
    if (c.magnitude) sum = relu<Real>(sum);
    if (c.mask) sum *= load_part(c.mask(b, j) + at, left);
    store(c.y + place, sum);
    if (!c.total) return;
    sum += load_part(c.added(b, j) + at, left);
    store(c.total(b, j) + at, relu<Real>(sum));
}

// Outputs from `begin` to before `end` of one sequence.
template <class Value>
static void forward_piece(const Convolution<Value> &c, int64_t b, int64_t begin, int64_t end) {
    typedef typename Kind<Value>::Real Real;
    constexpr int EACH = Kind<Value>::EACH;
    constexpr int L = LANES<Real>;
    const int64_t P = c.out_padded(), n = c.in_factors(), first = c.first();
    const auto taps_of = [&](int64_t j) {
        const int64_t before = (first + j * c.stride) / c.dilation;  // taps before the last
        return Taps{c.taps - 1 > before ? c.taps - 1 - before : 0, c.taps};
    };
    with_same_taps(begin, end, taps_of, [&](int64_t j, int64_t stop, Taps taps) {
        for (int64_t at = 0; at < P; at += BLOCK * L) {
            with_block<Real>(c.outputs - at, [&](auto width, auto half) {
                constexpr int V = decltype(width)::value;
                const auto *weights = c.packed.get() + at * c.taps * n;
                in_blocks<SUMS / V>(j, stop, [&](int64_t row, auto rows) {
                    const int64_t from = first + row * c.stride - c.back(taps.begin);
                    multiply<Real, decltype(rows)::value, V, decltype(half)::value>(
                        c.x(b, from), c.stride * c.x.time, EACH, c.dilation * c.x.time,
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

// From the gradient of an output to that before ReLU and dropout.
template <class Value, class Gradient>
INLINE auto through_relu(const Convolution<Value> &c, int64_t b, int64_t j, int64_t at, Gradient d) {
    if (c.mask) d *= load_part(c.mask(b, j) + at, c.outputs - at);
    return load(c.y + (b * c.length + j) * c.out_padded() + at) <= 0 ? Gradient{} : d;
}

// Where something was added.
template <class Value>
static void total_backward(const Convolution<Value> &c, int64_t b, int64_t begin, int64_t end) {
    typedef typename Kind<Value>::Real Real;
    const int64_t P = c.out_padded();
    for (int64_t j = begin; j < end; j++) {
        const int64_t place = (b * c.length + j) * P;
        for (int64_t at = 0; at < P; at += LANES<Real>) {
            const int64_t left = c.outputs - at;
            Vector<Real> d = load_part(c.d_total(b, j) + at, left);
            d = load_part(c.total(b, j) + at, left) <= 0 ? Vector<Real>{} : d;
            store(c.d_added + place + at, d);
            store(c.d_sum + place + at, through_relu(c, b, j, at, d));
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

// From the sum of products to a vector of channels of a position's gradient.
template <class Value, class Sum>
INLINE void end_input(const Convolution<Value> &c, int64_t b, int64_t position, int64_t at, Sum sum) {
    if (c.before) sum = through_relu(*c.before, b, position, at, sum);
    store(c.d_x + (b * c.time + position) * c.in_padded() + at, sum);
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
            for (int64_t at = 0; at < P; at += BLOCK * L) {
                with_block<Real>(c.inputs - at, [&](auto width, auto half) {
                    constexpr int V = decltype(width)::value;
                    const int64_t size = n * V * L;  // of a tap's weights
                    const auto *weights = c.packed_back.get() + at * c.taps * n;
                    in_blocks<SUMS / V>(i, stop, [&](int64_t row, auto block) {
                        multiply<Real, decltype(block)::value, V, decltype(half)::value>(
                            d_sum + (output + row - taps.begin * jump) * Q, Q, EACH, -jump * Q,
                            weights + (tap + taps.begin * step) * size, V * L, step * size, n,
                            taps.end - taps.begin,
                            [&](int r, int v) {
                                const int64_t p = rest + (row + r) * c.stride;
                                return begin_input(c, b, p, at + v * L);
                            },
                            [&](int r, int v, Vector<Real> sum) {
                                const int64_t p = rest + (row + r) * c.stride;
                                end_input(c, b, p, at + v * L, sum);
                            }
                        );
                    });
                });
            }
        });
    }
}
