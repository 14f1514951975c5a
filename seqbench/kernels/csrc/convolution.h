// A causal convolution with ReLU and dropout, forward and backward, on sequences whose channels are
// contiguous, (batch, time, channels); and the end of a residual block, which follows its second one.
//
// Output j is at input position first + j * stride. It reads `taps` positions, `dilation` apart, the
// last of which is its own; positions before the sequence count as zeros. Outputs that read the same
// taps are rows of a matrix product: rows of the input, which already lie where they are read, times the
// weights of each tap. Nothing is padded or copied. The gradient of the input is the same product seen
// from the input. For the weights see convolution_weights.h.

#pragma once

#include "gemm.h"
#include "parallel.h"

constexpr int64_t STEPS = 64;  // time steps of a sequence that a thread takes at a time

// For the type of a sequence's values: the type of sums and weights, and the operand of a product, which
// is EACH values.
template <class Value> struct Types {
    typedef Value Real;
    typedef Value Operand;
    static constexpr int EACH = 1;
};

template <> struct Types<Bfloat16> {
    typedef float Real;
    typedef Pair Operand;
    static constexpr int EACH = 2;
};

// Where a tensor (batch, time, channels) is, with its strides; channels are contiguous.
template <class Value> struct Rows {
    Value *start;
    int64_t batch, time;

    Value *operator()(int64_t b, int64_t t) const { return start + b * batch + t * time; }
    explicit operator bool() const { return start; }
};

// "P" in a shape: channels, padded to whole vectors. If operands are pairs of values, rows of `x` have an
// even number of channels.
template <class Value> struct Convolution {
    typedef typename Types<Value>::Real Real;
    typedef typename Types<Value>::Operand Operand;
    static constexpr int EACH = Types<Value>::EACH, L = LANES<Real>;

    int64_t batch = 0, time = 0, inputs = 0, outputs = 0, taps = 0, dilation = 1, stride = 1, length = 0;
    Rows<const Value> x = {};
    // (outputs, 1, 1) and (outputs, inputs, taps). Without a magnitude, the direction is the weight, and
    // there is no ReLU.
    const Real *magnitude = nullptr, *direction = nullptr;
    const Real *bias = nullptr;   // (outputs,)
    Rows<const Real> mask = {};   // dropout: the output is multiplied by it; or null
    Value *y = nullptr;           // (batch, length, P)
    // At the end of a residual block: the shortcut that is added, and the sum after ReLU, of rows of
    // total.time values; or null.
    Rows<const Value> added = {};
    Rows<Value> total = {};

    // Backward: the gradient of `total`, and of `added`, (batch, length, P).
    Rows<const Value> d_total = {};
    Value *d_added = nullptr;
    // Gradients of the sum before ReLU, (batch, length, P), and of x, (batch, time, P of inputs).
    Value *d_sum = nullptr, *d_x = nullptr;
    Real *d_magnitude = nullptr, *d_direction = nullptr, *d_bias = nullptr;
    // The convolution whose output x is, if there is one: d_x is its d_sum.
    const Convolution *before = nullptr;
    // What is added to d_x, (batch, shortcut_length, P of inputs), at positions shortcut_stride apart,
    // of which the last is that of x; or null.
    const Value *d_shortcut = nullptr;
    int64_t shortcut_length = 0, shortcut_stride = 1;

    // Workspace.
    Real *scale = nullptr;  // (outputs,): direction times scale is the weight
    // (panel of outputs, tap, operand of inputs, lane) and (panel of inputs, tap, operand of outputs, lane).
    Operand *packed = nullptr, *packed_transposed = nullptr;
    Real *d_weight = nullptr;  // (group, tap and input and bias, P); see sum_weights
    // Of each thread: pairs of time steps of x and d_sum; see OverTime<Bfloat16>.
    Pair *pairs = nullptr;

    int64_t in_padded() const { return padded<Real>(inputs); }
    int64_t out_padded() const { return padded<Real>(outputs); }
    int64_t in_operands() const { return ceil_div(inputs, EACH); }
    int64_t out_operands() const { return ceil_div(outputs, EACH); }
    int64_t first() const { return time - 1 - (length - 1) * stride; }
    // The distance from an output back to the position that a tap reads.
    int64_t reach(int64_t tap) const { return (taps - 1 - tap) * dilation; }
};

// Taps from `begin` to before `end`.
struct Taps {
    int64_t begin, end;
};

// Call `work(begin, end, taps)` for runs of rows that have the same taps. A tap that rows have left does
// not come back: if the first and the last row have the same taps, all have.
template <class Of, class Work>
INLINE void runs_of_taps(int64_t begin, int64_t end, const Of &taps_of, const Work &work) {
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

// From the sums of a vector of channels of output j to what is stored.
template <class Value, class Sum>
INLINE void finish_output(const Convolution<Value> &c, int64_t b, int64_t j, int64_t at, Sum sum) {
    typedef typename Types<Value>::Real Real;
    if (c.magnitude) sum = relu<Real>(sum);
    if (c.mask) sum *= load_part(c.mask(b, j) + at, c.outputs - at);
    store(c.y + (b * c.length + j) * c.out_padded() + at, sum);
    if (!c.total) return;
    sum += load_part(c.added(b, j) + at, c.outputs - at);
    store_part(c.total(b, j) + at, relu<Real>(sum), c.total.time - at);
}

// Compute outputs from `begin` to before `end` of one sequence.
template <class Value>
static void forward_steps(const Convolution<Value> &c, int64_t b, int64_t begin, int64_t end) {
    typedef typename Types<Value>::Real Real;
    constexpr int EACH = Types<Value>::EACH, L = LANES<Real>;
    const int64_t n = c.in_operands(), first = c.first(), row_stride = c.stride * c.x.time;
    const auto taps_of = [&](int64_t j) {
        const int64_t earlier = (first + j * c.stride) / c.dilation;  // taps before the last
        return Taps{max(c.taps - 1 - earlier, 0), c.taps};
    };
    runs_of_taps(begin, end, taps_of, [&](int64_t j, int64_t stop, Taps taps) {
        for (int64_t at = 0; at < c.outputs; at += PANEL * L) {
            with_panel<Real>(c.outputs - at, [&](auto width, auto half) {
                constexpr int V = decltype(width)::value;
                const auto *weights = c.packed + at * c.taps * n;
                row_blocks<ROWS<V>>(j, stop, [&](int64_t row, auto rows) {
                    Tile<Real, decltype(rows)::value, V, decltype(half)::value> tile([&](int, int v) {
                        return load_part(c.bias + at + v * L, c.outputs - at - v * L);
                    });
                    for (int64_t tap = taps.begin; tap < taps.end; tap++)
                        tile.add(
                            c.x(b, first + row * c.stride - c.reach(tap)), row_stride, EACH,
                            weights + tap * n * V * L, V * L, n
                        );
                    tile.finish([&](int r, int v, Vector<Real> sum) {
                        finish_output(c, b, row + r, at + v * L, sum);
                    });
                });
            });
        }
    });
}

// From the gradient of an output to that of the sum before ReLU and dropout.
template <class Value, class Gradient>
INLINE auto relu_backward(const Convolution<Value> &c, int64_t b, int64_t j, int64_t at, Gradient d) {
    if (c.mask) d *= load_part(c.mask(b, j) + at, c.outputs - at);
    return load(c.y + (b * c.length + j) * c.out_padded() + at) <= 0 ? Gradient{} : d;
}

// The gradients of the end of a residual block, for some outputs of one sequence.
template <class Value>
static void total_backward(const Convolution<Value> &c, int64_t b, int64_t begin, int64_t end) {
    typedef typename Types<Value>::Real Real;
    const int64_t P = c.out_padded();
    for (int64_t j = begin; j < end; j++) {
        const int64_t place = (b * c.length + j) * P;
        for (int64_t at = 0; at < P; at += LANES<Real>) {
            const int64_t left = c.outputs - at;
            Vector<Real> d = load_part(c.d_total(b, j) + at, left);
            d = load_part(c.total(b, j) + at, left) <= 0 ? Vector<Real>{} : d;
            store(c.d_added + place + at, d);
            store(c.d_sum + place + at, relu_backward(c, b, j, at, d));
        }
    }
}

// The gradient that reaches a position by the shortcut.
template <class Value>
INLINE auto shortcut_backward(const Convolution<Value> &c, int64_t b, int64_t position, int64_t at) {
    const int64_t from_end = c.time - 1 - position;
    const int64_t j = c.d_shortcut ? c.shortcut_length - 1 - from_end / c.shortcut_stride : -1;
    if (j < 0 || from_end % c.shortcut_stride) return Vector<typename Types<Value>::Real>{};
    return load(c.d_shortcut + (b * c.shortcut_length + j) * c.in_padded() + at);
}

template <class Value, class Sum>
INLINE void finish_input(const Convolution<Value> &c, int64_t b, int64_t position, int64_t at, Sum sum) {
    if (c.before) sum = relu_backward(*c.before, b, position, at, sum);
    store(c.d_x + (b * c.time + position) * c.in_padded() + at, sum);
}

// Gradients of the positions from `begin` to before `end` of one sequence. With a stride, positions that
// leave the same remainder are read by the same taps, of which each is `step` after the last.
template <class Value>
static void input_backward(const Convolution<Value> &c, int64_t b, int64_t begin, int64_t end) {
    typedef typename Types<Value>::Real Real;
    constexpr int EACH = Types<Value>::EACH, L = LANES<Real>;
    const int64_t Q = c.out_padded(), n = c.out_operands(), first = c.first();
    int64_t step = 1;
    while (step * c.dilation % c.stride) step++;
    const int64_t jump = step * c.dilation / c.stride;  // outputs from one of these taps to the next
    const Value *d_sum = c.d_sum + b * c.length * Q;
    for (int64_t rest = begin; rest < min(begin + c.stride, end); rest++) {
        int64_t tap = 0;  // the first that reads these positions
        while (tap < step && (rest - first + c.reach(tap)) % c.stride) tap++;
        const int64_t count = tap < step ? ceil_div(c.taps - tap, step) : 0;
        // The output that reads row i by the first tap is `output + i`, if it exists.
        const int64_t output = (rest - first + c.reach(tap)) / c.stride;
        const auto taps_of = [&](int64_t i) {
            const int64_t j = output + i;
            return Taps{
                min(ceil_div(j - c.length + 1, jump), count), j < 0 ? 0 : min(j / jump + 1, count)
            };
        };
        runs_of_taps(0, ceil_div(end - rest, c.stride), taps_of, [&](int64_t i, int64_t stop, Taps taps) {
            for (int64_t at = 0; at < c.inputs; at += PANEL * L) {
                with_panel<Real>(c.inputs - at, [&](auto width, auto half) {
                    constexpr int V = decltype(width)::value;
                    const auto *weights = c.packed_transposed + (at * c.taps + tap * V * L) * n;
                    row_blocks<ROWS<V>>(i, stop, [&](int64_t row, auto rows) {
                        Tile<Real, decltype(rows)::value, V, decltype(half)::value> tile(
                            [&](int r, int v) {
                                const int64_t position = rest + (row + r) * c.stride;
                                return shortcut_backward(c, b, position, at + v * L);
                            }
                        );
                        for (int64_t k = taps.begin; k < taps.end; k++)
                            tile.add(
                                d_sum + (output + row - k * jump) * Q, Q, EACH,
                                weights + k * step * n * V * L, V * L, n
                            );
                        tile.finish([&](int r, int v, Vector<Real> sum) {
                            finish_input(c, b, rest + (row + r) * c.stride, at + v * L, sum);
                        });
                    });
                });
            }
        });
    }
}
