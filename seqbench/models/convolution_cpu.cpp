// A causal convolution followed by ReLU on a CPU, forth and back, over sequences whose channels lie
// side by side: `(batch, time, channels)`.
//
// Output j stands at input position `first + j * stride` and reads `taps` positions back from there,
// `dilation` apart; what is before the first position counts as zeros. So outputs that read the same
// taps are rows of a product: the input's rows, which already lie where they are read, times each
// tap's weights. Nothing is padded or moved. The way back to the input is the same from its side, and
// the gradient of a tap's weights is a product over time.

#include "vectors.h"

constexpr int64_t PIECE = 64;  // steps that one thread takes at a time

// Where tensors are; `convolution_cpu.py` fills it. P: a number of channels, filled up to whole
// vectors.
template <class Real> struct Convolution {
    int64_t threads, batch, time, inputs, outputs, taps, dilation, stride, length;
    const Real *x;
    int64_t x_batch, x_time;  // how far apart its sequences and its steps are
    const Real *weight, *bias;  // (outputs, inputs, taps), (outputs,)
    Real *packed;               // to work in: (block of outputs, tap, input, lane)
    Real *y;                    // (batch, length, P)
    // For the way back.
    const Real *d_y;
    int64_t d_y_batch, d_y_time;
    Real *packed_back;  // to work in: (block of inputs, tap, output, lane)
    Real *d_sum;        // (batch, length, P): before ReLU
    Real *d_x;          // (batch, time, P of the inputs)
    Real *d_weight;     // (taps, inputs, P)
    Real *d_bias;       // (P,)

    int64_t in_padded() const { return vectors<Real>(inputs) * LANES<Real>; }
    int64_t out_padded() const { return vectors<Real>(outputs) * LANES<Real>; }
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

// Outputs from `begin` to before `end` of one sequence.
template <class Real>
static void forward_piece(const Convolution<Real> &c, int64_t b, int64_t begin, int64_t end) {
    constexpr int L = LANES<Real>;
    const int64_t P = c.out_padded(), first = c.first();
    const Real *x = c.x + b * c.x_batch;
    Real *y = c.y + b * c.length * P;
    const auto taps_of = [&](int64_t j) {
        const int64_t before = (first + j * c.stride) / c.dilation;  // taps before the last
        return Taps{c.taps - 1 > before ? c.taps - 1 - before : 0, c.taps};
    };
    with_same_taps(begin, end, taps_of, [&](int64_t j, int64_t stop, Taps taps) {
        for (int64_t at = 0; at < P; at += BLOCK * L) {
            const int64_t left = (P - at) / L;
            with_count<BLOCK>(least(left, BLOCK), [&](auto width) {
                constexpr int V = decltype(width)::value;
                const Real *weights = c.packed + at * c.taps * c.inputs;
                in_blocks<SUMS / V>(j, stop, [&](int64_t row, auto rows) {
                    const int64_t from = first + row * c.stride - c.back(taps.begin);
                    multiply<Real, decltype(rows)::value, V>(
                        x + from * c.x_time, c.stride * c.x_time, 1, c.dilation * c.x_time,
                        weights + taps.begin * c.inputs * V * L, V * L, c.inputs * V * L,
                        c.inputs, taps.end - taps.begin,
                        [&](int, int v) {
                            return load_part<Real>(c.bias + at + v * L, c.outputs - at - v * L);
                        },
                        [&](int r, int v, Vector<Real> sum) {
                            sum = sum < 0 ? Vector<Real>{} : sum;  // NaN stays NaN
                            store<Real>(y + (row + r) * P + at + v * L, sum);
                        }
                    );
                });
            });
        }
    });
}

template <class Real>
static void relu_backward(const Convolution<Real> &c, int64_t b, int64_t begin, int64_t end) {
    constexpr int L = LANES<Real>;
    const int64_t P = c.out_padded();
    for (int64_t j = begin; j < end; j++) {
        const int64_t place = (b * c.length + j) * P;
        const Real *d_y = c.d_y + b * c.d_y_batch + j * c.d_y_time;
        for (int64_t at = 0; at < P; at += L) {
            const Vector<Real> y = load<Real>(c.y + place + at);
            const Vector<Real> d = load_part<Real>(d_y + at, c.outputs - at);
            store<Real>(c.d_sum + place + at, y <= 0 ? Vector<Real>{} : d);
        }
    }
}

// Positions from `begin` to before `end` of one sequence. With a stride, those that leave the same
// rest are read by the same taps, each `step` after the last.
template <class Real>
static void input_backward(const Convolution<Real> &c, int64_t b, int64_t begin, int64_t end) {
    constexpr int L = LANES<Real>;
    const int64_t P = c.in_padded(), Q = c.out_padded(), first = c.first();
    int64_t step = 1;
    while (step * c.dilation % c.stride) step++;
    const int64_t jump = step * c.dilation / c.stride;  // outputs from one of these taps to the next
    Real *d_x = c.d_x + b * c.time * P;
    const Real *d_sum = c.d_sum + b * c.length * Q;
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
            const int64_t n = taps.end - taps.begin;
            for (int64_t at = 0; at < P; at += BLOCK * L) {
                const int64_t left = (P - at) / L;
                with_count<BLOCK>(least(left, BLOCK), [&](auto width) {
                    constexpr int V = decltype(width)::value;
                    const int64_t size = c.outputs * V * L;  // of a tap's weights
                    const Real *weights = c.packed_back + at * c.taps * c.outputs;
                    in_blocks<SUMS / V>(i, stop, [&](int64_t row, auto block) {
                        multiply<Real, decltype(block)::value, V>(
                            d_sum + (output + row - taps.begin * jump) * Q, Q, 1, -jump * Q,
                            weights + (tap + taps.begin * step) * size, V * L, step * size,
                            c.outputs, n > 0 ? n : 0,
                            [&](int, int) { return Vector<Real>{}; },
                            [&](int r, int v, Vector<Real> sum) {
                                const int64_t p = rest + (row + r) * c.stride;
                                store<Real>(d_x + p * P + at + v * L, sum);
                            }
                        );
                    });
                });
            }
        });
    }
}

constexpr int64_t INPUTS = SUMS / BLOCK;  // channels of a product over time

// Weights of all taps for blocks of inputs from `begin` to before `end`: sums of pieces, which are
// then added, since one long sum would round off more.
template <class Real>
static void weight_backward(const Convolution<Real> &c, int64_t begin, int64_t end) {
    constexpr int L = LANES<Real>;
    const int64_t P = c.out_padded();
    begin *= INPUTS;
    end = least(end * INPUTS, c.inputs);
    for (int64_t tap = 0; tap < c.taps; tap++) {
        Real *to = c.d_weight + (tap * c.inputs + begin) * P;
        __builtin_memset(to, 0, (end - begin) * P * sizeof(Real));
    }
    for (int64_t b = 0; b < c.batch; b++)
        for (int64_t piece = 0; piece < c.length; piece += 2 * PIECE)
            for (int64_t at = 0; at < P; at += BLOCK * L)
                for (int64_t tap = 0; tap < c.taps; tap++) {
                    const int64_t missing = quotient(c.back(tap) - c.first(), c.stride);
                    const int64_t j = missing > piece ? missing : piece;
                    const int64_t n = least(piece + 2 * PIECE, c.length) - j;
                    if (n <= 0) continue;
                    const int64_t from = c.first() + j * c.stride - c.back(tap);
                    const Real *x = c.x + b * c.x_batch + from * c.x_time;
                    const Real *d_sum = c.d_sum + (b * c.length + j) * P + at;
                    with_count<BLOCK>(least((P - at) / L, BLOCK), [&](auto width) {
                        constexpr int V = decltype(width)::value;
                        in_blocks<INPUTS>(begin, end, [&](int64_t i, auto rows) {
                            Real *to = c.d_weight + (tap * c.inputs + i) * P + at;
                            multiply<Real, decltype(rows)::value, V>(
                                x + i, 1, c.stride * c.x_time, 0, d_sum, P, 0, n, 1,
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

// The biases' gradients: sums over each sequence, which are then added.
template <class Real> static void bias_backward(const Convolution<Real> &c) {
    constexpr int L = LANES<Real>;
    const int64_t P = c.out_padded();
    for (int64_t at = 0; at < P; at += L) {
        Vector<Real> total = {};
        for (int64_t b = 0; b < c.batch; b++) {
            Vector<Real> sum = {};
            for (int64_t j = 0; j < c.length; j++)
                sum += load<Real>(c.d_sum + (b * c.length + j) * P + at);
            total += sum;
        }
        store<Real>(c.d_bias + at, total);
    }
}

// Let threads share the sequences, in pieces.
template <class Real, class Work>
static void share_pieces(const Convolution<Real> &c, int64_t steps, const Work &work) {
    const int64_t pieces = quotient(steps, PIECE);
    share(c.threads, c.batch * pieces, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t at = i % pieces * PIECE;
            work(i / pieces, at, least(at + PIECE, steps));
        }
    });
}

template <class Real> static void forward(const Convolution<Real> &c) {
    pack(c.packed, c.taps * c.inputs, c.outputs, [&](int64_t i, int64_t o) {
        return c.weight[(o * c.inputs + i % c.inputs) * c.taps + i / c.inputs];
    });
    share_pieces(c, c.length, [&](int64_t b, int64_t begin, int64_t end) {
        forward_piece(c, b, begin, end);
    });
}

template <class Real> static void backward(const Convolution<Real> &c) {
    share_pieces(c, c.length, [&](int64_t b, int64_t begin, int64_t end) {
        relu_backward(c, b, begin, end);
    });
    bias_backward(c);
    share(c.threads, quotient(c.inputs, INPUTS), [&](int64_t begin, int64_t end) {
        weight_backward(c, begin, end);
    });
    if (!c.d_x) return;
    pack(c.packed_back, c.taps * c.outputs, c.inputs, [&](int64_t o, int64_t i) {
        return c.weight[(o % c.outputs * c.inputs + i) * c.taps + o / c.outputs];
    });
    share_pieces(c, c.time, [&](int64_t b, int64_t begin, int64_t end) {
        input_backward(c, b, begin, end);
    });
}

extern "C" {
void forward_float(const Convolution<float> *c) { forward(*c); }
void forward_double(const Convolution<double> *c) { forward(*c); }
void backward_float(const Convolution<float> *c) { backward(*c); }
void backward_double(const Convolution<double> *c) { backward(*c); }
int64_t vector_bytes() { return BYTES; }
}
