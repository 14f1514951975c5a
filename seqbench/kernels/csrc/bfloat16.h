// bfloat16, the upper half of a float, and products of pairs of them that are summed in float.
// Processors with AVX512_BF16 multiply a pair in the time of a float.

#pragma once

#include "vector.h"

struct Bfloat16 {
    uint16_t bits;
};

// The operand of a product: two values that are summed over.
struct Pair {
    Bfloat16 first, second;
};

template <> struct Format<Pair> {
    typedef uint32_t Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef uint32_t Half __attribute__((vector_size(VECTOR_BYTES / 2)));
};

// As many values as there are floats in a vector.
typedef uint16_t Narrow __attribute__((vector_size(VECTOR_BYTES / 2)));

INLINE Vector<Pair> zero_extend(Narrow values) {
#if defined(__AVX512F__)
    return (Vector<Pair>)_mm512_cvtepu16_epi32((__m256i)values);  // gcc takes five instructions
#else
    return __builtin_convertvector(values, Vector<Pair>);
#endif
}

INLINE Vector<float> widen(Narrow values) { return (Vector<float>)(zero_extend(values) << 16); }

// Round to the nearest, ties to even.
INLINE Narrow narrow(Vector<float> values) {
#if defined(__AVX512BF16__)
    return (Narrow)_mm512_cvtneps_pbh((__m512)values);
#else
    Vector<Pair> bits = (Vector<Pair>)values;
    bits += 0x7fff + (bits >> 16 & 1);
    const Vector<Pair> nan = Vector<Pair>{} + 0x7fc00000;
    return __builtin_convertvector((values == values ? bits : nan) >> 16, Narrow);
#endif
}

// The first n values, zeros in the other lanes; n may be negative, or larger than a vector.
INLINE Narrow load_narrow(const Bfloat16 *from, int64_t n) {
    Narrow values = {};
    if (n >= LANES<float>)
        __builtin_memcpy(&values, from, sizeof values);
    else
#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512BW__)
        values = (Narrow)_mm256_maskz_loadu_epi16(n > 0 ? (1 << n) - 1 : 0, from);
#else
        for (int i = 0; i < n; i++) values[i] = from[i].bits;
#endif
    return values;
}

INLINE Vector<float> load_part(const Bfloat16 *from, int64_t n) { return widen(load_narrow(from, n)); }

INLINE Vector<float> load(const Bfloat16 *from) { return load_part(from, LANES<float>); }

INLINE void store_part(Bfloat16 *to, Vector<float> values, int64_t n) {
    const Narrow rounded = narrow(values);
    if (n >= LANES<float>)
        __builtin_memcpy(to, &rounded, sizeof rounded);
    else
        for (int i = 0; i < n; i++) to[i].bits = rounded[i];
}

INLINE void store(Bfloat16 *to, Vector<float> values) { store_part(to, values, LANES<float>); }

INLINE Vector<Pair> interleave(Narrow first, Narrow second) {
    return zero_extend(first) | zero_extend(second) << 16;
}

INLINE Vector<Pair> broadcast_pair(const void *from) {
#if defined(__AVX512F__)
    return (Vector<Pair>)_mm512_set1_ps(*(const float *)from);  // gcc would pass an integer register
#else
    uint32_t both;
    __builtin_memcpy(&both, from, sizeof both);
    return Vector<Pair>{} + both;
#endif
}

INLINE Vector<Pair> broadcast(const Pair *from) { return broadcast_pair(from); }
INLINE Vector<Pair> broadcast(const Bfloat16 *from) { return broadcast_pair(from); }  // and the next

// sum + x.first * w.first + x.second * w.second
INLINE Vector<float> multiply_add(Vector<Pair> x, Vector<Pair> w, Vector<float> sum) {
#if defined(__AVX512BF16__)
    return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
#else
    constexpr uint32_t UPPER = 0xffff0000;
    sum = fma((Vector<float>)(x << 16), (Vector<float>)(w << 16), sum);
    return fma((Vector<float>)(x & UPPER), (Vector<float>)(w & UPPER), sum);
#endif
}

INLINE Half<float> multiply_add(Half<Pair> x, Half<Pair> w, Half<float> sum) {
#if defined(__AVX512BF16__)
    return (Half<float>)_mm256_dpbf16_ps((__m256)sum, (__m256bh)x, (__m256bh)w);
#else
    constexpr uint32_t UPPER = 0xffff0000;
    sum = fma((Half<float>)(x << 16), (Half<float>)(w << 16), sum);
    return fma((Half<float>)(x & UPPER), (Half<float>)(w & UPPER), sum);
#endif
}
