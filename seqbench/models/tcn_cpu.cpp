// A residual block of a TCN on a CPU: its convolutions, and how threads share what is done to them.

#include <initializer_list>

#include "convolution_weights.h"

// `tcn_cpu.py` fills it.
template <class Value> struct Block {
    // `middle` and `length`: outputs of the first convolution and of the second, whose outputs are
    // `stride` apart.
    int64_t threads, batch, time, inputs, hidden, outputs, taps, dilation, stride, middle, length;
    Layer<Value> first, second, projection;  // the last without a direction: there is none
    Rows<const Value> x;
    Rows<Value> total;
    Rows<const Value> d_total;
};

// What threads share: the packing of weights,
template <class Value> static auto packing(const Convolution<Value> &c) {
    return Shared{c.taps, [&](int64_t begin, int64_t end) {
        const auto weight = [&](int64_t input, int64_t output, int64_t tap) {
            return weight_of(c, output, input, tap);
        };
        pack_weights(c, c.packed.get(), c.inputs, c.outputs, begin, end, weight);
    }};
}

template <class Value> static auto packing_back(const Convolution<Value> &c) {
    return Shared{c.d_x ? c.taps : 0, [&](int64_t begin, int64_t end) {
        const auto weight = [&](int64_t output, int64_t input, int64_t tap) {
            return weight_of(c, output, input, tap);
        };
        pack_weights(c, c.packed_back.get(), c.outputs, c.inputs, begin, end, weight);
    }};
}

// sequences, in pieces,
template <class Value, class Work>
static auto pieces(const Convolution<Value> &c, int64_t steps, const Work &work) {
    const int64_t pieces = quotient(steps, PIECE);
    return Shared{c.batch * pieces, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t at = i % pieces * PIECE;
            work(i / pieces, at, least(at + PIECE, steps));
        }
    }};
}

template <class Value> static auto inputs_backward(const Convolution<Value> &c) {
    return pieces(c, c.d_x ? c.time : 0, [&](int64_t b, int64_t begin, int64_t end) {
        input_backward(c, b, begin, end);
    });
}

// and the gradients of weights: groups of sequences, and within one blocks of inputs.
template <class Value> static auto weights_backward(const Convolution<Value> &c) {
    const int64_t blocks = c.taps * quotient(c.inputs, INPUTS);
    return Shared{groups_of(c) * blocks, [&, blocks](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i = (i / blocks + 1) * blocks) {
            const int64_t group = i / blocks, first = group * blocks;
            weight_backward(c, group, i - first, least(end - first, blocks));
        }
    }};
}

template <class Value> static auto weights_done(const Convolution<Value> &c) {
    constexpr int64_t L = LANES<typename Kind<Value>::Real>;
    return Shared{quotient(c.outputs, L), [&](int64_t begin, int64_t end) {
        for (int64_t at = begin * L; at < end * L; at += L) {
            add_groups(c, at);
            unpack_weights(c, at, least(at + L, c.outputs));
        }
    }};
}

// A convolution of a block; what only one of them has is left to be said.
template <class Value>
static auto made_of(
    const Block<Value> &b, const Layer<Value> &of, Rows<const Value> x, int64_t time, int64_t inputs,
    int64_t outputs, int64_t taps, int64_t length
) {
    Convolution<Value> c{of, b.batch, time, inputs, outputs, taps, b.dilation, 1, length, x};
    c.scale = scales(c);
    return c;
}

template <class Value> static auto first_of(const Block<Value> &b) {
    return made_of(b, b.first, b.x, b.time, b.inputs, b.hidden, b.taps, b.middle);
}

// Of this many channels filled up to whole vectors.
template <class Value> static Rows<const Value> filled_up(const Value *x, int64_t time, int64_t n) {
    constexpr int64_t L = LANES<typename Kind<Value>::Real>;
    return {x, time * quotient(n, L) * L, quotient(n, L) * L};
}

// What goes in, at those steps at which something comes out.
template <class Value> static Rows<const Value> at_outputs(const Block<Value> &b) {
    return {b.x(0, b.time - 1 - (b.length - 1) * b.stride), b.x.batch, b.x.time * b.stride};
}

// Without a projection: one of nothing.
template <class Value> static auto projection_of(const Block<Value> &b) {
    const int64_t taps = b.projection.direction ? 1 : 0, length = taps * b.length;
    return made_of(b, b.projection, at_outputs(b), length, b.inputs, taps * b.outputs, taps, length);
}

template <class Value> static auto second_of(const Block<Value> &b) {
    const auto x = filled_up<Value>(b.first.y, b.middle, b.hidden);
    auto c = made_of(b, b.second, x, b.middle, b.hidden, b.outputs, b.taps, b.length);
    c.stride = b.stride;
    c.total = b.total;
    c.added = at_outputs(b);
    if (b.projection.direction) c.added = filled_up<Value>(b.projection.y, b.length, b.outputs);
    return c;
}

template <class Value> static void forward(const Block<Value> &b) {
    typedef typename Kind<Value>::Factor Factor;
    auto first = first_of(b), second = second_of(b), projection = projection_of(b);
    for (auto *c : {&first, &second, &projection})
        c->packed = Scratch<Factor>(c->taps * c->in_factors() * c->out_padded());
    share(b.threads, packing(first), packing(second), packing(projection));
    share(b.threads, pieces(first, b.middle, [&](int64_t b, int64_t begin, int64_t end) {
        forward_piece(first, b, begin, end);
    }));
    share(b.threads, pieces(second, b.length, [&](int64_t b, int64_t begin, int64_t end) {
        if (projection.direction) forward_piece(projection, b, begin, end);
        forward_piece(second, b, begin, end);
    }));
}

template <class Value> static void backward(const Block<Value> &b) {
    typedef typename Kind<Value>::Real Real;
    typedef typename Kind<Value>::Factor Factor;
    auto first = first_of(b), second = second_of(b), projection = projection_of(b);
    for (auto *c : {&first, &second, &projection}) {
        c->packed_back = Scratch<Factor>(c->taps * c->out_factors() * c->in_padded());
        c->d_weight = Scratch<Real>(groups_of(*c) * (c->taps * c->inputs + 1) * c->out_padded());
    }
    second.d_total = b.d_total;
    second.d_added = b.projection.d_sum;
    second.before = &first;
    second.d_x = first.d_sum;
    first.d_shortcut = projection.direction ? projection.d_x : second.d_added;
    first.shortcut = b.length;
    first.shortcut_stride = b.stride;
    const auto ends = pieces(second, b.length, [&](int64_t b, int64_t begin, int64_t end) {
        total_backward(second, b, begin, end);
    });
    share(b.threads, ends, packing_back(second), packing_back(projection), packing_back(first));
    share(
        b.threads, weights_backward(second), weights_backward(projection), inputs_backward(second),
        inputs_backward(projection)
    );
    share(b.threads, weights_backward(first), inputs_backward(first));
    share(b.threads, weights_done(second), weights_done(projection), weights_done(first));
}

extern "C" {
void forward_float(const Block<float> *b) { forward(*b); }
void forward_double(const Block<double> *b) { forward(*b); }
void forward_bfloat16(const Block<Bfloat16> *b) { forward(*b); }
void backward_float(const Block<float> *b) { backward(*b); }
void backward_double(const Block<double> *b) { backward(*b); }
void backward_bfloat16(const Block<Bfloat16> *b) { backward(*b); }
int64_t vector_bytes() { return BYTES; }
}
