// A residual block of a TCN (Bai et al. 2018, section 3.3): two convolutions with weight norm, ReLU and
// dropout, and a shortcut, which a convolution of one tap projects if widths differ; and how threads
// share the work.

#include <initializer_list>

#include "arguments.h"
#include "convolution_weights.h"

template <class Value> using Weight = typename Types<Value>::Real;

// Rows of tensors of values have these strides; channels are contiguous. P: padded to whole vectors.
ARGUMENTS(
    ResidualBlock,
    // `middle` and `length`: outputs of the first convolution and of the second, whose outputs are
    // `stride` apart; the last ones are at the last input position.
    int64_t threads, batch, time, inputs, hidden, outputs, taps, dilation, stride, middle, length;
    const Real *x;                                    // (batch, time, inputs)
    int64_t x_batch, x_time;
    const Weight<Real> *magnitude1, *direction1, *bias1, *mask1;
    int64_t mask1_batch, mask1_time;
    const Weight<Real> *magnitude2, *direction2, *bias2, *mask2;
    int64_t mask2_batch, mask2_time;
    const Weight<Real> *project_weight, *project_bias;  // null: the shortcut is x itself
    Real *y1, *y2;                                    // (batch, middle, P), (batch, length, P)
    Real *total;                                      // (batch, length, outputs)
    int64_t total_batch, total_time;
    const Real *d_total;                              // as total
    int64_t d_total_batch, d_total_time;
    Real *d_x;                                        // (batch, time, P); or null
    Weight<Real> *d_magnitude1, *d_direction1, *d_bias1;
    Weight<Real> *d_magnitude2, *d_direction2, *d_bias2;
    Weight<Real> *d_project_weight, *d_project_bias;
    void *workspace;
)

// Work that threads share.

template <class Value> static auto pack_items(const Convolution<Value> &c) {
    return Items{c.taps, [&](int64_t begin, int64_t end) {
        const auto weight = [&](int64_t input, int64_t output, int64_t tap) {
            return c.scale[output] * c.direction[(output * c.inputs + input) * c.taps + tap];
        };
        pack_taps(c, c.packed, c.inputs, c.outputs, begin, end, weight);
    }};
}

template <class Value> static auto pack_transposed_items(const Convolution<Value> &c) {
    return Items{c.d_x ? c.taps : 0, [&](int64_t begin, int64_t end) {
        const auto weight = [&](int64_t output, int64_t input, int64_t tap) {
            return c.scale[output] * c.direction[(output * c.inputs + input) * c.taps + tap];
        };
        pack_taps(c, c.packed_transposed, c.outputs, c.inputs, begin, end, weight);
    }};
}

// Pieces of sequences of `steps` steps: `work(sequence, begin, end)`.
template <class Value, class Work>
static auto step_items(const Convolution<Value> &c, int64_t steps, const Work &work) {
    const int64_t pieces = ceil_div(steps, STEPS);
    return Items{c.batch * pieces, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t at = i % pieces * STEPS;
            work(i / pieces, at, min(at + STEPS, steps));
        }
    }};
}

template <class Value> static auto input_items(const Convolution<Value> &c) {
    return step_items(c, c.d_x ? c.time : 0, [&](int64_t b, int64_t begin, int64_t end) {
        input_backward(c, b, begin, end);
    });
}

// Gradients of weights: groups of sequences, and within one the tiles of inputs.
template <class Value> static auto weight_items(const Convolution<Value> &c) {
    const int64_t tiles = input_tiles(c);
    return Items{group_count(c) * tiles, [&, tiles](int64_t begin, int64_t end, int64_t thread) {
        for (int64_t i = begin; i < end; i = (i / tiles + 1) * tiles) {
            const int64_t group = i / tiles, first = group * tiles;
            sum_weights(c, group, i - first, min(end - first, tiles), thread);
        }
    }};
}

template <class Value> static auto gradient_items(const Convolution<Value> &c) {
    constexpr int64_t L = Convolution<Value>::L;
    return Items{ceil_div(c.outputs, L), [&](int64_t begin, int64_t end) {
        for (int64_t at = begin * L; at < end * L; at += L) {
            add_groups(c, at);
            write_gradients(c, at, min(at + L, c.outputs));
        }
    }};
}

// The convolutions of a block. Without a projection, `projection` has no outputs.
template <class Value> struct Block {
    typedef ResidualBlock<Value> Arguments;
    Convolution<Value> first, second, projection;

    static Rows<const Value> contiguous(const Value *x, int64_t time, int64_t channels) {
        const int64_t P = padded<Weight<Value>>(channels);
        return {x, time * P, P};
    }

    explicit Block(const Arguments &a) {
        const Rows<const Value> x{a.x, a.x_batch, a.x_time};
        // The input at the positions of outputs.
        const Rows<const Value> shortcut{
            x(0, a.time - 1 - (a.length - 1) * a.stride), a.x_batch, a.x_time * a.stride
        };
        first.batch = second.batch = projection.batch = a.batch;
        first.taps = second.taps = a.taps;
        first.dilation = second.dilation = a.dilation;
        first.time = a.time, first.inputs = a.inputs, first.outputs = a.hidden, first.length = a.middle;
        first.x = x;
        first.magnitude = a.magnitude1, first.direction = a.direction1, first.bias = a.bias1;
        first.mask = {a.mask1, a.mask1_batch, a.mask1_time};
        first.y = a.y1;
        second.time = a.middle, second.inputs = a.hidden, second.outputs = a.outputs;
        second.length = a.length, second.stride = a.stride;
        second.x = contiguous(a.y1, a.middle, a.hidden);
        second.magnitude = a.magnitude2, second.direction = a.direction2, second.bias = a.bias2;
        second.mask = {a.mask2, a.mask2_batch, a.mask2_time};
        second.y = a.y2;
        second.total = {a.total, a.total_batch, a.total_time};
        second.added = shortcut;
        if (!a.project_weight) return;
        projection.taps = 1, projection.time = projection.length = a.length;
        projection.inputs = a.inputs, projection.outputs = a.outputs;
        projection.x = shortcut;
        projection.direction = a.project_weight, projection.bias = a.project_bias;
    }
};

template <class Value> struct Forward : Block<Value> {
    typedef typename Types<Value>::Operand Operand;
    using Block<Value>::first, Block<Value>::second, Block<Value>::projection;
    const ResidualBlock<Value> &a;

    Forward(const ResidualBlock<Value> &a, Workspace &workspace) : Block<Value>(a), a(a) {
        for (auto *c : {&first, &second, &projection}) {
            c->scale = workspace.take<Weight<Value>>(c->outputs);
            c->packed = workspace.take<Operand>(c->taps * c->in_operands() * c->out_padded());
        }
        if (!a.project_weight) return;
        projection.y = workspace.take<Value>(a.batch * a.length * projection.out_padded());
        second.added = this->contiguous(projection.y, a.length, a.outputs);
    }

    void run() const {
        for (const auto *c : {&first, &second, &projection}) compute_scales(*c);
        parallel(a.threads, pack_items(first), pack_items(second), pack_items(projection));
        parallel(a.threads, step_items(first, a.middle, [&](int64_t b, int64_t begin, int64_t end) {
            forward_steps(first, b, begin, end);
        }));
        parallel(a.threads, step_items(second, a.length, [&](int64_t b, int64_t begin, int64_t end) {
            forward_steps(projection, b, begin, end);
            forward_steps(second, b, begin, end);
        }));
    }
};

template <class Value> struct Backward : Block<Value> {
    typedef typename Types<Value>::Operand Operand;
    using Block<Value>::first, Block<Value>::second, Block<Value>::projection;
    const ResidualBlock<Value> &a;

    Backward(const ResidualBlock<Value> &a, Workspace &workspace) : Block<Value>(a), a(a) {
        first.d_magnitude = a.d_magnitude1, first.d_direction = a.d_direction1;
        first.d_bias = a.d_bias1, first.d_x = a.d_x;
        second.d_magnitude = a.d_magnitude2, second.d_direction = a.d_direction2;
        second.d_bias = a.d_bias2;
        projection.d_direction = a.d_project_weight, projection.d_bias = a.d_project_bias;
        const int64_t middle = a.batch * a.middle, length = a.batch * a.length;
        first.d_sum = second.d_x = workspace.take<Value>(middle * first.out_padded());
        second.d_sum = workspace.take<Value>(length * second.out_padded());
        second.d_added = projection.d_sum = workspace.take<Value>(length * second.out_padded());
        second.d_total = {a.d_total, a.d_total_batch, a.d_total_time};
        second.before = &first;
        if (a.project_weight && a.d_x)
            projection.d_x = workspace.take<Value>(length * projection.in_padded());
        first.d_shortcut = a.project_weight ? projection.d_x : second.d_added;
        first.shortcut_length = a.length, first.shortcut_stride = a.stride;
        for (auto *c : {&first, &second, &projection}) {
            const int64_t groups = group_count(*c), rows = c->taps * c->inputs + 1;
            const int64_t threads = min(a.threads, groups * input_tiles(*c));
            c->scale = workspace.take<Weight<Value>>(c->outputs);
            c->packed_transposed =
                workspace.take<Operand>(c->taps * c->out_operands() * c->in_padded());
            c->d_weight = workspace.take<Weight<Value>>(groups * rows * c->out_padded());
            c->pairs = workspace.take<Pair>(threads * OverTime<Value>::pairs(*c));
        }
    }

    void run() const {
        for (const auto *c : {&first, &second, &projection}) compute_scales(*c);
        const auto ends = step_items(second, a.length, [&](int64_t b, int64_t begin, int64_t end) {
            total_backward(second, b, begin, end);
        });
        parallel(
            a.threads, ends, pack_transposed_items(second), pack_transposed_items(projection),
            pack_transposed_items(first)
        );
        parallel(
            a.threads, weight_items(second), weight_items(projection), input_items(second),
            input_items(projection)
        );
        parallel(a.threads, weight_items(first), input_items(first));
        parallel(a.threads, gradient_items(second), gradient_items(projection), gradient_items(first));
    }
};

EXPORT(residual_block_forward, ResidualBlock<REAL>, Forward<REAL>)
EXPORT(residual_block_backward, ResidualBlock<REAL>, Backward<REAL>)
