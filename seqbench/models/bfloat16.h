// Numbers of 16 bits, the upper halves of floats, and products of pairs of them that are summed as
// floats. Processors with AVX512_BF16 do two such products in the time of one of floats.

#pragma once

#include "vectors.h"

struct Bfloat16 {
    uint16_t bits;
};

// What a product takes at once.
struct Pair {
    Bfloat16 first, second;
};

template <> struct Format<Pair> {
    typedef uint32_t Vector __attribute__((vector_size(BYTES)));
    typedef uint32_t Half __attribute__((vector_size(BYTES / 2)));
};

// As many as there are floats in a vector.
typedef uint16_t Halves __attribute__((vector_size(BYTES / 2)));

// Of twice as many bits, the upper ones zero.
INLINE Vector<Pair> extended(Halves values) {
#if defined(__AVX512F__)
    return (Vector<Pair>)_mm512_cvtepu16_epi32((__m256i)values);  // gcc would take five for this one
#else
    return __builtin_convertvector(values, Vector<Pair>);
#endif
}

INLINE Vector<float> widened(Halves values) { return (Vector<float>)(extended(values) << 16); }

// To the nearest, and of two as near to the even one.
INLINE Halves narrowed(Vector<float> values) {
#if defined(__AVX512BF16__)
    return (Halves)_mm512_cvtneps_pbh((__m512)values);
#else
    Vector<Pair> bits = (Vector<Pair>)values;
    bits += 0x7fff + (bits >> 16 & 1);
    const Vector<Pair> nan = Vector<Pair>{} + 0x7fc00000;
    return __builtin_convertvector((values == values ? bits : nan) >> 16, Halves);
#endif
}

// The first n values alone; n may be larger than there are lanes.
INLINE Halves halves(const Bfloat16 *from, int64_t n) {
    Halves values = {};
    if (n >= LANES<float>)
        __builtin_memcpy(&values, from, sizeof values);
    else
#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512BW__)
        values = (Halves)_mm256_maskz_loadu_epi16(n > 0 ? (1 << n) - 1 : 0, from);
#else
        for (int i = 0; i < n; i++) values[i] = from[i].bits;
#endif
    return values;
}

INLINE Vector<float> load_part(const Bfloat16 *from, int64_t n) { return widened(halves(from, n)); }

INLINE Vector<float> load(const Bfloat16 *from) { return load_part(from, LANES<float>); }

INLINE void store(Bfloat16 *to, Vector<float> values) {
    const Halves rounded = narrowed(values);
    __builtin_memcpy(to, &rounded, sizeof rounded);
}

INLINE Vector<Pair> paired(Halves first, Halves second) {
    return extended(first) | extended(second) << 16;
}

// A pair, or two values one after the other, in all lanes.
struct Spread {
    Vector<Pair> pairs;
};

INLINE Spread spread_pair(const void *from) {
#if defined(__AVX512F__)
    return {(Vector<Pair>)_mm512_set1_ps(*(const float *)from)};  // gcc would go by way of an integer
#else
    uint32_t both;
    __builtin_memcpy(&both, from, sizeof both);
    return {Vector<Pair>{} + both};
#endif
}

INLINE Spread spread(const Pair *from) { return spread_pair(from); }
INLINE Spread spread(const Bfloat16 *from) { return spread_pair(from); }

INLINE Vector<float> add_product(Vector<float> sum, Spread values, Vector<Pair> pairs) {
#if defined(__AVX512BF16__)
    return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)values.pairs, (__m512bh)pairs);
#else
    constexpr uint32_t UPPER = 0xffff0000;
    sum += (Vector<float>)(values.pairs << 16) * (Vector<float>)(pairs << 16);
    return sum + (Vector<float>)(values.pairs & UPPER) * (Vector<float>)(pairs & UPPER);
#endif
}

INLINE Half<float> add_product(Half<float> sum, Spread values, Half<Pair> pairs) {
#if defined(__AVX512BF16__)
    const Half<Pair> half = lower<Pair>(values.pairs);
    return (Half<float>)_mm256_dpbf16_ps((__m256)sum, (__m256bh)half, (__m256bh)pairs);
#else
    return lower<float>(add_product(filled<float>(sum), values, filled<Pair>(pairs)));
#endif
}
