// The layers of a LLaMA decoder that are no products, on a CPU, forth and back. What they cost is
// their way through memory: each reads what it needs once and writes its result once.

#include "vectors.h"

// SwiGLU: silu(gate) * up, value by value.
template <class Real> struct Gate {
    int64_t threads, size;
    const Real *gate, *up;
    Real *y;
    const Real *d_y;
    Real *d_gate, *d_up;
};

template <class Real, class Work>
static void share_vectors(int64_t threads, int64_t size, const Work &work) {
    share(threads, vectors<Real>(size), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin * LANES<Real>; i < end * LANES<Real>; i += LANES<Real>)
            work(i, size - i);
    });
}

template <class Real> static void forward(const Gate<Real> &g) {
    share_vectors<Real>(g.threads, g.size, [&](int64_t i, int64_t left) {
        const Vector<Real> gate = load_part<Real>(g.gate + i, left);
        const Vector<Real> up = load_part<Real>(g.up + i, left);
        store_part<Real>(g.y + i, gate * sigmoid<Real>(gate) * up, left);
    });
}

template <class Real> static void backward(const Gate<Real> &g) {
    share_vectors<Real>(g.threads, g.size, [&](int64_t i, int64_t left) {
        const Vector<Real> gate = load_part<Real>(g.gate + i, left), s = sigmoid<Real>(gate);
        const Vector<Real> up = load_part<Real>(g.up + i, left);
        const Vector<Real> d_y = load_part<Real>(g.d_y + i, left);
        store_part<Real>(g.d_up + i, d_y * gate * s, left);
        store_part<Real>(g.d_gate + i, d_y * up * s * (1 + gate * (1 - s)), left);
    });
}

// RMSNorm: each row over the root of its mean square, times weights.
template <class Real> struct Norm {
    int64_t threads, count, width;  // rows, and how wide they are
    int64_t piece;                  // rows that add up their gradients of the weights
    double eps;
    const Real *x, *weight;
    Real *y, *scale;  // scale: (count,), one over the root
    const Real *d_y;
    Real *d_x, *d_weight;  // d_weight: (pieces, width)
};

template <class Real> static void forward(const Norm<Real> &n) {
    constexpr int L = LANES<Real>;
    share(n.threads, n.count, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            const Real *x = n.x + row * n.width;
            Vector<Real> squares = {};
            for (int64_t i = 0; i < n.width; i += L) {
                const Vector<Real> value = load_part<Real>(x + i, n.width - i);
                squares += value * value;
            }
            const Real scale = 1 / __builtin_sqrt(total<Real>(squares) / n.width + n.eps);
            n.scale[row] = scale;
            for (int64_t i = 0; i < n.width; i += L) {
                const int64_t left = n.width - i;
                const Vector<Real> weight = load_part<Real>(n.weight + i, left);
                const Vector<Real> value = load_part<Real>(x + i, left);
                store_part<Real>(n.y + row * n.width + i, value * scale * weight, left);
            }
        }
    });
}

template <class Real> static void backward(const Norm<Real> &n) {
    constexpr int L = LANES<Real>;
    share(n.threads, (n.count + n.piece - 1) / n.piece, [&](int64_t begin, int64_t end) {
        __builtin_memset(n.d_weight + begin * n.width, 0, (end - begin) * n.width * sizeof(Real));
        for (int64_t row = begin * n.piece; row < end * n.piece && row < n.count; row++) {
            const Real *x = n.x + row * n.width, *d_y = n.d_y + row * n.width;
            Real *d_weight = n.d_weight + row / n.piece * n.width;
            const Real scale = n.scale[row];
            Vector<Real> products = {};
            for (int64_t i = 0; i < n.width; i += L) {
                const int64_t left = n.width - i;
                const Vector<Real> value = load_part<Real>(x + i, left);
                const Vector<Real> d = load_part<Real>(d_y + i, left);
                products += value * d * load_part<Real>(n.weight + i, left);
                const Vector<Real> sum = load_part<Real>(d_weight + i, left);
                store_part<Real>(d_weight + i, sum + d * value * scale, left);
            }
            const Real along = total<Real>(products) / n.width * scale * scale;
            for (int64_t i = 0; i < n.width; i += L) {
                const int64_t left = n.width - i;
                const Vector<Real> value = load_part<Real>(x + i, left);
                const Vector<Real> d = load_part<Real>(d_y + i, left);
                const Vector<Real> weight = load_part<Real>(n.weight + i, left);
                const Vector<Real> found = scale * (d * weight - value * along);
                store_part<Real>(n.d_x + row * n.width + i, found, left);
            }
        }
    });
}

#define EXPORT(PART, REAL)                                                                         \
    extern "C" void PART##_forward_##REAL(const PART<REAL> *p) { forward(*p); }                    \
    extern "C" void PART##_backward_##REAL(const PART<REAL> *p) { backward(*p); }

EXPORT(Gate, float)
EXPORT(Gate, double)
EXPORT(Norm, float)
EXPORT(Norm, double)

extern "C" int64_t vector_bytes() { return BYTES; }
