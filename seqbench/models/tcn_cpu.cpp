// The convolutions of a TCN's residual block on a CPU: their weights, which have a norm of their own,
// and how threads share what `convolution.h` does.

#include <cmath>
#include <memory>

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
    std::unique_ptr<Real[]> scales(new Real[c.outputs]);
    const int64_t n = c.inputs * c.taps;
    for (int64_t o = 0; o < c.outputs; o++)
        scales[o] = c.magnitude ? c.magnitude[o] / norm(c.direction + o * n, n) : 1;
    return scales;
}

// From the weights' gradients to their directions' and magnitudes', of outputs from `begin` to
// before `end`.
template <class Value>
static void norm_backward(const Convolution<Value> &c, int64_t begin, int64_t end) {
    typedef typename Kind<Value>::Real Real;
    const int64_t n = c.inputs * c.taps, P = c.out_padded();
    for (int64_t o = begin; o < end; o++) {
        const Real *direction = c.direction + o * n;
        Real *d = c.d_direction + o * n;
        for (int64_t i = 0; i < c.inputs; i++)
            for (int64_t tap = 0; tap < c.taps; tap++)
                d[i * c.taps + tap] = c.d_weight[(tap * c.inputs + i) * P + o];
        if (!c.magnitude) continue;
        const Real length = norm(direction, n);
        const Real d_magnitude = c.d_magnitude[o] = dot(d, direction, n) / length;
        for (int64_t k = 0; k < n; k++)
            d[k] = c.magnitude[o] / length * (d[k] - d_magnitude / length * direction[k]);
    }
}

// Let threads share the sequences, in pieces.
template <class Value, class Work>
static void share_pieces(const Convolution<Value> &c, int64_t steps, const Work &work) {
    const int64_t pieces = quotient(steps, PIECE);
    share(c.threads, c.batch * pieces, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t at = i % pieces * PIECE;
            work(i / pieces, at, least(at + PIECE, steps));
        }
    });
}

// Weights from n channels to so many others: (block, tap, factor, lane), filled up with zeros.
// `weight` gives one, of a channel, another and a tap.
template <class Value, class Weight>
static void pack_weights(
    const Convolution<Value> &c, typename Kind<Value>::Factor *to, int64_t n, int64_t width,
    const Weight &weight
) {
    typedef typename Kind<Value>::Real Real;
    constexpr int L = LANES<Real>, EACH = Kind<Value>::EACH;
    const int64_t P = vectors<Real>(width) * L, factors = quotient(n, EACH);
    share(c.threads, c.taps, [&](int64_t begin, int64_t end) {
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
    });
}

template <class Value> static void forward(const Convolution<Value> &c) {
    const auto scale = scales(c);
    pack_weights(c, c.packed, c.inputs, c.outputs, [&](int64_t input, int64_t output, int64_t tap) {
        return scale[output] * c.direction[(output * c.inputs + input) * c.taps + tap];
    });
    share_pieces(c, c.length, [&](int64_t b, int64_t begin, int64_t end) {
        forward_piece(c, b, begin, end);
    });
}

template <class Value> static void backward(const Convolution<Value> &c) {
    if (!c.linear)
        share_pieces(c, c.length, [&](int64_t b, int64_t begin, int64_t end) {
            relu_backward(c, b, begin, end);
        });
    const int64_t blocks = c.taps * quotient(c.inputs, INPUTS);
    share(c.threads, blocks + 1, [&](int64_t begin, int64_t end) {
        if (begin < blocks) weight_backward(c, begin, least(end, blocks));
        if (end > blocks) bias_backward(c);
    });
    share(c.threads, c.outputs, [&](int64_t begin, int64_t end) { norm_backward(c, begin, end); });
    if (!c.d_x) return;
    const auto scale = scales(c);
    pack_weights(c, c.packed_back, c.outputs, c.inputs, [&](int64_t output, int64_t input, int64_t tap) {
        return scale[output] * c.direction[(output * c.inputs + input) * c.taps + tap];
    });
    share_pieces(c, c.time, [&](int64_t b, int64_t begin, int64_t end) {
        input_backward(c, b, begin, end);
    });
}

extern "C" {
void forward_float(const Convolution<float> *c) { forward(*c); }
void forward_double(const Convolution<double> *c) { forward(*c); }
void forward_bfloat16(const Convolution<Bfloat16> *c) { forward(*c); }
void backward_float(const Convolution<float> *c) { backward(*c); }
void backward_double(const Convolution<double> *c) { backward(*c); }
void backward_bfloat16(const Convolution<Bfloat16> *c) { backward(*c); }
int64_t vector_bytes() { return BYTES; }
}
