// Vectors of a processor, whatever their width, and products of small matrices with them: what the
// compiled layers have in common.

#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

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
    typedef float Half __attribute__((vector_size(BYTES / 2)));
    typedef int32_t Bits __attribute__((vector_size(BYTES)));
    static constexpr int32_t MANTISSA = 23, BIAS = 127;
    static constexpr float LARGEST = 87, LN2_HIGH = 0x1.62ep-1, LN2_LOW = 0x1.0bfbe8p-15;
    static constexpr int TERMS = 7;  // of Taylor's series
};

template <> struct Format<double> {
    typedef double Vector __attribute__((vector_size(BYTES)));
    typedef double Half __attribute__((vector_size(BYTES / 2)));
    typedef int64_t Bits __attribute__((vector_size(BYTES)));
    static constexpr int64_t MANTISSA = 52, BIAS = 1023;
    static constexpr double LARGEST = 708, LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33;
    static constexpr int TERMS = 13;
};

template <class Real> using Vector = typename Format<Real>::Vector;
template <class Real> using Half = typename Format<Real>::Half;
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

// The same of the first n values alone; n may be larger than there are lanes.
template <class Real> INLINE Vector<Real> load_part(const Real *from, int64_t n) {
    if (n >= LANES<Real>) return load<Real>(from);
#if defined(__AVX512F__)
    const int some = n > 0 ? (1 << n) - 1 : 0;
    if constexpr (sizeof(Real) == 4)
        return _mm512_maskz_loadu_ps(some, from);
    else
        return _mm512_maskz_loadu_pd(some, from);
#else
    Vector<Real> value = {};
    for (int i = 0; i < n; i++) value[i] = from[i];
    return value;
#endif
}

template <class Real> INLINE void store_part(Real *to, Vector<Real> value, int64_t n) {
    if (n >= LANES<Real>) return store<Real>(to, value);
#if defined(__AVX512F__)
    const int some = n > 0 ? (1 << n) - 1 : 0;
    if constexpr (sizeof(Real) == 4)
        _mm512_mask_storeu_ps(to, some, value);
    else
        _mm512_mask_storeu_pd(to, some, value);
#else
    for (int i = 0; i < n; i++) to[i] = value[i];
#endif
}

// Half vectors, for where the upper half would be empty: a processor that makes two of each long
// operation takes half the time, others take no more. Shorter ones have no use for it.
#if defined(__AVX512F__)
constexpr bool HALVES = true;

template <class Value> INLINE Half<Value> lower(Vector<Value> value) {
    return (Half<Value>)_mm512_castsi512_si256((__m512i)value);
}

template <class Value> INLINE Vector<Value> filled(Half<Value> value) {
    return (Vector<Value>)_mm512_zextsi256_si512((__m256i)value);
}
#else
constexpr bool HALVES = false;
template <class Value> Half<Value> lower(Vector<Value> value);
template <class Value> Vector<Value> filled(Half<Value> value);
#endif

// The sum of its values.
template <class Real> INLINE Real total(Vector<Real> value) {
    Real sum = 0;
    for (int i = 0; i < LANES<Real>; i++) sum += value[i];
    return sum;
}

// 1 / i! for i up to so many.
template <class Real> struct Taylor {
    Real terms[Format<Real>::TERMS + 1] = {1};
    constexpr Taylor() {
        double factorial = 1;
        for (int i = 1; i <= Format<Real>::TERMS; i++) terms[i] = Real(1 / (factorial *= i));
    }
};

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
    constexpr Taylor<Real> taylor;
    Vector<Real> sum = zero + taylor.terms[F::TERMS];
    for (int i = F::TERMS - 1; i > 0; i--) sum = sum * r + taylor.terms[i];
    return power * (r * sum) + (power - less);
}

template <class Real> INLINE Vector<Real> sigmoid(Vector<Real> x) {
    return 1 / (1 + exponential<Real>(-x, 0));
}

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

// Do work for how many vectors a block of weights takes of so many lanes, and whether the last of
// them is a half one.
template <class Real, class Work> INLINE void with_block(int64_t lanes, const Work &work) {
    constexpr bool HALF = HALVES && sizeof(Real) == 4;  // doubles do not train: no code for them
    const int64_t left = vectors<Real>(lanes);
    with_count<BLOCK>(left < BLOCK ? left : BLOCK, [&](auto count) {
        if (HALF && decltype(count)::value * LANES<Real> - lanes >= LANES<Real> / 2)
            work(count, Count<HALF>());
        else
            work(count, Count<false>());
    });
}

// Rows, R at a time as long as there are so many, then half of them, and so on to one.
template <int R, class Work> INLINE void in_blocks(int64_t begin, int64_t end, const Work &work) {
    for (; begin + R <= end; begin += R) work(begin, Count<R>());
    if constexpr (R > 1) in_blocks<R / 2>(begin, end, work);
}

// A value that is multiplied by vectors; of real numbers, processors spread it themselves.
template <class Real> INLINE Real spread(const Real *from) { return *from; }

template <class Real, class Sum> INLINE Sum add_product(Sum sum, Real value, Sum weights) {
    return sum + value * weights;
}

// R rows times V vectors of weights, the last of them a half one if so: for each row the sum over so
// many segments of n values, each times its weights, which lie close together within a segment.
// Steps: from a row to the next, from a value to the next, and so on. `begin(r, v)` gives what a sum
// begins with, `end(r, v, sum)` takes it. `Real`: what sums are of; values and weights may be of
// other kinds that `add_product` knows.
template <
    class Real, int R, int V, bool HALF = false, class From, class Weight, class Begin, class End>
INLINE void multiply(
    const From *from, int64_t from_row, int64_t from_value, int64_t from_segment,
    const Weight *weights, int64_t weights_value, int64_t weights_segment, int64_t n,
    int64_t segments, const Begin &begin, const End &end
) {
    constexpr int WHOLE = HALF ? V - 1 : V;
    Vector<Real> sum[R][WHOLE + 1];  // one more than there may be, as none is no array
    [[maybe_unused]] Half<Real> half[R];
    for (int r = 0; r < R; r++) {
        for (int v = 0; v < WHOLE; v++) sum[r][v] = begin(r, v);
        if constexpr (HALF) half[r] = lower<Real>(begin(r, WHOLE));
    }
    for (int64_t segment = 0; segment < segments; segment++) {
        for (int64_t k = 0; k < n; k++) {
            Vector<Weight> w[V];
            for (int v = 0; v < V; v++) {
                Vector<Weight> each = load<Weight>(weights + k * weights_value + v * LANES<Weight>);
#if defined(__x86_64__)
                __asm__("" : "+v"(each));  // in a register: gcc would load it anew for each row
#endif
                w[v] = each;
            }
            for (int r = 0; r < R; r++) {
                const auto value = spread(from + r * from_row + k * from_value);
                for (int v = 0; v < WHOLE; v++) sum[r][v] = add_product(sum[r][v], value, w[v]);
                if constexpr (HALF)
                    half[r] = add_product(half[r], value, lower<Weight>(w[WHOLE]));
            }
        }
        from += from_segment;
        weights += weights_segment;
    }
    for (int r = 0; r < R; r++) {
        for (int v = 0; v < WHOLE; v++) end(r, v, sum[r][v]);
        if constexpr (HALF) end(r, WHOLE, filled<Real>(half[r]));
    }
}

// `to` = rows of `from` times weights, n values a row and V vectors a value; or added to it.
template <class Real, int V, bool ADD>
INLINE void product(
    Real *to, int64_t to_row, const Real *from, int64_t from_row, const Real *weights, int64_t n,
    int64_t rows
) {
    in_blocks<SUMS / V>(0, rows, [&](int64_t row, auto count) {
        Real *place = to + row * to_row;
        multiply<Real, decltype(count)::value, V>(
            from + row * from_row, from_row, 1, 0, weights, V * LANES<Real>, 0, n, 1,
            [&](int r, int v) {
                if constexpr (ADD) return load<Real>(place + r * to_row + v * LANES<Real>);
                return Vector<Real>{};
            },
            [&](int r, int v, Vector<Real> sum) {
                store<Real>(place + r * to_row + v * LANES<Real>, sum);
            }
        );
    });
}

// Added, for rows of any width, with weights that `pack` has put in blocks of so many vectors.
template <class Real>
INLINE void add_wide_product(
    Real *to, int64_t to_row, int64_t width, const Real *from, int64_t from_row,
    const Real *weights, int64_t n, int64_t rows
) {
    for (int64_t at = 0; at < width; at += BLOCK * LANES<Real>) {
        const int64_t left = vectors<Real>(width - at);
        with_count<BLOCK>(left < BLOCK ? left : BLOCK, [&](auto count) {
            product<Real, decltype(count)::value, true>(
                to + at, to_row, from, from_row, weights + at * n, n, rows
            );
        });
    }
}

// Weights of n values and a width: (block, n, vector, lane), filled up with zeros. `weight` gives one.
template <class Real, class Weight>
INLINE void pack(Real *to, int64_t n, int64_t width, const Weight &weight) {
    for (int64_t at = 0; at < width; at += BLOCK * LANES<Real>) {
        const int64_t left = vectors<Real>(width - at);
        const int64_t size = (left < BLOCK ? left : BLOCK) * LANES<Real>;
        for (int64_t j = 0; j < size; j++)
            for (int64_t k = 0; k < n; k++)
                to[k * size + j] = at + j < width ? weight(k, at + j) : Real{};
        to += n * size;
    }
}

// Things of one kind, and the work on those from `begin` to before `end`.
template <class Work> struct Shared {
    int64_t things;
    Work work;

    // What one of so many threads does.
    void take(int64_t thread, int64_t threads) const {
        const int64_t each = (things + threads - 1) / threads, begin = thread * each;
        if (begin < things) work(begin, begin + each < things ? begin + each : things);
    }
};
template <class Work> Shared(int64_t, Work) -> Shared<Work>;

// Let threads share several kinds of things: each takes its part of the first kind, and then, without
// waiting for the others, that of the next. On x86, each treats denormal numbers as the caller does.
template <class... Works> static void share(int64_t threads, const Shared<Works> &...all) {
    int64_t most = 0;
    ((most = all.things > most ? all.things : most), ...);
    if (most < 1) return;
    if (threads > most) threads = most;
#if defined(__x86_64__)
    const unsigned mode = __builtin_ia32_stmxcsr();
#endif
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < threads; i++) {
#if defined(__x86_64__)
        const unsigned before = __builtin_ia32_stmxcsr();
        __builtin_ia32_ldmxcsr(mode);
#endif
        (all.take(i, threads), ...);
#if defined(__x86_64__)
        __builtin_ia32_ldmxcsr(before);
#endif
    }
}

template <class Work> static void share(int64_t threads, int64_t things, const Work &work) {
    share(threads, Shared<const Work &>{things, work});
}
