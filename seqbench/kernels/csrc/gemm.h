// Matrix products in registers: the inner loop of every layer here.
//
// A tile is R rows times V vectors of a product's output, held in registers while the loop runs over
// the K values that are summed. The left operand is read value by value and broadcast, the right one
// vector by vector; it is packed into panels, so that it is read in the order in which it lies:
//
//     weights (K, N)  ->  panel 0: (K, PANEL, LANES), panel 1: (K, PANEL, LANES), ...
//
// with zeros where N is no multiple of LANES. Each sum is taken in the order of K, whatever R and V are:
// tiles of any shape, and so any number of threads, give the same bits.

#pragma once

#include "bfloat16.h"

// Vectors that a tile may hold: enough independent sums to hide the latency of an FMA, few enough to
// leave registers for the operands.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE = 16;
#else
constexpr int TILE = 12;
#endif
constexpr int PANEL = TILE % 3 ? 2 : 3;

template <int N> struct Constant {
    static constexpr int value = N;
};

// Call `work` with n, which is between 1 and N, as a compile-time constant.
template <int N, class Work> INLINE void with_constant(int64_t n, const Work &work) {
    if (n == N)
        work(Constant<N>());
    else if constexpr (N > 1)
        with_constant<N - 1>(n, work);
}

// Rows of a tile of V vectors.
template <int V> constexpr int ROWS = TILE / V < 8 ? TILE / V : 8;

// Call `work(begin, Constant<rows>)` for blocks of at most R rows, as equal as possible: a block of one
// row would have too few sums to hide the latency of an FMA.
template <int R, class Work> INLINE void row_blocks(int64_t begin, int64_t end, const Work &work) {
    for (int64_t blocks = ceil_div(end - begin, R); blocks > 0; blocks--) {
        const int64_t rows = ceil_div(end - begin, blocks);
        with_constant<R>(rows, [&](auto count) { work(begin, count); });
        begin += rows;
    }
}

// Call `work(vectors, half)` for the panel that begins with `columns` columns left: how many vectors it
// has, and whether the last of them is at most half full and a half vector does.
template <class Real, class Work> INLINE void with_panel(int64_t columns, const Work &work) {
    constexpr bool HALF = HAS_HALVES && sizeof(Real) == 4;  // float64 is for tests: no code for it
    with_constant<PANEL>(min(vectors<Real>(columns), PANEL), [&](auto count) {
        if (HALF && decltype(count)::value * LANES<Real> - columns >= LANES<Real> / 2)
            work(count, Constant<HALF>());
        else
            work(count, Constant<false>());
    });
}

// All lanes the same. (Less zero, since x + 0 is not x for negative zeros, and would be computed.)
template <class Real> INLINE Vector<Real> broadcast(const Real *from) {
    return *from - Vector<Real>{};
}

template <class V> INLINE V multiply_add(V value, V weights, V sum) { return fma(value, weights, sum); }

// Keep a value in a register where gcc would rather load it anew for each use.
template <class V> INLINE V in_register(V value) {
#if defined(__x86_64__)
    __asm__("" : "+v"(value));
#endif
    return value;
}

// A tile of a product whose sums are of type Real. With HALF, the last of the V vectors is a half one.
template <class Real, int R, int V, bool HALF = false> struct Tile {
    static constexpr int FULL = HALF ? V - 1 : V;
    Vector<Real> sum[R][FULL + 1];  // one more than needed, since there are no empty arrays
    Half<Real> half[R];

    // Set each sum to `initial(row, vector)`.
    template <class Initial> INLINE explicit Tile(const Initial &initial) {
        for (int r = 0; r < R; r++) {
            for (int v = 0; v < FULL; v++) sum[r][v] = initial(r, v);
            if constexpr (HALF) half[r] = lower_half<Real>(initial(r, FULL));
        }
    }

    // Add the products of R rows with n rows of weights. Strides: from a row to the next, from a value
    // to the next, from one row of weights to the next. Values and weights may be of another type that
    // `broadcast` and `multiply_add` know.
    template <class From, class Weight>
    INLINE void add(
        const From *from, int64_t row, int64_t value, const Weight *weights, int64_t weights_row,
        int64_t n
    ) {
        for (int64_t k = 0; k < n; k++, from += value, weights += weights_row) {
            if constexpr (V <= R || TILE == 16) {
                Vector<Weight> w[V];
                for (int v = 0; v < V; v++)
                    w[v] = in_register(load<Weight>(weights + v * LANES<Weight>));
                for (int r = 0; r < R; r++) {
                    const auto x = broadcast(from + r * row);
                    for (int v = 0; v < FULL; v++) sum[r][v] = multiply_add(x, w[v], sum[r][v]);
                    if constexpr (HALF)
                        half[r] = multiply_add(
                            lower_half<Weight>(x), lower_half<Weight>(w[FULL]), half[r]
                        );
                }
            } else {
                static_assert(!HALF);  // targets with half vectors have 32 registers
                decltype(broadcast(from)) x[R];
                for (int r = 0; r < R; r++) x[r] = broadcast(from + r * row);
                for (int v = 0; v < V; v++) {
                    const Vector<Weight> w = in_register(load<Weight>(weights + v * LANES<Weight>));
                    for (int r = 0; r < R; r++) sum[r][v] = multiply_add(x[r], w, sum[r][v]);
                }
            }
        }
    }

    // Call `take(row, vector, sum)` for each sum.
    template <class Take> INLINE void finish(const Take &take) const {
        for (int r = 0; r < R; r++) {
            for (int v = 0; v < FULL; v++) take(r, v, sum[r][v]);
            if constexpr (HALF) take(r, FULL, zero_extend<Real>(half[r]));
        }
    }
};

// Pack weights of n rows and `width` columns into panels; `weight(row, column)` gives one.
template <class Real, class Weight>
INLINE void pack(Real *to, int64_t n, int64_t width, const Weight &weight) {
    for (int64_t column = 0; column < width; column += PANEL * LANES<Real>) {
        const int64_t size = min(vectors<Real>(width - column), PANEL) * LANES<Real>;
        for (int64_t k = 0; k < n; k++)
            for (int64_t j = 0; j < size; j++)
                to[k * size + j] = column + j < width ? weight(k, column + j) : Real{};
        to += n * size;
    }
}

// The product of rows of n values with packed weights of `width` columns, vector by vector: each sum
// starts at `initial(row, column)`, and `take(row, column, sum)` receives it.
template <class Real, class Initial, class Take>
INLINE void multiply_packed(
    const Real *from, int64_t from_row, int64_t rows, const Real *weights, int64_t n, int64_t width,
    const Initial &initial, const Take &take
) {
    for (int64_t column = 0; column < width; column += PANEL * LANES<Real>) {
        with_panel<Real>(width - column, [&](auto count, auto half) {
            constexpr int V = decltype(count)::value;
            row_blocks<ROWS<V>>(0, rows, [&](int64_t row, auto block) {
                Tile<Real, decltype(block)::value, V, decltype(half)::value> tile([&](int r, int v) {
                    return initial(row + r, column + v * LANES<Real>);
                });
                const Real *values = from + row * from_row;
                tile.add(values, from_row, 1, weights + column * n, V * LANES<Real>, n);
                tile.finish([&](int r, int v, Vector<Real> sum) {
                    take(row + r, column + v * LANES<Real>, sum);
                });
            });
        });
    }
}
