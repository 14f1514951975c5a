// LSTM, GRU and Elman layers over a whole sequence on a CPU, forth and back.
//
// A step of such a layer is a small product of matrices, the state's with the weights, and a few
// functions of what comes out. Here
// - a tile is as many hidden units as a vector has lanes. Its weights lie in memory in the order in
//   which they are read, and its gates' functions follow while the sums are in the fastest cache;
// - a thread takes its rows of the batch through all steps, so that no thread waits for another, and
//   a row has the same result with any number of them;
// - on the way back the loop ends where no gradient is left: zeros stay zeros;
// - the gradients of the weights are one product over all steps that have any, of which each thread
//   takes some of the inputs and states.

#include "vectors.h"

constexpr int64_t PIECE = 256;  // rows of a product over steps
constexpr int64_t VALUES = SUMS / BLOCK;  // of a row, whose sums it holds at once

template <class Real> INLINE Vector<Real> tangent(Vector<Real> x) {
    const Vector<Real> e = exponential<Real>(2 * x, 1);
    return e / (e + 2);
}

// A layer, and where its tensors are; `recurrent_cpu.py` fills it. P is the hidden size, filled up
// to whole vectors. Null where a tensor is not wanted.
template <class Real> struct Layer {
    int64_t threads, time, batch, dim, width;
    const Real *w_ih, *w_hh, *b_ih, *b_hh;  // as torch has them
    // (time + 1, batch, dim + 1 + 1 + P): what the weights are multiplied with, at each step the
    // input, a one for each of two biases, and the state before it.
    Real *rows;
    Real *cells;         // (time + 1, batch, P)
    int64_t cells_time;  // how far apart the cells' steps are; 0: only the last is kept
    Real *saved;         // (time, batch, tile, 4, lane)
    // To work in: the weights in the order in which they are read, and a product's sums.
    Real *weights;       // see `pack_gates`
    Real *sums;          // (batch, 2, gates, lane)
    // For the way back.
    Real *input_weights, *state_weights;  // to work in, see `pack`
    const Real *d_states;                 // (time, batch, width)
    int64_t d_states_time, d_states_row;  // how far apart its steps and its rows are
    Real *d_state, *d_cell;  // (batch, P): after the last step, at the end before the first
    Real *d_gates;           // (time, batch, `gates_size`), and room for a vector behind
    // (dim + 1 + 1 + width, gates * width); a GRU's of the input with the candidate first.
    Real *d_weights;
    Real *d_x;               // (time, batch, dim filled up to whole vectors), zeros before
    int64_t *first;          // (batch,): the first step with a gradient

    int64_t tiles() const { return vectors<Real>(width); }
    int64_t padded() const { return tiles() * LANES<Real>; }
    // Of a row of gradients, (slots, width): an odd number of vectors. With a power of two those of
    // many rows would all have the same few places in the processor's cache.
    template <class Cell> int64_t gates_size() const {
        return (vectors<Real>(Cell::SLOTS * width) | 1) * LANES<Real>;
    }
    int64_t row_size() const { return dim + 2 + padded(); }
    Real *row(int64_t t, int64_t r) const { return rows + (t * batch + r) * row_size(); }
};

// What one step sees of one row and tile: states and cells before and after it, what it saves.
template <class Real> struct Step {
    Real *state, *next_state, *cell, *next_cell, *saved;
    int64_t padded;

    Step(const Layer<Real> &l, int64_t t, int64_t row, int64_t tile) : padded(l.padded()) {
        const int64_t at = tile * LANES<Real>;
        state = l.row(t, row) + l.dim + 2 + at;
        next_state = l.row(t + 1, row) + l.dim + 2 + at;
        cell = l.cells ? l.cells + t * l.cells_time + row * padded + at : nullptr;
        next_cell = cell + l.cells_time;
        saved = l.saved ? l.saved + ((t * l.batch + row) * padded + at) * 4 : nullptr;
    }

    void save(int slot, Vector<Real> value) const {
        if (saved) store<Real>(saved + slot * LANES<Real>, value);
    }
    Vector<Real> get(int slot) const { return load<Real>(saved + slot * LANES<Real>); }
};

// Each kind of layer: how many gates its weights have, whether what input and state give to a gate
// is needed apart, how many gradients of a step are kept and at which those of the state's share
// begin. Gates stand in torch's order.
struct Elman {
    static constexpr int GATES = 1, SLOTS = 1, STATE_SLOT = 0;
    static constexpr bool APART = false;

    template <class Real, class V>
    INLINE V forward(const Step<Real> &, const V *sum, const V *) {
        return tangent<Real>(sum[0]);
    }

    template <class Real, class V>
    INLINE void backward(const Step<Real> &s, V &dh, V &, V *d) {
        const V h = load<Real>(s.next_state);
        d[0] = dh * (1 - h * h);
        dh = V{};
    }
};

// Hochreiter and Schmidhuber 1997, with forget gates: input, forget, candidate, output.
struct Lstm {
    static constexpr int GATES = 4, SLOTS = 4, STATE_SLOT = 0;
    static constexpr bool APART = false;

    template <class Real, class V>
    INLINE V forward(const Step<Real> &s, const V *sum, const V *) {
        const V i = sigmoid<Real>(sum[0]), f = sigmoid<Real>(sum[1]);
        const V g = tangent<Real>(sum[2]), o = sigmoid<Real>(sum[3]);
        const V c = f * load<Real>(s.cell) + i * g;
        store<Real>(s.next_cell, c);
        s.save(0, i), s.save(1, f), s.save(2, g), s.save(3, o);
        return o * tangent<Real>(c);
    }

    template <class Real, class V>
    INLINE void backward(const Step<Real> &s, V &dh, V &dc, V *d) {
        const V i = s.get(0), f = s.get(1), g = s.get(2), o = s.get(3);
        const V bounded = tangent<Real>(load<Real>(s.next_cell));
        dc += dh * o * (1 - bounded * bounded);
        d[0] = dc * g * i * (1 - i);
        d[1] = dc * load<Real>(s.cell) * f * (1 - f);
        d[2] = dc * i * (1 - g * g);
        d[3] = dh * bounded * o * (1 - o);
        dc *= f;
        dh = V{};
    }
};

// Cho et al. 2014, with the reset gate after the product: reset, update, candidate. The gradients of
// the candidate's two shares differ: they stand first and last, so that each side's three are
// together.
struct Gru {
    static constexpr int GATES = 3, SLOTS = 4, STATE_SLOT = 1;
    static constexpr bool APART = true;

    template <class Real, class V>
    INLINE V forward(const Step<Real> &s, const V *input, const V *state) {
        const V r = sigmoid<Real>(input[0] + state[0]), z = sigmoid<Real>(input[1] + state[1]);
        const V n = tangent<Real>(input[2] + r * state[2]);
        s.save(0, n), s.save(1, r), s.save(2, z), s.save(3, state[2]);
        return n + z * (load<Real>(s.state) - n);
    }

    template <class Real, class V>
    INLINE void backward(const Step<Real> &s, V &dh, V &, V *d) {
        const V n = s.get(0), r = s.get(1), z = s.get(2), share = s.get(3);
        d[0] = dh * (1 - z) * (1 - n * n);
        d[1] = d[0] * share * r * (1 - r);
        d[2] = dh * (load<Real>(s.state) - n) * z * (1 - z);
        d[3] = d[0] * r;
        dh *= z;
    }
};

// The weights of the gates, for the way forward: (tile, value of a row, gate, lane). In the last tile
// the gates are as wide as there are units left, and what is left of its vectors stays zero.
template <class Cell, class Real> static void pack_gates(const Layer<Real> &l) {
    constexpr int G = Cell::GATES, L = LANES<Real>;
    const int64_t values = l.dim + 2 + l.width;
    for (int64_t tile = 0; tile < l.tiles(); tile++) {
        const int64_t left = l.width - tile * L, units = left < L ? left : L;
        const int64_t size = vectors<Real>(G * units) * L;
        Real *to = l.weights + tile * values * G * L;
        if (units < L) __builtin_memset(to, 0, values * size * sizeof(Real));
        for (int64_t i = 0; i < G * units; i++, to++) {
            const int64_t row = i / units * l.width + tile * L + i % units;
            for (int64_t k = 0; k < l.dim; k++) to[k * size] = l.w_ih[row * l.dim + k];
            to[l.dim * size] = l.b_ih[row];
            to[(l.dim + 1) * size] = l.b_hh[row];
            for (int64_t k = 0; k < l.width; k++)
                to[(l.dim + 2 + k) * size] = l.w_hh[row * l.width + k];
        }
    }
}

template <class Cell, class Real>
static void forward_rows(const Layer<Real> &l, int64_t begin, int64_t end) {
    constexpr int G = Cell::GATES, L = LANES<Real>, size = 2 * G * L;
    typedef Vector<Real> V;
    const int64_t inputs = l.dim + 1, states = l.width + 1, rows = end - begin;
    // What enters the gates: the input's share and, where they are wanted apart, the state's.
    Real *from_input = l.sums + begin * size, *from_state = from_input + G * L;
    for (int64_t t = 0; t < l.time; t++) {
        for (int64_t tile = 0; tile < l.tiles(); tile++) {
            // In the last tile the gates are as wide as there are units left.
            const int64_t left = l.width - tile * L, units = left < L ? left : L;
            const Real *weights = l.weights + tile * (inputs + states) * G * L;
            with_count<G>(vectors<Real>(G * units), [&](auto count) {
                constexpr int N = decltype(count)::value;
                const Real *values = l.row(t, begin);
                const int64_t stride = l.row_size(), n = Cell::APART ? inputs : inputs + states;
                product<Real, N, false>(from_input, size, values, stride, weights, n, rows);
                if constexpr (Cell::APART)
                    product<Real, N, false>(
                        from_state, size, values + n, stride, weights + n * N * L, states, rows
                    );
            });
            for (int64_t row = 0; row < rows; row++) {
                V input[G], state[G];
                for (int g = 0; g < G; g++) {
                    const int64_t at = row * size + g * units;
                    input[g] = load_part<Real>(from_input + at, units);
                    if constexpr (Cell::APART) state[g] = load_part<Real>(from_state + at, units);
                }
                const Step<Real> step(l, t, begin + row, tile);
                store<Real>(step.next_state, Cell::template forward<Real, V>(step, input, state));
            }
        }
    }
}

// The gradients of a step's gates, from those of the state and cell after it; returns whether there
// was any.
template <class Cell, class Real>
INLINE bool gates_backward(const Layer<Real> &l, int64_t t, int64_t begin, int64_t end) {
    typedef Vector<Real> V;
    const int64_t P = l.padded();
    typename Format<Real>::Bits any = {};
    for (int64_t row = begin; row < end; row++) {
        for (int64_t tile = 0; tile < l.tiles(); tile++) {
            const int64_t at = row * P + tile * LANES<Real>;
            V dh = load<Real>(l.d_state + at), dc = {}, d[Cell::SLOTS];
            const int64_t begin_tile = tile * LANES<Real>, left = l.width - begin_tile;
            if (l.d_states)
                dh += load_part<Real>(
                    l.d_states + t * l.d_states_time + row * l.d_states_row + begin_tile, left
                );
            if (l.d_cell) dc = load<Real>(l.d_cell + at);
            any |= dh != 0;
            any |= dc != 0;
            Cell::template backward<Real, V>(Step<Real>(l, t, row, tile), dh, dc, d);
            store<Real>(l.d_state + at, dh);
            if (l.d_cell) store<Real>(l.d_cell + at, dc);
            Real *to = l.d_gates + (t * l.batch + row) * l.template gates_size<Cell>() + begin_tile;
            for (int slot = 0; slot < Cell::SLOTS; slot++)
                store_part<Real>(to + slot * l.width, d[slot], left);
        }
    }
    for (int i = 0; i < LANES<Real>; i++)
        if (any[i]) return true;
    return false;
}

// Returns the first step that has a gradient.
template <class Cell, class Real>
static int64_t backward_rows(const Layer<Real> &l, int64_t begin, int64_t end) {
    const int64_t P = l.padded(), n = Cell::GATES * l.width, stride = l.template gates_size<Cell>();
    for (int64_t t = l.time - 1; t >= 0; t--) {
        const bool any = gates_backward<Cell, Real>(l, t, begin, end);
        if (!any && !l.d_states) return t + 1;
        const int64_t row = t * l.batch + begin, rows = end - begin;
        const Real *d = l.d_gates + row * stride;
        add_wide_product<Real>(
            l.d_state + begin * P, P, P, d + Cell::STATE_SLOT * l.width, stride, l.state_weights, n, rows
        );
        if (l.d_x) {
            const int64_t size = vectors<Real>(l.dim) * LANES<Real>;
            add_wide_product<Real>(l.d_x + row * size, size, size, d, stride, l.input_weights, n, rows);
        }
    }
    return 0;
}

// Gradients of the weights of some values of a row, from all steps from `first` on; those of the gates
// begin at a slot. Sums of pieces, which are then added, since one long sum would round off more.
template <class Cell, class Real>
static void weights_backward(
    const Layer<Real> &l, int64_t first, int64_t begin, int64_t end, int slot
) {
    constexpr int L = LANES<Real>;
    const int64_t n = Cell::GATES * l.width, stride = l.template gates_size<Cell>();
    const int64_t stop = l.time * l.batch;
    __builtin_memset(l.d_weights + begin * n, 0, (end - begin) * n * sizeof(Real));
    for (int64_t row = first * l.batch; row < stop; row += PIECE) {
        const int64_t rows = stop - row < PIECE ? stop - row : PIECE;
        for (int64_t at = 0; at < n; at += BLOCK * L) {
            const Real *d = l.d_gates + row * stride + slot * l.width + at;
            const int64_t left = vectors<Real>(n - at);
            with_count<BLOCK>(left < BLOCK ? left : BLOCK, [&](auto width) {
                constexpr int V = decltype(width)::value;
                in_blocks<VALUES>(begin, end, [&](int64_t value, auto values) {
                    multiply<Real, decltype(values)::value, V>(
                        l.row(0, row) + value, 1, l.row_size(), 0, d, stride, 0, rows, 1,
                        [&](int, int) { return Vector<Real>{}; },
                        [&](int r, int v, Vector<Real> sum) {
                            Real *to = l.d_weights + (value + r) * n + at + v * L;
                            const int64_t some = n - at - v * L;
                            store_part<Real>(to, load_part<Real>(to, some) + sum, some);
                        }
                    );
                });
            });
        }
    }
}

template <class Cell, class Real> static void forward(const Layer<Real> &l) {
    pack_gates<Cell>(l);
    share(l.threads, l.batch, [&](int64_t begin, int64_t end) {
        forward_rows<Cell, Real>(l, begin, end);
    });
}

// Gradients of the gates from the first step on that has any, and of the weights.
template <class Cell, class Real> static void backward(const Layer<Real> &l) {
    const int64_t gates = Cell::GATES * l.width;
    pack(l.state_weights, gates, l.width, [&](int64_t gate, int64_t i) {
        return l.w_hh[gate * l.width + i];
    });
    // The candidate, the last of torch's gates, stands first where its shares are apart.
    const int64_t begin = Cell::APART ? gates - l.width : 0;
    if (l.d_x)
        pack(l.input_weights, gates, l.dim, [&](int64_t gate, int64_t i) {
            return l.w_ih[(begin + gate) % gates * l.dim + i];
        });
    share(l.threads, l.batch, [&](int64_t begin, int64_t end) {
        const int64_t first = backward_rows<Cell, Real>(l, begin, end);
        for (int64_t r = begin; r < end; r++) l.first[r] = first;
    });
    int64_t first = l.time;
    for (int64_t r = 0; r < l.batch; r++)
        if (l.first[r] < first) first = l.first[r];
    const int64_t n = l.template gates_size<Cell>();
    for (int64_t r = 0; r < l.batch; r++)
        for (int64_t t = first; t < l.first[r]; t++)
            __builtin_memset(l.d_gates + (t * l.batch + r) * n, 0, n * sizeof(Real));
    const auto weights = [&](int64_t from, int64_t to, int slot) {
        share(l.threads, (to - from + VALUES - 1) / VALUES, [&](int64_t begin, int64_t end) {
            const int64_t stop = from + end * VALUES;
            weights_backward<Cell>(l, first, from + begin * VALUES, stop < to ? stop : to, slot);
        });
    };
    const int64_t inputs = l.dim + 1, all = inputs + 1 + l.width;
    if (Cell::APART) weights(0, inputs, 0);
    weights(Cell::APART ? inputs : 0, all, Cell::STATE_SLOT);
}

#define EXPORT(CELL, REAL)                                                                         \
    extern "C" void CELL##_forward_##REAL(const Layer<REAL> *l) { forward<CELL>(*l); }             \
    extern "C" void CELL##_backward_##REAL(const Layer<REAL> *l) { backward<CELL>(*l); }

EXPORT(Elman, float)
EXPORT(Elman, double)
EXPORT(Lstm, float)
EXPORT(Lstm, double)
EXPORT(Gru, float)
EXPORT(Gru, double)

extern "C" int64_t vector_bytes() { return BYTES; }
