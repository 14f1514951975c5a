// LSTM, GRU and Elman layers over a whole sequence on a CPU, forth and back.
//
// A step of such a layer is a small product of matrices, the state's with the weights, and a few
// functions of what comes out. Here
// - a tile is as many hidden units as a vector has lanes. Its weights lie in memory in the order in
//   which they are read, and its gates go from the product to the functions in registers;
// - a thread takes its rows of the batch through all steps, so that no thread waits for another, and
//   a row has the same result with any number of them;
// - on the way back the loop ends where no gradient is left: zeros stay zeros.
// The gradients of the weights are one product over all steps, which is left to the caller.

#include <cstdint>

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

// Sums that a product holds in registers: a half of those there are.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int SUMS = 16;
#else
constexpr int SUMS = 8;
#endif
constexpr int BLOCK = 2;  // vectors in a block of weights, where they are no tile's

template <class Real> struct Format;

template <> struct Format<float> {
    typedef float Vector __attribute__((vector_size(BYTES)));
    typedef int32_t Bits __attribute__((vector_size(BYTES)));
    static constexpr int32_t MANTISSA = 23, BIAS = 127;
    static constexpr float LARGEST = 87, LN2_HIGH = 0x1.62ep-1, LN2_LOW = 0x1.0bfbe8p-15;
    static constexpr int TERMS = 7;  // of Taylor's series
};

template <> struct Format<double> {
    typedef double Vector __attribute__((vector_size(BYTES)));
    typedef int64_t Bits __attribute__((vector_size(BYTES)));
    static constexpr int64_t MANTISSA = 52, BIAS = 1023;
    static constexpr double LARGEST = 708, LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33;
    static constexpr int TERMS = 13;
};

template <class Real> using Vector = typename Format<Real>::Vector;
template <class Real> constexpr int LANES = BYTES / sizeof(Real);

// How many vectors hold n values.
template <class Real> INLINE int64_t vectors(int64_t n) { return (n + LANES<Real> - 1) / LANES<Real>; }

template <class Real> INLINE Vector<Real> load(const Real *from) {
    Vector<Real> value;
    __builtin_memcpy(&value, from, BYTES);
    return value;
}

template <class Real> INLINE void store(Real *to, Vector<Real> value) {
    __builtin_memcpy(to, &value, BYTES);
}

// e^x - `less`, which is 0 or 1, exact to the last bits; for 1 also near zero. e^x = 2^n e^r: n is the
// nearest whole number to x / ln 2, and e^r - 1 is Taylor's series, whose rest is below rounding for
// |r| <= ln(2) / 2. NaN stays NaN.
template <class Real> INLINE Vector<Real> exponential(Vector<Real> x, Real less) {
    typedef Format<Real> F;
    const Vector<Real> zero = {}, most = zero + F::LARGEST;
    x = x > most ? most : x;
    x = x < -most ? -most : x;
    // In a number as large as this the last bits of the mantissa count ones: they are n.
    const Real ones = Real(1.5) * Real(int64_t(1) << F::MANTISSA);
    Vector<Real> n = x * Real(1.4426950408889634) + ones;
    const Vector<Real> power = Vector<Real>(((typename F::Bits)n + F::BIAS) << F::MANTISSA);
    n -= ones;
    const Vector<Real> r = x - n * F::LN2_HIGH - n * F::LN2_LOW;
    Vector<Real> sum = zero + 1;
    for (int i = F::TERMS; i > 1; i--) sum = sum * r * Real(1.0 / i) + 1;
    return power * (r * sum) + (power - less);
}

template <class Real> INLINE Vector<Real> sigmoid(Vector<Real> x) {
    return 1 / (1 + exponential<Real>(-x, 0));
}

template <class Real> INLINE Vector<Real> tangent(Vector<Real> x) {
    const Vector<Real> e = exponential<Real>(2 * x, 1);
    return e / (e + 2);
}

// The same of the first n values alone; n may be larger than there are lanes.
template <class Real> INLINE Vector<Real> load_part(const Real *from, int64_t n) {
    if (n >= LANES<Real>) return load<Real>(from);
    Vector<Real> value = {};
    for (int i = 0; i < n; i++) value[i] = from[i];
    return value;
}

template <class Real> INLINE void store_part(Real *to, Vector<Real> value, int64_t n) {
    if (n >= LANES<Real>) return store<Real>(to, value);
    for (int i = 0; i < n; i++) to[i] = value[i];
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
    Real *saved;         // (time, batch, 4, P)
    // To work in: the weights in the order in which they are read, and a product's sums.
    Real *weights;       // (dim + 2 + width, gates, P)
    Real *sums;          // (batch, 2, gates, lane)
    // For the way back.
    Real *input_weights, *state_weights;  // to work in: (gates * width, P), where the input has a P
    const Real *d_states;                 // (time, batch, width)
    int64_t d_states_time, d_states_row;  // how far apart its steps and its rows are
    Real *d_state, *d_cell;  // (batch, P): after the last step, at the end before the first
    Real *d_gates;           // (time, batch, slots, width)
    Real *d_x;               // (time, batch, dim filled up to whole vectors), zeros before
    int64_t *first;          // (batch,): the first step with a gradient

    int64_t tiles() const { return vectors<Real>(width); }
    int64_t padded() const { return tiles() * LANES<Real>; }
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
        saved = l.saved ? l.saved + (t * l.batch + row) * 4 * padded + at : nullptr;
    }

    void save(int slot, Vector<Real> value) const {
        if (saved) store<Real>(saved + slot * padded, value);
    }
    Vector<Real> get(int slot) const { return load<Real>(saved + slot * padded); }
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

template <int N> struct Count {
    static constexpr int value = N;
};

// Do work for a number from 1 to N that is known when this is compiled.
template <int N, class Work> INLINE void with_count(int64_t n, const Work &work) {
    if (n == N)
        work(Count<N>());
    else if constexpr (N > 1)
        with_count<N - 1>(n, work);
}

// Rows, R at a time as long as there are so many, then half of them, and so on to one.
template <int R, class Work> INLINE void in_blocks(int64_t begin, int64_t end, const Work &work) {
    for (; begin + R <= end; begin += R) work(begin, Count<R>());
    if constexpr (R > 1) in_blocks<R / 2>(begin, end, work);
}

// `to` += `from` times weights, for R rows: n values of each row times n times V vectors.
template <class Real, int R, int V>
INLINE void add_to_rows(
    Real *to, int64_t to_stride, const Real *from, int64_t from_stride, const Real *weights, int64_t n
) {
    Vector<Real> sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = load<Real>(to + r * to_stride + v * LANES<Real>);
    for (int64_t k = 0; k < n; k++) {
        for (int v = 0; v < V; v++) {
            Vector<Real> w = load<Real>(weights + (k * V + v) * LANES<Real>);
#if defined(__x86_64__)
            __asm__("" : "+v"(w));  // in a register: gcc would load it anew for each row
#endif
            for (int r = 0; r < R; r++) sum[r][v] += from[r * from_stride + k] * w;
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store<Real>(to + r * to_stride + v * LANES<Real>, sum[r][v]);
}

// The same for any number of rows.
template <class Real, int V>
INLINE void add_product(
    Real *to, int64_t to_stride, const Real *from, int64_t from_stride, const Real *weights,
    int64_t n, int64_t rows
) {
    in_blocks<SUMS / V>(0, rows, [&](int64_t row, auto count) {
        add_to_rows<Real, decltype(count)::value, V>(
            to + row * to_stride, to_stride, from + row * from_stride, from_stride, weights, n
        );
    });
}

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

// Weights (n, width) for the way back: (block, n, vector, lane), from row `begin` on and around.
template <class Real>
static void pack_blocks(Real *to, const Real *from, int64_t n, int64_t width, int64_t begin) {
    for (int64_t at = 0; at < width; at += BLOCK * LANES<Real>) {
        const int64_t left = vectors<Real>(width - at), size = (left < BLOCK ? left : BLOCK) * LANES<Real>;
        for (int64_t i = 0; i < n; i++, to += size)
            for (int64_t j = 0; j < size; j++)
                to[j] = at + j < width ? from[(begin + i) % n * width + at + j] : 0;
    }
}

template <class Cell, class Real>
static void forward_rows(const Layer<Real> &l, int64_t begin, int64_t end) {
    constexpr int G = Cell::GATES, L = LANES<Real>, size = 2 * G * L;
    typedef Vector<Real> V;
    const int64_t inputs = l.dim + 1, states = l.width + 1, rows = end - begin;
    // What enters the gates: the input's share and, where they are wanted apart, the state's.
    Real *from_input = l.sums + begin * size;
    Real *from_state = Cell::APART ? from_input + G * L : from_input;
    for (int64_t t = 0; t < l.time; t++) {
        for (int64_t tile = 0; tile < l.tiles(); tile++) {
            // In the last tile the gates are as wide as there are units left.
            const int64_t left = l.width - tile * L, units = left < L ? left : L;
            const Real *weights = l.weights + tile * (inputs + states) * G * L;
            __builtin_memset(from_input, 0, rows * size * sizeof(Real));
            with_count<G>(vectors<Real>(G * units), [&](auto count) {
                constexpr int N = decltype(count)::value;
                const Real *values = l.row(t, begin);
                const int64_t stride = l.row_size();
                add_product<Real, N>(from_input, size, values, stride, weights, inputs, rows);
                add_product<Real, N>(
                    from_state, size, values + inputs, stride, weights + inputs * N * L, states, rows
                );
            });
            for (int64_t row = 0; row < rows; row++) {
                V input[G], state[G];
                for (int g = 0; g < G; g++) {
                    const int64_t at = row * size + g * units;
                    input[g] = load_part<Real>(from_input + at, units);
                    state[g] = load_part<Real>(from_state + at, units);
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
            Real *to = l.d_gates + (t * l.batch + row) * Cell::SLOTS * l.width + begin_tile;
            for (int slot = 0; slot < Cell::SLOTS; slot++)
                store_part<Real>(to + slot * l.width, d[slot], left);
        }
    }
    for (int i = 0; i < LANES<Real>; i++)
        if (any[i]) return true;
    return false;
}

// The same for weights of any width, in blocks of so many vectors.
template <class Real>
INLINE void add_wide_product(
    Real *to, int64_t width, const Real *from, int64_t from_stride, const Real *weights, int64_t n,
    int64_t rows
) {
    for (int64_t at = 0; at < width; at += BLOCK * LANES<Real>) {
        const int64_t left = vectors<Real>(width - at);
        with_count<BLOCK>(left < BLOCK ? left : BLOCK, [&](auto count) {
            add_product<Real, decltype(count)::value>(
                to + at, width, from, from_stride, weights + at * n, n, rows
            );
        });
    }
}

// Returns the first step that has a gradient.
template <class Cell, class Real>
static int64_t backward_rows(const Layer<Real> &l, int64_t begin, int64_t end) {
    const int64_t P = l.padded(), n = Cell::GATES * l.width, stride = Cell::SLOTS * l.width;
    for (int64_t t = l.time - 1; t >= 0; t--) {
        const bool any = gates_backward<Cell, Real>(l, t, begin, end);
        if (!any && !l.d_states) return t + 1;
        const int64_t row = t * l.batch + begin, rows = end - begin;
        const Real *d = l.d_gates + row * stride;
        add_wide_product<Real>(
            l.d_state + begin * P, P, d + Cell::STATE_SLOT * l.width, stride, l.state_weights, n, rows
        );
        if (l.d_x) {
            const int64_t size = vectors<Real>(l.dim) * LANES<Real>;
            add_wide_product<Real>(l.d_x + row * size, size, d, stride, l.input_weights, n, rows);
        }
    }
    return 0;
}

// Let threads share the rows, each with the caller's way of treating denormal numbers.
template <class Work> static void share_rows(int64_t threads, int64_t batch, const Work &work) {
    if (threads > batch) threads = batch;
    const int64_t share = (batch + threads - 1) / threads;
#if defined(__x86_64__)
    const unsigned mode = __builtin_ia32_stmxcsr();
#endif
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < threads; i++) {
#if defined(__x86_64__)
        const unsigned before = __builtin_ia32_stmxcsr();
        __builtin_ia32_ldmxcsr(mode);
#endif
        const int64_t begin = i * share, end = begin + share < batch ? begin + share : batch;
        if (begin < end) work(begin, end);
#if defined(__x86_64__)
        __builtin_ia32_ldmxcsr(before);
#endif
    }
}

template <class Cell, class Real> static int64_t forward(const Layer<Real> &l) {
    pack_gates<Cell>(l);
    share_rows(l.threads, l.batch, [&](int64_t begin, int64_t end) {
        forward_rows<Cell, Real>(l, begin, end);
    });
    return 0;
}

// Gradients of the gates from the first step on that has any; returns that step.
template <class Cell, class Real> static int64_t backward(const Layer<Real> &l) {
    const int64_t gates = Cell::GATES * l.width;
    pack_blocks(l.state_weights, l.w_hh, gates, l.width, 0);
    // The candidate, the last of torch's gates, stands first where its shares are apart.
    if (l.d_x) pack_blocks(l.input_weights, l.w_ih, gates, l.dim, Cell::APART ? gates - l.width : 0);
    share_rows(l.threads, l.batch, [&](int64_t begin, int64_t end) {
        const int64_t first = backward_rows<Cell, Real>(l, begin, end);
        for (int64_t r = begin; r < end; r++) l.first[r] = first;
    });
    int64_t first = l.time;
    for (int64_t r = 0; r < l.batch; r++)
        if (l.first[r] < first) first = l.first[r];
    const int64_t n = Cell::SLOTS * l.width;
    for (int64_t r = 0; r < l.batch; r++)
        for (int64_t t = first; t < l.first[r]; t++)
            __builtin_memset(l.d_gates + (t * l.batch + r) * n, 0, n * sizeof(Real));
    return first;
}

#define EXPORT(CELL, REAL)                                                                         \
    extern "C" int64_t CELL##_forward_##REAL(const Layer<REAL> *l) {                               \
        return forward<CELL>(*l);                                                                  \
    }                                                                                              \
    extern "C" int64_t CELL##_backward_##REAL(const Layer<REAL> *l) { return backward<CELL>(*l); }

EXPORT(Elman, float)
EXPORT(Elman, double)
EXPORT(Lstm, float)
EXPORT(Lstm, double)
EXPORT(Gru, float)
EXPORT(Gru, double)

extern "C" int64_t vector_bytes() { return BYTES; }
