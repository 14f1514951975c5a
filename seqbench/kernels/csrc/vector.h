// SIMD vectors, as wide as the target has them, and the elementwise functions of the layers.
//
// Arithmetic is written out: the build forbids the compiler to contract `a * b + c` (it would do so in
// some loops and not in others, and results would depend on the number of threads), and `fma` is one
// rounding wherever the target has the instruction.

#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

template <class Real> struct Format;

template <> struct Format<float> {
    typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef float Half __attribute__((vector_size(VECTOR_BYTES / 2)));
    typedef int32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr int32_t MANTISSA = 23, BIAS = 127;
    static constexpr float EXP_MAX = 87, LN2_HIGH = 0x1.62ep-1, LN2_LOW = 0x1.0bfbe8p-15;
    static constexpr int EXP_DEGREE = 7;
};

template <> struct Format<double> {
    typedef double Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef double Half __attribute__((vector_size(VECTOR_BYTES / 2)));
    typedef int64_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr int64_t MANTISSA = 52, BIAS = 1023;
    static constexpr double EXP_MAX = 708, LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33;
    static constexpr int EXP_DEGREE = 13;
};

template <class Real> using Vector = typename Format<Real>::Vector;
template <class Real> using Half = typename Format<Real>::Half;
template <class Real> constexpr int LANES = VECTOR_BYTES / sizeof(Real);

INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
// Rounded up; 0 for a negative numerator.
INLINE int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : 0; }

template <class Real> INLINE int64_t vectors(int64_t n) { return ceil_div(n, LANES<Real>); }
template <class Real> INLINE int64_t padded(int64_t n) { return vectors<Real>(n) * LANES<Real>; }

template <class Real> INLINE Vector<Real> load(const Real *from) {
    Vector<Real> value;
    __builtin_memcpy(&value, from, VECTOR_BYTES);
    return value;
}

template <class Real> INLINE void store(Real *to, Vector<Real> value) {
    __builtin_memcpy(to, &value, VECTOR_BYTES);
}

#if defined(__AVX2__) && !defined(__AVX512F__)
template <class Real> INLINE __m256i first_lanes(int64_t n) {
    if constexpr (sizeof(Real) == 4)
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    else
        return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
#endif

// The first n lanes, zeros in the others; n may be negative, or larger than a vector.
template <class Real> INLINE Vector<Real> load_part(const Real *from, int64_t n) {
    if (n >= LANES<Real>) return load<Real>(from);
#if defined(__AVX512F__)
    const int mask = n > 0 ? (1 << n) - 1 : 0;
    if constexpr (sizeof(Real) == 4)
        return _mm512_maskz_loadu_ps(mask, from);
    else
        return _mm512_maskz_loadu_pd(mask, from);
#elif defined(__AVX2__)
    if constexpr (sizeof(Real) == 4)
        return _mm256_maskload_ps(from, first_lanes<Real>(n));
    else
        return _mm256_maskload_pd(from, first_lanes<Real>(n));
#else
    Vector<Real> value = {};
    for (int i = 0; i < n; i++) value[i] = from[i];
    return value;
#endif
}

template <class Real> INLINE void store_part(Real *to, Vector<Real> value, int64_t n) {
    if (n >= LANES<Real>) return store<Real>(to, value);
#if defined(__AVX512F__)
    const int mask = n > 0 ? (1 << n) - 1 : 0;
    if constexpr (sizeof(Real) == 4)
        _mm512_mask_storeu_ps(to, mask, value);
    else
        _mm512_mask_storeu_pd(to, mask, value);
#else  // a masked store takes longer than this on processors of AMD
    for (int i = 0; i < n; i++) to[i] = value[i];
#endif
}

// a * b + c, lane by lane: with one rounding if the target has FMA, else with two.
template <class V> INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64 && sizeof(a[0]) == 4)
        return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
    else if constexpr (sizeof(V) == 64)
        return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#endif
#if defined(__FMA__)
    if constexpr (sizeof(V) == 32 && sizeof(a[0]) == 4)
        return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
    else if constexpr (sizeof(V) == 32)
        return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
    else if constexpr (sizeof(V) == 16 && sizeof(a[0]) == 4)
        return (V)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
    else if constexpr (sizeof(V) == 16)
        return (V)_mm_fmadd_pd((__m128d)a, (__m128d)b, (__m128d)c);
#elif defined(__aarch64__)
    if constexpr (sizeof(a[0]) == 4)
        return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
    else
        return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

// Half vectors, for panels whose upper half would be padding: processors that split a 512-bit
// operation in two take half the time. Narrower vectors have no use for it.
#if defined(__AVX512F__)
constexpr bool HAS_HALVES = true;

template <class Value> INLINE Half<Value> lower_half(Vector<Value> value) {
    return (Half<Value>)_mm512_castsi512_si256((__m512i)value);
}

template <class Value> INLINE Vector<Value> zero_extend(Half<Value> value) {
    return (Vector<Value>)_mm512_zextsi256_si512((__m256i)value);
}
#else
constexpr bool HAS_HALVES = false;
template <class Value> Half<Value> lower_half(Vector<Value> value);
template <class Value> Vector<Value> zero_extend(Half<Value> value);
#endif

// The sum of the lanes.
template <class Real> INLINE Real horizontal_sum(Vector<Real> value) {
    Real sum = 0;
    for (int i = 0; i < LANES<Real>; i++) sum += value[i];
    return sum;
}

// 1 / i!, the coefficients of the Taylor series of e^x.
template <class Real> struct InverseFactorials {
    Real values[Format<Real>::EXP_DEGREE + 1] = {1};
    constexpr InverseFactorials() {
        double factorial = 1;
        for (int i = 1; i <= Format<Real>::EXP_DEGREE; i++) values[i] = Real(1 / (factorial *= i));
    }
};

// e^x - `minus`, where `minus` is 0 or 1, to the last bits of Real; with 1 also near x = 0. NaN stays
// NaN. e^x = 2^n e^r, n the integer next to x / ln 2; e^r - 1 is its Taylor series, whose remainder is
// below rounding for |r| <= ln(2) / 2.
template <class Real> INLINE Vector<Real> exp_minus(Vector<Real> x, Real minus) {
    typedef Format<Real> F;
    typedef Vector<Real> V;
    const V zero = {}, most = zero + F::EXP_MAX;
    x = x > most ? most : x;
    x = x < -most ? -most : x;
    // 1.5 * 2^MANTISSA: a sum as large as this has n in the last bits of its mantissa.
    const V magic = zero + Real(1.5) * Real(int64_t(1) << F::MANTISSA);
    V n = fma(x, zero + Real(1.4426950408889634), magic);
    const V power = V(((typename F::Bits)n + F::BIAS) << F::MANTISSA);
    n -= magic;
    const V r = fma(-n, zero + F::LN2_LOW, fma(-n, zero + F::LN2_HIGH, x));
    constexpr InverseFactorials<Real> inverse;
    V sum = zero + inverse.values[F::EXP_DEGREE];
    for (int i = F::EXP_DEGREE - 1; i > 0; i--) sum = fma(sum, r, zero + inverse.values[i]);
    return fma(power, r * sum, power - minus);
}

template <class Real> INLINE Vector<Real> sigmoid(Vector<Real> x) {
    return 1 / (1 + exp_minus<Real>(-x, 0));
}

template <class Real> INLINE Vector<Real> tanh(Vector<Real> x) {
    const Vector<Real> e = exp_minus<Real>(2 * x, 1);
    return e / (e + 2);
}

// max(x, 0); NaN stays NaN.
template <class Real> INLINE Vector<Real> relu(Vector<Real> x) { return x < 0 ? Vector<Real>{} : x; }
